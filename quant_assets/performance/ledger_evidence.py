"""What the ledger knows of a trading session and only it: the day before, activities and frozen targets.

Belongs here: reading the ledger into frames for `profit_and_loss`. Does not belong here: arithmetic, and the
evidence that is in tables already (fills, positions and account of the session).

What somebody confirmed as the explanation of a difference to the broker (an adjustment) is told as the activity that
the broker did not post: a split, a dividend, a rename, a transfer; a trade that was made at the broker by hand has a
kind of its own (`MANUAL_TRADE`). So is what the broker took back or corrected of an earlier session's fills
(`CORRECTION`).

Amounts leave the ledger as Float64: what is computed from them is analysis, not bookkeeping.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from quant_assets.performance.profit_and_loss import CORRECTION, MANUAL_TRADE
from quant_resources.errors import LedgerError
from quant_resources.ledger import Ledger
from quant_resources.ledger.counted_fills import late_corrections
from quant_resources.ledger.order_tables import (
    AccountSnapshot,
    Activity,
    Adjustment,
    OrderBatch,
    PositionSnapshot,
    TargetPosition,
)

_POSITIONS = {"symbol": pl.String, "quantity": pl.Float64, "market_price": pl.Float64}
_ACTIVITIES = {
    "activity_type": pl.String,
    "symbol": pl.String,
    "quantity": pl.Float64,
    "net_amount": pl.Float64,
    "realised_pnl": pl.Float64,
}
#: What the broker would have posted for an adjustment; one without a symbol is money put in or taken out.
_POSTED_AS = {"split": "SPLIT", "dividend": "DIV", "manual_trade": MANUAL_TRADE, "other": "NC"}
_MONEY = "TRANS"
_TARGETS = {"strategy": pl.String, "symbol": pl.String, "target_quantity": pl.Float64}


@dataclass(frozen=True)
class SessionInLedger:
    """The start of a session's profit and loss, as `daily_profit_and_loss` takes it.

    Attributes:
        since: Session of the evidence that the day is measured from.
        equity_before: USD.
        before: Positions with their marks then.
        activities: What changed cash or shares since, the session's fills aside.
        targets: Frozen targets of the session; empty when nothing was planned, or only a dry run.
        previous_targets: What every strategy wanted when it was last frozen before the session.
    """

    since: date
    equity_before: float
    before: pl.DataFrame
    activities: pl.DataFrame
    targets: pl.DataFrame
    previous_targets: pl.DataFrame


def session_in_ledger(ledger: Ledger, account_id: str, trading_session: date) -> SessionInLedger:
    """Read what a session's profit and loss starts from.

    The day is measured from the end of the last session that has evidence, or from the account as the ledger first
    met it.

    Raises:
        LedgerError: The ledger has never met the account before the end of the session.
    """
    with ledger.begin() as transaction:
        start = _start(transaction, account_id, trading_session)
        opening = start.moment == "opening"
        positions = transaction.execute(
            select(
                PositionSnapshot.symbol, PositionSnapshot.quantity, PositionSnapshot.market_price
            ).where(PositionSnapshot.snapshot_id == start.snapshot_id)
        ).all()
        # Whatever is booked after an opening happened after it; evidence closes its own session.
        after = select(
            Activity.activity_type,
            Activity.symbol,
            Activity.quantity,
            Activity.net_amount,
            Activity.realised_pnl,
        ).where(Activity.account_id == account_id, Activity.activity_date <= trading_session)
        if not opening:
            after = after.where(Activity.activity_date > start.trading_session)
        since = None if opening else start.trading_session
        activities = [
            *transaction.execute(after).all(),
            *_adjustments(transaction, account_id, since, trading_session),
            *(
                (CORRECTION, one.symbol, one.change, one.cash, one.realised_pnl)
                for one in late_corrections(transaction, account_id, since, trading_session)
            ),
        ]
        targets = _targets(transaction, _batch(transaction, account_id, trading_session))
        previous = _previous_targets(transaction, account_id, trading_session)
    return SessionInLedger(
        since=start.trading_session,
        equity_before=float(start.equity),
        before=_frame(positions, _POSITIONS),
        activities=_frame(activities, _ACTIVITIES),
        targets=_frame(targets, _TARGETS),
        previous_targets=_frame(previous, _TARGETS),
    )


def _adjustments(
    transaction: Session, account_id: str, since: date | None, trading_session: date
) -> list[Sequence[Any]]:
    """Adjustments of the sessions since then, as activities."""
    query = select(Adjustment).where(
        Adjustment.account_id == account_id, Adjustment.trading_session <= trading_session
    )
    if since is not None:
        query = query.where(Adjustment.trading_session > since)
    rows: list[Sequence[Any]] = []
    for row in transaction.scalars(query.order_by(Adjustment.adjustment_id)):
        kind = _POSTED_AS[row.kind] if row.symbol is not None else _MONEY
        rows.append((kind, row.symbol, row.quantity, row.cash, row.realised_pnl))
    return rows


def _start(transaction: Session, account_id: str, trading_session: date) -> AccountSnapshot:
    known = select(AccountSnapshot).where(AccountSnapshot.account_id == account_id)
    last = transaction.scalars(
        known.where(
            AccountSnapshot.moment == "end_of_day",
            AccountSnapshot.trading_session < trading_session,
        )
        .order_by(AccountSnapshot.trading_session.desc())
        .limit(1)
    ).first()
    start = last or transaction.scalars(known.where(AccountSnapshot.moment == "opening")).first()
    if start is None or start.trading_session > trading_session:
        raise LedgerError(
            f"The ledger has no account {account_id} before {trading_session}, so its profit cannot be "
            "measured; materialize orders/account of the session first."
        )
    return start


def _batch(transaction: Session, account_id: str, trading_session: date) -> int | None:
    """The newest attempt of the session; a dry run moves no sleeve."""
    return transaction.scalar(
        select(OrderBatch.batch_id)
        .where(
            OrderBatch.account_id == account_id,
            OrderBatch.trading_session == trading_session,
            OrderBatch.mode != "dry_run",
        )
        .order_by(OrderBatch.attempt.desc())
        .limit(1)
    )


def _targets(transaction: Session, batch_id: int | None) -> Sequence[Any]:
    if batch_id is None:
        return ()
    return transaction.execute(
        select(
            TargetPosition.strategy, TargetPosition.symbol, TargetPosition.target_quantity
        ).where(TargetPosition.batch_id == batch_id)
    ).all()


def _previous_targets(
    transaction: Session, account_id: str, trading_session: date
) -> Sequence[Any]:
    """What every strategy wanted in the newest batch that held any of it."""
    newest = (
        select(TargetPosition.strategy, func.max(TargetPosition.batch_id).label("batch_id"))
        .join(OrderBatch, OrderBatch.batch_id == TargetPosition.batch_id)
        .where(
            OrderBatch.account_id == account_id,
            OrderBatch.trading_session < trading_session,
            OrderBatch.mode != "dry_run",
        )
        .group_by(TargetPosition.strategy)
        .subquery()
    )
    return transaction.execute(
        select(TargetPosition.strategy, TargetPosition.symbol, TargetPosition.target_quantity).join(
            newest,
            (newest.c.strategy == TargetPosition.strategy)
            & (newest.c.batch_id == TargetPosition.batch_id),
        )
    ).all()


def _frame(rows: Iterable[Sequence[Any]], schema: dict[str, Any]) -> pl.DataFrame:
    plain = [
        tuple(
            float(value) if kind is pl.Float64 and value is not None else value
            for value, kind in zip(row, schema.values(), strict=True)
        )
        for row in rows
    ]
    return pl.DataFrame(plain, schema=schema, orient="row")
