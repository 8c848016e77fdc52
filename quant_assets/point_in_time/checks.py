"""The detectors as asset checks, generated for every table that can be computed again.

Belongs here: which sessions a run proves and how the three findings become checks. Does not belong here:
the detectors themselves (`detectors.py`) and the proof of whole histories (`quant prove`).

1. All tables of a step are checked together, after the step: three blocking checks for each table, from the
   same few computations.
2. A run that holds a session whose next one is stored too, such as a backfill or a restatement, proves one
   of these, drawn by the run: alone against a range with its future and more history, and against what is
   stored.
3. A run of the newest session alone has no future to look at, but the session before it has one by now, and
   was stored when it had none: one range over both must give what is stored of both. Only where it does not
   are they computed alone, so that an input that was restated since is not taken for a look into the future.
   One day in three, each step on days of its own, an older session is computed alone and in a range that goes on,
   and the newest one alone and with more history: some leaks, such as a mask of survivors, show only when much has
   come later.
4. Rows that a model made must name the one that was in force, known by then.
5. A table without partitions is proved at one of its sessions, drawn by its rows.
"""

# No `from __future__ import annotations` here: Dagster reads the annotation of `context` itself.
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias
from zlib import crc32

import dagster as dg
import polars as pl

from quant_assets.findings import Finding
from quant_assets.partitions import Partitions
from quant_assets.point_in_time.comparisons import differences
from quant_assets.point_in_time.detectors import day_equals_range, look_ahead, start_up
from quant_assets.point_in_time.models import known_models
from quant_assets.point_in_time.plan import stored_sessions
from quant_assets.point_in_time.recompute import Step, reason_not_recomputed, steps
from quant_assets.point_in_time.session_recomputations import Recomputations
from quant_assets.table_checks import check_result, run_partitions
from quant_resources.errors import DataError
from quant_resources.ledger import Ledger
from quant_resources.ledger.unrecorded import UnrecordedLedger
from quant_resources.store import Store
from quant_resources.tables import Table

NO_LOOK_AHEAD: Final = "no_look_ahead"
SAME_ALONE: Final = "same_when_computed_alone"
SAME_WITH_MORE_HISTORY: Final = "same_with_more_history"

DESCRIPTIONS: Final[Mapping[str, str]] = {
    NO_LOOK_AHEAD: "A sample session gives the same rows when everything later is cut off: nothing looks at the "
    "future, which a backtest would have and trading would not.",
    SAME_ALONE: "A sample session gives the stored rows when it is computed alone: a range equals day by day, and "
    "no input was restated since.",
    SAME_WITH_MORE_HISTORY: "A sample session gives the same rows when every input reaches further back: the "
    "history is long enough for what is computed.",
}
"""The generated checks, by name."""

Findings: TypeAlias = Mapping[tuple[str, str], Finding]
"""Table path and check name to finding."""

#: A run of one new session looks at an older one instead on one day in so many.
_OLDER_EVERY: Final = 3
#: Sessions that are tried when one with rows is looked for: the first of a market have none.
_TRIES: Final = 8


def point_in_time_checks(
    assets: Iterable[dg.AssetsDefinition], partitions: Partitions
) -> list[dg.AssetChecksDefinition]:
    """The checks of every table of some assets that can be computed again.

    Args:
        assets: The graph's assets, placed on the market.
        partitions: The market's partition definitions.
    """
    return [
        _definition(step)
        for step in steps(assets, partitions)
        if reason_not_recomputed(step) is None
    ]


def judged(step: Step, store: Store, resources: Mapping[str, Any], keys: Sequence[str]) -> Findings:
    """What the detectors find on a sample of a run.

    Args:
        step: The step that has run.
        store: The data root.
        resources: Resources that the step's function names, beside the store.
        keys: The run's partitions; empty for tables without partitions.

    Returns:
        Table path and check name to finding.
    """
    again = Recomputations(step, store, resources)
    try:
        return _with_models(again, resources, keys, _judged(again, keys))
    except DataError as error:
        return {
            (table.path, name): Finding(
                False,
                f"{table.path} cannot be computed again. {error}",
                1,
                remedy="Materialize what is missing, then this table.",
            )
            for table in step.tables
            for name in DESCRIPTIONS
        }


def _judged(again: Recomputations, keys: Sequence[str]) -> Findings:
    tables = again.step.tables
    if again.is_whole:
        sessions = _sessions_of_rows(again.store, tables[0])
        return _proved(again, sessions, sessions)
    stored = again.store.partitions(tables[0])
    followed = sorted(set(keys).intersection(stored[:-1]))
    if followed:
        sample = [_drawn(again, followed)]
        return _proved(again, sample, sample)
    newest = [key for key in stored[-1:] if key in keys]
    if newest and len(stored) > _OLDER_EVERY and _number(tables[0], newest[0]) % _OLDER_EVERY == 0:
        return _proved(again, [_drawn(again, stored[:-1])], newest)
    lately = stored[-2:] if newest else []
    return _unmoved(again, lately) or _proved(again, lately, newest)


def _proved(again: Recomputations, sample: Sequence[str], run: Sequence[str]) -> Findings:
    """All detectors: the future of the sample, the range and the history of the run's own sessions."""
    return {
        (table.path, name): Finding(True, f"{table.path}: there is no session to look at yet.")
        if not sessions
        else detector(again, table, sessions)
        for table in again.step.tables
        for name, detector, sessions in (
            (NO_LOOK_AHEAD, look_ahead, sample),
            (SAME_ALONE, day_equals_range, run),
            (SAME_WITH_MORE_HISTORY, start_up, run),
        )
    }


def _unmoved(again: Recomputations, lately: Sequence[str]) -> Findings | None:
    """The findings where a range over the two newest sessions gives what is stored of both."""
    if len(lately) < 2 or again.step.tables[0].horizon:
        # A label is also asked for a session too early, and costs next to nothing.
        return None
    before, newest = lately
    around = again.neighbours(newest, again.more_history, 0)
    if before not in around:
        return None
    within = again.range(around)
    counts = {}
    for table in again.step.tables:
        stored = again.store.read(table, lately).collect()
        if differences(table, stored, again.rows_of(table, within[table.path], lately)).height:
            return None
        counts[table.path] = stored.height
    more = len(around) - 1
    return {
        (path, name): Finding(True, f"{path}: {count} rows of {before} and {newest} {same}.")
        for path, count in counts.items()
        for name, same in (
            (
                NO_LOOK_AHEAD,
                f"are the same in a range over both, the older as stored before {newest} was there",
            ),
            (SAME_ALONE, "are stored as a range over both gives them"),
            (SAME_WITH_MORE_HISTORY, f"do not move with {more} more sessions of history"),
        )
    }


def _with_models(
    again: Recomputations, resources: Mapping[str, Any], keys: Sequence[str], findings: Findings
) -> Findings:
    """The findings, and of rows that a model made also whether it was known and in force."""
    told = dict(findings)
    for table in again.step.tables:
        if "ledger" not in resources:
            continue
        known = known_models(again.step, table, again.store, resources["ledger"], keys)
        wrong = [finding for finding in known if not finding.passed]
        if wrong and told[table.path, NO_LOOK_AHEAD].passed:
            told[table.path, NO_LOOK_AHEAD] = wrong[0]
    return told


def _drawn(again: Recomputations, keys: Sequence[str]) -> str:
    """One of the keys, the same for the same run; one with rows if there are any among those tried."""
    first = again.step.tables[0]
    drawn = sorted(keys, key=lambda key: _number(first, key, keys[-1]))[:_TRIES]
    filled = (
        key
        for key in drawn
        if any(_has_rows(again.store, table, key) for table in again.step.tables)
    )
    return next(filled, drawn[0])


def _has_rows(store: Store, table: Table, key: str) -> bool:
    return store.read(table, [key]).select(pl.len()).collect().item() > 0


def _sessions_of_rows(store: Store, table: Table) -> list[str]:
    keys = stored_sessions(store, table)
    # Of the later half, where there is a past to be right about and a future to be blind to.
    later = keys[len(keys) // 2 : -1]
    return [min(later, key=lambda key: _number(table, key))] if later else []


def _number(table: Table, *words: str) -> int:
    """A number as good as random, but always the same for the same table and words."""
    return crc32(" ".join((table.path, *words)).encode())


def _definition(step: Step) -> dg.AssetChecksDefinition:
    tables = {table.path: table for table in step.tables}
    first = step.tables[0]

    @dg.multi_asset_check(
        name=f"{first.stage}__{first.name}__point_in_time",
        specs=[
            dg.AssetCheckSpec(name, asset=path.split("/"), description=text, blocking=True)
            for path in tables
            for name, text in DESCRIPTIONS.items()
        ],
        required_resource_keys={"store", *step.function.resources},
        can_subset=True,
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        keys = run_partitions(context, first, step.partitions)
        resources = {
            name: _unrecorded(getattr(context.resources, name)) for name in step.function.resources
        }
        findings = judged(step, context.resources.store, resources, keys)
        asked = context.selected_asset_check_keys
        for (path, name), finding in findings.items():
            if dg.AssetCheckKey(dg.AssetKey(path.split("/")), name) in asked:
                yield check_result(
                    finding, keys, blocking=True, table=tables[path], check_name=name
                )

    return check


def _unrecorded(resource: object) -> object:
    return UnrecordedLedger.over(resource) if isinstance(resource, Ledger) else resource
