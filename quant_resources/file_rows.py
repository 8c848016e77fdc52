"""The rows of a user's bar files as one lazy frame: found, read, and kept where reading again costs time.

What belongs here: files, their names and their state. What does not: what a cell means (file_cells.py), what
a session is or which prices these are (file_bars.py).

Parquet is scanned in place, so that days and columns that nobody asks for are not read. CSV is read once:
files are taken in batches (those of a month, or up to 64 neighbours), and what a batch holds is kept as
Parquet under a name made from the names, sizes and times of its files and from how the layout says to read
them. A changed file or layout is therefore read anew, and what no batch claims any more is removed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from pathlib import Path
from time import time

import polars as pl
import pyarrow.parquet as pq

from quant_resources.errors import ConfigurationError, SourceError, StorageError
from quant_resources.file_cells import NUMBERS, Cell, day_cell, number_cell, read_cells, symbol_cell
from quant_resources.file_layout import BarFiles, FileLayout
from quant_resources.file_text import (
    BLOCK_BYTES,
    FILE,
    LINE,
    SourceFile,
    assert_columns,
    cannot_read,
    text_blocks,
)

#: Columns of the rows: as in the files, beside where they stand and which cell cannot be read.
ROW_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "day": pl.Date(),
    **{name: pl.Int64() if name == "trade_count" else pl.Float64() for name in NUMBERS},
    "bad_column": pl.String(),
    "bad_cell": pl.String(),
    "file": pl.String(),
    "line": pl.Int64(),
}
_READING = 1  # grows whenever the same bytes are read differently than before
_BATCH_FILES = 64
_ROWS_PER_GROUP = 100_000
#: Seconds after which nobody writes a file any more.
_GIVEN_UP = 3600.0


@dataclass(frozen=True)
class BarFile:
    """A file of bars, and what its name says.

    Attributes:
        source: The file as it was listed.
        symbol: The one symbol that it holds.
        day: The one day that it holds.
    """

    source: SourceFile
    symbol: str | None = None
    day: date | None = None


def find_files(layout: FileLayout) -> list[BarFile]:
    """The files of bars that the layout names, by name.

    Raises:
        SourceError: There is none, or one may not be looked at.
        ConfigurationError: A file is not named as the layout says.
    """
    bars = layout.bars
    paths = listed(layout.located(bars.path), bars.format)
    return _named([SourceFile.at(path) for path in paths], bars)


def listed(place: Path, suffix: str) -> list[Path]:
    """The files of a path, of a folder (those of the suffix) or of a glob, sorted.

    Raises:
        SourceError: Nothing is there, or it may not be looked at.
    """
    try:
        if re.search(r"[*?\[]", str(place)) and not place.exists():
            base, pattern = _split_glob(place)
            found = sorted(path for path in base.glob(pattern) if path.is_file())
            what = f"no file matches {place}"
        elif place.is_dir():
            entries = sorted(place.iterdir())
            found = [
                path
                for path in entries
                if path.suffix.lower() == f".{suffix}" and path.name[0] != "." and path.is_file()
            ]
            what = f"the folder {place} holds no .{suffix} file ({len(entries)} other entries)"
        else:
            place.stat()
            return [place]
    except OSError as error:
        raise SourceError(cannot_read(place, error)) from error
    if not found:
        raise SourceError(f"There are no bars: {what}; check bars.path and format in the layout.")
    return found


class FileRows:
    """Reads the files of a layout.

    Args:
        layout: What the files look like.
        cache: Folder for what was read from CSV; None to keep it in memory.
    """

    def __init__(self, layout: FileLayout, cache: Path | None) -> None:
        self._layout = layout
        self._cache = None if cache is None else cache / layout.name
        self._memory: dict[str, pl.DataFrame] = {}

    def scan(self, files: Sequence[BarFile], all_files: Sequence[BarFile]) -> pl.LazyFrame:
        """Rows of some of the files.

        Args:
            files: The files to read.
            all_files: All files there are; what was kept of others is removed.

        Returns:
            Columns `ROW_SCHEMA`; ``line`` is null for Parquet (`numbered` tells it).

        Raises:
            SourceError: A file cannot be read, lacks a column or is not whole.
        """
        if not files:
            return pl.LazyFrame(schema=ROW_SCHEMA)
        if self._layout.bars.format == "parquet":
            return self._parquet(files)
        wanted = {file.source.path for file in files}
        batches = list(_batches(all_files, self._layout.bars))
        keys = [self._key(batch) for batch in batches]
        self._forget_all_but(keys)
        parts = [
            self._batch(key, batch)
            for key, batch in zip(keys, batches, strict=True)
            if any(file.source.path in wanted for file in batch)
        ]
        if self._cache is None:
            return pl.concat([self._memory[key].lazy() for key in parts])
        return pl.scan_parquet([self._cache / f"{key}.parquet" for key in parts], glob=False)

    def numbered(self, file: BarFile) -> pl.LazyFrame:
        """Rows of one file with ``line`` told: its line in CSV, its row in Parquet."""
        if self._layout.bars.format == "csv":
            return pl.concat(self._typed_blocks([file])).lazy()
        name = str(file.source.path)
        rows = pl.scan_parquet(name, glob=False, row_index_name=LINE, row_index_offset=1)
        named = rows.with_columns(pl.col(LINE).cast(pl.Int64), pl.lit(name).alias(FILE))
        return self._typed(named, _parquet_schema(file.source), {name: file})

    def _parquet(self, files: Sequence[BarFile]) -> pl.LazyFrame:
        wanted = list(self._layout.bars.mapping.values())
        groups: dict[tuple[tuple[str, pl.DataType], ...], dict[str, BarFile]] = {}
        for file in files:
            schema = _parquet_schema(file.source)
            assert_columns(file.source.path, list(schema), wanted)
            members = groups.setdefault(tuple(schema.items()), {})
            members[str(file.source.path)] = file
        no_line = pl.lit(None, pl.Int64).alias(LINE)
        return pl.concat(
            self._typed(
                pl.scan_parquet(
                    list(members), glob=False, hive_partitioning=False, include_file_paths=FILE
                ).with_columns(no_line),
                dict(schema),
                members,
            )
            for schema, members in groups.items()
        )

    def _batch(self, key: str, batch: Sequence[BarFile]) -> str:
        if self._cache is None:
            if key not in self._memory:
                self._memory[key] = pl.concat(self._typed_blocks(batch))
            return key
        target = self._cache / f"{key}.parquet"
        if _is_whole(target):
            return key
        temporary = target.with_name(f".{key}.{secrets.token_hex(4)}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            writer: pq.ParquetWriter | None = None
            try:
                for frame in self._typed_blocks(batch):
                    table = frame.sort("day", maintain_order=True).to_arrow()
                    writer = writer or pq.ParquetWriter(temporary, table.schema)
                    writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
            finally:
                if writer is not None:
                    writer.close()
            temporary.replace(target)
        except OSError as error:
            raise StorageError(
                f"What was read from files cannot be kept in {self._cache}: {error.strerror}; free some "
                "space or check the folder's permissions."
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return key

    def _typed_blocks(self, batch: Sequence[BarFile]) -> Iterator[pl.DataFrame]:
        bars = self._layout.bars
        wanted = list(bars.mapping.values())
        named = {str(file.source.path): file for file in batch}
        for text in text_blocks([file.source for file in batch], bars.csv, wanted):
            schema: dict[str, pl.DataType] = {name: pl.String() for name in wanted}
            yield self._typed(text.lazy(), schema, named).collect()

    def _typed(
        self, rows: pl.LazyFrame, schema: dict[str, pl.DataType], files: dict[str, BarFile]
    ) -> pl.LazyFrame:
        """Rows of the files' columns, `FILE` and `LINE` as `ROW_SCHEMA`."""
        bars, mapping = self._layout.bars, self._layout.bars.mapping
        example = next(iter(files))
        try:
            cells = self._name_cells(schema, files)
            for name in NUMBERS:
                if name in mapping:
                    kind = schema[mapping[name]]
                    whole = name == "trade_count"
                    cells[name] = number_cell(mapping[name], kind, bars.csv, whole)
        except SourceError as error:
            raise SourceError(f"{example}: {error}") from error
        absent = [
            pl.lit(None, ROW_SCHEMA[name]).alias(name) for name in NUMBERS if name not in cells
        ]
        return rows.select(*read_cells(cells), *absent, file=FILE, line=LINE).select(
            list(ROW_SCHEMA)
        )

    def _name_cells(
        self, schema: dict[str, pl.DataType], files: dict[str, BarFile]
    ) -> dict[str, Cell]:
        """Symbol and day from the columns, from the file names, or from both when they agree."""
        bars, mapping = self._layout.bars, self._layout.bars.mapping
        upper = self._layout.symbols == "upper"
        cells: dict[str, Cell] = {}
        file = pl.col(FILE)
        if "symbol" in mapping:
            cells["symbol"] = symbol_cell(mapping["symbol"], schema[mapping["symbol"]], upper)
        if "date" in mapping:
            cells["day"] = day_cell(mapping["date"], schema[mapping["date"]], bars)
        if bars.one_file_per == "symbol":
            told = file.replace_strict(
                {path: f.symbol for path, f in files.items()}, return_dtype=pl.String
            )
            if upper:
                told = told.str.strip_chars().str.to_uppercase()
            written = cells.get("symbol")
            cells["symbol"] = _agreeing(written, told)
        if bars.one_file_per == "session":
            told = file.replace_strict(
                {path: f.day for path, f in files.items()}, return_dtype=pl.Date
            )
            cells["day"] = _agreeing(cells.get("day"), told)
        return cells

    def _key(self, batch: Sequence[BarFile]) -> str:
        told = [_READING, self._layout.bars.digest, self._layout.symbols]
        told += [(str(f.source.path), f.source.size, f.source.modified_ns) for f in batch]
        return hashlib.sha256(repr(told).encode()).hexdigest()[:24]

    def _forget_all_but(self, keys: Sequence[str]) -> None:
        kept = set(keys)
        if self._cache is None:
            self._memory = {key: frame for key, frame in self._memory.items() if key in kept}
            return
        for file in self._cache.glob("*"):
            with suppress(OSError):
                # A hidden one is being written, or was when its process was killed.
                left_over = file.name[0] == "." and time() - file.stat().st_mtime > _GIVEN_UP
                if left_over or (file.name[0] != "." and file.stem not in kept):
                    file.unlink(missing_ok=True)


def _is_whole(target: Path) -> bool:
    """Whether a kept file is there and has its end; a machine that lost power may have left a part."""
    try:
        pl.read_parquet_schema(target)
    except (OSError, pl.exceptions.PolarsError):
        return False
    return True


def _agreeing(written: Cell | None, told: pl.Expr) -> Cell:
    """What the file name tells; a row that writes something else cannot be read."""
    if written is None:
        return Cell(told, pl.lit(value=False), pl.lit(None, pl.String))
    bad = written.bad | (written.value != told).fill_null(value=True)
    return Cell(pl.when(~bad).then(told), bad, written.text)


def _batches(files: Sequence[BarFile], bars: BarFiles) -> Iterator[list[BarFile]]:
    if bars.one_file_per == "session":
        # A day that is added must not have ten years read again.
        for _, group in groupby(files, lambda file: file.day and (file.day.year, file.day.month)):
            yield list(group)
        return
    batch: list[BarFile] = []
    size = 0
    for file in files:
        if batch and (len(batch) == _BATCH_FILES or size + file.source.size > BLOCK_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.source.size
    if batch:
        yield batch


def _named(sources: Sequence[SourceFile], bars: BarFiles) -> list[BarFile]:
    """The files with what their names tell."""
    if bars.one_file_per == "market":
        return [BarFile(source) for source in sources]
    before, after = bars.name_pattern.split(bars.placeholder)
    told = []
    for source in sources:
        name = source.path.name
        told.append(name[len(before) : len(name) - len(after)])
        if not (name.startswith(before) and name.endswith(after) and told[-1]):
            raise ConfigurationError(
                f"{source.path} is not named {bars.name_pattern}, so that its {bars.one_file_per} is "
                "unknown; correct bars.file_name in the layout, or narrow bars.path to the files meant."
            )
    if bars.one_file_per == "symbol":
        return [BarFile(source, symbol=each) for source, each in zip(sources, told, strict=True)]
    days = pl.Series(told, dtype=pl.String).str.to_date(bars.file_date_format, strict=False)
    if days.null_count():
        at = int(days.is_null().arg_max() or 0)
        raise ConfigurationError(
            f"{sources[at].path}: {told[at]!r} is no date written as {bars.file_date_format}; correct "
            "bars.file_date_format in the layout, or narrow bars.path to the files meant."
        )
    return [BarFile(source, day=day) for source, day in zip(sources, days, strict=True)]


def _split_glob(place: Path) -> tuple[Path, str]:
    parts = place.parts
    first = next(at for at, part in enumerate(parts) if re.search(r"[*?\[]", part))
    return Path(*parts[:first]), str(Path(*parts[first:]))


def _parquet_schema(file: SourceFile) -> dict[str, pl.DataType]:
    if not file.size:
        raise SourceError(f"{file.path} is empty; deliver it again or remove it.")
    try:
        return dict(pl.read_parquet_schema(file.path))
    except OSError as error:
        raise SourceError(cannot_read(file.path, error)) from error
    except pl.exceptions.PolarsError as error:
        raise SourceError(
            f"{file.path} is no Parquet, or its end is missing as when a transfer is cut off "
            f"({str(error).splitlines()[0]}); deliver it again."
        ) from error
