"""`quant data files`: what the platform makes of the user's own files, before anything is stored."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from quant_resources.errors import SourceError
from quant_resources.settings import load_settings

_SESSIONS_SHOWN = 10


def files(
    example: Annotated[
        bool, typer.Option("--example", help="Print a commented layout to start from.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Check the layout of your own bar files and show what is in them; nothing is stored."""
    from quant_assets.cli.shown import print_rows
    from quant_resources.file_bars import FileBars
    from quant_resources.file_inspection import inspect
    from quant_resources.file_layout import example_layout
    from quant_resources.resources import FILE_CACHE

    console = Console()
    if example:
        typer.echo(example_layout(), nl=False)
        return
    settings = load_settings()
    source = FileBars.from_layout(settings.files_layout, settings.data_root / FILE_CACHE)
    with console.status("Reading the files …"):
        found = inspect(source)
    declared = source.layout.prices
    if as_json:
        told = {**found.counts, "declared": declared, "evidence": found.verdict}
        print_rows(console, "", [{**told, "refused": found.refusal}], as_json=True)
    else:
        title = f"{source.name}, as {settings.files_layout} describes it"
        print_rows(console, title, [{"what": k, "found": v} for k, v in found.counts.items()])
        if found.missing_sessions:
            shown = ", ".join(map(str, found.missing_sessions[:_SESSIONS_SHOWN]))
            more = " …" if len(found.missing_sessions) > _SESSIONS_SHOWN else ""
            console.print(f"Sessions without any bar: {shown}{more}")
        if found.unreadable.height:
            print_rows(console, "Cells that cannot be read", found.unreadable.to_dicts())
        contrary = found.splits.filter(supports="split_adjusted" if declared == "raw" else "raw")
        if contrary.height:
            print_rows(console, "Splits that contradict", contrary.head(10).to_dicts())
        console.print(f"Prices are declared {declared}: {found.verdict}", highlight=False)
        if found.sample.height:
            sample = found.sample.drop("source", "asof", "observed_at", "bar_time")
            given = [column for column in sample if column.null_count() < sample.height]
            rows = sample.select(given).to_dicts()
            print_rows(console, "As the platform gets them", rows)
    if found.refusal is not None:
        raise SourceError(found.refusal)
