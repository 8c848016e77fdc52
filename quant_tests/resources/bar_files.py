"""A small market of four symbols and twelve sessions, written as files in whatever way a test needs."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from quant_resources.calendar import XNYS
from quant_resources.errors import SourceError
from quant_resources.file_bars import FileBars
from quant_resources.file_layout import load_layout

SESSIONS = XNYS.sessions(date(2024, 3, 1), date(2024, 3, 18))
SYMBOLS = ("AAA", "BBB", "BRK.B", "CCC")
NOW = datetime(2024, 6, 3, 12, tzinfo=UTC)
VALUES = ("open", "high", "low", "close", "volume")


def bars() -> pl.DataFrame:
    """The rows as a vendor would write them, sorted by symbol and date."""
    days = pl.DataFrame({"date": SESSIONS}).with_row_index("at")
    names = pl.DataFrame({"symbol": SYMBOLS}).with_row_index("number")
    close = (20.0 + pl.col("number") * 1_500 + pl.col("at") * 0.25).round(2)
    return (
        names.join(days, how="cross")
        .with_columns(close=close)
        .select(
            "symbol",
            "date",
            open=(pl.col("close") - 0.1).round(2),
            high=(pl.col("close") + 0.5).round(2),
            low=(pl.col("close") - 0.5).round(2),
            close="close",
            volume=1_000_000 + pl.col("at").cast(pl.Int64) * 1_000,
        )
    )


def lines(frame: pl.DataFrame | None = None) -> list[str]:
    """The rows as lines of CSV, the header first."""
    return (bars() if frame is None else frame).write_csv().splitlines()


def write_text(path: Path, text: list[str] | str) -> Path:
    """Write lines, or text as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else "\n".join(text) + "\n")
    return path


def source(
    folder: Path,
    bars_keys: str = "",
    top: str = 'prices = "raw"',
    *,
    path: str = "bars.csv",
    form: str = "csv",
    per: str = "market",
    cache: Path | None = None,
    symbols: tuple[str, ...] = (),
    now: datetime = NOW,
) -> FileBars:
    """The source of a layout that is written into the folder."""
    layout = folder / "files.toml"
    layout.write_text(
        f'name = "vendor"\n{top}\n[bars]\npath = "{path}"\nformat = "{form}"\n'
        f'one_file_per = "{per}"\n{bars_keys}\n'
    )
    return FileBars(load_layout(layout), cache, symbols, clock=lambda: now)


def fetched(source: FileBars, first: date = SESSIONS[0], last: date = SESSIONS[-1]) -> pl.DataFrame:
    """What the source delivers, as the vendor's columns."""
    return source.bars(None, first, last).select("symbol", pl.col("session").alias("date"), *VALUES)


def expected(frame: pl.DataFrame | None = None) -> pl.DataFrame:
    """The rows in the order and with the types of a delivery."""
    return (
        (bars() if frame is None else frame)
        .cast({"volume": pl.Float64})
        .select("symbol", "date", *VALUES)
        .sort("date", "symbol", nulls_last=True)
    )


def refused(files: FileBars, first: date = SESSIONS[0], last: date = SESSIONS[-1]) -> str:
    """What the source says instead of delivering."""
    with pytest.raises(SourceError) as caught:
        files.bars(None, first, last)
    return str(caught.value)


def changed(number: int, line: str) -> list[str]:
    """The lines of the market with one of them (1 is the header) replaced."""
    text = lines()
    text[number - 1] = line
    return text


def one_csv(folder: Path) -> FileBars:
    """Everything in one CSV."""
    write_text(folder / "bars.csv", lines())
    return source(folder)


def one_parquet(folder: Path) -> FileBars:
    """Everything in one Parquet file."""
    bars().write_parquet(folder / "bars.parquet")
    return source(folder, path="bars.parquet", form="parquet")


def csv_by_symbol(folder: Path) -> FileBars:
    """A CSV for each symbol, named after it."""
    for (symbol,), part in bars().partition_by("symbol", as_dict=True).items():
        write_text(folder / "bars" / f"daily_{symbol}.csv", lines(part.drop("symbol")))
    return source(folder, 'file_name = "daily_{symbol}.csv"', path="bars", per="symbol")


def parquet_by_symbol(folder: Path) -> FileBars:
    """A Parquet file for each symbol, found by a glob."""
    (folder / "bars").mkdir()
    for (symbol,), part in bars().partition_by("symbol", as_dict=True).items():
        part.drop("symbol").write_parquet(folder / "bars" / f"{symbol}.parquet")
    return source(folder, path="bars/*.parquet", form="parquet", per="symbol")


def csv_by_session(folder: Path) -> FileBars:
    """A CSV for each session, named after it."""
    for (day,), part in bars().partition_by("date", as_dict=True).items():
        assert isinstance(day, date)
        write_text(folder / "bars" / f"{day:%Y%m%d}.csv", lines(part.drop("date")))
    return source(folder, 'file_date_format = "%Y%m%d"', path="bars", per="session")


def parquet_by_session_with_dates(folder: Path) -> FileBars:
    """A Parquet file for each session whose rows have the date as well."""
    (folder / "bars").mkdir()
    for (day,), part in bars().partition_by("date", as_dict=True).items():
        part.write_parquet(folder / "bars" / f"{day}.parquet")
    keys = '[bars.columns]\ndate = "date"'
    return source(folder, keys, path="bars", form="parquet", per="session")
