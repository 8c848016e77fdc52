"""What must be true when a day has been traded, whatever was killed and whatever broke.

The exchange's audit log and its state are the truth; the ledger is compared with them through a connection
that has no faults:

1. Every intent that was to be sent has exactly one accepted order in the audit log, every other one none, and
   nothing was accepted that the ledger did not freeze.
2. No order was accepted after its intent's deadline, but one that was on its way when the clock jumped.
3. Every fill of the audit log is booked once, with its quantity and price, and nothing else is.
4. Every order stands in the ledger as it stands at the exchange.
5. Positions and cash agree, without tolerance for shares and to the cent.
6. There is one batch for each attempt, nothing is unfinished, and the book is ACTIVE: no person was needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import select

from quant_assets.orders.evidence import reconcile_with_broker
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.order_tables import Fill, Order, OrderBatch, OrderIntent
from quant_tests.orders.ground import Ground

#: States of intents of which the exchange must never have accepted an order.
NEVER_ACCEPTED = frozenset(
    {"refused", "expired_unsent", "withdrawn", "dry_run", "pending", "waiting"}
)


@dataclass(frozen=True)
class Truth:
    """What happened to a session's orders.

    Attributes:
        accepted: Client id to the number of accepted orders in the exchange's audit log.
        states: Client id to the intent's state in the ledger.
        problems: What is not as it must be; empty when all is well.
    """

    accepted: Mapping[str, int]
    states: Mapping[str, str]
    problems: tuple[str, ...]

    def differences(self, undisturbed: Truth) -> Iterator[str]:
        """What became of the same intents without crash or fault."""
        if self.accepted != undisturbed.accepted:
            yield "the exchange accepted other orders than in an undisturbed day: " + ", ".join(
                sorted(set(self.accepted) ^ set(undisturbed.accepted))
            )
        for name, state in undisturbed.states.items():
            if self.states.get(name) != state:
                yield f"{name} ended {self.states.get(name)}, undisturbed {state}"


def truth_of(ground: Ground, session: date, attempts: int | None) -> Truth:
    """Compare the exchange's truth with the ledger.

    Args:
        ground: Ledger and exchange, without faults and with nothing left to do.
        session: The trading session.
        attempts: How many batches it must have; None for any number of attempts, each with one.
    """
    audit = ground.exchange.audit()
    with ground.ledger.begin() as transaction:
        batches = transaction.scalars(
            select(OrderBatch).where(OrderBatch.trading_session == session)
        ).all()
        numbers = [batch.batch_id for batch in batches]
        intents = {
            row.client_order_id: row
            for row in transaction.scalars(
                select(OrderIntent).where(OrderIntent.batch_id.in_(numbers))
            )
        }
        known = set(transaction.scalars(select(OrderIntent.client_order_id)))
        account_id = ground.broker.account().account_id
        unfinished = order_book.unfinished_intents(transaction, account_id)
        status = account_book.trading_status(transaction, ground.policy.book)
        fills = {row.execution_id: row for row in transaction.scalars(select(Fill))}
        orders = {row.broker_order_id: row for row in transaction.scalars(select(Order))}
    taken = [e for e in audit if e["event"] == "submit" and e["outcome"] == "accepted"]
    everything = Counter(entry["client_order_id"] for entry in taken)
    accepted = {name: count for name, count in everything.items() if name in intents}
    problems: list[str] = []
    problems += [
        f"nobody froze the accepted order {name}" for name in everything if name not in known
    ]
    for name, row in intents.items():
        count = accepted.get(name, 0)
        refused = row.state == "rejected" and not any(
            order.client_order_id == name for order in orders.values()
        )
        wanted = 0 if row.state in NEVER_ACCEPTED or refused else 1
        if count != wanted:
            problems.append(
                f"{count} accepted orders of {name} ({row.symbol} leg {row.leg}, {row.state})"
            )
    for entry in taken:
        row = intents.get(entry["client_order_id"])
        if row is None or entry["sequence"] in _overtaken(audit):
            continue
        if datetime.fromisoformat(entry["at"]) >= row.deadline:
            problems.append(
                f"{row.client_order_id} was accepted at {entry['at']}, past its deadline"
            )
    problems += _fill_problems(audit, fills)
    problems += _order_problems(ground, orders)
    problems += _holding_problems(ground, session)
    if unfinished:
        problems.append(f"unfinished: {[(row.symbol, row.state) for row in unfinished]}")
    if status.state != "ACTIVE":
        problems.append(f"the book is {status.state} by {status.changed_by}: {status.reason}")
    wanted_attempts = list(range(1, (len(batches) if attempts is None else attempts) + 1))
    if sorted(batch.attempt for batch in batches) != wanted_attempts:
        problems.append(f"{len(batches)} batches for {len(wanted_attempts)} attempt(s)")
    states = {name: row.state for name, row in intents.items()}
    return Truth(accepted, states, tuple(problems))


def _overtaken(audit: list[dict[str, Any]]) -> set[int]:
    """Submissions during whose request the clock jumped: they had been sent in time."""
    found: set[int] = set()
    jumping = False
    for entry in audit:
        if entry["event"] == "fault":
            jumping = entry["fault"]["kind"] == "clock_jump" and "POST" in entry["request"]
        elif entry["event"] == "submit":
            found |= {entry["sequence"]} if jumping else set()
            jumping = False
    return found


def _fill_problems(audit: list[dict[str, Any]], fills: Mapping[str, Fill]) -> Iterator[str]:
    at_exchange = {e["execution_id"]: e for e in audit if e["event"] == "fill"}
    for name in at_exchange.keys() ^ fills.keys():
        where = "the ledger" if name in at_exchange else "the exchange's log"
        yield f"the fill {name} is missing in {where}"
    for name in at_exchange.keys() & fills.keys():
        entry, row = at_exchange[name], fills[name]
        said = (Decimal(entry["quantity"]), Decimal(entry["price"]))
        if (row.quantity, row.price) != said:
            yield f"the fill {name} is booked as {row.quantity} at {row.price}, it was {said}"


def _order_problems(ground: Ground, orders: Mapping[str, Order]) -> Iterator[str]:
    at_exchange = {
        order.broker_order_id: order
        for order in ground.broker.orders_since(datetime.fromisoformat("2024-03-01T00:00:00+00:00"))
    }
    for name in at_exchange.keys() ^ orders.keys():
        where = "the ledger" if name in at_exchange else "the exchange"
        yield f"the order {name} is missing in {where}"
    for name in at_exchange.keys() & orders.keys():
        theirs, ours = at_exchange[name], orders[name]
        said = (theirs.status, theirs.filled_quantity)
        if (ours.status, ours.filled_quantity) != said:
            yield (
                f"the order {name} ({ours.symbol}) is {ours.status}, {ours.filled_quantity} filled; at "
                f"the exchange {said}"
            )


def _holding_problems(ground: Ground, session: date) -> Iterator[str]:
    account = ground.broker.account()
    with ground.ledger.begin() as transaction:
        held = {
            symbol: row.quantity
            for symbol, row in account_book.positions_of(transaction, account.account_id).items()
            if row.quantity
        }
    if held != ground.held():
        yield f"the ledger holds {held}, the exchange {ground.held()}"
    drifts = reconcile_with_broker(
        ground.ledger, ground.broker, ground.policy, session, "after_trading"
    )
    yield from (f"drift: {drift}" for drift in drifts)
