"""Batches, intents and their states in the ledger; every function works inside the caller's transaction.

Belongs here: freezing and reading what was planned, and moving an intent through the one table of
`order_states.py`, each time with its event. Does not belong here: what the broker made of an intent
(`broker_orders.py`), deciding what to send (`quant_assets.orders`) and talking to a broker.

Two processes that move one intent at once wait for each other at its row: `locked_intent` takes the row's
lock and reads it anew, so that the second one decides on what the first one has committed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from quant_resources.errors import LedgerError
from quant_resources.ledger.order_states import (
    UNFINISHED,
    Actor,
    OrderState,
    assert_legal,
)
from quant_resources.ledger.order_tables import (
    IntentSignal,
    Order,
    OrderBatch,
    OrderEvent,
    OrderIntent,
    TargetPosition,
)


def newest_batch(session: Session, book: str, trading_session: date) -> OrderBatch | None:
    """The batch of the latest attempt, if any was frozen."""
    return session.scalars(
        select(OrderBatch)
        .where(OrderBatch.book == book, OrderBatch.trading_session == trading_session)
        .order_by(OrderBatch.attempt.desc())
        .limit(1)
    ).first()


def freeze_batch(
    session: Session,
    batch: OrderBatch,
    targets: Sequence[TargetPosition],
    intents: Sequence[OrderIntent],
    signals: Sequence[IntentSignal],
) -> int:
    """Write a batch with its targets, intents and links; all of it or, with the transaction, nothing.

    Args:
        session: The transaction.
        batch: The batch, without an id.
        targets: Targets of all strategies; their batch_id is set here.
        intents: Intents in their initial states, closing legs before the legs that wait for them.
        signals: At least one per intent.

    Returns:
        The batch id.

    Raises:
        LedgerError: An intent has no signal behind it.
    """
    explained = {link.client_order_id for link in signals}
    for intent in intents:
        if intent.client_order_id not in explained:
            raise LedgerError(
                f"Order {intent.client_order_id} ({intent.symbol}) comes from no signal; nothing is "
                "frozen."
            )
    session.add(batch)
    session.flush()
    for row in (*targets, *intents, *signals):
        row.batch_id = batch.batch_id
    session.add_all(targets)
    session.flush()
    # The self-reference of second legs needs the first legs to be there.
    session.add_all(intent for intent in intents if intent.depends_on is None)
    session.flush()
    session.add_all(intent for intent in intents if intent.depends_on is not None)
    session.flush()
    session.add_all(signals)
    for intent in intents:
        assert_legal(intent.client_order_id, None, OrderState(intent.state), Actor.PLANNING)
        session.add(
            _event(intent.client_order_id, None, intent.state, Actor.PLANNING, detail="frozen")
        )
    session.flush()
    return batch.batch_id


def intents_of(session: Session, batch_id: int) -> list[OrderIntent]:
    """All intents of a batch: what reduces first, then by notional, as they are sent."""
    rows = session.scalars(select(OrderIntent).where(OrderIntent.batch_id == batch_id)).all()
    return sorted(rows, key=_sending_order)


def targets_of(session: Session, batch_id: int) -> list[TargetPosition]:
    """All targets of a batch, by strategy and symbol."""
    return list(
        session.scalars(
            select(TargetPosition)
            .where(TargetPosition.batch_id == batch_id)
            .order_by(TargetPosition.strategy, TargetPosition.symbol)
        )
    )


def last_sleeves(
    session: Session, account_id: str, book: str, dry: bool, before: tuple[date, int]
) -> dict[str, tuple[date, list[TargetPosition]]]:
    """What each strategy wanted when it was last frozen.

    Sleeves of dry runs and of real batches are kept apart: a dry run holds nothing.

    Args:
        session: The transaction.
        account_id: The account.
        book: The book.
        dry: Whether sleeves of dry runs are meant.
        before: Trading session and attempt before which the batch must lie.

    Returns:
        Strategy to (trading session of its newest batch, its targets).
    """
    last = (
        select(TargetPosition.strategy, func.max(TargetPosition.batch_id).label("batch_id"))
        .join(OrderBatch, OrderBatch.batch_id == TargetPosition.batch_id)
        .where(
            OrderBatch.account_id == account_id,
            OrderBatch.book == book,
            (OrderBatch.mode == "dry_run") == dry,
            func.row(OrderBatch.trading_session, OrderBatch.attempt) < func.row(*before),
        )
        .group_by(TargetPosition.strategy)
        .subquery()
    )
    rows = session.execute(
        select(TargetPosition, OrderBatch.trading_session)
        .join(
            last,
            (last.c.strategy == TargetPosition.strategy)
            & (last.c.batch_id == TargetPosition.batch_id),
        )
        .join(OrderBatch, OrderBatch.batch_id == TargetPosition.batch_id)
    )
    sleeves: dict[str, tuple[date, list[TargetPosition]]] = {}
    for target, trading_session in rows:
        sleeves.setdefault(target.strategy, (trading_session, []))[1].append(target)
    return sleeves


def frozen_times(session: Session, batch_ids: Collection[int]) -> dict[int, datetime]:
    """When each batch was frozen."""
    rows = session.execute(
        select(OrderBatch.batch_id, OrderBatch.frozen_at).where(OrderBatch.batch_id.in_(batch_ids))
    )
    return {row[0]: row[1] for row in rows}


def unfinished_intents(session: Session, account_id: str) -> list[OrderIntent]:
    """Every intent of the account, of whatever session, that recovery must finish."""
    rows = session.scalars(
        select(OrderIntent)
        .join(OrderBatch, OrderBatch.batch_id == OrderIntent.batch_id)
        .where(OrderBatch.account_id == account_id, OrderIntent.state.in_(sorted(UNFINISHED)))
    ).all()
    return sorted(rows, key=lambda row: (row.batch_id, *_sending_order(row)))


def states_of(session: Session, client_order_ids: Collection[str]) -> dict[str, OrderState]:
    """Where each intent stands."""
    rows = session.execute(
        select(OrderIntent.client_order_id, OrderIntent.state).where(
            OrderIntent.client_order_id.in_(client_order_ids)
        )
    )
    return {client_order_id: OrderState(state) for client_order_id, state in rows}


def batch_modes(session: Session, batch_ids: Collection[int]) -> dict[int, str]:
    """The trading mode in which each batch was frozen."""
    rows = session.execute(
        select(OrderBatch.batch_id, OrderBatch.mode).where(OrderBatch.batch_id.in_(batch_ids))
    )
    return {row[0]: row[1] for row in rows}


def security_ids(session: Session, client_order_ids: Collection[str]) -> dict[str, str]:
    """The listing behind each order."""
    rows = session.execute(
        select(OrderIntent.client_order_id, OrderIntent.security_id).where(
            OrderIntent.client_order_id.in_(client_order_ids)
        )
    )
    return {row[0]: row[1] for row in rows}


def known_client_ids(session: Session, client_order_ids: Collection[str]) -> set[str]:
    """Which of the ids belong to intents of the ledger."""
    return set(
        session.scalars(
            select(OrderIntent.client_order_id).where(
                OrderIntent.client_order_id.in_(client_order_ids)
            )
        )
    )


def used_client_ids(session: Session, client_order_ids: Collection[str]) -> set[str]:
    """Which of the ids can never be sent again: the ledger or, as far as it knows, the broker has them."""
    at_broker = session.scalars(
        select(Order.broker_client_order_id).where(
            Order.broker_client_order_id.in_(client_order_ids)
        )
    )
    return known_client_ids(session, client_order_ids) | set(at_broker)


def rejections_since(
    session: Session, account_id: str, trading_session: date, after: datetime | None = None
) -> int:
    """How many orders of a trading session the broker has refused.

    Args:
        session: The transaction.
        account_id: The account.
        trading_session: The session of the batches: the broker's time and the ledger's need not agree.
        after: Count only what was recorded after this time of the ledger's, such as that of the last
            change of the trading state.

    Raises:
        TypeError: A time in place of the session.
    """
    if isinstance(trading_session, datetime):
        raise TypeError(
            f"Rejections are counted for a trading session, not from {trading_session}."
        )
    query = (
        select(func.count())
        .select_from(OrderEvent)
        .join(OrderIntent, OrderIntent.client_order_id == OrderEvent.client_order_id)
        .join(OrderBatch, OrderBatch.batch_id == OrderIntent.batch_id)
        .where(
            OrderBatch.account_id == account_id,
            OrderBatch.trading_session == trading_session,
            OrderEvent.to_state == str(OrderState.REJECTED),
        )
    )
    if after is not None:
        query = query.where(OrderEvent.happened_at > after)
    return session.scalar(query) or 0


def has_event(session: Session, client_order_id: str, detail: str) -> bool:
    """Whether an event of the intent says exactly this."""
    return (
        session.scalar(
            select(OrderEvent.event_id)
            .where(OrderEvent.client_order_id == client_order_id, OrderEvent.detail == detail)
            .limit(1)
        )
        is not None
    )


def transition(
    session: Session,
    client_order_id: str,
    new: OrderState,
    actor: Actor,
    *,
    detail: str,
    raw: Mapping[str, Any] | None = None,
) -> OrderState:
    """Move an intent to a state and append the event; the row is locked until the transaction ends.

    Args:
        session: The transaction.
        client_order_id: The intent.
        new: Its new state; the one that it has already is no transition and writes nothing, but `sending`
            again would be a second request.
        actor: Who causes it.
        detail: Why, for a person.
        raw: The broker's own message.

    Returns:
        The state it had.

    Raises:
        IllegalTransitionError: The transition table does not know this step, or not by this actor.
        LedgerError: There is no such intent.
    """
    intent = locked_intent(session, client_order_id)
    old = OrderState(intent.state)
    if old != new or new == OrderState.SENDING:
        move(session, intent, new, actor, detail=detail, raw=raw)
    return old


def locked_intent(session: Session, client_order_id: str) -> OrderIntent:
    """The intent as it is in the database now, locked until the transaction ends.

    Raises:
        LedgerError: There is no such intent.
    """
    intent = session.get(OrderIntent, client_order_id, with_for_update=True, populate_existing=True)
    if intent is None:
        raise LedgerError(f"The ledger has no order {client_order_id}.")
    return intent


def move(
    session: Session,
    intent: OrderIntent,
    new: OrderState,
    actor: Actor,
    *,
    detail: str,
    raw: Mapping[str, Any] | None = None,
) -> None:
    """Give a locked intent its new state and append the event.

    Raises:
        IllegalTransitionError: The transition table does not know this step, or not by this actor.
    """
    old = OrderState(intent.state)
    assert_legal(intent.client_order_id, old, new, actor)
    intent.state = str(new)
    session.add(_event(intent.client_order_id, old, new, actor, detail=detail, raw=raw))
    # The database sees every step by itself: two in one statement would be a jump to it.
    session.flush()


def _sending_order(row: OrderIntent) -> tuple[bool, Decimal, str, int]:
    return (not row.reduces, -row.quantity * row.reference_price, row.symbol, row.leg)


def _event(
    client_order_id: str,
    old: OrderState | None,
    new: OrderState | str,
    actor: Actor,
    *,
    detail: str,
    raw: Mapping[str, Any] | None = None,
) -> OrderEvent:
    return OrderEvent(
        client_order_id=client_order_id,
        from_state=None if old is None else str(old),
        to_state=str(new),
        actor=str(actor),
        detail=detail,
        broker_message=None if raw is None else dict(raw),
    )
