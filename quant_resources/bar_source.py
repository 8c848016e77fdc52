"""The one protocol behind which every source of daily bars stands, and the frames it delivers.

An implementation is one file (alpaca_bars.py). What a bar must satisfy is not decided here: a source
delivers what it was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Protocol

import polars as pl

from quant_resources.errors import SourceError

_UTC_TIME = pl.Datetime("us", "UTC")

#: Raw bars: prices in USD per share as traded, volume in shares; everything nullable as sent.
RAW_BAR_SCHEMA: dict[str, pl.DataType] = {
    "session": pl.Date(),
    "symbol": pl.String(),
    "bar_time": _UTC_TIME,
    "open": pl.Float64(),
    "high": pl.Float64(),
    "low": pl.Float64(),
    "close": pl.Float64(),
    "volume": pl.Float64(),
    "vwap": pl.Float64(),
    "trade_count": pl.Int64(),
    "source": pl.String(),
    "asof": pl.Date(),
    "observed_at": _UTC_TIME,
}

#: Corporate actions: ratio in shares per share held, cash in USD per share held.
CORPORATE_ACTION_SCHEMA: dict[str, pl.DataType] = {
    "session": pl.Date(),
    "ex_date": pl.Date(),
    "symbol": pl.String(),
    "action_type": pl.String(),
    "ratio": pl.Float64(),
    "cash": pl.Float64(),
    "new_symbol": pl.String(),
    "action_id": pl.String(),
    "source": pl.String(),
    "observed_at": _UTC_TIME,
}

#: Kinds of corporate actions; "other" keeps what a source may think of next.
ACTION_TYPES = (
    "forward_split",
    "reverse_split",
    "cash_dividend",
    "stock_dividend",
    "spin_off",
    "merger",
    "name_change",
    "unit_split",
    "redemption",
    "worthless_removal",
    "rights_distribution",
    "other",
)
_NAMED = 5


class BarSource(Protocol):
    """A source of daily bars, corporate actions and listings of one market (XNYS sessions)."""

    @property
    def name(self) -> str:
        """Source and feed as written into every row, such as "alpaca/iex"."""
        ...

    def newest_closed_session(self) -> date:
        """The last session that has closed by the source's own clock.

        Raises:
            SourceError: The source does not answer.
        """
        ...

    def symbols(self) -> list[str]:
        """The symbols to ask for, ascending: the configured ones, or all that were ever listed.

        Raises:
            SourceError: A configured symbol is unknown to the source, or it does not answer.
        """
        ...

    def bars(
        self, symbols: Sequence[str] | None, first: date, last: date, asof: date | None = None
    ) -> pl.DataFrame:
        """Raw daily bars of all sessions between two sessions (`RAW_BAR_SCHEMA`).

        Args:
            symbols: What to ask for; None for `symbols()`.
            first: First session.
            last: Last session; it must have closed.
            asof: Ask for the company that owned a ticker on this day; None for rows as they traded
                under the ticker, without following renames.

        Returns:
            The rows as sent, sorted by session and symbol. A bar stamped between two sessions comes
            with the later one, its own time kept in ``bar_time``.

        Raises:
            SourceError: The source does not answer, answers nonsense, or has no bar at all for a
                session: never is a part delivered as the whole.
        """
        ...

    def corporate_actions(self, first: date, last: date) -> pl.DataFrame:
        """Corporate actions with first <= session <= last (`CORPORATE_ACTION_SCHEMA`).

        Args:
            first: First session.
            last: Last session.

        Returns:
            One row per action, unique by ``action_id``; ``session`` is the first session at or
            after the ex-date.

        Raises:
            SourceError: The source does not answer or answers nonsense.
        """
        ...


def session_at_or_after(day: pl.Expr, sessions: Sequence[date]) -> pl.Expr:
    """The first of ascending sessions that is not before a day; null after the last one.

    Args:
        day: Dates.
        sessions: Sessions without gaps.
    """
    known = pl.Series(sessions, dtype=pl.Date)
    return pl.lit(known).gather(pl.lit(known).search_sorted(day, side="left"), null_on_oob=True)


def chosen_symbols(source: str, configured: Sequence[str], held: Sequence[str]) -> list[str]:
    """The configured symbols, or every one that the source holds where none is configured.

    Raises:
        SourceError: A configured symbol is not held.
    """
    if not configured:
        return list(held)
    unknown = sorted(set(configured) - set(held))
    if unknown:
        shown = ", ".join(unknown[:10]) + (" …" if len(unknown) > 10 else "")
        raise SourceError(f"{source} does not know the symbol(s) {shown}; correct QUANT_SYMBOLS.")
    return list(configured)


def assert_every_session(
    source: str, bars: pl.DataFrame, wanted: Sequence[date], remedy: str
) -> None:
    """Refuse bars that leave a whole session out.

    Raises:
        SourceError: Naming the sessions and the remedy.
    """
    present = set(bars.get_column("session").unique().to_list())
    missing = [session for session in wanted if session not in present]
    if missing:
        shown = ", ".join(map(str, missing[:_NAMED])) + (" …" if len(missing) > _NAMED else "")
        raise SourceError(
            f"{source} has no bar for {len(missing)} session(s) that the calendar counts: {shown}; "
            f"{remedy}."
        )
