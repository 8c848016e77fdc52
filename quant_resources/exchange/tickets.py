"""What a client asks for: the fields of a submission or a replacement, read and checked in themselves. Pure.

1. The fields can be read, and numbers are as exact as Alpaca takes them.
2. Type and prices belong together; times in force are offered for the type.
3. An order in fractions of shares, or for an amount, lives for one day.
4. A bracket enters with a market or limit order for whole shares, for the day or until cancelled, and has
   both legs, the take-profit on the winning side of the stop-loss.

What needs the market or the account is in `order_entry.py`. Words are Alpaca's where it documents them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from quant_resources.exchange.orders import Order, is_whole, plain
from quant_resources.exchange.refusals import malformed, unprocessable

ORDER_TYPES = ("market", "limit", "stop", "stop_limit")
TIMES_IN_FORCE = ("day", "gtc", "opg", "cls", "ioc", "fok")
_LIMITED, _STOPPED = ("limit", "stop_limit"), ("stop", "stop_limit")
_LONGEST_CLIENT_ID = 128
_TOO_MUCH = Decimal(10) ** 12
_REPLACED = ("qty", "time_in_force", "limit_price", "stop_price")


@dataclass(frozen=True)
class Legs:
    """The two exits of a bracket, USD; with `stop_limit_price` the stop-loss is a stop-limit order."""

    take_profit_price: Decimal
    stop_price: Decimal
    stop_limit_price: Decimal | None = None


@dataclass(frozen=True)
class Ticket:
    """A submission whose fields have been read.

    Attributes:
        client_order_id: Empty when the client gave none.
        legs: None for a simple order.
    """

    symbol: str
    side: str
    order_type: str
    time_in_force: str
    quantity: Decimal | None
    notional: Decimal | None
    limit_price: Decimal | None
    client_order_id: str
    stop_price: Decimal | None = None
    legs: Legs | None = None


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
    if body.get("extended_hours"):
        raise unprocessable("extended_hours is not offered by the local exchange")
    quantity, notional = _amount(body, "qty", 9), _amount(body, "notional", 2)
    if quantity is None and notional is None:
        raise malformed("qty or notional is required")
    if quantity is not None and notional is not None:
        raise malformed("only one of qty or notional is accepted")
    ticket = Ticket(
        symbol,
        side,
        order_type,
        time_in_force,
        quantity,
        notional,
        _price(body, "limit_price"),
        _client_order_id(body),
        _price(body, "stop_price"),
        _read_legs(body),
    )
    _check_terms(ticket)
    if ticket.legs is not None:
        _check_bracket(ticket, ticket.legs)
    return ticket


def read_replacement(body: object, order: Order) -> Ticket:
    """Read a replacement: the terms of an open order with some of them changed.

    What has filled stays with the replaced order. Without `qty` the new order is for what is left; a `qty`
    is the number of shares that the new order wants by itself.

    Raises:
        RefusalError: A field is unreadable, cannot be changed, or nothing is.
    """
    if not isinstance(body, dict):
        raise malformed("request body format is invalid")
    if order.notional is not None:
        raise unprocessable("notional orders cannot be replaced")
    if body.get("trail") is not None:
        raise unprocessable("trail is not offered by the local exchange")
    assert order.quantity is not None  # noqa: S101 - the order is in shares
    kept: dict[str, Any] = {
        "qty": order.quantity - order.filled_quantity,
        "time_in_force": order.time_in_force,
        "limit_price": order.limit_price,
        "stop_price": order.stop_price,
    }
    asked = {name: body[name] for name in _REPLACED if body.get(name) is not None}
    merged = {**kept, **asked}
    quantity = _amount(merged, "qty", 9)
    ticket = Ticket(
        order.symbol,
        order.side,
        order.order_type,
        _choice(merged, "time_in_force", TIMES_IN_FORCE),
        quantity,
        None,
        _price(merged, "limit_price"),
        _client_order_id(body),
        _price(merged, "stop_price"),
    )
    _check_terms(ticket)
    if ticket.quantity != kept["qty"] and not (is_whole(quantity) and is_whole(order.quantity)):
        raise unprocessable("qty of fractional orders cannot be changed")
    if order.order_class == "bracket" and asked.keys() & {"qty", "time_in_force"}:
        raise unprocessable("only limit_price and stop_price of bracket orders can be replaced")
    now = (ticket.quantity, ticket.time_in_force, ticket.limit_price, ticket.stop_price)
    if now == tuple(kept.values()):
        raise unprocessable("order parameters are not changed")
    return ticket


def _check_terms(ticket: Ticket) -> None:
    """Type, prices, time in force and fractions fit together."""
    kind, life = ticket.order_type, ticket.time_in_force
    if kind == "stop_limit" and None in {ticket.limit_price, ticket.stop_price}:
        raise malformed("stop limit orders require both stop and limit price")
    for name, price, kinds in (
        ("limit", ticket.limit_price, _LIMITED),
        ("stop", ticket.stop_price, _STOPPED),
    ):
        if kind in kinds and price is None:
            raise malformed(f"{kind} orders require a {name} price")
        if kind not in kinds and price is not None:
            raise malformed(f"{kind} orders must not have a {name} price")
    if kind in _STOPPED and life not in {"day", "gtc"}:
        raise unprocessable(f"{life} orders must be market or limit orders")
    if ticket.notional is not None and kind in _STOPPED:
        raise unprocessable("notional orders must be market or limit orders")
    if not is_whole(ticket.quantity) and life != "day":
        raise unprocessable("fractional orders must be DAY orders")


def _check_bracket(ticket: Ticket, legs: Legs) -> None:
    if ticket.order_type not in {"market", "limit"}:
        raise malformed("bracket orders must be market or limit orders")
    if ticket.time_in_force not in {"day", "gtc"}:
        raise unprocessable("bracket orders must be DAY or GTC orders")
    if not is_whole(ticket.quantity):
        raise unprocessable("fractional orders must be simple orders")
    above = legs.take_profit_price > legs.stop_price
    if legs.take_profit_price == legs.stop_price or above != (ticket.side == "buy"):
        comparison = ">" if ticket.side == "buy" else "<"
        raise unprocessable(f"take_profit.limit_price must be {comparison} stop_loss.stop_price")


def _read_legs(body: Mapping[str, Any]) -> Legs | None:
    order_class = body.get("order_class")
    if order_class in {None, "", "simple"}:
        if body.get("take_profit") or body.get("stop_loss"):
            raise unprocessable("take_profit and stop_loss need order_class bracket")
        return None
    if order_class != "bracket":
        raise unprocessable(
            f"order_class {order_class} is not offered by the local exchange: simple, bracket"
        )
    profit, loss = body.get("take_profit"), body.get("stop_loss")
    for given in (profit, loss):
        if given is not None and not isinstance(given, dict):
            raise malformed("request body format is invalid")
    take_profit = _price(profit or {}, "limit_price", "take_profit.")
    stop = _price(loss or {}, "stop_price", "stop_loss.")
    if take_profit is None:
        raise malformed("bracket orders require take_profit.limit_price")
    if stop is None:
        raise malformed("bracket orders require stop_loss.stop_price")
    return Legs(take_profit, stop, _price(loss or {}, "limit_price", "stop_loss."))


def _client_order_id(body: Mapping[str, Any]) -> str:
    found = body.get("client_order_id") or ""
    if not isinstance(found, str) or len(found) > _LONGEST_CLIENT_ID:
        raise malformed("client_order_id must be no more than 128 characters")
    return found


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


def _amount(body: Mapping[str, Any], name: str, decimals: int, within: str = "") -> Decimal | None:
    value = body.get(name)
    if value is None:
        return None
    name = within + name
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise malformed(f"{name} must be a number") from None
    if not amount.is_finite() or amount <= 0:
        raise malformed(f"{name} must be > 0")
    if amount >= _TOO_MUCH:
        raise malformed(f"{name} must be < {_TOO_MUCH:f}")
    exponent = amount.normalize().as_tuple().exponent
    if isinstance(exponent, int) and -exponent > decimals:
        raise malformed(f"{name} can have at most {decimals} decimal places")
    return amount


def _price(body: Mapping[str, Any], name: str, within: str = "") -> Decimal | None:
    """A price at Alpaca's increment: cents from one dollar on, hundredths of a cent below."""
    price = _amount(body, name, 9, within)
    if price is None:
        return None
    step = Decimal("0.01") if price >= 1 else Decimal("0.0001")
    if price % step:
        raise unprocessable(
            f"invalid {within}{name} {plain(price)}. sub-penny increment does not fulfill "
            "minimum pricing criteria"
        )
    return price
