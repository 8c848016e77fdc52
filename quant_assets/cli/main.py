"""The `quant` command: every command is mounted here and errors become one sentence.

What a command does is in the file of its name.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

import typer
from dagster import DagsterExecutionInterruptedError
from rich.console import Console
from rich.markup import escape

from quant_assets.cli import (
    backfill,
    data,
    db,
    demo_command,
    dev,
    exchange,
    explain,
    follow,
    market,
    models,
    orders,
    prove,
    reconcile,
    report,
    signals,
    status,
    trade,
    trading_state,
)
from quant_resources.errors import QuantError

_INTERRUPTED = 130

app = typer.Typer(
    name="quant",
    help="A quantitative trading platform in which everything is a Dagster asset.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("demo")(demo_command.demo)
app.command("dev")(dev.dev)
app.command("backfill")(backfill.backfill)
app.command("trade")(trade.trade)
app.command("follow")(follow.follow)
app.command("prove")(prove.prove)
app.command("status")(status.status)
app.command("reconcile")(reconcile.reconcile)
app.command("orders")(orders.orders)
app.command("limits")(orders.limits)
app.command("explain")(explain.explain)
app.command("signals")(signals.signals)
app.command("report")(report.report)
app.command("halt")(trading_state.halt)
app.command("resume")(trading_state.resume)
app.add_typer(data.app, name="data")
app.add_typer(market.app, name="market")
app.add_typer(models.app, name="models")
app.add_typer(exchange.app, name="exchange")
app.add_typer(db.app, name="db")


def main() -> None:
    """Run the command line: 0 done, 1 with one sentence on error, 2 on wrong usage, 130 on Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)
    errors = Console(stderr=True)
    try:
        app()
    except QuantError as error:
        errors.print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False)
        sys.exit(1)
    except (KeyboardInterrupt, DagsterExecutionInterruptedError):
        _say_interrupted(errors)
    except SystemExit as ended:
        # Typer has made an exit code of Ctrl-C already.
        if ended.code != _INTERRUPTED:
            raise
        _say_interrupted(errors)


def _say_interrupted(errors: Console) -> None:
    errors.print("Interrupted; the same command goes on where it was.")
    sys.exit(_INTERRUPTED)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # A polite kill ends like Ctrl-C, so that what was started is stopped.
    raise KeyboardInterrupt
