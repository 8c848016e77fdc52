"""What the broker says of our orders is recorded as it is, under its intent, and never taken for something else."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select

from quant_resources.errors import LedgerError
from quant_resources.ledger import order_book
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_book import WrongOrderError
from quant_resources.ledger.order_states import Actor, OrderState
from quant_resources.ledger.order_tables import LegEvent, Order, OrderEvent, OrderIntent
from quant_tests.ledger.frozen_orders import (
    ACCOUNT,
    BRACKET,
    NAME,
    SESSION,
    broker_order,
    entry,
    freeze,
    frozen,
    intent,
    leg,
    sending,
)

S = OrderState
FILLED: dict[str, Any] = {
    "status": "filled",
    "filled_quantity": Decimal(10),
    "average_fill_price": Decimal(100),
}
HALF: dict[str, Any] = {
    "status": "partially_filled",
    "filled_quantity": Decimal(5),
    "average_fill_price": Decimal(100),
}


def state_of(ledger: Ledger, name: str = NAME) -> OrderState:
    with ledger.begin() as session:
        return order_book.states_of(session, [name])[name]


def recorded(ledger: Ledger, order: Any, actor: Actor = Actor.BOOKING) -> OrderState:
    """Record an entry in a transaction of its own; where the intent stands then."""
    with ledger.begin() as session:
        order_book.record_order(session, order, actor, "found")
    return state_of(ledger, order.client_order_id)


def events_of(ledger: Ledger, name: str = NAME) -> list[tuple[str, str]]:
    with ledger.begin() as session:
        rows = session.scalars(
            select(OrderEvent)
            .where(OrderEvent.client_order_id == name)
            .order_by(OrderEvent.event_id)
        )
        return [(row.to_state, row.actor) for row in rows]


def leg_events_of(ledger: Ledger, broker_order_id: str) -> list[tuple[str | None, str]]:
    with ledger.begin() as session:
        rows = session.scalars(
            select(LegEvent)
            .where(LegEvent.broker_order_id == broker_order_id)
            .order_by(LegEvent.event_id)
        )
        return [(row.from_state, row.to_state) for row in rows]


# Entries


def test_an_order_that_is_found_half_filled_has_been_accepted_first(ledger: Ledger) -> None:
    """Every step is an event with the broker's own words, also when all are learnt at once."""
    sending(ledger)

    assert recorded(ledger, broker_order(**HALF), Actor.RECOVERY) == S.PARTIALLY_FILLED

    assert events_of(ledger)[2:] == [("accepted", "recovery"), ("partially_filled", "recovery")]
    with ledger.begin() as session:
        said = session.scalars(
            select(OrderEvent.broker_message).where(OrderEvent.actor == "recovery")
        ).all()
    assert said == [{"said": "partially_filled"}] * 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"symbol": "BBB"},
        {"side": "sell"},
        {"quantity": Decimal(11)},
        {"quantity": None, "notional": Decimal(1000)},
        {"order_type": "limit", "limit_price": Decimal(100)},
        {"limit_price": Decimal(100)},
        {"stop_price": Decimal(90)},
        {"time_in_force": "gtc"},
        {"order_class": "bracket"},
        {"filled_quantity": Decimal("10.000000001")},
        {"filled_quantity": Decimal(-1)},
    ],
)
def test_an_order_that_is_not_the_frozen_one_is_not_recorded(
    ledger: Ledger, wrong: dict[str, Any]
) -> None:
    """A broker's answer about another order, and a fill larger than the order."""
    sending(ledger)

    with pytest.raises(WrongOrderError, match=r"AAA.*until a person has looked") as caught:
        recorded(ledger, broker_order(**wrong))

    assert caught.value.book == "main"
    assert state_of(ledger) == S.SENDING
    with ledger.begin() as session:
        assert session.scalars(select(Order)).all() == []


def test_an_order_that_was_never_to_be_sent_is_none_of_ours(ledger: Ledger) -> None:
    frozen(ledger, state="dry_run")
    with pytest.raises(WrongOrderError, match="never to be sent"):
        recorded(ledger, broker_order())


def test_a_second_order_under_one_id_is_not_taken_for_the_first(ledger: Ledger) -> None:
    sending(ledger)
    recorded(ledger, broker_order())
    with pytest.raises(WrongOrderError, match="two orders under the id"):
        recorded(ledger, broker_order(broker_order_id="another"))


def test_the_shares_of_an_order_for_money_are_free_and_its_money_is_not(ledger: Ledger) -> None:
    sending(ledger, notional=Decimal(1000))
    first = broker_order(
        status="filled",
        quantity=None,
        notional=Decimal(1000),
        filled_quantity=Decimal("8.333333333"),
        average_fill_price=Decimal(120),
    )
    assert recorded(ledger, first) == S.FILLED

    with pytest.raises(WrongOrderError, match="1000 USD"):
        recorded(ledger, replace(first, filled_quantity=Decimal(9)))


@pytest.mark.parametrize("unsent", [S.PENDING, S.WITHDRAWN, S.EXPIRED_UNSENT, S.REJECTED])
def test_what_the_broker_has_is_adopted_whatever_the_ledger_says(
    ledger: Ledger, unsent: OrderState
) -> None:
    """A ledger from a backup older than the order says that it was never sent."""
    ways = {
        S.PENDING: [],
        S.WITHDRAWN: [(S.WITHDRAWN, Actor.OPERATOR)],
        S.EXPIRED_UNSENT: [(S.EXPIRED_UNSENT, Actor.SUBMISSION)],
        S.REJECTED: [(S.SENDING, Actor.SUBMISSION), (S.REJECTED, Actor.SUBMISSION)],
    }
    frozen(ledger)
    with ledger.begin() as session:
        for state, actor in ways[unsent]:
            order_book.transition(session, NAME, state, actor, detail="test")

    assert recorded(ledger, broker_order(**FILLED)) == S.FILLED
    assert events_of(ledger)[-2:] == [("accepted", "booking"), ("filled", "booking")]


def test_a_refusal_that_is_read_again_changes_nothing(ledger: Ledger) -> None:
    sending(ledger)
    recorded(ledger, broker_order())
    assert recorded(ledger, broker_order(minutes=1, status="rejected")) == S.REJECTED
    told = events_of(ledger)
    assert recorded(ledger, broker_order(minutes=1, status="rejected")) == S.REJECTED
    assert events_of(ledger) == told


@pytest.mark.parametrize(
    "older",
    [
        broker_order(),
        broker_order(**HALF),
        # The broker's clock may stand still between two changes.
        broker_order(minutes=5, **HALF),
        broker_order(minutes=5, **FILLED | {"status": "new"}),
    ],
)
def test_older_news_undo_nothing(ledger: Ledger, older: Any) -> None:
    """Updates out of order, and a read that does not see the newest write."""
    sending(ledger)
    recorded(ledger, broker_order(minutes=5, **FILLED))
    told = events_of(ledger)

    assert recorded(ledger, older) == S.FILLED

    assert events_of(ledger) == told
    with ledger.begin() as session:
        row = session.get_one(Order, f"broker-{NAME}")
        assert (row.status, row.filled_quantity) == ("filled", 10)


@pytest.mark.parametrize(
    ("news", "state"),
    [
        (HALF, S.PARTIALLY_FILLED),
        ({"status": "new"}, S.ACCEPTED),
        ({"status": "canceled"}, S.CANCELED),
        ({"status": "expired"}, S.EXPIRED),
        (HALF | {"status": "filled"}, S.CANCELED),
    ],
)
def test_a_bust_takes_the_fill_back(
    ledger: Ledger, news: dict[str, Any], state: OrderState
) -> None:
    sending(ledger)
    recorded(ledger, broker_order(**FILLED))

    assert recorded(ledger, broker_order(minutes=1, **news)) == state

    with ledger.begin() as session:
        row = session.get_one(Order, f"broker-{NAME}")
        assert row.filled_quantity == news.get("filled_quantity", 0)


def test_asking_for_a_cancellation_is_no_step_back(ledger: Ledger) -> None:
    """An order of which half has filled stays so while its cancellation is pending."""
    sending(ledger)
    recorded(ledger, broker_order(**HALF))
    news = HALF | {"status": "pending_cancel"}
    assert recorded(ledger, broker_order(minutes=1, **news)) == S.PARTIALLY_FILLED


def test_a_fill_that_crossed_the_cancellation_counts(ledger: Ledger) -> None:
    sending(ledger)
    recorded(ledger, broker_order(status="canceled"))
    assert recorded(ledger, broker_order(minutes=1, **FILLED)) == S.FILLED


def test_a_status_that_nobody_knows_is_an_error(ledger: Ledger) -> None:
    sending(ledger)
    with pytest.raises(LedgerError, match=r"'dreaming'.*BROKER_STATUS"):
        recorded(ledger, broker_order(status="dreaming"))


# Legs


def bracket(ledger: Ledger, **news: Any) -> None:
    """A bracket whose entry the broker has."""
    sending(ledger, **BRACKET)
    recorded(ledger, entry(**news))


def legged(ledger: Ledger, role: str, actor: Actor = Actor.BOOKING, **more: Any) -> None:
    with ledger.begin() as session:
        order_book.record_leg(session, leg(role, **more), NAME, actor)


def test_a_leg_lives_by_itself_under_the_intent(ledger: Ledger) -> None:
    """Its fill ends the leg, not the intent, which says what became of the entry."""
    bracket(ledger)
    legged(ledger, "take_profit", status="held")
    legged(ledger, "stop_loss", status="held")
    recorded(ledger, entry(minutes=1, **FILLED))
    legged(ledger, "take_profit", minutes=2, status="new")
    legged(ledger, "take_profit", minutes=3, **FILLED)
    legged(ledger, "stop_loss", minutes=3, status="canceled")

    assert state_of(ledger) == S.FILLED
    assert leg_events_of(ledger, "take_profit") == [(None, "accepted"), ("accepted", "filled")]
    assert leg_events_of(ledger, "stop_loss") == [(None, "accepted"), ("accepted", "canceled")]
    with ledger.begin() as session:
        row = session.get_one(Order, "take_profit")
        assert (row.role, row.client_order_id) == ("take_profit", NAME)
        assert (row.parent_order_id, row.broker_client_order_id) == (
            f"broker-{NAME}",
            "take_profit-id",
        )
        assert (row.side, row.limit_price) == ("sell", Decimal(104))


def test_legs_of_different_kinds_are_found_while_they_are_open(ledger: Ledger) -> None:
    bracket(ledger)
    legged(ledger, "take_profit", status="held")
    legged(ledger, "stop_loss", status="canceled")
    with ledger.begin() as session:
        found = order_book.open_legs(session, ACCOUNT, ["AAA"])
        assert [row.broker_order_id for row in found] == ["take_profit"]
        assert order_book.open_legs(session, ACCOUNT) == found
        assert order_book.open_legs(session, ACCOUNT, ["BBB"]) == []
        assert order_book.open_legs(session, "other") == []
        entries = order_book.open_entries(session, ACCOUNT)
        assert [row.broker_order_id for row in entries] == [f"broker-{NAME}"]
        assert order_book.open_client_ids(session, ACCOUNT) == [NAME]


@pytest.mark.parametrize(
    ("role", "wrong"),
    [
        ("take_profit", {"symbol": "BBB"}),
        ("take_profit", {"side": "buy"}),
        ("take_profit", {"quantity": Decimal(11)}),
        ("take_profit", {"limit_price": Decimal("104.01")}),
        ("stop_loss", {"stop_price": Decimal(97)}),
        ("stop_loss", {"filled_quantity": Decimal(11)}),
    ],
)
def test_a_leg_that_was_not_frozen_is_not_recorded(
    ledger: Ledger, role: str, wrong: dict[str, Any]
) -> None:
    bracket(ledger)
    with pytest.raises(WrongOrderError, match="until a person has looked"):
        legged(ledger, role, **wrong)
    with ledger.begin() as session:
        assert order_book.open_legs(session, ACCOUNT) == []


def test_an_order_without_a_bracket_has_no_legs(ledger: Ledger) -> None:
    sending(ledger)
    recorded(ledger, broker_order())
    with pytest.raises(WrongOrderError, match="no bracket"):
        legged(ledger, "take_profit")


def test_a_leg_needs_its_entry(ledger: Ledger) -> None:
    sending(ledger, **BRACKET)
    with pytest.raises(LedgerError, match="record that one first"):
        legged(ledger, "take_profit")


def test_a_leg_of_another_order_is_refused(ledger: Ledger) -> None:
    bracket(ledger)
    with ledger.begin() as session:
        freeze(session, intent("other", **BRACKET), attempt=2)
    with (
        pytest.raises(WrongOrderError, match="not order other"),
        ledger.begin() as session,
    ):
        order_book.record_leg(session, leg("take_profit"), "other", Actor.BOOKING)


# Replacements


def successor(**more: Any) -> Any:
    """What took the place of the entry: for 8 shares, under an id of the broker's."""
    fields = {"broker_order_id": "successor", "replaces": f"broker-{NAME}", "quantity": Decimal(8)}
    return replace(broker_order(), client_order_id="theirs", **fields | more)


def replaced(ledger: Ledger, order: Any) -> OrderState:
    with ledger.begin() as session:
        order_book.record_replacement(session, order, Actor.BOOKING)
    return state_of(ledger)


def test_an_intent_goes_on_with_the_order_that_replaced_its_own(ledger: Ledger) -> None:
    """Nothing has ended with "replaced", and the old order's status is no step back either."""
    sending(ledger)
    recorded(ledger, broker_order(**HALF))

    assert (
        recorded(ledger, broker_order(minutes=1, **HALF | {"status": "replaced"}))
        == S.PARTIALLY_FILLED
    )
    assert replaced(ledger, successor()) == S.PARTIALLY_FILLED
    eight = FILLED | {"filled_quantity": Decimal(8)}
    assert replaced(ledger, successor(**eight)) == S.FILLED
    # A look-up under the intent's id still answers with the order that was replaced.
    assert recorded(ledger, broker_order(minutes=1, **HALF | {"status": "replaced"})) == S.FILLED

    with ledger.begin() as session:
        row = session.get_one(Order, "successor")
        told = (row.role, row.client_order_id, row.parent_order_id, row.broker_client_order_id)
        assert told == ("replacement", NAME, f"broker-{NAME}", "theirs")
        assert order_book.used_client_ids(session, [NAME, "theirs", "free"]) == {NAME, "theirs"}


@pytest.mark.parametrize(
    "wrong", [{"symbol": "BBB"}, {"side": "sell"}, {"filled_quantity": Decimal(9)}]
)
def test_a_replacement_that_trades_something_else_is_refused(
    ledger: Ledger, wrong: dict[str, Any]
) -> None:
    sending(ledger)
    recorded(ledger, broker_order())
    with pytest.raises(WrongOrderError):
        replaced(ledger, successor(**wrong))


def test_a_replacement_needs_the_order_that_it_replaces(ledger: Ledger) -> None:
    sending(ledger)
    with pytest.raises(LedgerError, match="record that one first"):
        replaced(ledger, successor())


def test_a_replaced_leg_is_followed_by_its_successor(ledger: Ledger) -> None:
    bracket(ledger, **FILLED)
    legged(ledger, "stop_loss", status="new")
    legged(ledger, "stop_loss", minutes=1, status="replaced")

    raised = {"broker_order_id": "tighter", "stop_price": Decimal(99), "replaces": "stop_loss"}
    assert replaced(ledger, leg("stop_loss", **raised)) == S.FILLED

    assert leg_events_of(ledger, "stop_loss") == [(None, "accepted"), ("accepted", "canceled")]
    assert leg_events_of(ledger, "tighter") == [(None, "accepted")]
    with ledger.begin() as session:
        (open_leg,) = order_book.open_legs(session, ACCOUNT)
        assert (open_leg.broker_order_id, open_leg.role) == ("tighter", "stop_loss")


# Refusals of the broker


def test_rejections_are_counted_for_a_session_and_after_a_time(ledger: Ledger) -> None:
    """After a person resumed, the refusals from before do not halt again."""
    sending(ledger)
    with ledger.begin() as session:
        order_book.transition(session, NAME, S.REJECTED, Actor.SUBMISSION, detail="no")
    with ledger.begin() as session:
        row = session.get_one(OrderIntent, NAME)
        day = order_book.newest_batch(session, "main", SESSION)
        assert day is not None
        count = order_book.rejections_since
        assert count(session, ACCOUNT, SESSION) == 1
        assert count(session, "other", SESSION) == 0
        assert count(session, ACCOUNT, SESSION.replace(day=5)) == 0
        assert count(session, ACCOUNT, SESSION, day.frozen_at) == 1
        assert count(session, ACCOUNT, SESSION, row.updated_at.replace(year=2100)) == 0
        with pytest.raises(TypeError, match="for a trading session"):
            count(session, ACCOUNT, day.frozen_at)
