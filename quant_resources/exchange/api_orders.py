"""Alpaca's trading API, orders: submission, replacement, cancellation, lists and look-ups.

1. With `nested=true` the legs of a bracket come under its entry (`legs`), and only there; without it every
   order is a row of its own. The answer to a submission has the legs.
2. The nested list of open orders has a bracket while its entry is open; when that has filled, entry and
   legs are in the nested list of all orders, and the legs, which are open, in the flat one.
3. Legs that are held are in no list of open orders but under their entry.

Sources: Alpaca, "Get All Orders"; for the second and third rule issues 80, 87 of alpaca-trade-api-js and
322 of alpaca-trade-api-python.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quant_resources.exchange.api_reference import asset_id
from quant_resources.exchange.exchange import Exchange
from quant_resources.exchange.order_rows import OrderFilter
from quant_resources.exchange.orders import Order, plain
from quant_resources.exchange.refusals import malformed, not_found
from quant_resources.exchange.visibility import stamp
from quant_resources.exchange.wire import (
    Answer,
    bind,
    descending,
    edge,
    read_json,
    whole_number,
)

_EMPTY, _MANY = 204, 207


def routes(exchange: Exchange) -> list[Route]:
    """The routes of orders."""
    return [
        Route("/v2/orders", bind(get_orders, exchange)),
        Route("/v2/orders", bind(submit_order, exchange), methods=["POST"]),
        Route("/v2/orders", bind(cancel_orders, exchange), methods=["DELETE"]),
        Route("/v2/orders:by_client_order_id", bind(get_order_by_client_id, exchange)),
        Route("/v2/orders/{order_id}", bind(get_order, exchange)),
        Route("/v2/orders/{order_id}", bind(replace_order, exchange), methods=["PATCH"]),
        Route("/v2/orders/{order_id}", bind(cancel_order, exchange), methods=["DELETE"]),
    ]


async def submit_order(exchange: Exchange, request: Request) -> Response:
    """Take an order; a bracket is answered with its legs."""
    order = exchange.submit(await read_json(request))
    return Answer(_with_legs(exchange, [order])[0])


async def replace_order(exchange: Exchange, request: Request) -> Response:
    """Put an order with other terms into the place of an open one; the new one is answered."""
    order = exchange.replace(request.path_params["order_id"], await read_json(request))
    return Answer(_with_legs(exchange, [order])[0])


async def get_orders(exchange: Exchange, request: Request) -> Response:
    """Orders by status, time, symbol and side."""
    query = request.query_params
    nested = _nested(request)
    orders = exchange.state.find_orders(
        OrderFilter(
            status=_status(query.get("status") or "open"),
            symbols={text for text in query.get("symbols", "").split(",") if text},
            side=query.get("side") or None,
            after=edge(query["after"], "after") if query.get("after") else None,
            until=edge(query["until"], "until") if query.get("until") else None,
            roll_up=nested,
            newest_first=descending(request, "direction", default="desc"),
            limit=whole_number(request, "limit", 50, 500),
        )
    )
    return Answer(_with_legs(exchange, orders) if nested else [order_json(o) for o in orders])


async def get_order(exchange: Exchange, request: Request) -> Response:
    """One order by its id."""
    wanted = request.path_params["order_id"]
    return _found(exchange, request, wanted, exchange.state.order(order_id=wanted))


async def get_order_by_client_id(exchange: Exchange, request: Request) -> Response:
    """One order by the client's id."""
    wanted = request.query_params.get("client_order_id") or ""
    return _found(exchange, request, wanted, exchange.state.order(client_order_id=wanted))


async def cancel_order(exchange: Exchange, request: Request) -> Response:
    """Cancel an order; nothing is answered."""
    exchange.cancel(request.path_params["order_id"])
    return Response(status_code=_EMPTY)


async def cancel_orders(exchange: Exchange, _: Request) -> Response:
    """Cancel every open order; one status each."""
    canceled = exchange.cancel_all()
    return Answer([{"id": order.order_id, "status": 200} for order in canceled], status_code=_MANY)


def _status(text: str) -> Literal["open", "closed", "all"]:
    match text:
        case "open" | "closed" | "all":
            return text
        case _:
            raise malformed(f"invalid status: {text}")


def _found(exchange: Exchange, request: Request, wanted: str, order: Order | None) -> Response:
    if order is None:
        raise not_found(f"order not found for {wanted}")
    nested = _nested(request)
    return Answer(_with_legs(exchange, [order])[0] if nested else order_json(order))


def _nested(request: Request) -> bool:
    text = (request.query_params.get("nested") or "false").lower()
    if text not in {"true", "false"}:
        raise malformed(f"invalid nested: {text}; expected true or false")
    return text == "true"


def _with_legs(exchange: Exchange, orders: Sequence[Order]) -> list[dict[str, Any]]:
    legs = exchange.state.legs(orders)
    return [order_json(order, legs.get(order.order_id, ())) for order in orders]


def order_json(order: Order, legs: Sequence[Order] = ()) -> dict[str, Any]:
    """An order in Alpaca's shape.

    Args:
        order: The order.
        legs: What comes under `legs`; nothing is told as null.
    """

    def amount(value: Decimal | None) -> str | None:
        return plain(value) if value is not None else None

    def at(value: datetime | None) -> str | None:
        return stamp(value) if value is not None else None

    average = order.average_fill_price
    return {
        "id": order.order_id,
        "client_order_id": order.client_order_id,
        "created_at": at(order.submitted_at),
        "updated_at": at(order.updated_at),
        "submitted_at": at(order.submitted_at),
        "filled_at": at(order.filled_at),
        "expired_at": at(order.expired_at),
        "expires_at": at(order.expires_at),
        "canceled_at": at(order.canceled_at),
        "failed_at": None,
        "replaced_at": at(order.replaced_at),
        "replaced_by": order.replaced_by,
        "replaces": order.replaces,
        "asset_id": asset_id(order.symbol),
        "symbol": order.symbol,
        "asset_class": "us_equity",
        "notional": amount(order.notional),
        "qty": amount(order.quantity),
        "filled_qty": plain(order.filled_quantity),
        "filled_avg_price": amount(average.quantize(Decimal("1e-9")) if average else None),
        "order_class": order.order_class,
        "order_type": order.order_type,
        "type": order.order_type,
        "side": order.side,
        "position_intent": order.position_intent,
        "time_in_force": order.time_in_force,
        "limit_price": amount(order.limit_price),
        "stop_price": amount(order.stop_price),
        "status": order.status,
        "extended_hours": False,
        "legs": [order_json(leg) for leg in legs] or None,
        "trail_percent": None,
        "trail_price": None,
        "hwm": None,
        **_group(order),
    }


def _group(order: Order) -> dict[str, str]:
    """What binds the orders of a bracket together, as Alpaca tells it since October 2026."""
    role = order.group_role
    return {"group_id": order.group_id, "group_role": role} if role and order.group_id else {}
