"""How a lost page is noticed: nothing of it is left but a hole, and a hole is believed only when told twice.

A session that was read only in part looks like one on which some symbols did not trade. No count in an answer
tells the two apart (Alpaca may end a page early, and a page may be the last), but a repetition does. Bars:

1. A request is answered. A symbol without a bar of some session that was asked for is incomplete: it was
   halted, not yet listed, delisted, or a part of the answer was lost.
2. The incomplete symbols alone are asked for again.
3. If that brings no bar that was missing, the absences were told twice, by two different requests, and are
   believed. A symbol that is complete is not asked for twice.
4. If it brings bars, a part was lost. They are taken, and what is still incomplete is asked for again.
5. When every repetition goes on bringing new bars, nothing the source says can be relied on: an error.

Of corporate actions nobody knows how many there should be: they are asked for until two answers in a row are
the same.

What the source leaves out every time is not noticed here but where a session is compared with others (checks
of raw bars, coverage).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import date
from typing import Any, Final

import polars as pl

from quant_resources.errors import SourceError

MOST_REPETITIONS: Final = 3
_BAR: Final = ("symbol", "bar_time")
_LOG = logging.getLogger(__name__)


def bars_told_twice(
    ask: Callable[[Sequence[str]], pl.DataFrame],
    symbols: Sequence[str],
    sessions: Sequence[date],
    source: str,
) -> pl.DataFrame:
    """Bars of symbols and sessions of which every absence was told twice.

    Args:
        ask: Sends a request for some of the symbols and all of the sessions; rows with ``symbol``,
            ``bar_time`` and ``session``.
        symbols: The symbols.
        sessions: The sessions.
        source: Name of the source, for messages.

    Returns:
        The rows as sent. What came in a repetition comes last.

    Raises:
        SourceError: The source gives different answers to the same question, again and again.
    """
    rows = found = ask(symbols)
    for _ in range(MOST_REPETITIONS):
        incomplete = incomplete_symbols(rows, symbols, sessions)
        if not incomplete:
            return rows
        found = ask(incomplete).join(rows.select(_BAR).unique(), on=_BAR, how="anti")
        if found.is_empty():
            return rows
        _LOG.warning(
            "%s left out %d bars of %s to %s at first, such as %s; asking again.",
            source,
            found.height,
            sessions[0],
            sessions[-1],
            found.item(0, "symbol"),
        )
        rows = pl.concat([rows, found])
    raise SourceError(
        f"{source} answers the same question differently every time: bars of "
        f"{found.item(0, 'symbol')} and others between {sessions[0]} and {sessions[-1]} came only "
        f"after {MOST_REPETITIONS} repetitions; nothing was taken, fetch again later."
    )


def actions_told_twice(
    ask: Callable[[], Sequence[Mapping[str, Any]]], source: str
) -> Sequence[Mapping[str, Any]]:
    """Corporate actions that came the same in two answers in a row.

    Args:
        ask: Sends the request; one row per action.
        source: Name of the source, for messages.

    Raises:
        SourceError: No two answers in a row are the same.
    """
    rows = ask()
    for _ in range(MOST_REPETITIONS):
        again = ask()
        if _alike(rows) == _alike(again):
            return again
        _LOG.warning(
            "%s sent %d corporate actions, then %d for the same question; asking again.",
            source,
            len(rows),
            len(again),
        )
        rows = again
    raise SourceError(
        f"{source} answers the same question about corporate actions differently every time; nothing "
        "was taken, fetch again later."
    )


def _alike(rows: Sequence[Mapping[str, Any]]) -> set[Hashable]:
    return {tuple(sorted(row.items())) for row in rows}


def incomplete_symbols(
    rows: pl.DataFrame, symbols: Sequence[str], sessions: Sequence[date]
) -> list[str]:
    """The symbols that lack a bar of at least one session, in their order."""
    complete = (
        rows.group_by("symbol")
        .agg(present=pl.col("session").n_unique())
        .filter(pl.col("present") >= len(sessions))
    )
    known = set(complete.get_column("symbol").to_list())
    return [symbol for symbol in symbols if symbol not in known]
