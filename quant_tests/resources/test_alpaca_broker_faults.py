"""What the adapter makes of a broker that fails: every fault of the exchange's plan, and the truth of its audit log."""

from __future__ import annotations

import time
from typing import Any

import pytest

from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.broker import (
    AmbiguousError,
    DuplicateIdError,
    RateLimitedError,
    RejectedError,
    UnauthorizedError,
)
from quant_resources.errors import BrokerError
from quant_resources.exchange.control import ExchangeControl
from quant_tests.resources.broker_answers import answering, order, scripted

SEND = {"method": "POST", "path": "/v2/orders"}
LOOK_UP = {"method": "GET", "path": "/v2/orders:by_client_order_id"}


def broken(control: ExchangeControl, request: dict[str, Any], times: int | None = 1, **fault: Any):
    """Let a kind of request go wrong."""
    rule = request | {"fault": fault} | ({} if times is None else {"times": times})
    control.inject({"rules": [rule]})


def submissions(control: ExchangeControl) -> list[str]:
    """What became of every submission that reached the exchange: the truth."""
    return [entry["outcome"] for entry in control.audit() if entry["event"] == "submit"]


def fired(control: ExchangeControl) -> int:
    """How often the fault happened."""
    return sum(rule["fired"] for rule in control.faults()["rules"])


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("after", [False, True])
def test_a_server_error_proves_nothing_and_is_not_repeated(
    broker: AlpacaBroker, control: ExchangeControl, status: int, after: bool
) -> None:
    """Before or after acceptance the adapter cannot tell: one request, and the look-up knows."""
    broken(control, SEND, None, kind="status", status=status, after=after)
    with pytest.raises(AmbiguousError) as error:
        broker.submit(order())
    assert type(error.value) is AmbiguousError
    assert (fired(control), submissions(control)) == (1, ["accepted"] if after else [])
    found = broker.order_by_client_id("one")
    assert (found is not None) == after


@pytest.mark.parametrize(
    ("fault", "accepted"),
    [
        ({"kind": "reset"}, False),
        ({"kind": "reset", "after": True}, True),
        ({"kind": "hang", "seconds": 2}, False),
        ({"kind": "hang", "seconds": 2, "after": True}, True),
        ({"kind": "latency", "seconds": 2, "after": True}, True),
        ({"kind": "html"}, True),
        ({"kind": "malformed"}, True),
        ({"kind": "empty_body"}, True),
        ({"kind": "truncated"}, True),
        ({"kind": "truncated", "content_length": "matching"}, True),
        ({"kind": "null_field", "field": "client_order_id"}, True),
        ({"kind": "null_field", "field": "submitted_at"}, True),
        ({"kind": "set_field", "field": "client_order_id", "value": "another"}, True),
        ({"kind": "set_field", "field": "filled_qty", "value": "NaN"}, True),
        ({"kind": "rename_field", "field": "id", "to": "order_id"}, True),
    ],
)
def test_an_answer_that_is_none_is_ambiguous(
    broker: AlpacaBroker, control: ExchangeControl, fault: dict[str, Any], accepted: bool
) -> None:
    """Time-outs, resets, broken bodies and answers about something else: sent once, then looked up."""
    broken(control, SEND, None, **fault)
    began = time.monotonic()
    with pytest.raises(AmbiguousError) as error:
        broker.submit(order())
    assert time.monotonic() - began < 1.5
    assert type(error.value) is AmbiguousError
    assert fired(control) == 1
    control.clear_faults()
    found = broker.order_by_client_id("one")
    assert (found is not None) == accepted
    assert submissions(control) == (["accepted"] if accepted else [])


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "latency", "seconds": 0.2},
        {"kind": "drip", "bytes": 200, "seconds": 0.02},
        {"kind": "duplicate_delivery"},
        {"kind": "status", "status": 429, "retry_after": 1},
    ],
)
def test_what_does_no_harm(
    broker: AlpacaBroker, control: ExchangeControl, fault: dict[str, Any]
) -> None:
    """A slow answer, a request that arrives twice, one that was limited: the order is there once."""
    broken(control, SEND, 1, **fault)
    sent = broker.submit(order())
    assert fired(control) == 1
    assert submissions(control).count("accepted") == 1
    assert broker.order_by_client_id("one") == sent


def test_too_many_requests_wait_and_give_up(broker: AlpacaBroker, control: ExchangeControl) -> None:
    """429 is sent four times in all, then it is certain that the broker has nothing."""
    broken(control, SEND, None, kind="status", status=429)
    with pytest.raises(RateLimitedError):
        broker.submit(order())
    assert (fired(control), submissions(control)) == (4, [])


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 429, "after": True},
        {"kind": "duplicate_delivery", "answer": "second"},
    ],
)
def test_a_refusal_after_acceptance_ends_as_a_known_id(
    broker: AlpacaBroker, control: ExchangeControl, fault: dict[str, Any]
) -> None:
    """The repetition has the same id: the broker says that it knows it, and there is one order."""
    broken(control, SEND, 1, **fault)
    with pytest.raises(DuplicateIdError):
        broker.submit(order())
    assert submissions(control).count("accepted") == 1
    assert broker.order_by_client_id("one") is not None


@pytest.mark.parametrize(
    ("status", "error"), [(403, RejectedError), (422, RejectedError), (401, UnauthorizedError)]
)
def test_a_refusal_is_final(
    broker: AlpacaBroker, control: ExchangeControl, status: int, error: type[BrokerError]
) -> None:
    """Refused before the exchange acts: sent once, nothing is there."""
    broken(control, SEND, None, kind="status", status=status, code=40310000)
    with pytest.raises(error) as raised:
        broker.submit(order())
    assert type(raised.value) is error
    assert (fired(control), submissions(control)) == (1, [])
    assert broker.order_by_client_id("one") is None


def test_an_order_that_is_rejected_later_is_seen(
    broker: AlpacaBroker, control: ExchangeControl
) -> None:
    """The answer was an acceptance; the look-up shows what became of it."""
    broken(control, SEND, 1, kind="reject")
    assert broker.submit(order()).is_open
    found = broker.order_by_client_id("one")
    assert found is not None
    assert (found.status, found.is_open) == ("rejected", False)
    assert broker.open_orders() == []


def test_a_look_up_that_lags_is_not_hidden(broker: AlpacaBroker, control: ExchangeControl) -> None:
    """A stale read says that there is no order; sent again, the id is known."""
    broker.submit(order())
    broken(control, LOOK_UP, 1, kind="stale_read")
    assert broker.order_by_client_id("one") is None
    with pytest.raises(DuplicateIdError):
        broker.submit(order())
    assert broker.order_by_client_id("one") is not None


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 429},
        {"kind": "status", "status": 504, "after": True},
        {"kind": "reset"},
        {"kind": "reset", "after": True},
        {"kind": "hang", "seconds": 2},
        {"kind": "html"},
        {"kind": "malformed"},
        {"kind": "truncated"},
        {"kind": "empty_body"},
    ],
)
def test_reads_are_repeated_until_they_are_answered(
    broker: AlpacaBroker, control: ExchangeControl, fault: dict[str, Any]
) -> None:
    """Reading twice changes nothing: every read of the order path survives three faults in a row."""
    sent = broker.submit(order())
    reads = {
        "/v2/orders:by_client_order_id": lambda: broker.order_by_client_id("one") == sent,
        "/v2/orders": lambda: broker.open_orders() == [sent],
        "/v2/account": lambda: broker.account().cash == 1_000_000,
    }
    times = 1 if fault["kind"] == "hang" else 3
    for path, read in reads.items():
        broken(control, {"method": "GET", "path": path}, times, **fault)
        assert read(), path
        assert fired(control) == times


def test_a_cancellation_is_repeated(broker: AlpacaBroker, control: ExchangeControl) -> None:
    """Asking twice cancels once; an order that has ended in between is no error."""
    sent = broker.submit(order())
    broken(
        control,
        {"method": "DELETE", "path": "/v2/orders/*"},
        2,
        kind="status",
        status=503,
        after=True,
    )
    broker.cancel(sent.broker_order_id)
    assert fired(control) == 2
    found = broker.order_by_client_id("one")
    assert found is not None
    assert found.status == "canceled"


@pytest.mark.parametrize("after", [False, True])
def test_the_switch_is_set_in_spite_of_faults(
    broker: AlpacaBroker, control: ExchangeControl, after: bool
) -> None:
    """Setting it twice is setting it once, so that the request may be repeated."""
    path = {"method": "PATCH", "path": "/v2/account/configurations"}
    broken(control, path, 3, kind="status", status=502, after=after)
    broker.suspend_trading(suspended=True)
    assert fired(control) == 3
    assert broker.is_suspended()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (429, b'{"message":"too many requests."}', RateLimitedError),
        (401, b'{"message":"unauthorized."}', UnauthorizedError),
        (403, b'{"code":40310000,"message":"insufficient buying power"}', RejectedError),
        (422, b'{"code":40010001,"message":"qty must be > 0"}', RejectedError),
        (422, b'{"code":40010001,"message":"client_order_id must be unique"}', DuplicateIdError),
        (422, b"<html>", AmbiguousError),
        (404, b"not here", AmbiguousError),
        (408, b'{"message":"timeout"}', AmbiguousError),
        (500, b'{"message":"internal"}', AmbiguousError),
        (502, b"", AmbiguousError),
        (504, b"<html>gateway</html>", AmbiguousError),
        (200, b"", AmbiguousError),
        (200, b"null", AmbiguousError),
        (200, b"[]", AmbiguousError),
        (200, b'{"id": 1', AmbiguousError),
        (301, b"elsewhere", AmbiguousError),
    ],
)
def test_what_an_answer_proves(status: int, body: bytes, error: type[Exception]) -> None:
    """Only what proves non-acceptance is repeated (429, four times); everything else is sent once."""
    with answering(status, body) as (broker, seen):
        with pytest.raises(error) as raised:
            broker.submit(order())
        assert type(raised.value) is error
        assert len(seen) == (4 if status == 429 else 1)


def test_a_broker_that_is_not_there_is_ambiguous() -> None:
    """Nothing listens: nothing is known, and the time-out is not waited for."""
    with answering(200, b"{}") as (gone, _):
        pass
    with pytest.raises(AmbiguousError):
        gone.submit(order())


def test_an_unanswered_look_up_is_not_an_absent_order() -> None:
    """Only Alpaca's own not-found proves absence."""
    for status, body in (
        (500, b"{}"),
        (404, b"<html>gateway</html>"),
        (404, b'{"message":"no route"}'),
    ):
        with answering(status, body) as (broker, _), pytest.raises(AmbiguousError):
            broker.order_by_client_id("one")
    with answering(404, b'{"code":40410000,"message":"order not found"}') as (broker, _):
        assert broker.order_by_client_id("one") is None


def test_an_answer_about_another_order_is_not_ours() -> None:
    """A look-up that returns another order proves nothing."""
    other = {
        "id": "x",
        "client_order_id": "other",
        "symbol": "AAA",
        "qty": "1",
        "filled_qty": "0",
        "side": "buy",
        "type": "market",
        "status": "new",
        "submitted_at": "2024-03-04T13:30:00Z",
    }
    with scripted(lambda *_: (200, other)) as answers:
        for ask in (
            lambda: answers.broker.order_by_client_id("one"),
            lambda: answers.broker.submit(order()),
        ):
            with pytest.raises(AmbiguousError, match="other"):
                ask()
