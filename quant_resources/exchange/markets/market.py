"""What a market is to the exchange: bars, corporate actions and listings, complete from first to last.

A market knows its whole life. What of it may be seen at a moment is decided in `visibility.py` only.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Protocol

import polars as pl

SYMBOL_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9.\-]{0,15}")
_ACTION_NAMESPACE = uuid.UUID("0d4f6f1e-52a1-4d3f-8f0a-6f1f3f5d9b11")

BAR_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "session": pl.Date(),
    "open": pl.Float64(),
    "high": pl.Float64(),
    "low": pl.Float64(),
    "close": pl.Float64(),
    "volume": pl.Float64(),
    "vwap": pl.Float64(),
    "trade_count": pl.Int64(),
    "trades": pl.Boolean(),
}
"""Columns of `MarketData.bars`. Prices in USD, volume in shares; nulls and absurd values are allowed,
they are served as a vendor would. `trades` says whether the exchange itself trades on the row."""

ACTION_TYPES = (
    "forward_split",
    "reverse_split",
    "cash_dividend",
    "stock_dividend",
    "spin_off",
    "cash_merger",
    "name_change",
)


@dataclass(frozen=True)
class CorporateAction:
    """One corporate action of a symbol.

    Attributes:
        action_type: One of `ACTION_TYPES`.
        ex_date: The first day without the right; known from midnight New York of this day on.
        ratio: New shares for one old share (splits, stock dividends: 1 + rate), or shares of
            `new_symbol` for one share (spin-offs).
        cash: USD for one share (dividends, mergers).
        new_symbol: The new name (name changes) or the company spun off.
        special: Whether a dividend is outside the regular schedule.
        applies: Whether holders get it; false where the vendor's row contradicts its own prices.
        published_id: The id it was first published under, for one whose terms were restated since.
    """

    action_type: str
    symbol: str
    ex_date: date
    ratio: Fraction | None = None
    cash: Decimal | None = None
    new_symbol: str | None = None
    special: bool = False
    applies: bool = True
    published_id: str = ""

    @property
    def action_id(self) -> str:
        """A UUID that is the same whenever the same action is loaded."""
        if self.published_id:
            return self.published_id
        name = f"{self.action_type}|{self.symbol}|{self.ex_date}|{self.ratio}|{self.cash}"
        return str(uuid.uuid5(_ACTION_NAMESPACE, name))

    @property
    def share_ratio(self) -> Fraction | None:
        """New shares for one old share, where the action changes the number of shares."""
        if self.action_type in {"forward_split", "reverse_split", "stock_dividend"}:
            return self.ratio
        return None


@dataclass(frozen=True)
class Listing:
    """A symbol's life on the exchange.

    Attributes:
        first_session: Session of the first bar; the asset is unknown before this day.
        delisted: The first day without trading, None while the listing outlives the market.
    """

    symbol: str
    name: str
    first_session: date
    last_session: date
    delisted: date | None
    exchange: str = "NYSE"
    shortable: bool = True
    fractionable: bool = True


@dataclass(frozen=True)
class MarketData:
    """A whole market.

    Attributes:
        bars: `BAR_SCHEMA`, sorted by symbol and session; rows may be duplicated or broken.
        sessions: Sessions the exchange opens, ascending, without gaps in the XNYS calendar.
        planted_information_coefficient: Mean daily cross-sectional correlation between the planted
            signal at t and the return from close t+1 to close t+2; None where nothing was planted.
    """

    bars: pl.DataFrame
    actions: tuple[CorporateAction, ...]
    listings: dict[str, Listing]
    sessions: tuple[date, ...]
    planted_information_coefficient: float | None = None

    def digest(self) -> str:
        """A hash over bars and actions, to notice that a market changed under a state folder."""
        digest = hashlib.blake2b(digest_size=16)
        for name in self.bars.columns:
            column = self.bars[name]
            if column.dtype == pl.String:
                runs = column.rle().struct.unnest()
                digest.update("|".join(runs["value"].to_list()).encode())
                column = runs["len"]
            digest.update(column.fill_null(strategy="zero").to_physical().to_numpy().tobytes())
        for action in self.actions:
            digest.update(action.action_id.encode())
        return digest.hexdigest()


class Market(Protocol):
    """An extension point: anything that can produce a whole market."""

    def load(self) -> MarketData:
        """Build the market; the same specification gives the same data every time.

        Raises:
            DataError: The market's source cannot be understood.
        """
        ...
