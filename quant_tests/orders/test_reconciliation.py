"""What the comparison of ledger and broker finds, and what it lets pass."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from quant_assets.orders.policy import Reconciling
from quant_assets.orders.positions import Holding
from quant_assets.orders.reconciliation import ComparedFill, ComparedOrder, Side, reconcile

TOLERANCE = Reconciling.model_validate({})
ORDER = ComparedOrder("b1", "main-1", "AAA", "buy", Decimal(10), Decimal(10))
FILL = ComparedFill("e1", "AAA", "buy", Decimal(10), Decimal(100))
AGREED = Side([ORDER], [FILL], {"AAA": Holding(Decimal(10), Decimal(100))}, Decimal(-1000))


def test_agreement_finds_nothing() -> None:
    """Both sides alike, and differences inside the tolerances."""
    assert reconcile(AGREED, AGREED, TOLERANCE) == []
    near = replace(
        AGREED,
        positions={"AAA": Holding(Decimal("10.0000005"), Decimal("100.009"))},
        cash=Decimal("-1000.99"),
    )
    assert reconcile(AGREED, near, TOLERANCE) == []


@pytest.mark.parametrize(
    ("change", "kind", "subject"),
    [
        ({"orders": []}, "order", "b1"),
        # A protective leg, or what replaced the order, has an id of its own at the broker.
        ({"orders": [ORDER, replace(ORDER, broker_order_id="leg")]}, "order", "leg"),
        ({"orders": [replace(ORDER, symbol="BBB")]}, "order", "b1"),
        ({"orders": [replace(ORDER, side="sell")]}, "order", "b1"),
        ({"orders": [replace(ORDER, quantity=Decimal(11))]}, "order", "b1"),
        ({"orders": [replace(ORDER, quantity=None, notional=Decimal(9))]}, "order", "b1"),
        ({"orders": [replace(ORDER, filled_quantity=Decimal(9))]}, "order", "b1"),
        ({"fills": []}, "fill", "e1"),
        ({"fills": [FILL, replace(FILL, execution_id="e2")]}, "fill", "e2"),
        ({"fills": [replace(FILL, price=Decimal("100.01"))]}, "fill", "e1"),
        ({"fills": [replace(FILL, kind="correct")]}, "fill", "e1"),
        ({"fills": [FILL, replace(FILL, execution_id="e2", kind="bust")]}, "fill", "e2"),
        ({"positions": {}}, "position", "AAA"),
        ({"positions": {"AAA": Holding(Decimal(9), Decimal(100))}}, "position", "AAA"),
        ({"positions": {"AAA": Holding(Decimal(10), Decimal("100.02"))}}, "average_price", "AAA"),
        ({"cash": Decimal("-1001.01")}, "cash", "USD"),
    ],
)
@pytest.mark.parametrize("broker_differs", [True, False])
def test_each_difference_is_found_on_either_side(
    change: dict[str, object], kind: str, subject: str, broker_differs: bool
) -> None:
    """One difference gives one finding that names its kind, its subject and both values."""
    other = replace(AGREED, **change)  # pyright: ignore[reportArgumentType]
    sides = (AGREED, other) if broker_differs else (other, AGREED)
    (drift,) = reconcile(*sides, TOLERANCE)
    assert (drift.kind, drift.subject) == (kind, subject)
    assert drift.ledger != drift.broker
    assert drift.ledger in str(drift)
    assert drift.broker in str(drift)


def test_a_position_never_seen_before_is_found() -> None:
    """Beside the known ones."""
    other = replace(AGREED, positions={**AGREED.positions, "ZZZ": Holding(Decimal(1), Decimal(1))})
    (drift,) = reconcile(AGREED, other, TOLERANCE)
    assert (drift.subject, drift.ledger, drift.broker) == ("ZZZ", "0", "1")
