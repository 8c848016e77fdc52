"""How orders and quotes are read: lists by status, time and symbol; older states of the exchange."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.requests import StockLatestQuoteRequest
from alpaca.trading.requests import GetOrdersRequest

from quant_resources.exchange.state import State
from quant_tests.exchange.served import WEEK, Served, new_york

# What the table of orders had before brackets, stops and replacements.
_OLDER_COLUMNS = [
    "sequence",
    "order_id",
    "client_order_id",
    "symbol",
    "side",
    "order_type",
    "time_in_force",
    "quantity",
    "notional",
    "limit_price",
    "position_intent",
    "status",
    "eligible_session",
    "submitted_at",
    "updated_at",
    "expires_at",
    "filled_quantity",
    "filled_value",
    "filled_at",
    "canceled_at",
    "expired_at",
]


def test_lists_of_orders(week: Served) -> None:
    for number in range(6):
        week.submit("ABC" if number % 2 else "XYZ", "buy", 1, client_order_id=f"n{number}")
    week.trading.cancel_order_by_id(week.order("n5")["id"])

    def ids(**filters: Any) -> list[str]:
        found = week.trading.get_orders(GetOrdersRequest(**filters))
        return [order.client_order_id for order in found]

    assert ids() == ["n4", "n3", "n2", "n1", "n0"]
    assert ids(status="all", direction="asc") == ["n0", "n1", "n2", "n3", "n4", "n5"]
    assert ids(status="closed") == ["n5"]
    assert ids(symbols=["ABC"]) == ["n3", "n1"]
    assert ids(limit=2, direction="asc") == ["n0", "n1"]
    second = week.trading.get_order_by_client_id("n1").submitted_at
    assert ids(after=second, direction="asc") == ["n2", "n3", "n4"]
    assert ids(until=second) == ["n0"]
    between = second + timedelta(microseconds=1)
    assert ids(after=second - timedelta(microseconds=1), until=between, direction="asc") == ["n1"]
    assert ids(after=new_york("2024-03-05 09:01")) == []
    assert ids(until=new_york("2024-03-05 08:59")) == []


def test_a_quote_is_half_a_spread_around_the_last_price(history: Callable[..., Served]) -> None:
    penny = [("PNY", "2024-03-04", 0.5, 0.5, 0.5, 0.5, 1_000_000)]
    served = history([*WEEK, *penny], half_spread_bps=5)
    served.at("2024-03-05 09:00")
    client = StockHistoricalDataClient("k", "s", url_override=served.url)
    request = StockLatestQuoteRequest(symbol_or_symbols=["ABC", "PNY", "NONE"])
    quotes = client.get_stock_latest_quote(request)
    assert set(quotes) == {"ABC", "PNY"}
    abc, pny = quotes["ABC"], quotes["PNY"]
    assert (abc.bid_price, abc.ask_price) == (99.95, 100.05)
    assert abc.bid_size > 0 < abc.ask_size
    assert abc.timestamp == new_york("2024-03-04 16:00")
    # Below one dollar quotes have four decimals.
    assert (pny.bid_price, pny.ask_price) == (0.4997, 0.5003)
    served.at("2024-03-05 11:00")
    abc = client.get_stock_latest_quote(request)["ABC"]
    assert (abc.bid_price, abc.ask_price, abc.timestamp) == (
        101.94,
        102.06,
        new_york("2024-03-05 11:00"),
    )


def test_a_state_of_an_older_version_opens_and_goes_on(
    week: Served, serve: Callable[..., Served]
) -> None:
    week.submit("ABC", "buy", 10, client_order_id="waits", time_in_force="gtc")
    week.submit("XYZ", "buy", 5, client_order_id="done")
    week.trading.cancel_order_by_id(week.order("done")["id"])
    kept = week.get("/v2/orders", status="all")
    week.exchange.state.close()
    with sqlite3.connect(week.folder / State.FILE) as older:
        columns = ", ".join(_OLDER_COLUMNS)
        older.executescript(
            f"DROP INDEX orders_by_parent; DROP INDEX orders_by_status; "  # noqa: S608 - own names
            f"PRAGMA foreign_keys = OFF; CREATE TABLE kept AS SELECT {columns} FROM orders; "
            "DROP TABLE orders; CREATE TABLE orders (sequence INTEGER PRIMARY KEY AUTOINCREMENT, "
            f"{', '.join(f'{name} TEXT' for name in _OLDER_COLUMNS[1:])}, "
            "UNIQUE (order_id), UNIQUE (client_order_id)); "
            f"INSERT INTO orders ({columns}) SELECT {columns} FROM kept; DROP TABLE kept;"
        )
    older.close()
    again = serve(folder=week.folder)
    assert again.get("/v2/orders", status="all") == kept
    again.submit(
        "XYZ", "buy", 5, client_order_id="new", order_class="bracket",
        take_profit={"limit_price": 60}, stop_loss={"stop_price": 40},
    )  # fmt: skip
    again.at("2024-03-05 10:00")
    assert again.order("waits")["status"] == "filled"
    assert len(again.get("/v2/orders")) == 2
