"""`quant status`: what runs, how fresh every table is, whether the book may trade."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from quant_resources.errors import ConfigurationError
from quant_resources.settings import load_settings


def status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show the state of the data root without starting anything."""
    from quant_assets.cli.shown import print_rows
    from quant_assets.definitions import all_tables
    from quant_assets.market_span import remembered_span
    from quant_assets.signals.discovery import discover
    from quant_resources.ledger.account_book import trading_status
    from quant_resources.ledger.ledger import Ledger
    from quant_resources.postgres import ensure_postgres, is_running
    from quant_resources.store import Store

    settings, console = load_settings(), Console()
    if not settings.data_root.exists():
        raise ConfigurationError(
            f"There is no data root {settings.data_root} yet: run `quant demo`, or set QUANT_DATA_ROOT."
        )
    store = Store(settings.data_root)
    rows: list[dict[str, Any]] = []
    for table in all_tables(discover()):
        keys = store.partitions(table)
        rows.append(
            {
                "table": table.path,
                "partitions": len(keys) if table.partition_column else int(store.exists(table)),
                "first": keys[0] if keys else None,
                "newest": keys[-1] if keys else None,
            }
        )
    if as_json:
        print_rows(console, "", rows, as_json=True)
        return
    span = remembered_span(settings.data_root)
    console.print(f"Data root {settings.data_root}, mode {settings.trading_mode}.", highlight=False)
    console.print(
        f"Market {span.first_session} to {span.last_session or 'today'}, traded from "
        f"{span.first_trading_session}."
        if span
        else "No market yet: run `quant demo`, or `quant backfill`.",
        highlight=False,
    )
    external = settings.database_url
    if external is None and not is_running(settings.data_root):
        console.print("PostgreSQL is not running; commands start it when they need it.")
    else:
        url = external.get_secret_value() if external else ""
        ledger = Ledger(url or ensure_postgres(settings.data_root).ledger_url)
        with ledger.begin() as transaction:
            state = trading_status(transaction, settings.book)
        ledger.dispose()
        console.print(f"Book {settings.book} is {state.state}: {state.reason}.", highlight=False)
    print_rows(console, "Tables", rows)
