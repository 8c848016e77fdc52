"""How the exchange's application is put on the wire, and how a connection of it is cut.

uvicorn hides the connection from an application; here it is handed on in the request's scope, because a
fault on purpose must be able to end it as a real network does.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope
from uvicorn.protocols.http.auto import AutoHTTPProtocol

_TRANSPORT = "quant.transport"
#: A connection closed just as an order is sent would leave its fate open.
_KEEP_ALIVE_SECONDS = 3600
#: A server told to end does not wait for requests that hang on purpose.
_LAST_ANSWERS_SECONDS = 2


class _ReachableProtocol(AutoHTTPProtocol):  # pyright: ignore[reportGeneralTypeIssues, reportUntypedBaseClass]
    """uvicorn's HTTP protocol; the state of every request's scope holds its connection."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.app_state: dict[str, Any] = {**self.app_state, _TRANSPORT: transport}


def server_config(app: ASGIApp) -> uvicorn.Config:
    """The configuration of a server of the application."""
    return uvicorn.Config(
        app,
        http=_ReachableProtocol,
        log_level="warning",
        access_log=False,
        lifespan="on",
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_LAST_ANSWERS_SECONDS,
    )


async def reset_connection(scope: Scope, receive: Receive) -> None:
    """End the request's connection with a TCP reset; what was sent may be lost with it."""
    abort_connection(scope)
    await gone(receive)


def abort_connection(scope: Scope) -> None:
    """Reset the connection, whoever waits for its end."""
    transport = _transport(scope)
    connection = transport.get_extra_info("socket")
    # Linger zero: the client sees a reset, not an orderly end.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def close_connection(scope: Scope, receive: Receive) -> None:
    """End the request's connection after what was sent has left."""
    _transport(scope).close()
    await gone(receive)


async def gone(receive: Receive) -> None:
    """Wait until the client's connection has ended."""
    while (await receive())["type"] not in {"http.disconnect", "websocket.disconnect"}:
        pass


def _transport(scope: Scope) -> asyncio.Transport:
    return scope["state"][_TRANSPORT]
