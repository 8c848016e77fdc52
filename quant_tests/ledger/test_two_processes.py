"""Two connections that do the same at the same moment: one does it, the other one sees that it is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.account_tables import Adjustment, FillCorrection
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_states import Actor, IllegalTransitionError, OrderState
from quant_resources.ledger.order_tables import LegEvent, Order, OrderBatch, OrderEvent
from quant_tests.ledger.frozen_orders import (
    ACCOUNT,
    BRACKET,
    NAME,
    SESSION,
    broker_order,
    entry,
    fill,
    freeze,
    frozen,
    intent,
    leg,
    sending,
)
from quant_tests.ledger.test_account_book import adjustment, correction

Work = Callable[[Session], Any]
S = OrderState
#: How long the second one gets to come to the lock; it must still wait there afterwards.
_WAIT_SECONDS = 15.0


@pytest.fixture
def other(ledger: Ledger) -> Iterator[Ledger]:
    """The ledger as another process has it: connections of its own."""
    other = Ledger(ledger.url.render_as_string(hide_password=False))
    yield other
    other.dispose()


@contextmanager
def _meanwhile(
    first: Ledger, work: Work, second: Ledger, other_work: Work
) -> Iterator[Future[Any]]:
    """Let the second one come while the first one has done its work but not committed it.

    Yields:
        What became of the second one, after the first has committed. It must have waited for that: where
        it did not, nothing was locked.
    """

    def run() -> Any:
        with second.begin() as session:
            return other_work(session)

    with ThreadPoolExecutor(1) as pool:
        with first.begin() as session:
            work(session)
            late = pool.submit(run)
            assert _somebody_waits(first, late), "The second one did not wait for the first."
        yield late


def _somebody_waits(ledger: Ledger, late: Future[Any]) -> bool:
    end = time.monotonic() + _WAIT_SECONDS
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with ledger.engine.connect() as connection:
        while time.monotonic() < end and not late.done():
            if connection.scalar(waiting):
                return True
            connection.rollback()
            time.sleep(0.01)
    return False


def _send(session: Session) -> Any:
    return order_book.transition(session, NAME, S.SENDING, Actor.SUBMISSION, detail="sending")


def _record(order: Any) -> Work:
    return lambda session: order_book.record_order(session, order, Actor.BOOKING, "found")


def _leg(order: Any) -> Work:
    return lambda session: order_book.record_leg(session, order, NAME, Actor.BOOKING)


def _count(ledger: Ledger, table: Any) -> int | None:
    with ledger.begin() as session:
        return session.scalar(select(func.count()).select_from(table))


def test_one_intent_is_committed_as_sending_once(ledger: Ledger, other: Ledger) -> None:
    """The second one sees what the first one has committed, and sends nothing."""
    frozen(ledger)
    with (
        _meanwhile(ledger, _send, other, _send) as late,
        pytest.raises(IllegalTransitionError, match="from sending to sending"),
    ):
        late.result()
    assert _count(ledger, OrderEvent) == 2


def test_what_is_being_sent_cannot_be_withdrawn(ledger: Ledger, other: Ledger) -> None:
    frozen(ledger)

    def withdraw(session: Session) -> None:
        # Read before the lock was asked for, as a pass reads all its intents at once.
        (row,) = order_book.unfinished_intents(session, ACCOUNT)
        order_book.transition(
            session, row.client_order_id, S.WITHDRAWN, Actor.OPERATOR, detail="stop"
        )

    with _meanwhile(ledger, _send, other, withdraw) as late, pytest.raises(IllegalTransitionError):
        late.result()
    with ledger.begin() as session:
        assert order_book.states_of(session, [NAME]) == {NAME: S.SENDING}


FILLED = broker_order(
    minutes=5, status="filled", filled_quantity=Decimal(10), average_fill_price=Decimal(100)
)


@pytest.mark.parametrize(("first", "second"), [(FILLED, broker_order()), (broker_order(), FILLED)])
def test_news_of_an_order_end_in_the_newest_whoever_brings_them(
    ledger: Ledger, other: Ledger, first: Any, second: Any
) -> None:
    sending(ledger)
    with _meanwhile(ledger, _record(first), other, _record(second)) as late:
        late.result()
    with ledger.begin() as session:
        assert order_book.states_of(session, [NAME]) == {NAME: S.FILLED}
        assert session.get_one(Order, f"broker-{NAME}").status == "filled"
    assert _count(ledger, OrderEvent) == 4


def test_entry_and_leg_wait_for_each_other_and_both_are_recorded(
    ledger: Ledger, other: Ledger
) -> None:
    sending(ledger, **BRACKET)
    with ledger.begin() as session:
        _record(entry())(session)
    news = _record(entry(minutes=1, status="filled", filled_quantity=Decimal(10)))
    with _meanwhile(ledger, news, other, _leg(leg("stop_loss"))) as late:
        late.result()
    with ledger.begin() as session:
        assert order_book.states_of(session, [NAME]) == {NAME: S.FILLED}
        assert len(order_book.open_legs(session, ACCOUNT)) == 1


def test_a_leg_is_born_once(ledger: Ledger, other: Ledger) -> None:
    sending(ledger, **BRACKET)
    with ledger.begin() as session:
        _record(entry())(session)
    with _meanwhile(ledger, _leg(leg("stop_loss")), other, _leg(leg("stop_loss"))) as late:
        late.result()
    assert _count(ledger, LegEvent) == 1


def test_a_batch_is_frozen_once(ledger: Ledger, other: Ledger) -> None:
    """The account's lock already keeps the second process out; without it the database does."""
    with (
        _meanwhile(
            ledger,
            lambda session: freeze(session, intent()),
            other,
            lambda session: freeze(session, intent("second")),
        ) as late,
        pytest.raises(IntegrityError, match="uq_order_batches"),
    ):
        late.result()
    assert _count(ledger, OrderBatch) == 1


def test_a_correction_is_booked_once(ledger: Ledger, other: Ledger) -> None:
    sending(ledger)
    with ledger.begin() as session:
        _record(FILLED)(session)
        session.add(fill())

    def book(session: Session) -> bool:
        return account_book.record_correction(session, correction())

    with _meanwhile(ledger, book, other, book) as late:
        assert late.result() is False
    assert _count(ledger, FillCorrection) == 1


def test_a_finding_is_confirmed_once(ledger: Ledger, other: Ledger) -> None:
    def confirm(session: Session) -> bool:
        return account_book.record_adjustment(session, adjustment())

    with _meanwhile(ledger, confirm, other, confirm) as late:
        assert late.result() is False
    assert _count(ledger, Adjustment) == 1


def test_many_at_once_send_every_intent_once(ledger: Ledger) -> None:
    """Without a lock per account: the rows alone let one of four win each of the intents."""
    names = [f"order-{number}" for number in range(8)]
    with ledger.begin() as session:
        freeze(session, *(intent(name, leg=n) for n, name in enumerate(names, 1)))
    start = threading.Barrier(4)

    def take_all() -> int:
        own = Ledger(ledger.url.render_as_string(hide_password=False))
        start.wait()
        won = 0
        for name in names:
            with suppress(IllegalTransitionError), own.begin() as session:
                order_book.transition(session, name, S.SENDING, Actor.SUBMISSION, detail="sending")
                won += 1
        own.dispose()
        return won

    with ThreadPoolExecutor(4) as pool:
        won = [pool.submit(take_all) for _ in range(4)]
        assert sum(one.result() for one in won) == len(names)
    with ledger.begin() as session:
        batch = order_book.newest_batch(session, "main", SESSION)
        assert batch is not None
        assert {row.state for row in order_book.intents_of(session, batch.batch_id)} == {"sending"}
    assert _count(ledger, OrderEvent) == 2 * len(names)
