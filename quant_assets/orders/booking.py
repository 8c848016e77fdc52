"""Booking what happened at the broker: orders, fills, corrections, activities and their effect on positions.

Belongs here: everything that moves the ledger towards the broker's record. Does not belong here: sending
orders (`submission.py`), position arithmetic (`positions.py`, `position_history.py`), comparing (`comparison.py`) and
freezing (`evidence.py`).

1. The first contact with an account writes its opening balance (`opening_balance.py`); from then on everything is
   explained by fills, corrections, activities and confirmed adjustments.
2. A sync reads orders, executions and activities from the broker first (`broker_view.py`), then books all of them in
   one transaction, under a lock of the database so that two processes cannot book side by side.
3. Entries, then what replaced an order of ours, then protective legs are recorded under their intent.
4. An execution is booked once, by the broker's id, with its effect on the position in the same transaction. An
   execution of an order that the ledger does not know is booked nowhere: it is drift.
5. Fills and activities are booked in the order in which they happened: a split of the morning before the fills of
   the day, whenever either was posted. A bust or correction changes what its fill counts, at the fill's place.
6. An activity that tells what somebody has confirmed as an adjustment before is noted and changes nothing.
7. What contradicts itself (a fill of another symbol or side than its order, more filled than ordered) is never
   booked: the book is halted, and the error says which order, which fill and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from quant_assets.orders.broker_view import BrokerView, read_view
from quant_assets.orders.confirmed_before import ConfirmedBefore
from quant_assets.orders.halting import tighten
from quant_assets.orders.ledger_history import LedgerPositions, activity_event, fill_event
from quant_assets.orders.opening_balance import activity_row, write_opening
from quant_assets.orders.positions import round_step
from quant_resources.broker import AccountActivity, Broker, BrokerOrder, Execution
from quant_resources.calendar import NEW_YORK, start_of_day
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.counted_fills import (
    CountedFill,
    corrections_by_fill,
    counted,
    counting_session,
)
from quant_resources.ledger.frozen_terms import wrong_order
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_states import Actor
from quant_resources.ledger.order_tables import (
    LEG_ROLES,
    Fill,
    FillCorrection,
    Order,
    OrderIntent,
)

#: Days before the last agreed comparison that are read again: activities are posted late.
_OVERLAP: Final = timedelta(days=4)
_ZERO: Final = Decimal(0)
_FOUND: Final = "found at the broker"


@dataclass(frozen=True)
class Booked:
    """What a sync has booked, and what it found.

    Attributes:
        fills: Fills that are new.
        corrections: Busts and corrections that are new.
        activities: Activities that are new.
        changed_orders: Orders of ours of which the broker had news.
        unknown: Executions, busts and corrections whose order or fill the ledger does not know.
        view: The broker's answers.
    """

    fills: int
    corrections: int
    activities: int
    changed_orders: int
    unknown: Sequence[Execution]
    view: BrokerView


def sync_with_broker(ledger: Ledger, broker: Broker) -> Booked:
    """Read the broker and book what is new.

    Returns:
        How much was booked, and the broker's view it was booked from.

    Raises:
        BrokerError: The broker gives no usable answer, or one that contradicts itself.
        LedgerError: The broker's order is not the one that was frozen, or a fill contradicts its order.
    """
    account = broker.account()
    now = broker.clock().now
    today = now.astimezone(NEW_YORK).date()
    with ledger.begin() as session:
        opening = account_book.opening_snapshot(session, account.account_id)
        last = account_book.last_agreement(session, account.account_id)
        waiting = order_book.open_client_ids(session, account.account_id)
        open_orders = [
            *order_book.open_entries(session, account.account_id),
            *order_book.open_legs(session, account.account_id),
        ]
    waiting = sorted({*waiting, *(order.broker_client_order_id for order in open_orders)})
    if opening is None:
        with ledger.begin() as session:
            lock_booking(session, account.account_id)
            write_opening(session, broker, account, now)
        since = today
    else:
        start = opening.taken_at.astimezone(NEW_YORK).date()
        since = start if last is None else max(start, last - _OVERLAP)
    view = read_view(broker, account, since, waiting)
    with halting_on_wrong_orders(ledger), ledger.begin() as session:
        lock_booking(session, account.account_id)
        return _book(session, view)


def lock_booking(session: Session, account_id: str) -> None:
    """Let one transaction at a time move an account's positions; the lock ends with it."""
    session.execute(
        select(func.pg_advisory_xact_lock(func.hashtextextended(f"booking:{account_id}", 0)))
    )


@contextmanager
def halting_on_wrong_orders(ledger: Ledger) -> Iterator[None]:
    """Halt the book whose order is, at the broker, not the one that was frozen."""
    try:
        yield
    except order_book.WrongOrderError as error:
        with ledger.begin() as session:
            tighten(session, error.book, "HALTED", str(error), "booking")
        raise


def _book(session: Session, view: BrokerView) -> Booked:
    view = _with_known_parents(session, view)
    changed = _book_orders(session, view.orders)
    fills, corrections, activities = _new(session, view)
    orders = order_book.orders_by_broker_id(session, [e.broker_order_id for e in fills])
    unknown = [e for e in fills if e.broker_order_id not in orders]
    booked = sorted([e for e in fills if e.broker_order_id in orders] + activities, key=_happened)
    if booked:
        positions = LedgerPositions(session, view.account.account_id, _happened(booked[0])[0])
        before = ConfirmedBefore(session, view.account.account_id)
        names = order_book.security_ids(session, [o.client_order_id for o in orders.values()])
        for one in booked:
            if isinstance(one, Execution):
                order = orders[one.broker_order_id]
                _book_fill(session, positions, order, one, view.account.account_id)
                positions.name(one.symbol, names[order.client_order_id])
            else:
                _book_activity(session, positions, before.without(one), view.account.account_id)
        session.flush()
    strange = _book_corrections(session, view.account.account_id, corrections)
    _refuse_overfills(session, [*orders, *(e.broker_order_id for e in corrections)])
    return Booked(
        fills=len(fills) - len(unknown),
        corrections=len(corrections) - len(strange),
        activities=len(activities),
        changed_orders=changed,
        unknown=[*unknown, *strange],
        view=view,
    )


def _with_known_parents(session: Session, view: BrokerView) -> BrokerView:
    """The view with the parents of protective legs that were looked up alone.

    A leg lives longer than its entry stays in the broker's lists, and an answer about a leg alone does not say
    what it protects: the ledger knows it since both were seen together.
    """
    alone = [order.broker_order_id for order in view.orders if order.parent_order_id is None]
    legs = {
        name: row.parent_order_id
        for name, row in order_book.orders_by_broker_id(session, alone).items()
        if row.role in LEG_ROLES
    }
    orders = [
        replace(order, parent_order_id=legs[order.broker_order_id])
        if order.broker_order_id in legs
        else order
        for order in view.orders
    ]
    return replace(view, orders=orders)


def _book_orders(session: Session, orders: Sequence[BrokerOrder]) -> int:
    """Record orders of ours that are new or have changed; most have ended long ago."""
    by_id = {order.broker_order_id: order for order in orders}
    recorded = order_book.recorded_orders(session, list(by_id))
    news = [
        order
        for order in orders
        if recorded.get(order.broker_order_id)
        != (order.status, order.filled_quantity, order.updated_at)
    ]
    known = order_book.known_client_ids(session, [order.client_order_id for order in news])
    changed = 0
    for order in news:
        if order.client_order_id in known and not order.protects:
            order_book.record_order(session, order, Actor.BOOKING, _FOUND)
            changed += 1
    # A replacement of a replacement needs the one before it; a leg needs the order that it protects.
    later = [order for order in news if order.protects or order.client_order_id not in known]
    for order in sorted(later, key=lambda one: (one.submitted_at, one.protects)):
        changed += _book_related(session, order)
    return changed


def _book_related(session: Session, order: BrokerOrder) -> int:
    """Record what took the place of an order of ours, or protects one; others are not ours."""
    related = [name for name in (order.replaces, order.parent_order_id) if name is not None]
    ours = order_book.orders_by_broker_id(session, [*related, order.broker_order_id])
    if order.replaces in ours:
        order_book.record_replacement(session, order, Actor.BOOKING)
    elif order.parent_order_id in ours:
        intent = ours[order.parent_order_id].client_order_id
        order_book.record_leg(session, order, intent, Actor.BOOKING)
    else:
        return 0
    return 1


def _new(
    session: Session, view: BrokerView
) -> tuple[list[Execution], list[Execution], list[AccountActivity]]:
    """Fills, their busts and corrections, and activities that are not booked yet."""
    names = [execution.execution_id for execution in view.executions]
    booked = account_book.booked_execution_ids(session, names) | set(
        session.scalars(
            select(FillCorrection.correction_id).where(FillCorrection.correction_id.in_(names))
        )
    )
    fresh = [one for one in view.executions if one.execution_id not in booked]
    told = account_book.booked_activity_ids(
        session, [activity.activity_id for activity in view.activities]
    )
    return (
        [one for one in fresh if one.kind == "fill"],
        [one for one in fresh if one.kind != "fill"],
        [one for one in view.activities if one.activity_id not in told],
    )


def _happened(one: Execution | AccountActivity) -> tuple[datetime, int, str]:
    """Where it belongs in the order in which things happened."""
    if isinstance(one, Execution):
        return (one.filled_at, 1, one.execution_id)
    return (start_of_day(one.activity_date), 0, one.activity_id)


def _book_fill(
    session: Session,
    positions: LedgerPositions,
    order: Order,
    execution: Execution,
    account_id: str,
) -> None:
    if (order.symbol, order.side) != (execution.symbol, execution.side):
        raise _wrong(
            session,
            order.client_order_id,
            f"The broker's fill {execution.execution_id} ({execution.side} {execution.symbol}) is "
            f"said to be of order {order.client_order_id} ({order.side} {order.symbol}) and was not booked",
        )
    fill = Fill(
        execution_id=execution.execution_id,
        account_id=account_id,
        trading_session=execution.filled_at.astimezone(NEW_YORK).date(),
        client_order_id=order.client_order_id,
        broker_order_id=order.broker_order_id,
        symbol=execution.symbol,
        side=execution.side,
        quantity=round_step(execution.quantity),
        price=round_step(execution.price),
        filled_at=execution.filled_at,
        broker_message=dict(execution.raw),
    )
    fill.realised_pnl = positions.play(fill_event(fill))
    session.add(fill)


def _book_activity(
    session: Session, positions: LedgerPositions, activity: AccountActivity, account_id: str
) -> None:
    row = activity_row(account_id, activity)
    event = activity_event(row)
    if event is not None:
        row.realised_pnl = positions.play(event)
    session.add(row)


def _book_corrections(
    session: Session, account_id: str, executions: Sequence[Execution]
) -> list[Execution]:
    """Book busts and corrections in the order in which the broker made them.

    Returns:
        Those of fills that the ledger does not know.
    """
    if not executions:
        return []
    ordered = sorted(executions, key=lambda one: (one.filled_at, one.execution_id))
    roots = _roots(session, ordered)
    fills = {
        row.execution_id: row
        for row in session.scalars(select(Fill).where(Fill.execution_id.in_(roots.values())))
    }
    known = [one for one in ordered if roots[one.execution_id] in fills]
    if known:
        earliest = min(fills[roots[one.execution_id]].filled_at for one in known)
        positions = LedgerPositions(session, account_id, earliest)
        for one in known:
            _book_correction(session, positions, fills[roots[one.execution_id]], one)
    return [one for one in ordered if roots[one.execution_id] not in fills]


def _roots(session: Session, executions: Sequence[Execution]) -> dict[str, str]:
    """The fill behind each correction: one may correct what an earlier one made of it."""
    named = [one.corrects for one in executions if one.corrects is not None]
    rows = session.execute(
        select(FillCorrection.correction_id, FillCorrection.execution_id).where(
            FillCorrection.correction_id.in_(named)
        )
    )
    roots: dict[str, str] = {row[0]: row[1] for row in rows}
    for one in executions:
        corrects = one.corrects or ""
        roots[one.execution_id] = roots.get(corrects, corrects)
    return roots


def _book_correction(
    session: Session, positions: LedgerPositions, fill: Fill, execution: Execution
) -> None:
    if (fill.symbol, fill.side, fill.broker_order_id) != (
        execution.symbol,
        execution.side,
        execution.broker_order_id,
    ):
        raise _wrong(
            session,
            fill.client_order_id,
            f"The broker's {execution.kind} {execution.execution_id} ({execution.side} {execution.symbol}) is "
            f"said to be of fill {fill.execution_id} ({fill.side} {fill.symbol}, order "
            f"{fill.client_order_id}) and was not booked",
        )
    bust = execution.kind == "bust" or not execution.quantity
    history = corrections_by_fill(session, [fill.execution_id]).get(fill.execution_id, [])
    before = counted(fill, history)
    row = FillCorrection(
        correction_id=execution.execution_id,
        account_id=fill.account_id,
        execution_id=fill.execution_id,
        kind="bust" if bust else "correct",
        trading_session=max(
            counting_session(session, fill.account_id, execution.filled_at), fill.trading_session
        ),
        quantity=_ZERO if bust else round_step(execution.quantity),
        price=fill.price if bust else round_step(execution.price),
        realised_pnl=_ZERO,
        corrected_at=execution.filled_at,
        broker_message=dict(execution.raw),
    )
    after = counted(fill, [*history, row])
    row.cash = round_step(before.change * before.price - after.change * after.price)
    row.realised_pnl = positions.play(fill_event(after))
    account_book.record_correction(session, row)


def _refuse_overfills(session: Session, broker_order_ids: Sequence[str]) -> None:
    """Refuse fills that add up to more than their order is large."""
    fills = session.scalars(select(Fill).where(Fill.broker_order_id.in_(broker_order_ids))).all()
    corrections = corrections_by_fill(session, [fill.execution_id for fill in fills])
    filled: dict[str, list[CountedFill]] = {}
    for fill in fills:
        now = counted(fill, corrections.get(fill.execution_id, ()))
        filled.setdefault(fill.broker_order_id, []).append(now)
    orders: Mapping[str, Order] = order_book.orders_by_broker_id(session, list(filled))
    for name, own in filled.items():
        order = orders[name]
        total = sum((one.quantity for one in own), _ZERO)
        if order.quantity is not None and total > order.quantity:
            raise _wrong(
                session,
                order.client_order_id,
                f"The broker's fills of order {order.client_order_id} ({order.side} {order.symbol}) add up to "
                f"{total.normalize():f} shares, the order has {order.quantity.normalize():f}; nothing was booked",
            )


def _wrong(session: Session, client_order_id: str, finding: str) -> order_book.WrongOrderError:
    return wrong_order(session, session.get_one(OrderIntent, client_order_id), finding)
