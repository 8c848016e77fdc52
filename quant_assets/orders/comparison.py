"""Both sides of a comparison, and the facts that may explain what differs.

Belongs here: reading the ledger and asking the broker for a comparison. Does not belong here: comparing
(`reconciliation.py`), explaining (`drift_explanations.py`), and what follows from it (`evidence.py`).

1. Orders and executions are compared as far back as the broker's view reaches, and never from before the opening.
2. What was confirmed as given at the broker, not by us, is known from then on and is left out on the broker's side.
3. Only where something differs is the broker asked for what may explain it: announced splits and dividends.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from quant_assets.orders.booking import Booked, sync_with_broker
from quant_assets.orders.broker_view import BrokerView
from quant_assets.orders.drift import Drift, Explanation, ForeignExecution
from quant_assets.orders.drift_explanations import DueDividend, Facts, explain
from quant_assets.orders.ledger_history import holding_of, old_symbol
from quant_assets.orders.policy import TradingPolicy
from quant_assets.orders.positions import Holding, round_step
from quant_assets.orders.reconciliation import ComparedFill, ComparedOrder, Side, reconcile
from quant_resources.broker import AccountActivity, Broker, BrokerOrder, Execution
from quant_resources.calendar import NEW_YORK, start_of_day
from quant_resources.errors import LedgerError
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_tables import (
    AccountSnapshot,
    Activity,
    Fill,
    FillCorrection,
    Order,
    PositionSnapshot,
)

#: The broker's answers are not of one instant: a fill between two of them looks like drift, once.
_LOOKS: Final = 3
#: Dividends are paid up to two months after their ex-date; splits are posted within days.
_DIVIDENDS_BACK: Final = timedelta(days=60)
_SPLITS_BACK: Final = timedelta(days=10)
_ZERO: Final = Decimal(0)


def looked_at(
    ledger: Ledger, broker: Broker, policy: TradingPolicy
) -> tuple[list[Drift], BrokerView]:
    """Sync and compare; what differs is looked at again after another sync, and counts if it differs every time.

    Returns:
        The differences of the last look, each with what explains it, and the view that was compared.
    """
    booked = sync_with_broker(ledger, broker)
    found, sides = _compare(ledger, booked, policy)
    for _ in range(_LOOKS - 1):
        if not found:
            break
        booked = sync_with_broker(ledger, broker)
        found, sides = _compare(ledger, booked, policy)
    if not found:
        return [], booked.view
    facts = _facts(ledger, broker, booked)
    return explain(found, *sides, facts, policy.reconciling), booked.view


def _compare(
    ledger: Ledger, booked: Booked, policy: TradingPolicy
) -> tuple[list[Drift], tuple[Side, Side]]:
    view = booked.view
    account_id = view.account.account_id
    start = start_of_day(view.since)
    with ledger.begin() as session:
        opening = account_book.opening_snapshot(session, account_id)
        cash = account_book.expected_cash(session, account_id)
        if cash is None or opening is None:
            raise LedgerError(f"The ledger has no opening balance of account {account_id}.")
        ours = _ledger_side(session, view, start, cash)
        confirmed = _confirmed(session, account_id)
    # What happened before the ledger met the account is in its opening balance.
    theirs = _broker_side(view, max(start, opening.taken_at), confirmed)
    return reconcile(ours, theirs, policy.reconciling), (ours, theirs)


def _ledger_side(session: Session, view: BrokerView, start: datetime, cash: Decimal) -> Side:
    account_id = view.account.account_id
    seen = order_book.orders_by_broker_id(session, [o.broker_order_id for o in view.orders])
    recent = order_book.orders_submitted_since(session, account_id, start)
    orders = {order.broker_order_id: order for order in (*seen.values(), *recent)}
    fills = session.scalars(
        select(Fill).where(Fill.account_id == account_id, Fill.filled_at >= start)
    )
    corrections = session.execute(
        select(FillCorrection, Fill)
        .join(Fill, Fill.execution_id == FillCorrection.execution_id)
        .where(FillCorrection.account_id == account_id, FillCorrection.corrected_at >= start)
    )
    return Side(
        orders=[_compared(order.broker_client_order_id, order) for order in orders.values()],
        fills=[
            *(ComparedFill(f.execution_id, f.symbol, f.side, f.quantity, f.price) for f in fills),
            *(
                _correction(c.correction_id, f.symbol, f.side, c.quantity, c.price, c.kind)
                for c, f in corrections
            ),
        ],
        positions={
            symbol: holding_of(row)
            for symbol, row in account_book.positions_of(session, account_id).items()
            if row.quantity
        },
        cash=cash,
    )


def _broker_side(view: BrokerView, start: datetime, confirmed: Sequence[Explanation]) -> Side:
    orders = {name for one in confirmed for name in one.orders}
    executions = {e.execution_id for one in confirmed for e in one.executions}
    return Side(
        orders=[
            _compared(order.client_order_id, order)
            for order in view.orders
            # One that is open is compared however old it is.
            if (order.submitted_at >= start or order.is_open)
            and order.broker_order_id not in orders
        ],
        fills=[
            ComparedFill(
                e.execution_id, e.symbol, e.side, round_step(e.quantity), round_step(e.price)
            )
            if e.kind == "fill"
            else _correction(e.execution_id, e.symbol, e.side, e.quantity, e.price, e.kind)
            for e in view.executions
            if e.filled_at >= start and e.execution_id not in executions
        ],
        positions={p.symbol: Holding(p.quantity, p.average_price) for p in view.positions},
        cash=view.account.cash,
    )


def _compared(client_order_id: str, order: Order | BrokerOrder) -> ComparedOrder:
    return ComparedOrder(
        order.broker_order_id,
        client_order_id,
        order.symbol,
        order.side,
        order.quantity,
        order.filled_quantity,
        order.notional,
    )


def _correction(  # noqa: PLR0917 - the columns of both sides
    name: str, symbol: str, side: str, quantity: Decimal, price: Decimal, kind: str
) -> ComparedFill:
    if kind == "bust" or not quantity:
        return ComparedFill(name, symbol, side, _ZERO, _ZERO, "bust")
    return ComparedFill(name, symbol, side, round_step(quantity), round_step(price), "correct")


def _confirmed(session: Session, account_id: str) -> list[Explanation]:
    """What was confirmed, in the order in which it was."""
    return [
        Explanation.from_json(row.explanation)
        for row in account_book.adjustments_of(session, account_id)
    ]


def _facts(ledger: Ledger, broker: Broker, booked: Booked) -> Facts:
    view = booked.view
    account_id = view.account.account_id
    now = broker.clock().now
    today = now.astimezone(NEW_YORK).date()
    splits = broker.splits(today - _SPLITS_BACK, today)
    with ledger.begin() as session:
        traded = account_book.positions_of(session, account_id)
    dividends = broker.dividends(traded, today - _DIVIDENDS_BACK, today)
    with ledger.begin() as session:
        ours = order_book.orders_by_broker_id(session, [o.broker_order_id for o in view.orders])
        confirmed = _confirmed(session, account_id)
        named = {name for one in confirmed for name in one.orders}
        counted = [execution for one in confirmed for execution in one.executions]
        told = _told(session, account_id, min(today - _DIVIDENDS_BACK, view.since))
        opening = account_book.opening_snapshot(session, account_id)
        start = view.since if opening is None else opening.taken_at.astimezone(NEW_YORK).date()
        split = {
            (row.symbol, row.activity_date)
            for row in told
            if row.activity_type == "SPLIT" and row.quantity
        } | {
            (one.symbol, one.at.astimezone(NEW_YORK).date())
            for one in confirmed
            if one.kind == "split"
        }
        paid = {
            (row.symbol, row.net_amount) for row in told if row.activity_type.startswith("DIV")
        } | {(one.symbol, one.cash) for one in confirmed if one.kind == "dividend"}
        due = [
            DueDividend(
                one.symbol,
                one.ex_date,
                one.cash,
                _held_before(session, account_id, one.symbol, one.ex_date),
            )
            for one in dividends
            if one.ex_date > start
        ]
    return Facts(
        now=now,
        orders=[
            order
            for order in view.orders
            if order.broker_order_id not in ours and order.broker_order_id not in named
        ],
        executions=_unconfirmed(booked.unknown, counted),
        confirmed=counted,
        splits=[one for one in splits if (one.symbol, one.ex_date) not in split],
        dividends=[one for one in due if (one.symbol, one.amount) not in paid],
        incomplete=[activity for activity in view.activities if _is_incomplete(activity)],
    )


def _told(session: Session, account_id: str, since: date) -> list[Activity]:
    return list(
        session.scalars(
            select(Activity).where(
                Activity.account_id == account_id, Activity.activity_date >= since
            )
        )
    )


def _unconfirmed(
    executions: Sequence[Execution], counted: Sequence[ForeignExecution]
) -> list[Execution]:
    known = {one.execution_id for one in counted}
    return [one for one in executions if one.execution_id not in known]


def _is_incomplete(activity: AccountActivity) -> bool:
    """Whether the broker posted a split without shares, or a rename without the old name."""
    if activity.activity_type == "SPLIT":
        return not activity.quantity
    return activity.activity_type == "NC" and old_symbol(activity.description, activity.raw) is None


def _held_before(session: Session, account_id: str, symbol: str, day: date) -> Decimal:
    """Shares at the last frozen end of a session before a day, or at the opening."""
    last = (
        select(AccountSnapshot.snapshot_id)
        .where(
            AccountSnapshot.account_id == account_id,
            AccountSnapshot.trading_session < day,
            AccountSnapshot.moment.in_(("opening", "end_of_day")),
        )
        .order_by(AccountSnapshot.trading_session.desc(), AccountSnapshot.snapshot_id.desc())
        .limit(1)
        .scalar_subquery()
    )
    held = select(PositionSnapshot.quantity).where(
        PositionSnapshot.snapshot_id == last, PositionSnapshot.symbol == symbol
    )
    return session.scalar(held) or _ZERO
