"""The declaration of a table: its columns, types, units, bounds and key, written once.

Storage enforces columns, types and keys from it; the value checks, the column documentation in the UI
and the tests read the same declaration. Pure: no Dagster, no storage, no database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import polars as pl

from quant_resources.errors import SchemaError

Grain = Literal["session", "labelled_session", "trading_session", "month", "none"]

_PARTITION_COLUMNS: Mapping[Grain, str | None] = {
    "session": "session",
    "labelled_session": "session",
    "trading_session": "trading_session",
    "month": "month",
    "none": None,
}


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: Column name; carries the unit where it would be unclear without.
        dtype: Polars type, exactly as stored.
        description: What the value is, for the person who reads the UI.
        unit: Unit of the value ("USD", "shares", "fraction"), empty for identifiers.
        nullable: Whether a missing value is legal.
        minimum: Smallest legal value, inclusive.
        maximum: Largest legal value, inclusive.
        allowed: The closed list of legal values.
        lies_ahead: Whether a date or time may lie after the row's own session (an expiry).
        added: Whether partitions that were stored before the column was declared lack it.
        earlier: What their rows say of an added column; None where a missing value is legal.
        earlier_as: Or the column whose value they take.
    """

    name: str
    dtype: pl.DataType | type[pl.DataType]
    description: str
    unit: str = ""
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] | None = None
    lies_ahead: bool = False
    added: bool = False
    earlier: str | float | bool | None = None
    earlier_as: str | None = None


@dataclass(frozen=True)
class Table:
    """One table of the platform: an asset's shape on disk.

    Attributes:
        stage: Stage that produces it, the first part of the asset key.
        name: Table name, the second part of the asset key.
        grain: What one partition is.
        description: What one row is and who reads it.
        columns: Columns in stored order.
        key: Columns that identify a row; empty where rows may repeat (raw deliveries).
        vintaged: Whether every write adds an immutable vintage (column `observed_at`).
        horizon: Sessions after its partition's session at whose close a row is known: those of a
            `labelled_session` lie in the future of the session they are stored under, all others are
            known at its close (0).

    Raises:
        SchemaError: A labelled table says nothing of when it is known, or another one claims a horizon; an
            added column says nothing of the rows before it.
    """

    stage: str
    name: str
    grain: Grain
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    owners: tuple[str, ...] = ("team:quant",)
    kinds: tuple[str, ...] = ("polars", "parquet")
    vintaged: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    horizon: int = 0

    def __post_init__(self) -> None:
        labelled = self.grain == "labelled_session"
        if self.horizon < 0 or labelled != (self.horizon > 0):
            raise SchemaError(
                f"Table {self.path} of grain {self.grain} declares the horizon {self.horizon}; a labelled_session "
                "table needs the number of sessions after which it is known, any other has none."
            )
        for column in self.columns:
            said = column.earlier is not None or column.earlier_as is not None
            if column.added and not said and not column.nullable:
                raise SchemaError(
                    f"Table {self.path}: the added column {column.name} may not be missing, so it needs the "
                    "value of earlier rows (earlier, earlier_as)."
                )

    @property
    def path(self) -> str:
        """`<stage>/<table>`: the asset key and the folder below the data root."""
        return f"{self.stage}/{self.name}"

    @property
    def partition_column(self) -> str | None:
        """The Date column whose ISO string is the partition key; None for unpartitioned tables."""
        return _PARTITION_COLUMNS[self.grain]

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        """Column name to Polars type, in stored order."""
        return {
            column.name: column.dtype if isinstance(column.dtype, pl.DataType) else column.dtype()
            for column in self.columns
        }

    def empty(self) -> pl.DataFrame:
        """A frame with the table's columns and no rows."""
        return pl.DataFrame(schema=self.schema)

    def conform(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the frame with its columns in declared order, or say why it is not this table.

        Raises:
            SchemaError: Columns are missing or unknown, a type differs, a value is missing where
                none may be, or the key repeats.
        """
        missing = [name for name in self.schema if name not in frame.columns]
        unknown = [name for name in frame.columns if name not in self.schema]
        if missing or unknown:
            raise SchemaError(
                f"Table {self.path}: columns missing: {missing or 'none'}, not declared: "
                f"{unknown or 'none'}; declare them in the stage's schemas.py or return what it says."
            )
        frame = frame.select(list(self.schema))
        wrong = {
            name: (str(frame.schema[name]), str(dtype))
            for name, dtype in self.schema.items()
            if frame.schema[name] != dtype
        }
        if wrong:
            listed = ", ".join(
                f"{name} is {got}, declared {want}" for name, (got, want) in wrong.items()
            )
            raise SchemaError(f"Table {self.path}: {listed}; cast where the column is computed.")
        required = [column.name for column in self.columns if not column.nullable]
        if frame.height and required:
            counts = frame.select(pl.col(required).null_count()).row(0, named=True)
            holes = {name: count for name, count in counts.items() if count}
            if holes:
                name = next(iter(holes))
                shown = (
                    frame.filter(pl.col(name).is_null()).select(self._identity or [name]).head(3)
                )
                raise SchemaError(
                    f"Table {self.path}: missing values in {holes}, first rows {shown.rows()}; "
                    "declare the column nullable or repair the rows."
                )
        if self.key and frame.height:
            repeated = frame.filter(pl.struct(self.key).is_duplicated()).select(self.key)
            if repeated.height:
                raise SchemaError(
                    f"Table {self.path}: {repeated.height} rows repeat their key {self.key}, "
                    f"for example {repeated.row(0)}."
                )
        return frame

    @property
    def _identity(self) -> list[str]:
        return list(self.key) or [
            name for name in (self.partition_column, "symbol") if name and name in self.schema
        ]
