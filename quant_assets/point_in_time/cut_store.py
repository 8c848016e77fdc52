"""The data root as it was at the close of a session: what a value of that session may depend on.

Belongs here: which partitions and rows existed at a close. Does not belong here: how tables are stored
(`quant_resources/store.py`) and what is done with the cut (`recompute.py`, `detectors.py`).

1. A session's partition exists from the close of that session on, whether it is market data or what was
   traded that day.
2. A labelled session's partition exists from the close at which its rows are known on, `Table.horizon`
   sessions later.
3. A month's partition exists from the month's first session on: a model is trained before it and serves it.
4. A table without partitions shows its rows up to the session, by their session column if they have one.
5. Of vintages the newest is shown, also where a vendor restated an old session since: a history that was
   fetched in one go was all observed after the sessions it tells of.
6. `uncut` looks behind the cut, for what is no knowledge of a session: under which later name a file that a
   person wrote today speaks of a company. Whoever uses it says why no value can depend on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Final, NoReturn

import polars as pl

from quant_resources.calendar import XNYS
from quant_resources.errors import MissingPartitionError, StorageError
from quant_resources.store import Store
from quant_resources.tables import Table

#: Columns that say of which session a row is, in tables without partitions.
_SESSION_COLUMNS: Final = ("session", "trading_session")


class HiddenPartitionError(MissingPartitionError):
    """A partition was asked for by name that did not exist yet at the close of the cut."""


class CutStore(Store):
    """A data root in which nothing after the close of a session exists; it cannot be written.

    Args:
        store: The whole data root.
        last: The session at whose close it is cut.

    Attributes:
        last: The session at whose close it is cut.
        whole: The data root that it is cut from.
        withheld: Table path to the partitions that a mapping named and that did not exist yet.
    """

    def __init__(self, store: Store, last: date) -> None:
        super().__init__(str(store.root))
        self.last = last
        self.withheld: dict[str, list[str]] = {}
        self.whole = store

    def newest_key(self, table: Table) -> str:
        """The newest partition key of a table that can exist at the close of the cut."""
        # Sessions of the first days of a calendar have no session a horizon before them.
        known = XNYS.offset(self.last, -table.horizon) if table.horizon else self.last
        return known.isoformat()

    def existing(self, table: Table, keys: Sequence[str]) -> list[str]:
        """Those of the partitions that a mapping names that can exist; the others are remembered."""
        hidden = self._hidden(table, keys)
        if hidden:
            self.withheld[table.path] = hidden
        newest = self.newest_key(table)
        return [key for key in keys if key <= newest]

    def partitions(self, table: Table) -> list[str]:
        """Keys of the partitions that were stored by then, ascending."""
        newest = self.newest_key(table)
        return [key for key in self.whole.partitions(table) if key <= newest]

    def exists(self, table: Table, partition: str | None = None) -> bool:
        """Whether the partition (or the unpartitioned table) is stored and existed by then."""
        if partition is not None and partition > self.newest_key(table):
            return False
        return self.whole.exists(table, partition)

    def read(
        self,
        table: Table,
        partitions: Iterable[str] | None = None,
        columns: Sequence[str] | None = None,
        as_of: datetime | None = None,
    ) -> pl.LazyFrame:
        """As `Store.read`, of what existed by then.

        Raises:
            HiddenPartitionError: A named partition is of a later session.
        """
        if table.partition_column is None:
            return self._rows_by_then(table, columns)
        keys = self.partitions(table) if partitions is None else list(partitions)
        self._assert_visible(table, keys)
        return self.whole.read(table, keys, columns, as_of)

    def vintages(self, table: Table, partition: str) -> list[str]:
        """As `Store.vintages`; none of a later session."""
        return [] if self._hidden(table, [partition]) else self.whole.vintages(table, partition)

    def restated(self, table: Table) -> dict[str, list[str]]:
        """As `Store.restated`, of what existed by then."""
        newest = self.newest_key(table)
        return {key: stems for key, stems in self.whole.restated(table).items() if key <= newest}

    def read_vintage(self, table: Table, partition: str, vintage: str) -> pl.DataFrame:
        """As `Store.read_vintage`.

        Raises:
            HiddenPartitionError: The partition is of a later session.
        """
        self._assert_visible(table, [partition])
        return self.whole.read_vintage(table, partition, vintage)

    def write(
        self,
        table: Table,
        frame: pl.DataFrame,  # noqa: ARG002
        partitions: Sequence[str] = (),  # noqa: ARG002
        observed_at: datetime | None = None,  # noqa: ARG002
    ) -> NoReturn:
        """Refuse to write.

        Raises:
            StorageError: Always.
        """
        raise StorageError(
            f"Table {table.path} cannot be written while it is recomputed at the close of {self.last}; "
            "return the rows instead, they are stored by the run."
        )

    def _rows_by_then(self, table: Table, columns: Sequence[str] | None) -> pl.LazyFrame:
        told = next((name for name in _SESSION_COLUMNS if name in table.schema), None)
        if told is None:
            return self.whole.read(table, columns=columns)
        rows = self.whole.read(table).filter(pl.col(told) <= self.last)
        return rows if columns is None else rows.select(columns)

    def _hidden(self, table: Table, keys: Iterable[str]) -> list[str]:
        newest = self.newest_key(table)
        return [key for key in keys if key > newest]

    def _assert_visible(self, table: Table, keys: Sequence[str]) -> None:
        hidden = self._hidden(table, keys)
        if hidden:
            raise HiddenPartitionError(
                f"Table {table.path}: {hidden[0]} does not exist yet at the close of {self.last}, where "
                "it is asked for; ask for partitions up to the session alone."
            )


def uncut(store: Store) -> Store:
    """The whole data root behind a store that may be cut; see the module's last sentence."""
    return store.whole if isinstance(store, CutStore) else store
