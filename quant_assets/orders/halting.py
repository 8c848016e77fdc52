"""Halting: the trading state of a book, who may change it, and what HALTED does to what is open.

Belongs here: tightening, halting and resuming, and carrying out what a halt asks of the broker. Does not
belong here: when machines halt (`breakers.py`, `evidence.py`), and the command (`cli/trading_state.py`).

1. The state is the newest of the book's rows in the ledger, each with who and why. Machines only tighten
   it (ACTIVE, REDUCING, HALTED, in this order); only a person takes that back.
2. A halt may ask for more than silence: that open entry orders are cancelled, and that the broker's own
   switch is set. The policy asks it of every halt, a person of one; a person's wish is kept in the
   row's reason, where whoever reads it sees it.
3. Every pass carries a halt out again, before anything else and after everything else, until nothing is
   left to do: to cancel what has ended is no error, and a switch that is set is not set again. So a
   process that dies between the ledger's row and the broker's switch leaves that to the next pass.
4. A row says that the switch will be ours before it is set. Only a switch with such a row is taken back:
   one that somebody else has set stays as it is.
5. Protective legs are never cancelled by a halt: all that they can do is to make a position smaller.
6. Whoever resumes takes the switch back first. The other way round a pass could send orders to a broker
   that refuses them for good.

An order that was committed as `sending` before the halt counts as sent: its request may leave a moment
later, and if orders are to be cancelled, the pass that learns of it cancels it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import or_, select, text
from sqlalchemy.orm import Session

from quant_assets.orders.policy import TradingPolicy
from quant_assets.orders.trading_desk import TradingDesk
from quant_resources.errors import BrokerError, ConfigurationError
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.account_book import Trading, TradingStatus
from quant_resources.ledger.account_tables import TradingState
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_tables import Order

CANCELLING: Final = "[open orders are cancelled]"
SUSPENDING: Final = "[trading is suspended at the broker]"
_SWITCH_OURS: Final = "[the broker's switch is set by us]"
_SWITCH_BACK: Final = "[the broker's switch was taken back]"
_STRICTNESS: Final[dict[Trading, int]] = {"ACTIVE": 0, "REDUCING": 1, "HALTED": 2}
#: Looks at cancelled orders before they are left to the next pass.
_CANCEL_LOOKS: Final = 10
#: Cancellations that may fail before a pass stops asking for more.
_MOST_FAILURES: Final = 3


@dataclass(frozen=True)
class CarriedOut:
    """What a halt did at the broker.

    Attributes:
        cancelled: Broker ids of the orders whose cancellation was asked for.
        problem: What could not be done, for a person; the next pass tries again.
    """

    cancelled: frozenset[str] = frozenset()
    problem: str = ""


def tighten(session: Session, book: str, state: Trading, reason: str, changed_by: str) -> bool:
    """Set a stricter trading state, inside the caller's transaction; what is as strict already stays.

    Returns:
        Whether the state was changed.

    Raises:
        LedgerError: No reason or nobody named.
    """
    _exclusively(session)
    if _STRICTNESS[account_book.trading_status(session, book).state] >= _STRICTNESS[state]:
        return False
    account_book.set_trading_status(session, book, state, reason, changed_by)
    return True


def halt(
    ledger: Ledger,
    book: str,
    reason: str,
    who: str,
    *,
    reducing: bool = False,
    cancel_orders: bool = False,
    suspend_at_broker: bool = False,
) -> TradingStatus:
    """A person halts the book; what the halt asks of the broker is done by `carry_out`.

    Args:
        ledger: The ledger.
        book: The book.
        reason: Why.
        who: The person.
        reducing: Still allow orders that make positions smaller.
        cancel_orders: Cancel open entry orders.
        suspend_at_broker: Set the broker's own switch.

    Returns:
        The state that was in force before.

    Raises:
        ConfigurationError: REDUCING would relax a book that is HALTED, or does not go with the rest.
        LedgerError: No reason or nobody named.
    """
    if reducing and (cancel_orders or suspend_at_broker):
        raise ConfigurationError(
            "A book that may still reduce its positions needs its orders and the broker: leave out "
            "--reducing, or --cancel-orders and --suspend-at-broker."
        )
    marks = [CANCELLING] * cancel_orders + [SUSPENDING] * suspend_at_broker
    with ledger.begin() as session:
        _exclusively(session)
        before = account_book.trading_status(session, book)
        if reducing and before.state == "HALTED":
            raise ConfigurationError(
                f"Book {book} is HALTED by {before.changed_by} ({before.reason}): REDUCING would relax "
                "that; use `quant resume --reducing` if that is what you mean."
            )
        told = " ".join([reason.strip(), *marks]) if reason.strip() else ""
        account_book.set_trading_status(
            session, book, "REDUCING" if reducing else "HALTED", told, who
        )
    return before


def resume(
    ledger: Ledger,
    book: str,
    reason: str,
    who: str,
    desk: Callable[[], TradingDesk],
    *,
    reducing: bool = False,
) -> TradingStatus:
    """A person lets the book trade again; the broker's switch is taken back first if it is ours.

    Args:
        ledger: The ledger.
        book: The book.
        reason: Why.
        who: The person.
        desk: Gives the account under its lock; called only when the broker is needed.
        reducing: Allow only orders that make positions smaller.

    Returns:
        The state that was in force before.

    Raises:
        BrokerError: The broker did not take the switch back; the book stays HALTED.
        ConfigurationError: The mode touches nothing at the broker, but the switch is ours.
        LedgerError: No reason or nobody named.
    """
    with ledger.begin() as session:
        ours = switch_is_ours(session, book)
    if ours:
        _take_back(desk())
    with ledger.begin() as session:
        _exclusively(session)
        before = account_book.trading_status(session, book)
        told = f"{reason.strip()} {_SWITCH_BACK}" if ours and reason.strip() else reason
        account_book.set_trading_status(
            session, book, "REDUCING" if reducing else "ACTIVE", told, who
        )
    return before


def switch_is_ours(session: Session, book: str) -> bool:
    """Whether the broker's switch was, or was about to be, set by us and not yet taken back."""
    newest = session.scalar(
        select(TradingState.reason)
        .where(
            TradingState.book == book,
            or_(
                TradingState.reason.contains(_SWITCH_OURS, autoescape=True),
                TradingState.reason.contains(_SWITCH_BACK, autoescape=True),
            ),
        )
        .order_by(TradingState.state_id.desc())
        .limit(1)
    )
    return newest is not None and _SWITCH_BACK not in newest


def asks_broker(status: TradingStatus, policy: TradingPolicy) -> bool:
    """Whether a halt asks anything of the broker."""
    return status.state == "HALTED" and (_cancels(status, policy) or _suspends(status, policy))


def carry_out(desk: TradingDesk) -> CarriedOut:
    """Do at the broker what the trading state asks for; a second time changes nothing.

    Returns:
        What was asked of the broker, and what it did not do.

    Raises:
        BrokerError: The book is not HALTED, and our switch could not be taken back: nothing can be sent.
    """
    book = desk.policy.book
    with desk.ledger.begin() as session:
        status = account_book.trading_status(session, book)
        ours = switch_is_ours(session, book)
    if not desk.sends:
        return CarriedOut()
    if status.state != "HALTED":
        if ours:
            _take_back(desk)
            with desk.ledger.begin() as session:
                _note(session, book, _SWITCH_BACK)
        return CarriedOut()
    problems: list[str] = []
    if ours or _suspends(status, desk.policy):
        try:
            _set_switch(desk, ours=ours)
        except BrokerError as error:
            problems.append(f"the broker's switch is not set: {error}")
    cancelled: set[str] = set()
    if _cancels(status, desk.policy):
        with desk.ledger.begin() as session:
            entries = order_book.open_entries(session, desk.account.account_id)
        failed = 0
        for order in entries:
            try:
                desk.broker.cancel(order.broker_order_id)
            except BrokerError as error:
                problems.append(f"order {order.client_order_id} is not cancelled: {error}")
                failed += 1
                # Each try may cost a time-out: a broker that answers nothing is left to the next pass.
                if failed == _MOST_FAILURES:
                    break
            else:
                cancelled.add(order.broker_order_id)
    return CarriedOut(frozenset(cancelled), problems[0] if problems else "")


def cancel_and_wait(
    desk: TradingDesk,
    orders: Sequence[Order],
    look: Callable[[], object],
    open_orders: Callable[[Session], Sequence[Order]],
) -> Sequence[Order]:
    """Cancel orders and wait until nothing more of them can fill.

    Args:
        desk: The account under its lock.
        orders: What is cancelled.
        look: Reads the broker into the ledger.
        open_orders: What of it is open, as the ledger knows.

    Returns:
        What is still open after all looks.

    Raises:
        BrokerError: A cancellation was not taken.
    """
    if not orders:
        return orders
    for order in orders:
        desk.broker.cancel(order.broker_order_id)
    left = orders
    for number in range(_CANCEL_LOOKS):
        if number:
            desk.sleep(desk.policy.sending.look_up_wait_seconds)
        look()
        with desk.ledger.begin() as session:
            left = open_orders(session)
        if not left:
            break
    return left


def _set_switch(desk: TradingDesk, *, ours: bool) -> None:
    if desk.broker.is_suspended():
        return
    if not ours:
        with desk.ledger.begin() as session:
            if not _note(session, desk.policy.book, _SWITCH_OURS, only_in="HALTED"):
                return
    desk.broker.suspend_trading(suspended=True)


def _take_back(desk: TradingDesk) -> None:
    if not desk.sends:
        raise ConfigurationError(
            "The broker's switch was set by us, and in mode dry_run nothing at the broker is changed: "
            "set QUANT_TRADING_MODE to the mode that trades, and resume again."
        )
    desk.broker.suspend_trading(suspended=False)


def _note(session: Session, book: str, mark: str, only_in: Trading | None = None) -> bool:
    """Repeat the state in force with a mark, unless a person has changed it meanwhile."""
    _exclusively(session)
    status = account_book.trading_status(session, book)
    if only_in is not None and status.state != only_in:
        return False
    reason = status.reason.replace(_SWITCH_OURS, "").replace(_SWITCH_BACK, "").strip()
    account_book.set_trading_status(
        session, book, status.state, f"{reason} {mark}", status.changed_by
    )
    return True


def _cancels(status: TradingStatus, policy: TradingPolicy) -> bool:
    return policy.breakers.cancel_open_orders or CANCELLING in status.reason


def _suspends(status: TradingStatus, policy: TradingPolicy) -> bool:
    return policy.breakers.suspend_at_broker or SUSPENDING in status.reason


def _exclusively(session: Session) -> None:
    """Nobody else may append a state until the transaction ends: what was read stays the newest."""
    session.execute(text("LOCK TABLE trading_state IN SHARE ROW EXCLUSIVE MODE"))
