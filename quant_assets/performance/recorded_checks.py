"""The newest result of every check, as Dagster recorded it.

Belongs here: reading check results back for the report. Does not belong here: the checks themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg
import polars as pl

from quant_assets import features, market_data, models, orders, signals
from quant_assets.performance.checks import performance_checks
from quant_assets.performance.schemas import tables
from quant_assets.point_in_time.checks import DESCRIPTIONS as GENERATED
from quant_assets.signals.strategy import Strategy

_SCHEMA = {"name": pl.String, "passed": pl.Boolean, "detail": pl.String}


def check_keys(strategies: Iterable[Strategy]) -> list[dg.AssetCheckKey]:
    """Every check of the graph: the generated suite of each table and the rules of each stage."""
    chosen = tuple(strategies)
    declared = (
        *market_data.TABLES,
        *features.TABLES,
        *models.TABLES,
        *signals.tables(chosen),
        *orders.TABLES,
        *tables(chosen),
    )
    rules = (
        *market_data.CHECKS,
        *features.CHECKS,
        *models.CHECKS,
        *signals.checks(chosen),
        *orders.CHECKS,
        *performance_checks(chosen),
    )
    names = [(table.path, "declared_values") for table in declared]
    names += [(rule.table.path, rule.name) for rule in rules]
    # Those of tables that are never computed again have no result.
    names += [(table.path, name) for table in declared for name in GENERATED]
    return [dg.AssetCheckKey(dg.AssetKey(path.split("/")), name) for path, name in names]


def newest_results(instance: dg.DagsterInstance, strategies: Iterable[Strategy]) -> pl.DataFrame:
    """name, passed, detail of the newest result of every check that has run."""
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(
        check_keys(strategies)
    )
    rows = []
    for key, record in sorted(records.items(), key=lambda item: str(item[0])):
        # A check that was planned and not reached has no result.
        result = record.evaluation if record.status.value in ("SUCCEEDED", "FAILED") else None
        if result is not None:
            name = f"{key.asset_key.to_user_string()}: {key.name}"
            rows.append((name, result.passed, result.description or ""))
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")
