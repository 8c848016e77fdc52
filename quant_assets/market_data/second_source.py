"""Asking the second source for what the first has delivered.

Belongs here: what it is asked, and what becomes of a question without an answer. Does not belong here: the
comparison (source_differences.py).

1. It is asked for the symbols that it holds among those that the first source delivered lately; the others
   are counted and not compared, since a second source may well hold less.
2. Sessions that have not closed by its own clock are not asked for.
3. Every error of the source is told as a reason and answers nothing: money is traded on the first source,
   so a second one that is down may cost its confirmation and never a trading day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from quant_resources.bar_source import RAW_BAR_SCHEMA, BarSource
from quant_resources.errors import DataError, SourceError


@dataclass(frozen=True)
class Answer:
    """What the second source answered.

    Attributes:
        bars: Its raw bars.
        sessions: The sessions that it answered for, ascending.
        symbols: The symbols that it was asked for, ascending.
        unknown_symbols: How many of the wanted symbols it does not hold.
        reason: Why sessions are unanswered; empty when none is.
    """

    bars: pl.DataFrame
    sessions: Sequence[date]
    symbols: Sequence[str]
    unknown_symbols: int = 0
    reason: str = ""


def ask(source: BarSource, symbols: Sequence[str], sessions: Sequence[date]) -> Answer:
    """Ask a source for the bars of some symbols and sessions; it may fail.

    Args:
        source: The second source.
        symbols: What the first source has delivered lately.
        sessions: The sessions to compare, ascending.
    """
    nothing = pl.DataFrame(schema=RAW_BAR_SCHEMA)
    try:
        newest = source.newest_closed_session()
        held = set(source.symbols())
        asked = sorted(held.intersection(symbols))
        closed = [session for session in sessions if session <= newest]
        if not asked or not closed:
            reason = (
                f"It has no session after {newest}."
                if asked
                else f"It holds none of the {len(symbols)} symbols of the first source."
            )
            return Answer(nothing, [], asked, len(symbols) - len(asked), reason)
        bars = source.bars(asked, closed[0], closed[-1])
    except (SourceError, DataError) as error:
        return Answer(nothing, [], [], 0, str(error))
    late = len(sessions) - len(closed)
    return Answer(
        bars,
        closed,
        asked,
        len(symbols) - len(asked),
        f"It has no session after {newest}." if late else "",
    )
