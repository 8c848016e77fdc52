"""Restating what the exchange has published: served at once and for good, never traded on again."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import requests

from quant_resources.alpaca_bars import AlpacaBars
from quant_resources.errors import ExchangeError
from quant_resources.exchange.process import (
    ExchangeControl,
    MarketSpec,
    create_state,
    ensure_exchange,
    stop_exchange,
)
from quant_tests.exchange.served import WEEK, Served, Server, new_york, write_history

MONDAY, TUESDAY, WEDNESDAY = date(2024, 3, 4), date(2024, 3, 5), date(2024, 3, 6)
SPLIT = {"symbol": "XYZ", "ex_date": "2024-03-06", "action_type": "forward_split", "ratio": 2.0}


def closes(url: str, symbols: str = "ABC,XYZ", limit: int = 1000) -> dict[str, dict[str, float]]:
    """Closes by symbol and day, read page by page as the market data API serves them."""
    found: dict[str, dict[str, float]] = {}
    query = {"symbols": symbols, "timeframe": "1Day", "start": "2024-03-01", "limit": limit}
    keys = {"APCA-API-KEY-ID": "k", "APCA-API-SECRET-KEY": "s"}
    while True:
        page = requests.get(f"{url}/v2/stocks/bars", query, headers=keys, timeout=5).json()
        for symbol, bars in page["bars"].items():
            found.setdefault(symbol, {}).update({bar["t"][:10]: bar["c"] for bar in bars})
        if page["next_page_token"] is None:
            return found
        query["page_token"] = page["next_page_token"]


def reader(url: str) -> AlpacaBars:
    return AlpacaBars(url, url, "k", "s", requests_per_minute=None, backoff=())


def test_a_restated_bar_is_served_from_then_on_and_nothing_else_changes(week: Served) -> None:
    week.at("2024-03-08 09:00")
    before = reader(week.url).bars(None, MONDAY, WEDNESDAY).drop("observed_at")
    done = week.control.restate("ABC", TUESDAY, close=12.34, volume=7)
    assert (done["was"][0]["c"], done["is"][0]["c"], done["sequence"]) == (103.0, 12.34, 1)
    after = reader(week.url).bars(None, MONDAY, WEDNESDAY).drop("observed_at")
    its_bar = (pl.col("symbol") == "ABC") & (pl.col("session") == TUESDAY)
    assert after.filter(~its_bar).equals(before.filter(~its_bar))
    values = ["open", "high", "low", "close", "volume"]
    assert after.filter(its_bar).select(values).row(0) == (102.0, 104.0, 101.0, 12.34, 7.0)
    # Only what differs is named; every other day's page is the same bytes.
    assert week.control.restatements() == [done]


def test_the_exchange_keeps_the_prices_at_which_it_traded(week: Served) -> None:
    """A holder's shares, cash and valuation do not move when a vendor corrects a number."""
    week.submit("ABC", "buy", 10, client_order_id="a")
    week.at("2024-03-06 09:00")
    assert week.order("a")["filled_avg_price"] == "102"
    account = week.get("/v2/account")
    week.control.restate("ABC", TUESDAY, open=1, high=2, low=0.5, close=1.5)
    assert week.order("a")["filled_avg_price"] == "102"
    assert week.get("/v2/account") == account
    assert week.get("/v2/positions/ABC")["current_price"] == "103"
    # The vendor's own answers are the restated ones.
    bars = week.get("/v2/stocks/bars/latest", symbols="ABC")["bars"]
    assert (bars["ABC"]["o"], bars["ABC"]["c"]) == (1, 1.5)
    assert week.get("/v2/stocks/trades/latest", symbols="ABC")["trades"]["ABC"]["p"] == 1.5
    quote = week.get("/v2/stocks/quotes/latest", symbols="ABC")["quotes"]["ABC"]
    assert (quote["bp"], quote["ap"]) == (1.5, 1.5)
    assert week.get("/v2/stocks/snapshots", symbols="ABC")["ABC"]["dailyBar"]["c"] == 1.5
    # An order of today fills at the market's price.
    week.submit("ABC", "buy", 10, client_order_id="b")
    week.at("2024-03-06 10:00")
    assert week.order("b")["filled_avg_price"] == "104"
    assert week.get("/v2/stocks/trades/latest", symbols="ABC")["trades"]["ABC"]["p"] == 104


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_withdrawn_and_late_bars_leave_pages_whole(week: Served, limit: int) -> None:
    """Rows move: no page may lose or repeat one, whatever its size."""
    week.at("2024-03-09 09:00")
    whole = closes(week.url)
    week.control.withdraw("ABC", TUESDAY)
    week.control.withdraw("XYZ", date(2024, 3, 8))
    del whole["ABC"]["2024-03-05"], whole["XYZ"]["2024-03-08"]
    assert closes(week.url, limit=limit) == whole
    week.control.add_bar("ABC", TUESDAY, open=1, high=1, low=1, close=1.25, volume=1)
    whole["ABC"]["2024-03-05"] = 1.25
    assert closes(week.url, limit=limit) == whole
    with pytest.raises(ExchangeError, match="ABC has a bar of session 2024-03-05 already"):
        week.control.add_bar("ABC", TUESDAY, open=1, high=1, low=1, close=1, volume=1)
    for day in (4, 5, 6, 7, 8):
        week.control.withdraw("ABC", date(2024, 3, day))
    del whole["ABC"]
    assert closes(week.url, limit=limit) == whole
    week.control.add_bar("ABC", MONDAY, open=1, high=1, low=1, close=2.5, volume=1)
    assert closes(week.url, limit=limit) == {"ABC": {"2024-03-04": 2.5}, **whole}


def test_errors_of_a_vendor_may_be_absurd_but_must_be_numbers(week: Served) -> None:
    for close in (-5, 0, 1e9, 0.0001, None):
        week.control.restate("ABC", MONDAY, close=close)
        assert closes(week.url)["ABC"]["2024-03-04"] == close
        week.get("/v2/stocks/quotes/latest", symbols="ABC")
    wrong: list[tuple[Any, str]] = [
        ('{"symbol": "ABC", "session": "2024-03-04", "values": {"close": NaN}}', "finite number"),
        ('{"symbol": "ABC", "session": "2024-03-04", "values": {"close": 1e999}}', "finite number"),
        ('{"symbol": "ABC", "session": "2024-03-04", "values": {"close": "12"}}', "valid number"),
        ('{"symbol": "ABC", "session": "2024-03-04", "values": {"close": true}}', "valid number"),
        (
            '{"symbol": "ABC", "session": "2024-03-04", "values": {"clsoe": 1}}',
            "clsoe.*not permitted",
        ),
        ('{"symbol": "ABC", "session": "2024-03-04", "values": {}}', "names no field"),
        ('{"symbol": "ABC", "session": "2024-03-04"}', "exactly one of values, add, withdraw"),
        ('{"symbol": "ABC", "session": "yesterday", "withdraw": true}', "session:.*date"),
        ('{"symbol": "ABC", "session": "2024-03-04", "add": {"open": 1}}', "volume is missing"),
        ('["ABC"]', "dictionary"),
        ("not json", "format is invalid"),
    ]
    for body, words in wrong:
        answer = requests.post(f"{week.url}/exchange/restatements", body, timeout=5)
        assert answer.status_code == 422, body
        assert re.search(words, answer.json()["message"]), answer.text


def test_only_the_past_of_known_symbols_can_be_restated(week: Served) -> None:
    for symbol, session, words in (
        ("NOPE", MONDAY, "knows no symbol NOPE"),
        ("../x", MONDAY, "knows no symbol"),
        ("ABC", TUESDAY, "2024-03-05 has not closed by the exchange's clock"),
        ("ABC", date(2024, 3, 3), "2024-03-03 is no session of this market"),
        ("ABC", date(2024, 3, 1), r"no session of this market \(2024-03-04 to 2024-03-08\)"),
    ):
        with pytest.raises(ExchangeError, match=words):
            week.control.restate(symbol, session, close=1.0)
    assert week.control.restatements() == []
    week.at("2024-03-05 16:00")
    # It has closed, and its bar is seen from midnight on, restated from the beginning.
    week.control.restate("ABC", TUESDAY, close=12.34)
    assert closes(week.url)["ABC"] == {"2024-03-04": 100.0}
    week.at("2024-03-06 00:00")
    assert closes(week.url)["ABC"] == {"2024-03-04": 100.0, "2024-03-05": 12.34}


def test_late_withdrawn_and_restated_corporate_actions(history: Callable[..., Served]) -> None:
    served = history(WEEK, [SPLIT])
    served.at("2024-03-05 09:00")
    served.submit("XYZ", "buy", 10, client_order_id="x")
    with pytest.raises(ExchangeError, match="ex_date 2024-03-06 lies ahead"):
        served.control.add_action(
            action_type="cash_dividend", symbol="ABC", ex_date=WEDNESDAY, cash="1"
        )
    served.at("2024-03-07 09:00")
    held = served.get("/v2/positions")
    source = reader(served.url)
    (split,) = source.corporate_actions(MONDAY, date(2024, 3, 6)).to_dicts()
    assert (split["action_type"], split["ratio"]) == ("forward_split", 2.0)

    changed = served.control.restate_action(split["action_id"], ratio="3/2")
    assert changed["id"] == split["action_id"]
    served.control.add_action(
        action_type="cash_dividend", symbol="ABC", ex_date=TUESDAY, cash="0.25"
    )
    found = source.corporate_actions(MONDAY, date(2024, 3, 6))
    assert found.select("session", "symbol", "ratio", "cash").rows() == [
        (TUESDAY, "ABC", None, 0.25),
        (WEDNESDAY, "XYZ", 1.5, None),
    ]
    served.control.withdraw_action(split["action_id"])
    assert source.corporate_actions(WEDNESDAY, WEDNESDAY).is_empty()
    # Holders keep the shares that the exchange gave them and get no dividend for a day that is over.
    assert served.get("/v2/positions") == held
    assert not [a for a in served.get("/v2/account/activities") if a["activity_type"] == "DIV"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"action_id": "nobody", "withdraw": True}, "no corporate action nobody"),
        ({"withdraw": True}, "need action_id"),
        ({"action": {"action_type": "gift", "symbol": "ABC", "ex_date": "2024-03-04"}}, "one of"),
        (
            {"action": {"action_type": "forward_split", "symbol": "ABC", "ex_date": "2024-03-04"}},
            "ratio is missing",
        ),
        (
            {
                "action": {
                    "action_type": "forward_split",
                    "symbol": "ABC",
                    "ex_date": "2024-03-04",
                    "ratio": "1/0",
                }
            },
            "is no ratio",
        ),
        (
            {
                "action": {
                    "action_type": "cash_dividend",
                    "symbol": "NOPE",
                    "ex_date": "2024-03-04",
                    "cash": 1,
                }
            },
            "knows no symbol NOPE",
        ),
    ],
)
def test_a_wrong_action_is_refused_in_a_sentence(
    unchanged_week: Served, body: dict[str, Any], words: str
) -> None:
    answer = requests.post(f"{unchanged_week.url}/exchange/restatements", json=body, timeout=5)
    assert answer.status_code in {404, 422}
    assert words in answer.json()["message"]


def test_a_new_server_publishes_the_same(
    tmp_path: Path, ending: list[Server], week: Served
) -> None:
    """Restatements are durable: killed at any moment, the next server serves what this one did."""
    week.at("2024-03-07 09:00")
    week.control.restate("ABC", TUESDAY, close=12.34)
    week.control.withdraw("ABC", MONDAY)
    week.control.add_action(action_type="cash_dividend", symbol="ABC", ex_date=TUESDAY, cash="0.25")
    week.control.restate("ABC", TUESDAY, close=12.5)
    other = Server(week.folder)
    ending.append(other)
    try:
        assert closes(other.url) == closes(week.url)
        assert closes(other.url)["ABC"]["2024-03-05"] == 12.5
        mine = reader(week.url).corporate_actions(MONDAY, WEDNESDAY).drop("observed_at")
        assert (
            reader(other.url).corporate_actions(MONDAY, WEDNESDAY).drop("observed_at").equals(mine)
        )
        assert ExchangeControl(other.url).restatements() == week.control.restatements()
    finally:
        other.stop()
    kinds = [entry["event"] for entry in week.control.audit()]
    assert kinds.count("restatement") == 4


def test_a_state_of_an_older_version_gets_what_it_lacks(tmp_path: Path) -> None:
    """A data root made before restatements and faults existed goes on."""
    folder = write_history(tmp_path / "history", WEEK)
    create_state(tmp_path / "state", MarketSpec(kind="history", folder=folder))
    with sqlite3.connect(tmp_path / "state" / "exchange.sqlite") as connection:
        connection.execute("DROP TABLE restatements")
    connection.close()
    try:
        control = ExchangeControl(ensure_exchange(tmp_path / "state").url)
        control.advance(new_york("2024-03-06 09:00"))
        assert control.restate("ABC", MONDAY, close=1)["is"][0]["c"] == 1
        assert json.dumps(control.faults()) == '{"seed": 0, "rules": []}'
    finally:
        stop_exchange(tmp_path / "state")
