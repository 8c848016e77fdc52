"""Comparing the ledger with the broker: what differs, beyond tolerance, and nothing else.

Pure. Does not belong here: fetching either side (`comparison.py`), explaining a finding (`drift_explanations.py`) and
acting on it (`evidence.py`).

| Compared | A finding is |
|---|---|
| orders | an order that only one side knows, by the broker's id, or that differs in symbol, side, size or fill |
| fills | an execution, bust or correction that only one side knows, or that differs |
| positions | a quantity beyond tolerance, a holding that only one side knows |
| average price | a difference beyond tolerance at equal quantity |
| cash | opening cash, fills, corrections, activities and adjustments that do not add up to the broker's cash |

Entries, their protective legs and what replaced an order are all orders here: each has its own id at the broker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from quant_assets.orders.drift import Drift, plain
from quant_assets.orders.policy import Reconciling
from quant_assets.orders.positions import Holding


@dataclass(frozen=True)
class ComparedOrder:
    """An order as one side knows it: sized in shares (`quantity`) or in USD (`notional`)."""

    broker_order_id: str
    client_order_id: str
    symbol: str
    side: str
    quantity: Decimal | None
    filled_quantity: Decimal
    notional: Decimal | None = None


@dataclass(frozen=True)
class ComparedFill:
    """An execution as one side knows it; of a bust, quantity and price are zero."""

    execution_id: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal
    kind: Literal["fill", "bust", "correct"] = "fill"


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
    ours = {order.broker_order_id: order for order in ledger}
    theirs = {order.broker_order_id: order for order in broker}
    for name in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(name), theirs.get(name)
        if mine is None and other is not None:
            told = f"Order {other.client_order_id} is unknown to us"
            yield Drift("order", name, "none", _order_text(other), told)
        elif other is None and mine is not None:
            told = f"The broker does not know order {mine.client_order_id}"
            yield Drift("order", name, _order_text(mine), "none", told)
        elif mine is not None and other is not None and _differ(mine, other, tolerance):
            told = f"Order {mine.client_order_id} differs"
            yield Drift("order", name, _order_text(mine), _order_text(other), told)


def _differ(mine: ComparedOrder, other: ComparedOrder, tolerance: Reconciling) -> bool:
    return (
        (mine.symbol, mine.side) != (other.symbol, other.side)
        or (mine.quantity, mine.notional) != (other.quantity, other.notional)
        or abs(mine.filled_quantity - other.filled_quantity) > tolerance.quantity
    )


def _fills(ledger: Sequence[ComparedFill], broker: Sequence[ComparedFill]) -> Iterator[Drift]:
    ours = {fill.execution_id: fill for fill in ledger}
    theirs = {fill.execution_id: fill for fill in broker}
    for name in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(name), theirs.get(name)
        known = mine or other
        if known is None or mine == other:
            continue
        yield Drift(
            "fill",
            name,
            "none" if mine is None else _fill_text(mine),
            "none" if other is None else _fill_text(other),
            f"Fill {name} of {known.symbol} differs",
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
                plain(mine.quantity),
                plain(other.quantity),
                f"The position in {symbol} differs",
            )
        elif mine.quantity and (
            abs(mine.average_price - other.average_price) > tolerance.average_price
        ):
            yield Drift(
                "average_price",
                symbol,
                plain(mine.average_price),
                plain(other.average_price),
                f"The average price of {symbol} differs",
            )


def _cash(ledger: Decimal, broker: Decimal, tolerance: Reconciling) -> Iterator[Drift]:
    if abs(ledger - broker) > tolerance.cash:
        yield Drift("cash", "USD", f"{ledger:.2f}", f"{broker:.2f}", "Cash differs")


def _order_text(order: ComparedOrder) -> str:
    size = (
        plain(order.quantity)
        if order.quantity is not None
        else f"{plain(order.notional or Decimal(0))} USD of"
    )
    return f"{order.side} {size} {order.symbol}, {plain(order.filled_quantity)} filled"


def _fill_text(fill: ComparedFill) -> str:
    told = f"{fill.side} {plain(fill.quantity)} {fill.symbol} at {plain(fill.price)}"
    return told if fill.kind == "fill" else f"{fill.kind} to {told}"
