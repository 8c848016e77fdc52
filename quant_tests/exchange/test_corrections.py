"""Busts and corrections: what was reported of a fill is taken back, and everything follows."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from quant_resources.errors import ExchangeError
from quant_tests.exchange.served import Served
from quant_tests.exchange.test_brackets import bracket, group
from quant_tests.exchange.test_holdings import action, flat


def fills(served: Served) -> list[dict[str, Any]]:
    return served.get("/v2/account/activities/FILL", direction="asc")


@pytest.fixture
def traded(week: Served) -> Served:
    """10 ABC bought at 102 and 10 at 104, then 5 sold at 106; Thursday at 10:00."""
    for day, side, qty in (("05", "buy", 10), ("06", "buy", 10), ("07", "sell", 5)):
        week.at(f"2024-03-{day} 09:00")
        week.submit("ABC", side, qty, client_order_id=day)
    week.at("2024-03-07 10:00")
    return week


def test_a_bust_takes_a_fill_back_as_if_it_had_never_been(traded: Served) -> None:
    first = fills(traded)[0]
    before = traded.get("/v2/account")
    report = traded.control.bust(first["id"])
    assert report == fills(traded)[-1]
    assert (report["type"], report["previous_execution_id"]) == ("trade_bust", first["id"])
    assert (report["qty"], report["price"]) == (first["qty"], first["price"])
    assert fills(traded)[0] == first
    order = traded.order("05")
    assert (order["status"], order["filled_qty"], order["filled_avg_price"]) == (
        "filled",
        "0",
        None,
    )
    position = traded.get("/v2/positions/ABC")
    # Without the first purchase: 10 at 104, of which 5 were sold.
    assert (position["qty"], position["avg_entry_price"]) == ("5", "104")
    assert Decimal(traded.get("/v2/account")["cash"]) == Decimal(before["cash"]) + 1020
    (event,) = (e for e in traded.control.audit() if e["event"] == "bust")
    assert event["execution_id"] == report["id"]
    assert (event["client_order_id"], event["previous_quantity"]) == ("05", "10")


def test_a_correction_is_of_shares_or_price_and_the_newest_one_counts(traded: Served) -> None:
    cash = Decimal(traded.get("/v2/account")["cash"])
    first = fills(traded)[0]
    report = traded.control.correct(first["id"], price=Decimal("103.5"))
    assert (report["type"], report["qty"], report["price"]) == ("trade_correct", "10", "103.5")
    position = traded.get("/v2/positions/ABC")
    assert (position["qty"], position["avg_entry_price"]) == ("15", "103.75")
    assert traded.order("05")["filled_avg_price"] == "103.5"
    # By the id of the correction as well as of the fill.
    again = traded.control.correct(report["id"], quantity=Decimal(6))
    assert (again["qty"], again["price"]) == ("6", "103.5")
    assert again["previous_execution_id"] == first["id"]
    assert traded.order("05")["filled_qty"] == "6"
    assert traded.get("/v2/positions/ABC")["qty"] == "11"
    assert Decimal(traded.get("/v2/account")["cash"]) == cash + 1020 - 621
    traded.control.bust(first["id"])
    assert traded.get("/v2/positions/ABC")["qty"] == "5"
    assert Decimal(traded.get("/v2/account")["cash"]) == cash + 1020


def test_busting_every_fill_leaves_nothing(traded: Served) -> None:
    for fill in fills(traded):
        traded.control.bust(fill["id"])
    assert traded.trading.get_all_positions() == []
    assert traded.get("/v2/account")["equity"] == "1000000"


def test_busting_a_purchase_that_was_sold_leaves_a_short_position(week: Served) -> None:
    week.submit("ABC", "buy", 10)
    week.at("2024-03-05 10:00")
    week.submit("ABC", "sell", 10)
    week.at("2024-03-05 16:00")
    week.control.bust(fills(week)[0]["id"])
    position = week.get("/v2/positions/ABC")
    assert (position["qty"], position["avg_entry_price"]) == ("-10", "103")


def test_an_open_order_wants_again_what_it_lost(week: Served) -> None:
    week.submit("ABC", "buy", 1_500, time_in_force="gtc", client_order_id="a")
    week.at("2024-03-05 16:00")
    week.control.bust(fills(week)[0]["id"])
    assert week.order("a")["status"] == "new"
    week.at("2024-03-08 16:00")
    assert (week.order("a")["status"], week.order("a")["filled_qty"]) == ("filled", "1500")
    assert week.get("/v2/positions/ABC")["qty"] == "1500"


def test_legs_do_not_protect_what_a_bust_took_away(week: Served) -> None:
    bracket(week, 120, 80, client_order_id="a")
    week.at("2024-03-05 16:00")
    week.control.bust(fills(week)[0]["id"])
    assert {group(week, "a")[leg][0] for leg in ("take_profit", "stop_loss")} == {"canceled"}
    assert week.trading.get_all_positions() == []


def test_a_bust_leaves_other_holdings_and_what_became_of_them_alone(
    history: Callable[..., Served],
) -> None:
    """A split, a rename and a merger lie between the fills and the bust."""
    days = ["04", "05", "06", "07", "08"]
    bars = [
        *flat("ABC", 100.0, days, {"06": 50.0}),
        *flat("OLD", 10.0, days[:3]),
        *flat("NEW", 10.0, days[3:]),
        *flat("TAKE", 30.0, days[:3]),
    ]
    actions = [
        action("forward_split", "ABC", "06", ratio=2.0),
        action("name_change", "OLD", "07", new_symbol="NEW"),
        action("cash_merger", "TAKE", "07", cash=33.0),
    ]
    served = history(bars, actions)
    served.at("2024-03-04 17:00")
    for symbol in ("ABC", "OLD", "TAKE"):
        served.submit(symbol, "buy", 100)
    served.at("2024-03-07 10:00")
    (renamed,) = served.get("/v2/account/activities/NC")
    assert (renamed["old_symbol"], renamed["symbol"]) == ("OLD", "NEW")
    served.submit("NEW", "buy", 7)
    served.at("2024-03-07 16:00")
    served.control.bust(fills(served)[-1]["id"])
    positions = {p.symbol: (p.qty, p.avg_entry_price) for p in served.trading.get_all_positions()}
    assert positions == {"ABC": ("200", "50"), "NEW": ("100", "10")}
    old = next(fill for fill in fills(served) if fill["symbol"] == "OLD")
    served.control.correct(old["id"], price=Decimal(11))
    positions = {p.symbol: (p.qty, p.avg_entry_price) for p in served.trading.get_all_positions()}
    assert positions == {"ABC": ("200", "50"), "NEW": ("100", "11")}


def test_corrections_outlive_the_server(traded: Served, serve: Callable[..., Served]) -> None:
    first = fills(traded)[0]
    traded.control.correct(first["id"], price=Decimal(103))
    again = serve(folder=traded.folder)
    again.control.correct(first["id"], price=Decimal(104))
    assert again.get("/v2/positions/ABC")["avg_entry_price"] == "104"


def test_what_is_no_correction_changes_nothing(traded: Served) -> None:
    first = fills(traded)[0]["id"]
    traded.control.bust(fills(traded)[1]["id"])
    before = (traded.get("/v2/account"), traded.control.audit(), fills(traded))
    for words, attempt in {
        "execution not found for none": lambda: traded.control.bust("none"),
        "is busted already": lambda: traded.control.bust(fills(traded)[1]["id"]),
        "is not changed": lambda: traded.control.correct(first, quantity=Decimal(10)),
        "would have 11 of 10 filled": lambda: traded.control.correct(first, quantity=Decimal(11)),
        "names a quantity or a price": lambda: traded.control.correct(first),
        "greater than 0": lambda: traded.control.correct(first, price=Decimal(0)),
        "finite": lambda: traded.control.correct(first, price=Decimal("NaN")),
    }.items():
        with pytest.raises(ExchangeError, match=words):
            attempt()
    assert (traded.get("/v2/account"), traded.control.audit(), fills(traded)) == before
