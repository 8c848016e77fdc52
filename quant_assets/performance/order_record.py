"""One step of the way back from an order, and what the ledger knows of its orders, fills and transitions.

Belongs here: the tree's node, and the part of it that tells what became of an intent at the broker. Does not belong
here: what the intent came from (`order_lineage.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from quant_resources.ledger.counted_fills import corrections_by_fill, counted
from quant_resources.ledger.order_tables import Fill, FillCorrection, Order, OrderEvent


@dataclass(frozen=True)
class Lineage:
    """One step of the way back.

    Attributes:
        kind: intent, batch, order, fill, correction, event, strategy, signal, model, features, bar or delivery.
        name: What it is, for a heading.
        facts: What is known of it, in the order in which it is told; plain values.
        causes: What it came from, and for the intent also what became of it.
    """

    kind: str
    name: str
    facts: Mapping[str, Any]
    causes: tuple[Lineage, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The tree as nested dictionaries."""
        return {
            "kind": self.kind,
            "name": self.name,
            "facts": dict(self.facts),
            "causes": [cause.as_dict() for cause in self.causes],
        }


def orders_of_intent(transaction: Session, client_order_id: str) -> list[Lineage]:
    """Every order of the intent, the entry first, with its fills as they count."""
    orders = transaction.scalars(
        select(Order)
        .where(Order.client_order_id == client_order_id)
        .order_by(Order.role != "entry", Order.submitted_at, Order.broker_order_id)
    ).all()
    fills = transaction.scalars(
        select(Fill)
        .where(Fill.client_order_id == client_order_id)
        .order_by(Fill.filled_at, Fill.execution_id)
    ).all()
    corrections = corrections_by_fill(transaction, [fill.execution_id for fill in fills])
    return [
        Lineage(
            "order",
            order.broker_order_id,
            _order_facts(order),
            tuple(
                _fill(fill, corrections.get(fill.execution_id, []))
                for fill in fills
                if fill.broker_order_id == order.broker_order_id
            ),
        )
        for order in orders
    ]


def _order_facts(order: Order) -> dict[str, Any]:
    whole = order.quantity if order.quantity is not None else order.notional
    unit = "" if order.quantity is not None or whole is None else " USD"
    size = "?" if whole is None else f"{whole.normalize():f}{unit}"
    return told_facts(
        {
            "role": None if order.role == "entry" else order.role,
            "of": order.parent_order_id,
            "status": order.status,
            "filled": f"{order.filled_quantity.normalize():f} of {size}",
            "average_fill_price": order.average_fill_price,
            "submitted": order.submitted_at,
        }
    )


def _fill(fill: Fill, corrections: Sequence[FillCorrection]) -> Lineage:
    """A fill as it counts, and below it what the broker made of it since."""
    now = counted(fill, corrections)
    facts = {
        "filled": "nothing: the broker took it back"
        if now.correction == "bust"
        else f"{now.quantity.normalize():f} at {now.price.normalize():f} USD",
        "realised_pnl": now.realised_pnl,
        "time": fill.filled_at,
    }
    told = tuple(
        Lineage(
            "correction",
            row.correction_id,
            {
                "kind": row.kind,
                "was": f"{before.quantity.normalize():f} at {before.price.normalize():f} USD",
                "cash": row.cash,
                "realised_pnl": row.realised_pnl,
                "counts_in": row.trading_session,
                "time": row.corrected_at,
            },
        )
        for row, before in (
            (row, counted(fill, corrections[:number])) for number, row in enumerate(corrections)
        )
    )
    return Lineage("fill", fill.execution_id, facts, told)


def events_of_intent(transaction: Session, client_order_id: str) -> list[Lineage]:
    """Every transition of the intent, with who caused it."""
    rows = transaction.scalars(
        select(OrderEvent)
        .where(OrderEvent.client_order_id == client_order_id)
        .order_by(OrderEvent.event_id)
    ).all()
    steps = {
        f"{event.happened_at:%Y-%m-%d %H:%M:%S.%f}": f"{event.from_state or 'new'} → {event.to_state} "
        f"by {event.actor}: {event.detail}"
        for event in rows
    }
    return [Lineage("event", "what became of it", steps)] if steps else []


def told_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts without those that do not apply."""
    return {name: value for name, value in facts.items() if value is not None}
