"""The adapter over alpaca-py against the real local exchange: what is read, sent and refused before it is sent."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from quant_resources import request_pace
from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.alpaca_transport import BACKOFF_SECONDS
from quant_resources.broker import (
    AmbiguousError,
    BrokenRulesError,
    Broker,
    DuplicateIdError,
    RejectedError,
)
from quant_resources.errors import BrokerError, ConfigurationError
from quant_resources.exchange.control import ExchangeControl
from quant_tests.resources.broker_answers import answering, order, scripted

NOW = datetime(2024, 3, 4, 13, 30, tzinfo=UTC)
BEFORE = NOW - timedelta(microseconds=1)
AFTER_CLOSE = datetime(2024, 3, 4, 21, 30, tzinfo=UTC)


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


def test_splits_and_dividends_have_their_ex_dates(
    broker: AlpacaBroker, control: ExchangeControl
) -> None:
    """What goes ex between both days, inclusive, of the symbols that are asked for."""
    control.advance(datetime(2024, 3, 7, 22, tzinfo=UTC))
    fifth, seventh = date(2024, 3, 5), date(2024, 3, 7)
    (split,) = broker.splits(seventh, seventh)
    assert (split.symbol, split.ex_date, split.ratio) == ("EEE", seventh, 2)
    assert broker.splits(fifth, date(2024, 3, 6)) == []
    (dividend,) = broker.dividends({"AAA", "EEE", "no ticker"}, fifth, fifth)
    assert (dividend.symbol, dividend.ex_date, dividend.cash) == ("EEE", fifth, Decimal("0.25"))
    assert broker.dividends({"AAA"}, fifth, seventh) == []
    assert broker.dividends({"EEE"}, date(2024, 3, 6), seventh) == []
    assert broker.dividends(set(), fifth, seventh) == []


def test_quotes_lie_around_the_last_price(broker: AlpacaBroker) -> None:
    """Bid, ask and middle in exact numbers; a symbol without a quote is left out."""
    quotes = broker.latest_quotes({"AAA", "NEVER", "AAA'; DROP TABLE fills; --", ""})
    assert quotes.keys() == {"AAA"}
    quote = quotes["AAA"]
    assert 0 < quote.bid <= 100 <= quote.ask < Decimal("100.2")
    assert quote.mid == (quote.bid + quote.ask) / 2
    assert quote.at.utcoffset() == timedelta(0)
    assert quote.at <= NOW


def test_symbols_that_are_none_do_not_spoil_the_others(broker: AlpacaBroker) -> None:
    """SQL, shell and path text in a list of symbols is never asked for; the rest is answered."""
    odd = {"AAA", "AAA'; DROP TABLE fills; --", "$(reboot)", "../../etc", "AAA,BBB", "", "aaa&x=1"}
    assert broker.latest_prices(odd).keys() == {"AAA"}
    assert broker.closes_before(odd, date(2024, 3, 4)).keys() == {"AAA"}
    with scripted(lambda *_: (200, {"trades": {}})) as answers:
        assert answers.broker.latest_prices(odd - {"AAA"}) == {}
        assert answers.broker.closes_before(odd - {"AAA"}, date(2024, 3, 4)) == {}
        assert answers.seen == []


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


def test_an_order_from_submission_to_fill(broker: AlpacaBroker, control: ExchangeControl) -> None:
    """Submitted, found, filled; executions, activities, positions and orders tell the same story."""
    sent = broker.submit(order(quantity="10"))
    assert broker.order_by_client_id("one") == sent
    assert broker.order_by_client_id("two") is None
    assert [found.client_order_id for found in broker.open_orders()] == ["one"]
    control.advance(AFTER_CLOSE)
    found = broker.order_by_client_id("one")
    assert found is not None
    assert (found.status, found.filled_quantity, found.remaining) == ("filled", 10, 0)
    (execution,) = broker.executions(date(2024, 3, 4))
    assert (execution.broker_order_id, execution.quantity) == (sent.broker_order_id, 10)
    assert (execution.kind, execution.corrects) == ("fill", None)
    assert broker.executions(date(2024, 3, 5)) == []
    (position,) = broker.positions()
    assert position.average_price == execution.price == found.average_fill_price
    assert [o.client_order_id for o in broker.orders_since(BEFORE)] == ["one"]
    broker.cancel(sent.broker_order_id)


def test_busts_and_corrections_name_their_fill(
    broker: AlpacaBroker, control: ExchangeControl
) -> None:
    """They come beside the fill, under ids of their own, with what really traded."""
    broker.submit(order("one"))
    broker.submit(order("two", "EEE", "5"))
    control.advance(AFTER_CLOSE)
    first, second = broker.executions(date(2024, 3, 4))
    control.correct(first.execution_id, quantity=Decimal(7), price=Decimal("99.5"))
    control.bust(second.execution_id)
    every = broker.executions(date(2024, 3, 4))
    assert [e for e in every if e.kind == "fill"] == [first, second]
    later = {e.kind: e for e in every if e.kind != "fill"}
    correct, bust = later["correct"], later["bust"]
    assert (correct.corrects, correct.quantity, correct.price) == (
        first.execution_id,
        7,
        Decimal("99.5"),
    )
    assert (bust.corrects, bust.quantity, bust.price) == (
        second.execution_id,
        second.quantity,
        second.price,
    )
    assert len({e.execution_id for e in every}) == 4
    assert {p.symbol: p.quantity for p in broker.positions()} == {"AAA": 7}


@pytest.mark.parametrize("change", [{"type": "trade_undo"}, {"type": "trade_bust"}])
def test_a_correction_that_says_not_of_what_is_no_execution(change: dict[str, str]) -> None:
    """An unknown kind, or a bust of nothing, must never be booked as a fill."""
    row = {
        "id": "20240304::x",
        "activity_type": "FILL",
        "type": "fill",
        "order_id": "order-1",
        "symbol": "AAA",
        "side": "buy",
        "qty": "10",
        "price": "100",
        "transaction_time": "2024-03-04T14:30:00Z",
    }
    with scripted(lambda *_: (200, [row | change])) as answers, pytest.raises(AmbiguousError):
        answers.broker.executions(date(2024, 3, 4))


@pytest.mark.parametrize(
    "fields",
    [
        {"order_type": "limit", "limit_price": "100.07", "time_in_force": "gtc"},
        {"order_type": "limit", "limit_price": "0.0005"},
        {"order_type": "stop", "stop_price": "103.5"},
        {"order_type": "stop_limit", "stop_price": "103.5", "limit_price": "104"},
        {"order_type": "market", "time_in_force": "opg"},
        {"order_type": "limit", "limit_price": "99", "time_in_force": "cls"},
        {"quantity": "1.123456789"},
        {"quantity": None, "notional": "1234.56"},
        {"quantity": None, "notional": "50", "order_type": "limit", "limit_price": "99.5"},
    ],
)
def test_the_broker_holds_exactly_what_was_sent(
    broker: AlpacaBroker, fields: dict[str, str]
) -> None:
    """Every kind of order comes back with the numbers that it was sent with, to the last digit."""
    request = order(**fields)
    held = broker.submit(request)
    assert held == broker.order_by_client_id("one")
    for name in (
        "client_order_id",
        "symbol",
        "side",
        "quantity",
        "notional",
        "order_type",
        "time_in_force",
        "limit_price",
        "stop_price",
    ):
        assert getattr(held, name) == getattr(request, name), name
    assert (held.order_class, held.is_open, held.protects) == ("simple", True, False)


def test_what_is_left_of_an_order(broker: AlpacaBroker) -> None:
    """Shares that may still fill are signed; those of an order by dollars depend on a price."""
    shares = broker.submit(order("shares", quantity="10"))
    assert (shares.remaining, shares.remaining_at(Decimal(50))) == (10, 10)
    dollars = broker.submit(order("dollars", quantity=None, notional="1000"))
    assert (dollars.remaining, dollars.remaining_at(Decimal(50))) == (0, 20)


def test_orders_and_activities_beyond_one_page(
    broker: AlpacaBroker, control: ExchangeControl
) -> None:
    """Six hundred orders are listed once each, and so are their fills."""
    for number in range(600):
        broker.submit(order(f"order-{number}", "EEE", "1"))
    assert len({o.client_order_id for o in broker.open_orders()}) == 600
    control.advance(AFTER_CLOSE)
    assert len({e.execution_id for e in broker.executions(date(2024, 3, 4))}) == 600
    assert len(broker.orders_since(BEFORE)) == 600


def test_a_used_id_is_a_find(broker: AlpacaBroker) -> None:
    """The same id twice proves that the order exists."""
    broker.submit(order())
    with pytest.raises(DuplicateIdError):
        broker.submit(order())
    assert issubclass(DuplicateIdError, AmbiguousError)


def test_the_switch_of_the_broker(broker: AlpacaBroker) -> None:
    """Suspended, the broker takes nothing and says so; released, it takes orders again. Twice is once."""
    assert not broker.is_suspended()
    broker.suspend_trading(suspended=True)
    broker.suspend_trading(suspended=True)
    assert broker.is_suspended()
    assert broker.account().blocked
    with pytest.raises(RejectedError):
        broker.submit(order())
    broker.suspend_trading(suspended=False)
    assert not broker.is_suspended()
    assert broker.submit(order()).is_open


@pytest.mark.parametrize("body", [{}, {"suspend_trade": None}, {"suspend_trade": "true"}, []])
def test_a_switch_that_was_not_set_is_an_error(body: object) -> None:
    """The broker must say that the switch is as it was asked for."""
    with answering(200, json.dumps(body).encode()) as (broker, _):
        with pytest.raises(AmbiguousError):
            broker.suspend_trading(suspended=True)
        with pytest.raises(AmbiguousError):
            broker.is_suspended()
    with (
        answering(200, b'{"suspend_trade": false}') as (broker, _),
        pytest.raises(AmbiguousError, match="not as it was set"),
    ):
        broker.suspend_trading(suspended=True)


def test_a_refusal_for_cause_has_its_reason(broker: AlpacaBroker, control: ExchangeControl) -> None:
    """Unknown symbols and too little money are final, in the broker's own words."""
    for wrong, reason in (
        (order(symbol="NEVER"), "not found"),
        (order(quantity="100000000"), "insufficient buying power"),
    ):
        with pytest.raises(RejectedError) as error:
            broker.submit(wrong)
        assert reason in error.value.reason
    assert [entry["outcome"] for entry in control.audit() if entry["event"] == "submit"] == [
        "refused",
        "refused",
    ]


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"quantity": "0"}, "not positive"),
        ({"quantity": "-1"}, "not positive"),
        ({"quantity": "NaN"}, "no finite number"),
        ({"quantity": "Infinity"}, "no finite number"),
        ({"quantity": "1e30"}, "absurd"),
        ({"quantity": "0.0000000001"}, "more decimals"),
        ({"quantity": None}, "exactly one"),
        ({"quantity": None, "notional": "NaN"}, "no finite number"),
        ({"quantity": None, "notional": "10.005"}, "more decimals"),
        ({"order_type": "limit", "limit_price": "100.001"}, "more decimals"),
        ({"order_type": "limit", "limit_price": "-5"}, "not positive"),
        ({"order_type": "stop", "stop_price": "NaN"}, "no finite number"),
        ({"take_profit_price": "110.001", "stop_loss_price": "95"}, "more decimals"),
        ({"take_profit_price": "90", "stop_loss_price": "95"}, "take profit"),
        ({"symbol": "AAA'; DROP TABLE fills; --"}, "no symbol"),
        ({"symbol": "$(rm -rf /)"}, "no symbol"),
        ({"symbol": "../account/configurations"}, "no symbol"),
        ({"symbol": ""}, "no symbol"),
        ({"name": "x" * 129}, "1 to 128"),
        ({"name": ""}, "1 to 128"),
        ({"name": "a\r\nX-Header: b"}, "printable"),
    ],
)
def test_bad_input_never_leaves(
    broker: AlpacaBroker, control: ExchangeControl, fields: dict[str, str], rule: str
) -> None:
    """It is refused here with the broken rule, for cause, and no request reaches the broker."""
    with pytest.raises(BrokenRulesError) as error:
        broker.submit(order(**fields))
    assert rule in str(error.value)
    assert error.value.reason in error.value.raw["message"]
    assert len(str(error.value)) < 500
    assert [entry for entry in control.audit() if entry["event"] == "submit"] == []
    assert isinstance(error.value, RejectedError)


@pytest.mark.parametrize("name", ["", "x" * 129])
def test_no_look_up_of_what_can_be_no_id(broker: AlpacaBroker, name: str) -> None:
    """Alpaca takes an empty id for none: it would answer about something else."""
    with pytest.raises(BrokerError, match="1 to 128"):
        broker.order_by_client_id(name)


def test_ids_are_quoted(broker: AlpacaBroker) -> None:
    """Whatever an id consists of, it addresses an order and nothing else."""
    odd = "a/b?c=d&client_order_id=e#f%2F"
    broker.submit(order(odd))
    found = broker.order_by_client_id(odd)
    assert found is not None
    assert found.client_order_id == odd
    broker.suspend_trading(suspended=False)
    for wrong in ("..", ".", ""):
        with pytest.raises(BrokerError, match="no id"):
            broker.cancel(wrong)
    with scripted(lambda *_: (204, b"")) as answers:
        answers.broker.cancel("../account/../orders?all=1#x")
        assert answers.seen == ["DELETE /v2/orders/..%2Faccount%2F..%2Forders%3Fall%3D1%23x"]
    broker.cancel("../orders")
    assert broker.open_orders() == [found]


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


def test_waits_between_repetitions() -> None:
    """Two, four and eight seconds; here the same back-off is shortened and seen to be kept."""
    assert BACKOFF_SECONDS == (2.0, 4.0, 8.0)
    with scripted(lambda *_: (429, {"message": "slow down"}), backoff=(0.1, 0.2, 0.4)) as answers:
        with pytest.raises(BrokerError, match="too many requests"):
            answers.broker.submit(order())
        gaps = [b - a for a, b in zip(answers.times, answers.times[1:], strict=False)]
    assert len(gaps) == 3
    assert all(gap >= wait for gap, wait in zip(gaps, (0.1, 0.2, 0.4), strict=True))


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
