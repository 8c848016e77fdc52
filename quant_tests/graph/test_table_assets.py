"""Tables in a real Dagster run: one partition, a range, checks, metadata, missing inputs."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from quant_assets import partitions
from quant_assets.findings import Finding
from quant_assets.partitions import DEFAULT, range_tags
from quant_assets.table_assets import (
    TableInput,
    TableIOManager,
    TableResult,
    sessions_of,
    table_asset,
)
from quant_assets.table_checks import TableCheck, check_definitions
from quant_resources.store import Store
from quant_resources.tables import Column, Table

SOURCE = Table(
    stage="market_data",
    name="source",
    grain="session",
    description="One number a session.",
    columns=(
        Column("session", pl.Date, "The session."),
        Column("value", pl.Float64, "A number.", unit="USD", minimum=0.0),
    ),
    key=("session",),
)
MEAN = Table(
    stage="features",
    name="mean",
    grain="session",
    description="Mean of three sessions.",
    columns=(
        Column("session", pl.Date, "The session."),
        Column("mean", pl.Float64, "Trailing mean.", unit="USD"),
    ),
    key=("session",),
)
KEYS = list(DEFAULT.session.get_partition_keys())


def graph(root: Path, values: dict[str, float] | None = None) -> dg.Definitions:
    @table_asset(SOURCE)
    def source(context: dg.AssetExecutionContext, store: dg.ResourceParam[Any]) -> TableResult:
        assert isinstance(store, Store)
        days = sessions_of(context)
        rows = [(values or {}).get(day.isoformat(), float(day.day)) for day in days]
        return TableResult(
            pl.DataFrame({"session": days, "value": rows}),
            lambda: {"note": f"seen on the newest of {len(days)}"},
        )

    @table_asset(MEAN, ins={"source": TableInput(SOURCE, partitions.trailing(2))})
    def mean(context: dg.AssetExecutionContext, source: pl.LazyFrame) -> TableResult:
        frame = (
            source.sort("session")
            .with_columns(mean=pl.col("value").rolling_mean(3, min_samples=1))
            .filter(pl.col("session").is_in(sessions_of(context)))
            .select("session", "mean")
        )
        return TableResult(frame.collect())

    def small(frame: pl.DataFrame, scope: object) -> Finding:
        high = frame.filter(pl.col("mean") > 30)
        return Finding(high.is_empty(), "no mean above 30", high.height, high, "look")

    store = Store(root)
    rules = [TableCheck(MEAN, "small", "Means are small.", small, blocking=False)]
    return dg.Definitions(
        assets=[source, mean],
        asset_checks=check_definitions((SOURCE, MEAN), rules, DEFAULT),
        jobs=[dg.define_asset_job("all", selection="*")],
        resources={
            "store": store,
            "ledger": None,
            "broker": None,
            "table_io": TableIOManager(store, (SOURCE, MEAN)),
        },
        executor=dg.in_process_executor,
    )


def run(
    definitions: dg.Definitions, keys: list[str], instance: dg.DagsterInstance
) -> dg.ExecuteInProcessResult:
    job = definitions.resolve_job_def("all")
    return job.execute_in_process(
        tags=dict(range_tags(keys)), instance=instance, raise_on_error=False
    )


def test_day_by_day_equals_a_range(tmp_path: Path) -> None:
    keys = KEYS[:5]
    with dg.instance_for_test() as instance:
        assert run(graph(tmp_path / "range"), keys, instance).success
        for key in keys:
            assert run(graph(tmp_path / "days"), [key], instance).success
    bulk = Store(tmp_path / "range").read(MEAN).collect()
    assert bulk.equals(Store(tmp_path / "days").read(MEAN).collect())
    assert bulk.height == 5


def test_every_partition_of_a_range_has_its_row_count_and_the_newest_the_pictures(
    tmp_path: Path,
) -> None:
    with dg.instance_for_test() as instance:
        result = run(graph(tmp_path), KEYS[:3], instance)
        assert result.success
        events = {
            event.partition: event.step_materialization_data.materialization.metadata
            for event in result.get_asset_materialization_events()
            if event.asset_key == dg.AssetKey(["market_data", "source"])
        }
    assert sorted(str(key) for key in events) == KEYS[:3]
    assert all(metadata["dagster/row_count"].value == 1 for metadata in events.values())
    assert [key for key, metadata in events.items() if "note" in metadata] == [KEYS[2]]
    assert events[KEYS[2]]["note"].value == "seen on the newest of 3"


def test_a_broken_bound_stops_what_is_downstream_and_says_why(tmp_path: Path) -> None:
    with dg.instance_for_test() as instance:
        result = run(graph(tmp_path, {KEYS[1]: -1.0}), KEYS[:2], instance)
        assert not result.success
        evaluations = {e.check_name: e for e in result.get_asset_check_evaluations()}
        broken = evaluations["declared_values"]
        assert not broken.passed
        assert broken.blocking
        assert "value leaves [0.0, None] in 1 rows" in (broken.description or "")
        assert KEYS[1] in str(broken.metadata["sample"].value)
    assert Store(tmp_path).partitions(MEAN) == []


def test_a_warning_does_not_stop(tmp_path: Path) -> None:
    with dg.instance_for_test() as instance:
        result = run(graph(tmp_path, {KEYS[0]: 99.0}), KEYS[:1], instance)
        assert result.success
        warned = [e for e in result.get_asset_check_evaluations() if not e.passed]
        assert [e.severity for e in warned] == [dg.AssetCheckSeverity.WARN]


def test_a_missing_input_partition_fails_and_is_named(tmp_path: Path) -> None:
    with dg.instance_for_test() as instance:
        assert run(graph(tmp_path), KEYS[:1], instance).success
        result = run(graph(tmp_path), KEYS[2:3], instance)
        failure = result.failure_data_for_node("features__mean")
        assert failure is not None
        assert f"market_data/source: 1 partition(s) are missing ({KEYS[1]})" in str(failure.error)


def test_the_ui_learns_units_and_bounds_from_the_declaration(tmp_path: Path) -> None:
    spec = next(iter(graph(tmp_path).resolve_assets_def(["market_data", "source"]).specs))
    column = spec.metadata["dagster/column_schema"].columns[1]
    assert column.description == "A number. [USD]"
    assert column.constraints.other == [">= 0"]
    assert spec.owners == ["team:quant"]
    assert {"polars", "parquet"} <= set(spec.kinds)


@pytest.mark.parametrize("key", ["2023-01-03"])
def test_partitions_are_days(key: str) -> None:
    assert date.fromisoformat(key).isoformat() == KEYS[0]
