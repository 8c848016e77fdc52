"""The broker's rules: each has an order that keeps it and orders that break it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_resources.broker import Asset, OrderRequest
from quant_resources.calendar import NEW_YORK
from quant_resources.order_rules import breaches, is_symbol, round_price, round_quantity

GOOD = OrderRequest("id-1", "BRK.B", "buy", Decimal(10))
WHOLE = Asset("BRK.B", tradable=True, shortable=True, fractionable=False)


def order(**fields: Any) -> OrderRequest:
    """A good market order with some fields changed; numbers as text."""
    return replace(
        GOOD,
        **{
            name: Decimal(value)
            if value is not None and (name in ("quantity", "notional") or name.endswith("_price"))
            else value
            for name, value in fields.items()
        },
    )


BRACKET = {"take_profit_price": "110", "stop_loss_price": "95"}
LIMIT = {"order_type": "limit", "limit_price": "100"}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"client_order_id": "x" * 128},
        {"quantity": "0.000000001"},
        {"quantity": "999999999"},
        {"quantity": None, "notional": "1"},
        {"quantity": None, "notional": "123.45", **LIMIT},
        {"order_type": "stop", "stop_price": "101.5"},
        {"order_type": "stop_limit", "stop_price": "101.5", "limit_price": "102"},
        {"time_in_force": "gtc", **LIMIT},
        {"time_in_force": "opg"},
        {"time_in_force": "cls", **LIMIT},
        {**BRACKET},
        {**BRACKET, **LIMIT, "time_in_force": "gtc"},
        {"side": "sell", "take_profit_price": "95", "stop_loss_price": "110", **LIMIT},
        {**LIMIT, "limit_price": "0.0001"},
        {**LIMIT, "limit_price": "0.9999"},
    ],
)
def test_what_the_broker_takes(fields: dict[str, Any]) -> None:
    """None of the rules refuses an order that Alpaca takes."""
    assert breaches(order(**fields)) == []


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"client_order_id": ""}, "1 to 128"),
        ({"client_order_id": "x" * 129}, "1 to 128"),
        ({"client_order_id": "a\nb"}, "printable"),
        ({"symbol": ""}, "no symbol"),
        ({"symbol": "aapl"}, "no symbol"),
        ({"symbol": "AAA'; DROP TABLE fills; --"}, "no symbol"),
        ({"symbol": "$(rm -rf /)"}, "no symbol"),
        ({"symbol": "../account"}, "no symbol"),
        ({"symbol": "AAA,BBB"}, "no symbol"),
        ({"symbol": "AAA\n"}, "no symbol"),
        ({"symbol": "\N{GREEK CAPITAL LETTER ALPHA}AA"}, "no symbol"),
        ({"side": "hold"}, "not offered"),
        ({"order_type": "trailing_stop"}, "not offered"),
        ({"time_in_force": "fok"}, "not offered"),
        ({"quantity": None}, "exactly one"),
        ({"notional": "5"}, "exactly one"),
        ({"quantity": "0"}, "not positive"),
        ({"quantity": "-1"}, "not positive"),
        ({"quantity": "NaN"}, "no finite"),
        ({"quantity": "Infinity"}, "no finite"),
        ({"quantity": "1e30"}, "absurd"),
        ({"quantity": "0.0000000001"}, "more decimals"),
        ({"quantity": None, "notional": "0.99"}, "one dollar"),
        ({"quantity": None, "notional": "10.001"}, "more decimals"),
        ({"quantity": None, "notional": "-5"}, "not positive"),
        ({"quantity": None, "notional": "NaN"}, "no finite"),
        ({"quantity": None, "notional": "5", "time_in_force": "gtc"}, "for the day"),
        ({"quantity": "1.5", "time_in_force": "opg"}, "for the day"),
        ({"quantity": None, "notional": "5", "order_type": "stop", "stop_price": "9"}, "market or"),
        ({"quantity": "1.5", **BRACKET}, "whole shares"),
        ({"order_type": "limit"}, "needs a limit price"),
        ({"limit_price": "5"}, "has no limit price"),
        ({"order_type": "stop"}, "needs a stop price"),
        ({"order_type": "stop", "stop_price": "5", "limit_price": "5"}, "has no limit price"),
        ({"order_type": "stop_limit", "stop_price": "5"}, "needs a limit price"),
        ({**LIMIT, "limit_price": "100.001"}, "more decimals"),
        ({**LIMIT, "limit_price": "0.00011"}, "more decimals"),
        ({**LIMIT, "limit_price": "NaN"}, "no finite"),
        ({**LIMIT, "limit_price": "-1"}, "not positive"),
        ({**LIMIT, "limit_price": "1e9"}, "absurd"),
        ({"take_profit_price": "110"}, "a take profit and a stop loss"),
        ({"stop_loss_price": "95"}, "a take profit and a stop loss"),
        ({"take_profit_price": "95", "stop_loss_price": "95"}, "not 0.01 above the stop"),
        ({**BRACKET, "side": "sell"}, "not 0.01 below the stop"),
        ({**BRACKET, **LIMIT, "limit_price": "110"}, "take profit 110 is not"),
        ({**BRACKET, **LIMIT, "limit_price": "95"}, "stop loss 95 is not"),
        ({**BRACKET, "take_profit_price": "NaN"}, "no finite"),
        ({**BRACKET, "time_in_force": "opg"}, "day or gtc"),
        ({**BRACKET, "order_type": "stop", "stop_price": "101"}, "entry of a bracket"),
        ({"time_in_force": "cls", "order_type": "stop", "stop_price": "9"}, "auction"),
    ],
)
def test_what_the_broker_refuses(fields: dict[str, Any], rule: str) -> None:
    """Each rule names itself; nothing raises, whatever the numbers are."""
    assert any(rule in broken for broken in breaches(order(**fields)))


def test_what_needs_more_than_the_order() -> None:
    """Asset, position, price and time add rules where they are known."""
    half = order(quantity="1.5")
    assert breaches(half, WHOLE) == ["it trades in whole shares only"]
    assert breaches(replace(half, side="sell"), WHOLE, opens=False) == []
    assert breaches(replace(half, side="sell"), opens=True) == ["short sales are for whole shares"]
    stop = order(order_type="stop", stop_price="100")
    assert breaches(stop, price=Decimal(99)) == []
    assert "not above" in breaches(stop, price=Decimal(100))[0]
    assert "not below" in breaches(replace(stop, side="sell"), price=Decimal(100))[0]
    bracket = order(**BRACKET)
    assert breaches(bracket, price=Decimal(100)) == []
    assert "stop loss 95" in breaches(bracket, price=Decimal("95.005"))[0]


@pytest.mark.parametrize(
    ("time_in_force", "at", "taken"),
    [
        ("opg", "2024-03-04 09:27:59", True),
        ("opg", "2024-03-04 09:28", False),
        ("opg", "2024-03-04 18:59", False),
        ("opg", "2024-03-04 19:00", True),
        ("opg", "2024-03-03 12:00", True),
        ("cls", "2024-03-04 15:49:59", True),
        ("cls", "2024-03-04 15:50", False),
        # A half day closes at 13:00.
        ("cls", "2024-07-03 12:49", True),
        ("cls", "2024-07-03 12:50", False),
    ],
)
def test_hours_of_the_auctions(time_in_force: Any, at: str, taken: bool) -> None:
    """Orders for the open are taken until 9:28, for the close until ten minutes before it."""
    now = datetime.fromisoformat(at).replace(tzinfo=NEW_YORK)
    assert (breaches(order(time_in_force=time_in_force), now=now) == []) == taken


def test_symbols() -> None:
    """Tickers with classes and rights are symbols; what a path or query reads differently is none."""
    assert all(map(is_symbol, ("A", "AAPL", "BRK.B", "BF-A", "552CVR013", "BAC.PRK")))
    assert not any(
        map(is_symbol, ("", ".", "..", "A B", "A/B", "A%2F", "A;B", "A" * 11, "A.", "a"))
    )


@given(
    st.decimals(allow_nan=True, allow_infinity=True), st.text(max_size=200), st.text(max_size=60)
)
def test_nothing_raises_whatever_comes(value: Decimal, name: str, symbol: str) -> None:
    """The rules answer for any number and any text."""
    breaches(
        OrderRequest(
            name, symbol, "buy", value, None, "stop_limit", "opg", value, value, value, value
        ),
        price=Decimal(1),
    )


@given(st.decimals("0.00001", "1000000", places=6))
def test_rounded_prices_keep_the_increment(price: Decimal) -> None:
    """A rounded price is always taken, is never zero, and rounding it again changes nothing."""
    rounded = round_price(price)
    assert breaches(replace(GOOD, order_type="limit", limit_price=rounded)) == []
    assert round_price(rounded) == rounded > 0


def test_rounding() -> None:
    """Quantities towards zero at nine decimals, prices to cents, below a dollar to hundredths."""
    assert round_quantity(Decimal("1.9999999999")) == Decimal("1.999999999")
    assert round_price(Decimal("10.005")) == Decimal("10.00")
    assert round_price(Decimal("10.015")) == Decimal("10.02")
    assert round_price(Decimal("0.12345")) == Decimal("0.1234")
