"""A backfill of market data is killed with SIGKILL and started again until done.

The tables must then hold what those of an undisturbed backfill hold, observation times aside, and what
had been answered before a kill must not have been asked for again. The exchange answers late, as a vendor
does, and its audit log counts every request.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from quant_assets.market_data.schemas import RAW_BARS, TABLES, UNIVERSE
from quant_assets.market_span import MarketSpan
from quant_resources.alpaca_bars import REQUESTS_AT_ONCE
from quant_resources.calendar import XNYS, start_of_day
from quant_resources.databases import used_databases
from quant_resources.exchange.process import (
    ExchangeControl,
    MarketSpec,
    ensure_exchange,
    stop_exchange,
)
from quant_resources.ledger.migrate import migrate
from quant_resources.store import Store
from quant_tests.faults import backfiller
from quant_tests.faults.backfiller import Work

SYMBOLS, BATCH, BATCHES = 40, 20, 20
SESSIONS = XNYS.sessions(date(2022, 1, 3), date(2024, 6, 28))[: BATCH * BATCHES]
KEYS = [session.isoformat() for session in SESSIONS]
REQUESTS = SYMBOLS // backfiller.SYMBOLS_PER_REQUEST
SPAN = MarketSpan(
    first_session=SESSIONS[0], last_session=SESSIONS[-1], first_trading_session=SESSIONS[-2]
)


@dataclass
class Ground:
    """An exchange that answers late, and a data root to backfill from it.

    Attributes:
        killed: The backfill that is killed.
        undisturbed: The same into another data root.
    """

    control: ExchangeControl
    killed: Work
    undisturbed: Work

    def asked(self) -> list[tuple[str, str]]:
        """First day and symbols of every request for bars, oldest first.

        Without those for a single symbol that lacks a bar, whose absence is asked for twice.
        """
        queries = [entry["query"] for entry in self.control.audit() if entry["event"] == "fault"]
        return [
            (query["start"], query["symbols"])
            for query in queries
            if query["symbols"].count(",") + 1 == backfiller.SYMBOLS_PER_REQUEST
        ]

    def answer_late(self, seconds: float) -> None:
        """From now on a request for bars takes so long."""
        fault = {"kind": "latency", "seconds": seconds}
        self.control.inject({"rules": [{"path": "/v2/stocks/bars", "fault": fault}]})


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """Both data roots with databases that run from the first process to the last."""
    spec = MarketSpec(symbols=SYMBOLS, first_session=SESSIONS[0], last_session=SESSIONS[-1])
    with ExitStack() as stack:
        stack.callback(stop_exchange, tmp_path / "exchange")
        url = ensure_exchange(tmp_path / "exchange", spec).url
        control = ExchangeControl(url)
        control.advance(start_of_day(XNYS.next(SESSIONS[-1])))
        works = []
        for name in ("killed", "undisturbed"):
            work = Work(tmp_path / name, url, SPAN, batches_until(BATCHES))
            work.root.mkdir()
            migrate(stack.enter_context(used_databases(work.settings)).ledger_url)
            works.append(work)
        yield Ground(control, *works)


def batches_until(count: int) -> list[list[str]]:
    return [KEYS[start : start + BATCH] for start in range(0, count * BATCH, BATCH)]


def kill_at(process: Any, moment: float) -> bool:
    """Kill the process after so many seconds; whether it still ran."""
    process.join(moment)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGKILL)
        process.join(30)
    assert process.exitcode in (0, -signal.SIGKILL), "the backfill failed by itself"
    return process.exitcode == -signal.SIGKILL


def assert_same_tables(killed: Path, undisturbed: Path, keys: list[str]) -> None:
    """Every market data table holds the same rows, whatever was killed when."""
    first, second = Store(killed), Store(undisturbed)
    for table in TABLES:
        assert first.partitions(table) == second.partitions(table), table.path
        if table.grain == "session":
            assert first.partitions(table) == keys, table.path
        frames = [
            store.read(table).drop("observed_at", strict=False).collect()
            for store in (first, second)
        ]
        assert_frame_equal(*frames, check_row_order=False)
    assert first.read(RAW_BARS).collect().height > 0.9 * SYMBOLS * len(keys)
    assert len(keys) < 60 or first.read(UNIVERSE).collect().height > 0
    assert all(len(first.vintages(RAW_BARS, key)) == 1 for key in keys), "a vintage without news"


def assert_nothing_left_that_is_read(root: Path) -> None:
    """No landed answer serves any more; half-written files are hidden from every reader."""
    tables = {root / table.path for table in TABLES}
    files = [file for table in tables for file in table.rglob("*") if file.is_file()]
    strangers = [file for file in files if file.suffix != ".parquet"]
    assert all(file.name.startswith(".") for file in strangers), strangers
    landed = list((root / "landing").iterdir())
    assert all(file.name.startswith(".") for file in landed), landed


def test_killed_while_it_fetches_and_killed_again(ground: Ground) -> None:
    """Killed with half of a run's answers there: the next process asks for the other half."""
    ground.answer_late(0.5)
    work = replace(ground.killed, batches=batches_until(2))
    process, _ = backfiller.start(work)
    deadline = time.monotonic() + 60
    while len(ground.asked()) < REQUESTS - 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert kill_at(process, 0.0)
    before = ground.asked()
    assert REQUESTS - 1 <= len(before) <= REQUESTS
    assert Store(work.root).partitions(RAW_BARS) == []

    process, working = backfiller.start(work)
    working.wait(60)
    assert kill_at(process, random.Random(7).uniform(0.5, 3.0))
    assert backfiller.run(work) == 0

    first_batch = Counter(request for request in ground.asked() if request[0] == before[0][0])
    answered = len(before) - REQUESTS_AT_ONCE
    assert len(first_batch) == REQUESTS
    assert len([request for request, times in first_batch.items() if times == 1]) >= answered

    ground.answer_late(0.0)
    undisturbed = replace(ground.undisturbed, batches=work.batches)
    assert backfiller.run(undisturbed) == 0
    assert_same_tables(work.root, undisturbed.root, KEYS[: 2 * BATCH])
    assert_nothing_left_that_is_read(work.root)


@pytest.mark.long
def test_killed_twenty_times_at_random_moments(ground: Ground) -> None:
    """At any moment: while it starts, fetches, judges, stores, or records what it has done."""
    seed = int(os.environ.get("QUANT_TEST_SEED", secrets.randbits(32)))
    print(f"QUANT_TEST_SEED={seed}")
    chance = random.Random(seed)
    # Half of a run's time is spent on fetching, so that many a process is killed while it fetches.
    measured = replace(ground.undisturbed, batches=batches_until(3))
    process, working = backfiller.start(measured)
    working.wait(60)
    started = time.monotonic()
    process.join(300)
    assert process.exitcode == 0
    seconds_without_waiting = (time.monotonic() - started) / 3
    ground.answer_late(seconds_without_waiting * REQUESTS_AT_ONCE / REQUESTS)
    seconds_per_batch = 2 * seconds_without_waiting

    lives: list[list[tuple[str, str]]] = []
    for kill in range(20):
        before = len(ground.asked())
        process, working = backfiller.start(ground.killed)
        # Every fifth is killed while it starts.
        if kill % 5:
            working.wait(60)
        assert kill_at(process, chance.uniform(0.0, 1.2 * seconds_per_batch)), "done too soon"
        lives.append(ground.asked()[before:])
    done = len(Store(ground.killed.root).partitions(RAW_BARS)) // BATCH
    count = max(done + 1, len(measured.batches))
    assert count < BATCHES
    rest = replace(ground.killed, batches=batches_until(count))
    before = len(ground.asked())
    assert backfiller.run(rest) == 0
    lives.append(ground.asked()[before:])

    # A process that knew nothing of those before it would ask for the first symbols first.
    first_symbols = min(symbols for life in lives for _, symbols in life)
    fetches = [
        {symbols for start, symbols in life if start == batch}
        for life in lives
        for batch in sorted({start for start, _ in life})
    ]
    resumed = [asked for asked in fetches if first_symbols not in asked]
    spared = sum(REQUESTS - len(asked) for asked in resumed)
    print(
        f"{sum(map(len, lives))} requests in 21 processes for {count} runs of {REQUESTS}; "
        f"{len(resumed)} fetches were resumed, which spared {spared} requests"
    )
    assert resumed

    ground.answer_late(0.0)
    undisturbed = replace(ground.undisturbed, batches=rest.batches)
    assert backfiller.run(undisturbed) == 0
    assert_same_tables(rest.root, undisturbed.root, KEYS[: count * BATCH])
    assert_nothing_left_that_is_read(rest.root)
