"""A broker that contradicts itself or our orders: nothing of it is booked, and the error names what and why."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from sqlalchemy import select

from quant_assets.orders.booking import sync_with_broker
from quant_assets.orders.comparison import looked_at
from quant_resources.ledger import account_book
from quant_resources.ledger.order_book import WrongOrderError
from quant_resources.ledger.order_tables import Fill, FillCorrection, Position
from quant_tests.orders.broker_truth import post, state_of
from quant_tests.orders.ground import Ground
from quant_tests.orders.test_corrections import bought

DAY, NEXT = date(2024, 3, 4), date(2024, 3, 5)


def rows_of(ground: Ground) -> tuple[list[str], dict[str, Decimal]]:
    """Booked executions and positions."""
    with ground.ledger.begin() as transaction:
        booked = [
            *transaction.scalars(select(Fill.execution_id)),
            *transaction.scalars(select(FillCorrection.correction_id)),
        ]
        held = {row.symbol: row.quantity for row in transaction.scalars(select(Position))}
    return sorted(booked), held


def assert_refused(ground: Ground, message: str) -> None:
    """Nothing is booked, the book is halted, and the error says so as often as it is met."""
    before = rows_of(ground)
    for _ in range(2):
        with pytest.raises(WrongOrderError, match=message):
            sync_with_broker(ground.ledger, ground.broker)
    assert rows_of(ground) == before
    assert ground.status().state == "HALTED"
    assert ground.status().changed_by == "booking"


def test_a_fill_larger_than_its_order_is_not_booked(ground: Ground) -> None:
    """A second execution of an order that has filled: together they are more than was ordered."""
    fill = bought(ground, AAA=0.2, BBB=0.1)["AAA"]
    post(ground, "FILL", fill.execution_id)
    assert_refused(ground, rf"AAA\) add up to {2 * int(fill.quantity)} shares")


def test_an_order_that_says_it_filled_more_than_it_is_is_not_recorded(ground: Ground) -> None:
    """The order's own count, before any execution is looked at."""
    fill = bought(ground, AAA=0.2)["AAA"]
    more = fill.quantity + 1
    with state_of(ground) as state:
        state.execute(
            "UPDATE orders SET filled_quantity = ?, updated_at = ? WHERE order_id = ?",
            (str(more), "2024-03-04T23:59:00+00:00", fill.broker_order_id),
        )
    assert_refused(ground, f"that {more.normalize():f} shares of order {fill.client_order_id}")


@pytest.mark.parametrize(("field", "value"), [("symbol", "BBB"), ("side", "sell")])
def test_a_fill_that_is_not_like_its_order_is_not_booked(
    ground: Ground, field: str, value: str
) -> None:
    """A fill of another symbol or side is never taken for one of the order."""
    fill = bought(ground, AAA=0.2)["AAA"]
    post(ground, "FILL", fill.execution_id, **{field: value})
    assert_refused(ground, f"is said to be of order {fill.client_order_id}")


def test_a_bust_that_is_not_like_its_fill_is_not_booked(ground: Ground) -> None:
    """It names the fill of another symbol."""
    fill = bought(ground, AAA=0.2)["AAA"]
    post(
        ground,
        "FILL",
        fill.execution_id,
        type="trade_bust",
        previous_execution_id=fill.execution_id,
        symbol="BBB",
    )
    assert_refused(ground, f"is said to be of fill {fill.execution_id}")


def test_an_answer_about_another_order_is_never_taken_for_ours(ground: Ground) -> None:
    """Under the client id of an order of ours the broker holds one of another symbol."""
    ground.morning(DAY)
    batch, _ = ground.trade(DAY, alpha={"AAA": 0.1})
    (intent,) = ground.intents(batch)
    with state_of(ground) as state:
        state.execute(
            "UPDATE orders SET symbol = 'BBB', updated_at = ? WHERE client_order_id = ?",
            ("2024-03-04T23:59:00+00:00", intent.client_order_id),
        )
    assert_refused(ground, f"The broker's order {intent.client_order_id} is buy")


def test_a_bust_of_a_fill_that_nobody_knows_is_drift(ground: Ground) -> None:
    """It is booked nowhere, and it is not lost: every comparison names it."""
    fill = bought(ground, AAA=0.2)["AAA"]
    name = post(
        ground,
        "FILL",
        fill.execution_id,
        type="trade_bust",
        previous_execution_id="a-fill-of-nobody",
    )
    booked = sync_with_broker(ground.ledger, ground.broker)
    assert [one.execution_id for one in booked.unknown] == [name]
    (drift,) = looked_at(ground.ledger, ground.broker, ground.policy)[0]
    assert (drift.kind, drift.subject, drift.explanation) == ("fill", name, None)


def test_a_rename_moves_the_position_and_keeps_its_listing(ground: Ground) -> None:
    """By the old symbol that the broker names, whatever the description says."""
    fill = bought(ground, AAA=0.2)["AAA"]
    before = rows_of(ground)[1]["AAA"]
    with ground.ledger.begin() as transaction:
        listing = account_book.positions_of(transaction, fill.account_id)["AAA"].security_id
    post(
        ground,
        "NC",
        fill.execution_id,
        date=NEXT.isoformat(),
        symbol="AAAX",
        old_symbol="AAA",
        qty=str(before),
        net_amount="0",
        description="Name change",
    )
    assert sync_with_broker(ground.ledger, ground.broker).activities == 1
    with ground.ledger.begin() as transaction:
        held = account_book.positions_of(transaction, fill.account_id)
    assert (held["AAA"].quantity, held["AAAX"].quantity) == (0, before)
    assert held["AAAX"].average_price == fill.price
    assert held["AAAX"].security_id == listing
