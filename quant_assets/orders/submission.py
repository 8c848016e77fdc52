"""The submission protocol: every frozen intent is sent exactly once, within its deadline, or not at all.

Belongs here: sending and recovering. Does not belong here: deciding what to send (`planning.py`), booking
what filled (`booking.py`).

A pass is the only way in which anything is sent, and it always begins with recovery:

1. One process at a time passes: an advisory lock of the database, per account.
2. The account is synced first: what the broker has is adopted, what filled is booked.
3. Intents whose request may have left (`sending`, `ambiguous`) are looked up by client id, in rounds over a
   stated wait. Found: compared and adopted. No usable answer: left for the next pass, and the pass ends,
   since a broker that does not answer cannot be traded with. Absent in every round: sent again under
   the same id while the deadline allows it, else `expired_unsent`.
4. What waits for a leg or for money, and now has it, becomes `pending`.
5. A `pending` intent is committed as `sending` (with the trading state read in the same transaction)
   before its request leaves, and its answer is committed before the next one is touched.
6. Past its deadline an intent that never left becomes `expired_unsent`; it is never sent late.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from quant_assets.orders.booking import halting_on_wrong_orders, sync_with_broker
from quant_assets.orders.policy import TradingPolicy
from quant_assets.orders.risk_limits import SHORT_SALE_CUSHION
from quant_resources.broker import (
    Account,
    Broker,
    BrokerOrder,
    DuplicateIdError,
    OrderRequest,
    RejectedError,
    Side,
    UnauthorizedError,
)
from quant_resources.errors import BrokerError, ConfigurationError
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.ledger import HeldLock, Ledger, LedgerBusyError
from quant_resources.ledger.order_states import FINAL, Actor, OrderState
from quant_resources.ledger.order_tables import OrderIntent

DUPLICATE: Final = "the broker knows this id already"
S: Final = OrderState
_AT_BROKER_ONCE: Final = frozenset({S.SENDING, S.AMBIGUOUS})


@dataclass
class PassReport:
    """What a pass did, by count; `stopped` says why it ended early."""

    adopted: int = 0
    sent: int = 0
    rejected: int = 0
    expired: int = 0
    left: int = 0
    stopped: str = ""
    rejections: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TradingDesk:
    """What a pass works with, under the account's lock.

    Attributes:
        sleep: How waits are spent; tests of the protocol shorten them.
        modes: Batch id to the mode in which it was frozen, as far as it was asked for.
    """

    ledger: Ledger
    broker: Broker
    policy: TradingPolicy
    account: Account
    lock: HeldLock
    sleep: Callable[[float], Any] = time.sleep
    modes: dict[int, str] = field(default_factory=dict)

    @property
    def sends(self) -> bool:
        """Whether anything may leave at all."""
        return self.policy.mode != "dry_run"


@contextmanager
def trading_desk(
    ledger: Ledger,
    broker: Broker,
    policy: TradingPolicy,
    wait_seconds: float = 0.0,
    sleep: Callable[[float], Any] = time.sleep,
) -> Iterator[TradingDesk]:
    """Check the mode's switches and take the account's lock.

    Args:
        ledger: The ledger.
        broker: The broker.
        policy: The trading policy.
        wait_seconds: How long to wait for another process that trades the account.
        sleep: How waits are spent.

    Raises:
        ConfigurationError: The mode does not fit the account or the address.
        LedgerBusyError: Another process trades this account.
    """
    account = broker.account()
    check_switches(policy, broker, account)
    try:
        with ledger.exclusive(f"orders:{account.account_id}", wait_seconds) as lock:
            yield TradingDesk(ledger, broker, policy, account, lock, sleep)
    except LedgerBusyError as error:
        raise LedgerBusyError(
            f"Another process is trading account {account.account_number}: this one leaves without "
            "having sent anything; when the other has ended, start again to see that all is finished."
        ) from error


def check_switches(policy: TradingPolicy, broker: Broker, account: Account) -> None:
    """Refuse a mode that does not fit where orders would go.

    Raises:
        ConfigurationError: Paper trading at an address that moves real money; live trading without the
            account's number as the second switch.
    """
    if policy.mode == "paper" and broker.moves_real_money:
        raise ConfigurationError(
            "QUANT_TRADING_MODE is paper, but the trading address is Alpaca's live one: nothing is sent; "
            "correct QUANT_TRADING_URL."
        )
    if policy.mode == "live" and policy.live_account != account.account_number:
        raise ConfigurationError(
            "Live trading needs QUANT_LIVE_ACCOUNT to be the number of the account that the keys open; "
            f"it is {policy.live_account or 'not set'}, so nothing is sent."
        )


def finish_unfinished(desk: TradingDesk) -> PassReport:
    """Run one pass over everything unfinished of the account, of whatever session.

    Returns:
        What was done; `left` counts what the next pass must go on with.

    Raises:
        UnauthorizedError: The broker does not accept the keys.
        WrongOrderError: The broker's order is not the one that was frozen.
    """
    report = PassReport()
    sync_with_broker(desk.ledger, desk.broker)
    clock = _BrokerTime(desk.broker)
    _recover(desk, clock, report)
    if not report.stopped:
        _release_waiting(desk, clock, report)
        _send_pending(desk, clock, report)
    with desk.ledger.begin() as session:
        report.left = len(order_book.unfinished_intents(session, desk.account.account_id))
    return report


def run_pass(
    ledger: Ledger, broker: Broker, policy: TradingPolicy, wait_seconds: float = 0.0
) -> PassReport:
    """Take the account's lock and run one pass: what a sensor or a person starts between the open and close.

    It books what filled, sends second legs and purchases that were waiting, and ends what has expired.

    Raises:
        ConfigurationError: The mode does not fit the account or the address.
        LedgerBusyError: Another process trades this account.
    """
    with trading_desk(ledger, broker, policy, wait_seconds) as desk:
        return finish_unfinished(desk)


class _BrokerTime:
    """The broker's time between two looks at its clock."""

    def __init__(self, broker: Broker) -> None:
        self._now = broker.clock().now
        self._mark = time.monotonic()

    @property
    def now(self) -> datetime:
        return self._now + timedelta(seconds=time.monotonic() - self._mark)


def _recover(desk: TradingDesk, clock: _BrokerTime, report: PassReport) -> None:
    """Find out what became of every intent whose request may have left."""
    with desk.ledger.begin() as session:
        unclear = [
            row
            for row in order_book.unfinished_intents(session, desk.account.account_id)
            if OrderState(row.state) in _AT_BROKER_ONCE
        ]
        for row in unclear:
            if OrderState(row.state) == S.SENDING:
                order_book.transition(
                    session,
                    row.client_order_id,
                    S.AMBIGUOUS,
                    Actor.RECOVERY,
                    detail="the process ended before the answer was recorded",
                )
    _resolve(
        desk,
        clock,
        report,
        unclear=unclear,
        actor=Actor.RECOVERY,
        resends=desk.policy.sending.resends,
    )


def _resolve(
    desk: TradingDesk,
    clock: _BrokerTime,
    report: PassReport,
    *,
    unclear: list[OrderIntent],
    actor: Actor,
    resends: int,
) -> None:
    """Look ambiguous intents up; adopt, send again, expire, or stop the pass."""
    absent = _look_up(desk, report, unclear, actor)
    if report.stopped:
        return
    for row in absent:
        with desk.ledger.begin() as session:
            exists = order_book.has_event(session, row.client_order_id, DUPLICATE)
        if exists:
            # The broker refused the id as used, so the order is there, whatever its look-up says.
            report.stopped = f"the broker knows order {row.client_order_id} and does not show it; look again later"
            return
        if clock.now >= row.deadline:
            _expire(desk, row, actor, "absent in every look-up, and its deadline has passed")
            report.expired += 1
        elif resends > 0 and _may_send(desk, row):
            _send(desk, clock, report, row=row, actor=actor, resends=resends - 1)
            if report.stopped:
                return


def _look_up(
    desk: TradingDesk, report: PassReport, unclear: list[OrderIntent], actor: Actor
) -> list[OrderIntent]:
    """Rounds of look-ups over the stated wait; returns those absent in every round."""
    absent = unclear
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
                _adopt(desk, order, actor, "found by its client id")
                report.adopted += 1
        absent = still
    return absent


def _release_waiting(desk: TradingDesk, clock: _BrokerTime, report: PassReport) -> None:
    """Let second legs and purchases go whose leg has filled, or whose money is there."""
    with desk.ledger.begin() as session:
        waiting = [
            row
            for row in order_book.unfinished_intents(session, desk.account.account_id)
            if OrderState(row.state) == S.WAITING
        ]
        legs = order_book.states_of(session, [row.depends_on for row in waiting if row.depends_on])
    if not waiting:
        return
    reserve = 1 - desk.policy.limits.buying_power_reserve
    money = desk.broker.account().buying_power * reserve
    for row in waiting:
        if clock.now >= row.deadline:
            _expire(desk, row, Actor.SUBMISSION, f"its deadline passed waiting for {row.waits_for}")
            report.expired += 1
            continue
        leg = legs.get(row.depends_on or "")
        if leg is not None and leg in FINAL and leg != S.FILLED:
            _expire(desk, row, Actor.SUBMISSION, f"the leg that closes the position ended {leg}")
            report.expired += 1
            continue
        cost = _cost(row)
        if (leg is not None and leg != S.FILLED) or cost > money:
            continue
        money -= cost
        with desk.ledger.begin() as session:
            order_book.transition(
                session,
                row.client_order_id,
                S.PENDING,
                Actor.SUBMISSION,
                detail="the closing leg has filled" if leg else "the buying power is there",
            )


def _send_pending(desk: TradingDesk, clock: _BrokerTime, report: PassReport) -> None:
    with desk.ledger.begin() as session:
        pending = [
            row
            for row in order_book.unfinished_intents(session, desk.account.account_id)
            if OrderState(row.state) == S.PENDING
        ]
    for row in pending:
        if clock.now >= row.deadline:
            _expire(desk, row, Actor.SUBMISSION, "its deadline passed before it was sent")
            report.expired += 1
        elif _may_send(desk, row):
            _send(
                desk,
                clock,
                report,
                row=row,
                actor=Actor.SUBMISSION,
                resends=desk.policy.sending.resends,
            )
            if report.stopped:
                return


def _may_send(desk: TradingDesk, row: OrderIntent) -> bool:
    """A batch is sent in the mode in which it was frozen, or not at all."""
    if row.batch_id not in desk.modes:
        with desk.ledger.begin() as session:
            desk.modes.update(order_book.batch_modes(session, [row.batch_id]))
    return desk.sends and desk.modes[row.batch_id] == desk.policy.mode


def _send(
    desk: TradingDesk,
    clock: _BrokerTime,
    report: PassReport,
    *,
    row: OrderIntent,
    actor: Actor,
    resends: int,
) -> None:
    """Send one intent once and record what the answer proves."""
    again = OrderState(row.state) in _AT_BROKER_ONCE
    if not _commit_sending(desk, report, row, actor):
        return
    desk.lock.verify()
    try:
        order = desk.broker.submit(_request(row))
    except RejectedError as error:
        # A second sending may be refused although the first was taken: look before believing it.
        if again and not _is_absent(desk, report, row, actor):
            return
        with desk.ledger.begin() as session:
            order_book.transition(
                session, row.client_order_id, S.REJECTED, actor, detail=error.reason, raw=error.raw
            )
        report.rejected += 1
        report.rejections.append(f"{row.symbol}: {error.reason}")
    except UnauthorizedError:
        raise
    except BrokerError as error:
        detail = DUPLICATE if isinstance(error, DuplicateIdError) else str(error)
        with desk.ledger.begin() as session:
            order_book.transition(session, row.client_order_id, S.AMBIGUOUS, actor, detail=detail)
        row.state = str(S.AMBIGUOUS)
        _resolve(desk, clock, report, unclear=[row], actor=actor, resends=resends)
    else:
        _adopt(desk, order, actor, "accepted")
        report.sent += 1


def _commit_sending(desk: TradingDesk, report: PassReport, row: OrderIntent, actor: Actor) -> bool:
    """Commit that the request is about to leave, if the trading state allows it."""
    with desk.ledger.begin() as session:
        status = account_book.trading_status(session, desk.policy.book)
        if status.state == "HALTED":
            report.stopped = f"trading is HALTED ({status.reason})"
            return False
        if status.state == "REDUCING" and not row.reduces:
            return False
        order_book.transition(session, row.client_order_id, S.SENDING, actor, detail="sending")
    return True


def _is_absent(desk: TradingDesk, report: PassReport, row: OrderIntent, actor: Actor) -> bool:
    with desk.ledger.begin() as session:
        order_book.transition(
            session, row.client_order_id, S.AMBIGUOUS, actor, detail="refused when sent again"
        )
    if not _look_up(desk, report, [row], actor):
        return False
    with desk.ledger.begin() as session:
        order_book.transition(
            session, row.client_order_id, S.SENDING, actor, detail="absent: the refusal is believed"
        )
    return True


def _adopt(desk: TradingDesk, order: BrokerOrder, actor: Actor, detail: str) -> None:
    with halting_on_wrong_orders(desk.ledger), desk.ledger.begin() as session:
        order_book.record_order(session, order, actor, detail)


def _expire(desk: TradingDesk, row: OrderIntent, actor: Actor, detail: str) -> None:
    with desk.ledger.begin() as session:
        order_book.transition(session, row.client_order_id, S.EXPIRED_UNSENT, actor, detail=detail)


def _request(row: OrderIntent) -> OrderRequest:
    side: Side = "buy" if row.side == "buy" else "sell"
    return OrderRequest(
        client_order_id=row.client_order_id,
        symbol=row.symbol,
        side=side,
        quantity=row.quantity,
        order_type=row.order_type,
        time_in_force=row.time_in_force,
        limit_price=row.limit_price,
        stop_price=row.stop_price,
    )


def _cost(row: OrderIntent) -> Decimal:
    notional = row.quantity * row.reference_price
    return notional * SHORT_SALE_CUSHION if row.side == "sell" else notional
