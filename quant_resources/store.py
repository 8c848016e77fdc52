"""The data root: `<root>/<stage>/<table>/<partition>.parquet`, read lazily and written atomically.

Vintaged tables keep `<partition>/<observed_at>.parquet`, and a write whose content equals the newest
vintage adds nothing. The root is a folder or an object-store URL. Dagster is not known here.
"""

from __future__ import annotations

import errno
import re
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import date, datetime
from io import BytesIO
from pathlib import Path

import polars as pl
from upath import UPath

from quant_resources.errors import DataError, MissingPartitionError, SchemaError, StorageError
from quant_resources.tables import Table

_PARTITION_KEY = re.compile(r"\d{4}-\d{2}-\d{2}")
_UNPARTITIONED = "all"


class Store:
    """Reads and writes tables below one root.

    Args:
        root: Folder or fsspec URL ("s3://bucket/prefix").
    """

    def __init__(self, root: str | Path) -> None:
        self.root = UPath(root)

    def partitions(self, table: Table) -> list[str]:
        """Keys of the partitions that are stored, ascending."""
        folder = self.root / table.path
        if not folder.exists():
            return []
        found = folder.iterdir() if table.vintaged else folder.glob("*.parquet")
        return sorted(entry.stem for entry in found if _PARTITION_KEY.fullmatch(entry.stem))

    def exists(self, table: Table, partition: str | None = None) -> bool:
        """Whether the partition (or the unpartitioned table) is stored."""
        return self._newest(table, partition or _UNPARTITIONED) is not None

    def read(
        self,
        table: Table,
        partitions: Iterable[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> pl.LazyFrame:
        """The given partitions (all stored ones by default) as one lazy frame, newest vintages.

        Raises:
            MissingPartitionError: A named partition is not stored.
            SchemaError: A column is asked for that the table does not have.
        """
        if columns is not None:
            unknown = [name for name in columns if name not in table.schema]
            if unknown:
                raise SchemaError(f"Table {table.path} has no column {unknown[0]!r}.")
        if table.partition_column is None:
            keys: list[str] = [_UNPARTITIONED]
        else:
            keys = self.partitions(table) if partitions is None else list(partitions)
        files = [(key, self._newest(table, key)) for key in keys]
        missing = [key for key, file in files if file is None]
        if missing:
            shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
            raise MissingPartitionError(
                f"Table {table.path}: {len(missing)} partition(s) are missing ({shown}); "
                f"materialize {table.path} for them first."
            )
        if not files:
            frame = table.empty().lazy()
        else:
            frame = pl.scan_parquet(
                [_uri(file) for _, file in files if file is not None], glob=False
            )
        return frame if columns is None else frame.select(columns)

    def vintages(self, table: Table, partition: str) -> list[str]:
        """File stems (observation times) of a vintaged partition, oldest first."""
        folder = self.root / table.path / partition
        return sorted(file.stem for file in folder.glob("*.parquet")) if folder.exists() else []

    def write(self, table: Table, frame: pl.DataFrame, partitions: Sequence[str] = ()) -> int:
        """Write the frame, split on the partition column; a named partition without rows gets an empty file.

        Args:
            table: Declaration the frame must conform to.
            frame: Rows of exactly the named partitions.
            partitions: Keys to write; empty for unpartitioned tables.

        Returns:
            How many files were written (identical vintages are not written again).

        Raises:
            SchemaError: The frame is not this table, or holds rows of another partition.
            StorageError: The root cannot be written.
        """
        frame = table.conform(frame)
        column = table.partition_column
        if column is None:
            return self._write_one(table, frame, _UNPARTITIONED)
        for key in partitions:
            if not _PARTITION_KEY.fullmatch(key):
                raise DataError(f"{key!r} is no partition key of {table.path}; keys are ISO days.")
        parts: dict[str, pl.DataFrame] = {}
        for (day, *_), part in frame.partition_by(column, as_dict=True).items():
            parts[day.isoformat() if isinstance(day, date) else str(day)] = part
        strange = sorted(set(parts) - set(partitions))
        if strange:
            raise SchemaError(
                f"Table {table.path}: rows of {strange[0]} in a write of {partitions[0]}…{partitions[-1]}; "
                "an asset may only write the partitions of its run."
            )
        return sum(self._write_one(table, parts.get(key, table.empty()), key) for key in partitions)

    def _write_one(self, table: Table, frame: pl.DataFrame, key: str) -> int:
        target = self.root / table.path / f"{key}.parquet"
        if table.vintaged:
            newest = self._newest(table, key)
            if newest is not None and _same_content(pl.read_parquet(_uri(newest)), frame):
                return 0
            observed = frame.get_column("observed_at").max() if frame.height else None
            stem = f"{observed:%Y%m%dT%H%M%S%f}" if isinstance(observed, datetime) else "0"
            if newest is not None and stem <= newest.stem:
                # An empty delivery bears no time, and clocks step back: what came last sorts last.
                stem = f"{newest.stem}-"
            target = self.root / table.path / key / f"{stem}.parquet"
        _write_atomically(target, frame)
        return 1

    def _newest(self, table: Table, key: str) -> UPath | None:
        if not table.vintaged:
            file = self.root / table.path / f"{key}.parquet"
            return file if file.exists() else None
        stems = self.vintages(table, key)
        return self.root / table.path / key / f"{stems[-1]}.parquet" if stems else None


def write_text_atomically(target: UPath | Path, text: str) -> None:
    """Write a text file so that a reader sees the old or the new one, never a part.

    Raises:
        StorageError: The place cannot be written.
    """
    _replace(UPath(target), text.encode())


def _write_atomically(target: UPath, frame: pl.DataFrame) -> None:
    buffer = BytesIO()
    frame.write_parquet(buffer, compression="lz4", statistics=True)
    _replace(target, buffer.getvalue())


def _replace(target: UPath, content: bytes) -> None:
    if target.protocol not in ("", "file", "local"):
        # Object stores publish an object only when its upload is complete.
        target.write_bytes(content)
        return
    local = Path(target.path)
    temporary = local.with_name(f".{local.name}.{secrets.token_hex(4)}")
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(local)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        remedy = (
            "free some space" if error.errno == errno.ENOSPC else "check the folder's permissions"
        )
        raise StorageError(
            f"Cannot write {local}: {error.strerror}; {remedy} and run again."
        ) from error


def _same_content(old: pl.DataFrame, new: pl.DataFrame) -> bool:
    columns = [name for name in new.columns if name != "observed_at"]
    return old.select(columns).equals(new.select(columns), null_equal=True)


def _uri(file: UPath) -> str:
    return file.path if file.protocol in ("", "file", "local") else str(file)
