"""A start-up over a long past reads what is unfinished and what is asked for by name, never the past itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any, Final

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_states import OPEN, UNFINISHED, OrderState
from quant_tests.ledger.frozen_orders import freeze, intent
from quant_tests.ledger.long_history import write_history

ORDERS: Final = 3_000
#: Rows of any one step of a plan: a handful of batches and what was asked for, of thousands of orders.
_FEW: Final = 400
_NAMES: Final = [f"main-100-{number}" for number in range(1, 21)]

BY_STATE: Final[dict[str, Callable[[Session], Any]]] = {
    "unfinished": lambda s: order_book.unfinished_intents(s, "account"),
    "open ids": lambda s: order_book.open_client_ids(s, "account"),
    "open entries": lambda s: order_book.open_entries(s, "account"),
    "open legs": lambda s: order_book.open_legs(s, "account", ["S1", "S2"]),
    "since": lambda s: order_book.orders_submitted_since(
        s, "account", datetime(2020, 4, 8, tzinfo=UTC)
    ),
    "of a session": lambda s: order_book.orders_of(s, "account", date(2020, 4, 10)),
    "rejections": lambda s: order_book.rejections_since(s, "account", date(2020, 4, 10)),
    "fills": lambda s: account_book.fills_of(s, "account", date(2020, 4, 9)),
    "newest batch": lambda s: order_book.newest_batch(s, "main", date(2020, 4, 10)),
}

BY_NAME: Final[dict[str, Callable[[Session], Any]]] = {
    "known": lambda s: order_book.known_client_ids(s, _NAMES),
    "recorded": lambda s: order_book.recorded_orders(s, [f"broker-{name}" for name in _NAMES]),
    "states": lambda s: order_book.states_of(s, _NAMES),
    "executions": lambda s: account_book.booked_execution_ids(
        s, [f"execution-{name}" for name in _NAMES]
    ),
}


@pytest.fixture
def old_ledger(ledger: Ledger) -> Ledger:
    """A ledger with a long past, of which the server has no statistics yet."""
    with ledger.begin() as session:
        write_history(session, ORDERS)
    return ledger


def _steps(plan: dict[str, Any]) -> Iterator[tuple[str, float]]:
    rows = plan["Actual Rows"] * plan["Actual Loops"] + plan.get("Rows Removed by Filter", 0)
    # There are as many batches as days, and the planner may like to read them all for each order.
    if plan.get("Relation Name") != "order_batches":
        yield f"{plan['Node Type']} {plan.get('Relation Name', '')}", rows
    for child in plan.get("Plans", ()):
        yield from _steps(child)


def _rows_read(ledger: Ledger, read: Callable[[Session], Any]) -> dict[str, float]:
    """How many rows each step of each query of a function handles."""
    queries: list[tuple[str, Any]] = []

    def keep(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT orders", "SELECT order", "SELECT fills", "SELECT count")):
            queries.append((statement, parameters))

    event.listen(ledger.engine, "before_cursor_execute", keep)
    with ledger.begin() as session:
        read(session)
    event.remove(ledger.engine, "before_cursor_execute", keep)
    assert queries
    read_rows: dict[str, float] = {}
    with ledger.engine.connect() as connection:
        for statement, parameters in queries:
            (plan,) = connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters
            ).scalar_one()
            read_rows |= dict(_steps(plan["Plan"]))
    return read_rows


def test_no_read_of_a_start_walks_through_the_past(old_ledger: Ledger) -> None:
    """What is found by state or day also where the server has not gathered its statistics yet."""
    for reads in (BY_STATE, BY_STATE | BY_NAME):
        for name, read in reads.items():
            much = {step: n for step, n in _rows_read(old_ledger, read).items() if n > _FEW}
            assert not much, name
        with old_ledger.begin() as session:
            session.execute(text("ANALYZE"))


def test_what_is_unfinished_is_found_in_a_long_past(old_ledger: Ledger) -> None:
    """Without this, an index that finds nothing would pass the test above."""
    with old_ledger.begin() as session:
        freeze(session, intent("new"), account="account")
        found = order_book.unfinished_intents(session, "account")
        assert [row.client_order_id for row in found] == ["new"]
        assert len(order_book.known_client_ids(session, _NAMES)) == len(_NAMES)
        assert len(order_book.recorded_orders(session, [f"broker-{n}" for n in _NAMES])) == 20
        since = order_book.orders_submitted_since(
            session, "account", datetime(2020, 4, 8, tzinfo=UTC)
        )
        assert len(since) == 3 * ORDERS // 100


@pytest.mark.parametrize("states", [UNFINISHED, OPEN])
def test_the_indexes_of_states_say_what_the_code_says(
    ledger: Ledger, states: frozenset[OrderState]
) -> None:
    """An index that leaves a state out would not be used for it, and every start would read all."""
    with ledger.begin() as session:
        indexes = session.scalars(
            text("SELECT indexdef FROM pg_indexes WHERE tablename = 'order_intents'")
        ).all()
    quoted = {
        frozenset(state for state in OrderState if f"'{state}'" in index)
        for index in indexes
        if "WHERE" in index
    }
    assert states in quoted
