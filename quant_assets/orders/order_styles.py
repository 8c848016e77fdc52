"""How an order is given: type, time in force, prices, dollars, protection, from the style of its strategy.

Pure. Does not belong here: how much is traded (`intents.py`), and whether the broker takes it
(`order_rules.py`).

1. A limit lies the style's offset beyond the reference price, in the direction that fills: what is paid at
   most, or taken at least. It is rounded to the broker's increment inwards, never beyond what was decided.
2. A stop lies the offset beyond the reference price too, rounded outwards. It is for opening: what reduces
   a position does not wait until the market has gone against it and goes as a market order.
3. Protection is for opening whole shares. Its prices are the signal's; of several strategies' the ones
   nearest to the reference price, so that none is protected less than it asked for; where there is none,
   the style's distance from the price at which the entry is expected.
4. Dollars instead of shares are for opening longs of fractionable names.
5. A fraction of a share is for the day only, whatever the style says: brokers take it in no auction and
   over no night. So is the second leg of a flip: by the time the first has filled, the auction is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, Decimal
from typing import Final

from quant_assets.orders.policy import OrderStyle
from quant_assets.orders.target_portfolio import Target
from quant_resources.broker import OrderType, Side, TimeInForce
from quant_resources.order_rules import price_increment, round_notional, round_price

_BASIS_POINT: Final = Decimal("1e-4")
_ONE: Final = Decimal(1)


@dataclass(frozen=True)
class Terms:
    """How one order is given; prices and dollars as they are sent, USD."""

    order_type: OrderType = "market"
    time_in_force: TimeInForce = "day"
    notional: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    take_profit_price: Decimal | None = None
    stop_loss_price: Decimal | None = None


def takes_fractions(style: OrderStyle) -> bool:
    """Whether orders of a style can open fractions of a share."""
    return style.time_in_force == "day" and not style.brackets


def sized(quantity: Decimal, style: OrderStyle, *, opens: bool) -> Decimal:
    """Shares that are ordered of those wanted: whole ones where an opening order takes no fraction."""
    if not opens or takes_fractions(style):
        return quantity
    return quantity.quantize(_ONE, rounding=ROUND_DOWN)


def terms_of(
    style: OrderStyle,
    *,
    side: Side,
    quantity: Decimal,
    reference_price: Decimal,
    opens: bool,
    second_leg: bool,
    fractionable: bool,
    wanting: Sequence[Target],
) -> Terms:
    """The terms of one order.

    Args:
        style: The style.
        side: Its side.
        quantity: Its shares.
        reference_price: USD.
        opens: Whether it opens or enlarges a position.
        second_leg: Whether it is the opening leg of a flip, which is never a bracket: it waits for the
            first leg, and its prices of protection would be of before.
        fractionable: Whether the broker splits the name into fractions.
        wanting: The targets that it is for, with the signals' prices of protection.
    """
    order_type: OrderType = style.order_type if opens or style.order_type != "stop" else "market"
    whole = quantity == quantity.to_integral_value()
    time_in_force: TimeInForce = style.time_in_force if whole and not second_leg else "day"
    up = 1 if side == "buy" else -1
    limit = stop = None
    if order_type == "limit":
        wished = reference_price * (1 + up * style.limit_offset_bps * _BASIS_POINT)
        limit = _to_increment(wished, ROUND_FLOOR if side == "buy" else ROUND_CEILING)
    elif order_type == "stop":
        wished = reference_price * (1 + up * style.stop_offset_bps * _BASIS_POINT)
        stop = _to_increment(wished, ROUND_CEILING if side == "buy" else ROUND_FLOOR)
    notional = None
    if style.sizing == "notional" and opens and side == "buy" and fractionable:
        notional = round_notional(quantity * reference_price)
        time_in_force = "day"
    profit = loss = None
    if style.brackets and opens and whole and not second_leg:
        base = limit if limit is not None else reference_price
        long = side == "buy"
        loss = _nearest(
            [target.stop_loss for target in wanting],
            below=long,
            otherwise=base * (1 - up * style.stop_loss),
        )
        profit = _nearest(
            [target.take_profit for target in wanting],
            below=not long,
            otherwise=base * (1 + up * style.take_profit),
        )
    return Terms(order_type, time_in_force, notional, limit, stop, profit, loss)


def _nearest(given: Sequence[Decimal | None], *, below: bool, otherwise: Decimal) -> Decimal:
    """The price of a leg that is nearest to the entry, or one by the style where none is given."""
    prices = [price for price in given if price is not None]
    if not prices:
        return round_price(otherwise)
    return round_price(max(prices) if below else min(prices))


def _to_increment(price: Decimal, rounding: str) -> Decimal:
    increment = price_increment(price)
    return max(price.quantize(increment, rounding=rounding), increment)
