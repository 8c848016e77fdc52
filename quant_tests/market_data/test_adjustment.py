"""Adjustment equals a plain-Python recomputation from raw prices and actions, to 1e-12."""

from __future__ import annotations

import math
from datetime import date
from itertools import pairwise
from typing import NamedTuple

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_assets.market_data.adjustment import adjust, session_factors, unapplied_actions
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


def oracle(closes: dict[int, float], actions: list[Action]) -> list[tuple[float, float]]:
    """Adjusted (close, volume) per bar, action by action in plain Python."""
    positions = sorted(closes)
    adjusted = {position: (closes[position], 1000.0 + position) for position in positions}
    for index in range(1, len(positions)):
        here, before = positions[index], positions[index - 1]
        inside = [a for a in actions if SESSIONS[before] < a.ex_date <= SESSIONS[here]]
        ratio_so_far, price, volume = 1.0, 1.0, 1.0
        for day in sorted({a.ex_date for a in inside}):
            todays = [a for a in inside if a.ex_date == day]
            amount = math.fsum(a.cash or 0.0 for a in todays)
            ratios = math.prod(a.ratio or 1.0 for a in todays)
            price *= (1.0 - amount / (closes[before] / ratio_so_far)) / ratios
            volume *= ratios
            ratio_so_far *= ratios
        for earlier in positions[:index]:
            close, shares = adjusted[earlier]
            adjusted[earlier] = (close * price, shares * volume)
    return [adjusted[position] for position in positions]


def adjusted_rows(closes: dict[int, float], actions: list[Action]) -> list[tuple[float, float]]:
    frame = session_factors(bars_of(closes), actions_of(*actions), SESSIONS, REACH)
    return adjust(frame).sort("session").select("close", "volume").rows()


@pytest.mark.parametrize(
    "actions",
    [
        [Action("AAA", SESSIONS[3], "forward_split", 2.0)],
        [Action("AAA", SESSIONS[3], "reverse_split", 0.1)],
        [Action("AAA", SESSIONS[3], "stock_dividend", 1.05)],
        [Action("AAA", SESSIONS[3], "cash_dividend", cash=0.37)],
        [Action("AAA", SESSIONS[3], "cash_dividend", cash=25.0)],
        [Action("AAA", SESSIONS[3], "spin_off", cash=7.25)],
        # The split and the dividend of one day, two splits in a week, a regular beside a special.
        [
            Action("AAA", SESSIONS[3], "forward_split", 3.0),
            Action("AAA", SESSIONS[3], "cash_dividend", cash=1.5),
        ],
        [
            Action("AAA", SESSIONS[2], "forward_split", 2.0),
            Action("AAA", SESSIONS[4], "forward_split", 1.5),
        ],
        [
            Action("AAA", SESSIONS[4], "cash_dividend", cash=0.5),
            Action("AAA", SESSIONS[4], "cash_dividend", cash=10.0),
        ],
        # Ex-dates on sessions 5 and 6 have no bar: both belong to the bar of session 7.
        [
            Action("AAA", SESSIONS[5], "forward_split", 2.0),
            Action("AAA", SESSIONS[6], "cash_dividend", cash=0.8),
        ],
        [Action("AAA", date(2024, 1, 6), "cash_dividend", cash=0.8)],  # a Saturday
    ],
)
def test_adjusted_window_equals_the_oracle(actions: list[Action]) -> None:
    closes = {0: 90.0, 1: 91.25, 2: 88.5, 3: 87.0, 4: 60.0, 7: 61.0, 8: 63.5}
    expected = oracle(closes, actions)
    for got, want in zip(adjusted_rows(closes, actions), expected, strict=True):
        assert got == pytest.approx(want, rel=1e-12, abs=0)


@settings(max_examples=60, deadline=None)
@given(
    closes=st.dictionaries(st.integers(0, 20), st.floats(20.0, 200.0), min_size=2, max_size=21),
    events=st.lists(
        st.tuples(
            st.integers(0, 20),
            st.one_of(
                st.tuples(st.just("cash_dividend"), st.none(), st.floats(0.01, 0.5)),
                st.tuples(
                    st.sampled_from(["forward_split", "stock_dividend"]),
                    st.floats(1.01, 3.0),
                    st.none(),
                ),
                st.tuples(st.just("reverse_split"), st.floats(0.3, 0.9), st.none()),
            ),
        ),
        max_size=6,
    ),
)
def test_any_history_equals_the_oracle(
    closes: dict[int, float], events: list[tuple[int, tuple[str, float | None, float | None]]]
) -> None:
    closes = dict(sorted(closes.items()))
    assume(max(b - a for a, b in pairwise(closes)) <= REACH)
    first = min(closes)
    actions = [Action("AAA", SESSIONS[at], kind, ratio, cash) for at, (kind, ratio, cash) in events]
    frame = session_factors(
        bars_of(closes, first=SESSIONS[first]), actions_of(*actions), SESSIONS, REACH + 1
    )
    got = adjust(frame).sort("session").select("close", "volume").rows()
    for row, want in zip(got, oracle(closes, actions), strict=True):
        assert row == pytest.approx(want, rel=1e-12, abs=0)


def test_spin_off_without_stated_value_takes_the_new_symbols_close() -> None:
    bars = pl.concat(
        [bars_of({0: 100.0, 1: 82.0}), bars_of({1: 40.0}, symbol="NEW", first=SESSIONS[1])]
    )
    actions = actions_of(Action("AAA", SESSIONS[1], "spin_off", 0.5, None, "NEW"))
    frame = session_factors(bars, actions, SESSIONS, REACH)
    assert frame["price_factor"].to_list() == pytest.approx([1.0, 0.8, 1.0], rel=1e-12)
    assert frame["volume_factor"].to_list() == [1.0, 1.0, 1.0]


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
    frame = session_factors(bars, actions_of(action), SESSIONS, REACH)
    assert frame["price_factor"].to_list() == [1.0, 1.0]
    named = unapplied_actions(bars, actions_of(action), SESSIONS, REACH)
    assert named.height == 1
    assert problem in named["problem"][0]


def test_no_bars_and_no_actions_are_no_error() -> None:
    empty = session_factors(bars_of({0: 1.0}).clear(), actions_of(), SESSIONS, REACH)
    assert empty.is_empty()
    assert {"price_factor", "volume_factor"} <= set(empty.columns)
    assert adjust(empty).is_empty()
