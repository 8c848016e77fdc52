"""The fault plan over the wire: each kind as a client sees it, counted, durable, and never on the control API."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from quant_resources.errors import ExchangeError
from quant_resources.exchange.faults import FaultDesk
from quant_resources.exchange.process import (
    ExchangeControl,
    MarketSpec,
    create_state,
    ensure_exchange,
    stop_exchange,
)
from quant_resources.exchange.state import State
from quant_tests.exchange.served import WEEK, Served, new_york, write_history

KEYS = {"APCA-API-KEY-ID": "k", "APCA-API-SECRET-KEY": "s"}
BARS = "/v2/stocks/bars"
ORDERS = "/v2/orders"


def get(served: Served, path: str, timeout: float = 5, **query: Any) -> requests.Response:
    return requests.get(served.url + path, query, headers=KEYS, timeout=timeout)


def bars(served: Served, timeout: float = 5, **query: Any) -> requests.Response:
    asked = {"symbols": "ABC,XYZ", "timeframe": "1Day", "start": "2024-03-04", **query}
    return get(served, BARS, timeout, **asked)


def post_order(served: Served, client_order_id: str, timeout: float = 5) -> requests.Response:
    body = {"symbol": "ABC", "side": "buy", "qty": "1", "type": "market", "time_in_force": "day"}
    body["client_order_id"] = client_order_id
    return requests.post(served.url + ORDERS, json=body, headers=KEYS, timeout=timeout)


def accepted(served: Served) -> list[str]:
    return [
        entry["client_order_id"]
        for entry in served.control.audit()
        if entry["event"] == "submit" and entry["outcome"] == "accepted"
    ]


def one(fault: dict[str, Any], **rule: Any) -> dict[str, Any]:
    return {"rules": [{"fault": fault, **rule}]}


@pytest.fixture
def traded(week: Served) -> Served:
    """The week, on Friday morning."""
    week.at("2024-03-08 09:00")
    return week


# Which requests


@pytest.mark.parametrize(
    ("when", "broken"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"nth": [2, 5]}, [2, 5]),
        ({"first": 3}, [3, 4, 5, 6, 7, 8]),
        ({"first": 2, "every": 3}, [2, 5, 8]),
        ({"first": 3, "times": 2}, [3, 4]),
        ({"probability": 0.0}, []),
        ({"query": {"limit": "7"}}, []),
        ({"query": {"limit": "*"}}, []),
        ({"query": {"symbols": "ABC,*"}}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"query": {"limit": None}}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"path": "/v2/stocks/*", "method": "GET"}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"path": "/v2/orders*"}, []),
        ({"method": "POST"}, []),
    ],
)
def test_which_requests_go_wrong(
    unchanged_week: Served, when: dict[str, Any], broken: list[int]
) -> None:
    unchanged_week.control.inject(one({"kind": "status", "status": 503}, **when))
    try:
        answers = [bars(unchanged_week).status_code for _ in range(8)]
        (rule,) = unchanged_week.control.faults()["rules"]
    finally:
        unchanged_week.control.clear_faults()
    assert [number for number, status in enumerate(answers, 1) if status == 503] == broken
    assert rule["fired"] == len(broken)
    assert bars(unchanged_week).status_code == 200


def test_chance_is_the_plans_and_the_same_whoever_asks(tmp_path: Path) -> None:
    folder = write_history(tmp_path / "history", WEEK)
    create_state(tmp_path / "state", MarketSpec(kind="history", folder=folder))
    state = State(tmp_path / "state")

    def hits(seed: int, *, asking_more: bool = False) -> list[bool]:
        desk = FaultDesk(state)
        desk.post(one({"kind": "reset"}, probability=0.3, path=BARS) | {"seed": seed})
        found = []
        for _ in range(100):
            found.append(desk.next_fault("GET", BARS, {}) is not None)
            if asking_more:
                desk.next_fault("GET", "/v2/clock", {})
        return found

    try:
        first = hits(1)
        assert first == hits(1, asking_more=True) != hits(2)
        assert 20 <= sum(first) <= 40
    finally:
        state.close()


def test_the_first_rule_whose_turn_it_is_breaks_a_request_and_all_count_it(
    unchanged_week: Served,
) -> None:
    plan = {
        "rules": [
            {"path": BARS, "nth": [2], "fault": {"kind": "status", "status": 500}},
            {"path": "/v2/*", "first": 2, "fault": {"kind": "status", "status": 502}},
        ]
    }
    unchanged_week.control.inject(plan)
    try:
        assert [bars(unchanged_week).status_code for _ in range(3)] == [200, 500, 502]
        shown = unchanged_week.control.faults()["rules"]
    finally:
        unchanged_week.control.clear_faults()
    assert [(rule["seen"], rule["fired"]) for rule in shown] == [(3, 1), (3, 1)]


def test_the_control_api_never_goes_wrong(unchanged_week: Served) -> None:
    unchanged_week.control.inject(one({"kind": "reset"}))
    try:
        with pytest.raises(requests.ConnectionError):
            bars(unchanged_week)
        assert unchanged_week.control.status()["symbols"] == 2
        assert [rule["fired"] for rule in unchanged_week.control.faults()["rules"]] == [1]
    finally:
        unchanged_week.control.clear_faults()
    assert bars(unchanged_week).ok


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"rules": []}, "rules: .*at least 1"),
        ({}, "rules: Field required"),
        ([], "valid dictionary"),
        (one({"kind": "meteor"}), "fault: .*meteor"),
        (one({"kind": "status", "status": 200}), "status: .*greater than or equal to 400"),
        (one({"kind": "latency"}), "seconds: Field required"),
        (one({"kind": "latency", "seconds": -1}), "seconds"),
        (one({"kind": "reset"}, probability=2), "probability"),
        (one({"kind": "reset"}, nth=[0]), "nth"),
        (one({"kind": "reset"}, path="/exchange/clock"), "never goes wrong"),
        (one({"kind": "reset"}, path="v2/orders"), "begins with no slash"),
        (one({"kind": "reset"}, often=1), "often: .*not permitted"),
    ],
)
def test_a_bad_plan_is_refused_and_the_one_in_force_stays(
    unchanged_week: Served, body: Any, words: str
) -> None:
    unchanged_week.control.inject(one({"kind": "reset"}, path="/nowhere"))
    try:
        with pytest.raises(ExchangeError, match=words):
            unchanged_week.control._ask("POST", "/exchange/faults", 5, body)
        assert unchanged_week.control.faults()["rules"][0]["path"] == "/nowhere"
    finally:
        unchanged_week.control.clear_faults()


def test_plan_and_counts_survive_a_killed_server(tmp_path: Path) -> None:
    folder = write_history(tmp_path / "history", WEEK)
    state = tmp_path / "state"
    create_state(state, MarketSpec(kind="history", folder=folder))
    try:
        endpoint = ensure_exchange(state)
        control = ExchangeControl(endpoint.url)
        control.advance(new_york("2024-03-05 09:00"))
        control.inject(one({"kind": "status", "status": 503}, path=BARS, nth=[1, 3]))
        query = {"symbols": "ABC", "timeframe": "1Day", "start": "2024-03-04"}

        def ask(url: str) -> int:
            return requests.get(url + BARS, query, headers=KEYS, timeout=5).status_code

        assert [ask(endpoint.url) for _ in range(2)] == [503, 200]
        os.kill(endpoint.pid, signal.SIGKILL)
        with contextlib.suppress(psutil.Error):
            psutil.Process(endpoint.pid).wait(5)
        second = ensure_exchange(state)
        assert [ask(second.url) for _ in range(2)] == [503, 200]
        (rule,) = ExchangeControl(second.url).faults()["rules"]
        assert (rule["seen"], rule["fired"]) == (4, 2)
        audit = ExchangeControl(second.url).audit()
        assert [e["fault"]["kind"] for e in audit if e["event"] == "fault"] == ["status"] * 2

        # A request that hangs on purpose does not keep the server from ending.
        ExchangeControl(second.url).inject(one({"kind": "hang"}, path=BARS))
        with pytest.raises(requests.ReadTimeout):
            requests.get(second.url + BARS, query, headers=KEYS, timeout=0.3)
        began = time.monotonic()
        assert stop_exchange(state)
        assert time.monotonic() - began < 6
    finally:
        stop_exchange(state)
    kept = State(state)
    assert FaultDesk(kept).shown()["rules"][0]["fault"]["kind"] == "hang"
    kept.close()


# What a client sees


def test_latency_delays_a_right_answer(traded: Served) -> None:
    whole = bars(traded).content
    for after in (False, True):
        traded.control.inject(one({"kind": "latency", "seconds": 0.3, "after": after}))
        began = time.monotonic()
        assert bars(traded).content == whole
        assert 0.3 <= time.monotonic() - began < 2


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset"},
        {"kind": "hang", "seconds": 0.2},
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 502},
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 504},
        {"kind": "status", "status": 429, "retry_after": 3, "code": 42910000},
        {"kind": "html"},
        {"kind": "malformed"},
        {"kind": "empty_body"},
        {"kind": "malformed", "body": "42 is"},
    ],
    ids=lambda fault: f"{fault['kind']}{fault.get('status', '')}",
)
def test_an_order_is_accepted_or_not_and_the_client_cannot_tell(
    traded: Served, fault: dict[str, Any], after: bool
) -> None:
    traded.control.inject(one({**fault, "after": after}, path=ORDERS, method="POST", times=1))
    if fault["kind"] in {"reset", "hang"}:
        with pytest.raises(requests.ConnectionError, match="reset by peer"):
            post_order(traded, "a")
    else:
        answer = post_order(traded, "a")
        assert answer.status_code == fault.get("status", 200)
        if answer.status_code == 429:
            assert answer.headers["Retry-After"] == "3"
            assert answer.json() == {"code": 42910000, "message": "broken on purpose"}
        if answer.ok:
            with pytest.raises(requests.exceptions.JSONDecodeError):
                answer.json()
    assert accepted(traded) == (["a"] if after else [])
    again = post_order(traded, "a")
    assert again.status_code == (422 if after else 200)
    assert accepted(traded) == ["a"]


def test_a_hanging_request_ends_when_its_client_leaves(traded: Served) -> None:
    traded.control.inject(one({"kind": "hang"}, path=BARS))
    with pytest.raises(requests.ReadTimeout):
        bars(traded, timeout=0.2)
    traded.control.clear_faults()
    assert bars(traded).ok


def test_a_truncated_body(traded: Served) -> None:
    whole = bars(traded).content
    traded.control.inject(one({"kind": "truncated", "share": 0.5}))
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        bars(traded)
    traded.control.inject(one({"kind": "truncated", "bytes": 9, "content_length": "matching"}))
    assert bars(traded).content == whole[:9]


def test_a_body_that_drips(traded: Served) -> None:
    whole = bars(traded).content
    traded.control.inject(one({"kind": "drip", "bytes": len(whole) // 4, "seconds": 0.1}))
    began = time.monotonic()
    # No single wait is as long as the timeout, and yet the answer takes longer.
    assert bars(traded, timeout=0.3).content == whole
    assert time.monotonic() - began > 0.4


def test_tokens_that_lead_nowhere(traded: Served) -> None:
    first = bars(traded, limit=2).json()
    traded.control.inject(one({"kind": "empty_token"}))
    assert bars(traded, limit=2).json() == {**first, "next_page_token": ""}
    traded.control.inject(one({"kind": "token_loop"}))
    asked = first["next_page_token"]
    assert bars(traded, limit=2, page_token=asked).json()["next_page_token"] == asked


def test_lost_pages(traded: Served) -> None:
    first = bars(traded, limit=3).json()
    traded.control.inject(one({"kind": "lost_page"}))
    assert bars(traded, limit=3).json() == {**first, "bars": {}}
    traded.control.inject(one({"kind": "lost_page", "share": 0.34, "leads_on": False}))
    page = bars(traded, limit=3).json()
    assert page == {"bars": {"ABC": first["bars"]["ABC"][:2]}, "next_page_token": None}


def test_changed_fields_symbols_and_rows(traded: Served) -> None:
    whole = bars(traded).json()
    own = whole["bars"]

    def broken(**fault: Any) -> Any:
        traded.control.inject(one(fault))
        return bars(traded).json()["bars"]

    renamed = broken(kind="rename_field", field="c", to="close")
    assert [row["close"] for row in renamed["ABC"]] == [row["c"] for row in own["ABC"]]
    assert "c" not in renamed["XYZ"][0]
    closes = [row["c"] for rows in broken(kind="null_field", field="c").values() for row in rows]
    assert set(closes) == {None}
    some = broken(kind="set_field", field="v", value="1,000", rows=1)
    assert [row["v"] for row in some["ABC"]] == ["1,000", *[row["v"] for row in own["ABC"]][1:]]
    assert broken(kind="wrong_symbol", symbol="ABC", to="../ABC")["../ABC"] == own["ABC"]
    merged = broken(kind="wrong_symbol", symbol="XYZ", to="ABC")
    assert merged == {"ABC": own["ABC"] + own["XYZ"]}
    twice = broken(kind="duplicate_rows", rows=1)
    assert twice["ABC"] == [own["ABC"][0], *own["ABC"]]
    assert broken(kind="reorder")["ABC"] == own["ABC"][::-1]
    shuffled = broken(kind="reorder", how="shuffled")["ABC"]
    assert shuffled != own["ABC"]
    assert sorted(shuffled, key=lambda row: row["t"]) == own["ABC"]
    # A refusal has no rows; it passes as it is.
    traded.control.inject(one({"kind": "rename_field", "field": "message", "to": "words"}))
    assert "message" in get(traded, BARS).json()


# The clock


def test_the_clock_jumps_and_what_lies_between_happens(week: Served) -> None:
    post_order(week, "a")
    week.control.inject(one({"kind": "clock_jump", "seconds": 3600}, path="/v2/clock", times=1))
    assert get(week, "/v2/clock").json()["timestamp"].startswith("2024-03-05T10:00")
    assert week.order("a")["status"] == "filled"
    week.control.inject(one({"kind": "clock_jump", "seconds": 86_400}, path="/v2/clock"))
    for _ in range(6):
        assert get(week, "/v2/clock").ok
    # It stops before the market's end.
    assert week.control.clock() < week.exchange.end
