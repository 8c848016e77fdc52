"""The step to legs and corrections: an older ledger keeps what it holds, and nothing is lost on the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from quant_resources.broker import BrokerOrder
from quant_resources.ledger import order_book
from quant_resources.ledger.account_tables import Adjustment
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.migrate import alembic_config, migrate
from quant_resources.ledger.order_states import Actor, OrderState
from quant_resources.ledger.order_tables import Order, OrderIntent, TargetPosition
from quant_tests.ledger.catalog import catalog
from quant_tests.ledger.frozen_orders import ACCOUNT, NAME, SESSION, broker_order, sending

#: An order of revision 0002, half filled, with the events that led there.
OLDER = """
INSERT INTO order_batches (book, trading_session, attempt, account_id, mode, equity, cash, buying_power,
        configuration)
    VALUES ('main', '2024-03-04', 1, 'account', 'paper', 1, 1, 1, '{}');
INSERT INTO order_intents (client_order_id, batch_id, symbol, security_id, leg, side, quantity, reduces,
        order_type, time_in_force, limit_price, reference_price, waits_for, deadline, state, reason)
    SELECT 'older', batch_id, 'AAA', 'AAA@2024-03-01', 1, 'buy', 10, false, 'limit', 'day', 101, 100, '',
        '2024-03-04 20:00Z', 'partially_filled', 'test' FROM order_batches;
INSERT INTO order_events (client_order_id, from_state, to_state, actor, detail) VALUES
    ('older', NULL, 'pending', 'planning', ''), ('older', 'pending', 'sending', 'submission', ''),
    ('older', 'sending', 'accepted', 'submission', ''),
    ('older', 'accepted', 'partially_filled', 'booking', '');
INSERT INTO orders (broker_order_id, client_order_id, symbol, side, quantity, filled_quantity, status,
        submitted_at, updated_at)
    VALUES ('broker-older', 'older', 'AAA', 'buy', 10, 4, 'partially_filled', '2024-03-04 15:00Z',
        '2024-03-04 15:00Z')
"""


def _back(ledger: Ledger) -> None:
    with ledger.engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0002")


@pytest.fixture
def older(new_database: Callable[[str], str]) -> Iterator[Ledger]:
    """An empty ledger of the revision before."""
    ledger = Ledger(new_database("template0"))
    with ledger.engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0002")
    yield ledger
    ledger.dispose()


def _url(ledger: Ledger) -> str:
    return ledger.url.render_as_string(hide_password=False)


def test_orders_of_an_older_ledger_get_the_terms_of_their_intents(older: Ledger) -> None:
    """And go on from where they were: a half-filled order of before the update fills after it."""
    with older.begin() as session:
        session.execute(text(OLDER))

    assert migrate(_url(older))

    with older.begin() as session:
        row = session.get_one(Order, "broker-older")
        terms = (row.role, row.parent_order_id, row.broker_client_order_id, row.order_type)
        assert terms == ("entry", None, "older", "limit")
        assert (row.time_in_force, row.limit_price, row.stop_price) == ("day", Decimal(101), None)
    news: BrokerOrder = broker_order(
        "older",
        minutes=1,
        order_type="limit",
        limit_price=Decimal(101),
        filled_quantity=Decimal(10),
        average_fill_price=Decimal(100),
        status="filled",
    )
    with older.begin() as session:
        order_book.record_order(session, news, Actor.BOOKING, "found")
    with older.begin() as session:
        assert order_book.states_of(session, ["older"]) == {"older": OrderState.FILLED}
        assert session.get_one(Order, "broker-older").filled_quantity == 10


def test_the_way_back_leads_to_the_revision_before(older: Ledger) -> None:
    """Every column, constraint, index and trigger of a ledger that never was at the newer revision."""
    before = catalog(older)
    with older.begin() as session:
        session.execute(text(OLDER))
    migrate(_url(older))
    assert catalog(older) != before

    _back(older)

    assert catalog(older) == before
    with older.begin() as session:
        assert session.scalar(text("SELECT filled_quantity FROM orders")) == 4
        assert session.scalar(text("SELECT count(*) FROM order_events")) == 4
    assert migrate(_url(older))


def _bracket(session: Session) -> None:
    session.get_one(OrderIntent, NAME).stop_loss_price = Decimal(98)
    session.get_one(OrderIntent, NAME).take_profit_price = Decimal(104)


def _notional(session: Session) -> None:
    session.get_one(Order, f"broker-{NAME}").notional = Decimal(1000)


def _stop_of_a_target(session: Session) -> None:
    batch = session.get_one(OrderIntent, NAME).batch_id
    session.add(
        TargetPosition(
            batch_id=batch,
            strategy="beta",
            symbol="AAA",
            security_id="AAA@2024-03-01",
            signal_session=SESSION,
            target_weight=Decimal(1),
            target_quantity=Decimal(1),
            reference_price=Decimal(1),
            changed=True,
            reason="",
            model_version="1",
            stop_loss=Decimal(98),
        )
    )


def _adjustment(session: Session) -> None:
    session.add(
        Adjustment(
            account_id=ACCOUNT,
            book="main",
            trading_session=SESSION,
            kind="other",
            quantity=Decimal(0),
            cash=Decimal(5),
            realised_pnl=Decimal(0),
            explanation={},
            reason="found",
            confirmed_by="ada",
            key="k",
        )
    )


@pytest.mark.parametrize("write", [_bracket, _notional, _stop_of_a_target, _adjustment])
def test_the_way_back_is_refused_where_it_would_lose_something(
    ledger: Ledger, write: Callable[[Session], None]
) -> None:
    sending(ledger)
    with ledger.begin() as session:
        order_book.record_order(session, broker_order(), Actor.SUBMISSION, "accepted")
        write(session)
    before = catalog(ledger)

    with pytest.raises(RuntimeError, match=r"would lose it.*nothing was changed"):
        _back(ledger)

    assert catalog(ledger) == before


def test_the_way_back_is_refused_where_events_tell_what_could_not_happen(ledger: Ledger) -> None:
    """A bust that reopened an order is history, which no older program could read."""
    sending(ledger)
    with ledger.begin() as session:
        news = broker_order(status="partially_filled", filled_quantity=Decimal(5))
        order_book.record_order(session, news, Actor.SUBMISSION, "accepted")
        order_book.record_order(session, broker_order(minutes=1), Actor.BOOKING, "busted")
    before = catalog(ledger)

    with pytest.raises(IntegrityError, match="ck_order_events_transition"):
        _back(ledger)

    assert catalog(ledger) == before
