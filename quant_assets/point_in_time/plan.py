"""What is proved of which table, on which sessions, and why a table is not recomputed.

Belongs here: choosing tables and sessions. Does not belong here: the proofs (`proofs.py` and what it
names) and reading the command line.

1. Every table of the graph is named, in the order in which data flows: with the way it is proved, or with
   the reason why nothing can be. The way follows from its asset, never from a list of names.
2. Sessions are the stored partitions of a table; a table without partitions has those of its rows.
3. A sample of N cuts them into N stretches of like length and draws one of each, the same ones every time:
   all of history is looked at, and a failure can be looked at again.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Literal

import numpy as np

from quant_assets.point_in_time.evidence import times_of
from quant_assets.point_in_time.recompute import WHOLE_TABLE_COLUMN, Step, reason_not_recomputed
from quant_resources.errors import ConfigurationError
from quant_resources.store import Store
from quant_resources.tables import Table

Way = Literal["recomputed", "retrained", "evidence"]

_SEED = 158
_MATCHES_SHOWN = 3


@dataclass(frozen=True)
class Sessions:
    """Which of the stored sessions are proved.

    Attributes:
        first: First day; None: the first that is stored.
        last: Last day; None: the last that is stored.
        sample: How many of them; None: all.
    """

    first: date | None = None
    last: date | None = None
    sample: int | None = None

    def of(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Those of some ascending partition keys, which are ISO days."""
        within = [
            key
            for key in keys
            if (self.first is None or key >= self.first.isoformat())
            and (self.last is None or key <= self.last.isoformat())
        ]
        return tuple(within if self.sample is None else _drawn(within, self.sample))


@dataclass(frozen=True)
class PlannedTable:
    """A table and how it is proved.

    Attributes:
        table: The table.
        step: What computes it.
        way: Recomputed, retrained (a month's model), or looked at as evidence.
        keys: The partitions to prove, ascending.
        reason: Why it is not recomputed like others; empty where it is.
    """

    table: Table
    step: Step
    way: Way
    keys: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """What is proved, and what cannot be.

    Attributes:
        tables: Tables to prove, in the order in which data flows.
        unproved: Path and reason of the others that were asked for.
    """

    tables: tuple[PlannedTable, ...]
    unproved: tuple[tuple[str, str], ...]

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """Path and reason of every table that is not recomputed, proved in another way or not at all."""
        otherwise = [(one.table.path, one.reason) for one in self.tables if one.reason]
        return [*otherwise, *self.unproved]


def plan(
    steps: Iterable[Step],
    external: Iterable[str],
    store: Store,
    sessions: Sessions,
    patterns: Sequence[str] = (),
) -> Plan:
    """Choose tables and sessions.

    Args:
        steps: The steps of the graph (`recompute.steps`), in the order in which data flows.
        external: Paths of the graph's tables that nothing computes.
        store: The data root.
        sessions: Which sessions.
        patterns: Paths (`features/alpha158`), names (`alpha158`), stages (`features`) or shell patterns
            of either (`features/*`); none: every table.

    Raises:
        ConfigurationError: A pattern meets no table, or nothing is stored that was asked for.
    """
    computed = {table.path: (table, step) for step in steps for table in step.tables}
    others = list(external)
    wanted = _wanted(patterns, [*computed, *others])
    planned: list[PlannedTable] = []
    unproved: list[tuple[str, str]] = []
    for path, (table, step) in computed.items():
        if path not in wanted:
            continue
        way, reason = way_of(table, step)
        keys = () if way is None else sessions.of(stored_sessions(store, table))
        if way is None:
            unproved.append((path, reason))
        elif not keys:
            unproved.append((path, "nothing of it is stored for these sessions"))
        else:
            planned.append(PlannedTable(table, step, way, keys, reason))
    unproved += [(path, "written by people, not computed") for path in others if path in wanted]
    if not planned and any(reason.startswith("nothing") for _, reason in unproved):
        raise ConfigurationError(_nothing_stored(store, computed, wanted, sessions))
    return Plan(tuple(planned), tuple(unproved))


def way_of(table: Table, step: Step) -> tuple[Way | None, str]:
    """How a table is proved, and why it is not recomputed; None where nothing can be proved."""
    reason = reason_not_recomputed(step)
    if reason is None:
        return "recomputed", ""
    if table.grain == "month":
        return "retrained", reason
    if table.grain == "trading_session" and times_of(table):
        return "evidence", reason
    return None, reason


def stored_sessions(store: Store, table: Table) -> list[str]:
    """The partitions that are stored, ascending; of a table without any, the sessions of its rows."""
    if table.partition_column is not None:
        return store.partitions(table)
    if not store.exists(table):
        return []
    days = store.read(table, columns=[WHOLE_TABLE_COLUMN]).unique().collect().to_series()
    return [day.isoformat() for day in days.sort()]


def parsed_sessions(text: str) -> Sessions:
    """What a person names: `all`, a number for a sample, a day, or `FIRST..LAST` with either end open.

    Raises:
        ConfigurationError: It is none of these.
    """
    named = text.strip()
    if named == "all":
        return Sessions()
    if named.isdecimal():
        if int(named) == 0:
            raise ConfigurationError("A sample of 0 sessions proves nothing; ask for 1 or more.")
        return Sessions(sample=int(named))
    first, dots, last = named.partition("..")
    if not dots:
        last = first
    if not first and not last:
        raise _unreadable(named)
    chosen = Sessions(_day(first, named), _day(last, named))
    if chosen.first is not None and chosen.last is not None and chosen.first > chosen.last:
        raise ConfigurationError(
            f"{named!r} ends before it begins; write it as {chosen.last}..{chosen.first}."
        )
    return chosen


def _day(text: str, whole: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise _unreadable(whole) from None


def _unreadable(text: str) -> ConfigurationError:
    return ConfigurationError(
        f"{text!r} names no sessions; write all, a number for a sample, a day such as 2024-03-15, or "
        "a range such as 2024-03-01..2024-03-28."
    )


def _drawn(keys: Sequence[str], count: int) -> list[str]:
    """One of every stretch; the same for the same keys."""
    stretches = min(count, len(keys))
    draw = np.random.default_rng(_SEED)
    edges = [len(keys) * number // stretches for number in range(stretches + 1)] if keys else [0]
    return [keys[int(draw.integers(start, end))] for start, end in pairwise(edges)]


def _wanted(patterns: Sequence[str], paths: Sequence[str]) -> set[str]:
    if not patterns:
        return set(paths)
    wanted: set[str] = set()
    for pattern in patterns:
        met = {
            path
            for path in paths
            if any(fnmatchcase(name, pattern) for name in (path, *path.split("/")))
        }
        if not met:
            names = [*paths, *(path.rpartition("/")[2] for path in paths)]
            near = difflib.get_close_matches(pattern, names, n=_MATCHES_SHOWN)
            told = (
                f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(paths)}."
            )
            raise ConfigurationError(f"No table is named {pattern!r}; {told}")
        wanted |= met
    return wanted


def _nothing_stored(
    store: Store, computed: dict[str, tuple[Table, Step]], wanted: set[str], sessions: Sessions
) -> str:
    stored = sorted(
        {
            key
            for path in wanted & set(computed)
            for key in stored_sessions(store, computed[path][0])
        }
    )
    if not stored:
        return (
            f"Nothing of {', '.join(sorted(wanted))} is stored in {store.root}; run `quant demo` or "
            "`quant backfill` first."
        )
    near = [key for key in stored if sessions.last is not None and key <= str(sessions.last)][-1:]
    near += [key for key in stored if sessions.first is not None and key >= str(sessions.first)][:1]
    return (
        f"No session from {sessions.first or 'the first'} to {sessions.last or 'the last'} is stored; "
        f"stored are {stored[0]} to {stored[-1]}, the nearest are {' and '.join(near)}."
    )
