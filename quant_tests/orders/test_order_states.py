"""The state machine in code and in the database are one table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import product

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from quant_resources.ledger import order_book
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_states import (
    ADOPTED_FROM,
    AT_BROKER,
    BROKER_STATUS,
    FINAL,
    INITIAL,
    LEG_INITIAL,
    LEG_TRANSITIONS,
    OPEN,
    TRANSITIONS,
    UNFINISHED,
    Actor,
    IllegalTransitionError,
    OrderState,
    assert_legal,
    leg_state,
    state_at_broker,
    trigger_sql,
)
from quant_resources.ledger.order_tables import LegEvent, OrderEvent, OrderIntent
from quant_tests.ledger.frozen_orders import (
    NAME,
    SESSION,
    broker_order,
    freeze,
    frozen,
    intent,
    sending,
)

S = OrderState


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """An empty ledger."""
    ledger = Ledger(ledger_url)
    yield ledger
    ledger.dispose()


@contextmanager
def _undone(ledger: Ledger) -> Iterator[Session]:
    """A transaction that is rolled back."""
    with Session(ledger.engine) as session:
        yield session
        session.rollback()


def _refused(session: Session, statement: object) -> str:
    """The name of the rule by which the database refuses a statement; empty when it accepts it."""
    point = session.begin_nested()
    try:
        session.execute(statement)  # pyright: ignore[reportArgumentType, reportCallIssue]
    except IntegrityError as error:
        point.rollback()
        return error.orig.diag.constraint_name  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    point.rollback()
    return ""


def _way_to(state: OrderState) -> list[OrderState]:
    """The shortest legal way of an intent to a state, from its birth on."""
    ways = [[start] for start in sorted(INITIAL)]
    for way in ways:
        if way[-1] == state:
            return way
        ways += [[*way, new] for old, new in TRANSITIONS if old == way[-1] and new not in way]
    raise AssertionError(f"No way leads to {state}.")


def test_every_state_is_reached_and_left_or_final() -> None:
    """No state is an orphan, and no state is a trap."""
    reached = INITIAL | {end for _, end in TRANSITIONS}
    assert reached == set(OrderState)
    left = {start for start, _ in TRANSITIONS}
    assert left - FINAL == UNFINISHED | OPEN
    assert not FINAL & (UNFINISHED | OPEN)
    assert set(OrderState) == FINAL | UNFINISHED | OPEN
    assert set(BROKER_STATUS.values()) <= OPEN | FINAL


def test_what_may_have_left_never_becomes_pending() -> None:
    """An intent that may be at the broker is looked up, never sent as if it were new."""
    for state in (S.SENDING, S.AMBIGUOUS):
        assert (state, S.PENDING) not in TRANSITIONS
        assert (state, S.WITHDRAWN) not in TRANSITIONS


def test_nothing_is_sent_but_from_pending_and_ambiguous() -> None:
    """Whatever is added to the table, no other state leads to a second request."""
    assert {start for start, end in TRANSITIONS if end == S.SENDING} == {S.PENDING, S.AMBIGUOUS}
    assert not {end for start, end in TRANSITIONS if start in FINAL} & UNFINISHED


def test_everything_that_can_have_been_sent_is_adopted_when_it_turns_up() -> None:
    assert set(OrderState) - AT_BROKER - {S.REFUSED, S.DRY_RUN} == ADOPTED_FROM


def test_code_and_events_know_the_same_transitions_by_the_same_actors(ledger: Ledger) -> None:
    """Every pair of states by every actor: the CHECK accepts it exactly when the code does."""
    name = frozen(ledger)
    with _undone(ledger) as session:
        for old, new, actor in product([None, *OrderState], OrderState, Actor):
            try:
                assert_legal(name, old, new, actor)
                expected = ""
            except IllegalTransitionError:
                expected = "ck_order_events_transition"
            event = insert(OrderEvent).values(
                client_order_id=name, from_state=old, to_state=new, actor=actor, detail="test"
            )
            assert _refused(session, event) == expected, (old, new, actor)


def test_nobody_else_causes_anything(ledger: Ledger) -> None:
    name = frozen(ledger)
    with _undone(ledger) as session:
        for (old, new), actor in product(TRANSITIONS, ["", "market", "breaker"]):
            event = insert(OrderEvent).values(
                client_order_id=name, from_state=old, to_state=new, actor=actor, detail="test"
            )
            assert _refused(session, event) == "ck_order_events_transition"


def test_a_leg_has_the_transitions_of_an_order_at_the_broker(ledger: Ledger) -> None:
    """Every pair of states by every actor, of the events of legs."""
    sending(ledger)
    with ledger.begin() as session:
        order_book.record_order(session, broker_order(), Actor.SUBMISSION, "accepted")
    readers = {Actor.SUBMISSION, Actor.RECOVERY, Actor.BOOKING}
    with _undone(ledger) as session:
        for old, new, actor in product([None, *OrderState], OrderState, Actor):
            known = new in LEG_INITIAL if old is None else (old, new) in LEG_TRANSITIONS
            event = insert(LegEvent).values(
                broker_order_id=f"broker-{NAME}",
                from_state=old,
                to_state=new,
                actor=actor,
                detail="test",
                broker_message={},
            )
            expected = "" if known and actor in readers else "ck_leg_events_transition"
            assert _refused(session, event) == expected, (old, new, actor)


def test_the_database_moves_an_intent_only_as_the_table_does(ledger: Ledger) -> None:
    """From every state, reached on a legal way, to every other: whatever program writes it."""
    born = [
        intent(f"born-{state}", leg=leg, state=state, limit_name="test")
        for leg, state in enumerate(sorted(INITIAL), 1)
    ]
    with ledger.begin() as session:
        freeze(session, *born)
    for old in OrderState:
        first, *way = _way_to(old)
        row = update(OrderIntent).where(OrderIntent.client_order_id == f"born-{first}")
        with _undone(ledger) as session:
            for state in way:
                session.execute(row.values(state=state))
            for new in OrderState:
                legal = old == new or (old, new) in TRANSITIONS
                expected = "" if legal else "legal_state"
                assert _refused(session, row.values(state=new)) == expected, (old, new)


def test_an_intent_is_born_in_an_initial_state_or_not_at_all(ledger: Ledger) -> None:
    frozen(ledger)
    with _undone(ledger) as session:
        born = session.get_one(OrderIntent, NAME)
        columns = {c.name: getattr(born, c.name) for c in OrderIntent.__table__.columns}
        for state in OrderState:
            other = columns | {
                "client_order_id": "other",
                "leg": 2,
                "state": state,
                "limit_name": "test",
            }
            expected = "" if state in INITIAL else "legal_state"
            assert _refused(session, insert(OrderIntent).values(other)) == expected, state


def test_the_trigger_is_the_one_that_the_table_generates(ledger: Ledger) -> None:
    """A transition that is added to the table needs a revision of the schema."""
    with ledger.begin() as session:
        source = session.scalar(
            text("SELECT prosrc FROM pg_proc WHERE proname = 'refuse_illegal_state'")
        )
    assert source == trigger_sql()


def test_a_state_without_its_event_is_not_committed(ledger: Ledger) -> None:
    """Also where a program writes the row past the order book: the database asks for the event."""
    name = frozen(ledger)
    row = update(OrderIntent).where(OrderIntent.client_order_id == name)
    with (
        pytest.raises(IntegrityError, match=r"is sending, but its last event says pending"),
        ledger.begin() as session,
    ):
        session.execute(row.values(state="sending"))
    with ledger.begin() as session:
        other = intent("other", leg=2)
        other.batch_id = session.get_one(OrderIntent, name).batch_id
        session.add(other)
        session.flush()
        with pytest.raises(IntegrityError, match=r"its last event says nothing"):
            session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
        session.rollback()
    with ledger.begin() as session:
        assert order_book.states_of(session, [name, "other"]) == {name: S.PENDING}


def test_actors_are_held_to_their_transitions() -> None:
    """Booking may adopt what it sees; it may not declare an order unsent."""
    assert_legal("x", S.AMBIGUOUS, S.ACCEPTED, Actor.BOOKING)
    with pytest.raises(IllegalTransitionError, match="by booking"):
        assert_legal("x", S.AMBIGUOUS, S.EXPIRED_UNSENT, Actor.BOOKING)
    with pytest.raises(IllegalTransitionError, match="from nothing to pending by operator"):
        assert_legal("x", None, S.PENDING, Actor.OPERATOR)


def test_a_transition_writes_its_event(ledger: Ledger) -> None:
    """State and event change together, with the broker's words; an illegal step changes neither."""
    name = frozen(ledger)
    with ledger.begin() as session:
        order_book.transition(
            session, name, S.SENDING, Actor.SUBMISSION, detail="sending", raw={"said": "so"}
        )
    with pytest.raises(IllegalTransitionError), ledger.begin() as session:
        order_book.transition(session, name, S.FILLED, Actor.BOOKING, detail="jump")
    with ledger.begin() as session:
        assert order_book.states_of(session, [name]) == {name: S.SENDING}
        assert order_book.has_event(session, name, "sending")
        assert not order_book.has_event(session, name, "jump")
        told = session.scalars(select(OrderEvent).order_by(OrderEvent.event_id)).all()
    assert [(e.from_state, e.to_state, e.broker_message) for e in told] == [
        (None, "pending", None),
        ("pending", "sending", {"said": "so"}),
    ]


@pytest.mark.parametrize(
    ("status", "filled", "entry", "leg"),
    [
        ("new", 0, S.ACCEPTED, S.ACCEPTED),
        ("held", 0, S.ACCEPTED, S.ACCEPTED),
        ("pending_cancel", 3, S.PARTIALLY_FILLED, S.PARTIALLY_FILLED),
        ("partially_filled", 3, S.PARTIALLY_FILLED, S.PARTIALLY_FILLED),
        ("canceled", 3, S.CANCELED, S.CANCELED),
        ("filled", 10, S.FILLED, S.FILLED),
        # A bust took shares of an order that had ended: its other leg must not open a position on them.
        ("filled", 3, S.CANCELED, S.CANCELED),
        # An entry's successor goes on under the same intent; a leg's is another leg.
        ("replaced", 0, S.ACCEPTED, S.CANCELED),
        ("replaced", 3, S.PARTIALLY_FILLED, S.CANCELED),
    ],
)
def test_the_brokers_status_means_a_state(
    status: str, filled: int, entry: OrderState, leg: OrderState
) -> None:
    """Of ten shares, so many have filled."""
    assert state_at_broker("x", status, Decimal(filled), Decimal(10)) == entry
    assert leg_state("x", status, Decimal(filled), Decimal(10)) == leg


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantity": Decimal(0)},
        {"quantity": Decimal(-1)},
        {"notional": Decimal(0)},
        {"side": "short"},
        {"client_order_id": "x" * 129},
        {"client_order_id": ""},
        {"state": "lost"},
        {"waits_for": "leg"},
        {"state": "refused"},
        {"limit_price": Decimal(0)},
        {"take_profit_price": Decimal(104)},
        {"take_profit_price": Decimal(104), "stop_loss_price": Decimal(-1)},
    ],
)
def test_the_database_refuses_absurd_intents(ledger: Ledger, wrong: dict[str, object]) -> None:
    """Constraints hold even where code forgets; nothing of the batch is written then."""
    name = str(wrong.get("client_order_id", NAME))
    with pytest.raises(Exception, match=r"order_intents|character varying|cannot begin in state"):
        frozen(ledger, name, **{k: v for k, v in wrong.items() if k != "client_order_id"})
    with ledger.begin() as session:
        assert order_book.newest_batch(session, "main", SESSION) is None


def test_a_book_has_one_batch_per_session_and_attempt(ledger: Ledger) -> None:
    """The second freezing of the same attempt is refused by the database."""
    frozen(ledger)
    with pytest.raises(IntegrityError, match="uq_order_batches"):
        frozen(ledger, "main-2024-03-04-def")
