"""`quant trade` as processes of their own: the switches of its modes, and two of them at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from quant_assets.cli.platform import ledger_only
from quant_assets.market_span import MarketSpan, remember_span
from quant_resources.calendar import NEW_YORK
from quant_resources.exchange.control import ExchangeControl
from quant_resources.exchange.process import (
    EXCHANGE_FOLDER,
    MarketSpec,
    ensure_exchange,
    stop_exchange,
)
from quant_resources.postgres import stop_postgres
from quant_resources.settings import load_settings

QUANT = Path(sys.executable).with_name("quant")
_LONGEST_SECONDS = 900
#: Long enough for the strategy of rules, which needs no model; the last ten sessions are traded.
_SESSIONS, _TRADED, _SYMBOLS = 80, 10, 60


def started(root: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """A `quant` process on a data root, with no other variable of ours than these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("QUANT_", "ALPACA_", "DAGSTER_"))
    }
    return subprocess.Popen(
        [str(QUANT), *arguments],
        env={**kept, "QUANT_DATA_ROOT": str(root), "COLUMNS": "200", **variables},
        cwd=root.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def told(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and everything that was said."""
    output, _ = process.communicate(timeout=_LONGEST_SECONDS)
    return process.returncode, output


def test_live_trading_takes_a_second_switch(tmp_path: Path) -> None:
    """The mode alone does nothing: no server is started, nothing is asked, nothing is sent."""
    root = tmp_path / "root"
    code, output = told(started(root, "trade", "--mode", "live"))
    assert code != 0
    assert "QUANT_LIVE_ACCOUNT" in output
    code, output = told(started(root, "trade", QUANT_TRADING_MODE="live"))
    assert code != 0
    assert "QUANT_LIVE_ACCOUNT" in output
    assert not (root / EXCHANGE_FOLDER).exists()


@dataclass(frozen=True)
class SmallRoot:
    """A data root with a short market of few symbols, its exchange on the eve of the first trading day."""

    root: Path
    control: ExchangeControl

    def submissions(self) -> list[dict[str, Any]]:
        """Every submission that reached the exchange."""
        return [entry for entry in self.control.audit() if entry["event"] == "submit"]

    def assert_exactly_once(self) -> None:
        """One accepted order for each intent that was sent, and none beside."""
        with (
            ledger_only(load_settings(data_root=self.root)) as ledger,
            ledger.begin() as session,
        ):
            sent = set(
                session.scalars(
                    text(
                        "SELECT client_order_id FROM order_intents WHERE state NOT IN "
                        "('refused', 'expired_unsent', 'withdrawn', 'dry_run')"
                    )
                )
            )
        accepted = Counter(
            entry["client_order_id"]
            for entry in self.submissions()
            if entry["outcome"] == "accepted"
        )
        assert accepted == dict.fromkeys(sent, 1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallRoot]:
    """The small data root; its market data is made by the first command that trades."""
    root = tmp_path_factory.mktemp("small") / "root"
    root.mkdir()
    span = MarketSpan.counted(date(2023, 1, 3), _SESSIONS, _TRADED)
    remember_span(root, span)
    market = MarketSpec(
        kind="stochastic",
        symbols=_SYMBOLS,
        first_session=span.first_session,
        last_session=span.last_session,
        sessions_beyond=60,
    )
    try:
        control = ExchangeControl(ensure_exchange(root / EXCHANGE_FOLDER, market).url)
        control.advance(datetime.combine(span.first_trading_session, time(0), NEW_YORK))
        yield SmallRoot(root, control)
    finally:
        stop_exchange(root / EXCHANGE_FOLDER)
        stop_postgres(root)


@pytest.mark.long
def test_a_dry_run_sends_nothing(small: SmallRoot) -> None:
    """The default mode plans and records a whole session; the exchange's log has no submission."""
    output = told(started(small.root, "trade"))[1]
    with ledger_only(load_settings(data_root=small.root)) as ledger, ledger.begin() as session:
        states = set(session.scalars(text("SELECT state FROM order_intents")))
    assert "dry_run" in states, output
    assert states <= {"dry_run", "refused"}
    assert small.submissions() == []


@pytest.mark.long
@pytest.mark.parametrize("round_number", range(50))
def test_two_processes_trade_at_once(small: SmallRoot, round_number: int) -> None:
    """One trades, one leaves with a sentence that says why; exactly one order per intent."""
    processes = [started(small.root, "trade", "--mode", "paper") for _ in range(2)]
    ended = [told(process) for process in processes]
    left = [output for _, output in ended if "Another" in output]
    traded = [output for _, output in ended if "Another" not in output]
    assert (len(left), len(traded)) == (1, 1), ended
    assert all("Traceback" not in output for _, output in ended)
    small.assert_exactly_once()
