"""What adjustment promises beside its numbers, which quant_tests/oracles compares with an exact reference."""

from __future__ import annotations

import math
from datetime import date
from typing import NamedTuple

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_assets.market_data.adjustment import (
    adjust,
    place_actions,
    session_factors,
    unapplied_actions,
    with_factors,
)
from quant_resources.calendar import XNYS

SESSIONS = XNYS.sessions(date(2024, 1, 2), date(2024, 2, 29))
REACH = 10
ACTION_SCHEMA = {
    "symbol": pl.String,
    "ex_date": pl.Date,
    "action_type": pl.String,
    "ratio": pl.Float64,
    "cash": pl.Float64,
    "new_symbol": pl.String,
}


class Action(NamedTuple):
    """One corporate action as the tests write it."""

    symbol: str
    ex_date: date
    action_type: str
    ratio: float | None = None
    cash: float | None = None
    new_symbol: str | None = None


def bars_of(
    closes: dict[int, float], symbol: str = "AAA", first: date = SESSIONS[0]
) -> pl.DataFrame:
    """Bars with the given closes by position in `SESSIONS`."""
    return pl.DataFrame(
        {
            "session": [SESSIONS[position] for position in closes],
            "symbol": symbol,
            "security_id": f"{symbol}@{first}",
            "first_session": first,
            "close": list(closes.values()),
            "volume": [1000.0 + position for position in closes],
        },
        schema_overrides={"session": pl.Date, "first_session": pl.Date},
    )


def actions_of(*actions: Action) -> pl.DataFrame:
    return pl.DataFrame(list(actions), schema=ACTION_SCHEMA, orient="row")


def test_spin_off_without_stated_value_takes_the_new_symbols_close() -> None:
    bars = pl.concat(
        [bars_of({0: 100.0, 1: 82.0}), bars_of({1: 40.0}, symbol="NEW", first=SESSIONS[1])]
    )
    actions = actions_of(Action("AAA", SESSIONS[1], "spin_off", 0.5, None, "NEW"))
    frame = session_factors(bars, actions, SESSIONS, REACH)
    assert frame["price_factor"].to_list() == pytest.approx([1.0, 0.8, 1.0], rel=1e-12)
    assert frame["volume_factor"].to_list() == [1.0, 1.0, 1.0]
    wiki = session_factors(bars, actions, SESSIONS, REACH, "wiki")
    assert wiki["price_factor"].to_list() == pytest.approx([1.0, 82 / 102, 1.0], rel=1e-12)


def test_adjusting_keeps_row_order_type_and_is_idempotent() -> None:
    closes = {0: 90.0, 1: 45.0, 2: 46.0}
    actions = actions_of(Action("AAA", SESSIONS[1], "forward_split", 2.0))
    frame = session_factors(bars_of(closes), actions, SESSIONS, REACH).reverse()
    once = adjust(frame)
    assert once["session"].to_list() == frame["session"].to_list()
    assert once["close"].to_list() == [46.0, 45.0, 45.0]
    assert_frame_equal(adjust(once), once)
    assert_frame_equal(adjust(frame.lazy()).collect(), once)


def test_window_is_adjusted_as_known_at_its_last_session() -> None:
    closes = {0: 90.0, 1: 91.0, 2: 45.0}
    actions = actions_of(Action("AAA", SESSIONS[2], "forward_split", 2.0))
    frame = session_factors(bars_of(closes), actions, SESSIONS, REACH)
    before = adjust(frame.filter(pl.col("session") < SESSIONS[2]))
    assert before["close"].to_list() == [90.0, 91.0]


def test_a_longer_window_gives_the_same_factors() -> None:
    """A previous bar out of reach must be out of reach in bulk too, or history would depend on runs."""
    closes = {0: 90.0, 1: 91.0, 15: 92.0, 16: 46.0}
    actions = actions_of(
        Action("AAA", SESSIONS[3], "forward_split", 2.0),
        Action("AAA", SESSIONS[14], "cash_dividend", cash=1.0),
        Action("AAA", SESSIONS[16], "forward_split", 2.0),
    )
    bulk = session_factors(bars_of(closes), actions, SESSIONS, REACH)
    late = session_factors(bars_of({15: 92.0, 16: 46.0}), actions, SESSIONS[8:], REACH)
    assert_frame_equal(bulk.filter(pl.col("session") >= SESSIONS[15]), late)
    assert late["price_factor"].to_list() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("action", "problem"),
    [
        (Action("AAA", SESSIONS[1], "forward_split"), "ratio"),
        (Action("AAA", SESSIONS[1], "forward_split", -2.0), "ratio"),
        (Action("AAA", SESSIONS[1], "forward_split", math.nan), "ratio"),
        (Action("AAA", SESSIONS[1], "cash_dividend"), "amount"),
        (Action("AAA", SESSIONS[1], "cash_dividend", cash=90.0), "not smaller"),
        (Action("AAA", SESSIONS[1], "spin_off", 0.5, None, "NOBAR"), "amount"),
    ],
)
def test_impossible_actions_are_named_and_leave_prices_alone(action: Action, problem: str) -> None:
    bars = bars_of({0: 90.0, 1: 89.0})
    for convention in ("crsp", "wiki"):
        frame = session_factors(bars, actions_of(action), SESSIONS, REACH, convention)
        assert frame["price_factor"].to_list() == [1.0, 1.0]
    named = unapplied_actions(place_actions(bars, actions_of(action), SESSIONS, REACH))
    assert named.height == 1
    assert problem in named["problem"][0]


def test_no_bars_and_no_actions_are_no_error() -> None:
    empty = session_factors(bars_of({0: 1.0}).clear(), actions_of(), SESSIONS, REACH)
    assert empty.is_empty()
    assert {"price_factor", "volume_factor"} <= set(empty.columns)
    assert adjust(empty).is_empty()


def test_bars_outside_the_calendar_are_left_alone() -> None:
    bars = bars_of({0: 90.0, 1: 45.0})
    actions = actions_of(Action("AAA", SESSIONS[1], "forward_split", 2.0))
    frame = session_factors(bars, actions, SESSIONS[5:], REACH)
    assert frame["price_factor"].to_list() == [1.0, 1.0]


def test_order_in_which_facts_arrive_changes_no_bit() -> None:
    bars = bars_of({0: 90.0, 1: 30.1, 2: 30.0})
    facts = [
        Action("AAA", SESSIONS[1], "stock_dividend", 1.07),
        Action("AAA", SESSIONS[1], "forward_split", 2.9),
        Action("AAA", SESSIONS[1], "cash_dividend", cash=0.1),
        Action("AAA", SESSIONS[1], "cash_dividend", cash=0.2),
        Action("AAA", SESSIONS[1], "cash_dividend", cash=0.3),
    ]
    forwards, backwards = (
        session_factors(bars, actions_of(*told), SESSIONS, REACH) for told in (facts, facts[::-1])
    )
    assert forwards.equals(backwards)


def test_factors_are_refused_for_bars_in_another_order() -> None:
    """Each action is remembered by its bar's place: on other bars it would split the wrong company."""
    bars = pl.concat([bars_of({0: 90.0, 1: 45.0}), bars_of({0: 10.0, 1: 10.1}, symbol="BBB")])
    actions = actions_of(Action("AAA", SESSIONS[1], "forward_split", 2.0))
    placed = place_actions(bars, actions, SESSIONS, REACH)
    assert with_factors(bars, placed)["price_factor"].to_list() == [1.0, 0.5, 1.0, 1.0]
    with pytest.raises(ValueError, match="other bars"):
        with_factors(bars.reverse(), placed)
