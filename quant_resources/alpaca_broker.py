"""The `Broker` over Alpaca's trading and data API, through alpaca-py's own clients.

Belongs here: addresses, pages, timeouts and repetition of requests. Does not belong here: what a
message means (`alpaca_messages.py`) and any decision about orders.

What alpaca-py would do by itself and must not (version 0.44.0):

1. It has no timeout: an adapter on the session sets one for every request.
2. It repeats 429 and 504 three times, POST included: `_retry` is set to 0 and repetition is ours.
3. An empty `url_override` goes to Alpaca's own servers: an empty address is refused.
4. It sends floats: numbers leave as decimal strings, rounded to what Alpaca takes.
5. It does not page orders, and activities have no wrapper: both are paged here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import InvalidOperation
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import requests
from alpaca.common.exceptions import APIError
from alpaca.common.rest import RESTClient
from alpaca.data.historical.corporate_actions import CorporateActionsClient
from alpaca.data.historical.stock import StockHistoricalDataClient
from alpaca.trading.client import TradingClient
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_chain,
    wait_fixed,
)

from quant_resources import alpaca_messages as messages
from quant_resources.alpaca_transport import BACKOFF_SECONDS, PacedAdapter, take_control
from quant_resources.broker import (
    Account,
    AccountActivity,
    AmbiguousError,
    Asset,
    BrokerClock,
    BrokerOrder,
    BrokerPosition,
    Execution,
    LatestPrice,
    OrderRequest,
    RateLimitedError,
    RejectedError,
    Split,
    TradingHours,
)
from quant_resources.calendar import NEW_YORK
from quant_resources.errors import BrokerError, ConfigurationError
from quant_resources.launch import is_local
from quant_resources.request_pace import shared_pace

LIVE_HOST: Final = "api.alpaca.markets"
_PAGE: Final = 500
_ACTIVITY_PAGE: Final = 100
_SYMBOLS_PER_REQUEST: Final = 200
_T = TypeVar("_T")


class AlpacaBroker:
    """Alpaca's account behind one pair of keys, or the local exchange that speaks the same.

    Args:
        trading_url: Address of the trading API without `/v2`; never empty.
        data_url: Address of the market data API without a version; never empty.
        api_key: Key id.
        secret_key: Secret; it is given to alpaca-py and kept nowhere else.
        timeout: Seconds to wait for a connection and for an answer.
        backoff: Waits before each repetition of what may be repeated.
        requests_per_minute: Pace; None for no limit (the local exchange).
        pace_folder: Where processes share the pace; None for this process alone.

    Raises:
        ConfigurationError: An address or a key is empty, or alpaca-py has changed underneath.
    """

    def __init__(
        self,
        trading_url: str,
        data_url: str,
        api_key: str,
        secret_key: str,
        *,
        timeout: tuple[float, float] = (3.05, 15.0),
        backoff: Sequence[float] = BACKOFF_SECONDS,
        requests_per_minute: int | None = None,
        pace_folder: Path | None = None,
        feed: str = "iex",
    ) -> None:
        for name, url in (("trading", trading_url), ("data", data_url)):
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
                raise ConfigurationError(
                    f"The {name} address {url!r} is no http address; set QUANT_{name.upper()}_URL "
                    "(an empty one would silently mean Alpaca's own servers)."
                )
        if not api_key or not secret_key:
            raise ConfigurationError("Set ALPACA_API_KEY and ALPACA_SECRET_KEY.")
        self.trading_url = trading_url.rstrip("/")
        self.data_url = data_url.rstrip("/")
        keys = {"api_key": api_key, "secret_key": secret_key, "raw_data": True}
        self._trading = TradingClient(url_override=self.trading_url, **keys)
        self._data = StockHistoricalDataClient(url_override=self.data_url, **keys)
        self._actions = CorporateActionsClient(url_override=self.data_url, **keys)
        self._backoff = tuple(backoff)
        self._feed = feed
        # Bars and orders share one pace: Alpaca counts requests by account.
        pace = (
            None
            if requests_per_minute is None
            else shared_pace(api_key, requests_per_minute, pace_folder)
        )
        adapter = PacedAdapter(timeout, pace)
        for client in (self._trading, self._data, self._actions):
            take_control(client, adapter)

    def __repr__(self) -> str:
        return f"AlpacaBroker({self.trading_url})"

    @property
    def name(self) -> str:
        """Alpaca, or the local exchange that speaks the same."""
        return "local exchange" if is_local(self.trading_url) else "alpaca"

    @property
    def moves_real_money(self) -> bool:
        """Whether this is Alpaca's live trading address."""
        return urlsplit(self.trading_url).hostname == LIVE_HOST

    def close(self) -> None:
        """Close the connections."""
        for client in (self._trading, self._data, self._actions):
            client._session.close()

    # What is read -------------------------------------------------------------------------------

    def clock(self) -> BrokerClock:
        """The broker's time; the local exchange's is virtual."""
        raw = self._read("clock", "/clock")
        return _parsed(
            "clock",
            lambda: BrokerClock(
                now=messages.parse_time(raw["timestamp"]),
                is_open=bool(raw["is_open"]),
                next_open=messages.parse_time(raw["next_open"]),
                next_close=messages.parse_time(raw["next_close"]),
            ),
        )

    def calendar(self, first: date, last: date) -> list[TradingHours]:
        """Sessions between both days, inclusive."""
        raw = self._read(
            "calendar", "/calendar", {"start": first.isoformat(), "end": last.isoformat()}
        )
        return _parsed("calendar", lambda: [messages.trading_hours(row) for row in raw])

    def account(self) -> Account:
        """The account's money."""
        raw = self._read("account", "/account")
        return _parsed("account", lambda: messages.account(raw))

    def positions(self) -> list[BrokerPosition]:
        """All holdings."""
        raw = self._read("positions", "/positions")
        return _parsed("positions", lambda: [messages.position(row) for row in raw])

    def open_orders(self) -> list[BrokerOrder]:
        """All orders that may still fill."""
        return list(self._orders({"status": "open"}, None))

    def orders_since(self, after: datetime) -> list[BrokerOrder]:
        """All orders submitted after a time, whatever became of them."""
        return list(self._orders({"status": "all"}, after))

    def order_by_client_id(self, client_order_id: str) -> BrokerOrder | None:
        """The order under a client id, or None when Alpaca says that it knows none.

        Raises:
            AmbiguousError: No usable answer, so that nothing is known.
        """
        try:
            raw = self._repeat(
                lambda: self._trading.get(
                    "/orders:by_client_order_id", {"client_order_id": client_order_id}
                ),
                f"look up order {client_order_id}",
            )
        except RejectedError as error:
            # Alpaca's own "not found" carries a code; a gateway's 404 says nothing about the order.
            if error.status_code == 404 and "code" in error.raw:
                return None
            raise AmbiguousError(str(error)) from error
        order = _parsed("order", lambda: messages.order(raw))
        if order.client_order_id != client_order_id:
            raise AmbiguousError(
                f"Asked for order {client_order_id}, the broker answered with "
                f"{order.client_order_id}; nothing is known about the order that was asked for."
            )
        return order

    def executions(self, since: date) -> list[Execution]:
        """All fills on or after a day."""
        rows = self._activities("/account/activities/FILL", since)
        return _parsed("fills", lambda: [messages.execution(row) for row in rows])

    def activities(self, since: date) -> list[AccountActivity]:
        """All activities other than fills on or after a day."""
        rows = self._activities("/account/activities", since)
        return _parsed(
            "activities",
            lambda: [messages.activity(row) for row in rows if row["activity_type"] != "FILL"],
        )

    def assets(self) -> dict[str, Asset]:
        """Every US equity that Alpaca lists as active."""
        rows = self._read("assets", "/assets", {"status": "active", "asset_class": "us_equity"})
        return _parsed("assets", lambda: {row["symbol"]: messages.asset(row) for row in rows})

    def listings(self) -> list[Asset]:
        """Every US equity that Alpaca lists on an exchange, active or not, by symbol."""
        rows = self._read("assets", "/assets", {"asset_class": "us_equity"})
        listed = _parsed(
            "assets", lambda: [messages.asset(row) for row in rows if row.get("exchange") != "OTC"]
        )
        # An old owner of a ticker stays on the list as inactive: the active entry counts.
        by_symbol = {asset.symbol: asset for asset in sorted(listed, key=lambda it: it.active)}
        return [by_symbol[symbol] for symbol in sorted(by_symbol)]

    def latest_prices(self, symbols: Collection[str]) -> dict[str, LatestPrice]:
        """The last trade of each symbol that has one."""
        prices: dict[str, LatestPrice] = {}
        ordered = sorted(symbols)
        for start in range(0, len(ordered), _SYMBOLS_PER_REQUEST):
            chunk = ordered[start : start + _SYMBOLS_PER_REQUEST]
            raw = self._repeat(
                lambda chunk=chunk: self._data.get(
                    "/stocks/trades/latest", {"symbols": ",".join(chunk), "feed": self._feed}
                ),
                "read the latest trades",
            )
            prices |= _parsed(
                "latest trades",
                lambda raw=raw: {
                    symbol: LatestPrice(
                        symbol, messages.parse_decimal(trade["p"]), messages.parse_time(trade["t"])
                    )
                    for symbol, trade in raw["trades"].items()
                    if trade is not None
                },
            )
        return prices

    def closes_before(self, symbols: Collection[str], day: date) -> dict[str, LatestPrice]:
        """The raw daily close of each symbol's last session before a day (ten days back at most)."""
        closes: dict[str, LatestPrice] = {}
        query = {
            "symbols": ",".join(sorted(symbols)),
            "timeframe": "1Day",
            "start": (day - timedelta(days=10)).isoformat(),
            "end": (day - timedelta(days=1)).isoformat(),
            "adjustment": "raw",
            "feed": self._feed,
            "limit": 10_000,
        }
        for raw in self._data_pages(self._data, "/stocks/bars", query, "read the last closes"):
            for symbol, bars in raw["bars"].items():
                for bar in bars:
                    at = messages.parse_time(bar["t"])
                    if symbol not in closes or at > closes[symbol].at:
                        closes[symbol] = LatestPrice(symbol, messages.parse_decimal(bar["c"]), at)
        return closes

    def splits(self, first: date, last: date) -> list[Split]:
        """Splits and stock dividends with an ex-date between both days, inclusive."""
        query = {
            "types": "forward_split,reverse_split,stock_dividend",
            "start": first.isoformat(),
            "end": last.isoformat(),
            "limit": 1000,
        }
        found: list[Split] = []
        for raw in self._data_pages(self._actions, "/corporate-actions", query, "read the splits"):
            found += _parsed("splits", lambda raw=raw: list(messages.splits(raw)))
        return [split for split in found if first <= split.ex_date <= last]

    # What is done -------------------------------------------------------------------------------

    def submit(self, request: OrderRequest) -> BrokerOrder:
        """Send one order under its client id; only 429, which proves non-acceptance, is repeated.

        Raises:
            RateLimitedError: Still limited after the last repetition.
            RejectedError: Refused for cause.
            DuplicateIdError: The id is known: the order exists.
            AmbiguousError: Everything that proves nothing (time-out, reset, 5xx, nonsense).
        """
        fields = messages.order_fields(request)
        raw = self._repeat(
            lambda: self._trading.post("/orders", fields),
            f"send order {request.client_order_id}",
            repeat_on=(RateLimitedError,),
        )
        order = _parsed("order", lambda: messages.order(raw))
        if order.client_order_id != request.client_order_id:
            raise AmbiguousError(
                f"Sent order {request.client_order_id}, the broker answered about "
                f"{order.client_order_id}."
            )
        return order

    def cancel(self, broker_order_id: str) -> None:
        """Ask for a cancellation; an order that has ended (422) or is unknown is left as it is."""
        try:
            self._repeat(
                lambda: self._trading.delete(f"/orders/{broker_order_id}"),
                f"cancel order {broker_order_id}",
            )
        except RejectedError as error:
            if error.status_code not in (404, 422):
                raise

    # How ----------------------------------------------------------------------------------------

    def _read(self, what: str, path: str, query: Mapping[str, Any] | None = None) -> Any:
        return self._repeat(lambda: self._trading.get(path, dict(query or {})), f"read the {what}")

    def _repeat(
        self,
        call: Callable[[], Any],
        what: str,
        repeat_on: tuple[type[BrokerError], ...] = (RateLimitedError, AmbiguousError),
    ) -> Any:
        """Make a request, repeating what may be repeated after the waits of the back-off."""
        for attempt in Retrying(
            retry=retry_if_exception_type(repeat_on),
            stop=stop_after_attempt(len(self._backoff) + 1),
            wait=wait_chain(*map(wait_fixed, self._backoff)),
            reraise=True,
        ):
            with attempt:
                return _answer(call, what)
        raise AssertionError("tenacity ends with an answer or an error")

    def _orders(self, query: Mapping[str, Any], after: datetime | None) -> Iterator[BrokerOrder]:
        """Page forward in time; orders of one instant may be split over pages, so pages overlap."""
        seen: set[str] = set()
        start = after
        while True:
            page = dict(query) | {"limit": _PAGE, "direction": "asc", "nested": "false"}
            if start is not None:
                page |= {"after": start.isoformat()}
            raw = self._read("orders", "/orders", page)
            orders = _parsed("orders", lambda raw=raw: [messages.order(row) for row in raw])
            fresh = [order for order in orders if order.broker_order_id not in seen]
            yield from fresh
            if len(orders) < _PAGE:
                return
            if not fresh:
                raise BrokerError(
                    f"More than {_PAGE} orders share the time {start}; Alpaca's order list cannot "
                    "be paged through them."
                )
            seen.update(order.broker_order_id for order in fresh)
            start = orders[-1].submitted_at - timedelta(microseconds=1)

    def _data_pages(
        self, client: RESTClient, path: str, query: Mapping[str, Any], what: str
    ) -> Iterator[Any]:
        token: str | None = None
        while True:
            page = dict(query) | ({"page_token": token} if token else {})
            raw = self._repeat(lambda page=page: client.get(path, page), what)
            yield raw
            following = raw.get("next_page_token")
            # An empty or repeated token would be read for ever.
            if not following or following == token:
                return
            token = following

    def _activities(self, path: str, since: date) -> list[Any]:
        rows: list[Any] = []
        token: str | None = None
        # `after` is exclusive and in time: the last instant before the day, in New York.
        instant = datetime.combine(since, datetime.min.time(), NEW_YORK) - timedelta(microseconds=1)
        query = {
            "after": instant.astimezone(UTC).isoformat(),
            "direction": "asc",
            "page_size": _ACTIVITY_PAGE,
        }
        while True:
            page = self._read("activities", path, query | ({"page_token": token} if token else {}))
            if not isinstance(page, list):
                raise BrokerError("The broker's activities are no list; nothing was booked.")
            rows += page
            if len(page) < _ACTIVITY_PAGE or page[-1]["id"] == token:
                return rows
            token = page[-1]["id"]


def _answer(call: Callable[[], Any], what: str) -> Any:
    """Make one request and say what its failure proves."""
    try:
        return call()
    except APIError as error:
        raise messages.meaning(error, what) from error
    except (requests.RequestException, ValueError, TypeError) as error:
        # Time-outs, resets and broken bodies: the request may have been carried out.
        raise AmbiguousError(
            f"Could not {what}: no usable answer ({type(error).__name__})."
        ) from error


def _parsed(what: str, parse: Callable[[], _T]) -> _T:
    try:
        return parse()
    except (KeyError, TypeError, ValueError, InvalidOperation, AttributeError) as error:
        raise AmbiguousError(
            f"The broker's answer about {what} cannot be understood ({error!r:.200})."
        ) from error
