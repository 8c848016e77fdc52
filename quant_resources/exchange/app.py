"""The HTTP application: routes, keys, errors, and the task that follows the wall clock.

Handlers run on the event loop and never wait between reading the state and writing it, so one request
is done before the next begins. Faults on purpose stand between the client and the handlers
(`faulty_wire.py`), and whatever other ASGI middleware is given to `build_app`.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from quant_resources.errors import QuantError
from quant_resources.exchange import (
    api_control,
    api_data,
    api_orders,
    api_reference,
    api_trading,
    stream,
)
from quant_resources.exchange.exchange import Exchange
from quant_resources.exchange.faults import FaultDesk
from quant_resources.exchange.faulty_wire import FaultyWire
from quant_resources.exchange.refusals import UNAUTHORIZED, RefusalError
from quant_resources.exchange.wire import Answer, refused

_FOLLOW_EVERY_SECONDS = 1.0
_LOG = logging.getLogger(__name__)


def build_app(exchange: Exchange, middleware: Sequence[Middleware] = ()) -> Starlette:
    """The application of an exchange, to be served with `serving.server_config`."""
    desk = FaultDesk(exchange.state)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(_follow_wall_clock(exchange))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    return Starlette(
        routes=[
            *api_data.routes(exchange),
            *api_trading.routes(exchange),
            *api_orders.routes(exchange),
            *api_reference.routes(exchange),
            *api_control.routes(exchange, desk),
            *stream.routes(exchange, desk),
        ],
        middleware=[
            # A page in a browser must not reach the exchange under a name of its own.
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
            Middleware(RequireKeys),
            Middleware(FaultyWire, exchange=exchange, desk=desk),
            *middleware,
        ],
        exception_handlers={
            RefusalError: refused,
            QuantError: _exchange_error,
            HTTPException: _http_error,
            sqlite3.Error: _storage_error,
        },
        lifespan=lifespan,
    )


class RequireKeys:
    """Refuses requests to Alpaca's APIs without key headers; any non-empty keys will do."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the headers, then go on."""
        if scope["type"] == "http" and not scope["path"].startswith("/exchange/"):
            headers = dict(scope["headers"])
            keyed = headers.get(b"apca-api-key-id") and headers.get(b"apca-api-secret-key")
            if not keyed and not headers.get(b"authorization"):
                answer = Answer(
                    {"code": UNAUTHORIZED, "message": "request is not authorized"}, status_code=401
                )
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)


async def _follow_wall_clock(exchange: Exchange) -> None:
    while True:
        now = datetime.now(UTC)
        try:
            if exchange.state.get("follow") == "true" and exchange.now < now < exchange.end:
                exchange.advance(now)
        except sqlite3.Error:
            # Nothing was changed; the next second tries again.
            _LOG.exception("The clock could not follow the wall clock.")
        await asyncio.sleep(_FOLLOW_EVERY_SECONDS)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    message = "endpoint not found." if error.status_code == 404 else error.detail
    return Answer({"message": message}, status_code=error.status_code, headers=error.headers)


async def _exchange_error(_: Request, error: Exception) -> Response:
    return Answer({"code": 50010000, "message": str(error)}, status_code=500)


async def _storage_error(_: Request, error: Exception) -> Response:
    message = f"the exchange could not write its state ({error}); nothing was changed"
    return Answer({"code": 50010000, "message": message}, status_code=500)
