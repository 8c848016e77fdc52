"""Reading and writing what the account holds: positions, fills, activities, snapshots, trading state.

Belongs here: queries on the money side of `order_tables.py`, inside the caller's transaction. Does not
belong here: intents and orders (`order_book.py`), position accounting (`quant_assets.orders.positions`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from quant_resources.errors import LedgerError
from quant_resources.ledger.order_tables import (
    AccountSnapshot,
    Activity,
    Fill,
    Position,
    PositionSnapshot,
    Reconciliation,
    TradingState,
)

Trading = Literal["ACTIVE", "REDUCING", "HALTED"]


@dataclass(frozen=True)
class TradingStatus:
    """Whether a book may trade, who decided it and why."""

    state: Trading
    reason: str
    changed_by: str
    changed_at: datetime | None


def trading_status(session: Session, book: str) -> TradingStatus:
    """The state in force; ACTIVE where nobody ever changed it."""
    row = session.scalars(
        select(TradingState)
        .where(TradingState.book == book)
        .order_by(TradingState.state_id.desc())
        .limit(1)
    ).first()
    if row is None:
        return TradingStatus("ACTIVE", "never changed", "default", None)
    state: Trading = row.state  # pyright: ignore[reportAssignmentType] - CHECK holds it
    return TradingStatus(state, row.reason, row.changed_by, row.changed_at)


def set_trading_status(
    session: Session, book: str, state: Trading, reason: str, changed_by: str
) -> None:
    """Append a new trading state.

    Raises:
        LedgerError: No reason or nobody named.
    """
    if not reason.strip() or not changed_by.strip():
        raise LedgerError("A trading state needs a reason and the name of who changes it.")
    session.add(TradingState(book=book, state=state, reason=reason, changed_by=changed_by))


def fills_of(session: Session, account_id: str, trading_session: date) -> list[Fill]:
    """The fills of a trading session, by time."""
    return list(
        session.scalars(
            select(Fill)
            .where(Fill.account_id == account_id, Fill.trading_session == trading_session)
            .order_by(Fill.filled_at, Fill.execution_id)
        )
    )


def positions_of(session: Session, account_id: str) -> dict[str, Position]:
    """Everything that the ledger believes the account ever held, by symbol."""
    rows = session.scalars(select(Position).where(Position.account_id == account_id))
    return {row.symbol: row for row in rows}


def booked_execution_ids(session: Session, execution_ids: Collection[str]) -> set[str]:
    """Which executions are booked already."""
    return set(
        session.scalars(select(Fill.execution_id).where(Fill.execution_id.in_(execution_ids)))
    )


def booked_activity_ids(session: Session, activity_ids: Collection[str]) -> set[str]:
    """Which activities are booked already."""
    return set(
        session.scalars(select(Activity.activity_id).where(Activity.activity_id.in_(activity_ids)))
    )


def opening_snapshot(session: Session, account_id: str) -> AccountSnapshot | None:
    """The account as the ledger first met it: what everything later is added to."""
    return session.scalars(
        select(AccountSnapshot).where(
            AccountSnapshot.account_id == account_id, AccountSnapshot.moment == "opening"
        )
    ).first()


def end_of_day(
    session: Session, account_id: str, trading_session: date
) -> tuple[AccountSnapshot, list[PositionSnapshot]] | None:
    """The frozen evidence of a session, if it was frozen."""
    snapshot = session.scalars(
        select(AccountSnapshot).where(
            AccountSnapshot.account_id == account_id,
            AccountSnapshot.trading_session == trading_session,
            AccountSnapshot.moment == "end_of_day",
        )
    ).first()
    if snapshot is None:
        return None
    rows = session.scalars(
        select(PositionSnapshot)
        .where(PositionSnapshot.snapshot_id == snapshot.snapshot_id)
        .order_by(PositionSnapshot.symbol)
    )
    return snapshot, list(rows)


def expected_cash(session: Session, account_id: str) -> Decimal | None:
    """Opening cash plus what fills and activities brought and took, USD; None before the opening."""
    opening = opening_snapshot(session, account_id)
    if opening is None:
        return None
    bought = session.scalar(
        select(func.coalesce(func.sum(Fill.quantity * Fill.price), 0)).where(
            Fill.account_id == account_id, Fill.side == "buy"
        )
    )
    sold = session.scalar(
        select(func.coalesce(func.sum(Fill.quantity * Fill.price), 0)).where(
            Fill.account_id == account_id, Fill.side == "sell"
        )
    )
    moved = session.scalar(
        select(func.coalesce(func.sum(Activity.net_amount), 0)).where(
            Activity.account_id == account_id
        )
    )
    return opening.cash - Decimal(bought or 0) + Decimal(sold or 0) + Decimal(moved or 0)


def last_reconciliation(
    session: Session, account_id: str, trading_session: date | None = None
) -> Reconciliation | None:
    """The newest comparison with the broker (of a session)."""
    query = select(Reconciliation).where(Reconciliation.account_id == account_id)
    if trading_session is not None:
        query = query.where(Reconciliation.trading_session == trading_session)
    return session.scalars(query.order_by(Reconciliation.reconciliation_id.desc()).limit(1)).first()


def last_agreement(session: Session, account_id: str) -> date | None:
    """The newest trading session on which ledger and broker agreed."""
    return session.scalar(
        select(func.max(Reconciliation.trading_session)).where(
            Reconciliation.account_id == account_id, Reconciliation.passed
        )
    )


def symbols_split_on(session: Session, account_id: str, day: date) -> set[str]:
    """Symbols whose split of a day is booked."""
    rows = session.scalars(
        select(Activity.symbol).where(
            Activity.account_id == account_id,
            Activity.activity_date == day,
            Activity.activity_type == "SPLIT",
        )
    )
    return {symbol for symbol in rows if symbol is not None}
