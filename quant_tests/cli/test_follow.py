"""`quant follow` as a process of its own: it tells what it hears, ends with the session, and on a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from quant_resources.exchange.control import ExchangeControl
from quant_resources.exchange.process import EXCHANGE_FOLDER, ensure_exchange, stop_exchange
from quant_resources.exchange.spec import MarketSpec
from quant_resources.postgres import stop_postgres
from quant_tests.exchange.served import WEEK, new_york, write_history
from quant_tests.exchange.test_faults import KEYS

COMMAND = [sys.executable, "-c", "from quant_assets.cli.main import main; main()", "follow"]


class Following:
    """A `quant follow` whose output goes to a file."""

    def __init__(self, root: Path, *options: str) -> None:
        self._told = root / "told.txt"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("QUANT_")}
        environment = {**kept, "QUANT_DATA_ROOT": str(root), "QUANT_TRADING_MODE": "paper"}
        with self._told.open("w") as told:
            self.process = subprocess.Popen(
                [*COMMAND, *options], env=environment, stdout=told, stderr=told, cwd=root
            )

    def told(self, words: str, seconds: float = 90) -> str:
        """Wait until it has said something."""
        end = time.monotonic() + seconds
        while words not in self._told.read_text():
            assert time.monotonic() < end, self._told.read_text()
            assert self.process.poll() is None, self._told.read_text()
            time.sleep(0.05)
        return self._told.read_text()

    def ended(self, seconds: float = 60) -> tuple[int, str]:
        """Wait for its end: the exit code and everything it said."""
        return self.process.wait(seconds), self._told.read_text()


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A data root whose exchange runs and stands on Tuesday morning."""
    history = write_history(tmp_path / "history", WEEK)
    root = tmp_path / "root"
    url = ensure_exchange(root / EXCHANGE_FOLDER, MarketSpec(kind="history", folder=history)).url
    ExchangeControl(url).advance(new_york("2024-03-05 09:00"))
    yield root
    stop_exchange(root / EXCHANGE_FOLDER)
    stop_postgres(root)


def test_it_tells_what_it_hears_and_ends_with_the_session(root: Path) -> None:
    following = Following(root, "--until-close", "--poll", "1")
    following.told("connected: what happened before was not told")
    url = ensure_exchange(root / EXCHANGE_FOLDER).url
    order = {"symbol": "ABC", "side": "buy", "qty": "1", "type": "market", "time_in_force": "day"}
    requests.post(f"{url}/v2/orders", json=order, headers=KEYS, timeout=5)
    following.told("new ABC")
    ExchangeControl(url).advance(new_york("2024-03-05 10:00"))
    following.told("fill ABC")
    assert following.process.poll() is None
    ExchangeControl(url).advance(new_york("2024-03-05 18:00"))
    code, told = following.ended()
    assert code == 0, told
    assert "Session 2024-03-05 has closed" in told
    # The exchange was there before it, and is there after it.
    assert ExchangeControl(url).status()["symbols"] == 2


def test_a_signal_ends_it_and_a_second_one_is_refused(root: Path) -> None:
    following = Following(root)
    following.told("connected")
    refused = subprocess.run(
        COMMAND,
        env={**os.environ, "QUANT_DATA_ROOT": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert refused.returncode == 1
    assert "Another command works on" in refused.stderr
    following.process.send_signal(signal.SIGTERM)
    code, told = following.ended()
    assert code == 130, told
    assert "Traceback" not in told
