"""Progress of long work: a line per job with a bar and the time it has taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from quant_assets.cli.graph_runs import Progress as Report


@contextmanager
def shown_progress(console: Console) -> Iterator[Report]:
    """Show what runs now; without a terminal, print a line when something begins."""
    if not console.is_terminal:
        yield lambda label, done: console.print(f"  {label}") if done == 0 else None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=None)

        def report(label: str, done: float) -> None:
            if done == 0:
                bars.reset(task, description=label, total=None)
            else:
                bars.update(task, completed=1, total=1)

        yield report
