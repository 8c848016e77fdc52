"""Evidence: comparing ledger and broker before and after trading, and freezing the end of the day.

Belongs here: what is written down as proof. Does not belong here: booking (`booking.py`), reading both sides
(`comparison.py`) and the comparison itself (`reconciliation.py`).

1. Both sides are compared after a sync. What differs is looked at again after another one, since the
   broker's answers are not of one instant; what differs every time and is not explained halts trading.
2. At the end of a session account and positions are frozen once, with the broker's closing marks. While
   it is open there is only a preview, which neither compares nor freezes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final, Literal

from quant_assets.orders.booking import sync_with_broker
from quant_assets.orders.comparison import looked_at
from quant_assets.orders.drift import Drift, unexplained
from quant_assets.orders.halting import tighten
from quant_assets.orders.opening_balance import account_snapshot
from quant_assets.orders.policy import TradingPolicy
from quant_assets.orders.positions import Holding, round_step
from quant_assets.orders.submission import run_pass
from quant_assets.orders.trading_sessions import has_closed, require_settleable
from quant_resources.broker import Broker
from quant_resources.errors import LedgerError
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.counted_fills import CountedFill, counted_fills
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_tables import (
    AccountSnapshot,
    Order,
    PositionSnapshot,
    Reconciliation,
)

#: A pass of the sensor may be under way when the books are closed.
_LOCK_WAIT_SECONDS: Final = 30.0
Moment = Literal["before_trading", "after_trading"]
_ZERO: Final = Decimal(0)


def reconcile_with_broker(
    ledger: Ledger, broker: Broker, policy: TradingPolicy, trading_session: date, moment: Moment
) -> list[Drift]:
    """Compare the ledger with the broker, write down what was found, and halt on what nothing explains.

    Returns:
        The differences; empty when both agree. Those with an explanation wait to be confirmed
        (`drift.require_confirmed`) and leave the trading state as it is.
    """
    found, view = looked_at(ledger, broker, policy)
    now = broker.clock().now
    strange = unexplained(found)
    with ledger.begin() as session:
        session.add(
            Reconciliation(
                account_id=view.account.account_id,
                trading_session=trading_session,
                moment=moment,
                passed=not found,
                compared={
                    "since": view.since.isoformat(),
                    "orders": len(view.orders),
                    "fills": len(view.executions),
                    "activities": len(view.activities),
                    "positions": len(view.positions),
                },
                findings={"drifts": [drift.as_json() for drift in found]},
            )
        )
        status = account_book.trading_status(session, policy.book)
        session.add(account_snapshot(view.account, trading_session, moment, status.state, now))
        if strange:
            tighten(
                session,
                policy.book,
                "HALTED",
                f"{len(strange)} unexplained difference(s) to the broker {moment.replace('_', ' ')} of "
                f"{trading_session}: {strange[0]}",
                "reconciliation",
            )
    return found


def freeze_end_of_day(
    ledger: Ledger, broker: Broker, policy: TradingPolicy, trading_session: date
) -> None:
    """Freeze account and positions of a session that has closed; a second call changes nothing."""
    snapshot, positions = _marked(ledger, broker, policy, trading_session)
    with ledger.begin() as session:
        if account_book.end_of_day(session, snapshot.account_id, trading_session) is not None:
            return
        session.add(snapshot)
        session.flush()
        for position in positions:
            position.snapshot_id = snapshot.snapshot_id
            session.add(position)


def _marked(
    ledger: Ledger, broker: Broker, policy: TradingPolicy, trading_session: date
) -> tuple[AccountSnapshot, list[PositionSnapshot]]:
    """Account and positions at the broker's marks, not yet written.

    What was sold off in the session is there too, with no shares, so that its day can be explained.
    """
    view = sync_with_broker(ledger, broker).view
    account_id = view.account.account_id
    now = broker.clock().now
    with ledger.begin() as session:
        state = account_book.trading_status(session, policy.book).state
        ours = account_book.positions_of(session, account_id)
        fills = counted_fills(session, account_id, trading_session)
        changed = account_book.adjustments_of(session, account_id, trading_session)
    # What an adjustment ended has a mark as well: the day's profit is explained by it.
    touched = {fill.symbol for fill in fills} | {row.symbol for row in changed if row.symbol}
    gone = touched - {position.symbol for position in view.positions}
    closing = {p.symbol: (p.quantity, p.market_price) for p in view.positions} | {
        symbol: (_ZERO, price.price)
        for symbol, price in (broker.latest_prices(gone) if gone else {}).items()
    }
    positions = []
    for symbol, (quantity, mark) in sorted(closing.items()):
        mine = ours.get(symbol)
        average = mine.average_price if mine is not None else _ZERO
        positions.append(
            PositionSnapshot(
                symbol=symbol,
                security_id=mine.security_id if mine is not None else None,
                quantity=quantity,
                average_price=average,
                market_price=mark,
                market_value=round_step(quantity * mark),
                realised_pnl=mine.realised_pnl if mine is not None else _ZERO,
                unrealised_pnl=Holding(quantity, average).unrealised_pnl(mark),
            )
        )
    return account_snapshot(view.account, trading_session, "end_of_day", state, now), positions


@dataclass(frozen=True)
class SessionEvidence:
    """What a trading session left: frozen for good once the session has closed.

    Attributes:
        frozen: False while the session is open: the rows are a preview.
        drifts: Differences of the session's last reconciliation.
        unconfirmed: How many of them are explained and wait to be confirmed.
    """

    trading_session: date
    account: AccountSnapshot
    positions: Sequence[PositionSnapshot]
    orders: Sequence[Order]
    fills: Sequence[CountedFill]
    frozen: bool
    drifts: int
    unconfirmed: int


def session_evidence(
    ledger: Ledger, broker: Broker, policy: TradingPolicy, trading_session: date
) -> SessionEvidence:
    """The evidence of a session: frozen now if it has just closed, read again if it was frozen.

    Raises:
        WrongSessionError: It was never frozen, and it is not the session that can be settled now.
    """
    account_id = broker.account().account_id
    frozen = _frozen_evidence(ledger, account_id, trading_session)
    if frozen is not None:
        return frozen
    clock = broker.clock()
    require_settleable(clock, trading_session)
    if has_closed(clock, trading_session):
        # What was never sent expires before the books are compared and closed.
        run_pass(ledger, broker, policy, wait_seconds=_LOCK_WAIT_SECONDS)
        reconcile_with_broker(ledger, broker, policy, trading_session, "after_trading")
        freeze_end_of_day(ledger, broker, policy, trading_session)
        frozen = _frozen_evidence(ledger, account_id, trading_session)
        if frozen is None:
            raise LedgerError(f"The evidence of {trading_session} was not written.")
        return frozen
    return _preview(ledger, broker, policy, account_id, trading_session)


def _frozen_evidence(
    ledger: Ledger, account_id: str, trading_session: date
) -> SessionEvidence | None:
    with ledger.begin() as session:
        found = account_book.end_of_day(session, account_id, trading_session)
        if found is None:
            return None
        snapshot, positions = found
        last = account_book.last_reconciliation(session, account_id, trading_session)
        return SessionEvidence(
            trading_session=trading_session,
            account=snapshot,
            positions=positions,
            orders=order_book.orders_of(session, account_id, trading_session),
            fills=counted_fills(session, account_id, trading_session),
            frozen=True,
            drifts=len(_drifts(last)),
            unconfirmed=sum(1 for drift in _drifts(last) if drift.get("key")),
        )


def _preview(
    ledger: Ledger, broker: Broker, policy: TradingPolicy, account_id: str, trading_session: date
) -> SessionEvidence:
    snapshot, positions = _marked(ledger, broker, policy, trading_session)
    with ledger.begin() as session:
        last = account_book.last_reconciliation(session, account_id, trading_session)
        return SessionEvidence(
            trading_session=trading_session,
            account=snapshot,
            positions=positions,
            orders=order_book.orders_of(session, account_id, trading_session),
            fills=counted_fills(session, account_id, trading_session),
            frozen=False,
            drifts=len(_drifts(last)),
            unconfirmed=sum(1 for drift in _drifts(last) if drift.get("key")),
        )


def _drifts(reconciliation: Reconciliation | None) -> list[dict[str, str]]:
    return [] if reconciliation is None else reconciliation.findings["drifts"]
