"""Processes are killed with SIGKILL at numbered steps and started again until done.

The exchange's own audit log is the truth: exactly one accepted order per intent, whatever was killed when.
"""

from __future__ import annotations

import signal
from datetime import date
from pathlib import Path

import pytest

from quant_resources.ledger import order_book
from quant_tests.faults import trader
from quant_tests.orders.ground import Ground

MONDAY = date(2024, 3, 4)
WEIGHTS = {"AAA": 0.2, "BBB": -0.2, "CCC": 0.1}
QUICK = [("commit", 4), ("commit", 7), ("request", 14), ("answer", 14), ("answer", 16)]


def work_for(ground: Ground, tmp_path: Path) -> trader.Work:
    """The session's targets on disk, as the asset left them."""
    targets = tmp_path / "targets.parquet"
    ground.frame(ground.plan(MONDAY, alpha=WEIGHTS), MONDAY).write_parquet(targets)
    return trader.Work(
        ledger_url=ground.ledger.url.render_as_string(hide_password=False),
        trading_url=ground.broker.trading_url,
        data_url=ground.broker.data_url,
        targets=targets,
        session=MONDAY,
        policy=ground.policy,
    )


def assert_exactly_once(ground: Ground) -> None:
    """One accepted order per intent at the exchange, and a ledger that knows each of them."""
    with ground.ledger.begin() as session:
        batch = order_book.newest_batch(session, ground.policy.book, MONDAY)
    assert batch is not None
    intents = ground.intents(batch)
    assert len(intents) == len(WEIGHTS)
    assert ground.accepted() == {row.client_order_id: 1 for row in intents}
    assert {row.state for row in intents} == {"accepted"}
    assert batch.attempt == 1


@pytest.mark.parametrize(("kind", "number"), QUICK)
def test_killed_once_and_started_again(
    ground: Ground, tmp_path: Path, kind: str, number: int
) -> None:
    """Killed between intent and submission, or between acceptance and recording: one order each."""
    work = work_for(ground, tmp_path)
    assert trader.run(work, kind, number) == -signal.SIGKILL
    assert trader.run(work) == 0
    assert_exactly_once(ground)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["commit", "request", "answer"])
@pytest.mark.parametrize("number", range(1, 40))
def test_killed_at_every_step(ground: Ground, tmp_path: Path, kind: str, number: int) -> None:
    """Killed at each commit and each request of the protocol, and once more during recovery."""
    work = work_for(ground, tmp_path)
    code = trader.run(work, kind, number)
    if code == 0:
        pytest.skip(f"the protocol has fewer than {number} steps of this kind")
    assert code == -signal.SIGKILL
    trader.run(work, kind, max(1, number // 2))
    assert trader.run(work) == 0
    assert_exactly_once(ground)


def test_two_processes_at_once(ground: Ground, tmp_path: Path) -> None:
    """One trades, the other leaves with a clear message; exactly one order per intent."""
    work = work_for(ground, tmp_path)
    processes = [trader.start(work) for _ in range(2)]
    for process in processes:
        process.join(60)
    codes = sorted(process.exitcode for process in processes)
    assert codes in ([0, trader.LEFT], [0, 0])
    assert_exactly_once(ground)


@pytest.mark.long
@pytest.mark.parametrize("round_number", range(50))
def test_two_processes_at_once_many_times(
    ground: Ground, tmp_path: Path, round_number: int
) -> None:
    """Whatever the interleaving."""
    test_two_processes_at_once(ground, tmp_path)
