"""What may be seen of a market at a moment: the only place that decides it.

- The daily bar of session T is seen from midnight New York after T, not a second earlier.
- A corporate action with ex-date D is seen from midnight New York at the start of D.
- A listing is seen from midnight New York at the start of its first session; from the day it is
  delisted it is inactive.
- The last price is the previous close before the open, the open after it, the close after the close.
  On the morning of a split the previous close is counted in new shares.

Prices come only from rows the exchange trades on; bars are served as the market has them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property, lru_cache

import numpy as np
import polars as pl

from quant_resources.calendar import NEW_YORK, XNYS, start_of_day
from quant_resources.exchange.markets.market import CorporateAction, Listing, MarketData
from quant_resources.exchange.orders import SHARE_STEP, TradedBar

_EPOCH = date(1970, 1, 1)


@lru_cache(maxsize=16_384)
def session_open(session: date) -> datetime:
    """Opening time of a session, UTC."""
    return XNYS.open(session)


@lru_cache(maxsize=16_384)
def session_close(session: date) -> datetime:
    """Closing time of a session, UTC."""
    return XNYS.close(session)


def new_york_day(now: datetime) -> date:
    """The calendar day in New York."""
    return now.astimezone(NEW_YORK).date()


@dataclass(frozen=True)
class LastPrice:
    """The last price of a symbol and the moment it was made."""

    price: Decimal
    at: datetime


class MarketView:
    """A market as seen through a clock; every method takes the moment `now` (aware UTC)."""

    def __init__(self, data: MarketData) -> None:
        self.data = data
        self.sessions = data.sessions
        self._rows = _Rows(data.bars)
        self._traded = _Rows(data.bars.filter("trades"))
        # Last prices change three times a day; they are looked up once in between.
        self._priced_at: tuple[date, bool, bool] | None = None
        self._prices: dict[str, LastPrice | None] = {}
        self._actions_of: dict[str, list[CorporateAction]] = defaultdict(list)
        self.actions_by_day: dict[date, list[CorporateAction]] = defaultdict(list)
        for action in data.actions:
            self._actions_of[action.symbol].append(action)
            self.actions_by_day[action.ex_date].append(action)
        self.delistings_by_day: dict[date, list[Listing]] = defaultdict(list)
        for listing in data.listings.values():
            if listing.delisted is not None:
                self.delistings_by_day[listing.delisted].append(listing)

    @cached_property
    def bar_json(self) -> list[bytes]:
        """Every bar as Alpaca's JSON object, in the order of the market's rows.

        Done once, at the first request: serving a page is then a join of ready bytes.
        """
        stamps = self.data.bars.select(
            t=pl.col("session")
            .cast(pl.Datetime("us"))
            .dt.replace_time_zone("America/New_York")
            .dt.convert_time_zone("UTC")
            .dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
            o="open",
            h="high",
            l="low",
            c="close",
            v=_whole(self.data.bars["volume"]),
            n="trade_count",
            vw="vwap",
        )
        return stamps.fill_nan(None).write_ndjson().encode().splitlines()

    def visible_rows(
        self, symbol: str, first: date, last: date, now: datetime
    ) -> tuple[int, int] | None:
        """Range of row numbers of a symbol's bars with first <= session <= last that may be seen."""
        last = min(last, new_york_day(now) - timedelta(days=1))
        return self._rows.between(symbol, first, last)

    def visible_actions(
        self, now: datetime, first: date, last: date, symbols: set[str] | None
    ) -> list[CorporateAction]:
        """Corporate actions with first <= ex_date <= last that may be seen, oldest first."""
        last = min(last, new_york_day(now))
        return [
            action
            for action in self.data.actions
            if first <= action.ex_date <= last and (symbols is None or action.symbol in symbols)
        ]

    def listing(self, symbol: str, now: datetime) -> Listing | None:
        """The listing, None while nobody knows it yet."""
        found = self.data.listings.get(symbol)
        if found is None or new_york_day(now) < found.first_session:
            return None
        return found

    def is_active(self, listing: Listing, now: datetime) -> bool:
        """Whether the listing still trades."""
        return listing.delisted is None or new_york_day(now) < listing.delisted

    def bar(self, symbol: str, session: date) -> TradedBar | None:
        """The bar to match orders with; None when the symbol does not trade in the session.

        For the matching of events that have happened only; it does not look at the clock.
        """
        return self._traded.bar(symbol, session)

    def last_price(self, symbol: str, now: datetime) -> LastPrice | None:
        """The last price made before or at `now`; None before the first one."""
        day = new_york_day(now)
        opened = XNYS.is_session(day) and now >= session_open(day)
        moment = (day, opened, opened and now >= session_close(day))
        if moment != self._priced_at:
            self._priced_at = moment
            self._prices.clear()
        if symbol not in self._prices:
            self._prices[symbol] = self._last_price(symbol, *moment)
        return self._prices[symbol]

    def _last_price(self, symbol: str, day: date, opened: bool, closed: bool) -> LastPrice | None:
        bar = self._traded.bar(symbol, day) if opened else None
        if bar is None:
            return self.previous_close(symbol, day)
        if closed:
            return LastPrice(bar.close, session_close(day))
        return LastPrice(bar.open, session_open(day))

    def previous_close(self, symbol: str, day: date) -> LastPrice | None:
        """The last close before `day`, counted in the shares of `day`."""
        bar = self._traded.last_before(symbol, day)
        if bar is None:
            return None
        price = bar.close
        for action in self._actions_of.get(symbol, ()):
            ratio = action.share_ratio
            if ratio is not None and action.applies and bar.session < action.ex_date <= day:
                price = (price * ratio.denominator / ratio.numerator).quantize(SHARE_STEP)
        return LastPrice(price, session_close(bar.session))

    def last_prices(self, symbols: Iterable[str], now: datetime) -> Mapping[str, Decimal]:
        """Last prices of those symbols that have one, USD."""
        found = {symbol: self.last_price(symbol, now) for symbol in symbols}
        return {symbol: last.price for symbol, last in found.items() if last is not None}

    def session_at_or_after(self, moment: datetime, *, by_close: bool = False) -> date:
        """The first session whose open (or close) is later than `moment`."""
        day = XNYS.at_or_after(new_york_day(moment))
        edge = session_close if by_close else session_open
        return day if edge(day) > moment else XNYS.next(day)


class _Rows:
    """Rows of bars, sorted by symbol and session, with quick access by both."""

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
        self._values = bars.select("open", "high", "low", "close", "volume").to_numpy()

    def between(self, symbol: str, first: date, last: date) -> tuple[int, int] | None:
        span = self._span.get(symbol)
        if span is None or last < first:
            return None
        days = self._days[span[0] : span[1]]
        start = span[0] + int(np.searchsorted(days, (first - _EPOCH).days, "left"))
        stop = span[0] + int(np.searchsorted(days, (last - _EPOCH).days, "right"))
        return (start, stop) if start < stop else None

    def bar(self, symbol: str, session: date) -> TradedBar | None:
        found = self.between(symbol, session, session)
        return self._at(found[0]) if found else None

    def last_before(self, symbol: str, day: date) -> TradedBar | None:
        found = self.between(symbol, _EPOCH, day - timedelta(days=1))
        return self._at(found[1] - 1) if found else None

    def _at(self, row: int) -> TradedBar:
        numbers = [Decimal(repr(float(number))) for number in self._values[row]]
        return TradedBar(_EPOCH + timedelta(days=int(self._days[row])), *numbers)


def _whole(volume: pl.Series) -> pl.Series:
    """Volume as integers where every value is whole, as Alpaca sends it."""
    finite = volume.fill_nan(None)
    if (finite == finite.round()).all():
        return finite.cast(pl.Int64)
    return finite


def date_range(start: datetime | date, end: datetime | date) -> tuple[date, date]:
    """Days whose midnight New York lies in start <= t <= end; a plain date means that New York day."""
    first = start
    if isinstance(start, datetime):
        day = new_york_day(start)
        first = day if start_of_day(day) >= start else day + timedelta(days=1)
    last = new_york_day(end) if isinstance(end, datetime) else end
    assert not isinstance(first, datetime)  # noqa: S101 - resolved above
    return first, last


def stamp(moment: datetime) -> str:
    """A moment as Alpaca writes it: RFC 3339, UTC, microseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
