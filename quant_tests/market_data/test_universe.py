"""The universe: ranks, floors, history, permissions, and that the future changes nothing."""

from __future__ import annotations

import statistics
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_assets.market_data.listed_assets import observed_list
from quant_assets.market_data.schemas import BARS, UNIVERSE
from quant_assets.market_data.universe import WINDOW_SESSIONS, UniverseRule, universe
from quant_resources.broker import Asset
from quant_tests.market_data.deliveries import SESSIONS

SPAN = SESSIONS[:80]


def bars_of(
    symbol: str,
    closes: dict[int, float],
    volume: float = 1e6,
    first: int | None = None,
) -> pl.DataFrame:
    listed = SPAN[min(closes) if first is None else first]
    rows = [
        {
            "session": SPAN[at],
            "symbol": symbol,
            "security_id": f"{symbol}@{listed}",
            "first_session": listed,
            **dict.fromkeys(("open", "high", "low", "close"), close),
            "volume": volume * (1 + at % 7),
            "vwap": close,
            "trade_count": 10,
            "price_factor": 1.0,
            "volume_factor": 1.0,
        }
        for at, close in closes.items()
    ]
    return pl.DataFrame(rows, schema=BARS.schema, orient="row")


def flat(close: float, *, without: tuple[int, ...] = ()) -> dict[int, float]:
    return {at: close for at in range(len(SPAN)) if at not in without}


def names(frame: pl.DataFrame, at: int) -> list[str]:
    return frame.filter(pl.col("session") == SPAN[at]).sort("rank")["symbol"].to_list()


def test_ranks_by_median_dollar_volume() -> None:
    bars = pl.concat([bars_of("A", flat(10.0)), bars_of("B", flat(20.0)), bars_of("C", flat(5.0))])
    found = universe(bars.lazy(), SPAN, SPAN, UniverseRule(size=2))
    assert names(found, 70) == ["B", "A"]
    UNIVERSE.conform(found)
    row = found.filter(symbol="B", session=SPAN[70]).row(0, named=True)
    window = [20.0 * 1e6 * (1 + at % 7) for at in range(11, 71)]
    assert row["median_dollar_volume"] == pytest.approx(statistics.median(window), rel=1e-12)
    assert row["history_sessions"] == WINDOW_SESSIONS
    assert row["rank"] == 1


def test_nothing_before_sixty_sessions_of_history() -> None:
    found = universe(bars_of("A", flat(10.0)).lazy(), SPAN, SPAN, UniverseRule())
    assert found["session"].min() == SPAN[WINDOW_SESSIONS - 1]


def test_price_floor_is_judged_at_the_session() -> None:
    bars = bars_of("A", flat(10.0) | {70: 1.99, 71: 2.0})
    found = universe(bars.lazy(), SPAN, SPAN, UniverseRule())
    assert names(found, 70) == []
    assert names(found, 71) == ["A"]


def test_a_symbol_without_a_bar_is_not_listed_that_session() -> None:
    found = universe(bars_of("A", flat(10.0, without=(70,))).lazy(), SPAN, SPAN, UniverseRule())
    assert names(found, 70) == []
    assert names(found, 71) == ["A"]


def test_a_few_missing_bars_do_not_cost_the_history_but_many_do() -> None:
    few = bars_of("A", flat(10.0, without=tuple(range(30, 36))))
    many = bars_of("B", flat(10.0, without=tuple(range(30, 37))))
    found = universe(pl.concat([few, many]).lazy(), SPAN, SPAN, UniverseRule())
    assert names(found, 65) == ["A"]


def test_new_listing_waits_sixty_sessions() -> None:
    bars = bars_of("A", dict.fromkeys(range(10, 80), 10.0))
    found = universe(bars.lazy(), SPAN, SPAN, UniverseRule())
    assert found["session"].min() == SPAN[10 + WINDOW_SESSIONS - 1]


def list_of(at: int, *symbols: str, shortable: bool = False) -> pl.DataFrame:
    assets = [
        Asset(name, tradable=True, shortable=shortable, fractionable=True) for name in symbols
    ]
    return observed_list(assets, SPAN[at], "test", datetime(2024, 6, 1, tzinfo=UTC))


def test_permissions_are_those_of_the_newest_list_and_none_before_anybody_looked() -> None:
    lists = pl.concat([list_of(70, "A"), list_of(72, "A", shortable=True)])
    bars = pl.concat([bars_of("A", flat(10.0)), bars_of("B", flat(5.0))])
    found = universe(bars.lazy(), SPAN, SPAN, UniverseRule(), listed_assets=lists.lazy())
    known = found.filter(symbol="A").sort("session").select("session", "shortable")
    assert dict(known.rows()) == {
        session: False if at in (70, 71) else True if 72 <= at <= 77 else None
        for at, session in enumerate(SPAN)
        if at >= WINDOW_SESSIONS - 1
    }
    # What the list does not name is not known; it is not forbidden either.
    assert found.filter(symbol="B")["tradable"].null_count() == found.height // 2


def test_a_later_list_changes_no_earlier_session() -> None:
    bars = bars_of("A", flat(10.0)).lazy()
    first = list_of(70, "A")
    late = pl.concat([first, list_of(75, "A", shortable=True)])
    until = [
        universe(bars, SPAN, SPAN, UniverseRule(), listed_assets=lists.lazy()).filter(
            pl.col("session") < SPAN[75]
        )
        for lists in (first, late)
    ]
    assert_frame_equal(*until)


def test_an_index_leaves_its_members_and_ranks_them_alone() -> None:
    bars = pl.concat([bars_of("A", flat(10.0)), bars_of("B", flat(5.0)), bars_of("C", flat(2.5))])
    members = pl.DataFrame(
        {"session": [SPAN[70], SPAN[70], SPAN[71]], "symbol": ["B", "C", "C"]},
    )
    found = universe(bars.lazy(), SPAN, SPAN, UniverseRule(size=2), members=members)
    assert found.select("session", "symbol", "rank").rows() == [
        (SPAN[70], "B", 1),
        (SPAN[70], "C", 2),
        (SPAN[71], "C", 1),
    ]


@settings(max_examples=20, deadline=None)
@given(
    holes=st.lists(st.sets(st.integers(0, 79), max_size=12), min_size=3, max_size=3),
    prices=st.lists(st.floats(1.5, 50.0), min_size=3, max_size=3),
    at=st.integers(59, 79),
)
def test_the_future_and_the_range_of_a_run_change_nothing(
    holes: list[set[int]], prices: list[float], at: int
) -> None:
    bars = pl.concat(
        bars_of(symbol, flat(price, without=tuple(hole)), first=0)
        for symbol, price, hole in zip("ABC", prices, holes, strict=True)
    )
    whole = universe(bars.lazy(), SPAN, SPAN, UniverseRule(size=2))
    window = SPAN[at - WINDOW_SESSIONS + 1 : at + 1]
    alone = universe(
        bars.filter(pl.col("session").is_in(window)).lazy(),
        [SPAN[at]],
        window,
        UniverseRule(size=2),
    )
    assert_frame_equal(whole.filter(session=SPAN[at]), alone)
