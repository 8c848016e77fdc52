"""Alpaca's market data API: daily bars, latest quotes and trades, snapshots, corporate actions.

Raw prices only, daily bars only; `feed` is accepted and means nothing here, `asof` too, since a symbol
belongs to one company for the whole life of a market.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quant_resources.calendar import XNYS
from quant_resources.exchange.exchange import Exchange
from quant_resources.exchange.markets.market import (
    ACTION_TYPES,
    SYMBOL_PATTERN,
    CorporateAction,
)
from quant_resources.exchange.quotes import sides_around
from quant_resources.exchange.refusals import bad_data_request
from quant_resources.exchange.visibility import date_range, new_york_day, session_open, stamp
from quant_resources.exchange.wire import (
    Answer,
    bind,
    descending,
    moment,
    page_token,
    raw_json,
    read_page_token,
    whole_number,
)

_BARS_A_PAGE, _MOST_BARS = 1000, 10_000
_ACTIONS_A_PAGE, _MOST_ACTIONS = 100, 1000


def routes(exchange: Exchange) -> list[Route]:
    """The routes of the market data API."""
    return [
        Route("/v2/stocks/bars", bind(get_bars, exchange)),
        Route("/v2/stocks/bars/latest", bind(get_latest_bars, exchange)),
        Route("/v2/stocks/quotes/latest", bind(get_latest_quotes, exchange)),
        Route("/v2/stocks/trades/latest", bind(get_latest_trades, exchange)),
        Route("/v2/stocks/snapshots", bind(get_snapshots, exchange)),
        Route("/v1/corporate-actions", bind(get_corporate_actions, exchange)),
    ]


async def get_bars(exchange: Exchange, request: Request) -> Response:
    """Daily bars of many symbols, by symbol and time, a page at a time."""
    symbols = sorted(set(_symbols(request)))
    _check_bar_parameters(request)
    limit = whole_number(request, "limit", _BARS_A_PAGE, _MOST_BARS)
    newest_first = descending(request, "sort", default="asc")
    now = exchange.now
    first, last = _range(request, now)
    token = read_page_token(request, 2)

    pages: list[bytes] = []
    following: str | None = None
    for symbol in symbols:
        if token is not None and symbol < token[0]:
            continue
        rows = exchange.view.visible_rows(symbol, first, last, now)
        if rows is None:
            continue
        start, stop = rows
        if token is not None and symbol == token[0]:
            at = _row_number(token[1])
            start, stop = (start, min(stop, at + 1)) if newest_first else (max(start, at), stop)
        if limit == 0 and start < stop:
            following = page_token(symbol, stop - 1 if newest_first else start)
            break
        taken = min(limit, stop - start)
        if taken <= 0:
            continue
        limit -= taken
        chosen = exchange.view.bar_json[
            slice(stop - taken, stop) if newest_first else slice(start, start + taken)
        ]
        body = b",".join(reversed(chosen) if newest_first else chosen)
        pages.append(b'"%s":[%s]' % (symbol.encode(), body))
        if taken < stop - start:
            following = page_token(symbol, stop - taken - 1 if newest_first else start + taken)
            break
    next_token = b"null" if following is None else b'"%s"' % following.encode()
    return raw_json(b'{"bars":{%s},"next_page_token":%s}' % (b",".join(pages), next_token))


async def get_latest_bars(exchange: Exchange, request: Request) -> Response:
    """The last daily bar that may be seen, by symbol."""
    found = {symbol: _last_bars(exchange, symbol, 1) for symbol in _symbols(request)}
    body = b",".join(b'"%s":%s' % (s.encode(), rows[-1]) for s, rows in found.items() if rows)
    return raw_json(b'{"bars":{%s}}' % body)


async def get_latest_quotes(exchange: Exchange, request: Request) -> Response:
    """Half a spread around the last price, by symbol."""
    quotes = {symbol: _quote(exchange, symbol) for symbol in _symbols(request)}
    return Answer({"quotes": {symbol: quote for symbol, quote in quotes.items() if quote}})


async def get_latest_trades(exchange: Exchange, request: Request) -> Response:
    """The last price as a trade, by symbol."""
    trades = {symbol: _trade(exchange, symbol) for symbol in _symbols(request)}
    return Answer({"trades": {symbol: trade for symbol, trade in trades.items() if trade}})


async def get_snapshots(exchange: Exchange, request: Request) -> Response:
    """Last trade, quote and the two last daily bars, by symbol at the top level as Alpaca does."""
    parts: list[bytes] = []
    for symbol in _symbols(request):
        trade, quote = _trade(exchange, symbol), _quote(exchange, symbol)
        if trade is None:
            continue
        bars = [b"null", b"null", *_last_bars(exchange, symbol, 2)]
        parts.append(
            b'"%s":{"latestTrade":%s,"latestQuote":%s,"minuteBar":null,"dailyBar":%s,'
            b'"prevDailyBar":%s}'
            % (symbol.encode(), Answer(trade).body, Answer(quote).body, bars[-1], bars[-2])
        )
    return raw_json(b"{%s}" % b",".join(parts))


async def get_corporate_actions(exchange: Exchange, request: Request) -> Response:
    """Corporate actions by ex-date, grouped by type, a page at a time."""
    query = request.query_params
    now = exchange.now
    today = new_york_day(now).isoformat()
    first, last = date_range(
        moment(query.get("start") or today, "start"), moment(query.get("end") or today, "end")
    )
    ids = {text for text in query.get("ids", "").split(",") if text}
    if ids:
        first, last = date.min, date.max
    symbols = set(_symbols(request)) if query.get("symbols") else None
    kinds = {text for text in query.get("types", "").split(",") if text} or set(ACTION_TYPES)
    limit = whole_number(request, "limit", _ACTIONS_A_PAGE, _MOST_ACTIONS)
    actions = [
        action
        for action in exchange.view.visible_actions(now, first, last, symbols)
        if action.action_type in kinds and (not ids or action.action_id in ids)
    ]
    if descending(request, "sort", default="asc"):
        actions.reverse()
    token = read_page_token(request, 2)
    start = 0
    if token is not None:
        places = [n for n, action in enumerate(actions) if action.action_id == token[1]]
        if not places:
            raise bad_data_request("invalid page_token")
        start = places[0]
    page = actions[start : start + limit]
    grouped: dict[str, list[dict[str, Any]]] = {}
    for action in page:
        grouped.setdefault(f"{action.action_type}s", []).append(action_json(action))
    rest = actions[start + limit :]
    following = page_token("action", rest[0].action_id) if rest else None
    return Answer({"corporate_actions": grouped, "next_page_token": following})


def action_json(action: CorporateAction) -> dict[str, Any]:
    """A corporate action in the shape of Alpaca's v1 API; CUSIPs are empty."""
    day = action.ex_date.isoformat()
    ratio, cash = action.ratio, float(action.cash) if action.cash is not None else None
    common = {"id": action.action_id, "process_date": day}
    dated = {**common, "ex_date": day, "record_date": day, "payable_date": day}
    match action.action_type:
        case "forward_split" | "reverse_split":
            assert ratio is not None  # noqa: S101 - splits have a ratio
            cusips = (
                {"cusip": ""}
                if action.action_type == "forward_split"
                else {"old_cusip": "", "new_cusip": ""}
            )
            rates = {"new_rate": ratio.numerator, "old_rate": ratio.denominator}
            return {**dated, "symbol": action.symbol, **cusips, **rates}
        case "stock_dividend":
            assert ratio is not None  # noqa: S101
            return {**dated, "symbol": action.symbol, "cusip": "", "rate": float(ratio - 1)}
        case "cash_dividend":
            flags = {"special": action.special, "foreign": False}
            return {**dated, "symbol": action.symbol, "cusip": "", "rate": cash, **flags}
        case "spin_off":
            assert ratio is not None  # noqa: S101
            return {
                **dated,
                "source_symbol": action.symbol,
                "source_cusip": "",
                "source_rate": ratio.denominator,
                "new_symbol": action.new_symbol,
                "new_cusip": "",
                "new_rate": ratio.numerator,
            }
        case "cash_merger":
            return {
                **common,
                "acquiree_symbol": action.symbol,
                "acquiree_cusip": "",
                "rate": cash,
                "effective_date": day,
                "payable_date": day,
            }
        case _:
            return {
                **common,
                "old_symbol": action.symbol,
                "old_cusip": "",
                "new_symbol": action.new_symbol,
                "new_cusip": "",
            }


def _symbols(request: Request) -> list[str]:
    symbols = [text for text in request.query_params.get("symbols", "").split(",") if text]
    if not symbols:
        raise bad_data_request("symbols is required")
    for symbol in symbols:
        if not SYMBOL_PATTERN.fullmatch(symbol):
            raise bad_data_request(f"invalid symbol: {symbol}")
    return symbols


def _check_bar_parameters(request: Request) -> None:
    query = request.query_params
    if query.get("timeframe") not in {"1Day", "1D"}:
        raise bad_data_request(
            f"invalid timeframe: {query.get('timeframe')}; the local exchange has 1Day bars"
        )
    if query.get("adjustment", "raw") != "raw":
        raise bad_data_request(
            f"invalid adjustment: {query.get('adjustment')}; the local exchange serves raw prices"
        )
    if query.get("asof", "-") != "-":  # "-" asks for no mapping of symbols
        moment(query["asof"], "asof")


def _range(request: Request, now: datetime) -> tuple[date, date]:
    """Days asked for; without a start the current day, without an end until now, as Alpaca has it."""
    query = request.query_params
    start = query.get("start") or new_york_day(now).isoformat()
    end = query.get("end") or now.isoformat()
    return date_range(moment(start, "start"), moment(end, "end"))


def _row_number(text: str) -> int:
    if not text.isdecimal():
        raise bad_data_request("invalid page_token")
    return int(text)


def _last_bars(exchange: Exchange, symbol: str, count: int) -> list[bytes]:
    now = exchange.now
    today = new_york_day(now)
    rows = exchange.view.visible_rows(symbol, today - timedelta(days=60), today, now)
    return exchange.view.bar_json[max(rows[0], rows[1] - count) : rows[1]] if rows else []


def _trade(exchange: Exchange, symbol: str) -> dict[str, Any] | None:
    last = _seen(exchange, symbol)
    if last is None:
        return None
    price, at = last
    return {"t": at, "x": "V", "p": float(price), "s": 100, "c": ["@"], "i": 1, "z": "A"}


def _quote(exchange: Exchange, symbol: str) -> dict[str, Any] | None:
    last = _seen(exchange, symbol)
    if last is None:
        return None
    price, at = last
    sides = sides_around(price, exchange.spec.half_spread_bps)
    bid, ask = float(sides.bid), float(sides.ask)
    return {
        "t": at,
        "ap": ask,
        "as": 1,
        "ax": "V",
        "bp": bid,
        "bs": 1,
        "bx": "V",
        "c": ["R"],
        "z": "A",
    }


def _seen(exchange: Exchange, symbol: str) -> tuple[Decimal, str] | None:
    now = exchange.now
    if exchange.view.listing(symbol, now) is None:
        return None
    last = exchange.view.told_price(symbol, now)
    if last is None:
        return None
    # Between open and close a market of daily bars trades on at its open: the newest trade is of now.
    opened = session_open(new_york_day(now)) if XNYS.is_session(new_york_day(now)) else None
    return last.price, stamp(now if last.at == opened else last.at)
