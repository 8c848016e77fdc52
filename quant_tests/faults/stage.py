"""A trading day in four parts, each of which can be begun anew in a fraction of a second.

Belongs here: the day, its ledger and its exchange, and their snapshots at the beginning of every part. Does
not belong here: what is broken (`named_faults.py`) and what is compared with what (`truth.py`).

1. Monday is the past: positions are opened, one of them with a bracket whose legs rest at the exchange.
2. Tuesday is traded in four parts, each a process of its own:
   - `morning`, before the open: a flip (two legs), a reduction whose protective legs are cancelled first, a
     reduction, a purchase, and a purchase that the market fills only in part;
   - `midday`: a pass that books the open's fills and sends the second leg of the flip;
   - `replan`: a new attempt, which cancels what is open and nets what filled;
   - `evening`: a pass that books the close.
3. Where a part begins, the ledger is kept as a template database and the exchange's state as a folder. One
   server answers under one address for whatever state is on the stage.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Final, Literal
from uuid import uuid4

import polars as pl
import uvicorn
from sqlalchemy import URL, Engine, create_engine, make_url, text
from starlette.types import ASGIApp, Receive, Scope, Send

from quant_assets.orders.policy import TradingPolicy
from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.exchange.app import build_app
from quant_resources.exchange.control import ExchangeControl
from quant_resources.exchange.exchange import Exchange
from quant_resources.exchange.process import create_state
from quant_resources.exchange.serving import server_config
from quant_resources.exchange.spec import MarketSpec
from quant_resources.ledger.ledger import Ledger
from quant_resources.store import Store
from quant_tests.faults.trader import Part, Work
from quant_tests.orders import ground as trading
from quant_tests.orders.ground import Ground

MONDAY, TUESDAY = date(2024, 3, 4), date(2024, 3, 5)
PartName = Literal["morning", "midday", "replan", "evening"]
#: Seconds after which an answer counts as none; the hanging ones hang longer.
TIMEOUT: Final = 0.7
POLICY: Final = TradingPolicy.model_validate(
    trading.POLICY.model_dump()
    | {
        # A thin market shall be met, not avoided: it fills an order in part.
        "limits": trading.POLICY.limits.model_dump()
        | {"name_weight": Decimal("0.5"), "concentration": 4, "volume_share": 1},
        "allocations": {"alpha": Decimal("0.6"), "beta": Decimal("0.3")},
        "styles": {
            "beta": {
                "brackets": True,
                "time_in_force": "gtc",
                "stop_loss": "0.4",
                "take_profit": "0.4",
            }
        },
    }
)
_MONDAY: Final = {"alpha": {"AAA": 0.3, "EEE": -0.2}, "beta": {"CCC": 0.4}}
_TUESDAY: Final = {
    "alpha": {"AAA": -0.3, "EEE": -0.1, "BBB": 0.2, "THIN": 0.02},
    "beta": {"CCC": 0.2},
}
_REPLANNED: Final = {
    "alpha": {"AAA": -0.2, "EEE": -0.15, "BBB": 0.3, "THIN": 0.0},
    "beta": {"CCC": 0.2},
}


@dataclass(frozen=True)
class DayPart:
    """A part of the day.

    Attributes:
        at: Virtual New York time at which it begins.
        part: What its process does.
        weights: Strategy to weights, where it plans; those of the parts before otherwise.
    """

    name: PartName
    at: str
    part: Part
    weights: dict[str, dict[str, float]] | None = None


DAY: Final = (
    DayPart("morning", "08:30", "trade", _TUESDAY),
    DayPart("midday", "11:00", "pass"),
    DayPart("replan", "12:00", "replan", _REPLANNED),
    DayPart("evening", "18:00", "pass"),
)


class _Server:
    """One address for whichever exchange is on the stage."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        self._exchange: Exchange | None = None
        # With the protocol named, asyncio sends small answers at once instead of waiting 40 ms.
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        config = server_config(self)
        config.lifespan = "off"
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.002)

    def show(self, state: Path) -> None:
        """Put the exchange of a state folder on the stage."""
        self.clear()
        self._exchange = Exchange(state)
        self._app = build_app(self._exchange)

    def clear(self) -> None:
        """Take the exchange off the stage."""
        if self._exchange is not None:
            self._app = None
            self._exchange.state.close()
            self._exchange = None

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()
        self.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer for the exchange that is on the stage."""
        if self._app is not None:
            await self._app(scope, receive, send)

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._listener]))


@dataclass
class Stage:
    """The day at the beginning of any of its parts.

    Args:
        template: URL of a migrated, empty ledger database.
        folder: Where exchange states and targets lie.
    """

    template: str
    folder: Path
    policy: TradingPolicy = field(default_factory=lambda: POLICY)

    def __post_init__(self) -> None:
        self._prefix = f"stage_{uuid4().hex[:12]}"
        self._databases: set[str] = set()
        self._administrator = _administrator(make_url(self.template))
        self._server = _Server()
        self.broker = AlpacaBroker(
            self._server.url, self._server.url, "key", "secret", backoff=(0.01, 0.02, 0.04)
        )
        self.control = ExchangeControl(self._server.url)
        # One name for the ledger on the stage: what SQLAlchemy has learned of it stays useful.
        self._name = f"{self._prefix}_cell"
        self.ledger = Ledger(self._url(self._name))
        market = trading.history(self.folder / "market")
        spec = MarketSpec.model_validate({"kind": "history", "folder": market})
        self._state("past").mkdir(parents=True)
        create_state(self._state("past"), spec)
        self._rehearse()

    def close(self) -> None:
        """Stop the server, drop the databases."""
        self.broker.close()
        self._server.stop()
        for name in list(self._databases):
            self._drop(name)
        self._administrator.dispose()

    @contextmanager
    def at(self, part: PartName) -> Iterator[Ground]:
        """The ledger and the exchange as they are when a part begins."""
        self._clone(f"{self._prefix}_{part}", self._name)
        state = self.folder / "on_stage"
        shutil.copytree(self._state(part), state)
        self._server.show(state)
        try:
            yield self._ground(self.ledger)
        finally:
            self.ledger.dispose()
            self._server.clear()
            shutil.rmtree(state)
            self._drop(self._name)

    def work(self, part: PartName, ground: Ground, **changes: object) -> Work:
        """The work of a part's process."""
        work = Work(
            ledger_url=ground.ledger.url.render_as_string(hide_password=False),
            exchange_url=self._server.url,
            targets=self._targets(part),
            session=TUESDAY,
            policy=self.policy,
            volumes=dict(ground.volumes),
            part=_part(part).part,
            # The lock of a process that was killed is free when the server has noticed.
            wait_seconds=10.0,
            timeout=TIMEOUT,
            outcome=self.folder / "last_words",
        )
        return replace(work, **changes)  # type: ignore[arg-type]

    def _rehearse(self) -> None:
        """Play the day once without any trouble, and keep it where each part begins."""
        name = f"{self._prefix}_rehearsal"
        self._clone(make_url(self.template).database or "", name)
        state = self._state("rehearsal")
        shutil.copytree(self._state("past"), state)
        self._server.show(state)
        ledger = Ledger(self._url(name))
        ground = self._ground(ledger)
        ground.morning(MONDAY)
        plan = ground.plan(MONDAY, attempt=1, alpha=_MONDAY["alpha"], beta=_MONDAY["beta"])
        ground.send(MONDAY, ground.frame(plan, MONDAY))
        ground.evening(MONDAY)
        ground.finish()
        for part in DAY:
            ground.at(f"{TUESDAY} {part.at}")
            targets = self._targets(part.name)
            if part.weights is None:
                shutil.copy(self._targets("morning"), targets)
            else:
                attempt = 1 if part.part == "trade" else 2
                plan = ground.plan(
                    TUESDAY, attempt, alpha=part.weights["alpha"], beta=part.weights["beta"]
                )
                ground.frame(plan, TUESDAY).write_parquet(targets)
            ledger.dispose()
            self._server.clear()
            self._clone(name, f"{self._prefix}_{part.name}")
            shutil.copytree(state, self._state(part.name))
            self._server.show(state)
            ground = self._ground(ledger)
            self._play(part, ground)
        ledger.dispose()
        self._server.clear()
        self._drop(name)

    def _play(self, part: DayPart, ground: Ground) -> None:
        if part.part == "pass":
            report = ground.finish()
        else:
            frame = pl.read_parquet(self._targets(part.name))
            _, report = ground.send(TUESDAY, frame, part.part == "replan")
        assert report.stopped == "", report

    def _ground(self, ledger: Ledger) -> Ground:
        return Ground(
            exchange=self.control,
            broker=self.broker,
            ledger=ledger,
            store=Store(self.folder / "data"),
            folder=self.folder,
            policy=self.policy,
        )

    def _state(self, name: str) -> Path:
        return self.folder / "exchange" / name

    def _targets(self, part: PartName) -> Path:
        return self.folder / f"targets_{part}.parquet"

    def _url(self, database: str) -> str:
        url = make_url(self.template).set(database=database)
        return url.render_as_string(hide_password=False)

    def _clone(self, source: str, name: str) -> None:
        self._administer(f"CREATE DATABASE {name} TEMPLATE {source}")
        self._databases.add(name)

    def _drop(self, name: str) -> None:
        self._administer(f"DROP DATABASE {name} WITH (FORCE)")
        self._databases.discard(name)

    def _administer(self, statement: str) -> None:
        with self._administrator.connect() as connection:
            connection.execute(text(statement))


def _part(name: PartName) -> DayPart:
    return next(part for part in DAY if part.name == name)


def _administrator(url: URL) -> Engine:
    return create_engine(
        url.set(database="postgres"), isolation_level="AUTOCOMMIT", pool_pre_ping=True
    )


def without_waiting_for_the_disk(url: str) -> None:
    """Let a test's own server lose what a power cut would: no test cuts the power."""
    engine = _administrator(make_url(url))
    with engine.connect() as connection, suppress(Exception):
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(text(f"ALTER SYSTEM SET {setting} = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()
