"""The request budget over threads, processes, kills and restarts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import struct
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_resources import request_pace
from quant_resources.errors import StorageError
from quant_resources.request_pace import RequestPace, meeting_place, reserved, shared_pace
from quant_resources.resources import AlpacaBarsResource, BrokerResource
from quant_tests.resources.paced_process import CONTEXT, draw
from quant_tests.resources.test_alpaca_bars import serving


def noted(file: Path) -> list[float]:
    content = file.read_bytes()
    return list(struct.unpack(f"<{len(content) // 8}d", content))


def assert_within_budget(moments: list[float], budget: int) -> None:
    """No window of 60 seconds holds more than the budget."""
    ordered = sorted(moments)
    for earlier, later in zip(ordered, ordered[budget:], strict=False):
        assert later - earlier >= request_pace.WINDOW_SECONDS - 1e-6


@given(
    gaps=st.lists(st.floats(0, 90), min_size=1, max_size=60),
    budget=st.integers(1, 7),
)
def test_no_minute_ever_holds_more_than_the_budget(gaps: list[float], budget: int) -> None:
    remembered: list[float] = []
    sent: list[float] = []
    now = 1000.0
    for gap in gaps:
        now += gap
        remembered, mine = reserved(remembered, now, budget)
        assert mine >= now
        sent.append(mine)
        now = mine
    assert_within_budget(sent, budget)
    # Nor does it wait without need: an idle minute frees the whole budget.
    assert reserved(remembered, now + 61.0, budget)[1] == now + 61.0


def test_threads_of_one_process_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(request_pace.time, "sleep", waited.append)
    pace = RequestPace(10)
    threads = [threading.Thread(target=pace.wait) for _ in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([seconds for seconds in waited if seconds > 55]) == 15
    assert max(waited) > 115


def test_processes_share_one_budget(tmp_path: Path) -> None:
    """Four processes with budgets of their own would have sent four times as much."""
    file, budget, count = tmp_path / "budget", 8, 5
    processes = [CONTEXT.Process(target=draw, args=(file, budget, count)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    drawn_moments = noted(file)
    assert_within_budget(drawn_moments, budget)
    assert len([moment for moment in drawn_moments if moment <= time.monotonic()]) == budget


def test_killed_process_leaves_the_budget_usable(tmp_path: Path) -> None:
    """Killed while it holds the lock: the lock goes with it, what it noted stays."""
    file = tmp_path / "budget"
    process = CONTEXT.Process(target=draw, args=(file, 1_000_000, 10_000_000))
    process.start()
    deadline = time.monotonic() + 120
    while not (file.exists() and file.stat().st_size > 800) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    before = len(noted(file))
    started = time.monotonic()
    RequestPace(1_000_000, file).wait()
    assert time.monotonic() - started < 1.0
    assert before >= 100
    assert len(noted(file)) == before + 1


@pytest.mark.parametrize(
    "left",
    [
        b"",
        b"\x00\x01\x02",
        struct.pack("<3d", float("nan"), float("inf"), float("-inf")),
        # Of a clock that had run for longer: the machine has been started anew.
        struct.pack("<200d", *[1e12] * 200),
        struct.pack("<2d", 0.0, -5.0) + b"\xff" * 5,
    ],
)
def test_what_a_restart_or_a_kill_has_left_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bytes
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(request_pace.time, "sleep", waited.append)
    file = tmp_path / "budget"
    file.write_bytes(left)
    pace = RequestPace(3, file)
    for _ in range(3):
        pace.wait()
    assert waited == []
    assert len(noted(file)) == 3
    pace.wait()
    assert 59 < waited[0] <= 60


def test_different_budgets_of_one_key_do_not_forget_each_others_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(request_pace.time, "sleep", waited.append)
    large, small = RequestPace(6, tmp_path / "budget"), RequestPace(2, tmp_path / "budget")
    for _ in range(5):
        large.wait()
    small.wait()
    large.wait()
    assert_within_budget(noted(tmp_path / "budget"), 6)


def test_a_turn_costs_less_than_a_millisecond(tmp_path: Path) -> None:
    pace = RequestPace(5000, tmp_path / "budget")
    pace.wait()
    # Of processor time: what other processes do meanwhile is not the pace's cost.
    started = time.process_time()
    for _ in range(200):
        pace.wait()
    assert (time.process_time() - started) / 200 < 0.001


def test_the_key_is_in_no_name_and_nobody_else_may_read(tmp_path: Path) -> None:
    pace = shared_pace("PKSECRETKEY", 5, tmp_path)
    assert shared_pace("PKSECRETKEY", 5, tmp_path) is pace
    pace.wait()
    files = list(tmp_path.iterdir())
    assert len(files) == 2
    for file in files:
        assert "PKSECRET" not in file.name
        assert b"PKSECRET" not in file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_bars_and_orders_of_one_key_draw_on_one_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the graph's resources make them, in whatever process."""
    monkeypatch.setattr(request_pace.tempfile, "gettempdir", lambda: str(tmp_path))
    clock = {
        "timestamp": "2023-01-05T12:00:00-05:00",
        "is_open": True,
        "next_open": "2023-01-06T09:30:00-05:00",
        "next_close": "2023-01-05T16:00:00-05:00",
    }
    with serving(lambda _path, _query: (200, json.dumps(clock).encode())) as url:
        address = {
            "data_root": str(tmp_path / "root"),
            "data_url": url,
            "trading_url": url,
            "api_key": "PKSHARED",
            "requests_per_minute": 50,
        }
        with AlpacaBarsResource(**address).process_config_and_initialize_cm() as source:
            source.newest_closed_session()
        BrokerResource(**address).process_config_and_initialize().clock()
    (file,) = [file for file in meeting_place().iterdir() if file.suffix != ".lock"]
    assert len(noted(file)) == 2


def test_the_meeting_place_is_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_pace.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = meeting_place()
    assert meeting_place() == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="somebody else.*TMPDIR"):
        meeting_place()


def test_a_folder_that_is_cleaned_away_is_made_again(tmp_path: Path) -> None:
    pace = RequestPace(3, tmp_path / "gone" / "budget")
    pace.wait()
    shutil.rmtree(tmp_path / "gone")
    pace.wait()


def test_a_folder_that_cannot_be_used_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="request budget.*TMPDIR"):
        RequestPace(3, tmp_path / "file" / "budget").wait()
