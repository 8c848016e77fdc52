"""The reader of the trading stream, against the real one of a served exchange: updates, and every gap."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from quant_resources.alpaca_stream import Gap, TradeUpdate, TradeUpdateStream, stream_url
from quant_resources.broker import UnauthorizedError
from quant_resources.errors import ConfigurationError
from quant_resources.exchange.process import create_state
from quant_resources.exchange.spec import MarketSpec
from quant_tests.exchange.served import WEEK, Served, Server, write_history
from quant_tests.exchange.test_faults import one

SECRET = "a-secret-that-is-nowhere"  # noqa: S105 - to be searched for


@pytest.fixture
def week(tmp_path: Path) -> Iterator[Served]:
    """A hand-written week, on Tuesday morning."""
    folder = write_history(tmp_path / "history", WEEK)
    create_state(tmp_path / "state", MarketSpec(kind="history", folder=folder))
    server = Server(tmp_path / "state")
    served = Served(tmp_path / "state", server.exchange, server.url)
    served.at("2024-03-05 09:00")
    yield served
    server.stop()
    server.wait()


@pytest.fixture
def stream(week: Served) -> Iterator[TradeUpdateStream]:
    """A reader of the week's stream that is connected."""
    with TradeUpdateStream(week.url, "k", SECRET, timeout=20, backoff=(0.01, 0.05)) as stream:
        assert stream.wait(20) == [Gap("connected: what happened before was not told")]
        yield stream


def buy(served: Served, client_order_id: str, **fields: Any) -> None:
    served.submit("ABC", "buy", 2, client_order_id=client_order_id, **fields)


def gaps(found: list[TradeUpdate | Gap]) -> list[str]:
    return [item.reason for item in found if isinstance(item, Gap)]


def ids(found: list[TradeUpdate | Gap]) -> list[str]:
    return [item.client_order_id for item in found if isinstance(item, TradeUpdate)]


def until(stream: TradeUpdateStream, holds: Callable[[list[TradeUpdate | Gap]], bool]) -> list[Any]:
    """Everything that comes until it holds."""
    found: list[TradeUpdate | Gap] = []
    end = time.monotonic() + 20
    while not holds(found):
        assert time.monotonic() < end, found
        found += stream.wait(0.2)
    return found


def test_updates_come_as_values(week: Served, stream: TradeUpdateStream) -> None:
    buy(week, "a")
    week.at("2024-03-05 10:00")
    new, fill = [
        item
        for item in until(stream, lambda found: len(ids(found)) == 2)
        if isinstance(item, TradeUpdate)
    ]
    assert (new.event, new.execution_id, new.quantity) == ("new", None, None)
    assert (fill.event, fill.symbol, fill.quantity, fill.held) == ("fill", "ABC", 2, 2)
    assert fill.price == Decimal(week.order("a")["filled_avg_price"])
    assert fill.broker_order_id == week.order("a")["id"]
    assert fill.at.isoformat().startswith("2024-03-05T14:30")


def test_what_comes_together_is_returned_together(week: Served, stream: TradeUpdateStream) -> None:
    for name in ("a", "b", "c"):
        buy(week, name)
    time.sleep(1)
    assert ids(stream.wait(20)) == ["a", "b", "c"]


def test_silence_is_a_gap_after_the_stated_time(stream: TradeUpdateStream) -> None:
    began = time.monotonic()
    assert gaps(stream.wait(0.2)) == ["nothing came for 0.2 s"]
    assert 0.2 <= time.monotonic() - began < 4


@pytest.mark.parametrize("code", [None, 1012])
def test_a_connection_that_ends_is_a_gap_and_opens_again(
    week: Served, stream: TradeUpdateStream, code: int | None
) -> None:
    fault = {"kind": "disconnect", "code": code}
    week.control.inject(one(fault, path="/stream/new", times=1))
    buy(week, "a")
    told = "the connection ended (" + ("reset" if code is None else "code 1012") + ")"
    assert gaps(stream.wait(20)) == [told]
    assert not stream.is_connected
    assert gaps(stream.wait(20)) == ["connected: what happened before was not told"]
    buy(week, "b")
    assert ids(until(stream, lambda found: bool(ids(found)))) == ["b"]


def test_what_came_before_a_connection_ended_is_returned_with_the_gap(
    week: Served, stream: TradeUpdateStream
) -> None:
    week.control.inject(one({"kind": "disconnect", "code": 1012}, path="/stream/new", nth=[2]))
    buy(week, "a")
    buy(week, "b")
    time.sleep(1)
    found = stream.wait(20)
    assert (ids(found), gaps(found)) == (["a"], ["the connection ended (code 1012)"])


def test_a_message_that_cannot_be_read_is_a_gap_and_ends_nothing(
    week: Served, stream: TradeUpdateStream
) -> None:
    bodies = ["{", "[]", '{"stream": "trade_updates"}', '{"stream": "trade_updates", "data": {}}']
    rules = [
        {"fault": {"kind": "malformed_event", "body": body}, "nth": [number]}
        for number, body in enumerate(bodies, 1)
    ]
    week.control.inject({"rules": rules})
    for number in range(5):
        buy(week, f"n{number}")
    found = until(stream, lambda found: bool(ids(found)))
    assert gaps(found) == ["a message of the stream cannot be read"] * 4
    assert ids(found) == ["n4"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "status", "status": 503}, "it answered 503"),
        ({"kind": "status", "status": 429}, "it answered 429"),
        ({"kind": "reset"}, "not connected (InvalidMessage)"),
        ({"kind": "hang"}, "not connected (TimeoutError)"),
    ],
    ids=lambda value: str(value.get("status", value["kind"])) if isinstance(value, dict) else "",
)
def test_a_stream_that_does_not_open_is_a_gap_until_it_does(
    week: Served, fault: dict[str, Any], words: str
) -> None:
    week.control.inject(one(fault, path="/stream", times=2))
    with TradeUpdateStream(week.url, "k", SECRET, timeout=0.3, backoff=(0.01,)) as stream:
        for _ in range(2):
            (gap,) = gaps(stream.wait(20))
            assert words in gap
        assert gaps(stream.wait(20)) == ["connected: what happened before was not told"]


def test_a_server_that_is_gone_is_a_gap_and_the_next_one_on_its_port_is_found(
    week: Served, tmp_path: Path
) -> None:
    create_state(tmp_path / "second", week.exchange.spec)
    first = Server(tmp_path / "second")
    port = int(first.url.rpartition(":")[2])
    with TradeUpdateStream(first.url, "k", "s", backoff=(0.01,)) as stream:
        stream.wait(20)
        first.stop()
        first.wait()
        assert gaps(stream.wait(20)) == ["the connection ended (code 1012)"]
        assert gaps(stream.wait(20)) == ["not connected (ConnectionRefusedError)"]
        second = Server(tmp_path / "second", port)
        assert gaps(stream.wait(20)) == ["connected: what happened before was not told"]
    second.stop()
    second.wait()


def test_a_wait_without_a_connection_is_no_longer_than_it_was_asked_for(week: Served) -> None:
    stream = TradeUpdateStream("http://127.0.0.1:9", "k", "s", backoff=(30.0,))
    stream.wait(0.1)
    began = time.monotonic()
    stream.wait(0.2)
    assert 0.2 <= time.monotonic() - began < 4


@pytest.mark.parametrize("status", [401, 403])
def test_keys_that_are_refused_are_an_error(week: Served, status: int) -> None:
    week.control.inject(one({"kind": "status", "status": status}, path="/stream"))
    with (
        TradeUpdateStream(week.url, "k", SECRET) as stream,
        pytest.raises(UnauthorizedError, match="ALPACA_API_KEY"),
    ):
        stream.wait(20)


def test_the_secret_is_in_no_log_and_no_name(
    week: Served, caplog: pytest.LogCaptureFixture
) -> None:
    # websockets logs every frame at DEBUG, and a user may turn that on for everything.
    with caplog.at_level(logging.DEBUG), TradeUpdateStream(week.url, "a-key", SECRET) as stream:
        stream.wait(20)
        assert SECRET not in repr(stream)
        buy(week, "a")
        stream.wait(20)
    assert SECRET not in caplog.text
    assert "a-key" not in caplog.text


def test_addresses() -> None:
    assert stream_url("https://paper-api.alpaca.markets") == "wss://paper-api.alpaca.markets/stream"
    assert stream_url("http://127.0.0.1:8000/") == "ws://127.0.0.1:8000/stream"
    for wrong in ("", "ftp://x", "http://"):
        with pytest.raises(ConfigurationError, match="QUANT_TRADING_URL"):
            stream_url(wrong)
    with pytest.raises(ConfigurationError, match="ALPACA_SECRET_KEY"):
        TradeUpdateStream("http://127.0.0.1:8000", "k", "")
