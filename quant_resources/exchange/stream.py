"""Alpaca's trading stream: a websocket at `/stream` that tells what happens to orders.

1. The client sends its keys, in either of Alpaca's two forms; any non-empty ones will do.
2. It asks to listen to `trade_updates`. What happened before is not told: a client that was away must ask
   for it by the REST API.
3. From then on every event of the audit log is sent (`stream_events.py`), faults included
   (`faulty_stream.py`).

Source: Alpaca, "Websocket Streaming" of the Trading API (authentication, listening, trade_updates).
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any, Final

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from quant_resources.exchange.exchange import Exchange
from quant_resources.exchange.faults import STREAM_PATH, FaultDesk
from quant_resources.exchange.faulty_stream import Delivery
from quant_resources.exchange.stream_events import events_after

_TRADE_UPDATES: Final = "trade_updates"
_LOOK_EVERY_SECONDS: Final = 0.02


def routes(exchange: Exchange, desk: FaultDesk) -> list[WebSocketRoute]:
    """The route of the stream."""

    async def stream(websocket: WebSocket) -> None:
        await websocket.accept()
        delivery = Delivery(websocket, desk)
        telling: asyncio.Task[None] | None = None
        authorized = False
        try:
            while True:
                asked = _read(await _received(websocket))
                if asked.get("action") in {"auth", "authenticate"}:
                    authorized = _has_keys(asked)
                    await delivery.send(_authorization(asked, authorized))
                elif asked.get("action") == "listen" and not authorized:
                    await delivery.send(_authorization(asked, authorized))
                elif asked.get("action") == "listen":
                    heard = [name for name in _streams(asked) if name == _TRADE_UPDATES]
                    await delivery.send({"stream": "listening", "data": {"streams": heard}})
                    if telling is not None:
                        telling.cancel()
                    telling = asyncio.create_task(_tell(exchange, delivery)) if heard else None
        except WebSocketDisconnect:
            pass
        finally:
            delivery.close()
            if telling is not None:
                telling.cancel()
                with suppress(asyncio.CancelledError, WebSocketDisconnect):
                    await telling

    return [WebSocketRoute(STREAM_PATH, stream)]


async def _tell(exchange: Exchange, delivery: Delivery) -> None:
    """Send what happens from now on, until the connection ends."""
    told = exchange.state.audit_end()
    while True:
        end = exchange.state.audit_end()
        if end > told:
            # Read before the first is sent: while one is being sent, more may happen.
            events, told = events_after(exchange, told), end
            for event in events:
                if not await delivery.deliver(event):
                    return
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


async def _received(websocket: WebSocket) -> str | bytes:
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    return message.get("text") or message.get("bytes") or ""


def _read(message: str | bytes) -> dict[str, Any]:
    """A message of the client; what is none asks for nothing."""
    try:
        asked = json.loads(message)
    except ValueError:
        return {}
    return asked if isinstance(asked, dict) else {}


def _has_keys(asked: dict[str, Any]) -> bool:
    """Keys as `key` and `secret`, or in the older form inside `data`."""
    older = asked.get("data")
    if isinstance(older, dict):
        return bool(older.get("key_id") and older.get("secret_key"))
    return bool(asked.get("key") and asked.get("secret"))


def _authorization(asked: dict[str, Any], authorized: bool) -> dict[str, Any]:
    status = "authorized" if authorized else "unauthorized"
    return {"stream": "authorization", "data": {"status": status, "action": asked.get("action")}}


def _streams(asked: dict[str, Any]) -> list[str]:
    data = asked.get("data")
    streams = data.get("streams") if isinstance(data, dict) else None
    return streams if isinstance(streams, list) else []
