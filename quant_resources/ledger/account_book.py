"""Reading and writing what the account holds: positions, fills, activities, snapshots, trading state.

Belongs here: queries on `account_tables.py`, inside the caller's transaction. Does not
belong here: intents and orders (`order_book.py`), position accounting (`quant_assets.orders.positions`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from quant_resources.errors import LedgerError
from quant_resources.ledger.account_tables import (
    AccountSnapshot,
    Activity,
    Adjustment,
    Fill,
    FillCorrection,
    Position,
    PositionSnapshot,
    Reconciliation,
    TradingState,
)

Trading = Literal["ACTIVE", "REDUCING", "HALTED"]

#: Activities that bring money in or take it out; everything else is what trading earned or cost.
EXTERNAL_FLOWS: Final = ("CSD", "CSW", "JNLC", "TRANS", "ACATC")


class EquityPoint(NamedTuple):
    """Equity at the end of a session and the money paid in (+) or out (-) since the point before, USD."""

    trading_session: date
    equity: Decimal
    flow: Decimal


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


def record_correction(session: Session, correction: FillCorrection) -> bool:
    """Write the broker's later word on a fill, once; the caller moves the position in the same transaction.

    The fill's row is locked, so that of two processes that book one correction the second writes nothing.

    Returns:
        Whether it was new; one that is recorded already writes nothing.

    Raises:
        LedgerError: The fill is not booked, or not this account's.
    """
    fill = session.get(Fill, correction.execution_id, with_for_update=True)
    if session.get(FillCorrection, correction.correction_id) is not None:
        return False
    if fill is None or fill.account_id != correction.account_id:
        raise LedgerError(
            f"The broker's {correction.kind} {correction.correction_id} is about fill "
            f"{correction.execution_id}, which the ledger has not booked; book the fill first."
        )
    session.add(correction)
    session.flush()
    return True


def corrections_of(
    session: Session, account_id: str, trading_session: date | None = None
) -> list[FillCorrection]:
    """All corrections of the account (that were made in a trading session), in the order of their time."""
    query = select(FillCorrection).where(FillCorrection.account_id == account_id)
    if trading_session is not None:
        query = query.where(FillCorrection.trading_session == trading_session)
    order = (FillCorrection.corrected_at, FillCorrection.booked_at, FillCorrection.correction_id)
    return list(session.scalars(query.order_by(*order)))


def record_adjustment(session: Session, adjustment: Adjustment) -> bool:
    """Write a confirmed explanation, once per key; the caller moves the position in the same transaction.

    Of two processes that confirm one finding at the same moment the second waits for the first and then
    writes nothing.

    Returns:
        Whether it was new; a finding that is confirmed already writes nothing.

    Raises:
        LedgerError: No reason or nobody named.
    """
    if not adjustment.reason.strip() or not adjustment.confirmed_by.strip():
        raise LedgerError(
            f"An adjustment ({adjustment.kind} of {adjustment.symbol or 'cash'}) needs a reason and the "
            "name of who confirms it."
        )
    session.execute(
        select(func.pg_advisory_xact_lock(func.hashtextextended(f"adjust:{adjustment.key}", 0)))
    )
    if session.scalar(select(Adjustment.adjustment_id).where(Adjustment.key == adjustment.key)):
        return False
    session.add(adjustment)
    session.flush()
    return True


def adjustments_of(
    session: Session, account_id: str, trading_session: date | None = None
) -> list[Adjustment]:
    """All adjustments of the account (of a trading session), in the order in which they were confirmed."""
    query = select(Adjustment).where(Adjustment.account_id == account_id)
    if trading_session is not None:
        query = query.where(Adjustment.trading_session == trading_session)
    return list(session.scalars(query.order_by(Adjustment.adjustment_id)))


def expected_cash(session: Session, account_id: str) -> Decimal | None:
    """Opening cash plus all that fills, corrections, activities and adjustments brought and took, USD.

    None before the opening.
    """
    opening = opening_snapshot(session, account_id)
    if opening is None:
        return None
    paid = func.sum(Fill.quantity * Fill.price)
    changes = (
        -_total(session, paid, Fill.account_id == account_id, Fill.side == "buy"),
        _total(session, paid, Fill.account_id == account_id, Fill.side == "sell"),
        _total(session, func.sum(FillCorrection.cash), FillCorrection.account_id == account_id),
        _total(session, func.sum(Activity.net_amount), Activity.account_id == account_id),
        _total(session, func.sum(Adjustment.cash), Adjustment.account_id == account_id),
    )
    return opening.cash + sum(changes)


def equity_history(session: Session, account_id: str) -> list[EquityPoint]:
    """Equity at the opening and at the end of every session, with the money that was paid in or out.

    The flows of a point are those since the one before it, so that a transfer on a day without a frozen
    end (a holiday, an outage) counts in the next point. Those before the opening are in its balance.

    Returns:
        The opening, then one point per session whose evidence is frozen, oldest first.
    """
    rows = session.execute(
        select(AccountSnapshot.trading_session, AccountSnapshot.equity, AccountSnapshot.moment)
        .where(
            AccountSnapshot.account_id == account_id,
            AccountSnapshot.moment.in_(("opening", "end_of_day")),
        )
        .order_by(AccountSnapshot.trading_session, AccountSnapshot.snapshot_id)
    )
    flows = _external_flows(session, account_id)
    history: list[EquityPoint] = []
    for day, equity, moment in rows:
        due = [] if moment == "opening" else [past for past in flows if past <= day]
        flow = sum((flows.pop(past) for past in due), Decimal(0))
        history.append(EquityPoint(day, equity, flow))
    return history


def _external_flows(session: Session, account_id: str) -> dict[date, Decimal]:
    """Money that came from or went to the outside, by day."""
    moved = session.execute(
        select(Activity.activity_date, Activity.net_amount).where(
            Activity.account_id == account_id, Activity.activity_type.in_(EXTERNAL_FLOWS)
        )
    )
    confirmed = session.execute(
        select(Adjustment.trading_session, Adjustment.cash).where(
            Adjustment.account_id == account_id, Adjustment.kind == "other"
        )
    )
    flows: dict[date, Decimal] = {}
    for day, amount in (*moved, *confirmed):
        flows[day] = flows.get(day, Decimal(0)) + amount
    return flows


def _total(session: Session, amount: ColumnElement[Any], *where: ColumnElement[bool]) -> Decimal:
    return Decimal(session.scalar(select(amount).where(*where)) or 0)


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


def splits_booked(
    session: Session, account_id: str, since: date
) -> list[tuple[str | None, date, datetime]]:
    """Symbol, day and time of booking of every split of a holding since a day, confirmed ones too."""
    booked = session.execute(
        select(Activity.symbol, Activity.activity_date, Activity.booked_at).where(
            Activity.account_id == account_id,
            Activity.activity_type == "SPLIT",
            Activity.activity_date >= since,
        )
    )
    confirmed = session.execute(
        select(Adjustment.symbol, Adjustment.trading_session, Adjustment.confirmed_at).where(
            Adjustment.account_id == account_id,
            Adjustment.kind == "split",
            Adjustment.trading_session >= since,
        )
    )
    return [(row[0], row[1], row[2]) for row in (*booked, *confirmed)]


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
