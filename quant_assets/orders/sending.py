"""Sending one intent: once, and again only under the same id and only when it is proven not to be there.

Belongs here: the request, what its answer proves, and the look-ups when it proves nothing. Does not
belong here: which intents are due (`submission.py`), what must happen before them (`releasing.py`).

1. That the request is about to leave is committed first, in the transaction that reads the trading state.
2. The account's lock is verified, then the request leaves.
3. Accepted: the order is compared with what was frozen and the broker's id is committed.
   Rejected for cause: committed, final.
4. Anything else proves nothing and is committed as `ambiguous`, then looked up by client id in rounds over
   a stated wait. Found: compared and adopted. No usable answer: the pass ends, since a broker that does
   not answer cannot be traded with, and the next one goes on here.
5. Absent in every round: sent again under the same id while the deadline and the number of repetitions
   allow it, else `expired_unsent`, or the pass ends. A broker that once said "must be unique" has the
   order, whatever its look-ups say: that one is never sent again.
6. A repetition that is refused may have been taken the first time: it is looked up before the refusal is
   believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from quant_assets.orders import breakers
from quant_assets.orders.booking import halting_on_wrong_orders
from quant_assets.orders.trading_desk import BrokerTime, PassReport, TradingDesk
from quant_resources.broker import (
    BrokerOrder,
    DuplicateIdError,
    OrderRequest,
    OrderType,
    RejectedError,
    Side,
    TimeInForce,
    UnauthorizedError,
)
from quant_resources.errors import BrokerError
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.order_states import Actor, OrderState
from quant_resources.ledger.order_tables import OrderBatch, OrderIntent

DUPLICATE: Final = "the broker knows this id already"
S: Final = OrderState
#: The request may have left: only a look-up tells.
UNCLEAR: Final = frozenset({S.SENDING, S.AMBIGUOUS})


@dataclass(frozen=True)
class Pass:
    """One pass under way."""

    desk: TradingDesk
    clock: BrokerTime
    report: PassReport


def intents_in(work: Pass, states: frozenset[OrderState]) -> list[OrderIntent]:
    """The account's unfinished intents in some states, in the order in which they are sent."""
    with work.desk.ledger.begin() as session:
        rows = order_book.unfinished_intents(session, work.desk.account.account_id)
    return [row for row in rows if OrderState(row.state) in states]


def recover(work: Pass) -> None:
    """Find out what became of every intent whose request may have left an earlier process."""
    unclear = intents_in(work, UNCLEAR)
    with work.desk.ledger.begin() as session:
        for row in unclear:
            if OrderState(row.state) == S.SENDING:
                order_book.transition(
                    session,
                    row.client_order_id,
                    S.AMBIGUOUS,
                    Actor.RECOVERY,
                    detail="the process ended before the answer was recorded",
                )
    _resolve(work, unclear, Actor.RECOVERY, work.desk.policy.sending.resends)


def send(work: Pass, row: OrderIntent, actor: Actor, resends: int) -> None:
    """Send one intent once, record what the answer proves, and resolve what it does not prove.

    Args:
        work: The pass; `report.stopped` is set where it must end.
        row: The intent, `pending` or `ambiguous`.
        actor: On whose behalf.
        resends: How often it may be sent again when every look-up finds it absent.

    Raises:
        UnauthorizedError: The broker does not accept the keys.
        WrongOrderError: The broker's order is not the one that was frozen.
    """
    desk, report = work.desk, work.report
    again = OrderState(row.state) in UNCLEAR
    if not _commit_sending(work, row, actor):
        return
    desk.lock.verify()
    try:
        order = desk.broker.submit(request_of(row))
    except RejectedError as error:
        if again and not _is_absent(work, row, actor):
            return
        with desk.ledger.begin() as session:
            order_book.transition(
                session, row.client_order_id, S.REJECTED, actor, detail=error.reason, raw=error.raw
            )
            trading_session = session.get_one(OrderBatch, row.batch_id).trading_session
        report.rejected += 1
        report.rejections.append(f"{row.symbol}: {error.reason}")
        breakers.after_rejection(desk, trading_session)
    except UnauthorizedError:
        raise
    except BrokerError as error:
        detail = DUPLICATE if isinstance(error, DuplicateIdError) else str(error)
        with desk.ledger.begin() as session:
            order_book.transition(session, row.client_order_id, S.AMBIGUOUS, actor, detail=detail)
        row.state = str(S.AMBIGUOUS)
        _resolve(work, [row], actor, resends)
    else:
        _adopt(work, order, actor, "accepted")
        report.sent += 1


def expire(work: Pass, row: OrderIntent, actor: Actor, detail: str) -> None:
    """End an intent that was never sent and never will be."""
    with work.desk.ledger.begin() as session:
        order_book.transition(session, row.client_order_id, S.EXPIRED_UNSENT, actor, detail=detail)
    work.report.expired += 1


def trading_allows(session: Session, work: Pass, row: OrderIntent) -> bool:
    """Whether the trading state lets an intent be sent; HALTED ends the pass."""
    status = account_book.trading_status(session, work.desk.policy.book)
    if status.state == "HALTED":
        work.report.stopped = f"trading is HALTED by {status.changed_by} ({status.reason})"
        return False
    return status.state == "ACTIVE" or row.reduces


def request_of(row: OrderIntent) -> OrderRequest:
    """Exactly what was frozen."""
    side: Side = "buy" if row.side == "buy" else "sell"
    order_type: OrderType = row.order_type  # pyright: ignore[reportAssignmentType] - CHECK holds it
    time_in_force: TimeInForce = row.time_in_force  # pyright: ignore[reportAssignmentType] - as above
    return OrderRequest(
        client_order_id=row.client_order_id,
        symbol=row.symbol,
        side=side,
        quantity=row.quantity if row.notional is None else None,
        notional=row.notional,
        order_type=order_type,
        time_in_force=time_in_force,
        limit_price=row.limit_price,
        stop_price=row.stop_price,
        take_profit_price=row.take_profit_price,
        stop_loss_price=row.stop_loss_price,
    )


def _resolve(work: Pass, unclear: Sequence[OrderIntent], actor: Actor, resends: int) -> None:
    """Look ambiguous intents up; adopt, send again, expire, or end the pass."""
    report = work.report
    absent = _look_up(work, unclear, actor)
    if report.stopped:
        return
    overdue = [row for row in absent if work.clock.now >= row.deadline]
    for row in overdue:
        if not _is_known_to_exist(work, row):
            expire(work, row, actor, "absent in every look-up, and its deadline has passed")
    for row in absent:
        if report.stopped:
            return
        if _is_known_to_exist(work, row):
            report.stopped = f"the broker knows order {row.client_order_id} and does not show it; look again later"
        elif row in overdue or not work.desk.may_send(row):
            continue
        elif resends > 0:
            send(work, row, actor, resends - 1)
        else:
            report.stopped = (
                f"order {row.client_order_id} ({row.symbol}) does not reach the broker, although it was "
                "sent again; look again later"
            )


def _is_known_to_exist(work: Pass, row: OrderIntent) -> bool:
    with work.desk.ledger.begin() as session:
        return order_book.has_event(session, row.client_order_id, DUPLICATE)


def _look_up(work: Pass, unclear: Sequence[OrderIntent], actor: Actor) -> list[OrderIntent]:
    """Rounds of look-ups over the stated wait; returns those absent in every round."""
    desk, report = work.desk, work.report
    absent = list(unclear)
    for round_number in range(desk.policy.sending.look_ups):
        if not absent:
            return []
        if round_number:
            desk.sleep(desk.policy.sending.look_up_wait_seconds)
        still: list[OrderIntent] = []
        for row in absent:
            try:
                order = desk.broker.order_by_client_id(row.client_order_id)
            except UnauthorizedError:
                raise
            except BrokerError as error:
                report.stopped = f"nothing is known about order {row.client_order_id}: {error}"
                return []
            if order is None:
                still.append(row)
            else:
                _adopt(work, order, actor, "found by its client id")
                report.adopted += 1
        absent = still
    return absent


def _commit_sending(work: Pass, row: OrderIntent, actor: Actor) -> bool:
    """Commit that the request is about to leave, if the trading state allows it."""
    with work.desk.ledger.begin() as session:
        if not trading_allows(session, work, row):
            return False
        order_book.transition(session, row.client_order_id, S.SENDING, actor, detail="sending")
    return True


def _is_absent(work: Pass, row: OrderIntent, actor: Actor) -> bool:
    with work.desk.ledger.begin() as session:
        order_book.transition(
            session, row.client_order_id, S.AMBIGUOUS, actor, detail="refused when sent again"
        )
    if not _look_up(work, [row], actor):
        return False
    with work.desk.ledger.begin() as session:
        order_book.transition(
            session, row.client_order_id, S.SENDING, actor, detail="absent: the refusal is believed"
        )
    return True


def _adopt(work: Pass, order: BrokerOrder, actor: Actor, detail: str) -> None:
    with halting_on_wrong_orders(work.desk.ledger), work.desk.ledger.begin() as session:
        order_book.record_order(session, order, actor, detail)
    work.clock.learn(order.updated_at)
