"""`quant data`: what the market data is worth, and its repair; each command is in the file of its name."""

from __future__ import annotations

import typer

from quant_assets.cli import coverage, files, quarantine, refetch

app = typer.Typer(
    help="Market data: coverage, quarantine, what the vendor changed, files.", no_args_is_help=True
)
app.command("coverage")(coverage.coverage)
app.command("refetch")(refetch.refetch)
app.command("files")(files.files)
app.add_typer(quarantine.app, name="quarantine")
