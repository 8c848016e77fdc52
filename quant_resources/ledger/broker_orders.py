"""The broker's orders in the ledger: entries, protective legs and replacements, each under its intent.

Belongs here: recording what the broker says of an order of ours, after comparing it with what was frozen.
Does not belong here: what was planned (`intent_book.py`), fills and money (`account_book.py`), and talking
to a broker.

1. The intent's row is locked first, whatever the order's role: two processes that bring news of one
   bracket or of a replaced order wait for each other.
2. An entry must be what was frozen in every term; a leg must be one that its intent froze; a replacement
   was changed at the broker and must keep symbol and side. Nothing may fill more than it is large. What
   is not so is a `WrongOrderError`, and nothing of it is written.
3. Older news than what is recorded change nothing, neither row nor state: by the broker's time of the
   last change, then by what is filled, then by whether it has ended.
4. Row, state and event are one transaction. Entry and replacement move the intent, a leg moves itself.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime
from decimal import Decimal
from typing import cast

from sqlalchemy import ColumnElement, ScalarSelect, and_, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from quant_resources.broker import BrokerOrder
from quant_resources.errors import LedgerError
from quant_resources.ledger.frozen_terms import (
    require_frozen_entry,
    require_frozen_leg,
    require_successor,
    wrong_order,
)
from quant_resources.ledger.intent_book import locked_intent, move
from quant_resources.ledger.order_states import (
    ADOPTED_FROM,
    LEG_TRANSITIONS,
    OPEN,
    TRANSITIONS,
    Actor,
    OrderState,
    leg_state,
    state_at_broker,
)
from quant_resources.ledger.order_tables import (
    ENDED_STATUSES,
    LEG_ROLES,
    LegEvent,
    Order,
    OrderBatch,
    OrderIntent,
    Role,
)


def record_order(session: Session, order: BrokerOrder, actor: Actor, detail: str) -> None:
    """Record what the broker says of an entry of ours: its row, and the intent's state.

    The order is compared with its intent first: a broker's answer about another order is never taken
    for ours. News that came out of order (older than what is recorded) change nothing.

    Args:
        session: The transaction.
        order: An order under the client id of one of our intents.
        actor: Who reads it.
        detail: How it was found, for a person.

    Raises:
        WrongOrderError: The order is not what was frozen, was never to be sent, or filled more than it is.
        LedgerError: There is no such intent, or its status is not known.
    """
    intent = locked_intent(session, order.client_order_id)
    require_frozen_entry(session, intent, order)
    state = state_at_broker(
        order.client_order_id, order.status, order.filled_quantity, order.quantity
    )
    known = session.scalar(
        select(Order.broker_order_id).where(
            Order.client_order_id == order.client_order_id, Order.role == "entry"
        )
    )
    if known is not None and known != order.broker_order_id:
        raise wrong_order(
            session,
            intent,
            f"The broker has two orders under the id {order.client_order_id}: {known} and "
            f"{order.broker_order_id}",
        )
    if _write(session, order, order.client_order_id, "entry", None):
        _follow(session, intent, order, state, actor=actor, detail=detail)
    session.flush()


def record_leg(
    session: Session,
    leg: BrokerOrder,
    intent_client_order_id: str,
    actor: Actor,
    detail: str = "a leg of the bracket",
) -> None:
    """Record what the broker says of a protective leg: its row, and its own transition.

    Args:
        session: The transaction.
        leg: The order, with `parent_order_id`; its parent is recorded already.
        intent_client_order_id: The intent whose bracket it is a leg of.
        actor: Who reads it.
        detail: How it was found, for a person.

    Raises:
        WrongOrderError: The intent froze no such leg, or it filled more than it is.
        LedgerError: There is no such intent or parent, or its status is not known.
    """
    intent = locked_intent(session, intent_client_order_id)
    parent = _own(session, intent, leg)
    role: Role = "take_profit" if leg.order_type == "limit" else "stop_loss"
    # Who replaced the entry at the broker has changed its bracket with it.
    require_frozen_leg(session, intent, leg, role, by_terms=parent.role == "entry")
    _record_leg_state(
        session, intent, leg, role, parent.broker_order_id, actor=actor, detail=detail
    )


def record_replacement(
    session: Session,
    order: BrokerOrder,
    actor: Actor,
    detail: str = "it took the place of an order of ours",
) -> None:
    """Record an order that took the place of one of ours (`order.replaces`), under the same intent.

    A replaced entry's successor drives the intent on; a replaced leg's successor is that leg now.

    Raises:
        WrongOrderError: Symbol or side are not those of the order replaced, or it filled more than it is.
        LedgerError: The order that it replaces is not recorded, or its status is not known.
    """
    replaced = session.get(Order, order.replaces)
    if replaced is None:
        raise LedgerError(
            f"The broker's order {order.broker_order_id} ({order.symbol}) replaces {order.replaces}, which "
            "the ledger does not know; record that one first."
        )
    intent = locked_intent(session, replaced.client_order_id)
    require_successor(session, intent, replaced, order)
    if replaced.role in LEG_ROLES:
        role = cast("Role", replaced.role)
        parent = replaced.parent_order_id
        _record_leg_state(session, intent, order, role, parent, actor=actor, detail=detail)
        return
    state = state_at_broker(
        order.broker_order_id, order.status, order.filled_quantity, order.quantity
    )
    news = _write(session, order, intent.client_order_id, "replacement", replaced.broker_order_id)
    # What the replaced order filled still stands: an empty successor takes none of it back.
    takes_back = (intent.state, state) == (OrderState.PARTIALLY_FILLED, OrderState.ACCEPTED)
    if news and not takes_back:
        _follow(session, intent, order, state, actor=actor, detail=detail)
    session.flush()


def open_client_ids(session: Session, account_id: str) -> list[str]:
    """Client ids of the intents whose orders the broker may still fill, as far as the ledger knows."""
    return list(
        session.scalars(
            select(OrderIntent.client_order_id)
            .join(OrderBatch, OrderBatch.batch_id == OrderIntent.batch_id)
            .where(OrderBatch.account_id == account_id, OrderIntent.state.in_(sorted(OPEN)))
        )
    )


def open_entries(
    session: Session, account_id: str, symbols: Collection[str] | None = None
) -> list[Order]:
    """Entries and replacements of entries that may still fill, by submission; of some symbols, or all."""
    return _open(session, account_id, symbols, Order.role.not_in(LEG_ROLES))


def open_legs(
    session: Session, account_id: str, symbols: Collection[str] | None = None
) -> list[Order]:
    """Protective legs that may still fill or are held until their entry has; of some symbols, or all."""
    return _open(session, account_id, symbols, Order.role.in_(LEG_ROLES))


def _open(
    session: Session,
    account_id: str,
    symbols: Collection[str] | None,
    which: ColumnElement[bool],
) -> list[Order]:
    query = select(Order).where(
        which, Order.status.not_in(ENDED_STATUSES), _account_of(Order) == account_id
    )
    if symbols is not None:
        query = query.where(Order.symbol.in_(symbols))
    return list(session.scalars(query.order_by(Order.submitted_at, Order.broker_order_id)))


def recorded_orders(
    session: Session, broker_order_ids: Collection[str]
) -> dict[str, tuple[str, Decimal, datetime]]:
    """What is recorded of each order: status, filled quantity, the broker's time of the last change."""
    rows = session.execute(
        select(Order.broker_order_id, Order.status, Order.filled_quantity, Order.updated_at).where(
            Order.broker_order_id.in_(broker_order_ids)
        )
    )
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def orders_by_broker_id(session: Session, broker_order_ids: Collection[str]) -> dict[str, Order]:
    """Recorded orders of every role, by the broker's id."""
    rows = session.scalars(select(Order).where(Order.broker_order_id.in_(broker_order_ids)))
    return {row.broker_order_id: row for row in rows}


def orders_of(session: Session, account_id: str, trading_session: date) -> list[Order]:
    """The broker's orders of a trading session's batches, legs and replacements too, by submission."""
    return list(
        session.scalars(
            select(Order)
            .join(OrderIntent, OrderIntent.client_order_id == Order.client_order_id)
            .join(OrderBatch, OrderBatch.batch_id == OrderIntent.batch_id)
            .where(
                OrderBatch.account_id == account_id, OrderBatch.trading_session == trading_session
            )
            .order_by(Order.submitted_at, Order.client_order_id, Order.broker_order_id)
        )
    )


def orders_submitted_since(session: Session, account_id: str, start: datetime) -> list[Order]:
    """The account's orders that the broker took at or after a time, of every role."""
    return list(
        session.scalars(
            select(Order)
            .where(Order.submitted_at >= start, _account_of(Order) == account_id)
            .order_by(Order.submitted_at, Order.broker_order_id)
        )
    )


def _account_of(order: type[Order]) -> ScalarSelect[str]:
    """The account of an order, asked for each that is found otherwise.

    Joined, the planner of a server that has no statistics yet begins with the account and walks through
    every order that it ever had.
    """
    return (
        select(OrderBatch.account_id)
        .join(OrderIntent, OrderIntent.batch_id == OrderBatch.batch_id)
        .where(OrderIntent.client_order_id == order.client_order_id)
        .scalar_subquery()
    )


def _write(
    session: Session,
    order: BrokerOrder,
    client_order_id: str,
    role: Role,
    parent_order_id: str | None,
) -> bool:
    """Insert or update the row; whether these were news, or as new as what is recorded."""
    values = {
        "filled_quantity": order.filled_quantity,
        "average_fill_price": order.average_fill_price,
        "status": order.status,
        "updated_at": order.updated_at,
    }
    row = insert(Order).values(
        broker_order_id=order.broker_order_id,
        client_order_id=client_order_id,
        role=role,
        parent_order_id=parent_order_id,
        broker_client_order_id=order.client_order_id,
        symbol=order.symbol,
        side=order.side,
        quantity=order.quantity,
        notional=order.notional,
        order_type=order.order_type,
        time_in_force=order.time_in_force,
        limit_price=order.limit_price,
        stop_price=order.stop_price,
        submitted_at=order.submitted_at,
        **values,
    )
    same_fill = or_(
        Order.filled_quantity < row.excluded.filled_quantity,
        and_(
            Order.filled_quantity == row.excluded.filled_quantity,
            or_(
                Order.status.not_in(ENDED_STATUSES),
                row.excluded.status.in_(ENDED_STATUSES),
            ),
        ),
    )
    written = session.scalar(
        row.on_conflict_do_update(
            index_elements=[Order.broker_order_id],
            set_=values,
            where=or_(
                Order.updated_at < row.excluded.updated_at,
                and_(Order.updated_at == row.excluded.updated_at, same_fill),
            ),
        ).returning(Order.broker_order_id)
    )
    return written is not None


def _follow(
    session: Session,
    intent: OrderIntent,
    order: BrokerOrder,
    state: OrderState,
    *,
    actor: Actor,
    detail: str,
) -> None:
    """Move the intent to where its order is, adopting the order first where that is news."""
    old = OrderState(intent.state)
    if old in ADOPTED_FROM and old != state:
        move(session, intent, OrderState.ACCEPTED, actor, detail=detail, raw=order.raw)
        old = OrderState.ACCEPTED
    # The order that took a replaced one's place says how the intent goes on.
    if order.status != "replaced" and (old, state) in TRANSITIONS:
        move(session, intent, state, actor, detail=f"broker: {order.status}", raw=order.raw)


def _record_leg_state(
    session: Session,
    intent: OrderIntent,
    leg: BrokerOrder,
    role: Role,
    parent_order_id: str | None,
    *,
    actor: Actor,
    detail: str,
) -> None:
    """Write a leg's row and, where it has moved, its event; the first sight of it is its birth."""
    known = session.get(Order, leg.broker_order_id, populate_existing=True)
    old = (
        None
        if known is None
        else leg_state(known.broker_order_id, known.status, known.filled_quantity, known.quantity)
    )
    state = leg_state(leg.broker_order_id, leg.status, leg.filled_quantity, leg.quantity)
    if not _write(session, leg, intent.client_order_id, role, parent_order_id):
        return
    session.flush()
    if old is None:
        _leg_event(session, leg, None, OrderState.ACCEPTED, actor=actor, detail=detail)
        old = OrderState.ACCEPTED
    if (old, state) in LEG_TRANSITIONS:
        _leg_event(session, leg, old, state, actor=actor, detail=f"broker: {leg.status}")
    session.flush()


def _leg_event(
    session: Session,
    leg: BrokerOrder,
    old: OrderState | None,
    new: OrderState,
    *,
    actor: Actor,
    detail: str,
) -> None:
    session.add(
        LegEvent(
            broker_order_id=leg.broker_order_id,
            from_state=None if old is None else str(old),
            to_state=str(new),
            actor=str(actor),
            detail=detail,
            broker_message=dict(leg.raw),
        )
    )


def _own(session: Session, intent: OrderIntent, leg: BrokerOrder) -> Order:
    """The recorded order that a leg protects."""
    parent = session.get(Order, leg.parent_order_id) if leg.parent_order_id else None
    if parent is None:
        raise LedgerError(
            f"The broker's order {leg.broker_order_id} ({leg.symbol}) is said to protect "
            f"{leg.parent_order_id}, which the ledger does not know; record that one first."
        )
    if parent.client_order_id != intent.client_order_id:
        raise wrong_order(
            session,
            intent,
            f"The leg {leg.broker_order_id} protects {parent.broker_order_id} of order "
            f"{parent.client_order_id}, not order {intent.client_order_id}",
        )
    return parent
