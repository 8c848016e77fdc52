"""Comparing the ledger with the broker: what differs, beyond tolerance, and nothing else.

Pure. Does not belong here: fetching either side and acting on a finding (`booking.py`).

| Compared | A finding is |
|---|---|
| orders | an order of ours that only one side knows, or that differs in symbol, side, quantity or fill |
| fills | an execution that only one side knows, or that differs |
| positions | a quantity beyond tolerance, a holding that only one side knows |
| average price | a difference beyond tolerance at equal quantity |
| cash | opening cash, fills and activities that do not add up to the broker's cash |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Final, Literal

from quant_assets.orders.policy import Reconciling
from quant_assets.orders.positions import Holding

_ZERO: Final = Decimal(0)
Kind = Literal["order", "fill", "position", "average_price", "cash"]


@dataclass(frozen=True)
class Drift:
    """One difference that nothing explains."""

    kind: Kind
    subject: str
    ledger: str
    broker: str
    detail: str

    def as_json(self) -> dict[str, str]:
        """For the ledger."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.detail} (ledger: {self.ledger}, broker: {self.broker})"


@dataclass(frozen=True)
class ComparedOrder:
    """An order as one side knows it."""

    client_order_id: str
    symbol: str
    side: str
    quantity: Decimal
    filled_quantity: Decimal


@dataclass(frozen=True)
class ComparedFill:
    """An execution as one side knows it."""

    execution_id: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal


@dataclass(frozen=True)
class Side:
    """Everything that is compared, as one side knows it."""

    orders: Sequence[ComparedOrder]
    fills: Sequence[ComparedFill]
    positions: Mapping[str, Holding]
    cash: Decimal


def reconcile(ledger: Side, broker: Side, tolerance: Reconciling) -> list[Drift]:
    """All differences beyond tolerance, by kind and subject."""
    return [
        *_orders(ledger.orders, broker.orders, tolerance),
        *_fills(ledger.fills, broker.fills),
        *_positions(ledger.positions, broker.positions, tolerance),
        *_cash(ledger.cash, broker.cash, tolerance),
    ]


def _orders(
    ledger: Sequence[ComparedOrder], broker: Sequence[ComparedOrder], tolerance: Reconciling
) -> Iterator[Drift]:
    ours = {order.client_order_id: order for order in ledger}
    theirs = {order.client_order_id: order for order in broker}
    for name in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(name), theirs.get(name)
        if mine is None and other is not None:
            yield Drift("order", name, "none", _order_text(other), f"Order {name} is unknown to us")
        elif other is None and mine is not None:
            yield Drift(
                "order", name, _order_text(mine), "none", f"The broker does not know order {name}"
            )
        elif mine is not None and other is not None and _differ(mine, other, tolerance):
            yield Drift(
                "order", name, _order_text(mine), _order_text(other), f"Order {name} differs"
            )


def _differ(mine: ComparedOrder, other: ComparedOrder, tolerance: Reconciling) -> bool:
    return (
        (mine.symbol, mine.side) != (other.symbol, other.side)
        or mine.quantity != other.quantity
        or abs(mine.filled_quantity - other.filled_quantity) > tolerance.quantity
    )


def _fills(ledger: Sequence[ComparedFill], broker: Sequence[ComparedFill]) -> Iterator[Drift]:
    ours = {fill.execution_id: fill for fill in ledger}
    theirs = {fill.execution_id: fill for fill in broker}
    for name in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(name), theirs.get(name)
        if mine == other:
            continue
        symbol = (mine or other or ComparedFill("", "", "", _ZERO, _ZERO)).symbol
        yield Drift(
            "fill",
            name,
            "none" if mine is None else _fill_text(mine),
            "none" if other is None else _fill_text(other),
            f"Fill {name} of {symbol} differs",
        )


def _positions(
    ledger: Mapping[str, Holding], broker: Mapping[str, Holding], tolerance: Reconciling
) -> Iterator[Drift]:
    for symbol in sorted(ledger.keys() | broker.keys()):
        mine, other = ledger.get(symbol, Holding()), broker.get(symbol, Holding())
        if abs(mine.quantity - other.quantity) > tolerance.quantity:
            yield Drift(
                "position",
                symbol,
                _plain(mine.quantity),
                _plain(other.quantity),
                f"The position in {symbol} differs",
            )
        elif mine.quantity and (
            abs(mine.average_price - other.average_price) > tolerance.average_price
        ):
            yield Drift(
                "average_price",
                symbol,
                _plain(mine.average_price),
                _plain(other.average_price),
                f"The average price of {symbol} differs",
            )


def _cash(ledger: Decimal, broker: Decimal, tolerance: Reconciling) -> Iterator[Drift]:
    if abs(ledger - broker) > tolerance.cash:
        yield Drift("cash", "USD", f"{ledger:.2f}", f"{broker:.2f}", "Cash differs")


def _order_text(order: ComparedOrder) -> str:
    filled = _plain(order.filled_quantity)
    return f"{order.side} {_plain(order.quantity)} {order.symbol}, {filled} filled"


def _fill_text(fill: ComparedFill) -> str:
    return f"{fill.side} {_plain(fill.quantity)} {fill.symbol} at {_plain(fill.price)}"


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"
