"""The `Broker` over Alpaca's trading and data API, through alpaca-py's own clients.

Belongs here: which request answers which question of the order path. Does not belong here: how a request is
made (`alpaca_connection.py`), order lists (`alpaca_orders.py`), what a message means
(`alpaca_messages.py`) and any decision about orders.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from quant_resources import alpaca_messages as messages
from quant_resources import alpaca_orders
from quant_resources.alpaca_bars import PROCESS_LAG, PROCESS_LEAD
from quant_resources.alpaca_connection import NOT_ACCEPTED, AlpacaConnection, path_part
from quant_resources.alpaca_transport import BACKOFF_SECONDS
from quant_resources.broker import (
    Account,
    AccountActivity,
    AmbiguousError,
    Asset,
    BrokenRulesError,
    BrokerClock,
    BrokerOrder,
    BrokerPosition,
    Dividend,
    Execution,
    LatestPrice,
    OrderRequest,
    Quote,
    RejectedError,
    Split,
    TradingHours,
)
from quant_resources.calendar import NEW_YORK
from quant_resources.errors import BrokerError
from quant_resources.launch import is_local
from quant_resources.order_rules import LONGEST_ID, breaches, is_symbol

LIVE_HOST: Final = "api.alpaca.markets"
_ACTIVITY_PAGE: Final = 100
_CONFIGURATIONS: Final = "/account/configurations"
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
        feed: The feed of prices and quotes: "iex" or "sip".

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
        self._connection = AlpacaConnection(
            trading_url,
            data_url,
            api_key,
            secret_key,
            timeout=timeout,
            backoff=backoff,
            requests_per_minute=requests_per_minute,
            pace_folder=pace_folder,
        )
        self._trading = self._connection.trading
        self.trading_url = self._connection.trading_url
        self.data_url = self._connection.data_url
        self._feed = feed

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
        self._connection.close()

    # What is read -------------------------------------------------------------------------------

    def clock(self) -> BrokerClock:
        """The broker's time; the local exchange's is virtual."""
        return self._connection.read("clock", "/clock", None, messages.clock)

    def calendar(self, first: date, last: date) -> list[TradingHours]:
        """Sessions between both days, inclusive."""
        days = {"start": first.isoformat(), "end": last.isoformat()}
        return self._connection.read("calendar", "/calendar", days, _each(messages.trading_hours))

    def account(self) -> Account:
        """The account's money."""
        return self._connection.read("account", "/account", None, messages.account)

    def positions(self) -> list[BrokerPosition]:
        """All holdings."""
        return self._connection.read("positions", "/positions", None, _each(messages.position))

    def open_orders(self) -> list[BrokerOrder]:
        """All orders that may still fill, legs after their entry."""
        return alpaca_orders.open_orders(self._connection)

    def orders_since(self, after: datetime) -> list[BrokerOrder]:
        """All orders submitted after a time, whatever became of them, legs after their entry."""
        return alpaca_orders.orders_since(self._connection, after)

    def order_by_client_id(self, client_order_id: str) -> BrokerOrder | None:
        """The order under a client id, or None when Alpaca says that it knows none.

        Raises:
            AmbiguousError: No usable answer, so that nothing is known.
            BrokerError: It cannot be a client id.
        """
        if not 1 <= len(client_order_id) <= LONGEST_ID:
            raise BrokerError(
                f"A client order id has 1 to {LONGEST_ID} characters, this one "
                f"{len(client_order_id)}; nothing was asked."
            )
        try:
            order = self._connection.send(
                lambda: self._trading.get(
                    "/orders:by_client_order_id", {"client_order_id": client_order_id}
                ),
                f"look up order {client_order_id}",
                messages.order,
            )
        except RejectedError as error:
            # Alpaca's own "not found" carries a code; a gateway's 404 says nothing about the order.
            if error.status_code == 404 and "code" in error.raw:
                return None
            raise AmbiguousError(str(error)) from error
        if order.client_order_id != client_order_id:
            raise AmbiguousError(
                f"Asked for order {client_order_id}, the broker answered with "
                f"{order.client_order_id}; nothing is known about the order that was asked for."
            )
        return order

    def executions(self, since: date) -> list[Execution]:
        """All fills, busts and corrections on or after a day."""
        return self._activities("fills", "/account/activities/FILL", since, messages.execution)

    def activities(self, since: date) -> list[AccountActivity]:
        """All activities other than fills on or after a day."""
        every = self._activities("activities", "/account/activities", since, messages.activity)
        return [found for found in every if found is not None]

    def assets(self) -> dict[str, Asset]:
        """Every US equity that Alpaca lists as active."""
        query = {"status": "active", "asset_class": "us_equity"}
        listed = self._connection.read("assets", "/assets", query, _each(messages.asset))
        return {asset.symbol: asset for asset in listed}

    def listings(self) -> list[Asset]:
        """Every US equity that Alpaca lists on an exchange, active or not, by symbol."""
        listed = self._connection.read(
            "assets",
            "/assets",
            {"asset_class": "us_equity"},
            lambda rows: [messages.asset(row) for row in rows if row.get("exchange") != "OTC"],
        )
        # An old owner of a ticker stays on the list as inactive: the active entry counts.
        by_symbol = {asset.symbol: asset for asset in sorted(listed, key=lambda it: it.active)}
        return [by_symbol[symbol] for symbol in sorted(by_symbol)]

    def latest_prices(self, symbols: Collection[str]) -> dict[str, LatestPrice]:
        """The last trade of each symbol that has one."""
        return self._latest("trades", symbols, messages.latest_price)

    def latest_quotes(self, symbols: Collection[str]) -> dict[str, Quote]:
        """The best bid and offer of each symbol that has a quote."""
        return self._latest("quotes", symbols, messages.quote)

    def closes_before(self, symbols: Collection[str], day: date) -> dict[str, LatestPrice]:
        """The raw daily close of each symbol's last session before a day (ten days back at most)."""
        found: dict[str, LatestPrice] = {}
        asked = _tickers(symbols)
        if not asked:
            return found
        query = {
            "symbols": ",".join(asked),
            "timeframe": "1Day",
            "start": (day - timedelta(days=10)).isoformat(),
            "end": (day - timedelta(days=1)).isoformat(),
            "adjustment": "raw",
            "feed": self._feed,
            "limit": 10_000,
        }
        for closes in self._connection.data_pages(
            self._connection.data, "last closes", "/stocks/bars", query, messages.closes
        ):
            for close in closes:
                if close.symbol not in found or close.at > found[close.symbol].at:
                    found[close.symbol] = close
        return found

    def splits(self, first: date, last: date) -> list[Split]:
        """Splits and stock dividends with an ex-date between both days, inclusive."""
        query = {
            "types": "forward_split,reverse_split,stock_dividend",
            "start": first.isoformat(),
            "end": last.isoformat(),
            "limit": 1000,
        }
        pages = self._connection.data_pages(
            self._connection.actions, "splits", "/corporate-actions", query, messages.splits
        )
        return [split for page in pages for split in page if first <= split.ex_date <= last]

    def dividends(self, symbols: Collection[str], first: date, last: date) -> list[Dividend]:
        """Cash dividends of some symbols with an ex-date between both days, inclusive."""
        found: list[Dividend] = []
        ordered = _tickers(symbols)
        for start in range(0, len(ordered), _SYMBOLS_PER_REQUEST):
            query = {
                "symbols": ",".join(ordered[start : start + _SYMBOLS_PER_REQUEST]),
                "types": "cash_dividend",
                "start": (first - PROCESS_LEAD).isoformat(),
                "end": (last + PROCESS_LAG).isoformat(),
                "limit": 1000,
            }
            for page in self._connection.data_pages(
                self._connection.actions,
                "dividends",
                "/corporate-actions",
                query,
                messages.dividends,
            ):
                found += [dividend for dividend in page if first <= dividend.ex_date <= last]
        return found

    # What is done -------------------------------------------------------------------------------

    def submit(self, request: OrderRequest) -> BrokerOrder:
        """Send one order under its client id; only 429, which proves non-acceptance, is repeated.

        Raises:
            BrokenRulesError: It breaks a rule of the broker and was not sent.
            RateLimitedError: Still limited after the last repetition.
            RejectedError: Refused for cause.
            DuplicateIdError: The id is known: the order exists.
            AmbiguousError: Everything that proves nothing (time-out, reset, 5xx, nonsense).
        """
        broken = breaches(request)
        if broken:
            raise BrokenRulesError(
                f"Order {request.client_order_id:.128} ({request.symbol:.40}) was not sent: "
                f"{'; '.join(broken)}.",
                broken,
            )
        fields = messages.order_fields(request)
        order = self._connection.send(
            lambda: self._trading.post("/orders", fields),
            f"send order {request.client_order_id}",
            messages.order,
            repeat_on=NOT_ACCEPTED,
        )
        if order.client_order_id != request.client_order_id:
            raise AmbiguousError(
                f"Sent order {request.client_order_id}, the broker answered about "
                f"{order.client_order_id}."
            )
        return order

    def cancel(self, broker_order_id: str) -> None:
        """Ask for a cancellation; an order that has ended (422) or is unknown is left as it is."""
        path = f"/orders/{path_part(broker_order_id)}"
        try:
            self._connection.send(
                lambda: self._trading.delete(path),
                f"cancel order {broker_order_id:.128}",
                lambda _: None,
            )
        except RejectedError as error:
            if error.status_code not in (404, 422):
                raise

    def suspend_trading(self, *, suspended: bool) -> None:
        """Set or release the account's switch `suspend_trade`, and see that it is as asked.

        Raises:
            BrokerError: The broker did not do it, or did not say so.
        """
        what = f"{'suspend' if suspended else 'allow'} trading at the broker"
        is_now = self._connection.send(
            lambda: self._trading.patch(_CONFIGURATIONS, {"suspend_trade": suspended}),
            what,
            messages.is_suspended,
        )
        if is_now != suspended:
            raise AmbiguousError(f"Could not {what}: the switch is not as it was set.")

    def is_suspended(self) -> bool:
        """Whether the account's switch `suspend_trade` is set."""
        return self._connection.read(
            "account's switches", _CONFIGURATIONS, None, messages.is_suspended
        )

    # How ----------------------------------------------------------------------------------------

    def _latest(
        self, kind: str, symbols: Collection[str], of_symbol: Callable[[str, Any], _T]
    ) -> dict[str, _T]:
        """The last trades or quotes by symbol, some hundred symbols at a time."""
        found: dict[str, _T] = {}
        ordered = _tickers(symbols)
        for start in range(0, len(ordered), _SYMBOLS_PER_REQUEST):
            chunk = ordered[start : start + _SYMBOLS_PER_REQUEST]
            found |= self._connection.read_data(
                f"latest {kind}",
                f"/stocks/{kind}/latest",
                {"symbols": ",".join(chunk), "feed": self._feed},
                lambda raw: {
                    symbol: of_symbol(symbol, row)
                    for symbol, row in raw[kind].items()
                    if row is not None
                },
            )
        return found

    def _activities(self, what: str, path: str, since: date, each: Callable[[Any], _T]) -> list[_T]:
        found: list[_T] = []
        token: str | None = None
        # `after` is exclusive and in time: the last instant before the day, in New York.
        instant = datetime.combine(since, datetime.min.time(), NEW_YORK) - timedelta(microseconds=1)
        query = {
            "after": instant.astimezone(UTC).isoformat(),
            "direction": "asc",
            "page_size": _ACTIVITY_PAGE,
        }
        while True:
            page = self._connection.read(
                what,
                path,
                query | ({"page_token": token} if token else {}),
                lambda rows: [(str(row["id"]), each(row)) for row in _rows(rows)],
            )
            found += [row for _, row in page]
            if len(page) < _ACTIVITY_PAGE or page[-1][0] == token:
                return found
            token = page[-1][0]


def _each(understand: Callable[[Any], _T]) -> Callable[[Any], list[_T]]:
    return lambda rows: [understand(row) for row in _rows(rows)]


def _rows(rows: Any) -> list[Any]:
    if not isinstance(rows, list):
        raise TypeError(f"a list was asked for, {type(rows).__name__} came")
    return rows


def _tickers(symbols: Collection[str]) -> Sequence[str]:
    """What can be a ticker: one that cannot has no price, and would spoil the request for the others."""
    return sorted(symbol for symbol in symbols if is_symbol(symbol))
