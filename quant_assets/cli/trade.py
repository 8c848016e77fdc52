"""`quant trade`: one trading session, from the newest bars to orders, and in the evening the books."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.errors import ConfigurationError
from quant_resources.settings import load_settings

if TYPE_CHECKING:
    from datetime import date

    from quant_assets.cli.graph_runs import GraphRunner, Tally
    from quant_assets.cli.platform import Platform
    from quant_assets.orders.submission import PassReport


def trade(
    mode: Annotated[
        Literal["dry_run", "paper", "live"] | None,
        typer.Option(help="Overrides QUANT_TRADING_MODE; dry_run sends nothing."),
    ] = None,
    update: Annotated[
        bool,
        typer.Option(
            "--update", help="Between open and close: book fills, send what waited for them."
        ),
    ] = False,
    settle: Annotated[
        bool, typer.Option("--settle", help="Book and report the session that has closed.")
    ] = False,
    replan: Annotated[
        bool,
        typer.Option(
            "--replan",
            help="Plan the session anew: cancel what is open, keep what filled, send the difference.",
        ),
    ] = False,
) -> None:
    """Trade the broker's current session; on the local exchange its clock is moved along.

    With Alpaca: run it before the open, with --update after it (second legs of flips and purchases
    that wait for money need that), and with --settle after the close.
    """
    from quant_assets.cli.exchange import advance_to
    from quant_assets.cli.platform import only_one, running_platform
    from quant_assets.cli.progress import shown_progress
    from quant_assets.cli.refetch import refetch_recent
    from quant_assets.cli.trading_day import AFTER_OPEN, BEFORE_OPEN, EVENING, MORNING
    from quant_assets.definitions import trading_policy
    from quant_assets.orders.submission import check_switches
    from quant_assets.orders.trading_sessions import session_to_settle, session_to_trade
    from quant_resources.exchange.control import ExchangeControl

    settings, console = load_settings(), Console()
    if mode is not None:
        settings = settings.model_copy(update={"trading_mode": mode})
    if settings.trading_mode == "live" and not settings.live_account:
        raise ConfigurationError(
            "Live trading takes two switches: set QUANT_LIVE_ACCOUNT to the account number as well."
        )
    # A limit that is absurd refuses before anything is started, fetched or learned.
    policy = trading_policy(settings)
    with only_one(settings.data_root, "trade"), running_platform(settings) as platform:
        if update:
            _show(console, platform.update_orders())
            return
        if not settle:
            # Before anything is fetched or learned, and before the local exchange's clock moves.
            check_switches(policy, platform.broker, platform.broker.account())
            _assert_not_halted(platform)
        control = ExchangeControl(platform.exchange_url) if platform.exchange_url else None
        clock = platform.broker.clock()
        session = session_to_settle(clock) if settle else session_to_trade(clock)
        platform.reach(session)
        with (
            shown_progress(console) as progress,
            platform.graph(progress) as runner,
            _halting_on_failed_checks(platform, runner),
        ):
            day = platform.trading_day(runner)
            if not settle:
                if control is not None:
                    advance_to(control, datetime.combine(session, MORNING, NEW_YORK))
                newest = XNYS.previous(session)
                refetch_recent(platform, runner, newest)
                day.learn_until(newest)
                if control is not None:
                    advance_to(control, datetime.combine(session, BEFORE_OPEN, NEW_YORK))
                day.trade(session, replan)
                if control is not None:
                    advance_to(control, datetime.combine(session, AFTER_OPEN, NEW_YORK))
                    _show(console, platform.update_orders())
            if control is not None:
                advance_to(control, datetime.combine(session, EVENING, NEW_YORK))
            if settle or control is not None:
                day.settle(session)
        _tell(
            console,
            session,
            settings.trading_mode,
            runner.tally,
            rehearsed=control is not None,
            settle=settle,
        )


def _tell(
    console: Console, session: date, mode: str, tally: Tally, *, rehearsed: bool, settle: bool
) -> None:
    from quant_assets.cli.backfill import assert_nothing_failed

    traded = "decided, nothing sent," if mode == "dry_run" else "traded"
    done = f"{traded} and settled" if rehearsed else ("settled" if settle else traded)
    console.print(
        f"{session}: {done} in mode {mode}; {tally.checks_passed} checks passed, "
        f"{len(tally.checks_failed)} failed."
    )
    for sentence in tally.sentences():
        console.print(f"  {sentence}", highlight=False)
    assert_nothing_failed(tally.failed_steps)


@contextmanager
def _halting_on_failed_checks(platform: Platform, runner: GraphRunner) -> Iterator[None]:
    """A blocking check that fails stops its run; the book must know it, for the runs after."""
    from quant_assets.automation.failed_checks import halt_on_failed_trading_day
    from quant_assets.cli.graph_runs import RunFailedError

    try:
        yield
    except RunFailedError:
        halt_on_failed_trading_day(
            runner.instance,
            runner.last_run_id,
            platform.ledger,
            platform.broker,
            platform.settings.book,
        )
        raise


def _show(console: Console, done: PassReport) -> None:
    console.print(
        f"{done.sent} sent, {done.adopted} adopted, {done.rejected} rejected, {done.expired} expired, "
        f"{done.left} left. {done.stopped}".strip()
    )


def _assert_not_halted(platform: Platform) -> None:
    from quant_resources.ledger.account_book import trading_status

    with platform.ledger.begin() as transaction:
        status = trading_status(transaction, platform.settings.book)
    if status.state == "HALTED":
        raise ConfigurationError(
            f"Book {platform.settings.book} is HALTED ({status.reason}); look into it, then "
            "`quant resume --reason WHY`."
        )
