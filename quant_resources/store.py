"""The data root: `<root>/<stage>/<table>/<partition>.parquet`, read lazily and written atomically.

Belongs here: where a partition lies, atomic writes, and vintages. Does not belong here: Dagster, and what
a table's columns mean (the stages' `schemas.py`). The root is a folder or an object-store URL.

Vintages, of the tables that are declared so:

1. A partition is a folder of immutable files, `<partition>/<vintage>.parquet`, one per delivery whose
   content was new.
2. A vintage is named after its observation time, `YYYYMMDDTHHMMSSffffff` in UTC: the newest
   ``observed_at`` of its rows, or of the delivery it came with when it has no rows.
3. What came last sorts last. Where the clock stepped back (or stood), the vintage takes the time of the
   one before it and a running number, `<time>-0001`: it was not known earlier than that one.
4. A delivery that equals the newest vintage in content adds nothing. Observation times and the order of
   rows are not content; how often a row came is.
5. A file `<partition>.parquet` of a time when the table kept no vintages is its oldest one.

Files are Parquet as PyArrow writes it, lz4, with dictionaries for text alone and statistics for dates
alone: a session of 500 x 158 features takes 60 % of the processor time that Polars' writer takes (it tries
a dictionary on every number), and zstd would save 15 % of the room for twice the time (measured by
`quant_tests/bench/bench_storage.py`).
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, date, datetime
from itertools import groupby
from pathlib import Path

import polars as pl
from upath import UPath

from quant_resources.errors import DataError, MissingPartitionError, SchemaError, StorageError
from quant_resources.tables import Table

_PARTITION_KEY = re.compile(r"\d{4}-\d{2}-\d{2}")
_UNPARTITIONED = "all"
_SUFFIX = ".parquet"
_VINTAGE_TIME = "%Y%m%dT%H%M%S%f"
_VINTAGE = re.compile(r"(\d{8}T\d{12})(-\d*)?")
#: The vintage of a file that bears no time; it sorts before every time.
OLDEST = "0"
#: Partitions of a range that are written at the same time; encoding and uploading leave the interpreter.
_WRITERS = 4


class Store:
    """Reads and writes tables below one root.

    Args:
        root: Folder or fsspec URL ("s3://bucket/prefix").
    """

    def __init__(self, root: str | Path) -> None:
        self.root = UPath(root)
        self._base = _uri(self.root).rstrip("/")

    def partitions(self, table: Table) -> list[str]:
        """Keys of the partitions that are stored, ascending."""
        names = self._names(table.path)
        keys = {stem for name in names if _PARTITION_KEY.fullmatch(stem := _stem(name))}
        if table.vintaged:
            # A process that was killed while it wrote may leave a folder without a vintage.
            keys = {key for key in keys if f"{key}{_SUFFIX}" in names or self.exists(table, key)}
        return sorted(keys)

    def exists(self, table: Table, partition: str | None = None) -> bool:
        """Whether the partition (or the unpartitioned table) is stored."""
        return self._file(table, partition or _UNPARTITIONED) is not None

    def read(
        self,
        table: Table,
        partitions: Iterable[str] | None = None,
        columns: Sequence[str] | None = None,
        as_of: datetime | None = None,
    ) -> pl.LazyFrame:
        """The given partitions (all stored ones by default) as one lazy frame, newest vintages.

        Args:
            table: The table.
            partitions: Keys to read; None for all that are stored (or were known by `as_of`).
            columns: Columns to read; None for all.
            as_of: Read every partition as it was known at this time: the newest vintage observed
                at or before it. Vintaged tables only.

        Raises:
            MissingPartitionError: A named partition is not stored, or was not known yet.
            SchemaError: A column is asked for that the table does not have.
            DataError: `as_of` has no time zone, or the table keeps no vintages.
        """
        if columns is not None:
            unknown = [name for name in columns if name not in table.schema]
            if unknown:
                raise SchemaError(f"Table {table.path} has no column {unknown[0]!r}.")
        latest = _latest_vintage(table, as_of)
        if table.partition_column is None:
            keys: list[str] = [_UNPARTITIONED]
        else:
            keys = self.partitions(table) if partitions is None else list(partitions)
        found = [(key, self._file(table, key, latest)) for key in keys]
        missing = [key for key, file in found if file is None]
        if missing and (partitions is not None or latest is None):
            raise MissingPartitionError(self._missing(table, missing, as_of))
        files = [file for _, file in found if file is not None]
        frame = _scanned(table, files) if files else table.empty().lazy()
        return frame if columns is None else frame.select(columns)

    def vintages(self, table: Table, partition: str) -> list[str]:
        """The vintages of a partition (see the module), oldest first; `observed_at` gives their time."""
        return [stem for stem, _ in self._vintage_files(table, partition)]

    def restated(self, table: Table) -> dict[str, list[str]]:
        """Partition key to vintages, oldest first, of the partitions that have more than one."""
        found = {key: self.vintages(table, key) for key in self.partitions(table)}
        return {key: stems for key, stems in found.items() if len(stems) > 1}

    def read_vintage(self, table: Table, partition: str, vintage: str) -> pl.DataFrame:
        """One vintage of a partition, as it was stored.

        Raises:
            MissingPartitionError: There is no such vintage; the message names those that are.
        """
        files = dict(self._vintage_files(table, partition))
        if vintage not in files:
            raise MissingPartitionError(
                f"Table {table.path} has no vintage {vintage!r} of {partition}; it has "
                f"{', '.join(files) or 'none'}."
            )
        return _scanned(table, [files[vintage]]).collect()

    def write(
        self,
        table: Table,
        frame: pl.DataFrame,
        partitions: Sequence[str] = (),
        observed_at: datetime | None = None,
    ) -> int:
        """Write the frame, split on the partition column; a named partition without rows gets an empty file.

        Args:
            table: Declaration the frame must conform to.
            frame: Rows of exactly the named partitions.
            partitions: Keys to write; empty for unpartitioned tables.
            observed_at: When a delivery without rows was received (vintaged tables); the newest
                ``observed_at`` of the frame by default, or now where it has no rows at all.

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
        received = observed_at or _newest_observation(frame) if table.vintaged else None
        empty = table.empty()

        def write(key: str) -> int:
            return self._write_one(table, parts.get(key, empty), key, received)

        with ThreadPoolExecutor(_WRITERS) as pool:
            return sum(pool.map(write, partitions))

    def _write_one(
        self, table: Table, frame: pl.DataFrame, key: str, received: datetime | None = None
    ) -> int:
        target = self.root / table.path / f"{key}{_SUFFIX}"
        if table.vintaged:
            earlier = self._vintage_files(table, key)
            if earlier and _same_content(pl.read_parquet(earlier[-1][1]), frame):
                return 0
            observed = _newest_observation(frame) or received or datetime.now(UTC)
            stem = _next_vintage([stem for stem, _ in earlier], observed)
            target = self.root / table.path / key / f"{stem}{_SUFFIX}"
        _replace(target, _encoded(frame))
        return 1

    def _file(self, table: Table, key: str, latest: str | None = None) -> str | None:
        """The file of a partition: of its newest vintage, or the newest that sorts before `latest`."""
        if not table.vintaged:
            file = self.root / table.path / f"{key}{_SUFFIX}"
            return _uri(file) if file.exists() else None
        files = self._vintage_files(table, key)
        known = [
            file
            for stem, file in files
            if latest is None or (_time_of_oldest(file) if stem == OLDEST else stem) < latest
        ]
        return known[-1] if known else None

    def _vintage_files(self, table: Table, key: str) -> list[tuple[str, str]]:
        folder = f"{table.path}/{key}"
        # Sorted by stem: "-" sorts before the "." of the suffix, a stem before those it begins.
        stems = sorted(_stem(name) for name in self._names(folder) if name.endswith(_SUFFIX))
        files = [(stem, f"{self._base}/{folder}/{stem}{_SUFFIX}") for stem in stems]
        if not stems or stems[0] != OLDEST:
            unvintaged = self.root / table.path / f"{key}{_SUFFIX}"
            if unvintaged.exists():
                files.insert(0, (OLDEST, _uri(unvintaged)))
        return files

    def _names(self, folder: str) -> set[str]:
        """Names in a folder, without hidden ones (files being written); none where there is none."""
        if _is_local(self.root):
            try:
                # A name costs a tenth of a path object, and a history has thousands of folders.
                found = os.listdir(f"{self._base}/{folder}")  # noqa: PTH208
            except (FileNotFoundError, NotADirectoryError):
                found = []
        else:
            place = self.root / folder
            found = [entry.name for entry in place.iterdir()] if place.exists() else []
        return {name for name in found if not name.startswith(".")}

    def _missing(self, table: Table, missing: Sequence[str], as_of: datetime | None) -> str:
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        first = self.vintages(table, missing[0]) if table.vintaged else []
        if as_of is not None and first:
            return (
                f"Table {table.path}: {len(missing)} partition(s) were not known at {as_of} ({shown}); "
                f"{missing[0]} was first observed at {observed_at(first[0])}: ask for a later time."
            )
        return (
            f"Table {table.path}: {len(missing)} partition(s) are missing ({shown}); "
            f"materialize {table.path} for them first."
        )


def _stem(name: str) -> str:
    return name.removesuffix(_SUFFIX)


def observed_at(vintage: str) -> datetime | None:
    """When a vintage was observed (UTC); None for one that bears no time."""
    found = _VINTAGE.fullmatch(vintage)
    return (
        datetime.strptime(found[1], _VINTAGE_TIME).replace(tzinfo=UTC)
        if found is not None
        else None
    )


def _latest_vintage(table: Table, as_of: datetime | None) -> str | None:
    """The stem before which all vintages lie that were observed at or before a time."""
    if as_of is None:
        return None
    if not table.vintaged:
        raise DataError(f"Table {table.path} keeps no vintages; read it without as_of.")
    if not isinstance(as_of, datetime) or as_of.utcoffset() is None:
        raise DataError(f"as_of={as_of} has no time zone; give an aware datetime, such as UTC.")
    # After every running number of that very time.
    return f"{as_of.astimezone(UTC):{_VINTAGE_TIME}}-~"


def _next_vintage(earlier: Sequence[str], observed: datetime) -> str:
    stem = f"{observed.astimezone(UTC):{_VINTAGE_TIME}}"
    if not earlier or stem > earlier[-1]:
        return stem
    found = _VINTAGE.fullmatch(earlier[-1])
    base = earlier[-1] if found is None else found[1]
    return f"{base}-{sum(other.startswith(base) for other in earlier):04}"


def _time_of_oldest(file: str) -> str:
    observed = _newest_observation(pl.read_parquet(file, columns=["observed_at"]))
    return OLDEST if observed is None else f"{observed.astimezone(UTC):{_VINTAGE_TIME}}"


def _newest_observation(frame: pl.DataFrame) -> datetime | None:
    newest = frame.get_column("observed_at").max() if frame.height else None
    return newest if isinstance(newest, datetime) else None


def write_text_atomically(target: UPath | Path, text: str) -> None:
    """Write a text file so that a reader sees the old or the new one, never a part.

    Raises:
        StorageError: The place cannot be written.
    """
    _replace(UPath(target), text.encode())


def _scanned(table: Table, files: list[str]) -> pl.LazyFrame:
    """The files as one frame; what lacks an added column says of it what the declaration says.

    Costs the reading of every file's schema, for tables with added columns alone.
    """
    added = {
        column.name: pl.lit(column.earlier, dtype=table.schema[column.name])
        if column.earlier_as is None
        else pl.col(column.earlier_as)
        for column in table.columns
        if column.added
    }
    if not added:
        return pl.scan_parquet(files, glob=False)

    def lacks(file: str) -> tuple[str, ...]:
        stored = pl.scan_parquet(file, glob=False).collect_schema()
        return tuple(name for name in added if name not in stored)

    return pl.concat(
        [
            pl.scan_parquet(list(alike), glob=False)
            .with_columns(added[name].alias(name) for name in lacking)
            .select(list(table.schema))
            for lacking, alike in groupby(files, lacks)
        ]
    )


def _encoded(frame: pl.DataFrame) -> bytes:
    """The frame as a Parquet file (see the module)."""
    # Not before something is written: commands that only read start without it.
    import pyarrow as pa
    from pyarrow import parquet

    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    dates = [name for name, dtype in frame.schema.items() if dtype == pl.Date]
    buffer = pa.BufferOutputStream()
    parquet.write_table(
        frame.to_arrow(compat_level=pl.CompatLevel.oldest()),
        buffer,
        compression="lz4",
        use_dictionary=texts,  # pyright: ignore[reportArgumentType]
        # By them a filter on sessions skips the files of all others.
        write_statistics=dates,  # pyright: ignore[reportArgumentType]
    )
    return buffer.getvalue().to_pybytes()


def _replace(target: UPath, content: bytes) -> None:
    if not _is_local(target):
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
    if old.height != new.height or set(old.columns) != set(new.columns):
        return False
    columns = [name for name in new.columns if name != "observed_at"]
    left, right = old.select(columns), new.select(columns)
    # Sources keep an order as a rule; only where they do not is it worth sorting.
    return left.equals(right, null_equal=True) or left.sort(columns).equals(
        right.sort(columns), null_equal=True
    )


def _is_local(file: UPath) -> bool:
    return file.protocol in ("", "file", "local")


def _uri(file: UPath) -> str:
    return file.path if _is_local(file) else str(file)
