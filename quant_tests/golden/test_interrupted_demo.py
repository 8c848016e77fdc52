"""A demo that is killed again and again ends where an undisturbed one ends."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest

from quant_assets.market_span import default_span
from quant_assets.orders.schemas import ORDER_INTENTS
from quant_resources.exchange.process import EXCHANGE_FOLDER, stop_exchange
from quant_resources.postgres import stop_postgres
from quant_resources.settings import load_settings
from quant_resources.store import Store
from quant_tests.golden.conftest import (
    QUANT,
    FinishedDemo,
    assert_one_order_per_intent,
    environment,
    run_quant,
)

pytestmark = pytest.mark.long
SPAN = default_span()
_KILLS = 8
_SEED = 20250107


def kill_while_trading(root: Path, seconds: float) -> None:
    """Start the demo, let it trade for so long, then kill it without warning."""
    with subprocess.Popen(
        [str(QUANT), "demo"],
        env=environment(root),
        cwd=root.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().startswith(("trade", "settle")):
                break
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)


def test_killed_while_trading_it_ends_with_one_order_per_intent(
    demo: FinishedDemo, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    chance = random.Random(_SEED)
    try:
        for _ in range(_KILLS):
            kill_while_trading(root, chance.uniform(0.0, 6.0))
        result = run_quant(root, "demo")
        assert result.returncode == 0, result.stdout + result.stderr
        assert_one_order_per_intent(load_settings(data_root=root))
        decided = ["trading_session", "symbol", "leg", "side", "quantity"]
        undisturbed = Store(demo.root).read(ORDER_INTENTS, columns=decided).collect()
        disturbed = Store(root).read(ORDER_INTENTS, columns=decided).collect()
        # Another test may have gone on beyond the demo's end.
        undisturbed = undisturbed.filter(pl.col("trading_session") <= SPAN.last_session)
        assert disturbed.height > 0
        assert undisturbed.sort(decided).equals(disturbed.sort(decided))
    finally:
        stop_exchange(root / EXCHANGE_FOLDER)
        stop_postgres(root)
