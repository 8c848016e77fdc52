"""What is expected of a session, what is asked for again, and how often."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_assets.market_data.coverage import (
    LATE_SESSIONS,
    by_session,
    by_symbol,
    coverage,
    gaps_to_refetch,
    sessions_to_refetch,
)
from quant_assets.market_data.coverage_checks import covered
from quant_assets.market_data.listings import LISTING_GAP_SESSIONS
from quant_assets.market_data.plots import coverage_picture
from quant_assets.market_data.schemas import COVERAGE
from quant_assets.table_checks import CheckScope
from quant_tests.market_data.deliveries import SESSIONS, action, action_frame

FOLDER = Path(os.environ.get("QUANT_TEST_DATA", "nowhere"))
BAR_FILE = FOLDER / "sp500_pit_raw_2015_2017.parquet"
NOBODY = cast("CheckScope", None)
Pair = tuple[str, int]


def pairs(cells: Iterable[Pair]) -> pl.DataFrame:
    rows = [(SESSIONS[at], symbol) for symbol, at in cells]
    return pl.DataFrame(rows, schema={"session": pl.Date, "symbol": pl.String}, orient="row")


def cover(
    sent: Collection[Pair],
    actions: Sequence[Mapping[str, Any]] = (),
    rejected: Collection[Pair] = (),
    wanted: Sequence[int] = range(60),
) -> pl.DataFrame:
    """Coverage of the wanted places of the calendar."""
    return coverage(
        pairs(sent),
        pairs(set(sent) - set(rejected)),
        action_frame(actions),
        SESSIONS,
        [SESSIONS[at] for at in wanted],
    )


def states(frame: pl.DataFrame, symbol: str) -> str:
    """A symbol's states as one letter a session, "." where it is not in the table."""
    found = dict(frame.filter(symbol=symbol).select("session", "state").iter_rows())
    last = SESSIONS.index(frame["session"].to_list()[-1])
    return "".join(found.get(day, ".")[0] for day in SESSIONS[: last + 1])


def every(symbol: str, *spans: range) -> list[Pair]:
    return [(symbol, at) for span in spans for at in span]


MARKET = every("MARKET", range(60))


def test_a_halt_is_a_gap_and_a_dead_listing_is_forgotten() -> None:
    """Thirty sessions after the last row a symbol is expected no more; what came back has a hole."""
    frame = cover(
        [*MARKET, *every("HALT", range(10), range(14, 60)), *every("GONE", range(10))],
        rejected=[("HALT", 20)],
    )
    assert states(frame, "HALT") == "p" * 10 + "m" * 4 + "p" * 6 + "q" + "p" * 39
    assert states(frame, "GONE") == "p" * 10 + "m" * LISTING_GAP_SESSIONS + "." * 20
    assert frame.filter(symbol="GONE")["absent_sessions"].to_list() == [0] * 10 + [*range(1, 31)]
    assert frame.filter(symbol="HALT")["absent_sessions"].to_list()[8:16] == [
        0,
        0,
        1,
        2,
        3,
        4,
        0,
        0,
    ]
    COVERAGE.conform(frame)


@pytest.mark.parametrize("kind", ["merger", "redemption", "worthless_removal"])
def test_an_end_that_is_announced_is_no_gap(kind: str) -> None:
    """From the ex-date on nothing is expected, whenever the last row came before it."""
    sent = [*MARKET, *every("ENDS", range(10))]
    assert states(cover(sent, [action("ENDS", SESSIONS[10], kind)]), "ENDS") == "p" * 10 + "." * 50
    late = cover(sent, [action("ENDS", SESSIONS[13], kind)])
    assert states(late, "ENDS") == "p" * 10 + "mmm" + "." * 47
    on_the_day = cover(sent, [action("ENDS", SESSIONS[9], kind)])
    assert states(on_the_day, "ENDS") == "p" * 10 + "." * 50


def test_a_listing_that_trades_on_after_its_end_is_alive() -> None:
    """The end was wrong, or the ticker has a new owner: a hole after that is a hole."""
    sent = [*MARKET, *every("ENDS", range(12), range(14, 60))]
    frame = cover(sent, [action("ENDS", SESSIONS[10], "merger")])
    assert states(frame, "ENDS") == "p" * 12 + "mm" + "p" * 46


def test_other_actions_end_nothing() -> None:
    sent = [*MARKET, *every("PAYS", range(10))]
    frame = cover(sent, [action("PAYS", SESSIONS[10], "cash_dividend", cash=1.0)])
    assert states(frame, "PAYS")[10] == "m"


def test_a_rename_hands_the_expectation_on() -> None:
    """The new symbol is missing when it does not come; the old one is not."""
    renamed = [action("OLD", SESSIONS[10], "name_change", new_symbol="NEW")]
    frame = cover([*MARKET, *every("OLD", range(10)), *every("NEW", range(12, 60))], renamed)
    assert states(frame, "OLD") == "p" * 10 + "." * 50
    assert states(frame, "NEW") == "." * 10 + "mm" + "p" * 48
    never = cover([*MARKET, *every("OLD", range(10))], renamed)
    assert states(never, "NEW") == "." * 10 + "m" * LISTING_GAP_SESSIONS + "." * 20


def test_a_rename_that_did_not_happen_is_forgotten_when_the_old_symbol_trades_on() -> None:
    renamed = [action("OLD", SESSIONS[10], "name_change", new_symbol="NEW")]
    frame = cover([*MARKET, *every("OLD", range(10), range(11, 60))], renamed)
    assert states(frame, "NEW") == "." * 10 + "m" + "." * 49
    assert states(frame, "OLD") == "p" * 10 + "." + "p" * 49


def test_rows_without_a_symbol_belong_to_no_symbol() -> None:
    sent = pl.concat(
        [
            pairs(MARKET),
            pl.DataFrame({"session": [SESSIONS[3]], "symbol": [None]}, pairs([]).schema),
        ]
    )
    frame = coverage(sent, sent, action_frame(), SESSIONS, SESSIONS[:60])
    assert frame["symbol"].unique().to_list() == ["MARKET"]


def test_an_empty_session_is_missing_every_symbol() -> None:
    sent = [(symbol, at) for symbol, at in every("A", range(60)) + every("B", range(60)) if at != 7]
    row = by_session(cover(sent)).row(7, named=True)
    assert (row["expected"], row["missing"], row["share_present"]) == (2, 2, 0.0)


places = st.sets(st.tuples(st.sampled_from("ABCD"), st.integers(0, 79)), min_size=1, max_size=160)
facts = st.lists(
    st.tuples(
        st.sampled_from(["name_change", "merger", "cash_dividend"]),
        st.sampled_from("ABCD"),
        st.sampled_from("ABCDE"),
        st.integers(0, 79),
    ),
    max_size=4,
)


def plain(
    sent: set[Pair], rejected: set[Pair], events: list[tuple[str, str, str, int]]
) -> list[tuple[int, str, str, int]]:
    """The rules of the module, read literally, one symbol and session after another."""
    renames = [e for e in events if e[0] == "name_change" and e[1] != e[2]]
    ends = [e for e in events if e[0] == "merger"] + renames
    rows = []
    for at in range(80):

        def seen(symbol: str, at: int = at) -> int:
            return max((p for s, p in sent if s == symbol and p <= at), default=-999)

        for symbol in "ABCDE":
            if (symbol, at) in sent:
                state = "quarantined" if (symbol, at) in rejected else "present"
                rows.append((at, symbol, state, 0))
                continue
            last = seen(symbol)
            for _, old, new, place in renames:
                if new == symbol and seen(old) < place <= at:
                    last = max(last, seen(old))
            ended = any(s == symbol and last <= place <= at for _, s, _, place in ends)
            if not ended and at - last <= LISTING_GAP_SESSIONS:
                rows.append((at, symbol, "missing", at - last))
    return rows


@settings(max_examples=60, deadline=None)
@given(places, places, facts)
def test_it_is_what_the_rules_say_and_knows_nothing_later(
    sent: set[Pair], rejected: set[Pair], events: list[tuple[str, str, str, int]]
) -> None:
    actions = [
        action(symbol, SESSIONS[at], kind, new_symbol=new, action_id=str(number))
        for number, (kind, symbol, new, at) in enumerate(events)
    ]
    whole = cover(sent, actions, rejected, range(80))
    assert whole.rows() == [
        (SESSIONS[at], symbol, state, absent)
        for at, symbol, state, absent in plain(sent, rejected, events)
    ]
    known = [(symbol, at) for symbol, at in sent if at <= 41]
    facts_then = [fact for fact in actions if fact["ex_date"] <= SESSIONS[41]]
    then = cover(known, facts_then, rejected, [40, 41])
    assert_frame_equal(then, whole.filter(pl.col("session").is_in(SESSIONS[40:42])))


def test_holes_are_asked_for_again_and_listings_that_went_away_are_not() -> None:
    frame = cover(
        [
            *MARKET,
            *every("HOLE", range(20), range(22, 60)),
            *every("GONE", range(20)),
            *every("LATE", range(57)),
            *every("HALT", range(10), range(38, 60)),
        ],
        rejected=[("MARKET", 5)],
    )
    found = gaps_to_refetch(frame)
    gaps = {
        symbol: [SESSIONS.index(day) for day in found.filter(symbol=symbol)["session"]]
        for symbol in found["symbol"].unique()
    }
    assert gaps == {
        "MARKET": [5],
        "HOLE": [20, 21],
        "LATE": [57, 58, 59],
        "HALT": [*range(10, 38)],
    }
    assert by_symbol(frame).select("symbol", "to_refetch", "missing").rows() == [
        ("HALT", 28, 28),
        ("LATE", 3, 3),
        ("HOLE", 2, 2),
        ("MARKET", 1, 0),
        ("GONE", 0, 30),
    ]


def asked_over(
    days: int, sent: list[Pair], start: int = 30, budget: int = 5
) -> dict[int, list[int]]:
    """Place in the calendar to the ages at which it was asked for, over so many daily runs.

    Everything before `start` was fetched in one backfill. What is asked for never comes.
    """
    whole = cover(sent, wanted=range(days))
    number = {SESSIONS[at]: at for at in range(start)}
    asked: dict[int, list[int]] = {}
    for today in range(start, days):
        number[SESSIONS[today]] = max(number.values()) + 1
        known = whole.filter(pl.col("session") <= SESSIONS[today])
        for day in sessions_to_refetch(known, SESSIONS[today], number, budget):
            number[day] = max(number.values()) + 1
            asked.setdefault(SESSIONS.index(day), []).append(today - SESSIONS.index(day))
    return asked


def test_a_hole_that_stays_is_asked_for_less_and_less() -> None:
    """A vendor that has no row for a symbol is not asked for it every day for ever."""
    sent = every("MARKET", range(250)) + every("HOLE", range(60), range(61, 250))
    asked = asked_over(250, sent)
    assert asked[60][:2] == [1, 2]
    assert len(asked[60]) <= 7
    gaps = np.diff(asked[60])
    assert (gaps[2:] > gaps[1:-1]).all()
    # The others are asked for in the two sessions after them, and then left alone.
    assert {tuple(ages) for at, ages in asked.items() if at not in (60, 28, 29, 248)} == {(1, 2)}


def test_a_hole_of_the_backfill_is_asked_for_on_the_first_day() -> None:
    sent = every("MARKET", range(100)) + every("HOLE", range(10), range(11, 100))
    asked = asked_over(100, sent)
    assert asked[10][0] == 20
    assert len(asked[10]) <= 3


def test_a_listing_that_died_costs_the_first_sessions_of_its_absence_only() -> None:
    sent = every("MARKET", range(200)) + every("GONE", range(50))
    asked = asked_over(200, sent)
    assert all(ages == [1, 2] for at, ages in asked.items() if 50 <= at < 198)


def test_when_every_session_has_holes_the_budget_is_shared_by_age() -> None:
    """Symbols that trade rarely: at most the budget a day, and no session is starved."""
    rng = np.random.default_rng(7)
    sent = every("MARKET", range(200)) + [
        (f"R{n}", at) for n in range(20) for at in range(200) if rng.random() < 0.8
    ]
    asked = asked_over(200, sent)
    by_day: dict[int, int] = {}
    for at, ages in asked.items():
        for age in ages:
            by_day[at + age] = by_day.get(at + age, 0) + 1
    assert max(by_day.values()) <= 7
    whole = {at for at in range(200) if sum(place == at for _, place in sent) == 21}
    old = [len(ages) for at, ages in asked.items() if 40 <= at < 120 and at not in whole]
    assert min(old) >= 4
    assert max(old) <= 14


def test_the_budget_goes_to_what_was_asked_for_longest_ago() -> None:
    sent = every("MARKET", range(60)) + [
        ("HOLE", at) for at in range(60) if at not in (10, 12, 14, 16)
    ]
    frame = cover(sent)
    number = {SESSIONS[at]: at for at in range(60)} | {SESSIONS[10]: 30}
    assert sessions_to_refetch(frame, SESSIONS[59], number, budget=2) == [
        SESSIONS[at] for at in (12, 14, 57, 58)
    ]
    assert sessions_to_refetch(frame, SESSIONS[59], number, budget=0) == SESSIONS[57:59]
    assert sessions_to_refetch(COVERAGE.empty(), SESSIONS[0], {}) == []
    # A session that was never fetched is not fetched again.
    assert SESSIONS[12] not in sessions_to_refetch(
        frame, SESSIONS[59], {day: n for day, n in number.items() if day != SESSIONS[12]}
    )


def test_the_check_names_gaps_and_lets_single_delistings_pass() -> None:
    market = [(f"S{n:03d}", at) for n in range(200) for at in range(20)]
    one_gone = [pair for pair in market if pair[0] != "S007" or pair[1] < 10]
    assert covered(cover(one_gone, wanted=range(8, 20)), NOBODY).passed
    thin = [pair for pair in market if int(pair[0][1:]) >= 3 or pair[1] != 10]
    found = covered(cover(thin, wanted=range(8, 20)), NOBODY)
    assert not found.passed
    assert (
        f"{SESSIONS[10]} has no bar for 3 of 200 expected symbols (S000, S001, S002)"
        in found.message
    )
    assert found.remedy.startswith("3 of these gaps are asked for again")
    # The morning after, the session is alone in its run.
    assert covered(cover(thin, wanted=[10]), NOBODY).remedy.startswith("3 of these gaps")


def test_what_has_been_away_for_long_is_not_warned_about_for_ever() -> None:
    few = every("A", range(60)) + every("B", range(10))
    late = 10 + LATE_SESSIONS
    assert not covered(cover(few, wanted=[late - 1]), NOBODY).passed
    assert covered(cover(few, wanted=[late]), NOBODY).passed


def test_the_picture_shows_each_state_where_it_was() -> None:
    frame = cover(
        [*MARKET, *every("HOLE", range(10), range(12, 60)), *every("NEW", range(50, 60))],
        rejected=[("NEW", 55)],
    )
    share, holes = coverage_picture(frame).axes
    cells = np.asarray(holes.images[0].get_array())
    assert [label.get_text() for label in holes.get_yticklabels()] == ["HOLE", "NEW"]
    hole, new = cells
    assert hole.tolist() == [1] * 10 + [3] * 2 + [1] * 48
    assert new.tolist() == [0] * 50 + [1] * 5 + [2] + [1] * 4
    assert np.asarray(share.lines[0].get_ydata())[10] == 50.0
    assert coverage_picture(cover(MARKET)).axes


@pytest.mark.skipif(not BAR_FILE.exists(), reason="set QUANT_TEST_DATA to the folder of real bars")
def test_the_thin_sessions_of_september_2016_are_found_in_real_bars() -> None:
    """Deliveries of S&P 500 members: one stretch is thin, and is all that the check names."""
    sent = pl.read_parquet(BAR_FILE).rename({"date": "session"})
    days = sent["session"].unique().sort().to_list()
    frame = coverage(sent, sent, action_frame(), days, days)
    counts = by_session(frame)
    thin = counts.filter(pl.col("missing") > 10).select("session", "expected", "missing").rows()
    september = [date(2016, 9, day) for day in (2, 6, 7, 8, 9, 12)]
    assert thin == [
        (day, 520, missing)
        for day, missing in zip(september, (19, 89, 57, 20, 11, 14), strict=True)
    ]
    found = [day for day in days if not covered(frame.filter(session=day), NOBODY).passed]
    assert found == september
    # Thirty listings end in these two years without an action: none of them is asked for again.
    gaps = gaps_to_refetch(frame)
    assert set(september) < set(gaps["session"]) < set(days)
    assert gaps["session"].n_unique() <= 15
    fetched = {day: number for number, day in enumerate(days) if day <= date(2016, 12, 1)}
    due = sessions_to_refetch(
        frame.filter(pl.col("session") < date(2016, 12, 1)), date(2016, 12, 1), fetched, budget=12
    )
    assert set(september) < set(due)
