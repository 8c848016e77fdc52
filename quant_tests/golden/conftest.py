"""One finished demo for all golden tests: the README's first command in a data root of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from quant_assets.cli.platform import running_platform
from quant_assets.market_span import default_span
from quant_resources.exchange.control import ExchangeControl
from quant_resources.exchange.process import EXCHANGE_FOLDER, stop_exchange
from quant_resources.postgres import stop_postgres
from quant_resources.settings import Settings, load_settings

QUANT = Path(sys.executable).with_name("quant")
_DEMO_SECONDS = 1500


@dataclass(frozen=True)
class FinishedDemo:
    """A data root in which the demo has run to its end.

    Attributes:
        root: Data root.
        output: What the command printed.
        settings: Settings of that root.
    """

    root: Path
    output: str
    settings: Settings

    def quant(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a `quant` command on this data root."""
        return run_quant(self.root, *arguments)


def run_quant(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a `quant` command as a user would: no variable set but the data root."""
    return subprocess.run(
        [str(QUANT), *arguments],
        env=environment(root),
        cwd=root.parent,
        capture_output=True,
        text=True,
        timeout=_DEMO_SECONDS,
        check=False,
    )


def environment(root: Path) -> dict[str, str]:
    """The machine's environment without anything of ours, but the data root."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("QUANT_", "ALPACA_", "DAGSTER_"))
    }
    return {**kept, "QUANT_DATA_ROOT": str(root), "COLUMNS": "200"}


def assert_one_order_per_intent(settings: Settings) -> None:
    """The exchange's own record holds exactly one accepted order per intent that was sent."""
    with running_platform(settings, default_span()) as platform:
        audit = ExchangeControl(str(platform.exchange_url)).audit()
        with platform.ledger.begin() as ledger:
            sent = set(
                ledger.scalars(
                    text(
                        "SELECT client_order_id FROM order_intents "
                        "WHERE state NOT IN ('refused', 'expired_unsent')"
                    )
                )
            )
    accepted = Counter(
        entry["client_order_id"]
        for entry in audit
        if entry["event"] == "submit" and entry["outcome"] == "accepted"
    )
    assert set(accepted) == sent
    assert set(accepted.values()) == {1}


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedDemo]:
    """The demo, run once."""
    root = tmp_path_factory.mktemp("demo") / "root"
    root.mkdir()
    try:
        result = run_quant(root, "demo")
        assert result.returncode == 0, result.stdout + result.stderr
        yield FinishedDemo(root, result.stdout, load_settings(data_root=root))
    finally:
        stop_exchange(root / EXCHANGE_FOLDER)
        stop_postgres(root)
