"""The two sides of the market around a last price. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

_CENT, _HUNDREDTH = Decimal("0.01"), Decimal("0.0001")
_BASIS_POINTS = 10_000


@dataclass(frozen=True)
class Sides:
    """What one gets (bid) and pays (ask) for a share, USD."""

    bid: Decimal
    ask: Decimal


def sides_around(price: Decimal, half_spread_bps: Decimal) -> Sides:
    """Half a spread to either side of a price, at the increments in which stocks are quoted.

    Cents from one dollar on, hundredths of a cent below (SEC rule 612); the bid is never zero.
    """
    half = price * half_spread_bps / _BASIS_POINTS
    step = _CENT if price >= 1 else _HUNDREDTH
    bid = (price - half).quantize(step, ROUND_FLOOR)
    return Sides(max(bid, step), (price + half).quantize(step, ROUND_CEILING))
