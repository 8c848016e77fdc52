"""Position accounting by weighted-average price: what a fill, a split or a share change does to a holding.

Pure and exact: Decimal throughout, rounded once per step to the ledger's nine decimals. Does not belong
here: booking (`booking.py`) and comparing with the broker (`reconciliation.py`).

1. A fill in the direction of the holding moves the average price, and realises nothing.
2. A fill against it realises quantity x (price - average price), signed by the direction held, and
   leaves the average price.
3. A fill through zero does both: what was held is closed, the rest opens at the fill's price.
4. A split changes shares and average price and leaves the cost: nothing is realised.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Final, Literal

_STEP: Final = Decimal("1e-9")
_ZERO: Final = Decimal(0)


@dataclass(frozen=True)
class Holding:
    """Shares held (negative: short), their average price in USD, and what was realised so far in USD."""

    quantity: Decimal = _ZERO
    average_price: Decimal = _ZERO
    realised_pnl: Decimal = _ZERO

    def unrealised_pnl(self, market_price: Decimal) -> Decimal:
        """Quantity x (market price - average price), USD."""
        return round_step(self.quantity * (market_price - self.average_price))


def signed(side: Literal["buy", "sell"] | str, quantity: Decimal) -> Decimal:
    """Quantity with the sign of its side."""
    if side not in ("buy", "sell"):
        raise ValueError(f"{side!r} is no side; sides are buy and sell.")
    return quantity if side == "buy" else -quantity


def after_fill(holding: Holding, change: Decimal, price: Decimal) -> Holding:
    """The holding after `change` shares (negative: sold) traded at `price`.

    Raises:
        ValueError: No shares, or no positive finite price.
    """
    if not change.is_finite() or change == 0 or not price.is_finite() or price <= 0:
        raise ValueError(f"A fill of {change} shares at {price} USD is no fill.")
    held, average = holding.quantity, holding.average_price
    quantity = held + change
    with localcontext() as context:
        context.prec = 60
        if held == 0 or (held > 0) == (change > 0):
            cost = held * average + change * price
            return replace(holding, quantity=quantity, average_price=round_step(cost / quantity))
        closed = min(abs(change), abs(held)).copy_sign(held)
        realised = round_step(closed * (price - average))
    if quantity == 0:
        average = _ZERO
    elif (quantity > 0) != (held > 0):
        average = price
    return Holding(quantity, average, holding.realised_pnl + realised)


def after_share_change(holding: Holding, change: Decimal) -> Holding:
    """The holding after shares were added or taken without money, as a split does; the cost stays.

    What takes all shares away leaves no cost either: the cost is realised as a loss.
    """
    quantity = holding.quantity + change
    with localcontext() as context:
        context.prec = 60
        cost = holding.quantity * holding.average_price
        if quantity == 0:
            return Holding(_ZERO, _ZERO, holding.realised_pnl - round_step(cost))
        # Shares that appear where nothing was held cost nothing; a flip of sign cannot keep a cost.
        average = max(_ZERO, round_step(cost / quantity))
    return replace(holding, quantity=quantity, average_price=average)


def round_step(value: Decimal) -> Decimal:
    """Round to the ledger's nine decimals, half to even."""
    with localcontext() as context:
        context.prec = 60
        return value.quantize(_STEP, rounding=ROUND_HALF_EVEN)
