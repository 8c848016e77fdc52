"""The split never lets a label in before it was known, and says what is missing."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from quant_assets.models.walk_forward import (
    InsufficientHistoryError,
    LookAheadError,
    WalkForwardConfig,
    refuse_look_ahead,
    walk_forward_split,
)
from quant_resources.calendar import XNYS

FIRST = date(2022, 1, 3)


def labelled(sessions: int, horizon: int = 2) -> pl.DataFrame:
    days = XNYS.sessions(FIRST, XNYS.offset(FIRST, sessions + horizon - 1))
    return pl.DataFrame({"session": days[:sessions], "known_session": days[horizon:]})


@st.composite
def problems(draw: st.DrawFn) -> tuple[pl.DataFrame, date, WalkForwardConfig]:
    horizon = draw(st.integers(1, 21))
    sessions = draw(st.integers(60, 200))
    config = WalkForwardConfig(
        training_sessions=draw(st.integers(40, 250)),
        held_out_sessions=draw(st.integers(1, 20)),
        embargo_sessions=draw(st.integers(0, 10)),
        minimum_fit_sessions=draw(st.integers(1, 8)),
    )
    effective = XNYS.offset(FIRST, draw(st.integers(0, sessions + horizon)))
    return labelled(sessions, horizon), effective, config


@given(problems())
@settings(max_examples=150, deadline=None)
def test_no_label_is_used_before_it_was_known(
    problem: tuple[pl.DataFrame, date, WalkForwardConfig],
) -> None:
    known_sessions, effective, config = problem
    known = dict(known_sessions.iter_rows())
    try:
        split = walk_forward_split(known_sessions, effective, config)
    except InsufficientHistoryError:
        return
    assert all(known[session] < effective for session in split.window)
    assert all(known[session] < split.held_out[0] for session in split.fit)
    # Nothing of the month, or later, takes part.
    assert max(split.window) < effective
    # The three parts are the window, in order and without a gap.
    assert list(split.window) == sorted(set(split.window))
    positions = [XNYS.sessions(FIRST, day).__len__() for day in split.window]
    assert positions == list(range(positions[0], positions[0] + len(positions)))
    assert len(split.held_out) == config.held_out_sessions
    assert len(split.window) <= config.training_sessions
    assert len(split.fit) >= config.minimum_fit_sessions
    # The embargo lies between the last fitted label's session and the purge.
    purged = sum(known[session] >= split.held_out[0] for session in split.withheld)
    assert len(split.withheld) == purged + config.embargo_sessions


@given(problems())
@settings(max_examples=100, deadline=None)
def test_what_is_known_later_changes_nothing(
    problem: tuple[pl.DataFrame, date, WalkForwardConfig],
) -> None:
    known_sessions, effective, config = problem
    truncated = known_sessions.filter(pl.col("known_session") < effective)

    def outcome(rows: pl.DataFrame) -> object:
        try:
            return walk_forward_split(rows, effective, config)
        except InsufficientHistoryError:
            return None

    assert outcome(known_sessions) == outcome(truncated)


def test_the_requirement_is_exact() -> None:
    config = WalkForwardConfig()
    needed = config.required_sessions()
    history = labelled(needed)
    effective = XNYS.next(history.item(-1, "known_session"))
    split = walk_forward_split(history, effective, config)
    assert len(split.window) == needed
    assert len(split.fit) == config.minimum_fit_sessions
    with pytest.raises(
        InsufficientHistoryError, match=f"needs {needed} sessions.*has {needed - 1}"
    ):
        walk_forward_split(history.tail(needed - 1), effective, config)


def test_no_history_names_what_is_needed() -> None:
    with pytest.raises(InsufficientHistoryError, match=r"needs 130 sessions.*has 0 .*backfill 130"):
        walk_forward_split(labelled(10).clear(), date(2022, 2, 1), WalkForwardConfig())


def test_the_latest_label_of_a_session_counts() -> None:
    history = labelled(150)
    effective = XNYS.next(history.item(-1, "known_session"))
    late = history.tail(1).with_columns(known_session=pl.lit(effective))
    split = walk_forward_split(pl.concat([history, late]), effective, WalkForwardConfig())
    assert split.held_out[-1] == history.item(-2, "session")


def test_a_label_known_on_its_own_session_is_refused() -> None:
    history = labelled(150).with_columns(known_session=pl.col("session"))
    with pytest.raises(LookAheadError, match="2022-01-03"):
        walk_forward_split(history, date(2022, 9, 1), WalkForwardConfig())


def test_an_overlapping_label_among_the_rows_is_caught() -> None:
    rows = labelled(5).with_columns(symbol=pl.lit("AAPL"))
    before = rows.item(-1, "known_session")
    refuse_look_ahead(rows, before + timedelta(days=1), "a test")
    with pytest.raises(LookAheadError, match=r"1 labels for a test .* AAPL of 2022-01-07"):
        refuse_look_ahead(rows, before, "a test")


def test_a_window_too_short_for_its_parts_is_refused() -> None:
    with pytest.raises(ValidationError, match="training_sessions is 100, but .* need 130"):
        WalkForwardConfig(training_sessions=100)
