"""The state machine in code and in the database are one table."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import product

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from quant_resources.ledger import order_book
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_states import (
    BROKER_STATUS,
    FINAL,
    INITIAL,
    OPEN,
    TRANSITIONS,
    UNFINISHED,
    Actor,
    IllegalTransitionError,
    OrderState,
    assert_legal,
)
from quant_resources.ledger.order_tables import (
    IntentSignal,
    OrderBatch,
    OrderEvent,
    OrderIntent,
    TargetPosition,
)

SESSION = date(2024, 3, 4)


def _freeze(ledger: Ledger, name: str = "main-2024-03-04-abc", **more: object) -> str:
    fields = {
        "client_order_id": name,
        "symbol": "AAA",
        "security_id": "AAA@2024-03-01",
        "leg": 1,
        "side": "buy",
        "quantity": Decimal(1),
        "reduces": False,
        "order_type": "market",
        "time_in_force": "day",
        "reference_price": Decimal(100),
        "waits_for": "",
        "deadline": datetime(2024, 3, 4, 20, tzinfo=UTC),
        "state": "pending",
        "reason": "test",
    } | more
    with ledger.begin() as session:
        order_book.freeze_batch(
            session,
            OrderBatch(
                book="main",
                trading_session=SESSION,
                attempt=1,
                account_id="a",
                mode="paper",
                equity=Decimal(1),
                cash=Decimal(1),
                buying_power=Decimal(1),
                configuration={},
            ),
            [
                TargetPosition(
                    strategy="alpha",
                    symbol="AAA",
                    security_id="AAA@2024-03-01",
                    signal_session=date(2024, 3, 1),
                    score=None,
                    target_weight=Decimal(1),
                    target_quantity=Decimal(1),
                    reference_price=Decimal(100),
                    changed=True,
                    reason="test",
                    model_version="rules-1",
                )
            ],
            [OrderIntent(**fields)],
            [
                IntentSignal(
                    client_order_id=name,
                    strategy="alpha",
                    symbol="AAA",
                    signal_session=date(2024, 3, 1),
                    score=None,
                    target_weight=Decimal(1),
                    model_version="rules-1",
                )
            ],
        )
    return name


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
    for state in (OrderState.SENDING, OrderState.AMBIGUOUS):
        assert (state, OrderState.PENDING) not in TRANSITIONS
        assert (state, OrderState.WITHDRAWN) not in TRANSITIONS


def test_the_database_knows_the_same_transitions(ledger_url: str) -> None:
    """Each of all pairs of states: the CHECK of the events accepts it exactly when the table does."""
    ledger = Ledger(ledger_url)
    name = _freeze(ledger)
    pairs = [(None, new) for new in OrderState] + list(product(OrderState, OrderState))
    for old, new in pairs:
        legal = new in INITIAL if old is None else (old, new) in TRANSITIONS
        statement = insert(OrderEvent).values(
            client_order_id=name,
            from_state=old,
            to_state=new,
            actor="booking",
            detail="test",
        )
        try:
            with ledger.begin() as session:
                session.execute(statement)
            accepted = True
        except IntegrityError:
            accepted = False
        assert accepted == legal, (old, new)
    ledger.dispose()


def test_actors_are_held_to_their_transitions() -> None:
    """Booking may adopt what it sees; it may not declare an order unsent."""
    assert_legal("x", OrderState.AMBIGUOUS, OrderState.ACCEPTED, Actor.BOOKING)
    with pytest.raises(IllegalTransitionError, match="by booking"):
        assert_legal("x", OrderState.AMBIGUOUS, OrderState.EXPIRED_UNSENT, Actor.BOOKING)


def test_a_transition_writes_its_event(ledger_url: str) -> None:
    """State and event change together; an illegal step changes neither."""
    ledger = Ledger(ledger_url)
    name = _freeze(ledger)
    with ledger.begin() as session:
        order_book.transition(session, name, OrderState.SENDING, Actor.SUBMISSION, detail="sending")
    with pytest.raises(IllegalTransitionError), ledger.begin() as session:
        order_book.transition(session, name, OrderState.FILLED, Actor.BOOKING, detail="jump")
    with ledger.begin() as session:
        assert order_book.states_of(session, [name]) == {name: OrderState.SENDING}
        assert order_book.has_event(session, name, "sending")
        assert not order_book.has_event(session, name, "jump")
    ledger.dispose()


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantity": Decimal(0)},
        {"quantity": Decimal(-1)},
        {"side": "short"},
        {"client_order_id": "x" * 129},
        {"client_order_id": ""},
        {"state": "lost"},
        {"waits_for": "leg"},
        {"state": "refused"},
        {"limit_price": Decimal(0)},
    ],
)
def test_the_database_refuses_absurd_intents(ledger_url: str, wrong: dict[str, object]) -> None:
    """Constraints hold even where code forgets; nothing of the batch is written then."""
    ledger = Ledger(ledger_url)
    name = str(wrong.get("client_order_id", "main-2024-03-04-abc"))
    with pytest.raises(Exception, match="order_intents|character varying|cannot go from"):
        _freeze(ledger, name, **{k: v for k, v in wrong.items() if k != "client_order_id"})
    with ledger.begin() as session:
        assert order_book.newest_batch(session, "main", SESSION) is None
    ledger.dispose()


def test_a_book_has_one_batch_per_session_and_attempt(ledger_url: str) -> None:
    """The second freezing of the same attempt is refused by the database."""
    ledger = Ledger(ledger_url)
    _freeze(ledger)
    with pytest.raises(IntegrityError, match="uq_order_batches"):
        _freeze(ledger, "main-2024-03-04-def")
    ledger.dispose()
