"""What may be seen of a market at a moment: the only place that decides it.

- The daily bar of session T is seen from midnight New York after T, not a second earlier.
- A corporate action with ex-date D is seen from midnight New York at the start of D.
- A listing is seen from midnight New York at the start of its first session; from the day it is
  delisted it is inactive.
- The last price is the previous close before the open, the open after it, the close after the close.
  On the morning of a split the previous close is counted in new shares.

Prices come only from rows the exchange trades on; bars and actions are served as they were last published
(`restatements.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

from quant_resources.calendar import NEW_YORK, XNYS, start_of_day
from quant_resources.exchange.market_rows import PublishedRows, TradedRows
from quant_resources.exchange.markets.market import CorporateAction, Listing, MarketData
from quant_resources.exchange.orders import SHARE_STEP, TradedBar


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
    """A market as seen through a clock; every method takes the moment `now` (aware UTC).

    Attributes:
        published: The bars that the data API answers from.
        published_actions: The corporate actions that it answers with, by ex-date.
        restated_closes: Closes that are told otherwise than they were traded, USD.
    """

    def __init__(self, data: MarketData) -> None:
        self.data = data
        self.sessions = data.sessions
        self.published = PublishedRows(data.bars)
        self.published_actions = data.actions
        self.restated_closes: dict[tuple[str, date], Decimal] = {}
        self._traded = TradedRows(data.bars.filter("trades"))
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

    @property
    def bar_json(self) -> list[bytes]:
        """Every published bar as Alpaca's JSON object, by row number."""
        return self.published.json

    def visible_rows(
        self, symbol: str, first: date, last: date, now: datetime
    ) -> tuple[int, int] | None:
        """Range of row numbers of a symbol's bars with first <= session <= last that may be seen."""
        last = min(last, new_york_day(now) - timedelta(days=1))
        return self.published.between(symbol, first, last)

    def visible_actions(
        self, now: datetime, first: date, last: date, symbols: set[str] | None
    ) -> list[CorporateAction]:
        """Corporate actions with first <= ex_date <= last that may be seen, oldest first."""
        last = min(last, new_york_day(now))
        return [
            action
            for action in self.published_actions
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
        turn = self._turn(now)
        if symbol not in self._prices:
            self._prices[symbol] = self._last_price(symbol, *turn)
        return self._prices[symbol]

    def _turn(self, now: datetime) -> tuple[date, bool, bool]:
        """Day, whether its session has opened, whether it has closed; forgets prices of another turn."""
        day = new_york_day(now)
        opened = XNYS.is_session(day) and now >= session_open(day)
        turn = (day, opened, opened and now >= session_close(day))
        if turn != self._priced_at:
            self._priced_at = turn
            self._prices.clear()
        return turn

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
        price = self._in_shares_of(day, symbol, bar.session, bar.close)
        return LastPrice(price, session_close(bar.session))

    def _in_shares_of(self, day: date, symbol: str, session: date, price: Decimal) -> Decimal:
        for action in self._actions_of.get(symbol, ()):
            ratio = action.share_ratio
            if ratio is not None and action.applies and session < action.ex_date <= day:
                price = (price * ratio.denominator / ratio.numerator).quantize(SHARE_STEP)
        return price

    def told_price(self, symbol: str, now: datetime) -> LastPrice | None:
        """The last price as the data API tells it: a close may have been restated."""
        last = self.last_price(symbol, now)
        if last is None or not self.restated_closes:
            return last
        session = new_york_day(last.at)
        close = self.restated_closes.get((symbol, session))
        if close is None or last.at != session_close(session):
            return last
        return LastPrice(self._in_shares_of(new_york_day(now), symbol, session, close), last.at)

    def last_prices(self, symbols: Iterable[str], now: datetime) -> Mapping[str, Decimal]:
        """Last prices of those symbols that have one, USD."""
        turn, known = self._turn(now), self._prices
        found: dict[str, Decimal] = {}
        for symbol in symbols:
            if symbol not in known:
                known[symbol] = self._last_price(symbol, *turn)
            last = known[symbol]
            if last is not None:
                found[symbol] = last.price
        return found

    def session_at_or_after(self, moment: datetime, *, by_close: bool = False) -> date:
        """The first session whose open (or close) is later than `moment`."""
        day = XNYS.at_or_after(new_york_day(moment))
        edge = session_close if by_close else session_open
        return day if edge(day) > moment else XNYS.next(day)


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
