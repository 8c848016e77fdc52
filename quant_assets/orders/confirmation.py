"""Confirming what explains a difference: booking it as an adjustment, with who and why.

Belongs here: the one transaction that turns an explanation into bookings. Does not belong here: finding explanations
(`drift_explanations.py`) and showing them (`quant_assets/cli/reconcile.py`).

1. The account's lock is taken, so that nothing is sent or planned meanwhile.
2. Both sides are compared anew: only what explains a difference now, under the very key that was seen, is booked.
3. Adjustment and position are one transaction; the database holds a key to one adjustment.
4. The comparison is made and written down once more: what is left is shown, and halts where nothing explains it.
   A trading state is never relaxed by it; that takes `quant resume`.
"""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import select

from quant_assets.orders.booking import lock_booking
from quant_assets.orders.comparison import looked_at
from quant_assets.orders.drift import Drift, Explanation, explanations
from quant_assets.orders.evidence import reconcile_with_broker
from quant_assets.orders.ledger_history import LedgerPositions, explained_events
from quant_assets.orders.policy import TradingPolicy
from quant_assets.orders.trading_sessions import has_closed, session_to_settle
from quant_resources.broker import Broker
from quant_resources.errors import LedgerError
from quant_resources.ledger import account_book
from quant_resources.ledger.counted_fills import counting_session
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_tables import Adjustment

_LOCK_WAIT_SECONDS = 10.0


def confirm(  # noqa: PLR0917 - what is confirmed, why and by whom
    ledger: Ledger, broker: Broker, policy: TradingPolicy, key: str, reason: str, who: str
) -> tuple[Explanation, list[Drift]]:
    """Book an explanation.

    Args:
        ledger: The ledger.
        broker: The broker.
        policy: The trading policy: its book and tolerances.
        key: Of the explanation, as a comparison has shown it.
        reason: Why it is right; kept in the ledger.
        who: Who confirms it; kept in the ledger.

    Returns:
        What was booked, and what differs now.

    Raises:
        LedgerError: No reason, nothing under this key, or it was confirmed before.
        LedgerBusyError: Another process trades this account.
    """
    if not reason.strip() or not who.strip():
        raise LedgerError("A confirmation needs a reason and the name of who confirms.")
    account = broker.account()
    with ledger.exclusive(f"orders:{account.account_id}", _LOCK_WAIT_SECONDS):
        drifts, _ = looked_at(ledger, broker, policy)
        explanation = next((one for one in explanations(drifts) if one.key == key), None)
        if explanation is None:
            raise LedgerError(_unknown(ledger, key, drifts))
        _book(ledger, policy, account.account_id, explanation, reason=reason, who=who)
        clock = broker.clock()
        session = session_to_settle(clock)
        moment = "after_trading" if has_closed(clock, session) else "before_trading"
        return explanation, reconcile_with_broker(ledger, broker, policy, session, moment)


def _book(
    ledger: Ledger,
    policy: TradingPolicy,
    account_id: str,
    explanation: Explanation,
    *,
    reason: str,
    who: str,
) -> None:
    events = explained_events(explanation)
    with ledger.begin() as session:
        lock_booking(session, account_id)
        row = Adjustment(
            account_id=account_id,
            book=policy.book,
            trading_session=counting_session(session, account_id, explanation.at),
            kind=explanation.kind,
            symbol=explanation.symbol,
            quantity=explanation.quantity,
            price=explanation.price,
            cash=explanation.cash,
            realised_pnl=Decimal(0),
            explanation=explanation.as_json(),
            reason=reason,
            confirmed_by=who,
            key=explanation.key,
        )
        if events:
            positions = LedgerPositions(session, account_id, min(event.at for event in events))
            row.realised_pnl = sum((positions.play(event) for event in events), Decimal(0))
        if not account_book.record_adjustment(session, row):
            raise LedgerError(f"{explanation.key} was confirmed by another process just now.")


def _unknown(ledger: Ledger, key: str, drifts: list[Drift]) -> str:
    with ledger.begin() as session:
        booked = session.scalars(select(Adjustment).where(Adjustment.key == key)).first()
    if booked is not None:
        return (
            f"{key} was confirmed by {booked.confirmed_by} on {booked.confirmed_at:%Y-%m-%d %H:%M} UTC "
            f"({booked.reason}); nothing is left to book."
        )
    waiting = ", ".join(one.key for one in explanations(drifts)) or "nothing"
    return f"No difference is explained under {key} now; what waits to be confirmed: {waiting}."
