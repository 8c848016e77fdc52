"""`quant data refetch`: ask the source again, show what it restated, make again what that affects.

Belongs here: the command, and the synchronous way through a restatement plan that other commands share. Does
not belong here: which sessions are worth asking for (automation/refetching.py) and what a plan holds
(automation/restatements.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import polars as pl
import typer
from rich.console import Console

from quant_resources.errors import ConfigurationError
from quant_resources.settings import load_settings

if TYPE_CHECKING:
    from quant_assets.automation.restatement_journal import Restatement
    from quant_assets.cli.graph_runs import GraphRunner
    from quant_assets.cli.platform import Platform
    from quant_resources.store import Store

_ROWS_SHOWN = 50
_SECONDS_FOR_THE_JOURNAL = 60.0


def refetch(
    first: Annotated[
        str | None,
        typer.Argument(
            help="First day (YYYY-MM-DD); by default what the daily update would choose."
        ),
    ] = None,
    last: Annotated[str | None, typer.Argument(help="Last day; the first one by default.")] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show what would be fetched, and what is not made again yet; ask and change nothing.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Fetch sessions again; show what was restated; make again exactly the tables that it affects."""
    from quant_assets.cli.backfill import assert_nothing_failed
    from quant_assets.cli.platform import only_one, running_platform
    from quant_assets.cli.progress import shown_progress

    settings, console = load_settings(), Console()
    with only_one(settings.data_root, "data refetch"), running_platform(settings) as platform:
        progress_console = Console(stderr=True) if as_json else console
        with shown_progress(progress_console) as progress, platform.graph(progress) as runner:
            keys = _chosen(platform, runner, first, last)
            if dry_run:
                changed = _no_changes()
                plan = pending(runner, platform.store)
            else:
                changed = refetch_sessions(runner, platform.store, keys)
                plan = rerun_affected(runner, platform.store, platform.strategy_paths)
            failed = runner.tally.failed_steps
        if as_json:
            console.print_json(_json(keys, changed, plan))
        else:
            verb = "would be fetched again" if dry_run else "were fetched again"
            console.print(f"{len(keys)} session(s) {verb}{_span(keys)}.")
            if dry_run:
                console.print("What the source says now is known when it is asked.")
            else:
                show_changes(console, changed)
            show_plan(console, plan)
            if plan is not None and not dry_run and not failed:
                console.print("All of it was made again.")
        assert_nothing_failed(failed)


def refetch_recent(platform: Platform, runner: GraphRunner, newest: date) -> pl.DataFrame:
    """What the daily update does before it ingests a session: fetch again, make again what is affected.

    A source that cannot deliver an old session once more is told at the end; it does not keep the newest
    one from being ingested.

    Args:
        platform: The running platform.
        runner: Runs jobs.
        newest: The session that will be ingested next.

    Returns:
        What was restated (`restatements.DIFFERENCES`).
    """
    from quant_assets.automation.refetching import sessions_due

    keys = sessions_due(platform.store, runner.instance, newest)
    changed = refetch_sessions(runner, platform.store, keys, required=False)
    rerun_affected(runner, platform.store, platform.strategy_paths)
    return changed


def refetch_sessions(
    runner: GraphRunner, store: Store, keys: Sequence[str], required: bool = True
) -> pl.DataFrame:
    """Fetch stored sessions again.

    Args:
        runner: Runs jobs.
        store: The data root.
        keys: Sessions; those that were never fetched are left out.
        required: Whether a failure stops the work; otherwise it is told.

    Returns:
        What was restated (`restatements.DIFFERENCES`), of raw bars and of corporate actions.

    Raises:
        RunFailedError: The source failed, or delivered part of a session.
    """
    from quant_assets.automation import jobs
    from quant_assets.automation.refetching import refetch_runs
    from quant_assets.market_data.schemas import CORPORATE_ACTIONS, RAW_BARS
    from quant_assets.market_data.stored_restatements import newest_differences

    deliveries = (RAW_BARS, CORPORATE_ACTIONS)
    before = {(table.path, key): store.vintages(table, key) for table in deliveries for key in keys}
    for run in refetch_runs(store, list(keys)):
        runner.run(jobs.REFETCH, run, optional=() if required else jobs.REFETCHED)
    found = [
        newest_differences(
            store,
            table,
            [key for key in keys if store.vintages(table, key) != before[table.path, key]],
        )
        for table in deliveries
    ]
    return pl.concat(found).sort("session", "symbol", "field", nulls_last=True)


def rerun_affected(
    runner: GraphRunner, store: Store, optional: Iterable[str] = ()
) -> Restatement | None:
    """Make again, now and in order, what no longer follows from the newest deliveries and releases.

    Goes on with a plan that the sensor or a killed command left, and leaves what it could not do.

    Args:
        runner: Runs jobs.
        store: The data root.
        optional: Asset paths whose failure is told but does not stop the rest (strategies).

    Returns:
        The plan that was carried out; None when nothing was affected.

    Raises:
        ConfigurationError: The sensor is working on the plan.
        RunFailedError: A step failed that is not optional; the same call goes on with it.
    """
    from quant_assets.automation.restatement_journal import (
        held_journal,
        read_journal,
        write_journal,
    )
    from quant_assets.automation.restatement_runs import mark_done, running
    from quant_assets.automation.restatements import renewed

    with held_journal(store, _SECONDS_FOR_THE_JOURNAL) as held:
        if not held:
            raise ConfigurationError(
                "Another process works on the restatement plan; wait for it and run again."
            )
        journal = read_journal(store)
        if journal.current is not None:
            asked = running(journal.current, runner.instance)
            if asked is not None:
                raise ConfigurationError(
                    f"The sensor `restatements` is making {asked.job_name} again (run {asked.run_id}); wait "
                    "for it, or terminate it in `quant dev`, and run again."
                )
            mark_done(journal.current, runner.instance)
        graph = runner.definitions.resolve_asset_graph()
        journal = renewed(journal, store, graph, runner.instance)
        write_journal(store, journal)
        plan = journal.current
        if plan is None:
            return None
        complete = True
        for step in plan.steps:
            for run in step.runs:
                if run.done:
                    continue
                made = _made(runner, step.job, run.keys, step.tables, optional)
                # What was made without a strategy that failed is made again with it.
                complete &= made
                run.done = complete
                write_journal(store, journal)
        if complete:
            journal.current = None
            write_journal(store, journal)
        return plan


def pending(runner: GraphRunner, store: Store) -> Restatement | None:
    """The plan that `rerun_affected` would carry out now; nothing is written or run."""
    from quant_assets.automation.restatement_journal import read_journal
    from quant_assets.automation.restatements import renewed

    graph = runner.definitions.resolve_asset_graph()
    return renewed(read_journal(store), store, graph, runner.instance).current


def show_changes(console: Console, changed: pl.DataFrame) -> None:
    """Print what was restated, with both values."""
    from quant_assets.cli.shown import print_rows

    if changed.is_empty():
        console.print("Nothing was restated.")
        return
    rows = changed.select(
        "symbol",
        "session",
        "field",
        pl.col("old_value").alias("old"),
        pl.col("new_value").alias("new"),
        "kind",
    ).head(_ROWS_SHOWN)
    print_rows(console, "Restated", list(rows.iter_rows(named=True)))
    if changed.height > _ROWS_SHOWN:
        console.print(f"{changed.height - _ROWS_SHOWN} more values.")


def show_plan(console: Console, plan: Restatement | None) -> None:
    """Print the steps of a plan in their order, or that nothing is affected."""
    from quant_assets.cli.shown import print_rows

    if plan is None:
        console.print("Every stored table follows from what has been delivered so far.")
        return
    print_rows(console, f"Affected. {plan.reason}", _steps(plan))
    for table, months in plan.kept.items():
        console.print(
            f"{table} of {len(months)} month(s) from {months[0]} has read what changed and stays as it was trained.",
            highlight=False,
        )


def _made(
    runner: GraphRunner, job: str, keys: list[str], tables: list[str], optional: Iterable[str]
) -> bool:
    import dagster as dg

    failures = len(runner.tally.failed_steps)
    runner.run(job, keys, optional, [dg.AssetKey(path.split("/")) for path in tables])
    return len(runner.tally.failed_steps) == failures


def _chosen(
    platform: Platform, runner: GraphRunner, first: str | None, last: str | None
) -> list[str]:
    from quant_assets.automation.refetching import sessions_due
    from quant_assets.cli.backfill import day_of
    from quant_assets.cli.broker_time import newest_closed_session
    from quant_assets.market_data.schemas import RAW_BARS

    start = day_of(first)
    if start is None:
        return sessions_due(platform.store, runner.instance, newest_closed_session(platform))
    end = day_of(last) or start
    stored = platform.store.partitions(RAW_BARS)
    chosen = [key for key in stored if start.isoformat() <= key <= end.isoformat()]
    if not chosen:
        raise ConfigurationError(
            f"No session between {start} and {end} has been fetched yet; `quant backfill` fetches what is missing."
        )
    return chosen


def _no_changes() -> pl.DataFrame:
    from quant_assets.market_data.restatements import DIFFERENCES

    return pl.DataFrame(schema=DIFFERENCES)


def _steps(plan: Restatement) -> list[dict[str, Any]]:
    keys = [[key for run in step.runs for key in run.keys] for step in plan.steps]
    return [
        {
            "tables": ", ".join(step.tables),
            "sessions": len(found) or None,
            "first": found[0] if found else None,
            "last": found[-1] if found else None,
        }
        for step, found in zip(plan.steps, keys, strict=True)
    ]


def _json(keys: list[str], changed: pl.DataFrame, plan: Restatement | None) -> str:
    answer = {
        "fetched": keys,
        "restated": changed.to_dicts(),
        "made_again": [] if plan is None else _steps(plan),
        "kept": {} if plan is None else plan.kept,
    }
    return json.dumps(answer, default=str)


def _span(keys: list[str]) -> str:
    return f" ({keys[0]} to {keys[-1]})" if keys else ""
