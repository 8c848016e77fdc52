"""`quant status`: what is stored, how fresh and how whole it is, whether the book may trade."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from quant_resources.calendar import NEW_YORK
from quant_resources.errors import ConfigurationError
from quant_resources.settings import load_settings

if TYPE_CHECKING:
    import polars as pl

    from quant_assets.market_data.freshness import Freshness

#: Newest sessions whose coverage is shown.
SESSIONS_COVERED = 20
_SYMBOLS_SHOWN = 10


def status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show the state of the data root without starting anything."""
    from quant_assets.cli.shown import print_document, print_rows
    from quant_assets.cli.stored_data import (
        clock_in_force,
        sessions_missing,
        stored_coverage,
        stored_freshness,
    )
    from quant_assets.definitions import all_tables
    from quant_assets.features import schemas as features_schemas
    from quant_assets.market_data.coverage import by_session, by_symbol
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
    missing = sessions_missing(store, features_schemas.TABLES)
    rows: list[dict[str, Any]] = []
    for table in all_tables(discover()):
        keys = store.partitions(table)
        rows.append(
            {
                "table": table.path,
                "partitions": len(keys) if table.partition_column else int(store.exists(table)),
                "first": keys[0] if keys else None,
                "newest": keys[-1] if keys else None,
                "missing": len(missing[table.path]) if table.path in missing else None,
            }
        )
    now, whose = clock_in_force(settings)
    fresh = stored_freshness(settings, store, now)
    covered = stored_coverage(store, newest=SESSIONS_COVERED)
    if as_json:
        document = {
            "freshness": {
                "is_fresh": fresh.is_fresh,
                "verdict": fresh.verdict,
                "due": fresh.due,
                "stored": fresh.stored,
                "sessions_behind": fresh.behind,
                "age_hours": None if fresh.age is None else fresh.age / timedelta(hours=1),
                "now": fresh.now,
                "clock": whose,
            },
            "coverage": {
                "sessions": by_session(covered).to_dicts(),
                "symbols": by_symbol(covered).to_dicts(),
            },
            "tables": rows,
        }
        print_document(console, document)
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
    _print_freshness(console, fresh, whose)
    _print_coverage(console, covered)
    print_rows(console, "Tables", rows)
    incomplete = [f"{path} ({len(keys)})" for path, keys in missing.items() if keys]
    if incomplete:
        console.print(
            f"Sessions whose bars are stored are missing in {', '.join(incomplete)}: `quant backfill` makes them.",
            highlight=False,
        )


def _print_freshness(console: Console, fresh: Freshness, whose: str) -> None:
    style = "green" if fresh.is_fresh else "bold red"
    console.print(f"[{style}]{fresh.verdict}[/]", highlight=False)
    newest = (
        "Nothing is stored"
        if fresh.age is None
        else f"Newest stored session: {fresh.stored}, closed {_duration(fresh.age)} ago"
    )
    console.print(
        f"{newest}; it is {fresh.now.astimezone(NEW_YORK):%Y-%m-%d %H:%M} New York by {whose}.",
        highlight=False,
    )


def _duration(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours:.1f} hours" if abs(hours) < 48 else f"{hours / 24:.1f} days"


def _print_coverage(console: Console, covered: pl.DataFrame) -> None:
    from quant_assets.cli.shown import print_rows
    from quant_assets.market_data.coverage import by_session, by_symbol

    if covered.is_empty():
        console.print("No coverage is stored yet; `quant backfill` makes it with the market data.")
        return
    sessions, symbols = by_session(covered), by_symbol(covered)
    print_rows(
        console, f"Coverage of the newest {sessions.height} sessions", sessions.reverse().to_dicts()
    )
    if symbols.height:
        shown = symbols.head(_SYMBOLS_SHOWN)
        title = f"Symbols with gaps, {shown.height} of {symbols.height} (`quant data coverage`)"
        print_rows(console, title, shown.to_dicts())
