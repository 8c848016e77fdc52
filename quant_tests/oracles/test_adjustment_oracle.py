"""Adjusted prices equal an exact recomputation from raw bars and actions, to 1e-12, in both conventions."""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quant_assets.market_data.adjustment import Convention, adjust, session_factors
from quant_tests.market_data.deliveries import SESSIONS, action, action_frame, bar, gated, raw_frame
from quant_tests.oracles.adjustment_reference import Action, RawBar, adjusted

EXACT = 1e-12
REACH = 10
CONVENTIONS: tuple[Convention, ...] = ("crsp", "wiki")


class Case(NamedTuple):
    """Closes of AAA (None: halted), what happened to it, and closes of the company spun off, NEW."""

    closes: list[float | None]
    actions: list[Action]
    spun_off: dict[int, float] = {}  # noqa: RUF012 - never changed

    @property
    def bars(self) -> list[RawBar]:
        """All closes as bars."""
        own = [("AAA", place, close) for place, close in enumerate(self.closes) if close]
        new = [("NEW", place, close) for place, close in self.spun_off.items()]
        return [
            RawBar(symbol, SESSIONS[place], close, 1e6 + 7.0 * place)
            for symbol, place, close in [*own, *new]
        ]


def at(place: int, action_type: str, **terms: Any) -> Action:
    return Action("AAA", SESSIONS[place], action_type, **terms)


CASES = {
    "split and dividend on one day": Case(
        [90.0, 91.25, 89.5, 29.75, 30.5],
        [at(3, "forward_split", ratio=3.0), at(3, "cash_dividend", cash=1.5)],
    ),
    "two splits in a week": Case(
        [90.0, 91.25, 45.0, 44.5, 30.25, 30.5],
        [at(2, "forward_split", ratio=2.0), at(4, "forward_split", ratio=1.5)],
    ),
    "special dividend beside a regular one": Case(
        [90.0, 91.25, 88.5, 64.0, 66.0],
        [at(3, "cash_dividend", cash=0.5), at(3, "cash_dividend", cash=24.0)],
    ),
    "spin-off with a stated value": Case(
        [90.0, 91.25, 84.0, 85.0], [at(2, "spin_off", ratio=0.25, cash=7.25, new_symbol="NEW")]
    ),
    "spin-off at the new company's close": Case(
        [100.0, 102.0, 82.0, 83.0],
        [at(2, "spin_off", ratio=0.5, new_symbol="NEW")],
        {2: 39.0, 3: 41.0},
    ),
    "dividend on a halted day": Case(
        [90.0, 91.25, None, None, 88.5, 89.0], [at(2, "cash_dividend", cash=1.1)]
    ),
    "dividend after a split, both on halted days": Case(
        [90.0, 91.25, None, None, 44.5, 45.0],
        [at(2, "forward_split", ratio=2.0), at(3, "cash_dividend", cash=0.8)],
    ),
    "dividend before a split, both on halted days": Case(
        [90.0, 91.25, None, None, 44.5, 45.0],
        [at(3, "forward_split", ratio=2.0), at(2, "cash_dividend", cash=0.8)],
    ),
    "dividend that goes ex on a Saturday": Case(
        [90.0, 91.25, 88.5, 89.0, 87.5],
        [Action("AAA", date(2024, 1, 6), "cash_dividend", cash=0.8)],
    ),
    "stock dividend": Case([90.0, 91.25, 87.0, 88.0], [at(2, "stock_dividend", ratio=1.05)]),
    "reverse split": Case([2.0, 2.05, 20.25, 20.0], [at(2, "reverse_split", ratio=0.1)]),
    "everything in turn": Case(
        [90.0, 91.25, 45.5, 44.75, 42.5, 43.0, 36.0, 366.0, 360.0],
        [
            at(2, "forward_split", ratio=2.0),
            at(3, "cash_dividend", cash=0.35),
            at(4, "stock_dividend", ratio=1.05),
            at(6, "spin_off", cash=6.5),
            at(7, "reverse_split", ratio=0.1),
            at(8, "cash_dividend", cash=2.5),
        ],
    ),
}


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("name", CASES)
def test_window_from_the_gate_equals_the_reference(name: str, convention: Convention) -> None:
    case = CASES[name]
    result = gated(
        [bar(b.symbol, b.session, b.close, volume=b.volume) for b in case.bars],
        [action(**a._asdict()) for a in case.actions],
        convention=convention,
    )
    assert result.quarantine.is_empty()
    assert result.unapplied.is_empty()
    same_as_reference(result.bars, case.bars, case.actions, convention)


@pytest.mark.parametrize("name", ["split and dividend on one day", "dividend on a halted day"])
def test_the_conventions_differ_a_little(name: str) -> None:
    """A factor that were the same in both would pass as either."""
    case = CASES[name]
    first = ("AAA", SESSIONS[0])
    crsp, wiki = (adjusted(case.bars, case.actions, name)[first][0] for name in CONVENTIONS)
    assert 0 < abs(float(crsp / wiki) - 1) < 0.002


# Six of them cannot pay out more than a share is worth.
TERMS = st.one_of(
    st.tuples(st.just("cash_dividend"), st.none(), st.floats(0.01, 0.4)),
    st.tuples(st.just("spin_off"), st.none(), st.floats(0.1, 0.4)),
    st.tuples(
        st.sampled_from(["forward_split", "stock_dividend"]), st.floats(1.01, 3.0), st.none()
    ),
    st.tuples(st.just("reverse_split"), st.floats(0.3, 0.9), st.none()),
)


@settings(max_examples=80, deadline=None)
@given(
    closes=st.dictionaries(st.integers(0, 20), st.floats(100.0, 1000.0), min_size=2, max_size=21),
    events=st.lists(st.tuples(st.integers(0, 20), TERMS), max_size=6),
    convention=st.sampled_from(CONVENTIONS),
)
def test_any_schedule_equals_the_reference(
    closes: dict[int, float],
    events: list[tuple[int, tuple[str, float | None, float | None]]],
    convention: Convention,
) -> None:
    assume(max(later - earlier for earlier, later in pairwise(sorted(closes))) <= REACH)
    bars = [RawBar("AAA", SESSIONS[at], closes[at], 1000.0 + at) for at in sorted(closes)]
    actions = [Action("AAA", SESSIONS[at], *terms) for at, terms in events]
    frame = raw_frame([bar(b.symbol, b.session, b.close, volume=b.volume) for b in bars])
    listed = frame.with_columns(
        security_id=pl.format("{}@{}", "symbol", pl.lit(str(bars[0].session))),
        first_session=pl.lit(bars[0].session),
    )
    facts = action_frame([action(**a._asdict()) for a in actions])
    given_factors = session_factors(listed, facts, SESSIONS, REACH + 1, convention)
    same_as_reference(given_factors, bars, actions, convention)


def same_as_reference(
    frame: pl.DataFrame, bars: list[RawBar], actions: list[Action], convention: Convention
) -> None:
    expected = adjusted(bars, actions, convention)
    got = adjust(frame).select("symbol", "session", "close", "volume").rows()
    assert {(symbol, session) for symbol, session, *_ in got} == set(expected)
    for symbol, session, close, volume in got:
        want = tuple(float(value) for value in expected[symbol, session])
        assert (close, volume) == pytest.approx(want, rel=EXACT, abs=0)
