"""Circuit breakers: what sets the trading state without anybody asking, and why.

Belongs here: measuring, and setting the state. Does not belong here: the arithmetic of losses
(`losses.py`), refusing single orders at the same bounds (`limits/`), and what a halt does (`halting.py`).

| Breaker | Trips when | Sets |
|---|---|---|
| daily_loss | the loss since the close before reaches `limits.daily_loss` | `breakers.daily_loss_state` |
| drawdown | the loss since the highest equity reaches `limits.drawdown` | `breakers.drawdown_state` |
| rejects | the broker has refused `breakers.rejects` orders of a session | HALTED |
| stale_data | more than `breakers.stale_share` of a batch was refused for stale prices | REDUCING |

1. Every pass looks at all of them after it has read the broker and before it sends anything, and at the
   rejections again after each one: five hundred orders that are all refused end with the fifth.
2. A breaker only tightens the state, and names itself as who did.
3. A loss or a stale batch trips once per trading session. Whoever resumes takes the responsibility until
   the next one: without that a book that was halted for its losses could never be brought down by hand. The
   limits at the same bounds go on refusing what opens.
4. Rejections are counted anew after they have tripped.
5. What cannot be measured trips nothing; the limits refuse what opens on unknown losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from quant_assets.orders.halting import tighten
from quant_assets.orders.losses import daily_loss, drawdown
from quant_assets.orders.trading_desk import TradingDesk
from quant_resources.broker import Account
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.account_book import EXTERNAL_FLOWS, EquityPoint, Trading
from quant_resources.ledger.account_tables import Activity, Adjustment, TradingState
from quant_resources.ledger.order_states import OrderState
from quant_resources.ledger.order_tables import OrderBatch

_BREAKER: Final = "breaker: "
#: Name of the limit whose refusals count as stale data.
_STALE_LIMIT: Final = "stale_quote"


@dataclass(frozen=True)
class Losses:
    """What the account has lost, as fractions; None where it cannot be known."""

    daily: Decimal | None
    drawdown: Decimal | None


def look(desk: TradingDesk, account: Account, now: datetime) -> list[str]:
    """Measure everything, and tighten the trading state where it reaches a bound.

    Args:
        desk: The account under its lock.
        account: The account as the broker shows it now.
        now: The broker's time.

    Returns:
        The names of the breakers that tripped now.
    """
    policy = desk.policy
    day = XNYS.at_or_before(now.astimezone(NEW_YORK).date())
    tripped: list[str] = []
    with desk.ledger.begin() as session:
        lost = measure(session, account, day)
        measured: tuple[tuple[str, Decimal | None, Decimal, Trading], ...] = (
            ("daily_loss", lost.daily, policy.limits.daily_loss, policy.breakers.daily_loss_state),
            ("drawdown", lost.drawdown, policy.limits.drawdown, policy.breakers.drawdown_state),
        )
        for name, value, bound, state in measured:
            if value is None or value < bound:
                continue
            why = f"the {name.replace('_', ' ')} is {value:.2%} of equity, the bound {bound:.2%}"
            if _trip_once(session, policy.book, name, state, day=day, why=why):
                tripped.append(name)
        tripped += _judge_newest_batch(session, desk)
    return tripped


def after_rejection(desk: TradingDesk, trading_session: date) -> None:
    """Halt the book if the broker has now refused too many orders of the session."""
    with desk.ledger.begin() as session:
        _judge_rejections(session, desk, trading_session)


def measure(session: Session, account: Account, day: date) -> Losses:
    """What the account has lost.

    Args:
        session: The transaction.
        account: The account as the broker shows it now.
        day: The trading session of now, or the last one.
    """
    history = account_book.equity_history(session, account.account_id)
    before = [point for point in history if point.trading_session < day]
    base = account.previous_equity
    if (base is None or base <= 0) and history:
        # A broker that has not seen a close of the account yet.
        base = (before or history)[-1].equity
    flows = _flows_after(session, account.account_id, XNYS.previous(day))
    points: list[EquityPoint] = []
    if before:
        since = _flows_after(session, account.account_id, before[-1].trading_session)
        points = [*before, EquityPoint(day, account.equity, since)]
    elif history:
        # The day on which the ledger met the account.
        points = [history[0], EquityPoint(day, account.equity, flows)]
    return Losses(daily_loss(account.equity, base, flows), drawdown(points))


def _judge_newest_batch(session: Session, desk: TradingDesk) -> list[str]:
    policy = desk.policy
    batch = session.scalars(
        select(OrderBatch)
        .where(OrderBatch.book == policy.book, OrderBatch.account_id == desk.account.account_id)
        .order_by(OrderBatch.trading_session.desc(), OrderBatch.attempt.desc())
        .limit(1)
    ).first()
    if batch is None:
        return []
    tripped: list[str] = []
    intents = order_book.intents_of(session, batch.batch_id)
    stale = sum(
        row.state == OrderState.REFUSED and row.limit_name == _STALE_LIMIT for row in intents
    )
    bound = policy.breakers.stale_share
    if stale > bound * len(intents):
        why = (
            f"{stale} of {len(intents)} orders were refused for stale prices, the bound is "
            f"{bound:.0%} of a batch"
        )
        if _trip_once(
            session, policy.book, "stale_data", "REDUCING", day=batch.trading_session, why=why
        ):
            tripped.append("stale_data")
    return tripped + _judge_rejections(session, desk, batch.trading_session)


def _judge_rejections(session: Session, desk: TradingDesk, trading_session: date) -> list[str]:
    policy, name = desk.policy, "rejects"
    counted_from = session.scalar(
        select(func.max(TradingState.changed_at)).where(
            TradingState.book == policy.book, TradingState.changed_by == _BREAKER + name
        )
    )
    refused = order_book.rejections_since(
        session, desk.account.account_id, trading_session, counted_from
    )
    if refused < policy.breakers.rejects:
        return []
    why = (
        f"{trading_session}: the broker has refused {refused} orders, the bound is "
        f"{policy.breakers.rejects}"
    )
    return [name] * tighten(session, policy.book, "HALTED", why, _BREAKER + name)


def _trip_once(
    session: Session, book: str, name: str, state: Trading, *, day: date, why: str
) -> bool:
    """Tighten the state, unless this breaker has done so in this trading session already."""
    tripped_before = session.scalar(
        select(TradingState.state_id)
        .where(
            TradingState.book == book,
            TradingState.changed_by == _BREAKER + name,
            TradingState.reason.startswith(f"{day}: "),
        )
        .limit(1)
    )
    if tripped_before is not None:
        return False
    return tighten(session, book, state, f"{day}: {why}", _BREAKER + name)


def _flows_after(session: Session, account_id: str, day: date) -> Decimal:
    """Deposits less withdrawals after a day, USD; those before the opening were booked as zero."""
    moved = session.scalar(
        select(func.sum(Activity.net_amount)).where(
            Activity.account_id == account_id,
            Activity.activity_type.in_(EXTERNAL_FLOWS),
            Activity.activity_date > day,
        )
    )
    confirmed = session.scalar(
        select(func.sum(Adjustment.cash)).where(
            Adjustment.account_id == account_id,
            Adjustment.kind == "other",
            Adjustment.trading_session > day,
        )
    )
    return Decimal(moved or 0) + Decimal(confirmed or 0)
