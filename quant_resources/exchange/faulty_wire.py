"""Carries out the fault plan between the client and the handlers, as ASGI middleware.

1. A request without a fault passes untouched, and nothing is read of it or its answer.
2. A fault before the exchange acts never reaches a handler.
3. A fault after it lets the handler finish and keeps its answer back; then the connection is cut, or
   another answer is sent, or the same one with other content.
4. Cut means the TCP connection itself (`serving.py`): the client sees what it would see of a real network.
5. A stream that shall not open is refused, reset or left hanging before it is accepted; what goes wrong
   with its events later is in `faulty_stream.py`.

Which request has which fault is decided in `faults.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quant_resources.exchange.earlier_answers import UPDATES, answer_before
from quant_resources.exchange.exchange import Exchange
from quant_resources.exchange.fault_kinds import (
    ClockJump,
    Drip,
    DuplicateDelivery,
    EarlierState,
    Fault,
    Hang,
    Latency,
    Nonsense,
    PartialFill,
    Reject,
    Reset,
    StaleRead,
    Status,
    TokenLoop,
    Truncated,
)
from quant_resources.exchange.faults import STREAM_PATH, FaultDesk
from quant_resources.exchange.faulty_answers import broken, looping, unseen
from quant_resources.exchange.order_faults import fill_in_parts, reject
from quant_resources.exchange.refusals import NOT_FOUND
from quant_resources.exchange.serving import close_connection, gone, reset_connection

_HTML = b"<!DOCTYPE html><html><body><h1>We will be right back</h1></body></html>"
_POSITIONS = "/v2/positions"
_NONSENSE = {"html": _HTML, "malformed": b'{"bars": {"A', "empty_body": b""}


@dataclass
class _Answer:
    """An answer that was kept back."""

    status: int = 500
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    async def collect(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
        else:
            self.body += message.get("body", b"")

    async def start(self, send: Send, length: int) -> None:
        headers = [(name, value) for name, value in self.headers if name != b"content-length"]
        headers.append((b"content-length", b"%d" % length))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})

    async def send(self, send: Send) -> None:
        await self.start(send, len(self.body))
        await send({"type": "http.response.body", "body": self.body})


class FaultyWire:
    """Breaks what the plan says.

    Args:
        app: What answers.
        exchange: The exchange behind it.
        desk: The plan.
    """

    def __init__(self, app: ASGIApp, exchange: Exchange, desk: FaultDesk) -> None:
        self.app = app
        self._exchange = exchange
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look whether the request goes wrong, and let it."""
        fault: Fault | None = None
        query: dict[str, str] = {}
        opens_stream = scope["type"] == "websocket" and scope["path"] == STREAM_PATH
        if (opens_stream or scope["type"] == "http") and not self._desk.idle:
            query = dict(QueryParams(scope["query_string"]))
            # A stream is opened with a GET, whose method ASGI does not tell.
            fault = self._desk.next_fault(scope.get("method", "GET"), scope["path"], query)
        if fault is None:
            await self.app(scope, receive, send)
        elif opens_stream:
            await self._break_opening(fault, scope, receive, send)
        else:
            await self._break(fault, query, scope, receive, send)

    async def _break_opening(
        self, fault: Fault, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Let the opening of a stream go wrong."""
        match fault:
            case Hang():
                await _hang(fault.seconds, scope, receive)
            case Reset():
                await reset_connection(scope, receive)
            case Status():
                refusal = _refusal(fault)
                start = {"type": "websocket.http.response.start", "status": refusal.status}
                await send({**start, "headers": refusal.headers})
                await send({"type": "websocket.http.response.body", "body": refusal.body})
            case _:
                if isinstance(fault, ClockJump):
                    self._jump(fault.seconds)
                await asyncio.sleep(fault.seconds if isinstance(fault, Latency) else 0)
                await self.app(scope, receive, send)

    async def _break(
        self, fault: Fault, query: dict[str, str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        body = await _whole_body(receive)
        if isinstance(fault, ClockJump):
            self._jump(fault.seconds)
        if isinstance(fault, Latency):
            await asyncio.sleep(0 if fault.after else fault.seconds)
        acts = isinstance(fault, Latency) or getattr(fault, "after", True)
        answer = await self._answer_of(scope, body) if acts else _Answer()
        match fault:
            case Hang():
                await _hang(fault.seconds, scope, receive)
            case Reset():
                await reset_connection(scope, receive)
            case Truncated():
                await _send_truncated(answer, fault, scope, receive, send)
            case Drip():
                await _send_slowly(answer, fault, send)
            case Latency():
                await asyncio.sleep(fault.seconds if fault.after else 0)
                await answer.send(send)
            case DuplicateDelivery():
                second = await self._answer_of(scope, body)
                await (answer if fault.answer == "first" else second).send(send)
            case Reject() | PartialFill():
                self._mark_order(answer, fault)
                await answer.send(send)
            case _:
                await self._changed(answer, fault, scope["path"], query).send(send)

    def _mark_order(self, answer: _Answer, fault: Reject | PartialFill) -> None:
        """Do to the order that was taken what shall be done; a refused one is left alone."""
        if answer.status >= 300:
            return
        order_id = json.loads(answer.body)["id"]
        if isinstance(fault, Reject):
            reject(self._exchange.book, order_id, fault.reason, self._exchange.now)
        else:
            fill_in_parts(self._exchange.state, order_id, fault.share)

    def _changed(self, answer: _Answer, fault: Fault, path: str, query: dict[str, str]) -> _Answer:
        if isinstance(fault, Status):
            return _refusal(fault)
        if isinstance(fault, Nonsense):
            media = b"text/html" if fault.kind == "html" else b"application/json"
            body = _NONSENSE[fault.kind] if fault.body is None else fault.body.encode()
            return _Answer(200, [(b"content-type", media)], body)
        if isinstance(fault, ClockJump) or answer.status >= 300 or not answer.body:
            return answer
        content = json.loads(answer.body)
        if isinstance(fault, StaleRead | EarlierState):
            content = self._earlier(content, fault, of_positions=path.startswith(_POSITIONS))
            if content is None:
                return _json(404, {"code": NOT_FOUND, "message": "not found"})
        elif isinstance(fault, TokenLoop):
            content = looping(content, query.get("page_token"))
        else:
            content = broken(fault, content)
        return _Answer(answer.status, answer.headers, json.dumps(content).encode())

    def _earlier(self, content: Any, fault: StaleRead | EarlierState, *, of_positions: bool) -> Any:
        """What a read would have seen a little earlier."""
        state = self._exchange.state
        updates = [entry for entry in state.audit() if entry["event"] in UPDATES]
        if isinstance(fault, EarlierState):
            return answer_before(content, updates[-fault.updates :], of_positions=of_positions)
        hidden = state.newest_order_ids(fault.newest)
        if not of_positions:
            return unseen(content, hidden)
        theirs = [entry for entry in updates if entry["order_id"] in hidden]
        return answer_before(content, theirs, of_positions=True)

    async def _answer_of(self, scope: Scope, body: bytes) -> _Answer:
        """Let the exchange act."""
        answer = _Answer()
        parts: Iterator[Message] = iter([{"type": "http.request", "body": body}])

        async def receive() -> Message:
            return next(parts, {"type": "http.disconnect"})

        await self.app(dict(scope), receive, answer.collect)
        return answer

    def _jump(self, seconds: float) -> None:
        exchange = self._exchange
        last = exchange.end - timedelta(microseconds=1)
        exchange.advance(min(exchange.now + timedelta(seconds=seconds), last))


async def _whole_body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _hang(seconds: float, scope: Scope, receive: Receive) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await gone(receive)
            return
    await reset_connection(scope, receive)


async def _send_truncated(
    answer: _Answer, fault: Truncated, scope: Scope, receive: Receive, send: Send
) -> None:
    whole = answer.body
    cut = int(len(whole) * fault.share) if fault.bytes is None else fault.bytes
    answer.body = whole[:cut]
    if fault.content_length == "matching" or len(answer.body) == len(whole):
        await answer.send(send)
        return
    await answer.start(send, len(whole))
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    await close_connection(scope, receive)


async def _send_slowly(answer: _Answer, fault: Drip, send: Send) -> None:
    await answer.start(send, len(answer.body))
    for start in range(0, len(answer.body), fault.bytes):
        piece = answer.body[start : start + fault.bytes]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(fault.seconds)
    await send({"type": "http.response.body", "body": b""})


def _refusal(fault: Status) -> _Answer:
    code = {} if fault.code is None else {"code": fault.code}
    answer = _json(fault.status, {**code, "message": fault.message})
    if fault.retry_after is not None:
        answer.headers.append((b"retry-after", b"%d" % round(fault.retry_after)))
    return answer


def _json(status: int, content: dict[str, Any]) -> _Answer:
    return _Answer(status, [(b"content-type", b"application/json")], json.dumps(content).encode())
