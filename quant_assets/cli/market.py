"""`quant market`: where the market of this data root begins."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console

from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.errors import ConfigurationError
from quant_resources.settings import load_settings

app = typer.Typer(help="The market of the data root.", no_args_is_help=True)


@app.command("open")
def open_market(
    first: Annotated[str, typer.Argument(help="First day to ingest (YYYY-MM-DD).")],
) -> None:
    """Begin a live market: from a first session on, with the wall clock, traded from today."""
    from quant_assets.cli.backfill import day_of
    from quant_assets.market_span import MarketSpan, remember_span, remembered_span

    settings = load_settings()
    remembered = remembered_span(settings.data_root)
    if remembered is not None:
        raise ConfigurationError(
            f"{settings.data_root} has a market already (from {remembered.first_session}); choose "
            "another QUANT_DATA_ROOT for this one."
        )
    day = day_of(first)
    today = datetime.now(NEW_YORK).date()
    if day is None or day >= XNYS.previous(today):
        raise ConfigurationError(f"{first} has no closed session after it; name an earlier day.")
    span = MarketSpan(
        first_session=XNYS.at_or_after(day),
        last_session=None,
        first_trading_session=XNYS.at_or_after(today),
        dividend_convention=settings.dividend_convention,
    )
    remember_span(settings.data_root, span)
    Console().print(
        f"Market from {span.first_session} on, traded from {span.first_trading_session}; models "
        f"begin in {span.first_model_month:%Y-%m}. Next: `quant backfill`."
    )
    if settings.source == "exchange":
        Console().print(
            "Clock, asset list and orders are the local exchange's here: `quant exchange start`, then "
            "`quant exchange advance` to today. With QUANT_SOURCE=alpaca they are Alpaca's."
        )


@app.command("show")
def show() -> None:
    """Show the market that the data root remembers."""
    from quant_assets.market_span import remembered_span

    settings = load_settings()
    span = remembered_span(settings.data_root)
    Console().print(
        f"No market in {settings.data_root} yet."
        if span is None
        else f"{span.first_session} to {span.last_session or 'today'}, traded from "
        f"{span.first_trading_session}, models from {span.first_model_month:%Y-%m}, dividends "
        f"adjusted as by {span.dividend_convention}."
    )
