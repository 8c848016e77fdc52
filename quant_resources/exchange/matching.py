"""What an order gets from one session's bar. Pure: bars and orders in, executions out.

1. At the open, market orders and limit orders that are marketable at the open trade at the open.
2. During the session, a limit order trades at its limit when the bar's range touches it.
3. At the close, orders for the close trade at the close (a limit one only if the close is as good).
4. Nobody gets more than a share of the session's volume: orders on one symbol take from one budget,
   in the order of submission.
5. Whoever takes the price pays half the spread and an impact that grows with the square root of the
   order's share of the volume; a resting limit order pays its limit and no more.
6. Orders for whole shares fill in whole shares; fractional and notional ones to nine decimals.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, Decimal

from quant_resources.exchange.orders import (
    PRICE_STEP,
    SHARE_STEP,
    ZERO,
    Execution,
    Order,
    TradedBar,
    is_whole,
)

_BASIS_POINT = Decimal("0.0001")


@dataclass(frozen=True)
class Costs:
    """The cost model: basis points of the price, and the share of the volume that may be taken."""

    volume_share: Decimal
    half_spread_bps: Decimal
    impact_bps: Decimal

    def budget(self, bar: TradedBar) -> Decimal:
        """Shares that all orders on the symbol may take from the session."""
        return self.volume_share * bar.volume

    def taken_price(self, price: Decimal, quantity: Decimal, volume: Decimal, sign: int) -> Decimal:
        """The price paid (sign +1) or received (-1) by an order that takes `quantity` shares.

        price * (1 ± (half_spread + impact * √(quantity / volume)) / 10,000), rounded to 0.0001 USD
        against the taker. The square-root law is that of Torre (BARRA Market Impact Model, 1997).
        """
        bps = self.half_spread_bps + self.impact_bps * (quantity / volume).sqrt()
        moved = price * (1 + sign * bps * _BASIS_POINT)
        rounding = ROUND_CEILING if sign > 0 else ROUND_FLOOR
        return max(moved.quantize(PRICE_STEP, rounding), PRICE_STEP)


def is_marketable(order: Order, price: Decimal) -> bool:
    """Whether the order would trade at `price`: always without a limit, else at the limit or better."""
    if order.limit_price is None:
        return True
    return price <= order.limit_price if order.side == "buy" else price >= order.limit_price


def at_open(order: Order, bar: TradedBar, budget: Decimal, costs: Costs) -> Execution | None:
    """The order's execution at the session's open; None for orders that wait for the close."""
    if order.time_in_force == "cls" or not is_marketable(order, bar.open):
        return None
    return _take(order, bar.open, bar.volume, budget, costs)


def during(order: Order, bar: TradedBar, budget: Decimal) -> Execution | None:
    """The execution of a resting limit order that the bar's range touches, at its limit.

    A limit beyond the range (its order was marketable at the open, but nothing was left to take)
    trades at the end of the range.
    """
    if order.limit_price is None or order.time_in_force == "cls":
        return None
    if order.side == "buy":
        touched, price = bar.low <= order.limit_price, min(order.limit_price, bar.high)
    else:
        touched, price = bar.high >= order.limit_price, max(order.limit_price, bar.low)
    if not touched:
        return None
    quantity = _fillable(order, price, budget)
    return Execution(quantity, price) if quantity > 0 else None


def at_close(order: Order, bar: TradedBar, budget: Decimal, costs: Costs) -> Execution | None:
    """The execution of an order for the close."""
    if order.time_in_force != "cls" or not is_marketable(order, bar.close):
        return None
    return _take(order, bar.close, bar.volume, budget, costs)


def _take(
    order: Order, price: Decimal, volume: Decimal, budget: Decimal, costs: Costs
) -> Execution | None:
    quantity = _fillable(order, price, budget)
    if quantity <= 0:
        return None
    paid = costs.taken_price(price, quantity, volume, order.sign)
    if order.limit_price is not None:
        paid = min(paid, order.limit_price) if order.side == "buy" else max(paid, order.limit_price)
    if order.notional is not None:
        quantity = _fillable(order, paid, budget)
    return Execution(quantity, paid) if quantity > 0 else None


def _fillable(order: Order, price: Decimal, budget: Decimal) -> Decimal:
    wanted = order.remaining(price)
    if wanted <= budget:
        return wanted
    if order.time_in_force == "fok":
        return ZERO
    return budget.quantize(Decimal(1) if is_whole(order.quantity) else SHARE_STEP, ROUND_DOWN)
