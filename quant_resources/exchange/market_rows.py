"""Rows of bars, sorted by symbol and session, with quick access by both.

`TradedRows` are what orders are matched with, and never change. `PublishedRows` are what the data API
answers from: the market's rows as ready JSON, until a vendor's restatement replaces some
(`restatements.py`). What of them may be seen at a moment is decided in `visibility.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from functools import cached_property

import numpy as np
import polars as pl

from quant_resources.exchange.orders import TradedBar

_EPOCH = date(1970, 1, 1)


class BarRows:
    """Row numbers by symbol and session.

    Args:
        bars: `markets.market.BAR_SCHEMA`, sorted by symbol and session.
    """

    def __init__(self, bars: pl.DataFrame) -> None:
        symbols = bars["symbol"].rle().struct.unnest()
        stops = symbols["len"].cum_sum().to_list()
        self._span = {
            symbol: (stop - length, stop)
            for symbol, length, stop in zip(
                symbols["value"].to_list(), symbols["len"].to_list(), stops, strict=True
            )
        }
        self._days = bars["session"].to_physical().to_numpy()

    def between(self, symbol: str, first: date, last: date) -> tuple[int, int] | None:
        """Range of row numbers with first <= session <= last; None where there is no row."""
        span = self._span.get(symbol)
        if span is None or last < first:
            return None
        start, stop = self._edges(span, first, last)
        return (start, stop) if start < stop else None

    def _edges(self, span: tuple[int, int], first: date, last: date) -> tuple[int, int]:
        days = self._days[span[0] : span[1]]
        return (
            span[0] + int(np.searchsorted(days, (first - _EPOCH).days, "left")),
            span[0] + int(np.searchsorted(days, (last - _EPOCH).days, "right")),
        )


class TradedRows(BarRows):
    """The bars that the exchange trades on."""

    def __init__(self, bars: pl.DataFrame) -> None:
        super().__init__(bars)
        self._values = bars.select("open", "high", "low", "close", "volume").to_numpy()

    def bar(self, symbol: str, session: date) -> TradedBar | None:
        """The bar of a session."""
        found = self.between(symbol, session, session)
        return self._at(found[0]) if found else None

    def last_before(self, symbol: str, day: date) -> TradedBar | None:
        """The last bar of an earlier session."""
        found = self.between(symbol, _EPOCH, day - timedelta(days=1))
        return self._at(found[1] - 1) if found else None

    def _at(self, row: int) -> TradedBar:
        numbers = [Decimal(repr(float(number))) for number in self._values[row]]
        return TradedBar(_EPOCH + timedelta(days=int(self._days[row])), *numbers)


class PublishedRows(BarRows):
    """The bars that the data API answers from."""

    def __init__(self, bars: pl.DataFrame) -> None:
        super().__init__(bars)
        self._bars = bars

    @cached_property
    def json(self) -> list[bytes]:
        """Every bar as Alpaca's JSON object, by row number.

        Done once, at the first request: serving a page is then a join of ready bytes.
        """
        stamps = self._bars.select(
            t=pl.col("session")
            .cast(pl.Datetime("us"))
            .dt.replace_time_zone("America/New_York")
            .dt.convert_time_zone("UTC")
            .dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
            o="open",
            h="high",
            l="low",
            c="close",
            v=_whole(self._bars["volume"]),
            n="trade_count",
            vw="vwap",
        )
        return stamps.fill_nan(None).write_ndjson().encode().splitlines()

    def of(self, symbol: str, session: date) -> list[bytes]:
        """The rows of one symbol and session."""
        found = self.between(symbol, session, session)
        return self.json[slice(*found)] if found else []

    def replace(self, symbol: str, session: date, rows: Sequence[bytes]) -> None:
        """Put other rows (none: withdraw them) in the place of one symbol's session."""
        span = self._span.get(symbol)
        if span is None:
            place = max(
                (stop for other, (_, stop) in self._span.items() if other < symbol), default=0
            )
            span = (place, place)
        start, stop = self._edges(span, session, session)
        self.json[start:stop] = rows
        added = len(rows) - (stop - start)
        if added == 0:
            return
        day = np.full(len(rows), (session - _EPOCH).days, self._days.dtype)
        self._days = np.concatenate([self._days[:start], day, self._days[stop:]])
        self._span = {
            other: (first + added, last + added) if other > symbol else (first, last)
            for other, (first, last) in self._span.items()
        } | {symbol: (span[0], span[1] + added)}


def _whole(volume: pl.Series) -> pl.Series:
    """Volume as integers where every value is whole, as Alpaca sends it."""
    finite = volume.fill_nan(None)
    if (finite == finite.round()).all():
        return finite.cast(pl.Int64)
    return finite
