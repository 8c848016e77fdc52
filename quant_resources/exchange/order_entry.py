"""Whether an order is taken: the checks against market and account, in Alpaca's order and words. Pure.

1. The asset is known and trades; orders for the auctions come before these close their books.
2. A closing order asks for no more than is held and not already for sale; no order turns a long
   position short or a short one long, no bracket closes anything, and nothing is opened both ways.
3. No order meets an open one of its own account on the other side. A bracket may: the exchange knows
   which of its orders come after each other. Legs that are held are not in the market.
4. A stop is not yet reached, and a bracket's exits lie on both sides of the price that it enters at.
5. An opening order has the buying power; a short sale needs a shortable asset and whole shares.

What a client's fields say by themselves is checked before, in `tickets.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, time, timedelta
from decimal import Decimal

from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.exchange.account import (
    Position,
    Valuation,
    held_for_orders,
    is_closing,
    order_cost,
)
from quant_resources.exchange.markets.market import Listing
from quant_resources.exchange.orders import HELD, ZERO, Order, is_whole, plain
from quant_resources.exchange.quotes import Sides
from quant_resources.exchange.refusals import forbidden, unprocessable
from quant_resources.exchange.tickets import Ticket
from quant_resources.exchange.visibility import new_york_day, session_close, session_open

_LEAST_NOTIONAL = Decimal(1)
_CENT = Decimal("0.01")
# Alpaca, "Placing Orders", time in force: when orders for the auctions are taken.
_BEFORE_OPEN, _BEFORE_CLOSE = timedelta(minutes=2), timedelta(minutes=10)
_TAKEN_AGAIN = time(19)


def check_asset(ticket: Ticket, listing: Listing | None, *, active: bool) -> None:
    """Check that the asset can be traded this way.

    Raises:
        RefusalError: It cannot.
    """
    if listing is None:
        raise unprocessable(f'asset "{ticket.symbol}" not found')
    if not active:
        raise unprocessable(f"asset {ticket.symbol} is not active")
    if not is_whole(ticket.quantity) and not listing.fractionable:
        raise forbidden(f'asset "{ticket.symbol}" is not fractionable')
    if ticket.notional is not None and ticket.notional < _LEAST_NOTIONAL:
        raise forbidden(f"cost basis must be >= minimal amount of order {_LEAST_NOTIONAL}")


def check_hour(ticket: Ticket, now: datetime) -> None:
    """Check that an order for the opening or closing auction comes in time.

    On the day of a session they are refused from two minutes before the open, or ten before the close,
    until 19:00 New York; later they are for the next session.

    Raises:
        RefusalError: It is too late, or too early for the next session.
    """
    day = new_york_day(now)
    if ticket.time_in_force not in {"opg", "cls"} or not XNYS.is_session(day):
        return
    if ticket.time_in_force == "opg":
        until = session_open(day) - _BEFORE_OPEN
    else:
        until = session_close(day) - _BEFORE_CLOSE
    if until <= now and now.astimezone(NEW_YORK).time() < _TAKEN_AGAIN:
        last = until.astimezone(NEW_YORK)
        raise forbidden(
            f"{ticket.time_in_force} orders must be submitted after 7:00pm and before "
            f"{last.hour % 12 or 12}:{last:%M}{'am' if last.hour < 12 else 'pm'}"
        )


def check_account(
    ticket: Ticket,
    listing: Listing,
    *,
    position: Position | None,
    open_orders: Sequence[Order],
    prices: Mapping[str, Decimal],
    sides: Sides | None,
    valuation: Valuation,
) -> str:
    """Check an order against the account.

    Args:
        ticket: The submission.
        listing: Its asset.
        position: What is held of it, None for nothing.
        open_orders: Open orders on every symbol, without the one that shall be replaced.
        prices: Last prices, USD.
        sides: The asset's quote, None before it has traded.
        valuation: The account at these prices, open orders reserved.

    Returns:
        The position intent, such as "buy_to_open".

    Raises:
        RefusalError: Too little held, too little buying power, not shortable, a wash trade, or prices
            that the market has passed.
    """
    on_symbol = [order for order in open_orders if order.symbol == ticket.symbol]
    price = prices.get(ticket.symbol)
    held = position.quantity if position else ZERO
    closing = is_closing(ticket.side, held)
    if ticket.legs is None:
        _check_wash_trade(ticket, on_symbol)
    elif closing:
        raise unprocessable("bracket orders must be entry orders")
    if ticket.stop_price is not None and price is not None:
        check_stop(ticket.side, ticket.stop_price, price)
    if closing:
        _check_holding(ticket, held, on_symbol, price)
        return f"{ticket.side}_to_close"
    if price is None and ticket.limit_price is None:
        raise forbidden(f"{ticket.symbol} has not traded yet; only limit orders are taken")
    _check_opposite_entries(ticket, on_symbol)
    _check_exits(ticket, sides)
    if ticket.side == "sell":
        if not is_whole(ticket.quantity):
            raise unprocessable("fractional orders cannot be sold short")
        if not listing.shortable:
            raise unprocessable(f'asset "{ticket.symbol}" cannot be sold short')
    asked = ticket.limit_price or ticket.stop_price
    cost = order_cost(ticket.side, ticket.quantity, ticket.notional, asked, price)
    if cost > valuation.buying_power:
        raise forbidden(
            "insufficient buying power",
            buying_power=f"{valuation.buying_power:.2f}",
            cost_basis=f"{cost:.2f}",
        )
    return f"{ticket.side}_to_open"


def check_stop(side: str, stop_price: Decimal, price: Decimal) -> None:
    """Check that the last price has not reached a stop.

    Raises:
        RefusalError: The order would be triggered at once.
    """
    reached = stop_price >= price if side == "sell" else stop_price <= price
    if reached:
        raise unprocessable(
            f"stop price must be {'less' if side == 'sell' else 'greater'} than current price",
            market_price=plain(price),
            stop_price=plain(stop_price),
        )


def _check_exits(ticket: Ticket, sides: Sides | None) -> None:
    """A bracket takes its profit, and stops its loss, at least a cent from where it enters."""
    if ticket.legs is None:
        return
    base = ticket.limit_price
    if base is None:
        assert sides is not None  # noqa: S101 - an order without a limit needs a price
        base = sides.ask if ticket.side == "buy" else sides.bid
    take_profit, stop = ticket.legs.take_profit_price, ticket.legs.stop_price
    above, below = ("take_profit.limit_price", take_profit), ("stop_loss.stop_price", stop)
    if ticket.side == "sell":
        above, below = below, above
    for (name, exit_price), operator, sign in ((above, ">=", 1), (below, "<=", -1)):
        if (exit_price - base) * sign < _CENT:
            raise unprocessable(
                f"{name} must be {operator} base_price {'+' if sign > 0 else '-'} {_CENT}",
                base_price=plain(base),
            )


def _check_holding(
    ticket: Ticket, held: Decimal, on_symbol: Sequence[Order], price: Decimal | None
) -> None:
    taken = held_for_orders(on_symbol, ticket.side, price)
    available = max(abs(held) - taken, ZERO)
    wanted = ticket.quantity
    if wanted is None:
        assert ticket.notional is not None  # noqa: S101 - one of the two is always given
        rate = ticket.limit_price or price
        wanted = ticket.notional / rate if rate else available
    if wanted > available:
        raise forbidden(
            f"insufficient qty available for order (requested: {plain(wanted)}, "
            f"available: {plain(available)})",
            available=plain(available),
            existing_qty=plain(abs(held)),
            held_for_orders=plain(taken),
            symbol=ticket.symbol,
        )


def _check_wash_trade(ticket: Ticket, on_symbol: Sequence[Order]) -> None:
    for order in on_symbol:
        if order.side == ticket.side or order.status == HELD:
            continue
        if order.order_type != "limit":
            reason = "opposite side market/stop order exists"
        elif _would_meet(ticket, order):
            reason = "opposite side limit order exists"
        else:
            continue
        raise forbidden(
            "potential wash trade detected. use complex orders",
            existing_order_id=order.order_id,
            reject_reason=reason,
        )


def _check_opposite_entries(ticket: Ticket, on_symbol: Sequence[Order]) -> None:
    """Nobody opens both ways at once: what one order opens the other would close, legs and all."""
    if any(
        order.side != ticket.side and order.position_intent.endswith("_to_open")
        for order in on_symbol
    ):
        opens, is_open = "long buy", "short sell"
        if ticket.side == "sell":
            opens, is_open = is_open, opens
        raise forbidden(f"cannot open a {opens} while a {is_open} order is open")


def _would_meet(ticket: Ticket, order: Order) -> bool:
    ours, theirs = ticket.limit_price, order.limit_price
    if ours is None or theirs is None or ticket.order_type != "limit":
        return True
    return ours >= theirs if ticket.side == "buy" else ours <= theirs
