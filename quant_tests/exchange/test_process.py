"""The server as a process: found, started once, stopped, killed at any moment and started again."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from alpaca.trading.client import TradingClient

from quant_resources.errors import ConfigurationError, ExchangeError
from quant_resources.exchange.exchange import Exchange
from quant_resources.exchange.process import (
    ENDPOINT_FILE,
    Endpoint,
    ExchangeControl,
    MarketSpec,
    create_state,
    ensure_exchange,
    stop_exchange,
)
from quant_tests.exchange.served import WEEK, Served, Server, new_york, write_history


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose server is ended afterwards."""
    folder = tmp_path / "exchange"
    yield folder
    stop_exchange(folder)


def kill(endpoint: Endpoint) -> None:
    os.kill(endpoint.pid, signal.SIGKILL)
    with contextlib.suppress(psutil.Error):
        psutil.Process(endpoint.pid).wait(5)


def everything(url: str) -> dict[str, Any]:
    """All that a user can see of an account."""
    client: Any = TradingClient("k", "s", url_override=url, raw_data=True)
    return {
        "account": client.get("/account"),
        "positions": client.get("/positions"),
        "orders": client.get("/orders", {"status": "all", "limit": 500}),
        "activities": client.get("/account/activities"),
        "audit": ExchangeControl(url).audit(),
        "clock": ExchangeControl(url).status()["clock"],
    }


def test_a_servers_life(state: Path, tmp_path: Path, ending: list[Server]) -> None:
    """Started once by four at the same time, found by another process, killed, misled, stopped.

    One test, because a server takes two seconds to start.
    """
    with pytest.raises(ExchangeError, match=r"no exchange in .* yet"):
        ensure_exchange(state)
    folder = write_history(tmp_path / "history", WEEK)
    spec = MarketSpec(kind="history", folder=folder)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ensure_exchange(state, spec), range(4)))
    first = found[0]
    assert {endpoint.pid for endpoint in found} == {first.pid}
    assert sum(endpoint.started for endpoint in found) == 1
    code = (
        "import sys; from pathlib import Path\n"
        "from quant_resources.exchange.process import ensure_exchange\n"
        "print(ensure_exchange(Path(sys.argv[1])).pid)"
    )
    other = [sys.executable, "-c", code, str(state)]
    done = subprocess.run(other, capture_output=True, text=True, check=True)
    assert int(done.stdout) == first.pid
    with pytest.raises(ExchangeError, match=r"another market \(seed: 7 → 12\)"):
        ensure_exchange(state, spec.model_copy(update={"seed": 12}))

    control = ExchangeControl(first.url)
    control.advance(new_york("2024-03-05 09:00"))
    trading: Any = TradingClient("k", "s", url_override=first.url)
    for number, (symbol, side) in enumerate([("ABC", "buy"), ("XYZ", "sell"), ("XYZ", "sell")]):
        body = {"symbol": symbol, "side": side, "qty": "700", "client_order_id": f"c{number}"}
        trading.post("/orders", {**body, "type": "market", "time_in_force": "gtc"})
    control.advance(new_york("2024-03-05 12:00"))
    before = everything(first.url)
    assert len(before["positions"]) == 2

    # Killed between requests it goes on as if nothing had happened, at the same address.
    kill(first)
    second = ensure_exchange(state)
    assert second.started
    assert second.url == first.url
    assert everything(second.url) == before
    ExchangeControl(second.url).advance(new_york("2024-03-08 17:00"))
    after = everything(second.url)
    assert after["audit"][: len(before["audit"])] == before["audit"]

    # Its process number now belongs to this test, its port to another exchange: neither misleads.
    kill(second)
    path = state / ENDPOINT_FILE
    endpoint = json.loads(path.read_text())
    create_state(tmp_path / "other", spec)
    ending.append(Server(tmp_path / "other", endpoint["port"]))
    path.write_text(json.dumps({**endpoint, "pid": os.getpid()}))
    third = ensure_exchange(state)
    assert third.started
    assert third.url != first.url
    assert everything(third.url) == after
    ending[-1].stop()

    assert stop_exchange(state)
    assert not stop_exchange(state)
    assert not psutil.pid_exists(third.pid)
    path.write_text("{not json")
    assert not stop_exchange(state)


def test_killed_in_the_middle_of_orders_it_has_each_order_once(
    state: Path, small_spec: MarketSpec
) -> None:
    """Sends orders and moves the clock without pause while the server is killed twice."""
    endpoint = ensure_exchange(state, small_spec)
    ExchangeControl(endpoint.url).advance(new_york("2023-02-01 09:00"))
    url, answered, stop = [endpoint.url], set[str](), threading.Event()
    keys = {"APCA-API-KEY-ID": "k", "APCA-API-SECRET-KEY": "s"}
    symbols = [
        asset["symbol"]
        for asset in requests.get(f"{url[0]}/v2/assets", headers=keys, timeout=5).json()
    ]

    def send() -> None:
        number = 0
        while not stop.is_set():
            body = {"symbol": symbols[number % len(symbols)], "side": "buy", "qty": "1"}
            body |= {"type": "market", "time_in_force": "day", "client_order_id": f"n{number}"}
            try:
                answer = requests.post(f"{url[0]}/v2/orders", json=body, headers=keys, timeout=5)
            except requests.RequestException:
                time.sleep(0.01)
                continue  # ambiguous: the same id is sent again
            if answer.status_code == 200 or "must be unique" in answer.text:
                answered.add(f"n{number}")
                number += 1
                if number % 10 == 0:
                    with contextlib.suppress(ExchangeError):
                        control = ExchangeControl(url[0])
                        control.advance(control.clock() + timedelta(hours=7))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for _ in range(2):
            time.sleep(0.4)
            kill(endpoint)
            endpoint = ensure_exchange(state)
            url[0] = endpoint.url
        time.sleep(0.3)
    finally:
        stop.set()
        sender.join()
    audit = ExchangeControl(url[0]).audit()
    accepted = [
        e["client_order_id"] for e in audit if e["event"] == "submit" and e["outcome"] == "accepted"
    ]
    assert len(accepted) == len(set(accepted))
    assert answered <= set(accepted)
    assert len(answered) > 20
    # Cash and holdings agree with the fills: no event was half done.
    seen = everything(url[0])
    filled = sum(float(e["quantity"]) for e in audit if e["event"] == "fill")
    split = any(a["activity_type"] in {"SPLIT", "MA", "REORG"} for a in seen["activities"])
    assert split or filled == pytest.approx(sum(float(p["qty"]) for p in seen["positions"]))


def test_what_keeps_it_from_starting_is_said_in_a_sentence(
    tmp_path: Path, small_spec: MarketSpec
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ExchangeError, match=f"Port {port} is already taken"):
            ensure_exchange(tmp_path / "port", small_spec, port=port)
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(ExchangeError, match="cannot be made"):
        ensure_exchange(in_the_way / "state", small_spec)


def test_a_history_that_changed_under_its_orders_is_refused(
    tmp_path: Path, history: Callable[..., Served]
) -> None:
    served = history(WEEK)
    write_history(tmp_path / "history", WEEK[:-1])
    with pytest.raises(ExchangeError, match="is not the one its orders were filled on"):
        Exchange(served.folder)


def test_a_specification_that_is_not_complete_says_what_it_lacks() -> None:
    for text, words in (
        ('{"kind": "stochastic"}', "first_session"),
        ('{"kind": "history"}', "folder"),
        ('{"kind": "history", "folder": "x", "colour": 1}', "colour"),
        ("nonsense", "JSON"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            MarketSpec.from_json(text)


def test_a_full_disk_is_said_and_leaves_nothing_behind(
    tmp_path: Path, small_spec: MarketSpec
) -> None:
    """The disk is full for a process that may not write files beyond 8 KB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with pytest.raises(ExchangeError, match="cannot be created .* Free space"):
            create_state(tmp_path / "state", small_spec)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "state").iterdir()) == []
