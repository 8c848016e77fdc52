"""What a strategy is given and what it may answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date

import polars as pl
import pytest

from quant_assets.signals.cross_section import (
    StrategyInputError,
    StrategyOutputError,
    check_inputs,
    cross_sections,
    run_strategy,
)
from quant_assets.signals.strategy import SIGNAL_COLUMNS, Strategy

ONE, TWO = date(2024, 1, 2), date(2024, 1, 3)
UNIVERSE = pl.DataFrame(
    {
        "session": [ONE, ONE, TWO],
        "symbol": ["B", "A", "A"],
        "security_id": ["B@1", "A@1", "A@1"],
    }
)
BARS = pl.DataFrame(
    {"session": [ONE, TWO, TWO], "security_id": ["A@1", "A@1", "B@1"], "close": [1.0, 2.0, 3.0]}
)


def flat(universe: pl.DataFrame) -> pl.DataFrame:
    return universe.select(
        "symbol",
        "security_id",
        score=0.0,
        expected_return=0.0,
        confidence=0.0,
        side=pl.lit("HOLD"),
        target_weight=None,
        stop_loss=None,
        take_profit=None,
    )


def strategy(
    features: Mapping[str, tuple[str, ...]] | None = None,
    answer: Callable[[pl.DataFrame], object] = flat,
    model: str | None = None,
) -> Strategy:
    attributes = {
        "name": "tested",
        "version": "1",
        "features": features or {"market_data/bars": ("close",)},
        "model": model,
        "signals": lambda _self, universe: answer(universe),
    }
    return type("Tested", (Strategy,), attributes)()


def test_the_cross_section_is_the_universe_with_nulls_where_nothing_was_computed() -> None:
    sections = cross_sections(strategy(), UNIVERSE.lazy(), {"market_data/bars": BARS.lazy()})
    assert sections.rows() == [
        (ONE, "A", "A@1", 1.0),
        (ONE, "B", "B@1", None),
        (TWO, "A", "A@1", 2.0),
    ]


def test_a_strategy_sees_one_session_at_a_time_and_no_session_column() -> None:
    seen = []

    def answer(universe: pl.DataFrame) -> pl.DataFrame:
        seen.append((universe.columns, universe["security_id"].to_list()))
        return flat(universe)

    chosen = strategy(answer=answer)
    sections = cross_sections(chosen, UNIVERSE.lazy(), {"market_data/bars": BARS.lazy()})
    frame = run_strategy(chosen, sections, {ONE: "tested-rules-1"})
    assert seen == [(["symbol", "security_id", "close"], ["A@1", "B@1"])]
    assert frame["session"].unique().to_list() == [ONE]
    assert frame["model_version"].unique().to_list() == ["tested-rules-1"]
    nothing = run_strategy(chosen, sections, {})
    assert nothing.is_empty()
    assert nothing.schema == frame.schema


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            {"features/technical": ("rsi_41",)},
            r"Strategy tested reads the column 'rsi_41' of features/technical, which does not exist "
            r"\(did you mean 'rsi_14'\?\)",
        ),
        ({"features/tecnical": ("rsi_14",)}, r"table 'features/tecnical'.*'features/technical'\?"),
        ({"features/labels": ("forward_return",)}, "table 'features/labels', which does not exist"),
        ({"market_data/raw_bars": ("close",)}, "table 'market_data/raw_bars'"),
        (
            {"market_data/bars": ("close",), "market_data/universe": ("close",)},
            "'close' of market_data/universe, which market_data/bars already has",
        ),
        ({"market_data/bars": ("symbol",)}, "'symbol' .* which every cross-section already has"),
    ],
)
def test_what_does_not_exist_is_named_with_the_nearest_name(features, message) -> None:
    with pytest.raises(StrategyInputError, match=message):
        check_inputs(strategy(features))


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(StrategyInputError, match=r"'alpha158_lightgmb'.*'alpha158_lightgbm'\?"):
        check_inputs(strategy(model="alpha158_lightgmb"))


def run(answer: Callable[[pl.DataFrame], object]) -> pl.DataFrame:
    chosen = strategy(answer=answer)
    sections = cross_sections(chosen, UNIVERSE.lazy(), {"market_data/bars": BARS.lazy()})
    return run_strategy(chosen, sections, {ONE: "v", TWO: "v"})


def test_a_column_that_was_not_declared_is_named() -> None:
    with pytest.raises(StrategyInputError, match=r"'closes'.*did you mean 'close'\?.*declare it"):
        run(lambda universe: flat(universe.filter(pl.col("closes") > 0)))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda _universe: None, "returned NoneType, not a Polars DataFrame"),
        (lambda universe: flat(universe).drop("side"), r"missing: \['side'\]"),
        (lambda universe: flat(universe).with_columns(extra=1), r"unknown: \['extra'\]"),
        (
            lambda universe: flat(universe).with_columns(symbol=pl.lit("Z")),
            "session 2024-01-02: signals for 2 names outside the session's universe, .* 'Z'",
        ),
        (
            lambda universe: pl.concat([flat(universe), flat(universe)]),
            "session 2024-01-02: 'A' has more than one signal",
        ),
        (
            lambda universe: flat(universe).with_columns(score=pl.lit("high")),
            "wrong type",
        ),
    ],
)
def test_an_answer_that_is_no_set_of_signals_is_refused(answer, message) -> None:
    with pytest.raises(StrategyOutputError, match=message):
        run(answer)


def test_fewer_names_and_other_column_orders_are_welcome() -> None:
    frame = run(lambda universe: flat(universe).head(1).select(reversed(list(SIGNAL_COLUMNS))))
    assert frame["symbol"].to_list() == ["A", "A"]
