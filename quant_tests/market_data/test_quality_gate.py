"""Laws of the gate: nothing is lost, the future changes nothing, a day alone equals the day in bulk."""

from __future__ import annotations

from datetime import date
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_assets.market_data.quality_gate import Gated, gate
from quant_assets.market_data.schemas import BARS, QUARANTINE
from quant_assets.market_data.validation import HISTORY_SESSIONS
from quant_resources.calendar import XNYS
from quant_tests.market_data.deliveries import (
    SESSIONS,
    action,
    action_frame,
    bar,
    raw_frame,
    steady,
)

SPAN = SESSIONS[:231]
#: Longer than a verdict can look back.
LAST = HISTORY_SESSIONS + 100
LONG_SPAN = XNYS.sessions(date(2023, 1, 3), date(2024, 12, 31))[: LAST + 1]


def run(
    raw: pl.DataFrame,
    facts: pl.DataFrame,
    wanted: list[date],
    calendar: list[date] = SPAN,
) -> Gated:
    return gate(raw.lazy(), facts.lazy(), wanted, calendar)


@st.composite
def markets(draw: st.DrawFn) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Four symbols over 420 sessions with jumps, holes, broken rows, duplicates and actions."""
    rows: list[dict[str, Any]] = []
    facts: list[dict[str, Any]] = []
    place = st.integers(0, LAST)
    for symbol in ("AAA", "BBB", "CCC", "DDD"):
        price = draw(st.floats(5.0, 300.0))
        jumps = draw(
            st.dictionaries(place, st.sampled_from([0.2, 0.5, 0.65, 1.5, 2.0, 4.0]), max_size=4)
        )
        heavy = draw(st.sets(place, max_size=4)) | set(
            draw(st.sets(st.sampled_from(sorted(jumps) or [0])))
        )
        quiet = [
            range(start, start + length)
            for start, length in draw(
                st.lists(st.tuples(place, st.sampled_from([10, 60, 150])), max_size=3)
            )
        ]
        holes = [
            range(start, start + length)
            for start, length in draw(
                st.lists(st.tuples(place, st.sampled_from([1, 3, 25, 40])), max_size=3)
            )
        ]
        broken = draw(
            st.dictionaries(
                place, st.sampled_from(["volume", "high", "twice", "other"]), max_size=5
            )
        )
        for at, session in enumerate(LONG_SPAN):
            price *= jumps.get(at, 1.0 + 0.01 * ((at * 7) % 5 - 2))
            if any(at in hole for hole in holes):
                continue
            traded = 2e4 if any(at in span for span in quiet) else 1e6
            row = bar(symbol, session, price, volume=5e6 if at in heavy else traded)
            match broken.get(at):
                case "volume":
                    row["volume"] = -1.0
                case "high":
                    row["high"] = price * 0.5
                case "twice":
                    rows.append(dict(row))
                case "other":
                    rows.append(row | {"close": price * 1.001})
            rows.append(row)
        for at, kind in draw(
            st.dictionaries(
                place, st.sampled_from(["forward_split", "cash_dividend", "merger"]), max_size=3
            )
        ).items():
            terms = {"ratio": 2.0} if kind == "forward_split" else {"cash": 0.5}
            facts.append(action(symbol, LONG_SPAN[at], kind, **terms))
    if draw(st.booleans()):
        at = draw(place)
        facts.append(action("AAA", LONG_SPAN[at], "name_change", new_symbol="BBB"))
    return raw_frame(rows), action_frame(facts)


@settings(max_examples=25, deadline=None)
@given(market=markets(), at=st.integers(0, LAST))
def test_a_session_alone_equals_the_session_in_bulk_and_knows_no_future(
    market: tuple[pl.DataFrame, pl.DataFrame], at: int
) -> None:
    raw, facts = market
    session = LONG_SPAN[at]
    bulk = run(raw, facts, LONG_SPAN, LONG_SPAN)
    alone = run(
        raw.filter(pl.col("session") <= session),
        facts.filter(pl.col("session") <= session),
        [session],
        LONG_SPAN,
    )
    for name in ("bars", "quarantine", "unapplied"):
        whole, part = getattr(bulk, name), getattr(alone, name)
        assert_frame_equal(whole.filter(pl.col("session") == session), part, rel_tol=1e-12)
    assert bulk.bars.height + bulk.quarantine.height == raw.height
    BARS.conform(bulk.bars)
    QUARANTINE.conform(bulk.quarantine)


def test_the_order_of_delivery_does_not_matter() -> None:
    rows = [*steady("AAA", [10.0, 10.1, 5.0, 10.2]), *steady("BBB", [20.0, 20.1, 20.2, 60.0])]
    straight = run(raw_frame(rows), action_frame(), SPAN)
    shuffled = run(raw_frame(rows[::-1]), action_frame(), SPAN)
    assert_frame_equal(straight.bars, shuffled.bars)
    assert_frame_equal(straight.quarantine, shuffled.quarantine)


def test_an_empty_delivery_gives_empty_tables() -> None:
    result = run(raw_frame([]), action_frame(), SPAN[:3])
    assert_frame_equal(result.bars, BARS.empty())
    assert_frame_equal(result.quarantine, QUARANTINE.empty())


def test_factors_reach_over_a_rename() -> None:
    rows = [*steady("OLD", [10.0, 10.1]), *steady("NEW", [10.2, 5.1], start=2)]
    facts = [
        action("OLD", SPAN[2], "name_change", new_symbol="NEW"),
        action("NEW", SPAN[3], "forward_split", ratio=2.0),
    ]
    result = run(raw_frame(rows), action_frame(facts), SPAN[:4])
    assert result.bars["security_id"].unique().to_list() == [f"OLD@{SPAN[0]}"]
    assert result.bars["price_factor"].to_list() == pytest.approx([1.0, 1.0, 1.0, 0.5])


def test_deliveries_in_pieces_of_which_the_first_is_too_old_to_matter() -> None:
    """Polars panicked when it formatted text beside numbered rows whose first chunk was empty."""
    symbols = [f"S{number:02d}" for number in range(50)]
    pieces = [
        raw_frame([bar(symbol, LONG_SPAN[at], close) for symbol in symbols])
        for at, close in ((0, 10.0), (-4, 10.0), (-3, 10.0), (-2, 10.0), (-1, -1.0))
    ]
    deliveries = pl.concat(pieces, rechunk=False)
    result = run(deliveries, action_frame(), LONG_SPAN[-1:], LONG_SPAN)
    assert result.quarantine["rule"].to_list() == ["non_positive_price"] * 50
