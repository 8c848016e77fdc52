"""Frames on the terminal: a Rich table, or JSON where a program reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_rows(
    console: Console, title: str, rows: Sequence[Mapping[str, Any]], as_json: bool = False
) -> None:
    """Print rows of equal columns as a table, or as one JSON array.

    Args:
        console: Where to print.
        title: Heading of the table.
        rows: Rows; the first one's keys are the columns.
        as_json: Whether a program reads.
    """
    if as_json:
        print_document(console, [dict(row) for row in rows])
        return
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ("nothing",):
        numeric = bool(rows) and isinstance(rows[0][name], int | float | Decimal)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    console.print(table)


def print_document(console: Console, document: Any) -> None:
    """Print one JSON document; days and times are ISO text, exact numbers are text."""
    console.print_json(json.dumps(document, default=_plain))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.4f}"
    if isinstance(value, Decimal):
        return f"{value:,.2f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return escape(str(value))


def _plain(value: Any) -> Any:
    if isinstance(value, date | datetime):
        return value.isoformat()
    return str(value)
