"""The computations of one session that must agree: alone, inside ranges, a session too early.

Belongs here: computing a step for sessions and ranges, each once. Does not belong here: what must agree
(`detectors.py`) and how a step is computed at all (`recompute.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, Final

import polars as pl

from quant_assets.partitions import SESSIONS_PER_RUN
from quant_assets.point_in_time.cut_store import CutStore, HiddenPartitionError
from quant_assets.point_in_time.recompute import WHOLE_TABLE_COLUMN, Step, recompute_step
from quant_resources.calendar import XNYS
from quant_resources.errors import DataError
from quant_resources.store import Store
from quant_resources.tables import Table

#: Sessions that a range goes on after a session, for the look-ahead detector.
REACH: Final = 5
#: Sessions that a range begins before a session, for the start-up detector.
MORE_HISTORY: Final = 20


@dataclass(frozen=True)
class Alone:
    """A session computed alone: its tables, what mappings named in vain, and why it cannot be computed."""

    frames: Mapping[str, pl.DataFrame]
    withheld: Mapping[str, list[str]]
    impossible: str = ""


class Recomputations:
    """One step computed again for some sessions, each computation made once.

    Args:
        step: What is computed.
        store: The whole data root.
        resources: Resources that the step's function names, beside the store.
        reach: Sessions that a range goes on after a session.
        more_history: Sessions that a range begins before a session.

    A partition key stands for a session. Of a table without partitions, which is computed as a whole,
    the rows of a session are all rows up to it.
    """

    def __init__(
        self,
        step: Step,
        store: Store,
        resources: Mapping[str, Any],
        reach: int = REACH,
        more_history: int = MORE_HISTORY,
    ) -> None:
        self.step = step
        self.store = store
        self.reach = reach
        self.more_history = more_history
        self._resources = resources
        self._alone: dict[str, Alone] = {}
        self._ranges: dict[tuple[str, str, date | None], dict[str, pl.DataFrame]] = {}

    @property
    def is_whole(self) -> bool:
        """Whether the tables have no partitions."""
        return self.step.tables[0].grain == "none"

    def alone(self, key: str) -> Alone:
        """The session computed by itself, from the store cut at the close at which it is known."""
        if key not in self._alone:
            cut = CutStore(self.store, self.known_session(key))
            try:
                frames = self._compute([key], cut)
                self._alone[key] = Alone(frames, cut.withheld)
            except HiddenPartitionError as error:
                self._alone[key] = Alone({}, cut.withheld, str(error))
        return self._alone[key]

    def range(self, keys: Sequence[str], last: date | None = None) -> dict[str, pl.DataFrame]:
        """Some neighbouring sessions computed together, from the store cut at `last` or from all of it."""
        named = ("", "", last) if self.is_whole else (keys[0], keys[-1], last)
        if named not in self._ranges:
            store = self.store if last is None else CutStore(self.store, last)
            self._ranges[named] = self._compute(keys, store)
        return self._ranges[named]

    def early(self, key: str) -> dict[str, pl.DataFrame]:
        """The session computed a session before its rows are known; nothing where it cannot be."""
        cut = CutStore(self.store, XNYS.previous(self.known_session(key)))
        try:
            return self._compute([key], cut)
        except DataError:
            return {}

    def known_session(self, key: str) -> date:
        """The session at whose close the rows of a key are known."""
        day, horizon = date.fromisoformat(key), self.step.tables[0].horizon
        return XNYS.offset(day, horizon) if horizon else day

    def alone_rows(self, table: Table, keys: Sequence[str]) -> pl.DataFrame:
        """Rows of some sessions, each computed alone."""
        return pl.concat([self.alone(key).frames[table.path] for key in keys])

    def rows_of(self, table: Table, frame: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        """Rows of some sessions out of more; of a whole table all rows up to the one session."""
        days = [date.fromisoformat(key) for key in keys]
        if table.partition_column is None:
            return frame.filter(pl.col(WHOLE_TABLE_COLUMN) <= max(days))
        return frame.filter(pl.col(table.partition_column).is_in(days))

    def ranges_around(self, keys: Sequence[str]) -> list[tuple[list[str], list[str]]]:
        """Sessions in groups, each with one range around all of it.

        A range begins `more_history` stored sessions before the first of its group and ends `reach`
        after the last; sessions whose ranges touch share one of at most a run's length.
        """
        if self.is_whole:
            return [([key], []) for key in keys]
        groups: list[tuple[list[str], list[str]]] = []
        for key in keys:
            around = self.neighbours(key, self.more_history, self.reach)
            if groups:
                grouped, before = groups[-1]
                touching = around[0] <= before[-1] and before[0] <= around[0]
                joined = [*before, *(other for other in around if other > before[-1])]
                if touching and len(joined) <= SESSIONS_PER_RUN:
                    groups[-1] = ([*grouped, key], joined)
                    continue
            groups.append(([key], around))
        return groups

    def neighbours(self, key: str, before: int, after: int) -> list[str]:
        """A key and the stored ones around it, up to the first that is not stored."""
        place = self._places[key]
        first = place
        while first > max(place - before, 0) and self._keys[first - 1] in self._stored:
            first -= 1
        last = place
        while (
            last < min(place + after, len(self._keys) - 1) and self._keys[last + 1] in self._stored
        ):
            last += 1
        return self._keys[first : last + 1]

    def _compute(self, keys: Sequence[str], store: Store) -> dict[str, pl.DataFrame]:
        return recompute_step(self.step, [] if self.is_whole else keys, store, self._resources)

    @cached_property
    def _keys(self) -> list[str]:
        definition = self.step.partitions.of(self.step.tables[0])
        return [] if definition is None else list(definition.get_partition_keys())

    @cached_property
    def _places(self) -> dict[str, int]:
        return {key: place for place, key in enumerate(self._keys)}

    @cached_property
    def _stored(self) -> set[str]:
        return set(self.store.partitions(self.step.tables[0]))
