"""The benchmarks that are run by hand still run: small, without Qlib, in a process of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent


@pytest.mark.long
@pytest.mark.parametrize(
    ("script", "shown"),
    [
        (
            "bench_alpha158.py",
            ("window lattice", "Polars expressions", "stored bars to rows", "read all columns"),
        ),
        ("bench_storage.py", ("the store's", "pyarrow zstd 3", "Arrow IPC lz4")),
    ],
)
def test_it_runs(script: str, shown: tuple[str, ...]) -> None:
    size = ("--symbols", "3", "--sessions", "320", "--rounds", "1")
    run = subprocess.run(
        [sys.executable, BENCH / script, *size], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    for text in shown:
        assert text in run.stdout
