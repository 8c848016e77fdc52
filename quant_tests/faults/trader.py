"""A process that trades one part of a session and can be killed at any numbered step of the protocol.

Steps are counted where state leaves the process: every commit that writes to the ledger and every request to
the broker, each before and after. The killing is SIGKILL by its own hand: nothing is flushed, closed or
rolled back. The process is told by its exit code; what it did at which step it writes to a trace.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sys
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import polars as pl
import requests
from sqlalchemy import event

from quant_assets.orders.batches import frozen_batch, trade_session
from quant_assets.orders.policy import TradingPolicy
from quant_assets.orders.submission import PassReport, finish_unfinished, trading_desk
from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.ledger.ledger import Ledger, LedgerBusyError
from quant_resources.postgres import stop_postgres

#: Exit codes: all done; an error; the pass ended early and must be started again; another process trades.
DONE, FAILED, STOPPED, LEFT = 0, 1, 16, 17
#: A process that was not killed and does not end is no result, but a failure of its own.
_LONGEST_SECONDS = 60
CONTEXT = multiprocessing.get_context("forkserver")
# Imported once, not by every process that is killed: what this module and the command of the matrix need.
CONTEXT.set_forkserver_preload(
    [__name__, "quant_tests.faults.crash_cells", "quant_resources.ledger.migrate"]
)

Part = Literal["trade", "pass", "replan"]
_WRITTEN = re.compile(r'\s*(?:INSERT INTO|UPDATE|DELETE FROM) "?(\w+)')
_AN_ID = re.compile(r"(?<=/orders/)[^/?]+")


@dataclass(frozen=True)
class Work:
    """What a trading process needs to know.

    Attributes:
        targets: The session's target portfolio as the asset left it.
        part: What is done: trade the session, one pass, or a re-plan (which is begun once, and then
            finished, as a person does it).
        wait_seconds: How long it waits for another process that trades the account.
        timeout: Seconds after which an answer counts as none.
        trace: Where the steps are written; None for nowhere.
        outcome: Where the last words are written; None for nowhere.
        database: Data root of the PostgreSQL server that is stopped at the step, in place of the process
            that is killed there.
    """

    ledger_url: str
    exchange_url: str
    targets: Path
    session: date
    policy: TradingPolicy
    volumes: dict[str, Decimal]
    part: Part = "trade"
    wait_seconds: float = 0.0
    timeout: float = 5.0
    trace: Path | None = None
    outcome: Path | None = None
    database: Path | None = None


@dataclass
class Steps:
    """Counts the steps and kills the process, or stops the database, at one of them.

    Attributes:
        kill_at: Number of the step, from 1; 0 never kills.
        requests: Requests to the broker so far; `posts` those that submit an order.
    """

    trace: Path | None = None
    kill_at: int = 0
    database: Path | None = None
    seen: int = 0
    requests: int = 0
    posts: int = 0
    written: set[str] = field(default_factory=set)

    def step(self, name: str, moment: Literal["before", "after"], *, writes: bool = True) -> None:
        """Count one step; perhaps the last."""
        self.seen += 1
        if self.trace is not None:
            told = {
                "number": self.seen,
                "name": name,
                "moment": moment,
                "writes": writes,
                "requests": self.requests,
                "posts": self.posts,
            }
            with self.trace.open("a") as lines:
                lines.write(json.dumps(told) + "\n")
        if self.seen == self.kill_at:
            self.strike()

    def strike(self) -> None:
        """What happens at the step."""
        if self.database is not None:
            stop_postgres(self.database)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch_ledger(self, ledger: Ledger) -> None:
        """Count commits; those of transactions that only read are none."""
        dialect = ledger.engine.dialect
        commit = dialect.do_commit

        def do_commit(connection: Any) -> None:
            if not self.written:
                commit(connection)
                return
            name = "commit " + ", ".join(sorted(self.written))
            self.step(name, "before")
            commit(connection)
            self.written.clear()
            self.step(name, "after")

        dialect.do_commit = do_commit  # type: ignore[method-assign]
        event.listen(ledger.engine, "before_cursor_execute", self._remember)
        event.listen(ledger.engine, "rollback", lambda _: self.written.clear())

    def watch_requests(self) -> None:
        """Count requests of whatever client: what is sent, and that it came back or was lost."""
        send = requests.Session.send

        def sending(session: requests.Session, request: Any, **options: Any) -> Any:
            path = urlsplit(request.url).path
            if path.startswith("/exchange/"):
                return send(session, request, **options)
            name = f"{request.method} {_AN_ID.sub('<id>', path)}"
            writes = request.method != "GET"
            self.step(name, "before", writes=writes)
            self.requests += 1
            self.posts += request.method == "POST" and path == "/v2/orders"
            try:
                return send(session, request, **options)
            finally:
                self.step(name, "after", writes=writes)

        requests.Session.send = sending  # type: ignore[method-assign]

    def _remember(self, *arguments: Any) -> None:
        _, _, statement, parameters, *_ = arguments
        table = _WRITTEN.match(statement)
        if table is None:
            return
        if table[1] != "order_events":
            self.written.add(table[1])
            return
        rows = parameters if isinstance(parameters, list | tuple) else [parameters]
        states = {v for row in rows for k, v in row.items() if k.startswith("to_state")}
        self.written |= {f"order_events → {state}" for state in states}


def trade(work: Work, kill_at: int = 0) -> None:
    """Do the work; ends with one of the exit codes, or 1 with the error as the last words."""
    try:
        report = _traded(work, kill_at)
    except LedgerBusyError as error:
        _leave(work, LEFT, str(error))
    except Exception as error:
        if work.outcome is None:
            raise
        _leave(work, FAILED, f"{type(error).__name__}: {error}")
    else:
        _leave(work, STOPPED if report.stopped else DONE, report.stopped)


def _traded(work: Work, kill_at: int) -> PassReport:
    steps = Steps(work.trace, kill_at, work.database)
    ledger = Ledger(work.ledger_url)
    broker = AlpacaBroker(
        work.exchange_url,
        work.exchange_url,
        "key",
        "secret",
        timeout=(2.0, work.timeout),
        backoff=(0.01, 0.02, 0.04),
    )
    steps.watch_ledger(ledger)
    steps.watch_requests()
    with trading_desk(ledger, broker, work.policy, work.wait_seconds) as desk:
        if work.part == "pass":
            return finish_unfinished(desk)
        frozen = frozen_batch(ledger, work.policy, work.session)
        replan = work.part == "replan" and (frozen is None or frozen.attempt == 1)
        targets = pl.read_parquet(work.targets)
        return trade_session(desk, work.session, targets, work.volumes, replan)[1]


def _leave(work: Work, code: int, words: str) -> None:
    if work.outcome is not None:
        work.outcome.write_text(words)
    sys.exit(code)


def run(work: Work, kill_at: int = 0) -> int:
    """Trade in a process of its own; returns its exit code (negative: the signal that killed it)."""
    process = start(work, kill_at)
    process.join(_LONGEST_SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"The process did not end within {_LONGEST_SECONDS} s.")
    return process.exitcode


def start(work: Work, kill_at: int = 0) -> Any:
    """Start a trading process."""
    process = CONTEXT.Process(target=trade, args=(work, kill_at))
    process.start()
    return process
