"""When orders trade: before, in and after a session, and in its auctions."""

from __future__ import annotations

import pytest

from quant_tests.exchange.served import Served
from quant_tests.exchange.test_orders import refusal


def test_an_order_sent_during_a_session_fills_at_its_close_and_sees_nothing_before(
    week: Served,
) -> None:
    """A daily bar does not say what traded after noon, but its close surely did."""
    week.at("2024-03-05 12:00")

    def limit(client_id: str, price: float, life: str) -> None:
        terms = {"type": "limit", "limit_price": price, "time_in_force": life}
        week.submit("ABC", "buy", 5, client_order_id=client_id, **terms)

    assert week.submit("ABC", "buy", 10, client_order_id="market")["status"] == "new"
    limit("touched", 101.5, "day")
    limit("as-good", 103.5, "day")
    limit("later", 101.5, "gtc")
    limit("at-once", 101.5, "ioc")
    week.submit("XYZ", "buy", 10, client_order_id="close", time_in_force="cls")
    week.at("2024-03-05 16:00")
    found = {
        name: (week.order(name)["status"], week.order(name)["filled_avg_price"])
        for name in ("market", "touched", "as-good", "later", "at-once", "close")
    }
    assert found == {
        "market": ("filled", "103"),
        "touched": ("expired", None),
        "as-good": ("filled", "103"),
        "later": ("new", None),
        "at-once": ("canceled", None),
        "close": ("filled", "50.5"),
    }
    # From the next session on, an order sees all of it: 104 at the open, 98 at the low.
    week.at("2024-03-06 16:00")
    assert week.order("later")["filled_avg_price"] == "101.5"


def test_an_order_sent_after_the_close_waits_for_the_next_open(week: Served) -> None:
    week.at("2024-03-05 16:00")
    assert week.submit("ABC", "buy", 10, client_order_id="a")["status"] == "accepted"
    week.at("2024-03-06 09:30")
    assert week.order("a")["filled_avg_price"] == "104"


@pytest.mark.parametrize(
    ("at", "life", "taken"),
    [
        ("2024-03-05 09:27", "opg", True),
        ("2024-03-05 09:28", "opg", False),
        ("2024-03-05 18:59", "opg", False),
        ("2024-03-05 19:00", "opg", True),
        ("2024-03-05 15:49", "cls", True),
        ("2024-03-05 15:50", "cls", False),
        ("2024-03-09 12:00", "opg", True),  # a Saturday
    ],
)
def test_orders_for_the_auctions_come_in_time(
    week: Served, at: str, life: str, taken: bool
) -> None:
    week.at(at)
    if taken:
        assert week.submit("ABC", "buy", 10, time_in_force=life)["status"] != "rejected"
        return
    status, code, words = refusal(week, "ABC", "buy", 10, time_in_force=life)
    last = {"opg": "9:28am", "cls": "3:50pm"}[life]
    expected = f"{life} orders must be submitted after 7:00pm and before {last}"
    assert (status, code, words) == (403, 40310000, expected)


def test_orders_for_the_open_the_close_and_at_once(week: Served) -> None:
    def limit(client_id: str, side: str, qty: int, price: float, life: str) -> None:
        week.submit(
            "XYZ",
            side,
            qty,
            client_order_id=client_id,
            type="limit",
            limit_price=price,
            time_in_force=life,
        )

    week.submit("XYZ", "buy", 10, client_order_id="opg", time_in_force="opg")
    limit("opg-missed", "buy", 10, 50.4, "opg")
    limit("cls-missed", "buy", 10, 50.49, "cls")
    limit("ioc", "buy", 11_000, 60, "ioc")
    limit("fok", "buy", 11_000, 60, "fok")
    week.submit("ABC", "buy", 10, client_order_id="cls", time_in_force="cls")
    week.at("2024-03-05 09:30")
    assert week.order("opg")["filled_avg_price"] == "50.5"
    assert week.order("opg-missed")["status"] == "expired"
    assert (week.order("ioc")["status"], week.order("ioc")["filled_qty"]) == ("canceled", "9990")
    assert (week.order("fok")["status"], week.order("fok")["filled_qty"]) == ("canceled", "0")
    week.at("2024-03-05 16:00")
    assert week.order("cls")["filled_avg_price"] == "103"
    assert week.order("cls-missed")["status"] == "expired"
