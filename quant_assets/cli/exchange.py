"""`quant exchange`: the local exchange's clock, for rehearsals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from typing import Annotated

import typer
from rich.console import Console

from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.errors import ConfigurationError
from quant_resources.exchange.control import ExchangeControl
from quant_resources.exchange.process import ensure_exchange, stop_exchange
from quant_resources.resources import EXCHANGE_FOLDER
from quant_resources.settings import load_settings

app = typer.Typer(help="The local exchange.", no_args_is_help=True)


@app.command("start")
def start(
    port: Annotated[int, typer.Option(help="Port on loopback; 0 takes a free one.")] = 0,
) -> None:
    """Start the exchange of the data root and leave it running."""
    from quant_assets.cli.platform import default_market
    from quant_assets.market_span import default_span, remembered_span

    settings = load_settings()
    remembered = remembered_span(settings.data_root)
    state = settings.data_root / EXCHANGE_FOLDER
    market = None if remembered else default_market(default_span())
    endpoint = ensure_exchange(state, market, port)
    Console().print(f"The local exchange answers on {endpoint.url} (process {endpoint.pid}).")


@app.command("stop")
def stop() -> None:
    """Stop the exchange; its state stays."""
    stopped = stop_exchange(load_settings().data_root / EXCHANGE_FOLDER)
    Console().print("Stopped." if stopped else "It was not running.")


@app.command("status")
def status() -> None:
    """Show its clock and market."""
    with _control() as control:
        shown, clock = control.status(), control.clock().astimezone(NEW_YORK)
    Console().print(
        f"{clock:%Y-%m-%d %H:%M} New York, {shown['market_kind']} market of {shown['symbols']} symbols, "
        f"{shown['first_session']} to {shown['last_session']}."
    )


@app.command("advance")
def advance(
    to: Annotated[str, typer.Argument(help="YYYY-MM-DD or YYYY-MM-DDTHH:MM, New York time.")],
) -> None:
    """Move its clock forward; what happens on the way happens."""
    try:
        moment = datetime.fromisoformat(to)
    except ValueError:
        raise ConfigurationError(f"{to!r} is no moment; write 2025-01-23T18:00.") from None
    if len(to) == len(date.min.isoformat()):
        moment = datetime.combine(moment.date(), time(7))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=NEW_YORK)
    with _control() as control:
        control.advance(moment)
        clock = control.clock().astimezone(NEW_YORK)
    Console().print(
        f"The clock stands at {clock:%Y-%m-%d %H:%M} New York; next session "
        f"{XNYS.at_or_after(clock.date())}."
    )


def advance_to(control: ExchangeControl, moment: datetime) -> None:
    """Move the clock to a moment, unless it stands there or later already.

    The clock is durable and only goes forward: after an interruption it may stand later.
    """
    if control.clock() < moment:
        control.advance(moment)


@contextmanager
def _control() -> Iterator[ExchangeControl]:
    """The exchange of the data root; one that had to be started is stopped again."""
    state = load_settings().data_root / EXCHANGE_FOLDER
    endpoint = ensure_exchange(state, None)
    try:
        yield ExchangeControl(endpoint.url)
    finally:
        if endpoint.started:
            stop_exchange(state)
