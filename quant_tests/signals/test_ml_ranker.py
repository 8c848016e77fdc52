"""The ranker's laws: legs, normalisation, ties, missing predictions, small universes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.signals.strategies.ml_ranker import MlRanker

# A coarse grid makes ties likely; None and NaN are names that were not predicted.
predictions = st.one_of(st.none(), st.just(math.nan), st.integers(-20, 20).map(lambda n: n / 100))
names = st.lists(st.tuples(predictions, st.sampled_from([None, True, False])), max_size=60)


def section(rows: Sequence[tuple[float | None, bool | None]]) -> pl.DataFrame:
    symbols = [f"S{number:03d}" for number in range(len(rows))]
    return pl.DataFrame(
        {
            "symbol": pl.Series(symbols, dtype=pl.String),
            "security_id": pl.Series([f"{name}@2020-01-02" for name in symbols], dtype=pl.String),
            "shortable": pl.Series([row[1] for row in rows], dtype=pl.Boolean),
            "prediction": pl.Series([row[0] for row in rows], dtype=pl.Float64),
        }
    )


@given(names, st.integers(1, 12))
@settings(max_examples=300, deadline=None)
def test_the_laws_of_the_legs(rows: list[tuple[float | None, bool | None]], count: int) -> None:
    universe = section(rows)
    signals = MlRanker(names_per_leg=count).signals(universe)
    assert sorted(signals["security_id"]) == sorted(universe["security_id"])
    joined = signals.join(universe, on="security_id")
    known = joined.filter(pl.col("prediction").is_finite())
    long, short = joined.filter(side="BUY"), joined.filter(side="SELL")
    assert long.height == short.height <= min(count, known.height // 2)
    if long.height:
        assert long["target_weight"].sum() == pytest.approx(1.0, abs=1e-12)
        assert short["target_weight"].sum() == pytest.approx(-1.0, abs=1e-12)
        assert long["target_weight"].n_unique() == short["target_weight"].n_unique() == 1
        # Nobody outside is liked better than the long leg.
        outside = known.filter(pl.col("side") != "BUY")
        assert max(outside["prediction"]) <= min(long["prediction"])
        assert short["shortable"].fill_null(True).all()
        allowed = known.filter((pl.col("side") == "HOLD") & pl.col("shortable").fill_null(True))
        if allowed.height:
            assert min(allowed["prediction"]) >= max(short["prediction"])
        # The other ranked names are closed, the others are left alone.
        held = joined.filter(side="HOLD")
        assert held.filter(pl.col("prediction").is_finite())["target_weight"].eq(0.0).all()
    else:
        assert signals["target_weight"].null_count() == signals.height
        assert signals["side"].eq("HOLD").all()
    silent = joined.filter(~pl.col("prediction").is_finite().fill_null(False))
    assert silent["side"].eq("HOLD").all()
    assert silent["target_weight"].null_count() == silent.height
    assert signals["confidence"].is_between(0, 1).all()
    assert signals["score"].is_finite().all()


@given(st.lists(st.integers(-10_000, 10_000), min_size=2, max_size=80, unique=True))
@settings(max_examples=100, deadline=None)
def test_expected_returns_have_mean_zero_and_deviation_two_percent(values: list[int]) -> None:
    signals = MlRanker().signals(section([(value / 1000, None) for value in values]))
    expected = signals["expected_return"].to_numpy()
    assert np.mean(expected) == pytest.approx(0, abs=1e-12)
    assert np.std(expected) == pytest.approx(0.02, rel=1e-9)


@given(names, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_of_the_rows_does_not_matter(rows, random) -> None:
    universe = section(rows)
    order = list(range(universe.height))
    random.shuffle(order)
    shuffled = universe[order] if order else universe
    ranker = MlRanker()
    assert (
        ranker.signals(universe)
        .sort("security_id")
        .equals(ranker.signals(shuffled).sort("security_id"))
    )


def test_ties_are_broken_by_security() -> None:
    rows = [(0.1, None), (0.5, None), (0.5, None), (0.5, None), (0.1, None), (0.1, None)]
    signals = MlRanker(names_per_leg=2).signals(section(rows)).sort("symbol")
    assert signals["side"].to_list() == ["HOLD", "BUY", "BUY", "HOLD", "SELL", "SELL"]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [(0.3, None)],
        [(0.3, None), (None, None)],
        [(0.2, None)] * 5,
        [(0.2, False), (0.1, False)],
    ],
)
def test_what_cannot_be_ranked_leaves_the_sleeve_alone(rows) -> None:
    signals = MlRanker().signals(section(rows))
    assert signals.height == len(rows)
    assert signals["target_weight"].null_count() == len(rows)
    assert signals["expected_return"].eq(0.0).all()


def test_confidence_grows_towards_both_ends() -> None:
    rows: list[tuple[float | None, bool | None]] = [(n / 10, None) for n in range(5)]
    signals = MlRanker(names_per_leg=1).signals(section(rows)).sort("symbol")
    assert signals["confidence"].to_list() == pytest.approx([0.8, 0.4, 0.0, 0.4, 0.8])
