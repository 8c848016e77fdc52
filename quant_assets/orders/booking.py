"""Booking what happened at the broker: orders, fills, activities and their effect on positions.

Belongs here: everything that moves the ledger towards the broker's record. Does not belong here: sending
orders (`submission.py`), position arithmetic (`positions.py`), comparing and freezing (`evidence.py`).

1. The first contact with an account writes its opening balance; from then on everything is explained by
   fills and activities.
2. A sync reads orders, executions and activities from the broker first, then books all of them in one
   transaction, under a lock of the database so that two processes cannot book side by side.
3. An execution is booked once, by the broker's id, with its effect on the position in the same
   transaction. An execution of an order that the ledger does not know is booked nowhere: it is drift.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from quant_assets.orders.positions import (
    Holding,
    after_fill,
    after_share_change,
    round_step,
    signed,
)
from quant_resources.broker import (
    Account,
    AccountActivity,
    Broker,
    BrokerOrder,
    BrokerPosition,
    Execution,
)
from quant_resources.calendar import NEW_YORK, start_of_day
from quant_resources.errors import BrokerError, LedgerError
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_states import Actor
from quant_resources.ledger.order_tables import (
    AccountSnapshot,
    Activity,
    Fill,
    Order,
    Position,
    PositionSnapshot,
)

#: Activities whose `qty` changes the holding; a dividend's says what it was paid on.
SHARE_CHANGES: Final = frozenset(
    {"SPLIT", "SPIN", "MA", "REORG", "NC", "JNLS", "ACATS", "SSO", "SSP", "VOF"}
)
_RENAMED: Final = re.compile(r"^(\S+) is now \S+$")
#: Days before the last agreed comparison that are read again: activities are posted late.
_OVERLAP: Final = timedelta(days=4)
_ZERO: Final = Decimal(0)


@dataclass(frozen=True)
class BrokerView:
    """What the broker said in one sync."""

    account: Account
    positions: Sequence[BrokerPosition]
    orders: Sequence[BrokerOrder]
    executions: Sequence[Execution]
    activities: Sequence[AccountActivity]
    since: date


@dataclass(frozen=True)
class Booked:
    """What a sync has booked, and what it found.

    Attributes:
        unknown: Executions whose order the ledger does not know.
        view: The broker's answers.
    """

    fills: int
    activities: int
    unknown: Sequence[Execution]
    view: BrokerView


def sync_with_broker(ledger: Ledger, broker: Broker) -> Booked:
    """Read the broker and book what is new.

    Returns:
        How much was booked, and the broker's view it was booked from.

    Raises:
        BrokerError: The broker gives no usable answer, or one that contradicts itself.
        LedgerError: The broker's order is not the one that was frozen.
    """
    account = broker.account()
    now = broker.clock().now
    today = now.astimezone(NEW_YORK).date()
    with ledger.begin() as session:
        opening = account_book.opening_snapshot(session, account.account_id)
        last = account_book.last_agreement(session, account.account_id)
        waiting = order_book.open_client_ids(session, account.account_id)
    if opening is None:
        _write_opening(ledger, broker, account, now, today)
        since = today
    else:
        start = opening.taken_at.astimezone(NEW_YORK).date()
        since = start if last is None else max(start, last - _OVERLAP)
    view = _read(broker, account, since, waiting)
    with halting_on_wrong_orders(ledger), ledger.begin() as session:
        session.execute(
            select(
                func.pg_advisory_xact_lock(
                    func.hashtextextended(f"booking:{account.account_id}", 0)
                )
            )
        )
        _book_orders(session, view.orders)
        fills, unknown = _book_executions(session, view)
        activities = _book_activities(session, view)
    return Booked(fills, activities, unknown, view)


@contextmanager
def halting_on_wrong_orders(ledger: Ledger) -> Iterator[None]:
    """Halt the book whose order is, at the broker, not the one that was frozen."""
    try:
        yield
    except order_book.WrongOrderError as error:
        with ledger.begin() as session:
            if account_book.trading_status(session, error.book).state != "HALTED":
                account_book.set_trading_status(
                    session, error.book, "HALTED", str(error), "booking"
                )
        raise


def _read(broker: Broker, account: Account, since: date, waiting: Sequence[str]) -> BrokerView:
    # Positions and account come last: what was filled meanwhile then shows as a difference that the
    # second look explains, and never as agreement by chance.
    orders = {
        order.client_order_id: order
        for order in broker.orders_since(start_of_day(since) - timedelta(microseconds=1))
    }
    for client_order_id in waiting:
        if client_order_id not in orders:
            found = broker.order_by_client_id(client_order_id)
            if found is not None:
                orders[client_order_id] = found
    executions = broker.executions(since)
    activities = broker.activities(since)
    positions = broker.positions()
    fresh = broker.account()
    if fresh.account_id != account.account_id:
        raise BrokerError(
            f"The broker answered for account {fresh.account_number} after {account.account_number}; "
            "nothing was booked."
        )
    return BrokerView(fresh, positions, list(orders.values()), executions, activities, since)


def _write_opening(
    ledger: Ledger, broker: Broker, account: Account, now: datetime, today: date
) -> None:
    """Write down what the account holds when the ledger first meets it."""
    positions = broker.positions()
    past = broker.activities(today)
    with ledger.begin() as session:
        session.execute(
            select(
                func.pg_advisory_xact_lock(
                    func.hashtextextended(f"booking:{account.account_id}", 0)
                )
            )
        )
        if account_book.opening_snapshot(session, account.account_id) is not None:
            return
        snapshot = account_snapshot(account, today, "opening", "ACTIVE", now)
        session.add(snapshot)
        session.flush()
        for position in positions:
            session.add(
                Position(
                    account_id=account.account_id,
                    symbol=position.symbol,
                    security_id=None,
                    quantity=position.quantity,
                    average_price=position.average_price,
                    realised_pnl=_ZERO,
                )
            )
            session.add(
                PositionSnapshot(
                    snapshot_id=snapshot.snapshot_id,
                    symbol=position.symbol,
                    security_id=None,
                    quantity=position.quantity,
                    average_price=position.average_price,
                    market_price=position.market_price,
                    market_value=position.market_value,
                    realised_pnl=_ZERO,
                    unrealised_pnl=Holding(
                        position.quantity, position.average_price
                    ).unrealised_pnl(position.market_price),
                )
            )
        for activity in past:
            # The opening balance holds their effect already.
            session.add(
                _activity_row(
                    account.account_id,
                    replace(
                        activity,
                        quantity=None,
                        net_amount=_ZERO,
                        description=f"before the ledger's opening: {activity.description}",
                    ),
                    _ZERO,
                )
            )


def _book_orders(session: Session, orders: Sequence[BrokerOrder]) -> None:
    """Record orders of ours that are new or have changed; most have ended long ago."""
    known = order_book.known_client_ids(session, [order.client_order_id for order in orders])
    recorded = order_book.recorded_orders(session, [order.broker_order_id for order in orders])
    for order in orders:
        news = (order.status, order.filled_quantity, order.updated_at)
        if order.client_order_id in known and recorded.get(order.broker_order_id) != news:
            order_book.record_order(session, order, Actor.BOOKING, "found at the broker")


def _book_executions(session: Session, view: BrokerView) -> tuple[int, list[Execution]]:
    account_id = view.account.account_id
    booked = account_book.booked_execution_ids(
        session, [execution.execution_id for execution in view.executions]
    )
    fresh = [e for e in view.executions if e.execution_id not in booked]
    orders = {
        row.broker_order_id: row
        for row in session.scalars(
            select(Order).where(Order.broker_order_id.in_([e.broker_order_id for e in fresh]))
        )
    }
    positions = account_book.positions_of(session, account_id)
    names = order_book.security_ids(session, [o.client_order_id for o in orders.values()])
    unknown: list[Execution] = []
    for execution in sorted(fresh, key=lambda e: (e.filled_at, e.execution_id)):
        order = orders.get(execution.broker_order_id)
        if order is None:
            unknown.append(execution)
            continue
        if (order.symbol, order.side) != (execution.symbol, execution.side):
            raise LedgerError(
                f"The broker's fill {execution.execution_id} ({execution.side} {execution.symbol}) is "
                f"said to be of order {order.client_order_id} ({order.side} {order.symbol}); nothing "
                "was booked, a person must look at it."
            )
        row = _position_row(session, positions, account_id, execution.symbol)
        row.security_id = names[order.client_order_id]
        realised = _move(
            row,
            after_fill(
                holding_of(row), signed(execution.side, execution.quantity), execution.price
            ),
        )
        session.add(
            Fill(
                execution_id=execution.execution_id,
                account_id=account_id,
                trading_session=execution.filled_at.astimezone(NEW_YORK).date(),
                client_order_id=order.client_order_id,
                broker_order_id=order.broker_order_id,
                symbol=execution.symbol,
                side=execution.side,
                quantity=execution.quantity,
                price=execution.price,
                realised_pnl=realised,
                filled_at=execution.filled_at,
                broker_message=dict(execution.raw),
            )
        )
    session.flush()
    return len(fresh) - len(unknown), unknown


def _book_activities(session: Session, view: BrokerView) -> int:
    account_id = view.account.account_id
    booked = account_book.booked_activity_ids(
        session, [activity.activity_id for activity in view.activities]
    )
    positions = account_book.positions_of(session, account_id)
    fresh = [a for a in view.activities if a.activity_id not in booked]
    for activity in fresh:
        realised = _ZERO
        changes = activity.activity_type in SHARE_CHANGES and activity.quantity
        if changes and activity.symbol is not None:
            row = _position_row(session, positions, account_id, activity.symbol)
            if activity.activity_type == "NC":
                _rename(session, positions, row, activity)
            else:
                realised = _move(row, _after_activity(holding_of(row), activity))
        session.add(_activity_row(account_id, activity, realised))
    session.flush()
    return len(fresh)


def _after_activity(holding: Holding, activity: AccountActivity) -> Holding:
    """A share change for money is a trade at its price; one without money leaves the cost."""
    change = activity.quantity or _ZERO
    if activity.net_amount and change:
        return after_fill(holding, change, round_step(abs(activity.net_amount / change)))
    return after_share_change(holding, change)


def _rename(
    session: Session, positions: dict[str, Position], new: Position, activity: AccountActivity
) -> None:
    """Move what was held under the old symbol; a rename that does not name it stays drift."""
    named = _RENAMED.match(activity.description)
    old_symbol = activity.raw.get("old_symbol") or (named.group(1) if named else None)
    old = positions.get(str(old_symbol))
    if old is None or old is new:
        return
    new.quantity, new.average_price = old.quantity, old.average_price
    new.security_id = old.security_id
    old.quantity = old.average_price = _ZERO
    session.flush()


def _position_row(
    session: Session, positions: dict[str, Position], account_id: str, symbol: str
) -> Position:
    if symbol not in positions:
        positions[symbol] = Position(
            account_id=account_id,
            symbol=symbol,
            security_id=None,
            quantity=_ZERO,
            average_price=_ZERO,
            realised_pnl=_ZERO,
        )
        session.add(positions[symbol])
    return positions[symbol]


def holding_of(row: Position) -> Holding:
    """A position of the ledger as the accounting sees it."""
    return Holding(row.quantity, row.average_price, row.realised_pnl)


def _move(row: Position, after: Holding) -> Decimal:
    realised = after.realised_pnl - row.realised_pnl
    row.quantity, row.average_price = after.quantity, after.average_price
    row.realised_pnl = after.realised_pnl
    return realised


def _activity_row(account_id: str, activity: AccountActivity, realised: Decimal) -> Activity:
    return Activity(
        activity_id=activity.activity_id,
        account_id=account_id,
        activity_type=activity.activity_type,
        activity_date=activity.activity_date,
        symbol=activity.symbol,
        quantity=activity.quantity,
        net_amount=activity.net_amount,
        realised_pnl=realised,
        description=activity.description,
        broker_message=dict(activity.raw),
    )


def account_snapshot(
    account: Account, trading_session: date, moment: str, state: str, now: datetime
) -> AccountSnapshot:
    """The account at one moment, as a row of the ledger."""
    return AccountSnapshot(
        account_id=account.account_id,
        trading_session=trading_session,
        moment=moment,
        taken_at=now,
        equity=account.equity,
        cash=account.cash,
        buying_power=account.buying_power,
        long_value=account.long_value,
        short_value=account.short_value,
        previous_equity=account.previous_equity,
        trading_state=state,
        broker_message=dict(account.raw),
    )
