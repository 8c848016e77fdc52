"""Whether an order is taken: the checks of a submission, in Alpaca's order and words. Pure.

1. The fields can be read and the combination of type, time in force and quantity is offered.
2. The asset is known and trades.
3. A closing order asks for no more than is held and not already for sale; no order turns a long
   position short or a short one long.
4. No order meets an open one of its own account on the other side.
5. An opening order has the buying power; a short sale needs a shortable asset and whole shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from quant_resources.exchange.account import Position, Valuation, is_closing, order_cost
from quant_resources.exchange.markets.market import Listing
from quant_resources.exchange.orders import ZERO, Order, is_whole, plain
from quant_resources.exchange.refusals import forbidden, malformed, unprocessable

ORDER_TYPES = ("market", "limit")
TIMES_IN_FORCE = ("day", "gtc", "opg", "cls", "ioc", "fok")
_LONGEST_CLIENT_ID = 128


@dataclass(frozen=True)
class Ticket:
    """A submission whose fields have been read.

    Attributes:
        client_order_id: Empty when the client gave none.
    """

    symbol: str
    side: str
    order_type: str
    time_in_force: str
    quantity: Decimal | None
    notional: Decimal | None
    limit_price: Decimal | None
    client_order_id: str


def read_ticket(body: object) -> Ticket:
    """Read a submission.

    Raises:
        RefusalError: A field is missing, unreadable or not offered here.
    """
    if not isinstance(body, dict):
        raise malformed("request body format is invalid")
    symbol = _text(body, "symbol")
    side = _choice(body, "side", ("buy", "sell"))
    order_type = _choice(body, "type", ORDER_TYPES)
    time_in_force = _choice(body, "time_in_force", TIMES_IN_FORCE)
    if body.get("order_class") not in {None, "", "simple"}:
        raise unprocessable("order_class must be simple: the local exchange takes no other")
    if body.get("extended_hours"):
        raise unprocessable("extended_hours is not offered by the local exchange")
    quantity, notional = _amount(body, "qty", 9), _amount(body, "notional", 2)
    limit_price = _amount(body, "limit_price", 9)
    if (quantity is None) == (notional is None):
        raise malformed("qty or notional is required, and not both")
    if order_type == "limit" and limit_price is None:
        raise malformed("limit orders require a limit price")
    if order_type == "market" and limit_price is not None:
        raise malformed("market orders must not have a limit price")
    if limit_price is not None:
        _check_increment(limit_price)
    client_order_id = body.get("client_order_id") or ""
    if not isinstance(client_order_id, str) or len(client_order_id) > _LONGEST_CLIENT_ID:
        raise malformed("client_order_id must be no more than 128 characters")
    if notional is not None and order_type != "market":
        raise unprocessable("notional orders must be market orders on the local exchange")
    if not is_whole(quantity) and time_in_force != "day":
        raise unprocessable("fractional orders must be DAY orders")
    return Ticket(
        symbol, side, order_type, time_in_force, quantity, notional, limit_price, client_order_id
    )


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


def check_account(
    ticket: Ticket,
    listing: Listing,
    *,
    position: Position | None,
    open_orders: Sequence[Order],
    prices: Mapping[str, Decimal],
    valuation: Valuation,
) -> str:
    """Check a submission against the account.

    Args:
        ticket: The submission.
        listing: Its asset.
        position: What is held of it, None for nothing.
        open_orders: Open orders on every symbol.
        prices: Last prices, USD.
        valuation: The account at these prices, open orders reserved.

    Returns:
        The position intent, such as "buy_to_open".

    Raises:
        RefusalError: Too little held, too little buying power, not shortable, or a wash trade.
    """
    on_symbol = [order for order in open_orders if order.symbol == ticket.symbol]
    _check_wash_trade(ticket, on_symbol)
    price = prices.get(ticket.symbol)
    held = position.quantity if position else ZERO
    if is_closing(ticket.side, held):
        _check_holding(ticket, held, on_symbol, price)
        return f"{ticket.side}_to_close"
    if price is None and ticket.limit_price is None:
        raise forbidden(f"{ticket.symbol} has not traded yet; only limit orders are taken")
    if ticket.side == "sell":
        if not is_whole(ticket.quantity):
            raise unprocessable("fractional orders cannot be sold short")
        if not listing.shortable:
            raise unprocessable(f'asset "{ticket.symbol}" cannot be sold short')
    cost = order_cost(ticket.side, ticket.quantity, ticket.notional, ticket.limit_price, price)
    if cost > valuation.buying_power:
        raise forbidden(
            "insufficient buying power",
            buying_power=f"{valuation.buying_power:.2f}",
            cost_basis=f"{cost:.2f}",
        )
    return f"{ticket.side}_to_open"


def _check_holding(
    ticket: Ticket, held: Decimal, on_symbol: Sequence[Order], price: Decimal | None
) -> None:
    taken = sum(
        (order.remaining(price or Decimal(1)) for order in on_symbol if order.side == ticket.side),
        ZERO,
    )
    available = max(abs(held) - taken, ZERO)
    wanted = ticket.quantity
    if wanted is None:
        assert ticket.notional is not None  # noqa: S101 - one of the two is always given
        wanted = ticket.notional / price if price else available
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
        if order.side == ticket.side:
            continue
        ours, theirs = ticket.limit_price, order.limit_price
        if ours is None or theirs is None:
            reason = "opposite side market/stop order exists"
        elif (ours >= theirs) if ticket.side == "buy" else (ours <= theirs):
            reason = "opposite side limit order exists"
        else:
            continue
        raise forbidden(
            "potential wash trade detected. use complex orders",
            existing_order_id=order.order_id,
            reject_reason=reason,
        )


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise malformed(f"{name} is required")
    return value


def _choice(body: Mapping[str, Any], name: str, allowed: Sequence[str]) -> str:
    value = _text(body, name)
    if value not in allowed:
        raise malformed(f"invalid {name} {value}: the local exchange takes {', '.join(allowed)}")
    return value


def _amount(body: Mapping[str, Any], name: str, decimals: int) -> Decimal | None:
    value = body.get(name)
    if value is None:
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise malformed(f"{name} must be a number") from None
    if not amount.is_finite() or amount <= 0:
        raise malformed(f"{name} must be > 0")
    exponent = amount.normalize().as_tuple().exponent
    if isinstance(exponent, int) and -exponent > decimals:
        raise malformed(f"{name} can have at most {decimals} decimal places")
    return amount


def _check_increment(limit_price: Decimal) -> None:
    step = Decimal("0.01") if limit_price >= 1 else Decimal("0.0001")
    if limit_price % step:
        raise unprocessable(
            f"invalid limit_price {plain(limit_price)}. sub-penny increment does not fulfill "
            "minimum pricing criteria"
        )
