"""What the cells of a user's files mean: days, numbers and symbols, as Polars expressions.

What belongs here: one value of one cell, and why it cannot be read. What does not: which files there are
(file_rows.py) and what a bar must satisfy (nobody's business here).

A cell that cannot be read is never replaced. Its row carries the name of the column and the text of the
cell (``bad_column``, ``bad_cell``; empty for sound rows), and whoever wants the row raises with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import reduce

import polars as pl

from quant_resources.errors import SourceError
from quant_resources.file_layout import EPOCHS, CsvForm, FileForm, has_time

NUMBERS = ("open", "high", "low", "close", "volume", "vwap", "trade_count")
#: Years of two digits read with %Y land in the first century; no exchange kept daily bars then.
_FIRST_DAY, _LAST_DAY = date(1800, 1, 1), date(2200, 1, 1)
_NO_TEXT = pl.lit(None, pl.String)


@dataclass(frozen=True)
class Cell:
    """A column as it will be: its value, whether the cell cannot be read, and the cell's text."""

    value: pl.Expr
    bad: pl.Expr
    text: pl.Expr


def symbol_cell(name: str, dtype: pl.DataType, upper: bool) -> Cell:
    """A ticker as written, or stripped and raised; anything that can be written is one.

    Raises:
        SourceError: The column is of a type that is no text.
    """
    if not (
        dtype == pl.String or dtype.is_integer() or isinstance(dtype, pl.Categorical | pl.Enum)
    ):
        raise SourceError(f"The column {name} holds {dtype}, which is no symbol; map another one.")
    text = pl.col(name).cast(pl.String)
    value = text.str.strip_chars().str.to_uppercase() if upper else text
    # An empty cell is no ticker; the gate says so.
    value = pl.when(value != "").then(value)
    return Cell(value, pl.lit(value=False), text)


def day_cell(name: str, dtype: pl.DataType, form: FileForm) -> Cell:
    """The day that a cell names.

    Text is read in every declared format; two readings that differ make it ambiguous, which is bad, as
    is a day before 1800. Stamps with a zone, and counted ones, have their day in the declared zone.

    Raises:
        SourceError: The column is of a type that is no day, or needs a time zone that is not declared.
    """
    column = pl.col(name)
    if dtype == pl.Date:
        return Cell(column, column.is_null(), column.cast(pl.String))
    if isinstance(dtype, pl.Datetime):
        day = column.dt.date() if dtype.time_zone is None else _day_in(column, name, form)
        return Cell(day, day.is_null(), column.cast(pl.String))
    counted = [unit for key, unit in EPOCHS.items() if key in form.date_format]
    if dtype.is_integer() and counted:
        stamps = pl.from_epoch(column, "s" if counted[0] == "s" else "ms")
        day = _day_in(stamps.dt.replace_time_zone("UTC"), name, form)
        return Cell(day, ~_plausible(day), column.cast(pl.String))
    if not (
        dtype == pl.String or dtype.is_integer() or isinstance(dtype, pl.Categorical | pl.Enum)
    ):
        raise SourceError(f"The column {name} holds {dtype}, which is no date; map another one.")
    text = column.cast(pl.String).str.strip_chars()
    read = [_parsed(text, way, name, form) for way in form.date_format]
    first = pl.coalesce(read)
    ambiguous = reduce(
        lambda found, day: found | (day != first).fill_null(value=False), read, pl.lit(value=False)
    )
    value = pl.when(~ambiguous).then(first)
    return Cell(value, value.is_null(), text)


def number_cell(name: str, dtype: pl.DataType, form: CsvForm, whole: bool = False) -> Cell:
    """A number as Float64, or Int64 where it must be whole; declared markers and nulls are null.

    Raises:
        SourceError: The column is of a type that is no number.
    """
    kind = pl.Int64() if whole else pl.Float64()
    column = pl.col(name)
    if dtype == pl.Null:
        return Cell(pl.lit(None, kind), pl.lit(value=False), _NO_TEXT)
    if dtype.is_integer() or dtype.is_decimal():
        return Cell(column.cast(kind), pl.lit(value=False), _NO_TEXT)
    if dtype.is_float():
        if not whole:
            return Cell(column.cast(kind), pl.lit(value=False), _NO_TEXT)
        return _whole(column.cast(pl.Float64).fill_nan(None), pl.lit(value=False), column)
    if not (dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum)):
        raise SourceError(f"The column {name} holds {dtype}, which is no number; map another one.")
    text = column.cast(pl.String).str.strip_chars()
    given = text.is_not_null() & ~text.is_in(list(form.null_markers))
    value = _plain(text, form).cast(pl.Float64, strict=False)
    bad = given & (~value.is_finite().fill_null(value=False) | _miswritten(text, form))
    number = pl.when(given & ~bad).then(value)
    return _whole(number, bad, text) if whole else Cell(number, bad, text)


def read_cells(cells: dict[str, Cell]) -> list[pl.Expr]:
    """Expressions of all values, and of the first cell of a row that cannot be read."""
    bad_column, bad_cell = _NO_TEXT, _NO_TEXT
    for name, cell in reversed(list(cells.items())):
        bad_column = pl.when(cell.bad).then(pl.lit(name)).otherwise(bad_column)
        bad_cell = pl.when(cell.bad).then(cell.text).otherwise(bad_cell)
    return [
        *(cell.value.alias(name) for name, cell in cells.items()),
        bad_column.alias("bad_column"),
        bad_cell.alias("bad_cell"),
    ]


def why_unreadable(column: str, text: str | None, form: FileForm) -> str:
    """One clause about a cell that cannot be read, with what to do."""
    shown = repr((text or "")[:60])
    if column == "day":
        ways = " or ".join(form.date_format)
        if len(form.date_format) > 1 and text and any(sign.isdigit() for sign in text):
            readings = {way: _reading(text, way, form) for way in form.date_format}
            days = {str(day) for day in readings.values() if day is not None}
            if len(days) > 1:
                return (
                    f"{shown} is {' or '.join(sorted(days))}, by date formats that contradict each "
                    "other; declare one of them, or have the dates written as YYYY-MM-DD"
                )
        return f"{shown} is no date written as {ways}; declare how it is written under date_format"
    csv = form.csv
    if not text:
        return 'an empty cell is no number; if it means a missing value, add "" to csv.null_markers'
    if not csv.scientific and "e" in text.lower() and _is_float(text):
        return (
            f"{shown} is in scientific notation, as spreadsheets write when they round; export the "
            "whole number, or set csv.scientific = true"
        )
    if any(sign.isdigit() for sign in text):
        between = f"thousands {csv.thousands!r}" if csv.thousands else "no thousands separator"
        return (
            f"{shown} is no number with decimal {csv.decimal!r} and {between}; correct the cell, "
            "csv.decimal or csv.thousands"
        )
    return f"{shown} is no number; if it means a missing value, add it to csv.null_markers"


def _parsed(text: pl.Expr, way: str, name: str, form: FileForm) -> pl.Expr:
    if way in EPOCHS:
        stamps = pl.from_epoch(
            text.cast(pl.Int64, strict=False), "s" if EPOCHS[way] == "s" else "ms"
        )
        day = _day_in(stamps.dt.replace_time_zone("UTC"), name, form)
    elif not has_time(way):
        day = text.str.to_date(way, strict=False)
    elif "%z" in way or "%:z" in way:
        day = _day_in(text.str.to_datetime(way, strict=False, time_zone="UTC"), name, form)
    else:
        day = text.str.to_datetime(way, strict=False).dt.date()
    return pl.when(_plausible(day)).then(day)


def _plausible(day: pl.Expr) -> pl.Expr:
    return day.is_between(_FIRST_DAY, _LAST_DAY).fill_null(value=False)


def _day_in(stamps: pl.Expr, name: str, form: FileForm) -> pl.Expr:
    if form.time_zone is None:
        raise SourceError(
            f"The column {name} holds stamps of an absolute time, and midnight in London is the day "
            'before in New York; set time_zone to where their day is told ("UTC" for 00:00Z stamps).'
        )
    return stamps.dt.convert_time_zone(form.time_zone).dt.date()


def _plain(text: pl.Expr, form: CsvForm) -> pl.Expr:
    if form.thousands:
        text = text.str.replace_all(form.thousands, "", literal=True)
    return text if form.decimal == "." else text.str.replace(",", ".", literal=True)


def _miswritten(text: pl.Expr, form: CsvForm) -> pl.Expr:
    """What would be a number by other declarations than the layout's."""
    bad = pl.lit(value=False)
    if not form.scientific:
        bad = bad | text.str.contains("[eE]")
    if form.thousands:
        groups = rf"^[+-]?\d{{1,3}}(\x{{{ord(form.thousands):x}}}\d{{3}})*(\x{{{ord(form.decimal):x}}}\d*)?$"
        grouped = text.str.contains(form.thousands, literal=True)
        bad = bad | (grouped & ~text.str.contains(groups))
    if form.decimal == "," and form.thousands != ".":
        bad = bad | text.str.contains(".", literal=True)
    return bad.fill_null(value=False)


def _whole(number: pl.Expr, bad: pl.Expr, text: pl.Expr) -> Cell:
    broken = bad | (number != number.floor()).fill_null(value=False)
    return Cell(
        pl.when(~broken).then(number).cast(pl.Int64, strict=False), broken, text.cast(pl.String)
    )


def _reading(text: str, way: str, form: FileForm) -> date | None:
    return pl.select(_parsed(pl.lit(text), way, "date", form)).item()


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
