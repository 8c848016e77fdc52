"""The margin account: positions, cash and what follows from them. Pure, and exact to the last digit.

Rules are those of a Regulation T account at Alpaca: overnight buying power is twice the equity less
the gross exposure, initial margin 50 %, maintenance margin 30 %. Commissions and interest are zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

from quant_resources.exchange.orders import HELD, SHARE_STEP, ZERO, Order

MULTIPLIER = Decimal(2)
INITIAL_MARGIN = Decimal("0.5")
MAINTENANCE_MARGIN = Decimal("0.3")
SHORT_SALE_CUSHION = Decimal("1.03")


@dataclass(frozen=True)
class Position:
    """A holding: signed shares, and what they cost (negative for a short sale's proceeds), USD."""

    symbol: str
    quantity: Decimal
    cost_basis: Decimal

    @property
    def average_entry_price(self) -> Decimal:
        """USD per share."""
        return self.cost_basis / self.quantity

    def after_trade(self, signed_quantity: Decimal, price: Decimal) -> Position:
        """The position after buying (or selling, when negative) at `price`, by average cost."""
        quantity = self.quantity + signed_quantity
        if self.quantity == 0 or (self.quantity > 0) == (signed_quantity > 0):
            return replace(
                self, quantity=quantity, cost_basis=self.cost_basis + signed_quantity * price
            )
        if quantity == 0 or (quantity > 0) != (self.quantity > 0):
            return replace(self, quantity=quantity, cost_basis=quantity * price)
        return replace(
            self, quantity=quantity, cost_basis=self.cost_basis * quantity / self.quantity
        )

    def after_split(self, ratio: Fraction) -> Position:
        """The position after a split of `ratio` new shares for one old; the cost stays the same.

        Shares are kept to nine decimals, as fractional shares are.
        """
        shares = self.quantity * ratio.numerator / ratio.denominator
        return replace(self, quantity=shares.quantize(SHARE_STEP))


@dataclass(frozen=True)
class Valuation:
    """An account at a moment's prices; all amounts USD.

    Attributes:
        reserved: Buying power held by open orders.
    """

    cash: Decimal
    long_market_value: Decimal
    short_market_value: Decimal
    reserved: Decimal

    @property
    def equity(self) -> Decimal:
        """Cash and holdings; short holdings count negative."""
        return self.cash + self.long_market_value + self.short_market_value

    @property
    def gross(self) -> Decimal:
        """Long and short exposure, both positive."""
        return self.long_market_value - self.short_market_value

    @property
    def buying_power(self) -> Decimal:
        """2 * equity - gross exposure - what open orders hold, never negative."""
        return max(MULTIPLIER * self.equity - self.gross - self.reserved, ZERO)

    @property
    def regt_buying_power(self) -> Decimal:
        """Buying power before open orders."""
        return max(MULTIPLIER * self.equity - self.gross, ZERO)


def value(
    cash: Decimal,
    positions: Iterable[Position],
    prices: Mapping[str, Decimal],
    reserved: Decimal = ZERO,
) -> Valuation:
    """Value an account; a position without any price is carried at cost."""
    long_value = short_value = ZERO
    for position in positions:
        price = prices.get(position.symbol)
        worth = position.quantity * price if price is not None else position.cost_basis
        if position.quantity > 0:
            long_value += worth
        else:
            short_value += worth
    return Valuation(cash, long_value, short_value, reserved)


def is_closing(side: str, held: Decimal) -> bool:
    """Whether an order of this side reduces what is held."""
    return (side == "sell" and held > 0) or (side == "buy" and held < 0)


def order_cost(
    side: str,
    quantity: Decimal | None,
    notional: Decimal | None,
    limit_price: Decimal | None,
    price: Decimal | None,
) -> Decimal:
    """Buying power an opening order needs, USD.

    A purchase costs its limit (without one its stop), or the last price; a short sale the higher of its limit and 3 % above
    the last price (Alpaca, "Margin and Short Selling").
    """
    if notional is not None:
        return notional
    assert quantity is not None  # noqa: S101 - one of the two is always given
    if side == "sell":
        floor = (price or ZERO) * SHORT_SALE_CUSHION
        return quantity * max(limit_price or ZERO, floor)
    return quantity * (limit_price if limit_price is not None else (price or ZERO))


def held_for_orders(orders: Iterable[Order], side: str, price: Decimal | None) -> Decimal:
    """Shares of one symbol's holding that open orders of a side will take.

    The legs of a bracket hold their shares once, since one of them ends when the other has filled; before
    their entry has filled they hold nothing.

    Args:
        orders: Open orders on the symbol.
        side: The side that makes the holding smaller.
        price: USD a share, which tells what a notional order takes.
    """
    total, pairs = ZERO, dict[str, Decimal]()
    for order in orders:
        if order.side != side or order.status == HELD:
            continue
        left = order.remaining(price or Decimal(1))
        if order.parent_id is None:
            total += left
        else:
            pairs[order.parent_id] = max(pairs.get(order.parent_id, ZERO), left)
    return total + sum(pairs.values(), ZERO)


def reserved_by(
    orders: Iterable[Order], held: Mapping[str, Decimal], prices: Mapping[str, Decimal]
) -> Decimal:
    """Buying power held by open orders that open or add to positions, USD; legs never do."""
    total = ZERO
    for order in orders:
        if order.is_leg or is_closing(order.side, held.get(order.symbol, ZERO)):
            continue
        left = None if order.quantity is None else order.quantity - order.filled_quantity
        notional = None if order.notional is None else order.notional - order.filled_value
        asked = order.limit_price or order.stop_price
        total += order_cost(order.side, left, notional, asked, prices.get(order.symbol))
    return total
