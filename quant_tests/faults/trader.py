"""A process that trades one session and can be killed at any numbered step of the protocol.

Steps are counted where state leaves the process: every commit to the ledger and every request to the broker,
before and after. The killing is SIGKILL by its own hand: nothing is flushed, closed or rolled back.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
from sqlalchemy import event

from quant_assets.orders.batches import trade_session
from quant_assets.orders.policy import TradingPolicy
from quant_assets.orders.submission import trading_desk
from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.ledger.ledger import Ledger, LedgerBusyError

LEFT = 17
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Work:
    """What a trading process needs to know."""

    ledger_url: str
    trading_url: str
    data_url: str
    targets: Path
    session: date
    policy: TradingPolicy
    timeout: float = 5.0


@dataclass
class Steps:
    """Counts steps of a kind and kills the process at one of them.

    Attributes:
        kind: "commit", "request" (before it leaves) or "answer" (after it came).
        number: 0 never kills.
    """

    kind: str = ""
    number: int = 0
    seen: int = 0

    def step(self, kind: str) -> None:
        """Count one step; perhaps the last."""
        if kind == self.kind:
            self.seen += 1
            if self.seen == self.number:
                os.kill(os.getpid(), signal.SIGKILL)


def trade(work: Work, kill_kind: str = "", kill_at: int = 0) -> None:
    """Trade the session; leaves with `LEFT` when another process trades the account."""
    steps = Steps(kill_kind, kill_at)
    ledger = Ledger(work.ledger_url)
    event.listen(ledger.engine, "commit", lambda _connection: steps.step("commit"))
    broker = AlpacaBroker(
        work.trading_url,
        work.data_url,
        "key",
        "secret",
        timeout=(2.0, work.timeout),
        backoff=(0.01, 0.02, 0.04),
    )
    _count_requests(broker, steps)
    try:
        with trading_desk(ledger, broker, work.policy) as desk:
            trade_session(desk, work.session, pl.read_parquet(work.targets))
    except LedgerBusyError:
        sys.exit(LEFT)


def run(work: Work, kill_kind: str = "", kill_at: int = 0) -> int:
    """Trade in a process of its own; returns its exit code (negative: the signal that killed it)."""
    process = start(work, kill_kind, kill_at)
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def start(work: Work, kill_kind: str = "", kill_at: int = 0) -> Any:
    """Start a trading process."""
    process = CONTEXT.Process(target=trade, args=(work, kill_kind, kill_at))
    process.start()
    return process


def _count_requests(broker: AlpacaBroker, steps: Steps) -> None:
    session = broker._trading._session
    sending = session.send

    def send(*args: Any, **kwargs: Any) -> Any:
        steps.step("request")
        answer = sending(*args, **kwargs)
        steps.step("answer")
        return answer

    session.send = send
