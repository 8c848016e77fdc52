"""Every fault of a submission, before and after the exchange has acted, ends in exactly one order or none.

The faults are the exchange's own; its audit log is the truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import polars as pl
import pytest

from quant_assets.orders.batches import trade_session
from quant_assets.orders.submission import PassReport, trading_desk
from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.order_tables import OrderBatch
from quant_tests.faults.named_faults import KINDS, FaultKind
from quant_tests.faults.truth import truth_of
from quant_tests.orders.ground import Ground

MONDAY = date(2024, 3, 4)
WEIGHTS = {"AAA": 0.2, "BBB": -0.2}
ORDER = {"method": "POST", "path": "/v2/orders"}
LOOK_UP = "/v2/orders:by_client_order_id"
LOST = {"kind": "reset", "after": True}
OF_SUBMISSIONS = [kind for kind in KINDS if kind.at_order is not None]
OF_READS = [kind for kind in KINDS if kind.at_request is not None and not kind.ends_orders]
#: What the first process of a session asks for, each once at least.
READS = (
    "/v2/account",
    "/v2/clock",
    "/v2/orders",
    "/v2/account/activities*",
    "/v2/positions",
    "/v2/assets",
    "/v2/stocks/quotes/latest",
)


@pytest.fixture
def targets(ground: Ground) -> pl.DataFrame:
    """Monday's target portfolio."""
    return ground.frame(ground.plan(MONDAY, alpha=WEIGHTS), MONDAY)


@contextmanager
def impatient(ground: Ground) -> Iterator[AlpacaBroker]:
    """A broker that soon takes no answer for none."""
    broker = AlpacaBroker(
        ground.broker.trading_url,
        ground.broker.data_url,
        "key",
        "secret",
        timeout=(0.7, 0.7),
        backoff=(0.01, 0.02, 0.04),
    )
    yield broker
    broker.close()


def one_pass(
    ground: Ground, broker: AlpacaBroker, targets: pl.DataFrame
) -> tuple[OrderBatch, PassReport]:
    with trading_desk(ground.ledger, broker, ground.policy) as desk:
        return trade_session(desk, MONDAY, targets, ground.volumes)


def inject(ground: Ground, *rules: dict[str, Any]) -> None:
    ground.exchange.inject({"rules": list(rules)})


def fired(ground: Ground) -> int:
    """Requests that went wrong."""
    return sum(rule["fired"] for rule in ground.exchange.faults()["rules"])


def assert_exactly_once(ground: Ground, batch: OrderBatch) -> None:
    intents = ground.intents(batch)
    assert ground.accepted() == {row.client_order_id: 1 for row in intents}
    assert {row.state for row in intents} == {"accepted"}
    with ground.ledger.begin() as session:
        assert account_book.trading_status(session, ground.policy.book).state == "ACTIVE"


@pytest.mark.parametrize("kind", OF_SUBMISSIONS, ids=lambda kind: kind.name)
def test_a_fault_of_one_submission(ground: Ground, targets: pl.DataFrame, kind: FaultKind) -> None:
    """The first submission breaks; one pass is enough to end with exactly one order each."""
    assert kind.at_order is not None
    inject(ground, *kind.at_order(1))
    with impatient(ground) as broker:
        batch, report = one_pass(ground, broker, targets)
    assert fired(ground) >= 1
    assert (report.stopped, report.left) == ("", 0)
    if kind.name == "refused":
        assert sorted(ground.states(batch).values()) == ["accepted", "rejected"]
        assert sorted(ground.accepted().values()) == [1]
    elif kind.name == "rejected afterwards":
        ground.finish()
        assert sorted(ground.states(batch).values()) == ["accepted", "rejected"]
        assert sorted(ground.accepted().values()) == [1, 1]
    else:
        assert_exactly_once(ground, batch)


@pytest.mark.long
@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize("kind", OF_READS, ids=lambda kind: kind.name)
def test_a_fault_of_one_read(
    ground: Ground, targets: pl.DataFrame, kind: FaultKind, path: str
) -> None:
    """Each read of a session breaks once in each way: nothing is halted, sent twice or left out."""
    assert kind.at_request is not None
    rules = [rule | {"method": "GET", "path": path} for rule in kind.at_request(1)]
    if rules:
        inject(ground, *rules)
    with impatient(ground) as broker:
        batch, report = one_pass(ground, broker, targets)
    assert not rules or fired(ground) >= 1
    assert (report.stopped, report.left) == ("", 0)
    assert_exactly_once(ground, batch)


@pytest.mark.parametrize(
    "fault",
    [
        LOST,
        {"kind": "status", "status": 504, "after": True},
        {"kind": "hang", "seconds": 2, "after": True},
        {"kind": "malformed"},
    ],
    ids=lambda fault: fault["kind"],
)
def test_a_stale_read_after_an_accepted_order(
    ground: Ground, targets: pl.DataFrame, fault: dict[str, Any]
) -> None:
    """Look-ups that do not see the order yet lead to a second sending, which the id makes a find."""
    inject(
        ground,
        {"fault": fault, "nth": [1], **ORDER},
        {"fault": {"kind": "stale_read"}, "path": LOOK_UP, "times": 3},
    )
    with impatient(ground) as broker:
        batch, report = one_pass(ground, broker, targets)
    sent = [e["client_order_id"] for e in ground.submissions()]
    assert len(sent) == len(set(sent)) + 1
    assert report.left == 0
    assert_exactly_once(ground, batch)


def test_an_order_that_the_broker_knows_and_never_shows(
    ground: Ground, targets: pl.DataFrame
) -> None:
    """It stays ambiguous, is never sent a third time, and is adopted once it shows."""
    hidden = {"fault": {"kind": "stale_read", "newest": 9}, "method": "GET", "path": "/v2/orders*"}
    inject(ground, {"fault": LOST, "nth": [1], **ORDER}, hidden)
    _, report = one_pass(ground, ground.broker, targets)
    assert "does not show it" in report.stopped
    sent = len(ground.submissions())
    _, report = one_pass(ground, ground.broker, targets)
    assert len(ground.submissions()) == sent
    # Past the deadline it is not declared unsent either: the broker has it.
    ground.evening(MONDAY)
    ground.exchange.clear_faults()
    batch, report = one_pass(ground, ground.broker, targets)
    assert set(ground.states(batch).values()) == {"filled", "expired_unsent"}
    assert sorted(ground.accepted().values()) == [1]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "reset"},
        {"kind": "status", "status": 429},
        {"kind": "hang", "seconds": 2},
    ],
    ids=lambda fault: fault["kind"],
)
def test_a_broker_that_takes_nothing(
    ground: Ground, targets: pl.DataFrame, fault: dict[str, Any]
) -> None:
    """When every submission fails, nothing is invented; the next pass sends each once."""
    inject(ground, {"fault": fault, **ORDER})
    with impatient(ground) as broker:
        batch, report = one_pass(ground, broker, targets)
    assert ground.accepted() == {}
    assert report.left == 2
    assert set(ground.states(batch).values()) <= {"pending", "ambiguous"}
    ground.exchange.clear_faults()
    batch, report = one_pass(ground, ground.broker, targets)
    assert report.left == 0
    assert_exactly_once(ground, batch)


def test_a_fill_that_comes_twice_in_one_answer(ground: Ground, targets: pl.DataFrame) -> None:
    """It is booked once, in one pass: it used to stop every pass for as long as it came twice."""
    batch, _ = one_pass(ground, ground.broker, targets)
    ground.evening(MONDAY)
    inject(ground, {"fault": {"kind": "duplicate_rows"}, "method": "GET", "path": "/v2/*"})
    assert ground.finish().booked == 2
    assert fired(ground) > 3
    ground.exchange.clear_faults()
    assert set(ground.states(batch).values()) == {"filled"}
    assert truth_of(ground, MONDAY, 1).problems == ()


def test_an_outage_past_the_deadline_sends_nothing_late(
    ground: Ground, targets: pl.DataFrame
) -> None:
    """Unsent orders expire; a broker that comes back in the evening gets none of them."""
    inject(ground, {"fault": {"kind": "status", "status": 500}, **ORDER})
    batch, _ = one_pass(ground, ground.broker, targets)
    ground.evening(MONDAY)
    ground.exchange.clear_faults()
    batch, report = one_pass(ground, ground.broker, targets)
    assert set(ground.states(batch).values()) == {"expired_unsent"}
    assert report.left == 0
    assert ground.submissions() == []


def test_an_outage_of_everything_leaves_the_intents_for_the_next_pass(
    ground: Ground, targets: pl.DataFrame
) -> None:
    """The broker dies with the second order: what is unclear stays ambiguous, nothing is invented."""
    inject(
        ground,
        {"fault": {"kind": "reset"}, "first": 2, **ORDER},
        {"fault": {"kind": "reset"}, "path": LOOK_UP},
    )
    batch, report = one_pass(ground, ground.broker, targets)
    assert "nothing is known" in report.stopped
    assert sorted(ground.states(batch).values()) == ["accepted", "ambiguous"]
    ground.exchange.clear_faults()
    batch, _ = one_pass(ground, ground.broker, targets)
    assert_exactly_once(ground, batch)


def test_a_broker_order_that_is_not_ours_halts(ground: Ground, targets: pl.DataFrame) -> None:
    """An order under our id with another quantity is never adopted: trading halts."""
    inject(ground, {"fault": {"kind": "reset"}, **ORDER})
    batch, _ = one_pass(ground, ground.broker, targets)
    ground.exchange.clear_faults()
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
