"""From rules to Dagster asset checks: one mechanism for generated suites and for rules that need thought.

A stage's `checks.py` holds `TableCheck`s, pure functions from rows to a `Finding`; this module reads the
rows of the run's partitions, calls the function and reports. A check is not partitioned itself: it looks
at the partitions of its run, and its result names them.
"""

# No `from __future__ import annotations` here: Dagster reads the annotation of `context` itself.
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from quant_assets.findings import Finding
from quant_assets.partitions import Partitions
from quant_assets.table_assets import shown_table
from quant_assets.value_suites import value_finding
from quant_resources.store import Store
from quant_resources.tables import Table

if TYPE_CHECKING:
    from quant_resources.broker import Broker
    from quant_resources.ledger.ledger import Ledger

__all__ = ["CheckScope", "Finding", "TableCheck", "check_definitions"]

#: Metadata of an evaluation: the ends of what it looked at.
FIRST_PARTITION = "first_partition"
LAST_PARTITION = "last_partition"
_PARTITION_TAG = "dagster/partition"
_RANGE_START_TAG = "dagster/asset_partition_range_start"
_RANGE_END_TAG = "dagster/asset_partition_range_end"


@dataclass(frozen=True)
class CheckScope:
    """What a check may look at beside its rows.

    Attributes:
        partition_keys: The partitions of the run; empty for unpartitioned tables.
        store: Other tables.
        ledger: The ledger, for checks of orders and models.
        broker: The broker, for reconciliation.
    """

    partition_keys: Sequence[str]
    store: Store
    ledger: "Ledger"
    broker: "Broker"


@dataclass(frozen=True)
class TableCheck:
    """A rule on one table.

    Attributes:
        table: The table whose rows the function receives.
        name: Check name in the UI.
        description: What holds when it passes, and why that matters.
        function: `(rows of the run's partitions, scope) -> Finding`.
        blocking: ERROR that stops what is downstream in the same run; otherwise WARN.
        columns: The columns that the function reads; None: all.
    """

    table: Table
    name: str
    description: str
    function: Callable[[pl.DataFrame, CheckScope], Finding]
    blocking: bool = True
    columns: tuple[str, ...] | None = None


def check_definitions(
    tables: Iterable[Table], rules: Iterable[TableCheck], partitions: Partitions
) -> list[dg.AssetChecksDefinition]:
    """All checks: the generated suite of every table, then the stages' own rules."""
    suites = [
        TableCheck(
            table=table,
            name="declared_values",
            description="Every value is inside what the table's declaration allows.",
            function=partial(_declared_values, table),
        )
        for table in tables
    ]
    return [_definition(rule, partitions) for rule in [*suites, *rules]]


def _declared_values(table: Table, frame: pl.DataFrame, _scope: CheckScope) -> Finding:
    return value_finding(table, frame)


def _definition(rule: TableCheck, partitions: Partitions) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=rule.table.path.split("/"),
        name=rule.name,
        description=rule.description,
        blocking=rule.blocking,
        required_resource_keys={"store", "ledger", "broker"},
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        keys = run_partitions(context, rule.table, partitions)
        store: Store = context.resources.store
        scope = CheckScope(keys, store, context.resources.ledger, context.resources.broker)
        named = None if rule.table.partition_column is None else keys
        frame = store.read(rule.table, named, rule.columns).collect()
        return check_result(rule.function(frame, scope), keys, blocking=rule.blocking)

    return check


def run_partitions(
    context: dg.AssetCheckExecutionContext, table: Table, partitions: Partitions
) -> list[str]:
    """The partitions of a table that a check's run is about; none for unpartitioned tables."""
    definition = partitions.of(table)
    if definition is None:
        return []
    tags = context.run.tags
    if _PARTITION_TAG in tags:
        return [tags[_PARTITION_TAG]]
    if _RANGE_START_TAG in tags:
        return list(
            definition.get_partition_keys_in_range(
                dg.PartitionKeyRange(tags[_RANGE_START_TAG], tags[_RANGE_END_TAG])
            )
        )
    # Started by hand without a partition: the newest one that is stored.
    store: Store = context.resources.store
    return store.partitions(table)[-1:]


def check_result(
    finding: Finding,
    keys: Sequence[str],
    *,
    blocking: bool,
    table: Table | None = None,
    check_name: str | None = None,
) -> dg.AssetCheckResult:
    """What the UI shows of a finding.

    Args:
        finding: What was found.
        keys: The partitions that were looked at.
        blocking: Whether a breach is an error, or else a warning.
        table: Its table, where one step holds several checks.
        check_name: The check's name, where one step holds several checks.
    """
    metadata: dict[str, dg.MetadataValue] = {
        "message": dg.MetadataValue.text(finding.message),
        "rows_in_breach": dg.MetadataValue.int(finding.count),
    }
    if keys:
        span = keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]} ({len(keys)})"
        metadata["partitions"] = dg.MetadataValue.text(span)
        metadata[FIRST_PARTITION] = dg.MetadataValue.text(keys[0])
        metadata[LAST_PARTITION] = dg.MetadataValue.text(keys[-1])
    if finding.remedy:
        metadata["what_to_do"] = dg.MetadataValue.text(finding.remedy)
    if finding.sample is not None and finding.sample.height:
        metadata["sample"] = shown_table(finding.sample)
    return dg.AssetCheckResult(
        passed=finding.passed,
        severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
        description=finding.message,
        metadata=metadata,
        asset_key=None if table is None else table.path.split("/"),
        check_name=check_name,
    )
