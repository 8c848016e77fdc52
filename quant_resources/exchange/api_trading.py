"""Alpaca's trading API, what belongs to the account: its numbers, switches, positions, activities.

Orders are in `api_orders.py`. Shapes are those of the v2 API; numbers that Alpaca sends as text are text, exact to the last digit.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quant_resources.exchange.account import (
    INITIAL_MARGIN,
    MAINTENANCE_MARGIN,
    Position,
    held_for_orders,
)
from quant_resources.exchange.api_reference import asset_id, find_listing
from quant_resources.exchange.exchange import Exchange
from quant_resources.exchange.orders import ZERO, Order, plain
from quant_resources.exchange.refusals import malformed, not_found
from quant_resources.exchange.state import ActivityFilter
from quant_resources.exchange.visibility import (
    new_york_day,
    stamp,
)
from quant_resources.exchange.wire import (
    Answer,
    bind,
    descending,
    edge,
    read_json,
    whole_number,
)


def routes(exchange: Exchange) -> list[Route]:
    """The routes of account, positions and activities."""
    return [
        Route("/v2/account", bind(get_account, exchange)),
        Route("/v2/account/configurations", bind(get_configurations, exchange)),
        Route("/v2/account/configurations", bind(set_configurations, exchange), methods=["PATCH"]),
        Route("/v2/account/activities", bind(get_activities, exchange)),
        Route("/v2/account/activities/{activity_type}", bind(get_activities, exchange)),
        Route("/v2/positions", bind(get_positions, exchange)),
        Route("/v2/positions/{symbol}", bind(get_position, exchange)),
    ]


# Account


async def get_account(exchange: Exchange, _: Request) -> Response:
    """The account at the last prices."""
    state = exchange.state
    valuation = exchange.book.valuation(exchange.now)
    account_id = exchange.book.account_id
    suspended = state.get("suspend_trade") == "true"
    # `last_equity` is the equity at the close of the day before, also in the evening after a close.
    closed_today = state.get("closing_day") == new_york_day(exchange.now).isoformat()
    last_equity = state.get("last_equity" if closed_today else "closing_equity")
    amounts = {
        "cash": valuation.cash,
        "portfolio_value": valuation.equity,
        "equity": valuation.equity,
        "last_equity": Decimal(last_equity),
        "long_market_value": valuation.long_market_value,
        "short_market_value": valuation.short_market_value,
        "position_market_value": valuation.gross,
        "initial_margin": valuation.gross * INITIAL_MARGIN,
        "maintenance_margin": valuation.gross * MAINTENANCE_MARGIN,
        "buying_power": valuation.buying_power,
        "regt_buying_power": valuation.regt_buying_power,
        "non_marginable_buying_power": max(valuation.cash - valuation.reserved, ZERO),
        "accrued_fees": ZERO,
    }
    return Answer(
        {
            "id": str(account_id),
            "account_number": account_number(account_id),
            "status": "ACTIVE",
            "currency": "USD",
            **{name: plain(amount) for name, amount in amounts.items()},
            "multiplier": "2",
            "shorting_enabled": True,
            "trading_blocked": False,
            "transfers_blocked": False,
            "account_blocked": False,
            "trade_suspended_by_user": suspended,
            "created_at": stamp(datetime.fromisoformat(state.get("created_at"))),
        }
    )


def account_number(account_id: uuid.UUID) -> str:
    """A number in the form of Alpaca's paper accounts; LX for local exchange."""
    return f"LX{account_id.int % 10**10:010d}"


async def get_configurations(exchange: Exchange, _: Request) -> Response:
    """The account's switches."""
    return Answer(_configurations(exchange))


async def set_configurations(exchange: Exchange, request: Request) -> Response:
    """Set the switch `suspend_trade`; the others are fixed."""
    body = await read_json(request)
    if not isinstance(body, dict):
        raise malformed("request body format is invalid")
    fixed = _configurations(exchange)
    for name, asked in body.items():
        if name != "suspend_trade" and asked is not None and asked != fixed.get(name):
            raise malformed(f"{name} cannot be changed on the local exchange")
    if body.get("suspend_trade") is not None:
        if not isinstance(body["suspend_trade"], bool):
            raise malformed("suspend_trade must be true or false")
        exchange.suspend_trading(suspended=body["suspend_trade"])
    return Answer(_configurations(exchange))


def _configurations(exchange: Exchange) -> dict[str, Any]:
    return {
        "fractional_trading": True,
        "max_margin_multiplier": "2",
        "no_shorting": False,
        "suspend_trade": exchange.state.get("suspend_trade") == "true",
        "trade_confirm_email": "none",
        "ptp_no_exception_entry": False,
    }


async def get_activities(exchange: Exchange, request: Request) -> Response:
    """Account activities by type and time; `page_token` is the id of the last one received."""
    query = request.query_params
    kinds = {
        kind
        for text in (request.path_params.get("activity_type"), query.get("activity_types"))
        if text
        for kind in text.split(",")
    }
    category = query.get("category")
    behind = None
    if query.get("page_token"):
        behind = exchange.state.activity_sequence(query["page_token"])
        if behind is None:
            raise malformed("invalid page_token")
    found = exchange.state.find_activities(
        ActivityFilter(
            kinds=kinds,
            trades=category == "trade_activity" if category else None,
            day=edge(query["date"][:10], "date").date() if query.get("date") else None,
            after=edge(query["after"], "after") if query.get("after") else None,
            until=edge(query["until"], "until") if query.get("until") else None,
            behind=behind,
            newest_first=descending(request, "direction", default="desc"),
            # All of a day's, unless a page is asked for; else a hundred.
            limit=whole_number(request, "page_size", 0 if query.get("date") else 100, 100) or None,
        )
    )
    return Answer(found)


# Positions


async def get_positions(exchange: Exchange, _: Request) -> Response:
    """Every holding."""
    positions = exchange.state.positions().values()
    orders = exchange.state.open_orders()
    return Answer([_position_json(exchange, position, orders) for position in positions])


async def get_position(exchange: Exchange, request: Request) -> Response:
    """One holding, by symbol or asset id."""
    listing = find_listing(exchange, request.path_params["symbol"])
    position = exchange.state.positions().get(listing.symbol) if listing else None
    if position is None:
        raise not_found("position does not exist")
    return Answer(_position_json(exchange, position, exchange.state.open_orders()))


def _position_json(
    exchange: Exchange, position: Position, open_orders: list[Order]
) -> dict[str, Any]:
    now, symbol = exchange.now, position.symbol
    last = exchange.view.last_price(symbol, now)
    before = exchange.view.previous_close(symbol, new_york_day(now))
    price = last.price if last else position.average_entry_price
    lastday = before.price if before else price
    worth = position.quantity * price
    profit = worth - position.cost_basis
    today = position.quantity * (price - lastday)
    side = "sell" if position.quantity > 0 else "buy"
    held = held_for_orders((o for o in open_orders if o.symbol == symbol), side, price)
    available = max(abs(position.quantity) - held, ZERO)
    listing = exchange.view.data.listings.get(symbol)
    amounts = {
        "qty": position.quantity,
        "qty_available": available if position.quantity > 0 else -available,
        "avg_entry_price": position.average_entry_price,
        "market_value": worth,
        "cost_basis": position.cost_basis,
        "unrealized_pl": profit,
        "unrealized_plpc": _fraction(profit, position.cost_basis),
        "unrealized_intraday_pl": today,
        "unrealized_intraday_plpc": _fraction(today, position.quantity * lastday),
        "current_price": price,
        "lastday_price": lastday,
        "change_today": _fraction(price - lastday, lastday),
    }
    return {
        "asset_id": asset_id(symbol),
        "symbol": symbol,
        "exchange": listing.exchange if listing else "NYSE",
        "asset_class": "us_equity",
        "asset_marginable": True,
        "side": "long" if position.quantity > 0 else "short",
        **{name: plain(amount) for name, amount in amounts.items()},
    }


def _fraction(part: Decimal, whole: Decimal) -> Decimal:
    return (part / abs(whole)).quantize(Decimal("1e-9")) if whole else ZERO
