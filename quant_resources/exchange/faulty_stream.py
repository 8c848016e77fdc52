"""Sends events to one connection of the stream, and lets those go wrong that the fault plan says.

1. Each event is counted by the rules of the plan (method EVENT, path `/stream/<event>`), for each connection.
2. A lost event is gone; a doubled one is sent again; one that is overtaken is kept until others were sent;
   a late one is sent by a task of its own.
3. During a silence nothing is sent, and what happened meanwhile is lost; pings are still answered, as a
   stream that is only stuck would do.

Which event has which fault is decided in `faults.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from quant_resources.exchange.fault_kinds import (
    Disconnect,
    DoubledEvent,
    Fault,
    LateEvent,
    LostEvent,
    MalformedEvent,
    OvertakenEvent,
    Silence,
)
from quant_resources.exchange.faults import EVENT, STREAM_PATH, FaultDesk
from quant_resources.exchange.serving import abort_connection
from quant_resources.exchange.stream_events import StreamEvent


class Delivery:
    """The events of one connection.

    Args:
        websocket: The accepted connection.
        desk: The fault plan.
    """

    def __init__(self, websocket: WebSocket, desk: FaultDesk) -> None:
        self._websocket = websocket
        self._desk = desk
        self._silent_until = 0.0
        self._overtaken: list[tuple[int, StreamEvent]] = []
        self._late: set[asyncio.Task[None]] = set()

    async def deliver(self, event: StreamEvent) -> bool:
        """Send an event, or what its fault makes of it; False if the connection has been ended."""
        if asyncio.get_running_loop().time() < self._silent_until:
            return True
        match fault := self._fault(event):
            case None:
                await self._sent(event)
            case LostEvent():
                pass
            case Silence():
                self._silent_until = asyncio.get_running_loop().time() + fault.seconds
            case DoubledEvent():
                for _ in range(fault.copies):
                    await self._sent(event)
            case OvertakenEvent():
                self._overtaken.append((fault.by, event))
            case LateEvent():
                self._send_later(event, fault.seconds)
            case MalformedEvent():
                await self._websocket.send_bytes(fault.body.encode())
            case Disconnect():
                if fault.after:
                    await self._sent(event)
                await self._end(fault)
                return False
        return True

    def close(self) -> None:
        """Forget what was still to be sent."""
        for task in self._late:
            task.cancel()

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send a message as it is; Alpaca's trading stream uses binary frames."""
        await self._websocket.send_bytes(json.dumps(message).encode())

    def _fault(self, event: StreamEvent) -> Fault | None:
        if self._desk.idle:
            return None
        query = {"symbol": event.symbol, "client_order_id": event.client_order_id}
        return self._desk.next_fault(EVENT, f"{STREAM_PATH}/{event.event}", query)

    async def _sent(self, event: StreamEvent) -> None:
        await self.send(event.message)
        waiting, self._overtaken = self._overtaken, []
        for left, overtaken in waiting:
            if left > 1:
                self._overtaken.append((left - 1, overtaken))
            else:
                await self.send(overtaken.message)

    def _send_later(self, event: StreamEvent, seconds: float) -> None:
        async def later() -> None:
            await asyncio.sleep(seconds)
            with suppress(WebSocketDisconnect):
                await self.send(event.message)

        task = asyncio.create_task(later())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _end(self, fault: Disconnect) -> None:
        if fault.code is None:
            abort_connection(self._websocket.scope)
        else:
            await self._websocket.close(fault.code)
