"""The trading stream over a real websocket: what it tells, to alpaca-py's own client too, and how it goes wrong."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
from alpaca.trading.models import TradeUpdate as AlpacaUpdate
from alpaca.trading.stream import TradingStream
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from quant_resources.exchange.process import create_state, ensure_exchange, stop_exchange
from quant_tests.exchange.served import Served
from quant_tests.exchange.test_faults import ORDERS, one

LISTEN = {"action": "listen", "data": {"streams": ["trade_updates"]}}
AUTH = {"action": "auth", "key": "k", "secret": "s"}


@contextmanager
def opened(served: Served, *, listening: bool = True) -> Iterator[ClientConnection]:
    url = served.url.replace("http", "ws") + "/stream"
    with connect(url, proxy=None, open_timeout=20, legacy=True) as connection:
        if listening:
            ask(connection, AUTH)
            ask(connection, LISTEN)
        yield connection


def ask(connection: ClientConnection, message: object) -> dict[str, Any]:
    connection.send(json.dumps(message))
    return json.loads(connection.recv(timeout=20))


def heard(connection: ClientConnection, count: int, timeout: float = 20) -> list[dict[str, Any]]:
    """The next events' data."""
    return [json.loads(connection.recv(timeout=timeout))["data"] for _ in range(count)]


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


def silent(connection: ClientConnection, seconds: float = 0.3) -> bool:
    try:
        connection.recv(timeout=seconds)
    except TimeoutError:
        return True
    return False


def buy(served: Served, client_order_id: str, **fields: Any) -> None:
    served.submit("ABC", "buy", fields.pop("qty", 1), client_order_id=client_order_id, **fields)


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


# The protocol


def test_both_forms_of_keys_open_the_stream_and_missing_ones_do_not(week: Served) -> None:
    older = {"action": "authenticate", "data": {"key_id": "k", "secret_key": "s"}}
    for message in (AUTH, older):
        with opened(week, listening=False) as connection:
            answer = ask(connection, message)
            assert answer["stream"] == "authorization"
            assert answer["data"] == {"status": "authorized", "action": message["action"]}
            assert ask(connection, LISTEN) == {
                "stream": "listening",
                "data": {"streams": ["trade_updates"]},
            }
    with opened(week, listening=False) as connection:
        assert ask(connection, LISTEN)["data"]["status"] == "unauthorized"
        assert ask(connection, {"action": "auth", "key": "k"})["data"]["status"] == "unauthorized"
        buy(week, "a")
        assert silent(connection)
        # Nonsense asks for nothing, and ends nothing.
        connection.send("{")
        assert ask(connection, AUTH)["data"]["status"] == "authorized"


def test_an_order_is_told_from_its_acceptance_to_its_fill_as_it_was_then(week: Served) -> None:
    buy(week, "before")
    with opened(week) as connection:
        buy(week, "a", qty=3)
        # One move of the clock over the whole session: every event happens in one transaction.
        buy(week, "low", type="limit", limit_price="1")
        week.at("2024-03-05 18:00")
        events = heard(connection, 5)
        assert silent(connection)
    # Nothing from before is told: the order of before is only met at its fill.
    assert [(event["event"], event["order"]["client_order_id"]) for event in events] == [
        ("new", "a"),
        ("new", "low"),
        ("fill", "before"),
        ("fill", "a"),
        ("expired", "low"),
    ]
    new, low, first, fill, expired = events
    assert (new["order"]["status"], new["order"]["filled_qty"]) == ("accepted", "0")
    assert low["order"]["expired_at"] is None
    assert new["execution_id"] is None
    assert (first["position_qty"], fill["position_qty"]) == ("1", "4")
    activity = week.get("/v2/account/activities/FILL")[0]
    assert activity["id"].endswith(fill["execution_id"])
    assert (fill["qty"], fill["price"]) == (activity["qty"], activity["price"])
    # The last event of an order shows what the REST API shows.
    assert fill["order"] == week.order("a")
    assert expired["order"] == week.order("low")


def test_alpaca_pys_own_stream_reads_it(week: Served) -> None:
    told: list[AlpacaUpdate] = []
    stream = TradingStream("k", "s", url_override=week.url.replace("http", "ws") + "/stream")

    async def tell(update: AlpacaUpdate) -> None:
        told.append(update)

    stream.subscribe_trade_updates(tell)
    thread = threading.Thread(target=stream.run)
    thread.start()
    try:
        wait_until(lambda: stream._running)
        buy(week, "a", qty=2)
        order = week.submit("XYZ", "buy", 1, client_order_id="b", type="limit", limit_price="1")
        week.trading.cancel_order_by_id(order["id"])
        week.at("2024-03-05 10:00")
        wait_until(lambda: len(told) == 4)
    finally:
        stream.stop()
        thread.join()
    assert [update.event for update in told] == ["new", "new", "canceled", "fill"]
    fill = told[-1]
    assert (fill.order.client_order_id, fill.qty, fill.position_qty) == ("a", 2.0, 2.0)
    assert fill.order.status == "filled"


def test_partial_fills_and_a_late_rejection_have_their_own_names(week: Served) -> None:
    week.control.inject(
        {
            "rules": [
                {"fault": {"kind": "partial_fill"}, "method": "POST", "nth": [1]},
                {"fault": {"kind": "reject"}, "method": "POST", "nth": [2]},
            ]
        }
    )
    with opened(week) as connection:
        buy(week, "parts", qty=4, type="limit", limit_price="150", time_in_force="gtc")
        buy(week, "rejected")
        week.at("2024-03-05 18:00")
        events = heard(connection, 5)
    assert names(events) == ["new", "new", "rejected", "partial_fill", "fill"]
    assert [events[n]["position_qty"] for n in (3, 4)] == ["2", "4"]
    assert events[3]["order"]["status"] == "partially_filled"
    assert (events[3]["order"]["filled_qty"], events[3]["order"]["filled_at"]) == ("2", None)


def test_two_readers_hear_the_same(week: Served) -> None:
    with opened(week) as first, opened(week) as second:
        buy(week, "a")
        assert heard(first, 1) == heard(second, 1)


def test_a_server_that_ends_does_not_wait_for_its_readers(week: Served) -> None:
    folder = week.folder.parent / "own"
    create_state(folder, week.exchange.spec)
    endpoint = ensure_exchange(folder)
    own = Served(folder, week.exchange, endpoint.url)
    with opened(own) as connection:
        began = time.monotonic()
        assert stop_exchange(folder)
        assert time.monotonic() - began < 6
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=20)


# How it goes wrong


def test_events_are_lost_doubled_and_overtaken(week: Served) -> None:
    week.control.inject(
        {
            "rules": [
                {"fault": {"kind": "lost_event"}, "query": {"client_order_id": "lost"}},
                {"fault": {"kind": "doubled_event"}, "query": {"client_order_id": "twice"}},
                {
                    "fault": {"kind": "overtaken_event", "by": 2},
                    "query": {"client_order_id": "last"},
                },
            ]
        }
    )
    with opened(week) as connection:
        for name in ("last", "lost", "twice"):
            buy(week, name)
        events = heard(connection, 3)
        assert silent(connection)
    assert [event["order"]["client_order_id"] for event in events] == ["twice", "twice", "last"]
    assert [rule["fired"] for rule in week.control.faults()["rules"]] == [1, 1, 1]


def test_a_rule_of_the_stream_counts_events_alone(week: Served) -> None:
    week.control.inject(
        {
            "rules": [
                {"fault": {"kind": "lost_event"}, "path": "/stream/fill"},
                {"fault": {"kind": "status", "status": 503}, "path": ORDERS, "nth": [3]},
            ]
        }
    )
    with opened(week) as connection:
        buy(week, "a")
        buy(week, "b")
        week.at("2024-03-05 10:00")
        assert names(heard(connection, 2)) == ["new", "new"]
        assert silent(connection)
        assert week.order("a")["status"] == "filled"
    lost, status = week.control.faults()["rules"]
    assert (lost["seen"], lost["fired"]) == (2, 2)
    assert (status["seen"], status["fired"]) == (2, 0)


def test_a_stale_event_comes_late_and_a_malformed_one_is_none(week: Served) -> None:
    week.control.inject(
        {
            "rules": [
                {"fault": {"kind": "late_event", "seconds": 0.4}, "nth": [1]},
                {"fault": {"kind": "malformed_event", "body": "{"}, "nth": [2]},
            ]
        }
    )
    with opened(week) as connection:
        for name in ("late", "broken", "right"):
            buy(week, name)
        assert connection.recv(timeout=20) == b"{"
        events = heard(connection, 2)
    assert [event["order"]["client_order_id"] for event in events] == ["right", "late"]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("code", [None, 1012])
def test_a_connection_ends_before_or_after_an_event(
    week: Served, code: int | None, after: bool
) -> None:
    fault = {"kind": "disconnect", "code": code, "after": after}
    week.control.inject(one(fault, path="/stream/*", times=1))
    with opened(week) as connection:
        buy(week, "a")
        if after and code is not None:
            assert names(heard(connection, 1)) == ["new"]
        with pytest.raises(ConnectionClosed) as closed:
            # What was sent may be lost with a reset, as on a real network.
            heard(connection, 2)
    assert (closed.value.rcvd.code if closed.value.rcvd else None) == code
    with opened(week) as again:
        buy(week, "b")
        assert names(heard(again, 1)) == ["new"]


def test_a_silent_stream_answers_pings_and_tells_nothing(week: Served) -> None:
    week.control.inject(one({"kind": "silence", "seconds": 0.5}, path="/stream/*", times=1))
    with opened(week) as connection:
        buy(week, "a")
        buy(week, "b")
        assert connection.ping().wait(5)
        assert silent(connection, 0.6)
        buy(week, "c")
        (event,) = heard(connection, 1)
    assert event["order"]["client_order_id"] == "c"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "status", "status": 503}, InvalidStatus),
        ({"kind": "reset"}, InvalidMessage),
        ({"kind": "hang", "seconds": 0.2}, InvalidMessage),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_a_stream_that_cannot_be_opened(
    week: Served, fault: dict[str, Any], error: type[Exception]
) -> None:
    week.control.inject(one(fault, path="/stream", times=1))
    with pytest.raises(error), opened(week):
        pass
    with opened(week):
        assert [rule["fired"] for rule in week.control.faults()["rules"]] == [1]


def test_a_bracket_is_told_leg_by_leg(week: Served) -> None:
    legs = {"take_profit": {"limit_price": "104.5"}, "stop_loss": {"stop_price": "99"}}
    with opened(week) as connection:
        buy(week, "entry", qty=2, order_class="bracket", time_in_force="gtc", **legs)
        week.at("2024-03-06 18:00")
        events = heard(connection, 8)
        assert silent(connection)
    roles = [event["order"]["group_role"] for event in events]
    told = list(zip(names(events), roles, strict=True))
    assert told[0] == ("new", "entry")
    assert set(told[1:3]) == {("held", "take_profit"), ("held", "stop_loss")}
    assert [event["order"]["status"] for event in events[1:3]] == ["held", "held"]
    assert told[3] == ("fill", "entry")
    # Its legs are released by the fill, and still held in what it shows.
    assert [leg["status"] for leg in events[3]["order"]["legs"]] == ["held", "held"]
    assert set(told[4:6]) == {("new", "take_profit"), ("new", "stop_loss")}
    assert told[6][0] == "fill"
    assert told[7][0] == "canceled"
    assert {role for _, role in told[6:]} == {"take_profit", "stop_loss"}
    assert [event["position_qty"] for event in events if event["event"] == "fill"] == ["2", "0"]


def test_a_replacement_is_told_for_both_orders(week: Served) -> None:
    week.at("2024-03-05 10:00")
    with opened(week) as connection:
        order = week.submit("ABC", "buy", 1, client_order_id="a", type="limit", limit_price="50")
        week.trading.patch(f"/orders/{order['id']}", {"qty": "2"})
        new, replaced, other = heard(connection, 3)
    assert names([new, replaced, other]) == ["new", "replaced", "new"]
    assert (new["order"]["status"], new["order"]["replaced_by"]) == ("new", None)
    assert replaced["order"]["id"] == new["order"]["id"] == other["order"]["replaces"]
    assert replaced["order"]["replaced_by"] == other["order"]["id"]
    assert other["order"]["qty"] == "2"


def test_busts_and_corrections_are_told_with_the_shares_that_are_left(week: Served) -> None:
    buy(week, "a", qty=3)
    with opened(week) as connection:
        week.at("2024-03-05 10:00")
        execution = week.get("/v2/account/activities/FILL")[0]["id"]
        week.control.correct(execution, quantity=Decimal(2))
        week.control.bust(execution)
        events = heard(connection, 3)
    assert names(events) == ["fill", "trade_correct", "trade_bust"]
    assert [event["position_qty"] for event in events] == ["3", "2", "0"]
    assert [event["order"]["filled_qty"] for event in events] == ["3", "2", "0"]
    assert events[-1]["order"] == week.order("a")
