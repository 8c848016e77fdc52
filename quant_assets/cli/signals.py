"""`quant signals`: what every strategy says of a session, computed from what is stored."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from quant_resources.settings import load_settings


def signals(
    symbols: Annotated[list[str] | None, typer.Argument(help="Symbols; all by default.")] = None,
    day: Annotated[
        str | None, typer.Option("--date", help="Session (YYYY-MM-DD); the newest by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Compute the signals of a session on demand; nothing is stored."""
    from quant_assets.cli.backfill import day_of
    from quant_assets.cli.platform import ledger_only
    from quant_assets.cli.shown import print_rows
    from quant_assets.signals.on_demand import signals_on_demand
    from quant_resources.store import Store

    settings = load_settings()
    with ledger_only(settings) as ledger:
        frame = signals_on_demand(
            Store(settings.data_root), ledger, day_of(day), tuple(symbols or ())
        )
    shown = frame.drop("security_id")
    print_rows(Console(), "Signals", shown.to_dicts(), as_json)
