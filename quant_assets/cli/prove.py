"""`quant prove`: that no value of the data root depends on the future, table by table.

Belongs here: what a person asks for and sees. Does not belong here: choosing (`point_in_time/plan.py`),
proving (`point_in_time/proofs.py`), and doing it in several processes (`proof_processes.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as Grid

from quant_resources.errors import ConfigurationError, QuantError
from quant_resources.settings import load_settings

if TYPE_CHECKING:
    from quant_assets.findings import Finding
    from quant_assets.point_in_time.plan import Plan
    from quant_assets.point_in_time.proofs import Proof

DEFAULT_SAMPLE = "5"
_KINDS = ("look-ahead", "parity", "start-up")


class ProofFailedError(QuantError):
    """A table depends on the future, on the range it was computed in, or on its history."""


def prove(
    tables: Annotated[
        list[str] | None,
        typer.Option(
            "--table",
            help="Path, name, stage or pattern (features/*); again for more. All by default.",
        ),
    ] = None,
    sessions: Annotated[
        str,
        typer.Option(
            help="all, a number for a sample, a day, or FIRST..LAST with either end open."
        ),
    ] = DEFAULT_SAMPLE,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes to use; by default one for every core.")
    ] = os.cpu_count() or 1,
) -> None:
    """Cut every input after a session, recompute, compare: for every table, on a sample or on all sessions."""
    from quant_assets.cli.platform import only_one
    from quant_assets.cli.proof_processes import Graph, proofs
    from quant_assets.point_in_time.plan import parsed_sessions
    from quant_resources.databases import used_databases
    from quant_resources.ledger.migrate import migrate

    settings, console = load_settings(), Console()
    if not settings.data_root.exists():
        raise ConfigurationError(
            f"There is no data root {settings.data_root} yet: run `quant demo`, or set QUANT_DATA_ROOT."
        )
    graph = Graph.of(settings)
    plan = graph.plan(parsed_sessions(sessions), tables or ())
    started = perf_counter()
    with only_one(settings.data_root, "prove"), used_databases(settings) as databases:
        migrate(databases.ledger_url)
        with _shown_progress(console, plan) as done:
            proved = proofs(graph, plan, databases.ledger_url, processes, done)
    spent = f"{perf_counter() - started:.0f} s"
    _print_proofs(console, plan, proved)
    failed = [proof for proof in proved if not proof.passed]
    for proof in failed:
        _print_failure(console, proof)
    if failed:
        raise ProofFailedError(
            f"{len(failed)} of {len(proved)} tables are not proved ({spent}): "
            f"{', '.join(proof.path for proof in failed)}; see above for what to do."
        )
    rows = sum(proof.rows for proof in proved)
    told = (
        f"{len(proved)} tables are proved: {rows:,} rows, nothing depends on the future ({spent})."
    )
    console.print(
        f"[green]{told}[/]" if proved else "Nothing of this can be proved.", highlight=False
    )


@contextmanager
def _shown_progress(console: Console, plan: Plan) -> Iterator[Callable[[str, int], None]]:
    """A bar over all sessions of all tables; without a terminal, a line when a table is done."""
    left = {planned.table.path: len(planned.keys) for planned in plan.tables}

    def finished(path: str, sessions: int) -> bool:
        left[path] -= sessions
        return left[path] == 0

    if not console.is_terminal:

        def told(path: str, sessions: int) -> None:
            if finished(path, sessions):
                console.print(f"  {path}", highlight=False)

        yield told
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("sessions", total=sum(left.values()))

        def shown(path: str, sessions: int) -> None:
            finished(path, sessions)
            bars.update(task, advance=sessions, description=path)

        yield shown


def _print_proofs(console: Console, plan: Plan, proved: Sequence[Proof]) -> None:
    # Without lines between them the columns fit beside a table's whole name on 80 characters.
    grid = Grid(
        title="Proofs", title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0)
    )
    grid.add_column("table", overflow="fold", min_width=26)
    for name in ("sessions", "rows", *_KINDS, "cpu s"):
        grid.add_column(name, justify="right")
    for proof in proved:
        grid.add_row(
            proof.path,
            f"{proof.sessions:,}",
            f"{proof.rows:,}",
            *(_verdict(proof.findings.get(kind), proof.problem) for kind in _KINDS),
            f"{proof.seconds:.1f}",
        )
    if proved:
        console.print(grid)
    reasons = Grid(title="Not recomputed, and why", title_justify="left")
    reasons.add_column("table", overflow="fold")
    reasons.add_column("why", overflow="fold")
    for path, reason in plan.reasons:
        reasons.add_row(path, reason)
    if plan.reasons:
        console.print(reasons)


def _verdict(finding: Finding | None, problem: str) -> str:
    if problem:
        return "[bold red]unknown[/]"
    if finding is None:
        return "-"
    return "[green]holds[/]" if finding.passed else "[bold red]FAILS[/]"


def _print_failure(console: Console, proof: Proof) -> None:
    from quant_assets.cli.shown import print_rows

    if proof.problem:
        told = f"{proof.path} cannot be computed again: {proof.problem}"
        console.print(f"[bold red]unknown:[/] {escape(told)}", highlight=False)
    for kind, finding in proof.findings.items():
        if finding.passed:
            continue
        console.print(f"[bold red]{kind}:[/] {escape(finding.message)}", highlight=False)
        if finding.sample is not None and finding.sample.height:
            title = f"The first of {finding.count} rows"
            print_rows(console, title, finding.sample.to_dicts())
        if finding.remedy:
            console.print(f"What to do: {escape(finding.remedy)}", highlight=False)
