"""Deliveries as bad as they come: the gate loses nothing, raises nothing, and lets only sound rows through."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_assets.market_data.quality_gate import Gated, gate
from quant_assets.market_data.rules import BY_NAME
from quant_assets.market_data.schemas import BARS, QUARANTINE, SMALLEST_PRICE
from quant_tests.market_data.deliveries import (
    SESSIONS,
    action,
    action_frame,
    bar,
    raw_frame,
    steady,
)

SPAN = SESSIONS[:40]
PRICE = st.sampled_from(
    [None, math.nan, math.inf, -math.inf, 0.0, -0.0, -5.0, 1e-300, 1e300, 5e-324, 49.0, 50.0, 51.0]
)
VOLUME = st.sampled_from([None, math.nan, math.inf, -1.0, 0.0, 1.0, 1e6, 1e18])
SYMBOL = st.sampled_from(
    [
        None,
        "",
        "AAA",
        "aaa",
        "BTC/USD",
        "../../etc/passwd",
        "A B",
        "😀",
        "A" * 500,
        "\x00",
        "%00",
        "$(x)",
    ]
)
DAY = st.sampled_from(
    [SPAN[0], SPAN[3], SPAN[39], date(2024, 1, 6), date(2024, 1, 15), date(2024, 2, 28)]
)
TIME = st.sampled_from(
    [
        None,
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, tzinfo=UTC),
        *(datetime(2024, 1, day, 5, tzinfo=UTC) for day in (2, 5, 6, 7)),
    ]
)


def judged(
    rows: list[dict[str, Any]], facts: list[dict[str, Any]] | None = None, shuffled: bool = False
) -> Gated:
    raw = raw_frame(rows)
    raw = raw.sample(fraction=1.0, shuffle=True, seed=3) if shuffled else raw
    return gate(raw.lazy(), action_frame(facts or []).lazy(), SPAN, SPAN)


def good(symbol: str = "GOOD") -> list[dict[str, Any]]:
    return steady(symbol, [50.0 + 0.3 * (n % 4) for n in range(40)])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "symbol": SYMBOL,
                "session": DAY,
                "bar_time": TIME,
                "open": PRICE,
                "high": PRICE,
                "low": PRICE,
                "close": PRICE,
                "volume": VOLUME,
                "vwap": PRICE,
                "trade_count": st.sampled_from([None, -1, 0, 2**62]),
            }
        ),
        min_size=1,
        max_size=25,
    )
)
def test_garbage_is_quarantined_and_hurts_nobody(garbage: list[dict[str, Any]]) -> None:
    rows = [bar("AAA", SPAN[0], 50.0) | sent for sent in garbage]
    found = judged([*good(), *rows])
    delivered = sum(row["session"] in set(SPAN) for row in rows)
    # A day outside of the calendar has no partition; whoever stores rows puts them under a session.
    assert found.bars.height + found.quarantine.height == 40 + delivered
    BARS.conform(found.bars)
    QUARANTINE.conform(found.quarantine)
    assert set(found.quarantine["rule"]) <= set(BY_NAME)
    assert found.bars.filter(symbol="GOOD").height == 40
    for name in ("open", "high", "low", "close"):
        assert found.bars[name].is_finite().all()
        assert (found.bars[name] >= SMALLEST_PRICE).all()
    assert found.bars["symbol"].str.contains(r"^[A-Z.\-0-9]+$").all()
    assert found.bars["volume"].is_between(0, math.inf, closed="left").all()


def test_duplicated_and_shuffled_days_give_the_same_bars() -> None:
    rows = [*good("AAA"), *good("BBB")]
    days = [row for row in rows if row["session"] in SPAN[10:20]]
    straight = judged(rows)
    twice = judged([*rows, *days, *days], shuffled=True)
    assert_frame_equal(twice.bars, straight.bars)
    assert twice.quarantine["rule"].to_list() == ["duplicate"] * 2 * len(days)


def test_a_day_delivered_again_with_other_values_keeps_neither() -> None:
    rows = good("AAA")
    other = {name: rows[20][name] * 1.001 for name in ("open", "high", "low", "close")}
    found = judged([*rows, rows[20] | other], shuffled=True)
    assert found.quarantine["rule"].to_list() == ["conflicting_duplicate"] * 2
    assert SPAN[20] not in found.bars["session"].to_list()


def test_swapped_high_and_low_are_named_and_nothing_else() -> None:
    rows = good("AAA")
    rows[20] |= {"high": rows[20]["low"], "low": rows[20]["high"]}
    found = judged(rows)
    assert found.quarantine.select("session", "rule").rows() == [(SPAN[20], "high_below_low")]


def test_rows_of_days_far_away_are_no_sessions() -> None:
    stray = [
        bar(
            "AAA", SPAN[5], 50.0, bar_time=datetime.combine(SPAN[5], datetime.min.time(), UTC) + gap
        )
        for gap in (timedelta(days=-40_000), timedelta(days=2_000_000), timedelta(days=-1))
    ]
    found = judged([*good(), *stray])
    assert found.quarantine["rule"].to_list() == ["not_a_session"] * 3


def test_nonsense_in_actions_neither_raises_nor_moves_a_price() -> None:
    facts = [
        action("GOOD", SPAN[20], "forward_split", ratio=ratio, action_id=str(ratio))
        for ratio in (None, 0.0, -2.0, math.nan, math.inf)
    ]
    facts += [
        action("GOOD", SPAN[21], "cash_dividend", cash=cash, action_id=f"cash {cash}")
        for cash in (None, 0.0, -1.0, math.nan, math.inf, 1e9)
    ]
    facts.append(action("../x", SPAN[22], "name_change", new_symbol="GOOD"))
    found = judged(good(), facts)
    assert found.bars.height == 40
    assert set(found.bars["price_factor"]) == {1.0}
    assert found.unapplied.height == 11


def test_a_delivery_of_only_garbage_leaves_no_bar() -> None:
    found = judged([bar(None, SPAN[0], None, volume=None) for _ in range(3)])
    assert found.bars.is_empty()
    assert found.quarantine["rule"].to_list() == ["malformed_symbol"] * 3
    assert found.quarantine["symbol"].to_list() == [None] * 3


def test_one_wrong_symbol_in_a_thousand_rows_is_found() -> None:
    rows = [row for number in range(25) for row in good(f"S{number:02d}")]
    rows[500] |= {"symbol": "S12/../S13"}
    found = judged(rows)
    assert found.quarantine.select(pl.col("symbol", "rule")).rows() == [
        ("S12/../S13", "malformed_symbol")
    ]
