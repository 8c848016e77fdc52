"""Alpaca's trading API, what is the same for every account: assets, calendar, clock."""

from __future__ import annotations

import uuid
from datetime import date
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.exchange.exchange import Exchange
from quant_resources.exchange.markets.market import Listing
from quant_resources.exchange.refusals import not_found
from quant_resources.exchange.visibility import date_range, session_close, session_open
from quant_resources.exchange.wire import Answer, bind, moment

_ASSETS = uuid.UUID("2b8d0f0e-3f64-4b8e-8b1e-0a6c8f3c9a77")


def routes(exchange: Exchange) -> list[Route]:
    """The routes of assets, calendar and clock."""
    return [
        Route("/v2/assets", bind(get_assets, exchange)),
        Route("/v2/assets/{symbol}", bind(get_asset, exchange)),
        Route("/v2/calendar", bind(get_calendar, exchange)),
        Route("/v2/clock", bind(get_clock, exchange)),
    ]


def asset_id(symbol: str) -> str:
    """A UUID for a symbol, the same everywhere."""
    return str(uuid.uuid5(_ASSETS, symbol))


async def get_assets(exchange: Exchange, request: Request) -> Response:
    """Every listing known by now."""
    query = request.query_params
    assets = [
        asset_json(exchange, listing)
        for listing in exchange.view.data.listings.values()
        if exchange.view.listing(listing.symbol, exchange.now) is not None
    ]
    for name, key in (("status", "status"), ("asset_class", "class"), ("exchange", "exchange")):
        if query.get(name):
            assets = [asset for asset in assets if asset[key] == query[name]]
    return Answer(assets)


async def get_asset(exchange: Exchange, request: Request) -> Response:
    """One listing, by symbol or asset id."""
    wanted = request.path_params["symbol"]
    listing = find_listing(exchange, wanted)
    if listing is None:
        raise not_found(f"asset not found for {wanted}")
    return Answer(asset_json(exchange, listing))


def asset_json(exchange: Exchange, listing: Listing) -> dict[str, Any]:
    """A listing in Alpaca's shape."""
    active = exchange.view.is_active(listing, exchange.now)
    return {
        "id": asset_id(listing.symbol),
        "class": "us_equity",
        "exchange": listing.exchange,
        "symbol": listing.symbol,
        "name": listing.name,
        "status": "active" if active else "inactive",
        "tradable": active,
        "marginable": active,
        "shortable": active and listing.shortable,
        "easy_to_borrow": active and listing.shortable,
        "fractionable": active and listing.fractionable,
        "maintenance_margin_requirement": 30,
        "attributes": [],
    }


def find_listing(exchange: Exchange, wanted: str) -> Listing | None:
    """The listing of a symbol or asset id, None while nobody knows it."""
    found = exchange.view.listing(wanted, exchange.now)
    if found is not None:
        return found
    by_id = (s for s in exchange.view.data.listings if asset_id(s) == wanted)
    return exchange.view.listing(next(by_id, ""), exchange.now)


async def get_calendar(_: Exchange, request: Request) -> Response:
    """Sessions with their opening and closing times in New York."""
    query = request.query_params
    known = XNYS.all_sessions
    start = moment(query.get("start") or known[0].isoformat(), "start")
    end = moment(query.get("end") or known[-1].isoformat(), "end")
    first, last = date_range(start, end)
    return Answer([_calendar_day(session) for session in XNYS.sessions(first, last)])


def _calendar_day(session: date) -> dict[str, str]:
    opens = session_open(session).astimezone(NEW_YORK)
    closes = session_close(session).astimezone(NEW_YORK)
    return {
        "date": session.isoformat(),
        "open": f"{opens:%H:%M}",
        "close": f"{closes:%H:%M}",
        "session_open": "0400",
        "session_close": "2000",
    }


async def get_clock(exchange: Exchange, _: Request) -> Response:
    """The virtual clock and the market's next open and close, New York time."""
    now = exchange.now
    next_open = session_open(exchange.view.session_at_or_after(now))
    next_close = session_close(exchange.view.session_at_or_after(now, by_close=True))
    return Answer(
        {
            "timestamp": now.astimezone(NEW_YORK).isoformat(),
            "is_open": next_close < next_open,
            "next_open": next_open.astimezone(NEW_YORK).isoformat(),
            "next_close": next_close.astimezone(NEW_YORK).isoformat(),
        }
    )
