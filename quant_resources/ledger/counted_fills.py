"""Fills as they count: with what the broker later took back or changed, as far as a session knows it.

Belongs here: joining fills with their corrections. Does not belong here: booking either
(`quant_assets.orders.booking`) and the rest of the account (`account_book.py`).

1. A fill belongs to the session in which it was made. A correction belongs to the first session whose evidence was
   not frozen yet when the broker made it: usually the fill's own, else a later one.
2. The fills of a session count with the corrections that belong to it or to a session before. So evidence that
   was frozen is read the same for ever.
3. What a correction changes in a session after the fill's is a change of that session, like a trade of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.orm import Session

from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.ledger.account_tables import AccountSnapshot, Fill, FillCorrection

_ZERO = Decimal(0)


@dataclass(frozen=True)
class CountedFill:
    """A fill as it counts; shares, USD per share, USD.

    Attributes:
        quantity: Zero for a busted fill.
        realised_pnl: What the fill realised, with what its corrections changed of it and of later fills.
        correction: "none", or what the broker did to it last: "bust" or "correct".
        booked_quantity: Shares as the broker first said, before any correction.
        booked_price: The same for the price.
    """

    trading_session: date
    execution_id: str
    client_order_id: str
    broker_order_id: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal
    realised_pnl: Decimal
    filled_at: datetime
    correction: str
    booked_quantity: Decimal
    booked_price: Decimal

    @property
    def change(self) -> Decimal:
        """Signed shares."""
        return self.quantity if self.side == "buy" else -self.quantity


@dataclass(frozen=True)
class LateCorrection:
    """What a correction changed in a session after the one of its fill: shares and USD."""

    correction_id: str
    execution_id: str
    kind: str
    symbol: str
    change: Decimal
    cash: Decimal
    realised_pnl: Decimal
    trading_session: date


def counted(fill: Fill, corrections: Iterable[FillCorrection]) -> CountedFill:
    """A fill with some of its corrections, oldest first."""
    known = sorted(corrections, key=lambda row: (row.corrected_at, row.correction_id))
    last = known[-1] if known else None
    bust = last is not None and last.kind == "bust"
    return CountedFill(
        trading_session=fill.trading_session,
        execution_id=fill.execution_id,
        client_order_id=fill.client_order_id,
        broker_order_id=fill.broker_order_id,
        symbol=fill.symbol,
        side=fill.side,
        quantity=fill.quantity if last is None else _ZERO if bust else last.quantity,
        # A busted fill keeps the price it was said to have: nothing is multiplied with it.
        price=fill.price if last is None or bust else last.price,
        realised_pnl=fill.realised_pnl + sum((row.realised_pnl for row in known), _ZERO),
        filled_at=fill.filled_at,
        correction="none" if last is None else last.kind,
        booked_quantity=fill.quantity,
        booked_price=fill.price,
    )


def counted_fills(session: Session, account_id: str, trading_session: date) -> list[CountedFill]:
    """The fills of a session as they count in it, by time."""
    fills = session.scalars(
        select(Fill)
        .where(Fill.account_id == account_id, Fill.trading_session == trading_session)
        .order_by(Fill.filled_at, Fill.execution_id)
    ).all()
    by_fill = corrections_by_fill(session, [fill.execution_id for fill in fills])
    return [
        counted(
            fill,
            [
                row
                for row in by_fill.get(fill.execution_id, ())
                if row.trading_session <= trading_session
            ],
        )
        for fill in fills
    ]


def corrections_by_fill(
    session: Session, execution_ids: Sequence[str]
) -> dict[str, list[FillCorrection]]:
    """Every correction of some fills, oldest first, by the fill."""
    found: dict[str, list[FillCorrection]] = {}
    rows = session.scalars(
        select(FillCorrection)
        .where(FillCorrection.execution_id.in_(execution_ids))
        .order_by(FillCorrection.corrected_at, FillCorrection.correction_id)
    )
    for row in rows:
        found.setdefault(row.execution_id, []).append(row)
    return found


def late_corrections(
    session: Session, account_id: str, after: date | None, until: date
) -> list[LateCorrection]:
    """Corrections that belong to sessions after one and until another, of fills of sessions before theirs.

    Args:
        session: The transaction.
        account_id: The account.
        after: Session whose evidence is the beginning; None: the opening balance.
        until: Last session.
    """
    query = (
        select(FillCorrection, Fill)
        .join(Fill, Fill.execution_id == FillCorrection.execution_id)
        .where(
            FillCorrection.account_id == account_id,
            FillCorrection.trading_session <= until,
            Fill.trading_session < FillCorrection.trading_session,
        )
    )
    if after is not None:
        query = query.where(FillCorrection.trading_session > after)
    rows = session.execute(query).all()
    histories = corrections_by_fill(session, [fill.execution_id for _, fill in rows])
    found = []
    for row, fill in rows:
        history = histories[fill.execution_id]
        position = [one.correction_id for one in history].index(row.correction_id)
        before, now = counted(fill, history[:position]), counted(fill, history[: position + 1])
        found.append(
            LateCorrection(
                correction_id=row.correction_id,
                execution_id=fill.execution_id,
                kind=row.kind,
                symbol=fill.symbol,
                change=now.change - before.change,
                cash=row.cash,
                realised_pnl=row.realised_pnl,
                trading_session=row.trading_session,
            )
        )
    return found


def counting_session(session: Session, account_id: str, at: datetime) -> date:
    """The session in whose evidence something counts that happened at the broker at a time.

    Args:
        session: The transaction.
        account_id: The account.
        at: The broker's time.

    Returns:
        The first session whose evidence was frozen after it. Where none was yet: the session of the day, or the next
        one to come, that is not frozen.
    """
    frozen = select(AccountSnapshot.trading_session).where(
        AccountSnapshot.account_id == account_id, AccountSnapshot.moment == "end_of_day"
    )
    seen = session.scalar(
        frozen.where(AccountSnapshot.taken_at > at)
        .order_by(AccountSnapshot.trading_session)
        .limit(1)
    )
    if seen is not None:
        return seen
    own = XNYS.at_or_after(at.astimezone(NEW_YORK).date())
    last = session.scalar(frozen.order_by(AccountSnapshot.trading_session.desc()).limit(1))
    return own if last is None or last < own else XNYS.next(last)
