"""Three detectors: does a value depend on the future, on the range it was computed in, on its history?

Belongs here: which computations of the same session must agree, and what to say when they do not. Does not
belong here: computing (`recompute.py`), what equal means (`comparisons.py`), which sessions are looked at
(`checks.py`, `plan.py`).

1. The yardstick is the session **alone**: computed by itself from the store cut at the close at which its
   rows are known. Nothing later exists there.
2. `look_ahead`: the same session inside a range that goes on after it, with everything visible, must give
   the same rows. A value that changes when the future is there uses it. Inputs whose mapping names partitions
   that do not exist at the cut are named by themselves, and a labelled row must not be there a session early.
3. `day_equals_range`: what is stored must be the same rows. They differ where a table depends on the range
   that it was computed in, or where an input was restated since.
4. `start_up`: the same session at the end of a range that begins sessions earlier, cut at the same close, must
   give the same rows: every input reaches further back then, and a value whose history is long enough does not
   move.

The ranges of 2 and 4 are joined into one at first, over as many of the sessions as are neighbours: when the
session is the same there, both hold. Only sessions that differ are computed again in the ranges of each
detector, to tell what moves them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from quant_assets.findings import Finding
from quant_assets.point_in_time.comparisons import differences, differing_rows
from quant_assets.point_in_time.session_recomputations import Recomputations
from quant_resources.tables import Table

#: Sessions that differ are told apart one by one, but not all of a table's history.
_TOLD_APART: Final = 3
_SAMPLE_ROWS: Final = 10
_IN_RANGES: Final = ("alone", "in_a_range")
_STORED: Final = ("stored", "alone")

_FUTURE: Final = (
    "Use only what is known at the close of the session: look for shifts by a negative number, statistics over "
    "a whole frame, and tables that are read from the store without a last session."
)
_RANGE: Final = (
    "An input or the model in force was restated since, or the table depends on the range that it is computed in, such "
    "as by looking ahead further than the look-ahead proof does: materialize the session again, and if it stays, "
    "correct the function."
)
_HISTORY: Final = (
    "The formula has not settled after the history that it is given: let its mapping and its function reach further "
    "back, or take a formula over a fixed window."
)


def look_ahead(again: Recomputations, table: Table, keys: Sequence[str]) -> Finding:
    """Whether rows of some sessions depend on anything later than the close at which they are known.

    Args:
        again: The table's step.
        table: One of its tables.
        keys: Stored sessions, ascending.

    Raises:
        MissingPartitionError: An input is not stored.
    """
    problem = (
        _asked_too_early(again, table, keys)
        or _named_too_early(again, table, keys)
        or _known_too_early(again, table, keys)
    )
    if problem is not None:
        return problem
    wide = _against_ranges(again, table, keys)
    found = _told_apart(again, table, wide.sessions, _with_future)
    if found.is_empty() and _told_apart(again, table, wide.sessions, _with_history).is_empty():
        # Neither future nor history alone moves them: then the range as a whole does, future included.
        found = wide.found
    if found.is_empty():
        return Finding(
            True,
            f"{table.path}: {wide.rows} rows of {_span(keys)} are the same without anything later.",
        )
    return _differ(table, found, wide.sessions, "change when what comes later can be seen", _FUTURE)


def day_equals_range(again: Recomputations, table: Table, keys: Sequence[str]) -> Finding:
    """Whether what is stored of some sessions is what each of them gives when it is computed alone.

    Args:
        again: The table's step.
        table: One of its tables.
        keys: Stored sessions, ascending.

    Raises:
        MissingPartitionError: An input, or the table itself, is not stored.
    """
    problem = _asked_too_early(again, table, keys)
    if problem is not None:
        return problem
    stored = again.store.read(table, None if again.is_whole else keys).collect()
    compared = _Compared(table, _STORED)
    for group in [[key] for key in keys] if again.is_whole else [list(keys)]:
        compared.add(again.rows_of(table, stored, group), again.alone_rows(table, group), group)
    if compared.found.is_empty():
        return Finding(
            True,
            f"{table.path}: {compared.rows} rows of {_span(keys)} are stored as they are when computed alone.",
        )
    return _differ(
        table, compared.found, compared.sessions, "differ from what the session gives alone", _RANGE
    )


def start_up(again: Recomputations, table: Table, keys: Sequence[str]) -> Finding:
    """Whether rows of some sessions move when every input reaches further back.

    Args:
        again: The table's step.
        table: One of its tables.
        keys: Stored sessions, ascending.

    Raises:
        MissingPartitionError: An input is not stored.
    """
    if again.is_whole:
        return Finding(
            True, f"{table.path}: computed from all history, there is none before it to add."
        )
    problem = _asked_too_early(again, table, keys)
    if problem is not None:
        return problem
    wide = _against_ranges(again, table, keys)
    found = _told_apart(again, table, wide.sessions, _with_history)
    if found.is_empty():
        return Finding(
            True,
            f"{table.path}: {wide.rows} rows of {_span(keys)} do not move with up to {again.more_history} more "
            "sessions of history.",
        )
    return _differ(
        table,
        found,
        wide.sessions,
        f"move with up to {again.more_history} more sessions of history",
        _HISTORY,
    )


@dataclass
class _Compared:
    """What comparing some frames of one table gave: differences, of which sessions, out of how many rows."""

    table: Table
    names: tuple[str, str]
    rows: int = 0

    def __post_init__(self) -> None:
        self.found = differences(self.table, self.table.empty(), self.table.empty(), self.names)
        self.sessions: list[str] = []

    def add(self, one: pl.DataFrame, other: pl.DataFrame, keys: Sequence[str]) -> None:
        """Compare two frames of the rows of some sessions."""
        part = differences(self.table, one, other, self.names)
        self.rows += other.height
        if part.is_empty():
            return
        self.found = pl.concat([self.found, part])
        column = self.table.partition_column
        self.sessions += (
            list(keys)
            if column is None
            else [day.isoformat() for day in part.get_column(column).unique().sort()]
        )


def _against_ranges(again: Recomputations, table: Table, keys: Sequence[str]) -> _Compared:
    compared = _Compared(table, _IN_RANGES)
    for group, around in again.ranges_around(keys):
        within = again.range(around)[table.path]
        compared.add(again.alone_rows(table, group), again.rows_of(table, within, group), group)
    return compared


def _told_apart(
    again: Recomputations,
    table: Table,
    sessions: Sequence[str],
    compute: Callable[[Recomputations, str], dict[str, pl.DataFrame]],
) -> pl.DataFrame:
    compared = _Compared(table, _IN_RANGES)
    for key in sessions[:_TOLD_APART]:
        within = compute(again, key)[table.path]
        compared.add(again.alone_rows(table, [key]), again.rows_of(table, within, [key]), [key])
    return compared.found


def _with_future(again: Recomputations, key: str) -> dict[str, pl.DataFrame]:
    return again.range([] if again.is_whole else again.neighbours(key, 0, again.reach))


def _with_history(again: Recomputations, key: str) -> dict[str, pl.DataFrame]:
    last = again.known_session(key)
    return again.range([] if again.is_whole else again.neighbours(key, again.more_history, 0), last)


def _asked_too_early(again: Recomputations, table: Table, keys: Sequence[str]) -> Finding | None:
    for key in keys:
        impossible = again.alone(key).impossible
        if impossible:
            return Finding(
                False,
                f"{table.path} of {key} asks for what comes later. {impossible}",
                1,
                remedy=_FUTURE,
            )
    return None


def _named_too_early(again: Recomputations, table: Table, keys: Sequence[str]) -> Finding | None:
    named = [
        (key, path, partition)
        for key in keys
        for path, partitions in again.alone(key).withheld.items()
        for partition in partitions
    ]
    if not named:
        return None
    key, path, partition = named[0]
    return Finding(
        False,
        f"{table.path}: its mapping names {path} of {partition} for {key}, which does not exist when the rows "
        f"are known; {len(named)} such partitions of {_span(keys)}.",
        len(named),
        pl.DataFrame(named, ["session", "input", "partition"], orient="row").head(_SAMPLE_ROWS),
        "Correct the partition mapping of the input: it may not reach beyond the session.",
    )


def _known_too_early(again: Recomputations, table: Table, keys: Sequence[str]) -> Finding | None:
    if not table.horizon:
        return None
    may_miss = [column.name for column in table.columns if column.nullable]
    there = pl.any_horizontal(pl.col(may_miss).is_not_null()) if may_miss else pl.lit(True)
    frames = [frame for key in keys if (frame := again.early(key).get(table.path)) is not None]
    early = pl.concat([table.empty(), *frames]).filter(there)
    if early.is_empty():
        return None
    return Finding(
        False,
        f"{table.path}: {early.height} labels of {_span(keys)} are there a session before they can be known, "
        f"which is {table.horizon} sessions later.",
        early.height,
        early.head(_SAMPLE_ROWS),
        "Correct the table's horizon, or what its labels are computed from.",
    )


def _differ(
    table: Table, found: pl.DataFrame, sessions: Sequence[str], how: str, remedy: str
) -> Finding:
    rows = differing_rows(table, found)
    columns = found.get_column("column").unique(maintain_order=True)
    shown = ", ".join(columns[:3]) + (f" and {columns.len() - 3} more" if columns.len() > 3 else "")
    return Finding(
        False,
        f"{table.path}: {rows} rows of {_span(sessions)} {how}, in {shown}.",
        rows,
        found.head(_SAMPLE_ROWS),
        remedy,
    )


def _span(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{len(keys)} sessions ({keys[0]} to {keys[-1]})"
