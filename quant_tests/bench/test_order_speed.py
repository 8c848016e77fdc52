"""The benchmark of orders runs, and what it times does what it says. Seconds are asserted by hand only."""

from __future__ import annotations

from pathlib import Path

import pytest

from quant_tests.bench import bench_orders as bench


def test_a_large_batch_and_a_long_history(tmp_path: Path) -> None:
    """Every order is sent once; a pass behind many finished orders books and sends nothing."""
    with bench.wide_ground(tmp_path, 20) as ground:
        bench.large_batch(ground, 20)
        assert sorted(ground.accepted().values()) == [1] * 20
        bench.finished_orders(ground, 150)
        report = ground.finish()
        assert (report.sent, report.adopted, report.booked, report.left) == (0, 0, 0, 0)
        assert report.stopped == ""


@pytest.mark.long
def test_five_hundred_orders(tmp_path: Path) -> None:
    """Written, checked and submitted in under 10 s; behind 10,000 finished orders under 0.5 s more."""
    with bench.wide_ground(tmp_path, 500) as ground:
        timed = bench.large_batch(ground, 500)
        before = min(bench.seconds(ground.finish) for _ in range(3))
        bench.finished_orders(ground, 10_000)
        after = min(bench.seconds(ground.finish) for _ in range(3))
    print(
        f"sent {timed.sent:.1f} s, booked {timed.booked:.1f} s, a pass {before:.2f} → {after:.2f} s"
    )
    assert timed.sent < 10
    assert after - before < 0.5
