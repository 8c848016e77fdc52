"""What an order gets from one session's bar. Pure: bars and orders in, executions out.

1. At the open, market orders and limit orders that are marketable at the open trade at the open.
2. During the session, a limit order trades at its limit when the bar's range touches it.
3. At the close, orders for the close trade at the close (a limit one only if the close is as good), and
   so do orders that came while the session was open: the bar does not say what traded after them.
4. A stop that the open has passed is triggered there, one that the range touches at its own price; from
   then on it is a market or a limit order. A limit behind its stop is only known to be touched after the
   stop if the close is as good.
5. Nobody gets more than a share of the session's volume: orders on one symbol take from one budget,
   in the order of submission.
6. Whoever takes the price pays half the spread and an impact that grows with the square root of the
   order's share of the volume; a resting limit order pays its limit and no more.
7. Orders for whole shares fill in whole shares; fractional and notional ones to nine decimals.
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


def reaches_stop(order: Order, price: Decimal) -> bool:
    """Whether `price` triggers an order that waits for its stop."""
    if order.stop_price is None or not order.waits_for_stop:
        return False
    return price >= order.stop_price if order.side == "buy" else price <= order.stop_price


def triggered_at_open(order: Order, bar: TradedBar) -> bool:
    """Whether the session's open triggers a stop."""
    return not waits_for_close(order, bar) and reaches_stop(order, bar.open)


def triggered_during(order: Order, bar: TradedBar) -> bool:
    """Whether the session's range triggers a stop."""
    extreme = bar.high if order.side == "buy" else bar.low
    return not waits_for_close(order, bar) and reaches_stop(order, extreme)


def triggered_at_close(order: Order, bar: TradedBar) -> bool:
    """Whether the close triggers a stop that saw nothing else of the session."""
    return waits_for_close(order, bar) and reaches_stop(order, bar.close)


def waits_for_close(order: Order, bar: TradedBar) -> bool:
    """Whether the order trades in this session at the close or not at all."""
    return order.time_in_force == "cls" or order.close_only == bar.session


def at_open(order: Order, bar: TradedBar, budget: Decimal, costs: Costs) -> Execution | None:
    """The order's execution at the session's open; None for orders that wait for the close."""
    if waits_for_close(order, bar) or order.waits_for_stop or not is_marketable(order, bar.open):
        return None
    return _take(order, bar.open, bar.volume, budget, costs)


def during(order: Order, bar: TradedBar, budget: Decimal) -> Execution | None:
    """The execution of a resting limit order that the bar's range touches, at its limit.

    A limit beyond the range (its order was marketable at the open, but nothing was left to take)
    trades at the end of the range.
    """
    if order.limit_price is None or waits_for_close(order, bar) or order.waits_for_stop:
        return None
    if order.side == "buy":
        touched, price = bar.low <= order.limit_price, min(order.limit_price, bar.high)
    else:
        touched, price = bar.high >= order.limit_price, max(order.limit_price, bar.low)
    return _rest(order, price, budget) if touched else None


def at_stop(order: Order, bar: TradedBar, budget: Decimal, costs: Costs) -> Execution | None:
    """The execution of an order whose stop the bar's range has just triggered.

    It takes the price of the stop; where its limit forbids that, it rests, and is known to have been
    touched only if the close is as good as the limit.
    """
    assert order.stop_price is not None  # noqa: S101 - only stop orders are triggered
    if is_marketable(order, order.stop_price):
        return _take(order, order.stop_price, bar.volume, budget, costs)
    if order.limit_price is None or not is_marketable(order, bar.close):
        return None
    return _rest(order, order.limit_price, budget)


def at_close(order: Order, bar: TradedBar, budget: Decimal, costs: Costs) -> Execution | None:
    """The execution of an order that waits for the close."""
    waits = waits_for_close(order, bar) and not order.waits_for_stop
    if not waits or not is_marketable(order, bar.close):
        return None
    return _take(order, bar.close, bar.volume, budget, costs)


def _rest(order: Order, price: Decimal, budget: Decimal) -> Execution | None:
    quantity = _fillable(order, price, budget)
    return Execution(quantity, price) if quantity > 0 else None


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
