"""Stop and stop-limit orders: when they are triggered, and what they get then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from alpaca.common.exceptions import APIError
from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.requests import StopLimitOrderRequest, StopOrderRequest

from quant_tests.exchange.served import WEEK, Served

# The last price is 100. Tuesday 5 March: open 102, 101 to 104, close 103. Wednesday: open 104, 98 to 106,
# close 105.


def stop(served: Served, side: str, price: float, qty: int = 10, **more: Any) -> dict[str, Any]:
    return served.submit("ABC", side, qty, **{"type": "stop", "stop_price": price, **more})


def fate(served: Served, client_order_id: str) -> tuple[str, str | None]:
    order = served.order(client_order_id)
    return order["status"], order["filled_avg_price"]


@pytest.mark.parametrize(
    ("side", "price", "expected"),
    [
        ("buy", 101, ("filled", "102")),  # the open is beyond it
        ("buy", 103.5, ("filled", "103.5")),  # the high reaches it
        ("buy", 104, ("filled", "104")),
        ("buy", 104.01, ("expired", None)),
        ("sell", 99, ("expired", None)),
    ],
)
def test_a_stop_becomes_a_market_order_where_the_price_reaches_it(
    week: Served, side: str, price: float, expected: tuple[str, str | None]
) -> None:
    week.trading.submit_order(
        StopOrderRequest(
            symbol="ABC",
            qty=10,
            side=OrderSide(side),
            time_in_force=TimeInForce.DAY,
            stop_price=price,
            client_order_id="a",
        )
    )
    week.at("2024-03-05 16:00")
    assert fate(week, "a") == expected


def test_a_stop_sells_what_falls(week: Served) -> None:
    week.submit("ABC", "buy", 10)
    week.at("2024-03-05 09:30")
    stop(week, "sell", 99, client_order_id="a", time_in_force="gtc")
    assert week.get("/v2/positions/ABC")["qty_available"] == "0"
    week.at("2024-03-06 09:30")
    assert fate(week, "a") == ("new", None)
    week.at("2024-03-06 16:00")
    assert fate(week, "a") == ("filled", "99")


@pytest.mark.parametrize(
    ("stop_price", "limit", "expected"),
    [
        (103.5, 103.6, ("filled", "103.5")),
        # Triggered by the open at 102, which the limit forbids; the low of 101 comes later.
        (101, 101.5, ("filled", "101.5")),
        (101, 100.99, ("expired", None)),
        # Triggered at 103.5; only the close of 103 is known to come later.
        (103.5, 103.2, ("filled", "103.2")),
        (103.5, 102.9, ("expired", None)),
    ],
)
def test_a_stop_limit_becomes_a_limit_order(
    week: Served, stop_price: float, limit: float, expected: tuple[str, str | None]
) -> None:
    week.trading.submit_order(
        StopLimitOrderRequest(
            symbol="ABC",
            qty=10,
            side=OrderSide.BUY,
            time_in_force=TimeInForce.DAY,
            stop_price=stop_price,
            limit_price=limit,
            client_order_id="a",
        )
    )
    week.at("2024-03-05 16:00")
    assert fate(week, "a") == expected


def test_a_stop_sent_during_a_session_sees_its_close_only(week: Served) -> None:
    """The last price is the open of 102; that the high of 104 comes later is not known."""
    week.at("2024-03-05 12:00")
    stop(week, "buy", 103.5, client_order_id="above", time_in_force="gtc")
    stop(week, "buy", 102.5, client_order_id="below")
    week.at("2024-03-05 16:00")
    assert fate(week, "above") == ("new", None)
    assert fate(week, "below") == ("filled", "103")
    week.at("2024-03-06 09:30")
    assert fate(week, "above") == ("filled", "104")


def test_a_triggered_stop_stays_triggered(history: Callable[..., Served]) -> None:
    """1,000 shares a session: the rest is a market order of the next one, at whatever price."""
    bars = [*WEEK[:1], ("ABC", "2024-03-05", 102.0, 104.0, 101.0, 103.0, 10_000)]
    bars.append(("ABC", "2024-03-06", 90.0, 91.0, 89.0, 90.0, 10_000))
    served = history(bars)
    served.at("2024-03-05 09:00")
    stop(served, "buy", 101, 1_500, client_order_id="a", time_in_force="gtc")
    served.at("2024-03-06 09:30")
    fills = served.get("/v2/account/activities/FILL", direction="asc")
    assert [(fill["qty"], fill["price"]) for fill in fills] == [("1000", "102"), ("500", "90")]
    triggers = [event for event in served.control.audit() if event["event"] == "trigger"]
    assert [event["client_order_id"] for event in triggers] == ["a"]


def test_costs_move_a_stop_against_the_taker(history: Callable[..., Served]) -> None:
    served = history(WEEK, half_spread_bps=10)
    served.at("2024-03-05 09:00")
    stop(served, "buy", 103, client_order_id="a")
    limited = {"type": "stop_limit", "limit_price": 103.05, "client_order_id": "b"}
    stop(served, "buy", 103, **limited)
    served.at("2024-03-05 16:00")
    assert fate(served, "a") == ("filled", "103.103")
    assert fate(served, "b") == ("filled", "103.05")


@pytest.mark.parametrize(
    ("side", "more", "error", "words"),
    [
        ("sell", {"stop_price": 100}, 42210000, "stop price must be less than current price"),
        ("buy", {"stop_price": 100}, 42210000, "stop price must be greater than current price"),
        ("buy", {"stop_price": None}, 40010001, "stop orders require a stop price"),
        ("buy", {"stop_price": 105.001}, 42210000, "invalid stop_price 105.001. sub-penny"),
        ("buy", {"stop_price": 105, "limit_price": 106}, 40010001, "must not have a limit price"),
        (
            "buy",
            {"type": "stop_limit", "stop_price": 105},
            40010001,
            "stop limit orders require both stop and limit price",
        ),
        ("buy", {"type": "market", "stop_price": 105}, 40010001, "must not have a stop price"),
        ("buy", {"stop_price": 105, "time_in_force": "opg"}, 42210000, "market or limit orders"),
        ("buy", {"stop_price": 105, "qty": 19_500}, 40310000, "insufficient buying power"),
    ],
)
def test_what_is_refused_of_stops_and_in_which_words(
    unchanged_week: Served, side: str, more: dict[str, Any], error: int, words: str
) -> None:
    """What a stop costs at least is its stop price: 19,500 shares at 105 are more than 2 million USD."""
    with pytest.raises(APIError) as caught:
        unchanged_week.submit("ABC", side, **{"qty": 10, "type": "stop", **more})
    assert (caught.value.code, words in caught.value.message) == (error, True)


def test_orders_meet_stops_on_the_other_side(week: Served) -> None:
    week.submit("ABC", "buy", 10)
    week.at("2024-03-05 09:30")
    stop(week, "sell", 90, time_in_force="gtc")
    with pytest.raises(APIError, match="opposite side market/stop order exists"):
        week.submit("ABC", "buy", 10, type="limit", limit_price=80)
