"""Orders over the wire: what is taken, what is refused, and what fills when at which price."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from alpaca.common.exceptions import APIError
from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.requests import (
    GetCalendarRequest,
    LimitOrderRequest,
    MarketOrderRequest,
)

from quant_resources.errors import ExchangeError
from quant_tests.exchange.served import WEEK, Served, new_york


def refusal(served: Served, *order: Any, **more: Any) -> tuple[Any, Any, str]:
    with pytest.raises(APIError) as caught:
        served.submit(*order, **more)
    return caught.value.status_code, caught.value.code, caught.value.message


def test_a_market_order_fills_at_the_next_open(week: Served) -> None:
    request = MarketOrderRequest(
        symbol="ABC", qty=10, side=OrderSide.BUY, time_in_force=TimeInForce.DAY, client_order_id="a"
    )
    placed = week.trading.submit_order(request)
    assert placed.status == "accepted"
    assert placed.submitted_at == new_york("2024-03-05 09:00")
    week.at("2024-03-05 09:30")
    order = week.order("a")
    assert (order["status"], order["filled_avg_price"], order["filled_qty"]) == (
        "filled",
        "102",
        "10",
    )
    account = week.get("/v2/account")
    assert (account["cash"], account["long_market_value"]) == ("998980", "1020")
    week.at("2024-03-05 16:00")
    account = week.trading.get_account()
    assert (account.equity, account.last_equity) == ("1000010", "1000000")
    position = week.trading.get_open_position("ABC")
    assert (position.qty, position.avg_entry_price, position.unrealized_pl) == ("10", "102", "10")
    week.at("2024-03-06 00:00")
    assert week.trading.get_account().last_equity == "1000010"


def test_the_same_client_order_id_is_refused_for_ever(week: Served) -> None:
    week.submit("ABC", "buy", 10, client_order_id="once")
    expected = (422, 40010001, "client_order_id must be unique")
    assert refusal(week, "ABC", "buy", 10, client_order_id="once") == expected
    week.trading.cancel_orders()
    assert refusal(week, "XYZ", "sell", 1, client_order_id="once") == expected
    week.trading.set_account_configurations(
        week.trading.get_account_configurations().model_copy(update={"suspend_trade": True})
    )
    assert refusal(week, "ABC", "buy", 10, client_order_id="once") == expected
    outcomes = [e["outcome"] for e in week.control.audit() if e["event"] == "submit"]
    assert outcomes == ["accepted", "refused", "refused", "refused"]


def test_without_a_client_order_id_one_is_given(week: Served) -> None:
    ids = {week.submit("ABC", "buy", 1)["client_order_id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(week.order(client_id)["qty"] == "1" for client_id in ids)


@pytest.mark.parametrize(
    ("order", "more", "error", "words"),
    [
        (("NONE", "buy", 1), {}, (422, 42210000), 'asset "NONE" not found'),
        (("ABC", "hold", 1), {}, (422, 40010001), "invalid side"),
        (("ABC", "buy"), {}, (422, 40010001), "qty or notional is required"),
        (("ABC", "buy", 1), {"notional": 100}, (422, 40010001), "only one of qty or notional"),
        (("ABC", "buy", 0), {}, (422, 40010001), "qty must be > 0"),
        (("ABC", "buy", "NaN"), {}, (422, 40010001), "qty must be > 0"),
        (("ABC", "buy", "many"), {}, (422, 40010001), "qty must be a number"),
        (("ABC", "buy", "0.0000000001"), {}, (422, 40010001), "decimal places"),
        (("ABC", "buy", 1), {"type": "limit"}, (422, 40010001), "require a limit price"),
        (("ABC", "buy", 1), {"limit_price": 5}, (422, 40010001), "must not have a limit"),
        (("ABC", "buy", 1), {"type": "limit", "limit_price": 5.001}, (422, 42210000), "sub-penny"),
        (("ABC", "buy", 1), {"type": "trailing_stop"}, (422, 40010001), "invalid type"),
        (("ABC", "buy", "1e15"), {}, (422, 40010001), "qty must be <"),
        (("ABC; DROP TABLE orders", "buy", 1), {}, (422, 42210000), "not found"),
        (("ABC", "buy", "1.5"), {"time_in_force": "gtc"}, (422, 42210000), "must be DAY"),
        (("ABC", "buy", 1), {"client_order_id": "x" * 129}, (422, 40010001), "128 characters"),
        (("ABC", "sell", "1.5"), {}, (422, 42210000), "fractional orders cannot be sold short"),
        (("ABC", "buy", 20_001), {}, (403, 40310000), "insufficient buying power"),
        (("ABC", "sell", 19_418), {}, (403, 40310000), "insufficient buying power"),
    ],
)
def test_what_is_refused_and_in_which_words(
    unchanged_week: Served,
    order: tuple[Any, ...],
    more: dict[str, Any],
    error: tuple[int, int],
    words: str,
) -> None:
    found = refusal(unchanged_week, *order, **more)
    assert found[:2] == error
    assert words in found[2]
    assert unchanged_week.trading.get_orders() == []
    record = [event for event in unchanged_week.control.audit() if event["event"] == "submit"][-1]
    assert (record["outcome"], record["status"]) == ("refused", error[0])


def test_buying_power_is_twice_the_equity_less_exposure_and_open_orders(week: Served) -> None:
    week.submit("XYZ", "buy", 9_000, client_order_id="fills")
    assert week.get("/v2/account")["buying_power"] == "1550000"
    week.submit("ABC", "buy", 100, type="limit", limit_price=90, time_in_force="gtc")
    assert week.get("/v2/account")["buying_power"] == "1541000"
    week.at("2024-03-05 09:30")
    account = week.get("/v2/account")
    assert account["regt_buying_power"] == str(2_000_000 - 9_000 * 50.5).removesuffix(".0")
    assert Decimal(account["buying_power"]) == Decimal(account["regt_buying_power"]) - 9_000
    assert Decimal(account["initial_margin"]) == Decimal(account["long_market_value"]) / 2


def test_no_order_sells_more_than_is_held_or_turns_a_position(week: Served) -> None:
    week.submit("ABC", "buy", 10)
    week.submit("XYZ", "sell", 10)
    week.at("2024-03-05 09:31")
    assert "requested: 11, available: 10" in refusal(week, "ABC", "sell", 11)[2]
    assert "requested: 11, available: 10" in refusal(week, "XYZ", "buy", 11)[2]
    week.submit("ABC", "sell", 6)
    assert "requested: 5, available: 4" in refusal(week, "ABC", "sell", 5)[2]
    week.submit("XYZ", "buy", 10)
    assert week.get("/v2/positions/ABC")["qty_available"] == "4"
    week.at("2024-03-06 09:31")
    assert [p.symbol for p in week.trading.get_all_positions()] == ["ABC"]


def test_orders_of_one_account_do_not_meet_each_other(week: Served) -> None:
    week.submit("ABC", "buy", 10, type="limit", limit_price=100)
    assert "wash trade" in refusal(week, "ABC", "sell", 10)[2]
    assert "wash trade" in refusal(week, "ABC", "sell", 10, type="limit", limit_price=100)[2]
    beyond = {"type": "limit", "limit_price": 100.01}
    both_ways = "cannot open a short sell while a long buy order is open"
    assert both_ways in refusal(week, "ABC", "sell", 10, **beyond)[2]
    week.submit("XYZ", "sell", 10, type="limit", limit_price=60)
    both_ways = "cannot open a long buy while a short sell order is open"
    assert both_ways in refusal(week, "XYZ", "buy", 10, type="limit", limit_price=40)[2]
    legs = {"take_profit": {"limit_price": 70}, "stop_loss": {"stop_price": 40}}
    assert both_ways in refusal(week, "XYZ", "buy", 10, order_class="bracket", **legs)[2]
    week.trading.cancel_orders()
    week.submit("ABC", "buy", 10)
    week.at("2024-03-05 09:30")
    week.submit("ABC", "buy", 10, type="limit", limit_price=100)
    week.submit("ABC", "sell", 10, **beyond)


def test_volume_share_fills_in_part_and_the_rest_of_a_day_order_expires(week: Served) -> None:
    week.submit("ABC", "buy", 900, client_order_id="first")
    week.submit("ABC", "buy", 300, client_order_id="second")
    week.submit("ABC", "buy", 50, client_order_id="third")
    week.at("2024-03-05 12:00")
    assert week.order("first")["status"] == "filled"
    second = week.order("second")
    assert (second["status"], second["filled_qty"]) == ("partially_filled", "100")
    assert week.order("third")["status"] == "new"
    week.at("2024-03-05 16:00")
    second = week.order("second")
    assert (second["status"], second["filled_qty"]) == ("expired", "100")
    assert (week.order("third")["status"], week.order("third")["filled_qty"]) == ("expired", "0")
    assert week.get("/v2/positions/ABC")["qty"] == "1000"


def test_a_good_till_cancelled_order_goes_on_filling(week: Served) -> None:
    week.submit("ABC", "buy", 2_500, client_order_id="a", time_in_force="gtc")
    for day, filled in (("05", "1000"), ("06", "2000"), ("07", "2500")):
        week.at(f"2024-03-{day} 16:30")
        assert week.order("a")["filled_qty"] == filled
    order = week.order("a")
    assert Decimal(order["filled_avg_price"]) == Decimal("103.6")
    activities = week.get("/v2/account/activities/FILL", direction="asc")
    assert [(a["qty"], a["type"], a["leaves_qty"]) for a in activities] == [
        ("1000", "partial_fill", "1500"),
        ("1000", "partial_fill", "500"),
        ("500", "fill", "0"),
    ]
    assert len({a["id"] for a in activities}) == 3


@pytest.mark.parametrize(
    ("side", "limit", "price"),
    [
        ("buy", 103, "102"),  # better at the open: fills at the open
        ("buy", 102, "102"),  # exactly the open
        ("buy", 101, "101"),  # touched by the low
        ("buy", 100.99, None),  # not touched
        ("sell", 101, "102"),
        ("sell", 104, "104"),  # touched by the high
        ("sell", 104.01, None),
    ],
)
def test_limit_orders_fill_when_the_bar_touches_them(
    week: Served, side: str, limit: float, price: str | None
) -> None:
    request = LimitOrderRequest(
        symbol="ABC",
        qty=10,
        side=OrderSide(side),
        time_in_force=TimeInForce.DAY,
        limit_price=limit,
        client_order_id="a",
    )
    week.trading.submit_order(request)
    week.at("2024-03-05 16:00")
    order = week.order("a")
    assert order["filled_avg_price"] == price
    assert order["status"] == ("filled" if price else "expired")


def test_fractions_and_notional_amounts(week: Served) -> None:
    week.submit("ABC", "buy", "0.123456789", client_order_id="part")
    week.submit("XYZ", "buy", client_order_id="amount", notional="1000")
    week.at("2024-03-05 09:30")
    assert week.order("part")["filled_qty"] == "0.123456789"
    amount = week.order("amount")
    assert (amount["status"], amount["qty"], amount["notional"]) == ("filled", None, "1000")
    assert Decimal(amount["filled_qty"]) * Decimal("50.5") <= 1000
    assert Decimal(amount["filled_qty"]) * Decimal("50.5") > Decimal("999.9999")


def test_an_amount_with_a_limit_buys_at_the_limit_or_better(week: Served) -> None:
    terms = {"notional": "1000", "type": "limit"}
    week.submit("ABC", "buy", client_order_id="open", limit_price=103, **terms)
    week.submit("ABC", "buy", client_order_id="low", limit_price=101, **terms)
    week.submit("ABC", "buy", client_order_id="missed", limit_price=100, **terms)
    assert Decimal(week.get("/v2/account")["buying_power"]) == 2_000_000 - 3_000
    week.at("2024-03-05 16:00")
    for name, price in (("open", 102), ("low", 101)):
        order = week.order(name)
        assert (order["status"], Decimal(order["filled_avg_price"])) == ("filled", price)
        assert 0 <= 1000 - Decimal(order["filled_qty"]) * price < Decimal("0.0001")
    assert week.order("missed")["status"] == "expired"
    held = Decimal(week.get("/v2/positions/ABC")["qty"])
    week.at("2024-03-06 09:00")
    with pytest.raises(APIError, match="insufficient qty available"):
        week.submit("ABC", "sell", notional="3000")
    week.submit("ABC", "sell", notional="515", client_order_id="sold")
    week.at("2024-03-06 09:30")
    sold = Decimal(week.order("sold")["filled_qty"])
    assert sold * 104 == pytest.approx(515, abs=1e-4)
    assert Decimal(week.get("/v2/positions/ABC")["qty"]) == held - sold


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ({"notional": "0.99"}, 40310000, "cost basis must be >= minimal amount of order 1"),
        ({"notional": "10.001"}, 40010001, "decimal places"),
        ({"notional": "10", "time_in_force": "gtc"}, 42210000, "fractional orders must be DAY"),
        ({"notional": "10", "side": "sell"}, 42210000, "cannot be sold short"),
        (
            {"notional": "10", "type": "stop", "stop_price": 110},
            42210000,
            "notional orders must be market or limit orders",
        ),
    ],
)
def test_what_is_refused_of_amounts(
    unchanged_week: Served, more: dict[str, Any], code: int, words: str
) -> None:
    side = more.get("side", "buy")
    rest = {name: value for name, value in more.items() if name != "side"}
    found = refusal(unchanged_week, "ABC", side, **rest)
    assert (found[1], words in found[2]) == (code, True)


def test_costs_move_the_price_against_the_taker(history: Callable[..., Served]) -> None:
    served = history(WEEK, half_spread_bps=5, impact_bps=40)
    served.at("2024-03-05 09:00")
    served.submit("XYZ", "buy", 10_000, client_order_id="buy")
    served.submit("ABC", "sell", 100, client_order_id="sell")
    served.at("2024-03-05 09:30")
    # A tenth of the volume costs 40 * sqrt(0.1) = 12.65 bps, a hundredth 4; half the spread is 5.
    assert float(served.order("buy")["filled_avg_price"]) == pytest.approx(
        50.5 * 1.001765, abs=1e-4
    )
    assert float(served.order("sell")["filled_avg_price"]) == pytest.approx(102 * 0.9991, abs=1e-4)


def test_cancelling(week: Served) -> None:
    placed = week.submit("ABC", "buy", 10, client_order_id="a")
    week.submit("XYZ", "buy", 10, client_order_id="b")
    week.trading.cancel_order_by_id(placed["id"])
    assert week.order("a")["status"] == "canceled"
    with pytest.raises(APIError, match='already in \\\\"canceled\\\\" state') as caught:
        week.trading.cancel_order_by_id(placed["id"])
    assert (caught.value.status_code, caught.value.code) == (422, 42210000)
    (answer,) = week.trading.cancel_orders()
    assert answer.status == 200
    week.at("2024-03-05 17:00")
    assert week.trading.get_all_positions() == []
    with pytest.raises(APIError, match="order not found") as caught:
        week.trading.get_order_by_client_id("never")
    assert caught.value.status_code == 404
    with pytest.raises(APIError, match="position does not exist"):
        week.trading.get_open_position("ABC")


def test_the_accounts_own_switch_stops_new_orders(week: Served) -> None:
    configuration = week.trading.get_account_configurations()
    configuration.suspend_trade = True
    week.trading.set_account_configurations(configuration)
    assert week.get("/v2/account")["trade_suspended_by_user"] is True
    assert refusal(week, "ABC", "buy", 1)[:2] == (403, 40310000)
    configuration.suspend_trade = False
    week.trading.set_account_configurations(configuration)
    week.submit("ABC", "buy", 1)


def test_clock_and_calendar_follow_the_virtual_time(week: Served) -> None:
    clock = week.trading.get_clock()
    assert (clock.is_open, clock.next_open) == (False, new_york("2024-03-05 09:30"))
    week.at("2024-03-05 09:30")
    clock = week.trading.get_clock()
    assert (clock.is_open, clock.next_close) == (True, new_york("2024-03-05 16:00"))
    week.at("2024-03-08 16:00")
    assert week.trading.get_clock().next_open == new_york("2024-03-11 09:30")
    request = GetCalendarRequest(start=date(2024, 7, 3), end=date(2024, 7, 5))
    days = week.trading.get_calendar(request)
    assert [f"{d.date} {d.close:%H:%M}" for d in days] == ["2024-07-03 13:00", "2024-07-05 16:00"]


def test_the_clock_moves_only_forward_and_not_past_the_market(week: Served) -> None:
    for text, words in (("2024-03-05 08:59", "only forward"), ("2024-03-11 09:30", "market ends")):
        with pytest.raises(Exception, match=words):
            week.at(text)
    week.at("2024-03-11 09:29")


def test_cash_and_holdings_are_what_the_audit_log_says(week: Served) -> None:
    """Replays the audit log by plain arithmetic and compares with the account, to the last digit."""
    week.submit("ABC", "buy", "12.345")
    week.submit("XYZ", "sell", 300)
    week.at("2024-03-06 09:00")
    week.submit("ABC", "sell", "2.005")
    week.submit("XYZ", "buy", 120)
    week.submit("XYZ", "buy", 30, type="limit", limit_price=50.2)
    week.at("2024-03-08 18:00")
    cash, held = Decimal(1_000_000), {"ABC": Decimal(0), "XYZ": Decimal(0)}
    for event in week.control.audit():
        if event["event"] == "fill":
            signed = Decimal(event["quantity"]) * (1 if event["side"] == "buy" else -1)
            cash -= signed * Decimal(event["price"])
            held[event["symbol"]] += signed
    account = week.get("/v2/account")
    assert held == {"ABC": Decimal("10.340"), "XYZ": Decimal(-150)}
    assert Decimal(account["cash"]) == cash
    expected = cash + held["ABC"] * Decimal("107.5") + held["XYZ"] * Decimal("52.5")
    assert Decimal(account["equity"]) == expected
    positions = {p.symbol: p for p in week.trading.get_all_positions()}
    assert (positions["XYZ"].qty, positions["XYZ"].side) == ("-150", "short")


def test_a_failure_in_the_middle_changes_nothing(week: Served) -> None:
    """The state cannot be written while an order fills: the clock stays, nothing is half booked."""
    week.submit("ABC", "buy", 10, client_order_id="a")
    before = (week.control.status(), week.get("/v2/account"), week.control.audit())
    state = week.exchange.state
    state._connection.execute(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON fills BEGIN SELECT RAISE(FAIL, 'full'); END"
    )
    with pytest.raises(ExchangeError, match="nothing was changed"):
        week.at("2024-03-05 12:00")
    assert (week.control.status(), week.get("/v2/account"), week.control.audit()) == before
    state._connection.execute("DROP TRIGGER full")
    week.at("2024-03-05 12:00")
    assert week.order("a")["status"] == "filled"
