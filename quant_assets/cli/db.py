"""`quant db`: the databases behind the graph.

Belongs here: what a user does with PostgreSQL itself. Does not belong here: how servers are started
(`quant_resources/postgres.py`) and what the ledger holds.
"""

from __future__ import annotations

import shlex
from typing import Annotated

import typer
from rich.console import Console

from quant_resources.settings import load_settings

app = typer.Typer(help="The databases: the ledger's and Dagster's own.", no_args_is_help=True)


@app.command("url")
def url(
    ledger: Annotated[
        bool, typer.Option("--ledger", help="Print the ledger's URL alone, for psql and others.")
    ] = False,
) -> None:
    """Print the variables for a plain `dagster dev`: eval "$(uv run quant db url)".

    Starts the embedded server, which then runs until `quant db stop`.
    """
    from quant_resources.databases import ensure_databases
    from quant_resources.launch import LOCAL_KEY, launch_environment
    from quant_resources.ledger.migrate import migrate
    from quant_resources.postgres_use import keep_postgres

    settings = load_settings()
    if settings.database_url is None:
        keep_postgres(settings.data_root)
    databases = ensure_databases(settings)
    migrate(databases.ledger_url)
    if ledger:
        # As every other program writes it: the driver in the URL is SQLAlchemy's.
        typer.echo(databases.ledger_url.replace("postgresql+psycopg2:", "postgresql:"))
        return
    for name, value in sorted(launch_environment(settings, databases).items()):
        # A broker's keys stay where they are: in the environment or in .env.
        if not name.startswith("ALPACA_") or value == LOCAL_KEY:
            typer.echo(f"export {name}={shlex.quote(value)}")


@app.command("migrate")
def migrate_ledger() -> None:
    """Bring the ledger's tables up to date with this version of the program."""
    from quant_resources.databases import used_databases
    from quant_resources.ledger.migrate import migrate

    with used_databases(load_settings()) as databases:
        done = migrate(databases.ledger_url)
    Console().print("The ledger was migrated." if done else "The ledger is up to date.")


@app.command("stop")
def stop() -> None:
    """Stop the embedded server; what it holds stays. An external server is left alone."""
    from quant_resources.postgres import stop_postgres

    stopped = stop_postgres(load_settings().data_root)
    Console().print("PostgreSQL was stopped." if stopped else "PostgreSQL was not running.")
