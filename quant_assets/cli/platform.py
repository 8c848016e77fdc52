"""What a command needs to work: database, ledger, local exchange, graph and Dagster instance.

Started when they do not run, and stopped again by the command that started them. Which commands there
are is `main.py`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout

from quant_assets.cli.data_root import make_data_root
from quant_assets.cli.graph_runs import GraphRunner, Progress
from quant_assets.cli.trading_day import TradingDay
from quant_assets.definitions import all_tables, build_defs, trading_policy
from quant_assets.market_span import MarketSpan, market_span, remember_span
from quant_assets.orders.submission import PassReport, run_pass
from quant_assets.signals.discovery import discover
from quant_assets.signals.strategy import Strategy
from quant_resources.broker import Broker
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.dagster_storage import dagster_instance
from quant_resources.databases import used_databases
from quant_resources.errors import ConfigurationError
from quant_resources.exchange.process import ensure_exchange, stop_exchange
from quant_resources.exchange.spec import MarketSpec
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.migrate import migrate
from quant_resources.resources import (
    EXCHANGE_FOLDER,
    platform_resources,
    refuse_unusable_sources,
)
from quant_resources.settings import Settings
from quant_resources.store import Store, write_text_atomically


@dataclass
class Platform:
    """The running platform, for the length of one command.

    Attributes:
        settings: Settings in force.
        span: Market of the data root.
        strategies: The strategies of the graph.
        store: The data root.
        ledger: The ledger.
        exchange_url: Address of the local exchange; None with Alpaca.
    """

    settings: Settings
    span: MarketSpan
    strategies: tuple[Strategy, ...]
    store: Store
    ledger: Ledger
    exchange_url: str | None

    @cached_property
    def broker(self) -> Broker:
        """The broker, for commands that ask it something outside of a run."""
        return platform_resources(self.settings)["broker"].process_config_and_initialize()

    def update_orders(self) -> PassReport:
        """One pass over everything unfinished: book what filled, send what waited for it."""
        return run_pass(self.ledger, self.broker, trading_policy(self.settings))

    def reach(self, session: date) -> None:
        """Let a bounded market go on to a later session, and remember it."""
        last = self.span.last_session
        if last is not None and session > last:
            self.span = self.span.model_copy(update={"last_session": session})
            remember_span(self.settings.data_root, self.span)

    @contextmanager
    def graph(self, progress: Progress) -> Iterator[GraphRunner]:
        """Open the Dagster instance and give a runner of the whole graph."""
        with dagster_instance(self.settings) as instance, _without_preview_warnings():
            definitions = build_defs(self.settings, self.span, self.strategies)
            yield GraphRunner(definitions, instance, progress)

    @property
    def strategy_paths(self) -> tuple[str, ...]:
        """Asset paths of the strategies: a failure of one leaves the others running."""
        return tuple(
            table.path
            for table in all_tables(self.strategies)
            if any(strategy.name in table.name for strategy in self.strategies)
        )

    def trading_day(self, runner: GraphRunner) -> TradingDay:
        """The phases of a trading day on this market."""
        return TradingDay(runner, self.span, self.strategy_paths)


@contextmanager
def running_platform(
    settings: Settings, span: MarketSpan | None = None, market: MarketSpec | None = None
) -> Iterator[Platform]:
    """Start what is not running, migrate the ledger, and stop again what was started.

    Args:
        settings: Settings in force.
        span: Market of the data root; what it remembers by default.
        market: Market of a local exchange that does not exist yet.

    Raises:
        QuantError: Naming what could not be started and what to do.
    """
    root = settings.data_root
    chosen_span = span or market_span(settings)
    _assert_keys(settings)
    refuse_unusable_sources(settings)
    with ExitStack() as stack:
        ledger = stack.enter_context(ledger_only(settings))
        exchange_url = None
        if settings.source == "exchange" and settings.resolved_trading_url is None:
            state = root / EXCHANGE_FOLDER
            endpoint = ensure_exchange(state, market)
            exchange_url = endpoint.url
            # Left by a command that was killed, the mark still says that nobody else wants it.
            borrowed = state / "started_by_a_command"
            if endpoint.started:
                borrowed.touch()
            if borrowed.exists():
                stack.callback(_give_back, state, borrowed)
        yield Platform(
            settings=settings,
            span=chosen_span,
            strategies=discover(),
            store=Store(root),
            ledger=ledger,
            exchange_url=exchange_url,
        )


@contextmanager
def ledger_only(settings: Settings) -> Iterator[Ledger]:
    """The migrated ledger alone, for commands that need nothing else."""
    with used_databases(settings) as databases:
        migrate(databases.ledger_url)
        ledger = Ledger(databases.ledger_url)
        try:
            yield ledger
        finally:
            ledger.dispose()


def _assert_keys(settings: Settings) -> None:
    missing = [
        name
        for name, key in (
            ("ALPACA_API_KEY", settings.alpaca_api_key),
            ("ALPACA_SECRET_KEY", settings.alpaca_secret_key),
        )
        if key is None
    ]
    if settings.needs_alpaca and missing:
        raise ConfigurationError(
            f"Alpaca is to be asked (QUANT_SOURCE, QUANT_BARS, QUANT_SECOND_SOURCE), but {' and '.join(missing)} are not set; create keys in "
            "Alpaca's dashboard and set both."
        )


def _give_back(state: Path, borrowed: Path) -> None:
    stop_exchange(state)
    borrowed.unlink(missing_ok=True)


def default_market(span: MarketSpan) -> MarketSpec:
    """The stochastic market of a fresh checkout; one without an end goes on for some months from today."""
    today = XNYS.at_or_before(datetime.now(NEW_YORK).date())
    market = MarketSpec(
        kind="stochastic",
        first_session=span.first_session,
        last_session=span.last_session or today,
    )
    return market if span.last_session else market.model_copy(update={"sessions_beyond": 120})


@contextmanager
def only_one(data_root: Path, what: str) -> Iterator[None]:
    """Hold the data root for one command that changes it.

    Raises:
        ConfigurationError: Another process holds it.
        StorageError: The data root cannot be made.
    """
    make_data_root(data_root)
    holder = data_root / "command.pid"
    lock = FileLock(data_root / "command.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        told = holder.read_text().strip() if holder.exists() else "unknown"
        raise ConfigurationError(
            f"Another command works on {data_root} ({told}); wait for it or stop it."
        ) from None
    try:
        write_text_atomically(holder, f"quant {what}, process {os.getpid()}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


@contextmanager
def _without_preview_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        warnings.simplefilter("ignore", dg.BetaWarning)
        yield
