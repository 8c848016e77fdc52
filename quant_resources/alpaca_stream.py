"""Alpaca's trading stream as a reader sees it: updates of orders, and gaps where some may be missing.

Belongs here: the connection, its repair and the shape of a message. Does not belong here: what an update
leads to (`quant_assets/orders/update_stream.py`); an update is a hint to look, never a booking.

1. `wait` returns what has come, at the latest after the given seconds, and always at least one thing.
2. Whatever may have been missed is a `Gap`: every new connection, its end, a message that cannot be read,
   and a stretch in which nothing came (a stream that is stuck looks like a quiet market).
3. A connection that ends is opened again on the next `wait`, after a back-off that grows while it fails.
4. Keys that are refused are an error; everything else is a gap, so that the reader goes on by polling.

Why not alpaca-py's `TradingStream` (0.44.0): it connects again without telling anybody, so that a reader
cannot know what it missed; it waits for the answer to its keys without a timeout; keys that are refused,
and any error of the reader, are logged and tried for ever; and it uses websockets' deprecated client.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from quant_resources.alpaca_messages import parse_decimal, parse_time
from quant_resources.broker import UnauthorizedError
from quant_resources.errors import ConfigurationError
from quant_resources.launch import is_local

_PATH: Final = "/stream"
_TRADE_UPDATES: Final = "trade_updates"
_REFUSED: Final = frozenset({401, 403})
_SOCKETS: Final = {"http": "ws", "https": "wss"}
#: Waits before the next attempt to connect; the last one repeats.
_BACKOFF_SECONDS: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
#: A burst of updates that is read while a pass runs must not stop the answers to pings.
_FRAMES_KEPT: Final = 10_000
# websockets writes every message, keys included, into its log at level DEBUG.
_LOG: Final = logging.getLogger(__name__)
_LOG.setLevel(logging.INFO)


@dataclass(frozen=True)
class TradeUpdate:
    """One update of one order, as far as a reader may rely on it.

    Attributes:
        event: Alpaca's name, such as "fill"; names may be added to the stream at any time.
        execution_id: Of a fill, bust or correction.
        quantity: Shares of the execution.
        price: USD per share of the execution.
        held: Signed shares held of the symbol after it.
        at: When it happened, UTC.
    """

    event: str
    broker_order_id: str
    client_order_id: str
    symbol: str
    execution_id: str | None
    quantity: Decimal | None
    price: Decimal | None
    held: Decimal | None
    at: datetime
    raw: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Gap:
    """Updates may be missing; whoever relies on them must ask the broker itself."""

    reason: str


class TradeUpdateStream:
    """The updates of one account's orders.

    Args:
        trading_url: Address of the trading API without `/v2`; the stream is beside it.
        api_key: Key id.
        secret_key: Secret; it is sent in the first message and shown nowhere.
        timeout: Seconds to wait for a connection, and for each answer while it opens.
        ping_seconds: How often the other side must prove that it is there.
        backoff: Waits before the attempts to connect again; the last one repeats.

    Raises:
        ConfigurationError: The address or a key is empty or wrong.
    """

    def __init__(
        self,
        trading_url: str,
        api_key: str,
        secret_key: str,
        *,
        timeout: float = 10.0,
        ping_seconds: float = 10.0,
        backoff: Sequence[float] = _BACKOFF_SECONDS,
    ) -> None:
        self.url = stream_url(trading_url)
        if not api_key or not secret_key:
            raise ConfigurationError("Set ALPACA_API_KEY and ALPACA_SECRET_KEY.")
        self._keys = (api_key, secret_key)
        self._timeout = timeout
        self._ping_seconds = ping_seconds
        self._backoff = tuple(backoff)
        self._failures = 0
        self._connection: ClientConnection | None = None

    def __repr__(self) -> str:
        return f"TradeUpdateStream({self.url})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def is_connected(self) -> bool:
        """Whether a connection was there when last looked."""
        return self._connection is not None

    def close(self) -> None:
        """End the connection; a later `wait` opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def wait(self, seconds: float) -> list[TradeUpdate | Gap]:
        """Wait for updates.

        Args:
            seconds: How long at most; with no connection about as long, unless one is made earlier.

        Returns:
            Everything that has come, oldest first; a gap when that is nothing.

        Raises:
            UnauthorizedError: The keys are refused.
        """
        if self._connection is None:
            return [self._open(seconds)]
        found: list[TradeUpdate | Gap] = []
        try:
            found.append(self._next(self._connection, seconds))
            while len(found) <= _FRAMES_KEPT:
                found.append(self._next(self._connection, 0))
        except TimeoutError:
            return found or [Gap(f"nothing came for {seconds:g} s")]
        except ConnectionClosed as error:
            self.close()
            return [*found, Gap(f"the connection ended ({_said(error)})")]
        return found

    def _open(self, seconds: float) -> Gap:
        if self._failures:
            pause = self._backoff[min(self._failures, len(self._backoff)) - 1]
            time.sleep(min(pause, seconds))
        try:
            connection = connect(
                self.url,
                open_timeout=self._timeout,
                close_timeout=self._timeout,
                ping_interval=self._ping_seconds,
                ping_timeout=self._ping_seconds,
                max_queue=_FRAMES_KEPT,
                # A proxy of the environment is for the internet, not for this machine.
                proxy=None if is_local(self.url) else True,
                logger=_LOG,
                legacy=True,
            )
        except InvalidStatus as error:
            if error.response.status_code in _REFUSED:
                raise _refused() from None
            return self._failed(f"it answered {error.response.status_code}")
        except (OSError, WebSocketException) as error:
            return self._failed(f"{type(error).__name__}")
        try:
            self._log_in(connection)
        except UnauthorizedError:
            connection.close()
            raise
        except (OSError, WebSocketException, ValueError) as error:
            connection.close()
            return self._failed(f"no answer to the keys: {type(error).__name__}")
        self._connection, self._failures = connection, 0
        return Gap("connected: what happened before was not told")

    def _failed(self, why: str) -> Gap:
        self._failures += 1
        return Gap(f"not connected ({why})")

    def _log_in(self, connection: ClientConnection) -> None:
        """Send the keys, ask for updates, and wait for both answers.

        Raises:
            UnauthorizedError: The keys are refused.
            ValueError: An answer cannot be read.
        """
        key, secret = self._keys
        connection.send(json.dumps({"action": "auth", "key": key, "secret": secret}))
        if _data(self._read(connection), "authorization").get("status") != "authorized":
            raise _refused()
        connection.send(json.dumps({"action": "listen", "data": {"streams": [_TRADE_UPDATES]}}))
        if _TRADE_UPDATES not in _data(self._read(connection), "listening").get("streams", ()):
            raise ValueError("the stream does not tell trade updates")

    def _read(self, connection: ClientConnection) -> object:
        return json.loads(connection.recv(timeout=self._timeout))

    def _next(self, connection: ClientConnection, seconds: float) -> TradeUpdate | Gap:
        message = connection.recv(timeout=seconds)
        try:
            return trade_update(_data(json.loads(message), _TRADE_UPDATES))
        except (ValueError, KeyError, TypeError, ArithmeticError, AttributeError):
            return Gap("a message of the stream cannot be read")


def stream_url(trading_url: str) -> str:
    """The stream's address beside a trading API's.

    Raises:
        ConfigurationError: It is no http address.
    """
    parts = urlsplit(trading_url)
    if parts.scheme not in _SOCKETS or not parts.netloc:
        raise ConfigurationError(
            f"The trading address {trading_url!r} is no http address; set QUANT_TRADING_URL."
        )
    return f"{_SOCKETS[parts.scheme]}://{parts.netloc}{parts.path.rstrip('/')}{_PATH}"


def trade_update(data: Mapping[str, Any]) -> TradeUpdate:
    """The data of a `trade_updates` message; KeyError, TypeError or ValueError when it is none."""
    order = data["order"]

    def amount(name: str) -> Decimal | None:
        value = data.get(name)
        return None if value in (None, "") else parse_decimal(value)

    return TradeUpdate(
        event=str(data["event"]),
        broker_order_id=str(order["id"]),
        client_order_id=str(order["client_order_id"]),
        symbol=str(order["symbol"]),
        execution_id=data.get("execution_id") or None,
        quantity=amount("qty"),
        price=amount("price"),
        held=amount("position_qty"),
        at=parse_time(data["timestamp"]),
        raw=data,
    )


def _data(message: object, stream: str) -> Mapping[str, Any]:
    if not isinstance(message, dict) or message.get("stream") != stream:
        raise ValueError(f"no message of {stream}")
    data: Mapping[str, Any] = message["data"]
    return data


def _said(error: ConnectionClosed) -> str:
    return "reset" if error.rcvd is None else f"code {error.rcvd.code}"


def _refused() -> UnauthorizedError:
    return UnauthorizedError(
        "The broker's stream refuses the keys; correct ALPACA_API_KEY and ALPACA_SECRET_KEY."
    )
