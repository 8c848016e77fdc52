"""Brackets over the wire: legs are held, released, cancel each other, and hold their shares once."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from alpaca.common.exceptions import APIError
from alpaca.trading.enums import OrderClass, OrderSide, TimeInForce
from alpaca.trading.requests import (
    GetOrdersRequest,
    MarketOrderRequest,
    StopLossRequest,
    TakeProfitRequest,
)

from quant_tests.exchange.served import Served

# Tuesday 5 March: open 102, 101 to 104, close 103. Wednesday: open 104, 98 to 106, close 105.


def bracket(
    served: Served, take_profit: object, stop: object, shares: int = 10, /, **more: Any
) -> dict[str, Any]:
    """Submit a bracket, a market purchase of ABC until cancelled unless `more` says otherwise."""
    symbol, side = more.pop("symbol", "ABC"), more.pop("side", "buy")
    qty = more.pop("qty", shares)
    legs = {
        "order_class": "bracket",
        "take_profit": {"limit_price": str(take_profit)},
        "stop_loss": {"stop_price": str(stop)},
    }
    return served.submit(symbol, side, qty, **{"time_in_force": "gtc", **legs, **more})


def group(served: Served, client_order_id: str) -> dict[str, tuple[str, str | None]]:
    """Status and average price of the orders of a bracket, by role."""
    entry = served.get(
        "/v2/orders:by_client_order_id", client_order_id=client_order_id, nested="true"
    )
    rows = [entry, *entry["legs"]]
    return {row["group_role"]: (row["status"], row["filled_avg_price"]) for row in rows}


def test_legs_are_held_until_the_entry_has_filled(week: Served) -> None:
    placed = week.trading.submit_order(
        MarketOrderRequest(
            symbol="ABC",
            qty=10,
            side=OrderSide.BUY,
            time_in_force=TimeInForce.GTC,
            order_class=OrderClass.BRACKET,
            take_profit=TakeProfitRequest(limit_price=120),
            stop_loss=StopLossRequest(stop_price=90, limit_price=89.5),
            client_order_id="a",
        )
    )
    profit, loss = placed.legs
    assert (placed.order_class, placed.status) == ("bracket", "accepted")
    assert (profit.type, profit.side, profit.limit_price) == ("limit", "sell", "120")
    assert (loss.type, loss.stop_price, loss.limit_price) == ("stop_limit", "90", "89.5")
    assert {leg.status for leg in placed.legs} == {"held"}
    assert {leg.position_intent for leg in placed.legs} == {"sell_to_close"}
    week.at("2024-03-05 09:30")
    assert group(week, "a") == {
        "entry": ("filled", "102"),
        "take_profit": ("new", None),
        "stop_loss": ("new", None),
    }
    events = [(e["event"], e.get("client_order_id")) for e in week.control.audit()][1:]
    ids = [loss.client_order_id, profit.client_order_id]
    assert events == [
        ("submit", "a"),
        *(("held", leg) for leg in ids),
        ("fill", "a"),
        *(("released", leg) for leg in ids),
        ("clock", None),
    ]


@pytest.mark.parametrize(
    ("take_profit", "stop", "expected"),
    [
        # Touched by Tuesday's high, after the entry at its open.
        (103.5, 90, {"take_profit": ("filled", "103.5"), "stop_loss": ("canceled", None)}),
        # Touched by Wednesday's high of 106.
        (105.5, 97, {"take_profit": ("filled", "105.5"), "stop_loss": ("canceled", None)}),
        # Touched by Wednesday's low of 98.
        (120, 99, {"take_profit": ("canceled", None), "stop_loss": ("filled", "99")}),
        # Wednesday touches both: the loss is taken to have come first.
        (105.5, 99, {"take_profit": ("canceled", None), "stop_loss": ("filled", "99")}),
        # Thursday opens at 106, beyond the limit.
        (106, 90, {"take_profit": ("filled", "106"), "stop_loss": ("canceled", None)}),
    ],
)
def test_one_leg_fills_and_the_other_is_cancelled(
    week: Served, take_profit: float, stop: float, expected: dict[str, Any]
) -> None:
    bracket(week, take_profit, stop, client_order_id="a")
    week.at("2024-03-08 18:00")
    assert group(week, "a") == {"entry": ("filled", "102"), **expected}
    assert week.trading.get_all_positions() == []
    assert week.trading.get_orders() == []


def test_a_short_bracket_closes_by_buying(week: Served) -> None:
    bracket(week, 98.5, 120, side="sell", client_order_id="a")
    week.at("2024-03-05 09:30")
    position = week.get("/v2/positions/ABC")
    assert (position["qty"], position["qty_available"]) == ("-10", "0")
    week.at("2024-03-06 16:00")
    assert group(week, "a")["take_profit"] == ("filled", "98.5")
    assert week.trading.get_all_positions() == []


def test_legs_of_an_entry_that_filled_within_the_session_see_its_close_only(week: Served) -> None:
    """The entry's limit was touched at the low; that the high of 104 came later is not known."""
    limit = {"type": "limit", "limit_price": "101.5"}
    bracket(week, 103.5, 99, client_order_id="not-at-the-close", **limit)
    bracket(week, 102.5, 99, client_order_id="at-the-close", **limit)
    week.at("2024-03-05 16:00")
    assert group(week, "not-at-the-close") == {
        "entry": ("filled", "101.5"),
        "take_profit": ("new", None),
        "stop_loss": ("new", None),
    }
    assert group(week, "at-the-close")["take_profit"] == ("filled", "103")
    # The next session is seen whole: it opens at 104.
    week.at("2024-03-06 09:30")
    assert group(week, "not-at-the-close")["take_profit"] == ("filled", "104")


def test_an_entry_of_the_session_fills_at_its_close_and_its_legs_wait(week: Served) -> None:
    week.at("2024-03-05 12:00")
    bracket(week, 105.5, 101.5, client_order_id="gtc")
    bracket(week, 105.5, 101.5, client_order_id="day", time_in_force="day")
    week.at("2024-03-05 16:00")
    assert {role: status for role, (status, _) in group(week, "gtc").items()} == {
        "entry": "filled",
        "take_profit": "new",
        "stop_loss": "new",
    }
    # Orders for the day end with it, also where the entry filled at the last moment.
    assert {status for status, _ in group(week, "day").values()} == {"filled", "expired"}
    week.at("2024-03-06 16:00")
    assert group(week, "gtc")["stop_loss"] == ("filled", "101.5")


def test_a_leg_that_fills_in_part_leaves_the_other_the_rest(week: Served) -> None:
    """1,000 shares a session can be had: the entry takes a session and a half, the exit as well."""
    bracket(week, 105.5, 97, 1_500, client_order_id="a")
    week.at("2024-03-05 18:00")
    assert group(week, "a")["entry"] == ("partially_filled", "102")
    assert {group(week, "a")[leg][0] for leg in ("take_profit", "stop_loss")} == {"held"}
    week.at("2024-03-06 16:00")
    entry = week.get("/v2/orders:by_client_order_id", client_order_id="a", nested="true")
    profit, loss = entry["legs"]
    assert (profit["status"], profit["filled_qty"], profit["qty"]) == (
        "partially_filled",
        "500",
        "1500",
    )
    assert (loss["status"], loss["qty"]) == ("new", "1000")
    assert week.get("/v2/positions/ABC")["qty_available"] == "0"
    week.at("2024-03-07 09:30")
    assert group(week, "a")["take_profit"][0] == "filled"
    assert group(week, "a")["stop_loss"][0] == "canceled"
    assert week.trading.get_all_positions() == []


@pytest.mark.parametrize("which", ["entry", "take_profit", "stop_loss"])
def test_cancelling_one_order_of_a_bracket_ends_what_is_open_of_it(
    week: Served, which: str
) -> None:
    bracket(week, 120, 80, client_order_id="waiting", type="limit", limit_price="90")
    bracket(week, 60, 40, client_order_id="filled", symbol="XYZ")
    week.at("2024-03-05 10:00")
    for name in ("waiting", "filled"):
        entry = week.get("/v2/orders:by_client_order_id", client_order_id=name, nested="true")
        order = next(row for row in [entry, *entry["legs"]] if row["group_role"] == which)
        if order["status"] == "filled":
            with pytest.raises(APIError, match="already in"):
                week.trading.cancel_order_by_id(order["id"])
            assert {group(week, name)[leg][0] for leg in ("take_profit", "stop_loss")} == {"new"}
            continue
        week.trading.cancel_order_by_id(order["id"])
        statuses = {status for status, _ in group(week, name).values()}
        assert statuses == ({"canceled"} if name == "waiting" else {"filled", "canceled"})
    assert week.get("/v2/positions/XYZ")["qty"] == "10"


def test_cancelling_everything_ends_brackets_too(week: Served) -> None:
    bracket(week, 120, 80, client_order_id="a", type="limit", limit_price="90")
    week.submit("XYZ", "buy", 1)
    assert len(week.trading.cancel_orders()) == 4
    assert {status for status, _ in group(week, "a").values()} == {"canceled"}


def test_a_bracket_for_the_day_expires_whole(week: Served) -> None:
    bracket(week, 120, 80, client_order_id="missed", type="limit", limit_price="90",
            time_in_force="day")  # fmt: skip
    bracket(week, 120, 80, client_order_id="open", time_in_force="day")
    week.at("2024-03-05 16:00")
    assert {status for status, _ in group(week, "missed").values()} == {"expired"}
    assert [status for status, _ in group(week, "open").values()] == [
        "filled",
        "expired",
        "expired",
    ]


def test_an_entry_that_ends_in_part_leaves_no_legs(week: Served) -> None:
    bracket(week, 120, 80, 1_500, client_order_id="a", time_in_force="day")
    week.at("2024-03-05 16:00")
    assert {status for status, _ in group(week, "a").values()} == {"expired"}
    assert week.get("/v2/positions/ABC")["qty_available"] == "1000"


def test_a_pair_of_legs_holds_its_shares_once_and_no_buying_power(week: Served) -> None:
    week.submit("ABC", "buy", 5)
    before = Decimal(week.get("/v2/account")["buying_power"])
    bracket(week, 120, 80, client_order_id="a", type="limit", limit_price="101")
    assert Decimal(week.get("/v2/account")["buying_power"]) == before - 1010
    week.at("2024-03-05 09:30")
    # The entry has not filled: its legs hold nothing of the five shares.
    assert week.get("/v2/positions/ABC")["qty_available"] == "5"
    week.at("2024-03-05 16:00")
    position = week.get("/v2/positions/ABC")
    assert (position["qty"], position["qty_available"]) == ("15", "5")
    with pytest.raises(APIError, match="requested: 6, available: 5") as caught:
        week.submit("ABC", "sell", 6)
    assert '"held_for_orders":"10"' in str(caught.value).replace(" ", "").replace("\\", "")
    week.submit("ABC", "sell", 5)


def test_a_bracket_is_a_complex_order_that_no_wash_trade_stops(week: Served) -> None:
    week.submit("ABC", "buy", 10)
    week.at("2024-03-05 09:30")
    week.submit("ABC", "sell", 10, type="limit", limit_price="110", time_in_force="gtc")
    with pytest.raises(APIError, match="wash trade"):
        week.submit("ABC", "buy", 10)
    bracket(week, 120, 80, client_order_id="a", type="limit", limit_price="100")
    # Its held legs are not in the market: another purchase does not meet them.
    week.submit("ABC", "buy", 1, type="limit", limit_price="99")
    with pytest.raises(APIError, match="bracket orders must be entry orders"):
        bracket(week, 80, 120, side="sell")


def test_live_legs_are_orders_on_the_other_side(week: Served) -> None:
    bracket(week, 120, 80, client_order_id="a")
    week.at("2024-03-05 09:30")
    with pytest.raises(APIError, match="wash trade"):
        week.submit("ABC", "buy", 1, type="limit", limit_price="100")
    bracket(week, 120, 80, client_order_id="b")
    week.at("2024-03-05 16:00")
    position = week.get("/v2/positions/ABC")
    assert (position["qty"], position["qty_available"]) == ("20", "0")


@pytest.mark.parametrize(
    ("take_profit", "stop", "more", "words"),
    [
        (90, 120, {}, "take_profit.limit_price must be > stop_loss.stop_price"),
        (120, 90, {"side": "sell"}, "take_profit.limit_price must be < stop_loss.stop_price"),
        (100.02, 90, {}, "take_profit.limit_price must be >= base_price + 0.01"),
        (120, 100.02, {}, "stop_loss.stop_price must be <= base_price - 0.01"),
        (90, 99.98, {"side": "sell"}, "stop_loss.stop_price must be >= base_price + 0.01"),
        (99.98, 120, {"side": "sell"}, "take_profit.limit_price must be <= base_price - 0.01"),
        (
            95.0,
            90,
            {"type": "limit", "limit_price": 95},
            "take_profit.limit_price must be >= base_price + 0.01",
        ),
        (120, 90, {"time_in_force": "cls"}, "must be DAY or GTC"),
        (120, 90, {"type": "stop", "stop_price": 110}, "must be market or limit orders"),
        (120, 90, {"qty": "1.5", "time_in_force": "day"}, "must be simple orders"),
        (120, 90, {"take_profit": None}, "require take_profit.limit_price"),
        (120, 90, {"stop_loss": {}}, "require stop_loss.stop_price"),
        (120.001, 90, {}, "invalid take_profit.limit_price 120.001. sub-penny"),
        (120, 90, {"stop_loss": "90"}, "request body format is invalid"),
        (120, 90, {"order_class": "oco"}, "order_class oco is not offered"),
        (120, 90, {"order_class": "simple"}, "need order_class bracket"),
    ],
)
def test_what_is_refused_of_brackets_and_in_which_words(
    unchanged_week: Served, take_profit: float, stop: float, more: dict[str, Any], words: str
) -> None:
    """The last price is 100, bid and ask are 99.98 and 100.02."""
    with pytest.raises(APIError) as caught:
        bracket(unchanged_week, take_profit, stop, **more)
    assert words in caught.value.message
    assert caught.value.status_code == 422
    assert unchanged_week.trading.get_orders() == []


def test_lists_roll_legs_up_under_their_entry_or_show_every_order(week: Served) -> None:
    """As at Alpaca, a nested list of open orders loses the legs of an entry that has filled."""
    placed = bracket(week, 120, 80, client_order_id="a")
    week.submit("XYZ", "buy", 1, client_order_id="b")
    legs = [leg["client_order_id"] for leg in placed["legs"]]

    def nested(**filters: Any) -> list[tuple[str, int]]:
        found = week.trading.get_orders(GetOrdersRequest(nested=True, **filters))
        return [(order.client_order_id, len(order.legs or [])) for order in found]

    def flat(status: str) -> list[str]:
        rows = week.get("/v2/orders", status=status, direction="asc")
        assert all(row["legs"] is None for row in rows)
        return [row["client_order_id"] for row in rows]

    assert nested(direction="asc") == [("a", 2), ("b", 0)]
    assert nested(limit=1) == [("b", 0)]
    assert nested(side=OrderSide.SELL) == []
    assert flat("open") == ["a", "b"]
    assert set(flat("all")) == {"a", "b", *legs}
    assert flat("closed") == []
    week.at("2024-03-05 10:00")
    assert nested() == []
    assert nested(status="all", direction="asc") == [("a", 2), ("b", 0)]
    assert set(flat("open")) == set(legs)
    assert flat("closed") == ["a", "b"]
    week.trading.cancel_orders()
    assert flat("open") == []
    by_id = week.get(f"/v2/orders/{placed['id']}", nested="true")
    assert [leg["status"] for leg in by_id["legs"]] == ["canceled", "canceled"]
    assert week.get(f"/v2/orders/{placed['id']}")["legs"] is None
    rows = week.get("/v2/orders", status="all", direction="asc")
    grouped = [row.get("group_id") for row in rows]
    assert [row.get("group_role") for row in rows] == ["entry", "stop_loss", "take_profit", None]
    assert len(set(grouped[:3])) == 1
    assert grouped[3] is None


def test_brackets_outlive_the_server(week: Served, serve: Callable[..., Served]) -> None:
    bracket(week, 105.5, 99, client_order_id="a")
    week.at("2024-03-05 16:00")
    before = week.get("/v2/orders", status="all", nested="true")
    again = serve(folder=week.folder)
    assert again.get("/v2/orders", status="all", nested="true") == before
    again.at("2024-03-06 16:00")
    assert group(again, "a")["stop_loss"] == ("filled", "99")


def test_a_corporate_action_ends_the_legs_on_its_symbol(history: Callable[..., Served]) -> None:
    bars = [
        ("ABC", f"2024-03-0{day}", price, price, price, price, 10_000)
        for day, price in ((4, 100.0), (5, 100.0), (6, 50.0), (7, 50.0))
    ]
    split = {
        "symbol": "ABC",
        "ex_date": "2024-03-06",
        "action_type": "forward_split",
        "ratio": 2.0,
        "cash": None,
        "new_symbol": None,
    }
    served = history(bars, [split])
    served.at("2024-03-05 09:00")
    bracket(served, 120, 80, client_order_id="a")
    served.at("2024-03-06 00:00")
    assert [status for status, _ in group(served, "a").values()] == [
        "filled",
        "canceled",
        "canceled",
    ]
    assert served.get("/v2/positions/ABC")["qty_available"] == "20"
