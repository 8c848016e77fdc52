"""Faults that an order meets, over the wire: delivered twice, refused late, filled in parts, read too early.

Requests, answers and the plan itself are in `test_faults.py`; events of the stream in `test_stream.py`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import requests

from quant_tests.exchange.served import Served
from quant_tests.exchange.test_faults import KEYS, ORDERS, accepted, get, one, post_order

FILLS = "/v2/account/activities/FILL"
POSITIONS = "/v2/positions"
LOOK_UP = f"{ORDERS}:by_client_order_id"


@pytest.fixture
def traded(week: Served) -> Served:
    """The week, on Friday morning."""
    week.at("2024-03-08 09:00")
    return week


def post(served: Served, client_order_id: str, **fields: Any) -> dict[str, Any]:
    return served.submit("ABC", "buy", client_order_id=client_order_id, **fields)


def test_an_order_delivered_twice_is_one_order(traded: Served) -> None:
    traded.control.inject(one({"kind": "duplicate_delivery"}, path=ORDERS, method="POST"))
    assert post_order(traded, "a").json()["client_order_id"] == "a"
    submits = [entry["outcome"] for entry in traded.control.audit() if entry["event"] == "submit"]
    assert submits == ["accepted", "refused"]
    assert accepted(traded) == ["a"]


def test_a_stale_read_does_not_yet_see_the_newest_orders(traded: Served) -> None:
    ids = {name: post_order(traded, name).json()["id"] for name in ("a", "b", "c")}
    traded.at("2024-03-08 10:00")
    traded.control.inject(one({"kind": "stale_read", "newest": 2}, method="GET"))
    assert get(traded, LOOK_UP, client_order_id="a").json()["id"] == ids["a"]
    for answer in (get(traded, LOOK_UP, client_order_id="c"), get(traded, f"{ORDERS}/{ids['b']}")):
        assert (answer.status_code, answer.json()["code"]) == (404, 40410000)
    assert [o["client_order_id"] for o in get(traded, ORDERS, status="all").json()] == ["a"]
    fills = get(traded, FILLS).json()
    assert [fill["order_id"] for fill in fills] == [ids["a"]]
    traded.control.clear_faults()
    assert len(get(traded, FILLS).json()) == 3


def test_updates_out_of_order_and_twice(traded: Served) -> None:
    for name in ("a", "b", "c"):
        post_order(traded, name)
    traded.at("2024-03-08 10:00")
    path = FILLS
    fills = get(traded, path).json()
    traded.control.inject(one({"kind": "reorder"}, path=path))
    assert get(traded, path).json() == fills[::-1]
    traded.control.inject(one({"kind": "duplicate_rows"}, path=path))
    assert get(traded, path).json() == [fill for fill in fills for _ in range(2)]
    traded.control.inject(one({"kind": "set_field", "field": "client_order_id", "value": "x"}))
    assert {order["client_order_id"] for order in get(traded, ORDERS, status="all").json()} == {"x"}


def test_the_second_answer_of_a_double_delivery_says_that_the_id_is_used(traded: Served) -> None:
    fault = {"kind": "duplicate_delivery", "answer": "second"}
    traded.control.inject(one(fault, path=ORDERS, method="POST"))
    answer = post_order(traded, "a")
    assert (answer.status_code, answer.json()["message"]) == (422, "client_order_id must be unique")
    assert accepted(traded) == ["a"]


def test_an_order_is_taken_although_its_answer_is_cut_off(traded: Served) -> None:
    traded.control.inject(one({"kind": "truncated", "share": 0.5}, path=ORDERS, method="POST"))
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        post_order(traded, "a")
    assert accepted(traded) == ["a"]


def test_an_order_is_rejected_after_it_was_taken(traded: Served) -> None:
    fault = {"kind": "reject", "reason": "no borrow"}
    traded.control.inject(one(fault, path=ORDERS, method="POST", times=1))
    assert post_order(traded, "a").json()["status"] == "accepted"
    assert post_order(traded, "b").ok
    assert traded.order("a")["status"] == "rejected"
    (entry,) = [entry for entry in traded.control.audit() if entry["event"] == "reject"]
    assert (entry["client_order_id"], entry["reason"]) == ("a", "no borrow")
    traded.at("2024-03-08 18:00")
    assert traded.order("a")["filled_qty"] == "0"
    assert traded.order("b")["status"] == "filled"
    # Its id stays used.
    assert post_order(traded, "a").status_code == 422


def test_an_order_that_is_refused_is_not_marked(traded: Served) -> None:
    traded.control.inject(one({"kind": "reject"}, path=ORDERS, method="POST"))
    assert post_order(traded, "a").ok
    assert post_order(traded, "a").status_code == 422
    assert sum(entry["event"] == "reject" for entry in traded.control.audit()) == 1


def test_an_order_fills_in_parts(traded: Served) -> None:
    fault = {"kind": "partial_fill", "share": 0.3}
    traded.control.inject(one(fault, path=ORDERS, method="POST", query={}, times=2))
    post(traded, "limited", qty="10", type="limit", limit_price="120", time_in_force="gtc")
    post(traded, "notional", notional="100")
    post(traded, "whole", qty="10")
    traded.at("2024-03-08 10:00")
    assert traded.order("limited")["filled_qty"] == "3"
    part = traded.order("notional")
    price = Decimal(part["filled_avg_price"])
    assert abs(Decimal(part["filled_qty"]) * price - 30) < Decimal("0.001")
    assert traded.order("whole")["filled_qty"] == "10"
    traded.at("2024-03-08 18:00")
    # Touched again during the session: three more. What only lives for the day ends in part.
    assert traded.order("limited")["status"] == "partially_filled"
    assert traded.order("limited")["filled_qty"] == "6"
    fills = [fill["qty"] for fill in get(traded, FILLS).json() if fill["qty"] != "10"]
    assert fills.count("3") == 2
    assert traded.order("notional")["status"] == "expired"


def test_a_stale_read_of_positions_lacks_the_newest_orders_shares(traded: Served) -> None:
    for name in ("a", "b", "c"):
        post_order(traded, name)
    traded.at("2024-03-08 10:00")
    (held,) = get(traded, POSITIONS).json()
    traded.control.inject(one({"kind": "stale_read", "newest": 2}, path=f"{POSITIONS}*"))
    (stale,) = get(traded, POSITIONS).json()
    assert (held["qty"], stale["qty"]) == ("3", "1")
    assert get(traded, f"{POSITIONS}/ABC").json() == stale
    assert stale["avg_entry_price"] == held["avg_entry_price"] == stale["cost_basis"]
    traded.control.inject(one({"kind": "stale_read", "newest": 3}, path=f"{POSITIONS}*"))
    assert get(traded, POSITIONS).json() == []
    assert get(traded, f"{POSITIONS}/ABC").status_code == 404


def test_an_update_comes_out_of_order(traded: Served) -> None:
    """A second read that is older than the first: filled, then not; cancelled, then open."""
    for name in ("a", "b"):
        post_order(traded, name)
    traded.at("2024-03-08 10:00")
    new = {order["client_order_id"]: order for order in get(traded, ORDERS, status="all").json()}
    traded.control.inject(one({"kind": "earlier_state"}, method="GET"))
    before = get(traded, LOOK_UP, client_order_id="b").json()
    assert (before["status"], before["filled_qty"], before["filled_avg_price"]) == (
        "new",
        "0",
        None,
    )
    assert before["filled_at"] is None
    # The fill of the other order has been seen already.
    assert get(traded, LOOK_UP, client_order_id="a").json() == new["a"]
    listed = get(traded, ORDERS, status="all").json()
    assert [order["status"] for order in listed] == ["new", "filled"]
    assert [fill["order_id"] for fill in get(traded, FILLS).json()] == [new["a"]["id"]]
    assert [held["qty"] for held in get(traded, POSITIONS).json()] == ["1"]
    traded.control.inject(one({"kind": "earlier_state", "updates": 2}, method="GET"))
    assert get(traded, POSITIONS).json() == get(traded, FILLS).json() == []


def test_a_cancelled_order_is_open_again_in_an_earlier_state(traded: Served) -> None:
    order = post(traded, "a", qty="10", type="limit", limit_price="1", time_in_force="gtc")
    requests.delete(f"{traded.url}{ORDERS}/{order['id']}", headers=KEYS, timeout=5)
    assert traded.order("a")["status"] == "canceled"
    traded.control.inject(one({"kind": "earlier_state"}, path=LOOK_UP, times=1))
    before = traded.order("a")
    assert (before["status"], before["canceled_at"]) == ("new", None)
    assert traded.order("a")["status"] == "canceled"


def test_a_position_before_a_sale_and_before_the_one_that_closed_it(traded: Served) -> None:
    post(traded, "bought", qty="10")
    traded.at("2024-03-08 10:00")
    (bought,) = get(traded, POSITIONS).json()
    for name, shares in (("some", "4"), ("rest", "6")):
        traded.submit("ABC", "sell", shares, client_order_id=name, time_in_force="cls")
    traded.at("2024-03-08 15:00")
    assert [held["qty"] for held in get(traded, POSITIONS).json()] == ["10"]
    traded.at("2024-03-08 16:30")
    assert get(traded, POSITIONS).json() == []
    expected = {1: ("6", "107.5"), 2: ("10", "107.5"), 3: None}
    for updates, shown in expected.items():
        fault = {"kind": "earlier_state", "updates": updates}
        traded.control.inject(one(fault, path=POSITIONS))
        rows = [(row["qty"], row["current_price"]) for row in get(traded, POSITIONS).json()]
        assert rows == ([] if shown is None else [shown])
    assert bought["qty"] == "10"


def test_a_position_before_a_sale_has_cost_what_it_cost(traded: Served) -> None:
    post(traded, "bought", qty="10")
    traded.at("2024-03-08 10:00")
    (bought,) = get(traded, POSITIONS).json()
    traded.submit("ABC", "sell", "4", client_order_id="some", time_in_force="cls")
    traded.at("2024-03-08 16:30")
    traded.control.inject(one({"kind": "earlier_state"}, path=POSITIONS))
    (before,) = get(traded, POSITIONS).json()
    names = ("qty", "avg_entry_price", "cost_basis")
    assert [before[name] for name in names] == [bought[name] for name in names]


def test_a_bust_is_not_seen_yet(traded: Served) -> None:
    post(traded, "a", qty="3")
    traded.at("2024-03-08 10:00")
    filled, (held,) = traded.order("a"), get(traded, POSITIONS).json()
    execution = get(traded, FILLS).json()[0]["id"]
    traded.control.bust(execution)
    assert traded.order("a")["filled_qty"] == "0"
    traded.control.inject(one({"kind": "earlier_state"}, method="GET"))
    before = traded.order("a")
    assert (before["filled_qty"], before["filled_avg_price"]) == ("3", filled["filled_avg_price"])
    assert [row["id"] for row in get(traded, FILLS).json()] == [execution]
    (still,) = get(traded, POSITIONS).json()
    assert (still["qty"], still["avg_entry_price"]) == ("3", held["avg_entry_price"])


def test_a_rejected_bracket_takes_its_legs_along(traded: Served) -> None:
    traded.control.inject(one({"kind": "reject"}, path=ORDERS, method="POST"))
    legs = {"take_profit": {"limit_price": "120"}, "stop_loss": {"stop_price": "90"}}
    post(traded, "a", qty="2", order_class="bracket", **legs)
    orders = get(traded, ORDERS, status="all").json()
    assert sorted(order["status"] for order in orders) == ["canceled", "canceled", "rejected"]


def test_a_clock_that_is_off(traded: Served) -> None:
    for seconds, told in ((-7200, "07:00:00"), (90, "09:01:30")):
        traded.control.inject(one({"kind": "clock_skew", "seconds": seconds}, path="/v2/clock"))
        assert get(traded, "/v2/clock").json()["timestamp"].startswith(f"2024-03-08T{told}")
    traded.control.clear_faults()
    assert get(traded, "/v2/clock").json()["timestamp"].startswith("2024-03-08T09:00:00")
