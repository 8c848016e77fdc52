"""`quant report`: where the newest tear sheet is and what it says in numbers."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from quant_resources.errors import MissingPartitionError
from quant_resources.settings import load_settings


def report(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show the report of the newest trading session that was settled."""
    from quant_assets.cli.shown import print_rows
    from quant_assets.performance.schemas import REPORT
    from quant_resources.store import Store

    settings = load_settings()
    store, console = Store(settings.data_root), Console()
    sessions = store.partitions(REPORT)
    if not sessions:
        raise MissingPartitionError(
            "There is no report yet; `quant demo` makes one, `quant trade --settle` too."
        )
    rows = store.read(REPORT, sessions[-1:]).drop("trading_session").collect().to_dicts()
    print_rows(console, f"Report of {sessions[-1]}", rows, as_json)
