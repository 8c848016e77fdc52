"""Requests to Alpaca: addresses, keys, time-outs, pace, and what is repeated after which wait.

Belongs here: how a request is made through alpaca-py's clients and what its failure proves. Does not
belong here: what is asked (`alpaca_broker.py`, `alpaca_orders.py`) and what a message means
(`alpaca_messages.py`).

What alpaca-py would do by itself and must not (version 0.44.0):

1. It has no timeout: an adapter on the session sets one for every request.
2. It repeats 429 and 504 three times, POST included: `_retry` is set to 0 and repetition is ours.
3. An empty `url_override` goes to Alpaca's own servers: an empty address is refused.
4. It sends floats: numbers leave as decimal strings.
5. It does not page orders, and activities have no wrapper: both are paged here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import requests
from alpaca.common.exceptions import APIError
from alpaca.common.rest import RESTClient
from alpaca.data.historical.corporate_actions import CorporateActionsClient
from alpaca.data.historical.stock import StockHistoricalDataClient
from alpaca.trading.client import TradingClient
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_chain, wait_fixed

from quant_resources import alpaca_messages as messages
from quant_resources.alpaca_transport import BACKOFF_SECONDS, PacedAdapter, take_control
from quant_resources.broker import AmbiguousError, RateLimitedError
from quant_resources.errors import BrokerError, ConfigurationError
from quant_resources.request_pace import shared_pace

#: What may be repeated of a request that changes nothing at the broker when it is made twice.
REPEATABLE: Final = (RateLimitedError, AmbiguousError)
#: What may be repeated of any other: only answers that prove that nothing was accepted.
NOT_ACCEPTED: Final = (RateLimitedError,)
_T = TypeVar("_T")


class AlpacaConnection:
    """alpaca-py's three clients behind one pair of keys, under our own patience.

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
        self.trading = TradingClient(url_override=self.trading_url, **keys)
        self.data = StockHistoricalDataClient(url_override=self.data_url, **keys)
        self.actions = CorporateActionsClient(url_override=self.data_url, **keys)
        self._backoff = tuple(backoff)
        # Bars and orders share one pace: Alpaca counts requests by account.
        pace = (
            None
            if requests_per_minute is None
            else shared_pace(api_key, requests_per_minute, pace_folder)
        )
        adapter = PacedAdapter(timeout, pace)
        for client in (self.trading, self.data, self.actions):
            take_control(client, adapter)

    def close(self) -> None:
        """Close the connections."""
        for client in (self.trading, self.data, self.actions):
            client._session.close()

    def read(
        self, what: str, path: str, query: Mapping[str, Any] | None, understand: Callable[[Any], _T]
    ) -> _T:
        """What the answer to a read of the trading API means."""
        return self.send(
            lambda: self.trading.get(path, dict(query or {})), f"read the {what}", understand
        )

    def read_data(
        self, what: str, path: str, query: Mapping[str, Any], understand: Callable[[Any], _T]
    ) -> _T:
        """What the answer to a read of the market data API means."""
        return self.send(lambda: self.data.get(path, dict(query)), f"read the {what}", understand)

    def data_pages(
        self,
        client: RESTClient,
        what: str,
        path: str,
        query: Mapping[str, Any],
        understand: Callable[[Any], _T],
    ) -> Iterator[_T]:
        """What every page of a read of market data or corporate actions means."""
        token: str | None = None
        while True:
            page = dict(query) | ({"page_token": token} if token else {})
            found, following = self.send(
                lambda page=page: client.get(path, page),
                f"read the {what}",
                lambda raw: (understand(raw), raw.get("next_page_token")),
            )
            yield found
            # An empty or repeated token would be read for ever.
            if not following or following == token:
                return
            token = following

    def send(
        self,
        call: Callable[[], Any],
        what: str,
        understand: Callable[[Any], _T],
        repeat_on: tuple[type[BrokerError], ...] = REPEATABLE,
    ) -> _T:
        """Make a request, repeating what may be repeated after the waits of the back-off.

        Args:
            call: The request through one of the clients.
            what: What it does, for messages: "read the clock".
            understand: What the answer means; an answer that it cannot read proves nothing.
            repeat_on: The errors after which the request may be made again.

        Raises:
            BrokerError: By what the last answer proves; `broker.py` has the table.
        """
        for attempt in Retrying(
            retry=retry_if_exception_type(repeat_on),
            stop=stop_after_attempt(len(self._backoff) + 1),
            wait=wait_chain(*map(wait_fixed, self._backoff)),
            reraise=True,
        ):
            with attempt:
                return _understood(_answer(call, what), what, understand)
        raise AssertionError("tenacity ends with an answer or an error")


def path_part(text: str) -> str:
    """Text as one part of a path, whatever is in it; an empty one would address something else."""
    if not text or text in (".", ".."):
        raise BrokerError(f"{text!r} is no id of the broker; nothing was asked.")
    return quote(text, safe="")


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


def _understood(raw: Any, what: str, understand: Callable[[Any], _T]) -> _T:
    try:
        return understand(raw)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise AmbiguousError(
            f"Could not {what}: the broker's answer cannot be understood ({error!r:.200})."
        ) from error
