"""`quant demo`: from nothing to a tear sheet on the local exchange.

1. Start the embedded PostgreSQL and the local exchange; remember the market's sessions.
2. Let the exchange's clock stand on the morning of the first trading session.
3. Ingest, validate, compute features and labels, train month by month, make signals: all history.
4. For each trading session: learn the session before; freeze and send the batch before the open; let
   the market open, book the fills and send what waited for them; let it close, reconcile, report.
5. Learn the last session, make the labels of longer horizons, backtest, and show what happened.

Each step looks for what is already there, so that the same command goes on after any interruption:
partitions are not made twice, the exchange's clock only moves forward, a frozen batch is finished.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from datetime import date, datetime, timedelta
from pathlib import Path

from rich.console import Console

from quant_assets.automation import jobs
from quant_assets.cli.demo_results import show_results
from quant_assets.cli.exchange import advance_to
from quant_assets.cli.graph_runs import GraphRunner
from quant_assets.cli.platform import Platform, default_market, only_one, running_platform
from quant_assets.cli.progress import shown_progress
from quant_assets.cli.trading_day import AFTER_OPEN, BEFORE_OPEN, EVENING, MORNING
from quant_assets.market_span import (
    DEFAULT_TRADING_SESSIONS,
    SESSIONS_BEFORE_FIRST_MODEL,
    MarketSpan,
    default_span,
    remember_span,
    remembered_span,
)
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.errors import ConfigurationError
from quant_resources.exchange.control import ExchangeControl
from quant_resources.exchange.process import EXCHANGE_FOLDER, stop_exchange
from quant_resources.exchange.spec import MarketSpec
from quant_resources.postgres import stop_postgres
from quant_resources.settings import Settings

#: A model month and the label horizon beside the sessions before the first model.
_SESSIONS_AT_LEAST = SESSIONS_BEFORE_FIRST_MODEL + 45 + DEFAULT_TRADING_SESSIONS
_CREATED = ("market.json", "dagster", "exchange")
_STAGES = ("market_data", "features", "models", "signals", "orders", "performance")


def run_demo(settings: Settings, console: Console, history: Path | None, fresh: bool) -> None:
    """Run the demo, or go on with it, and print what happened.

    Args:
        settings: Settings; the demo trades on the local exchange whatever they say of the mode.
        console: Where to print.
        history: Folder of bars to replay instead of the stochastic market.
        fresh: Whether to delete what an earlier demo left.

    Raises:
        QuantError: Naming what is wrong and what to do.
    """
    chosen = _demo_settings(settings)
    with only_one(chosen.data_root, "demo"):
        remembered = remembered_span(chosen.data_root)
        if remembered is not None and remembered.last_session is None:
            raise ConfigurationError(
                f"{chosen.data_root} holds a live market; give the demo a data root of its own "
                "(QUANT_DATA_ROOT)."
            )
        if fresh:
            if chosen.database_url is not None:
                raise ConfigurationError(
                    "--fresh deletes what lies under the data root and would leave the external "
                    "database behind; unset QUANT_DATABASE_URL, or name an empty database and an "
                    "empty QUANT_DATA_ROOT."
                )
            start_over(chosen.data_root)
        market = _market(history)
        with running_platform(chosen, market=market) as platform:
            platform.span = _span(platform, market)
            control = ExchangeControl(str(platform.exchange_url))
            with ExitStack() as stack:
                with shown_progress(console) as progress:
                    runner = stack.enter_context(platform.graph(progress))
                    _live_through(platform, runner, control)
                show_results(platform, control.status(), runner, console)


def start_over(data_root: Path) -> None:
    """Delete what the demo created under the data root, after stopping its servers.

    Nothing else in the folder is touched.
    """
    stop_exchange(data_root / EXCHANGE_FOLDER)
    stop_postgres(data_root)
    names = (*_CREATED, *_STAGES)
    for target in (*(data_root / name for name in names), *data_root.glob("postgres*")):
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def _demo_settings(settings: Settings) -> Settings:
    if settings.source != "exchange" or settings.resolved_trading_url is not None:
        raise ConfigurationError(
            "The demo trades on the local exchange only; unset QUANT_SOURCE, QUANT_DATA_URL and "
            "QUANT_TRADING_URL, or use `quant trade`."
        )
    return settings.model_copy(update={"trading_mode": "paper"})


def _market(history: Path | None) -> MarketSpec:
    if history is None:
        return default_market(default_span())
    return MarketSpec(kind="history", folder=history)


def _span(platform: Platform, market: MarketSpec) -> MarketSpan:
    root = platform.settings.data_root
    remembered = remembered_span(root)
    if remembered is not None:
        return remembered
    if market.kind == "stochastic":
        span = default_span()
    else:
        status = ExchangeControl(str(platform.exchange_url)).status()
        first, last = (
            date.fromisoformat(status[name]) for name in ("first_session", "last_session")
        )
        sessions = XNYS.sessions(first, last)
        if len(sessions) < _SESSIONS_AT_LEAST:
            # Nothing is left behind that a corrected history would stumble over.
            stop_exchange(root / EXCHANGE_FOLDER)
            shutil.rmtree(root / EXCHANGE_FOLDER)
            raise ConfigurationError(
                f"The history in {market.folder} holds {len(sessions)} sessions "
                f"({first} to {last}); the demo needs at least "
                f"{_SESSIONS_AT_LEAST} to train a model and trade."
            )
        span = MarketSpan.counted(sessions[0], len(sessions), DEFAULT_TRADING_SESSIONS)
    convention = platform.settings.dividend_convention
    span = span.model_copy(update={"dividend_convention": convention})
    remember_span(root, span)
    return span


def _live_through(platform: Platform, runner: GraphRunner, control: ExchangeControl) -> None:
    span = platform.span
    day = platform.trading_day(runner)
    trading = XNYS.sessions(span.first_trading_session, span.sessions()[-1])
    for session in trading:
        if day.traded(session):
            continue
        advance_to(control, datetime.combine(session, MORNING, NEW_YORK))
        # A run for every horizon on every morning costs seconds: step 5 makes the others at once.
        day.learn_until(XNYS.previous(session), complete=False)
        advance_to(control, datetime.combine(session, BEFORE_OPEN, NEW_YORK))
        day.trade(session)
        advance_to(control, datetime.combine(session, AFTER_OPEN, NEW_YORK))
        platform.update_orders()
        advance_to(control, datetime.combine(session, EVENING, NEW_YORK))
        # The report sets the account beside the backtests.
        day.backtest()
        day.settle(session)
    morning_after = datetime.combine(trading[-1] + timedelta(days=1), MORNING, NEW_YORK)
    advance_to(control, morning_after)
    day.learn_until(trading[-1])
    if runner.tally.runs or runner.never_made(jobs.BACKTEST):
        day.backtest()
