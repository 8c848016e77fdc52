"""Replacing orders: a new order in the place of an open one, under a new id."""

from __future__ import annotations

from typing import Any

import pytest
from alpaca.common.exceptions import APIError
from alpaca.trading.requests import ReplaceOrderRequest

from quant_tests.exchange.served import Served
from quant_tests.exchange.test_brackets import bracket, group


def replace(served: Served, order: dict[str, Any], **terms: Any) -> Any:
    return served.trading.replace_order_by_id(order["id"], ReplaceOrderRequest(**terms))


@pytest.fixture
def resting(week: Served) -> tuple[Served, dict[str, Any]]:
    """A purchase of 10 ABC at 90 at most, until cancelled, in the market on Tuesday at 10:00."""
    terms = {"type": "limit", "limit_price": 90, "time_in_force": "gtc", "client_order_id": "a"}
    order = week.submit("ABC", "buy", 10, **terms)
    week.at("2024-03-05 10:00")
    return week, order


def test_a_replaced_order_ends_and_the_new_one_leads_back(
    resting: tuple[Served, dict[str, Any]],
) -> None:
    served, old = resting
    new = replace(served, old, qty=20, limit_price=104.5, client_order_id="b")
    assert (str(new.replaces), new.qty, new.limit_price) == (old["id"], "20", "104.5")
    assert new.status == "new"
    was = served.order("a")
    assert (was["status"], was["replaced_by"]) == ("replaced", str(new.id))
    assert was["replaced_at"] is not None
    assert [order.client_order_id for order in served.trading.get_orders()] == ["b"]
    with pytest.raises(APIError, match="order is not open"):
        replace(served, old, qty=30)
    served.at("2024-03-06 16:00")
    assert (served.order("b")["status"], served.order("a")["filled_qty"]) == ("filled", "0")
    (event,) = (e for e in served.control.audit() if e["event"] == "replace")
    assert (event["order_id"], event["replaced_by"]) == (old["id"], str(new.id))


def test_buying_power_and_holdings_are_those_without_the_replaced_order(
    resting: tuple[Served, dict[str, Any]],
) -> None:
    served, old = resting
    replace(served, old, limit_price=95)
    assert served.get("/v2/account")["buying_power"] == str(2_000_000 - 950)
    served.submit("XYZ", "buy", 10)
    served.at("2024-03-06 09:30")
    sale = served.submit("XYZ", "sell", 10, type="limit", limit_price=60, time_in_force="gtc")
    replace(served, sale, limit_price=59)
    assert served.get("/v2/positions/XYZ")["qty_available"] == "0"


def test_what_has_filled_stays_with_the_replaced_order(week: Served) -> None:
    terms = {"type": "limit", "limit_price": 103, "time_in_force": "gtc", "client_order_id": "a"}
    old = week.submit("ABC", "buy", 1_500, **terms)
    week.at("2024-03-05 16:30")
    new = replace(week, old, limit_price=105, client_order_id="b")
    assert (week.order("a")["filled_qty"], new.qty, new.filled_qty) == ("1000", "500", "0")
    week.at("2024-03-06 09:30")
    assert week.order("b")["status"] == "filled"
    assert week.get("/v2/positions/ABC")["qty"] == "1500"


def test_legs_follow_an_entry_and_can_be_moved_themselves(week: Served) -> None:
    placed = bracket(week, 120, 80, client_order_id="a", type="limit", limit_price="90")
    profit, loss = placed["legs"]
    week.at("2024-03-05 10:00")
    replace(week, placed, limit_price=104.5, client_order_id="b")
    replace(week, loss, stop_price=85, client_order_id="moved")
    with pytest.raises(APIError, match="take_profit.limit_price must be > stop_loss.stop_price"):
        replace(week, profit, limit_price=85)
    with pytest.raises(APIError, match="only limit_price and stop_price"):
        replace(week, profit, qty=5)
    entry = week.get("/v2/orders:by_client_order_id", client_order_id="b", nested="true")
    assert [(leg["status"], leg["stop_price"]) for leg in entry["legs"]] == [
        ("held", None),
        ("held", "85"),
    ]
    assert entry["group_id"] == placed["group_id"] == week.order("moved")["group_id"]
    week.at("2024-03-05 16:00")
    assert group(week, "b") == {
        "entry": ("filled", "103"),
        "take_profit": ("new", None),
        "stop_loss": ("new", None),
    }
    with pytest.raises(APIError, match="stop price must be less than current price"):
        replace(week, week.order("moved"), stop_price=103)
    replace(week, week.order("moved"), stop_price=99)
    week.at("2024-03-06 16:00")
    assert group(week, "b")["stop_loss"] == ("filled", "99")
    assert week.trading.get_all_positions() == []


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"limit_price": 90}, "order parameters are not changed"),
        ({"limit_price": 90.001}, "sub-penny"),
        ({"stop_price": 80}, "must not have a stop price"),
        ({"qty": 100_000}, "insufficient buying power"),
        ({"client_order_id": "a", "qty": 5}, "client_order_id must be unique"),
        ({"client_order_id": "x" * 129, "qty": 5}, "128 characters"),
        ({"trail": 1}, "trail is not offered"),
    ],
)
def test_what_cannot_be_replaced_stays_as_it_is(
    resting: tuple[Served, dict[str, Any]], terms: dict[str, Any], words: str
) -> None:
    served, old = resting
    with pytest.raises(APIError, match=words):
        replace(served, old, **terms)
    assert served.order("a")["status"] == "new"


def test_only_orders_in_the_market_for_shares_are_replaced(week: Served) -> None:
    early = week.submit("ABC", "buy", 10, type="limit", limit_price=90)
    with pytest.raises(APIError, match="isn't sent to exchange yet"):
        replace(week, early, limit_price=91)
    amount = week.submit("XYZ", "buy", notional="100", type="limit", limit_price=40)
    part = week.submit("XYZ", "buy", "1.5", type="limit", limit_price=40)
    week.at("2024-03-05 10:00")
    with pytest.raises(APIError, match="notional orders cannot be replaced"):
        replace(week, amount, limit_price=41)
    with pytest.raises(APIError, match="qty of fractional orders cannot be changed"):
        replace(week, part, qty=2)
    replace(week, part, limit_price=41)
    with pytest.raises(APIError, match="order not found"):
        week.trading.replace_order_by_id("00000000-0000-0000-0000-000000000000",
                                         ReplaceOrderRequest(qty=1))  # fmt: skip
