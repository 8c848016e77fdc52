"""The adapter over alpaca-py against the real local exchange, and what its answers prove."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from quant_resources import request_pace
from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.alpaca_messages import order_fields, round_price, round_quantity
from quant_resources.broker import (
    AmbiguousError,
    Broker,
    DuplicateIdError,
    OrderRequest,
    RateLimitedError,
    RejectedError,
    UnauthorizedError,
)
from quant_resources.errors import BrokerError, ConfigurationError
from quant_resources.exchange.control import ExchangeControl
from quant_resources.exchange.process import create_state
from quant_resources.exchange.spec import MarketSpec
from quant_tests.exchange.served import Server
from quant_tests.orders.ground import history

NOW = datetime(2024, 3, 4, 13, 30, tzinfo=UTC)
BEFORE = NOW - timedelta(microseconds=1)


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Server]:
    """An exchange with the trading ground's market, on Monday morning."""
    folder = history(tmp_path / "history")
    state = tmp_path / "state"
    state.mkdir()
    create_state(state, MarketSpec.model_validate({"kind": "history", "folder": folder}))
    server = Server(state)
    ExchangeControl(server.url).advance(NOW)
    yield server
    server.stop()


@pytest.fixture
def broker(exchange: Server) -> Iterator[AlpacaBroker]:
    """The adapter."""
    broker = AlpacaBroker(exchange.url, exchange.url, "key", "secret", backoff=(0.01, 0.01, 0.01))
    yield broker
    broker.close()


def order(
    name: str = "one", symbol: str = "AAA", quantity: str = "10", **more: object
) -> OrderRequest:
    return OrderRequest(name, symbol, "buy", Decimal(quantity), **more)  # pyright: ignore[reportArgumentType]


@contextmanager
def answering(
    status: int, body: bytes, delay: float = 0.0
) -> Iterator[tuple[AlpacaBroker, list[str]]]:
    """A broker in front of a server that always gives the same answer, and the requests it saw."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            seen.append(f"{self.command} {self.path}")
            time.sleep(delay)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    broker = AlpacaBroker(url, url, "k", "s", timeout=(0.3, 0.3), backoff=(0.01, 0.01, 0.01))
    try:
        yield broker, seen
    finally:
        broker.close()
        server.shutdown()
        thread.join()
        server.server_close()


def test_it_is_a_broker(broker: AlpacaBroker) -> None:
    """The adapter offers the whole protocol."""
    assert isinstance(broker, Broker)
    assert not broker.moves_real_money
    live = AlpacaBroker("https://api.alpaca.markets", broker.data_url, "k", "s")
    assert live.moves_real_money


def test_everything_that_is_read(broker: AlpacaBroker) -> None:
    """Account, clock, calendar, assets, prices and splits in exact types and aware times."""
    assert broker.account().equity == 1_000_000
    assert broker.clock().now == NOW
    assert not broker.clock().is_open
    (hours,) = broker.calendar(date(2024, 3, 2), date(2024, 3, 4))
    assert (hours.session, hours.open) == (
        date(2024, 3, 4),
        datetime(2024, 3, 4, 14, 30, tzinfo=UTC),
    )
    assert broker.assets()["AAA"].tradable
    assert [asset.symbol for asset in broker.listings()] == sorted(broker.assets())
    assert broker.name == "local exchange"
    prices = broker.latest_prices({"AAA", "NEVER"})
    assert (prices["AAA"].price, prices.keys()) == (Decimal(100), {"AAA"})
    assert broker.closes_before({"AAA"}, date(2024, 3, 4))["AAA"].price == 100
    assert broker.splits(date(2024, 3, 1), date(2024, 3, 11)) == []
    assert broker.positions() == broker.open_orders() == []


def test_the_whole_list_has_delisted_symbols_and_one_entry_each() -> None:
    """A reused ticker stands twice: as its new owner, and as the old one that is inactive."""

    def entry(symbol: str, status: str, exchange: str = "NYSE") -> dict[str, object]:
        flags = dict.fromkeys(("tradable", "shortable", "fractionable", "easy_to_borrow"), True)
        return {"symbol": symbol, "status": status, "exchange": exchange, **flags}

    rows = [
        entry("USED", "active"),
        entry("USED", "inactive"),
        entry("GONE", "inactive"),
        entry("OVER", "active", "OTC"),
    ]
    with answering(200, json.dumps(rows).encode()) as (broker, seen):
        listed = broker.listings()
    assert [(asset.symbol, asset.active, asset.tradable) for asset in listed] == [
        ("GONE", False, False),
        ("USED", True, True),
    ]
    assert "status=" not in seen[0]


def test_an_order_from_submission_to_fill(broker: AlpacaBroker, exchange: Server) -> None:
    """Submitted, found, filled; executions, activities, positions and orders tell the same story."""
    sent = broker.submit(order(quantity="10"))
    assert broker.order_by_client_id("one") == sent
    assert broker.order_by_client_id("two") is None
    assert [found.client_order_id for found in broker.open_orders()] == ["one"]
    ExchangeControl(exchange.url).advance(datetime(2024, 3, 4, 21, 30, tzinfo=UTC))
    found = broker.order_by_client_id("one")
    assert found is not None
    assert (found.status, found.filled_quantity, found.remaining) == ("filled", 10, 0)
    (execution,) = broker.executions(date(2024, 3, 4))
    assert (execution.broker_order_id, execution.quantity) == (sent.broker_order_id, 10)
    assert broker.executions(date(2024, 3, 5)) == []
    (position,) = broker.positions()
    assert position.average_price == execution.price == found.average_fill_price
    assert [o.client_order_id for o in broker.orders_since(BEFORE)] == ["one"]
    broker.cancel(sent.broker_order_id)


def test_orders_and_activities_beyond_one_page(broker: AlpacaBroker, exchange: Server) -> None:
    """Six hundred orders are listed once each, and so are their fills."""
    for number in range(600):
        broker.submit(order(f"order-{number}", "EEE", "1"))
    assert len({o.client_order_id for o in broker.open_orders()}) == 600
    ExchangeControl(exchange.url).advance(datetime(2024, 3, 4, 21, 30, tzinfo=UTC))
    assert len({e.execution_id for e in broker.executions(date(2024, 3, 4))}) == 600
    assert len(broker.orders_since(BEFORE)) == 600


def test_a_used_id_is_a_find(broker: AlpacaBroker) -> None:
    """The same id twice proves that the order exists."""
    broker.submit(order())
    with pytest.raises(DuplicateIdError):
        broker.submit(order())
    assert issubclass(DuplicateIdError, AmbiguousError)


def test_a_refusal_for_cause_has_its_reason(broker: AlpacaBroker) -> None:
    """Unknown symbols, SQL in a symbol and too little money are final, in the broker's own words."""
    for wrong, reason in (
        (order(symbol="NEVER"), "not found"),
        (order(symbol="AAA'; DROP TABLE fills; --"), "not found"),
        (order(quantity="1000000000"), "insufficient buying power"),
    ):
        with pytest.raises(RejectedError) as error:
            broker.submit(wrong)
        assert reason in error.value.reason


@pytest.mark.parametrize("quantity", ["0", "-1", "NaN", "0.0000000001"])
def test_absurd_quantities_never_leave(broker: AlpacaBroker, quantity: str) -> None:
    """They are refused here, whatever the broker would do."""
    with pytest.raises((BrokerError, ArithmeticError)):
        broker.submit(order(quantity=quantity))
    assert broker.open_orders() == []


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


def test_a_hanging_broker_is_ambiguous_after_the_timeout() -> None:
    """alpaca-py alone would wait for ever, and 504 would be sent twice."""
    with answering(200, b"{}", delay=1.0) as (broker, seen):
        began = time.monotonic()
        with pytest.raises(AmbiguousError):
            broker.submit(order())
        assert time.monotonic() - began < 0.9
        assert len(seen) == 1


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
    body = (
        b'{"id":"x","client_order_id":"other","symbol":"AAA","qty":"1","filled_qty":"0","side":"buy",'
        b'"type":"market","status":"new","submitted_at":"2024-03-04T13:30:00Z"}'
    )
    with answering(200, body) as (broker, _):
        for ask in (lambda: broker.order_by_client_id("one"), lambda: broker.submit(order())):
            with pytest.raises(AmbiguousError, match="other"):
                ask()


@pytest.mark.parametrize(
    ("trading", "data", "key"),
    [
        ("", "http://x", "k"),
        ("http://x", "", "k"),
        ("ftp://x", "http://x", "k"),
        ("http://x", "http://x", ""),
    ],
)
def test_empty_addresses_and_keys_are_refused(trading: str, data: str, key: str) -> None:
    """An empty address would silently be Alpaca's own."""
    with pytest.raises(ConfigurationError):
        AlpacaBroker(trading, data, key, "secret")


def test_the_secret_is_in_no_text() -> None:
    """Neither the adapter nor its errors show the keys."""
    with answering(500, b"{}") as (broker, _):
        broker._trading._secret_key = "hunter2"  # noqa: S105
        with pytest.raises(AmbiguousError) as error:
            broker.submit(order())
        assert "hunter2" not in f"{error.value} {error.value.__cause__} {broker!r}"


def test_rounding() -> None:
    """Quantities towards zero at nine decimals, prices to cents, below a dollar to hundredths."""
    assert round_quantity(Decimal("1.9999999999")) == Decimal("1.999999999")
    assert round_price(Decimal("10.005")) == Decimal("10.00")
    assert round_price(Decimal("10.015")) == Decimal("10.02")
    assert round_price(Decimal("0.12345")) == Decimal("0.1234")


def test_numbers_leave_as_exact_text() -> None:
    """No float, no exponent; a bracket has both its prices."""
    fields = order_fields(
        order(
            quantity="1000000.123456789",
            order_type="limit",
            limit_price=Decimal("0.00011"),
            take_profit_price=Decimal(12),
            stop_loss_price=Decimal("9.876"),
        )
    )
    assert fields["qty"] == "1000000.123456789"
    assert fields["limit_price"] == "0.0001"
    assert fields["take_profit"] == {"limit_price": "12"}
    assert fields["stop_loss"] == {"stop_price": "9.88"}
    with pytest.raises(BrokerError, match="1 to 128"):
        order_fields(order("x" * 129))


def test_requests_keep_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget of a minute is not exceeded: the request after it waits."""
    with answering(200, b"[]") as (unpaced, seen):
        paced = AlpacaBroker(
            unpaced.trading_url, unpaced.data_url, "paced", "s", requests_per_minute=3
        )
        waits: list[float] = []
        monkeypatch.setattr(request_pace.time, "sleep", waits.append)
        for _ in range(4):
            paced.positions()
        assert len(seen) == 4
        # The test's own server sleeps by the same function, for no time.
        (waited,) = [seconds for seconds in waits if seconds]
        assert 55 < waited <= 60
        paced.close()
