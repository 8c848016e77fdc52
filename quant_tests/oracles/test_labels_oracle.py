"""Labels of every horizon equal the exact story of a position, from raw deliveries through the gate to 1e-12."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import cache
from math import sin
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.features.labels import forward_returns
from quant_assets.features.schemas import HOLDING_SESSIONS
from quant_assets.market_data.adjustment import Convention
from quant_tests.market_data.deliveries import SESSIONS, action, bar, gated
from quant_tests.oracles.adjustment_reference import Action
from quant_tests.oracles.labels_reference import Label, RawMarket

EXACT = 1e-12
LAST = 27
CONVENTIONS: tuple[Convention, ...] = ("crsp", "wiki")
Closes = Mapping[tuple[str, date], float]


class Case(NamedTuple):
    """What happens to AAA, bought at place 1 by the decision of place 0 and sold at places 2, 6 and 21."""

    actions: Sequence[Action] = ()
    halted: frozenset[int] = frozenset()
    delisted_at: int = LAST + 1
    renamed: Mapping[int, str] = {}
    others: Mapping[tuple[str, int], float] = {}


def at(place: int, action_type: str, ticker: str = "AAA", **terms: Any) -> Action:
    return Action(ticker, SESSIONS[place], action_type, **terms)


def renaming(place: int, *later: Action) -> Case:
    """AAA becomes BBB, and a new company takes the ticker two sessions later; its closes double at 12."""
    return Case(
        [at(place, "name_change", new_symbol="BBB"), *later],
        renamed={place: "BBB"},
        others={
            ("AAA", day): (7.0 + 0.01 * day) * (2.0 if day >= 12 else 1.0)
            for day in range(place + 2, LAST + 1)
        },
    )


#: Nobody who held AAA under its old name has to do with it.
NEW_OWNER_SPLITS = at(12, "reverse_split", ratio=0.5)
CASES = {
    "nothing happens": Case(),
    "no bar at the decision's morning after": Case(halted=frozenset({1})),
    "no bar at the sale of one session": Case(halted=frozenset({2})),
    "no bar at the sale of five": Case(halted=frozenset({6})),
    "no bar at the sale of twenty": Case(halted=frozenset({21})),
    "halted in the middle": Case(halted=frozenset({3, 4, 5, *range(9, 15)})),
    "halted from the purchase to the sale": Case(halted=frozenset(range(2, 21))),
    "delisted before the purchase": Case(delisted_at=1),
    "delisted after the purchase": Case(delisted_at=2),
    "delisted between": Case(delisted_at=5),
    "delisted on the day of the sale": Case(delisted_at=21),
    "renamed on the day of the decision": renaming(0, NEW_OWNER_SPLITS),
    "renamed between decision and purchase": renaming(1, NEW_OWNER_SPLITS),
    "renamed on the day of the sale": renaming(2, NEW_OWNER_SPLITS),
    "renamed while held": renaming(4, NEW_OWNER_SPLITS),
    "renamed while halted": renaming(5, NEW_OWNER_SPLITS)._replace(halted=frozenset({4, 5})),
    "split on the day of the purchase": Case([at(1, "forward_split", ratio=2.0)]),
    "split on the day of the sale": Case([at(2, "forward_split", ratio=3.0)]),
    "split while held": Case([at(4, "forward_split", ratio=1.5)]),
    "split the day after the sale": Case([at(3, "forward_split", ratio=2.0)]),
    "split on a halted day": Case([at(4, "forward_split", ratio=2.0)], halted=frozenset({3, 4, 5})),
    "split on the halted day of the sale": Case(
        [at(6, "forward_split", ratio=2.0)], halted=frozenset({6})
    ),
    "split on the halted day of the purchase": Case(
        [at(1, "forward_split", ratio=2.0)], halted=frozenset({1})
    ),
    "split on the first day after the purchase, halted until the sale": Case(
        [at(2, "reverse_split", ratio=0.25)], halted=frozenset(range(2, 6))
    ),
    "reverse split and stock dividend": Case(
        [at(3, "reverse_split", ratio=0.1), at(15, "stock_dividend", ratio=1.05)]
    ),
    "dividend on the day of the purchase": Case([at(1, "cash_dividend", cash=1.25)]),
    "dividend on the day of the sale": Case([at(2, "cash_dividend", cash=1.25)]),
    "dividends every other session": Case(
        [at(place, "cash_dividend", cash=0.3 + place / 100) for place in range(1, 24, 2)]
    ),
    "dividend on a halted day": Case([at(4, "cash_dividend", cash=1.25)], halted=frozenset({4, 5})),
    "dividend on a Saturday": Case(
        [Action("AAA", SESSIONS[3] + timedelta(1), "cash_dividend", cash=0.75)]
    ),
    "dividend on the day of a split": Case(
        [at(5, "cash_dividend", cash=1.5), at(5, "forward_split", ratio=3.0)]
    ),
    "dividend after a split, both on halted days": Case(
        [at(3, "forward_split", ratio=2.0), at(4, "cash_dividend", cash=0.8)],
        halted=frozenset({3, 4, 5}),
    ),
    "spin-off with a stated value": Case(
        [at(5, "spin_off", ratio=0.25, cash=7.25, new_symbol="NEW")]
    ),
    "spin-off at the new company's close": Case(
        [at(5, "spin_off", ratio=0.5, new_symbol="NEW")],
        others={("NEW", place): 30.0 + place / 7 for place in range(5, LAST + 1)},
    ),
    "split after a rename": renaming(
        4,
        at(10, "forward_split", "BBB", ratio=2.0),
        at(16, "cash_dividend", "BBB", cash=0.4),
        NEW_OWNER_SPLITS,
    ),
}


def closes_of(case: Case) -> dict[tuple[str, date], float]:
    """Raw closes that follow the actions, beside three companies to which nothing happens."""
    closes = {
        # No two returns are nearly equal: whose rank is higher must not be a question of rounding.
        (name, SESSIONS[place]): base * (1 + 0.03 * sin(base + place * 1.7))
        for name, base in (("SA", 20.0), ("SB", 55.0), ("SC", 130.0))
        for place in range(LAST + 1)
    }
    ticker, worth = "AAA", 90.0
    for place in range(min(case.delisted_at, LAST + 1)):
        ticker = case.renamed.get(place, ticker)
        for fact in case.actions:
            day = SESSIONS[place - 1] if place else date.min
            if fact.symbol == ticker and day < fact.ex_date <= SESSIONS[place]:
                worth = _after(fact, worth, case.others, place)
        if place not in case.halted:
            closes[ticker, SESSIONS[place]] = worth * (1 + 0.03 * sin(place * 2.3))
    return closes | {(name, SESSIONS[place]): close for (name, place), close in case.others.items()}


def _after(
    fact: Action, worth: float, others: Mapping[tuple[str, int], float], place: int
) -> float:
    if fact.action_type in ("forward_split", "reverse_split", "stock_dividend"):
        return worth / (fact.ratio or 1.0)
    if fact.action_type in ("cash_dividend", "spin_off"):
        new = others.get((str(fact.new_symbol), place), 0.0)
        return worth - (fact.cash or (fact.ratio or 0.0) * new)
    return worth


def bars_of(closes: Closes, actions: Sequence[Action], convention: Convention) -> pl.DataFrame:
    """What the gate makes of the deliveries; nothing of them is rejected."""
    result = gated(
        [
            bar(symbol, session, close, volume=1e6 + 7919.0 * number)
            for number, ((symbol, session), close) in enumerate(sorted(closes.items()))
        ],
        [action(**fact._asdict()) for fact in actions],
        wanted=SESSIONS[: LAST + 1],
        convention=convention,
    )
    assert result.quarantine.is_empty(), result.quarantine
    assert result.unapplied.is_empty(), result.unapplied
    assert result.bars.height == len(closes)
    return result.bars


@cache
def delivered(name: str, convention: Convention) -> tuple[Closes, pl.DataFrame]:
    """Raw closes of a case and its bars."""
    closes = closes_of(CASES[name])
    return closes, bars_of(closes, CASES[name].actions, convention)


def case_as_reference(
    name: str, held: int, convention: Convention = "crsp"
) -> dict[tuple[str, date], Label]:
    closes, bars = delivered(name, convention)
    reference = RawMarket(SESSIONS, closes, CASES[name].actions, convention)
    return same_as_reference(bars, reference, held)


def same_as_reference(
    bars: pl.DataFrame, reference: RawMarket, held: int
) -> dict[tuple[str, date], Label]:
    universe = bars.filter(pl.col("session") <= SESSIONS[LAST - 1 - held]).select(
        "session", "symbol", "security_id"
    )
    found = forward_returns(bars, universe, SESSIONS[: LAST + 1], held)
    members = list(universe.select("symbol", "session").iter_rows())
    expected = reference.labels(members, held)
    assert list(found.select("symbol", "session").iter_rows()) == members
    for row in found.iter_rows(named=True):
        want = expected[row["symbol"], row["session"]]
        got = [
            row[name] for name in ("forward_return", "forward_return_zscore", "forward_return_rank")
        ]
        assert row["known_session"] == want.known_session
        for value, exact in zip(got, want[:3], strict=True):
            assert (value is None) == (exact is None), (row, want)
            if value is not None and exact is not None:
                # A return is a difference from one: its rounding is that of a ratio of prices near one.
                assert value == pytest.approx(float(exact), rel=EXACT, abs=EXACT), (row, want)
    return expected


@pytest.mark.parametrize("held", HOLDING_SESSIONS)
@pytest.mark.parametrize("name", CASES)
def test_every_label_is_what_the_position_earned(name: str, held: int) -> None:
    for convention in CONVENTIONS:
        case_as_reference(name, held, convention)


@pytest.mark.parametrize(
    ("name", "held", "known"),
    [
        ("no bar at the decision's morning after", 1, False),
        ("no bar at the decision's morning after", 20, False),
        ("no bar at the sale of five", 1, True),
        ("no bar at the sale of five", 5, False),
        ("no bar at the sale of five", 20, True),
        ("halted in the middle", 20, True),
        ("halted from the purchase to the sale", 1, False),
        ("halted from the purchase to the sale", 20, True),
        ("delisted between", 1, True),
        ("delisted between", 5, False),
        ("delisted between", 20, False),
        ("delisted on the day of the sale", 20, False),
        ("renamed while held", 5, True),
        ("renamed while held", 20, True),
    ],
)
def test_a_label_is_there_exactly_when_it_was_bought_and_sold(
    name: str, held: int, known: bool
) -> None:
    """The reference too could miss a bar or invent one: these are read off the case by eye."""
    label = case_as_reference(name, held)["AAA", SESSIONS[0]]
    assert (label.forward_return is not None) == known


def test_a_held_split_is_neither_gain_nor_loss() -> None:
    """By hand: what the factor would make of them if it were forgotten is far away."""
    for name, held in (("split while held", 5), ("split on the day of the sale", 1)):
        with_split, without = (
            case_as_reference(case, held)["AAA", SESSIONS[0]] for case in (name, "nothing happens")
        )
        assert float(with_split.forward_return or 0) == pytest.approx(
            float(without.forward_return or 0), abs=1e-12
        )


class Story(NamedTuple):
    """A schedule of one company: returns, days without a bar, and actions by place."""

    moves: list[float]
    halted: set[int]
    facts: list[tuple[int, str, float]]
    renamed_at: int | None


STORIES = st.builds(
    Story,
    moves=st.lists(st.floats(-0.06, 0.06), min_size=LAST + 1, max_size=LAST + 1),
    halted=st.sets(st.integers(1, LAST), max_size=14),
    facts=st.lists(
        st.one_of(
            st.tuples(st.integers(2, LAST), st.just("forward_split"), st.floats(1.2, 3.0)),
            st.tuples(st.integers(2, LAST), st.just("stock_dividend"), st.floats(1.01, 1.2)),
            st.tuples(st.integers(2, LAST), st.just("reverse_split"), st.floats(0.2, 0.8)),
            st.tuples(st.integers(2, LAST), st.just("cash_dividend"), st.floats(0.001, 0.03)),
        ),
        max_size=5,
    ),
    renamed_at=st.one_of(st.none(), st.integers(3, LAST - 1)),
)


@settings(max_examples=40, deadline=None)
@given(
    story=STORIES,
    held=st.sampled_from(HOLDING_SESSIONS),
    convention=st.sampled_from(CONVENTIONS),
)
def test_any_story_ends_as_the_reference_says(
    story: Story, held: int, convention: Convention
) -> None:
    closes, actions = told(story)
    bars = bars_of(closes, actions, convention)
    same_as_reference(bars, RawMarket(SESSIONS, closes, actions, convention), held)


def told(story: Story) -> tuple[dict[tuple[str, date], float], list[Action]]:
    """Raw closes that follow a story, so that the gate has no reason to doubt one."""
    closes = closes_of(Case(delisted_at=0))
    actions: list[Action] = []
    ticker, close = "AAA", 400.0
    for place, move in enumerate(story.moves):
        if place == story.renamed_at:
            actions.append(at(place, "name_change", ticker, new_symbol="BBB"))
            ticker = "BBB"
            # The days around a rename are traded: an action of a ticker that ended in a halt is lost.
        before = close
        for _, kind, size in sorted(fact for fact in story.facts if fact[0] == place):
            if kind == "cash_dividend":
                actions.append(at(place, kind, ticker, cash=before * size))
                close -= close * size
            else:
                actions.append(at(place, kind, ticker, ratio=size))
                close /= size
        close *= 1 + move
        near_rename = story.renamed_at is not None and place in (
            story.renamed_at - 1,
            story.renamed_at,
        )
        if place not in story.halted or near_rename:
            closes[ticker, SESSIONS[place]] = close
    return closes, actions
