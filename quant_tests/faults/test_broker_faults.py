"""Every fault of a submission, before and after the exchange has acted, ends in exactly one order or none.

The faults happen on the wire, in a proxy; the exchange's audit log is the truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import polars as pl
import pytest

from quant_assets.orders.batches import trade_session
from quant_assets.orders.submission import PassReport, trading_desk
from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.order_tables import OrderBatch
from quant_tests.faults.faulty_proxy import SUBMISSION_FAULTS, Faults, faulty_proxy
from quant_tests.orders.ground import Ground

MONDAY = date(2024, 3, 4)
WEIGHTS = {"AAA": 0.2, "BBB": -0.2}


@pytest.fixture
def targets(ground: Ground) -> pl.DataFrame:
    """Monday's target portfolio."""
    return ground.frame(ground.plan(MONDAY, alpha=WEIGHTS), MONDAY)


@contextmanager
def through(ground: Ground, faults: Faults) -> Iterator[AlpacaBroker]:
    """A broker whose wire has faults."""
    with faulty_proxy(ground.broker.trading_url, faults) as url:
        broker = AlpacaBroker(
            url,
            ground.broker.data_url,
            "key",
            "secret",
            timeout=(0.5, 0.4),
            backoff=(0.01, 0.02, 0.04),
        )
        yield broker
        broker.close()


def one_pass(
    ground: Ground, broker: AlpacaBroker, targets: pl.DataFrame
) -> tuple[OrderBatch, PassReport]:
    with trading_desk(ground.ledger, broker, ground.policy) as desk:
        return trade_session(desk, MONDAY, targets)


def assert_exactly_once(ground: Ground, batch: OrderBatch) -> None:
    intents = ground.intents(batch)
    assert ground.accepted() == {row.client_order_id: 1 for row in intents}
    assert {row.state for row in intents} == {"accepted"}
    with ground.ledger.begin() as session:
        assert account_book.trading_status(session, ground.policy.book).state == "ACTIVE"


@pytest.mark.parametrize("fault", sorted(SUBMISSION_FAULTS))
def test_a_fault_of_one_submission(ground: Ground, targets: pl.DataFrame, fault: str) -> None:
    """The first submission breaks; one pass is enough to end with exactly one order each."""
    with through(ground, Faults({1: fault}, hang_seconds=0.8)) as broker:
        batch, report = one_pass(ground, broker, targets)
    assert report.stopped == ""
    assert report.left == 0
    assert_exactly_once(ground, batch)


@pytest.mark.parametrize("fault", ["reset_after", "504_after", "hang_after", "malformed_after"])
def test_a_stale_read_after_an_accepted_order(
    ground: Ground, targets: pl.DataFrame, fault: str
) -> None:
    """Look-ups that do not see the order yet lead to a second sending, which the id makes a find."""
    faults = Faults({1: fault}, hidden_look_ups=3, hang_seconds=0.8)
    with through(ground, faults) as broker:
        batch, report = one_pass(ground, broker, targets)
    assert report.left == 0
    assert_exactly_once(ground, batch)


def test_an_order_that_the_broker_knows_and_never_shows(
    ground: Ground, targets: pl.DataFrame
) -> None:
    """It stays ambiguous, is never sent a third time, and is adopted once it shows."""
    faults = Faults({1: "reset_after"}, hidden_look_ups=1000, hidden_lists=True)
    with through(ground, faults) as broker:
        _, report = one_pass(ground, broker, targets)
        assert "does not show it" in report.stopped
        posts = faults.posts
        _, report = one_pass(ground, broker, targets)
        assert faults.posts == posts
        # Past the deadline it is not declared unsent either: the broker has it.
        ground.evening(MONDAY)
    batch, report = one_pass(ground, ground.broker, targets)
    assert set(ground.states(batch).values()) == {"filled", "expired_unsent"}
    assert sorted(ground.accepted().values()) == [1]


@pytest.mark.parametrize("fault", ["500_before", "reset_before", "429_before", "hang_before"])
def test_a_broker_that_takes_nothing(ground: Ground, targets: pl.DataFrame, fault: str) -> None:
    """When every submission fails, nothing is invented; the next pass sends each once."""
    with through(ground, Faults({0: fault}, hang_seconds=0.8)) as broker:
        batch, report = one_pass(ground, broker, targets)
    assert ground.accepted() == {}
    assert report.left == 2
    assert set(ground.states(batch).values()) <= {"pending", "ambiguous"}
    batch, report = one_pass(ground, ground.broker, targets)
    assert report.left == 0
    assert_exactly_once(ground, batch)


def test_an_outage_past_the_deadline_sends_nothing_late(
    ground: Ground, targets: pl.DataFrame
) -> None:
    """Unsent orders expire; a broker that comes back in the evening gets none of them."""
    with through(ground, Faults({0: "500_before"})) as broker:
        batch, _ = one_pass(ground, broker, targets)
    ground.evening(MONDAY)
    before = len(ground.submissions())
    batch, report = one_pass(ground, ground.broker, targets)
    assert set(ground.states(batch).values()) == {"expired_unsent"}
    assert report.left == 0
    assert len(ground.submissions()) == before == 0


def test_an_outage_of_everything_leaves_the_intents_for_the_next_pass(
    ground: Ground, targets: pl.DataFrame
) -> None:
    """The broker dies after the first order: what is unclear stays ambiguous, the rest pending."""
    faults = Faults({2: "reset_before"})
    with through(ground, faults) as broker:
        original = broker.submit

        def submit_and_lose_the_line(request):  # type: ignore[no-untyped-def]
            if faults.posts == 1:
                faults.dead = True
            return original(request)

        broker.submit = submit_and_lose_the_line  # type: ignore[method-assign]
        batch, report = one_pass(ground, broker, targets)
        assert "nothing is known" in report.stopped
        assert sorted(ground.states(batch).values()) == ["accepted", "ambiguous"]
    batch, _ = one_pass(ground, ground.broker, targets)
    assert_exactly_once(ground, batch)


def test_a_broker_order_that_is_not_ours_halts(ground: Ground, targets: pl.DataFrame) -> None:
    """An order under our id with another quantity is never adopted: trading halts."""
    with through(ground, Faults({0: "reset_before"})) as broker:
        batch, _ = one_pass(ground, broker, targets)
    (first, *_) = ground.intents(batch)
    ground.broker._trading.post(
        "/orders",
        {
            "symbol": "EEE",
            "qty": "7",
            "side": "buy",
            "type": "market",
            "time_in_force": "day",
            "client_order_id": first.client_order_id,
        },
    )
    with pytest.raises(Exception, match="the frozen one"):
        one_pass(ground, ground.broker, targets)
    with ground.ledger.begin() as session:
        assert order_book.states_of(session, [first.client_order_id]) != {"accepted"}
        assert account_book.trading_status(session, "main").state == "HALTED"
    assert len(ground.accepted()) == 1
