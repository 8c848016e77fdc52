"""The opening balance: what an account holds when the ledger first meets it.

Belongs here: writing it once. Does not belong here: everything that comes after (`booking.py`).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal

from sqlalchemy.orm import Session

from quant_assets.orders.positions import Holding
from quant_resources.broker import Account, AccountActivity, Broker
from quant_resources.calendar import NEW_YORK
from quant_resources.ledger import account_book
from quant_resources.ledger.order_tables import (
    AccountSnapshot,
    Activity,
    Position,
    PositionSnapshot,
)

_ZERO = Decimal(0)


def write_opening(session: Session, broker: Broker, account: Account, now: datetime) -> None:
    """Write down what the account holds now, unless another process has just done so.

    Args:
        session: The transaction, with the account's booking lock.
        broker: The broker.
        account: The account, as it answered at the beginning of the sync.
        now: The broker's time.
    """
    if account_book.opening_snapshot(session, account.account_id) is not None:
        return
    today = now.astimezone(NEW_YORK).date()
    positions = broker.positions()
    past = broker.activities(today)
    snapshot = account_snapshot(account, today, "opening", "ACTIVE", now)
    session.add(snapshot)
    session.flush()
    for position in positions:
        held = Holding(position.quantity, position.average_price)
        session.add(
            Position(
                account_id=account.account_id,
                symbol=position.symbol,
                security_id=None,
                quantity=held.quantity,
                average_price=held.average_price,
                realised_pnl=_ZERO,
            )
        )
        session.add(
            PositionSnapshot(
                snapshot_id=snapshot.snapshot_id,
                symbol=position.symbol,
                security_id=None,
                quantity=held.quantity,
                average_price=held.average_price,
                market_price=position.market_price,
                market_value=position.market_value,
                realised_pnl=_ZERO,
                unrealised_pnl=held.unrealised_pnl(position.market_price),
            )
        )
    for activity in past:
        # The opening balance holds their effect already.
        session.add(
            activity_row(
                account.account_id, without_effect(activity, "before the ledger's opening")
            )
        )


def without_effect(activity: AccountActivity, why: str) -> AccountActivity:
    """An activity whose shares and cash are in the books already; the broker's message stays as it is."""
    told = f"{why}: {activity.description}"
    return replace(activity, quantity=None, net_amount=_ZERO, description=told)


def activity_row(account_id: str, activity: AccountActivity) -> Activity:
    """An activity as a row of the ledger, with nothing realised by it."""
    return Activity(
        activity_id=activity.activity_id,
        account_id=account_id,
        activity_type=activity.activity_type,
        activity_date=activity.activity_date,
        symbol=activity.symbol,
        quantity=activity.quantity,
        net_amount=activity.net_amount,
        realised_pnl=_ZERO,
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
