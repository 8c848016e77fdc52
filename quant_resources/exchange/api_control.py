"""The exchange's own API under `/exchange/`, which no broker has: clock, truth, faults, restatements, busts.

Only the person who runs the exchange uses it; nothing of the platform's trading path may.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quant_resources.exchange import restatements
from quant_resources.exchange.api_trading import account_number
from quant_resources.exchange.exchange import Exchange
from quant_resources.exchange.faults import FaultDesk
from quant_resources.exchange.refusals import malformed
from quant_resources.exchange.wire import Answer, moment, read_json


def routes(exchange: Exchange, desk: FaultDesk) -> list[Route]:
    """The routes of the control API."""

    async def get_status(_: Request) -> Response:
        return Answer(status_json(exchange))

    async def set_clock(request: Request) -> Response:
        body = await read_json(request)
        if not isinstance(body, dict) or not body.keys() & {"to", "follow"}:
            raise malformed('the clock takes {"to": "<ISO datetime>"} or {"follow": true | false}')
        if "follow" in body:
            if not isinstance(body["follow"], bool):
                raise malformed("follow must be true or false")
            exchange.follow(following=body["follow"])
        if "to" in body:
            to = moment(str(body["to"]), "to")
            if not isinstance(to, datetime):
                raise malformed(f"to must be a moment with a time zone, not the day {to}")
            exchange.advance(to)
        return Answer(status_json(exchange))

    async def get_audit(request: Request) -> Response:
        after = request.query_params.get("after") or "0"
        if not after.isdecimal():
            raise malformed("after must be a sequence number")
        return Answer({"audit": exchange.state.audit(int(after))})

    async def get_restatements(_: Request) -> Response:
        return Answer({"restatements": exchange.state.restatements()})

    async def restate(request: Request) -> Response:
        body = await read_json(request)
        return Answer(restatements.restate(exchange.state, exchange.view, body))

    async def correct(request: Request) -> Response:
        return Answer(exchange.correct(await read_json(request)))

    async def get_faults(_: Request) -> Response:
        return Answer(desk.shown())

    async def post_faults(request: Request) -> Response:
        desk.post(await read_json(request))
        return Answer(desk.shown())

    async def clear_faults(_: Request) -> Response:
        desk.clear()
        return Answer(desk.shown())

    return [
        Route("/exchange/status", get_status),
        Route("/exchange/clock", set_clock, methods=["POST"]),
        Route("/exchange/audit", get_audit),
        Route("/exchange/corrections", correct, methods=["POST"]),
        Route("/exchange/faults", get_faults),
        Route("/exchange/faults", post_faults, methods=["POST"]),
        Route("/exchange/faults", clear_faults, methods=["DELETE"]),
        Route("/exchange/restatements", get_restatements),
        Route("/exchange/restatements", restate, methods=["POST"]),
    ]


def status_json(exchange: Exchange) -> dict[str, Any]:
    """Where the exchange stands."""
    spec, data = exchange.spec, exchange.view.data
    return {
        "state_id": exchange.state.get("state_id"),
        "clock": exchange.now.isoformat(),
        "follow": exchange.state.get("follow") == "true",
        "market_kind": spec.kind,
        "first_session": data.sessions[0].isoformat(),
        "last_session": data.sessions[-1].isoformat(),
        "clock_end": exchange.end.isoformat(),
        "symbols": len(data.listings),
        "bars": data.bars.height,
        "planted_information_coefficient": data.planted_information_coefficient,
        "account_number": account_number(exchange.book.account_id),
        "orders": exchange.state.count_orders(),
        "open_orders": len(exchange.state.open_orders()),
        "spec": spec.model_dump(mode="json"),
    }
