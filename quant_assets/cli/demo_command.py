"""`quant demo` as the user types it; the demo itself is `demo.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from quant_resources.settings import load_settings


def demo(
    history: Annotated[
        Path | None,
        typer.Option(help="Replay the bars in this folder (Parquet or CSV) instead."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete what an earlier demo left and start over.")
    ] = False,
) -> None:
    """The whole platform on the local exchange, from nothing to a tear sheet."""
    # Dagster and what comes with it take seconds to import: after `--help`, not before.
    from quant_assets.cli.demo import run_demo

    run_demo(load_settings(), Console(), history, fresh)
