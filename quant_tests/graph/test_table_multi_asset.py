"""One step that computes two tables: stored, counted and checked each by itself, never by halves."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import NamedTuple

import dagster as dg
import polars as pl
import pytest

from quant_assets.cli.graph_runs import GraphRunner
from quant_assets.partitions import DEFAULT, range_tags
from quant_assets.table_assets import (
    TableInput,
    TableIOManager,
    TableResult,
    sessions_of,
    table_asset,
    table_multi_asset,
)
from quant_assets.table_checks import check_definitions
from quant_resources.store import Store
from quant_resources.tables import Column, Table


def numbers(name: str, maximum: float | None = None) -> Table:
    return Table(
        stage="market_data",
        name=name,
        grain="session",
        description=f"The {name} numbers.",
        columns=(
            Column("session", pl.Date, "The session."),
            Column("value", pl.Float64, "A number.", unit="USD", maximum=maximum),
        ),
        key=("session",),
    )


SMALL, LARGE, DOUBLE = numbers("small", maximum=10.0), numbers("large"), numbers("double")
TABLES = (SMALL, LARGE, DOUBLE)
KEYS = [key for key in DEFAULT.session.get_partition_keys() if key.startswith("2023-01")][:8]


class Graph(NamedTuple):
    """The definitions and the partitions of every computation."""

    definitions: dg.Definitions
    computed: list[list[str]]


def graph(root: Path, highest_small: float = 10.0) -> Graph:
    """Days of the month, divided by one step; a third table reads the large ones."""
    computed: list[list[str]] = []

    @table_multi_asset((SMALL, LARGE))
    def small_and_large(context: dg.AssetExecutionContext) -> tuple[TableResult, TableResult]:
        computed.append(list(context.partition_keys))
        days = sessions_of(context)
        rows = pl.DataFrame({"session": days, "value": [float(day.day) for day in days]})
        is_small = pl.col("value") <= highest_small
        return (
            TableResult(rows.filter(is_small), {"of": "small"}),
            TableResult(rows.filter(~is_small), {"of": "large"}),
        )

    @table_asset(DOUBLE, ins={"large": TableInput(LARGE)})
    def double(context: dg.AssetExecutionContext, large: pl.LazyFrame) -> TableResult:
        return TableResult(large.with_columns(pl.col("value") * 2).collect())

    store = Store(root)
    definitions = dg.Definitions(
        # Placed on partitions as `definitions.build_defs` does it.
        assets=[DEFAULT.place(asset) for asset in (small_and_large, double)],
        asset_checks=check_definitions(TABLES, (), DEFAULT),
        jobs=[dg.define_asset_job("all", selection="*")],
        resources={
            "store": store,
            "ledger": None,
            "broker": None,
            "table_io": TableIOManager(store, TABLES),
        },
        executor=dg.in_process_executor,
    )
    return Graph(definitions, computed)


def run(built: Graph, keys: list[str], instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return built.definitions.resolve_job_def("all").execute_in_process(
        tags=dict(range_tags(keys)), instance=instance, raise_on_error=False
    )


def test_each_table_has_its_own_rows_counts_and_metadata(tmp_path: Path) -> None:
    built = graph(tmp_path)
    with dg.instance_for_test() as instance:
        result = run(built, KEYS, instance)
        assert result.success
        events = result.get_asset_materialization_events()
    assert built.computed == [KEYS]
    for table in (SMALL, LARGE):
        metadata = {
            str(event.partition): event.step_materialization_data.materialization.metadata
            for event in events
            if event.asset_key is not None and event.asset_key.path == table.path.split("/")
        }
        assert {key: entry["dagster/row_count"].value for key, entry in metadata.items()} == {
            key: int((date.fromisoformat(key).day <= 10) == (table is SMALL)) for key in KEYS
        }
        assert {key: entry["of"].value for key, entry in metadata.items() if "of" in entry} == {
            KEYS[-1]: table.name
        }
    assert Store(tmp_path).partitions(SMALL) == Store(tmp_path).partitions(LARGE) == KEYS


def test_the_ui_learns_of_each_table_from_its_own_declaration(tmp_path: Path) -> None:
    step = graph(tmp_path).definitions.resolve_assets_def(["market_data", "small"])
    specs = {spec.key.path[-1]: spec for spec in step.specs}
    assert specs["small"].description == "The small numbers."
    bounds = specs["small"].metadata["dagster/column_schema"].columns[1].constraints.other
    assert bounds == ["<= 10"]
    assert specs["large"].metadata["dagster/column_schema"].columns[1].constraints.other == []
    assert specs["large"].owners == ["team:quant"]
    assert {"polars", "parquet"} <= set(specs["large"].kinds)
    assert step.backfill_policy == dg.BackfillPolicy.multi_run(252)


def test_the_tables_are_never_made_by_halves(tmp_path: Path) -> None:
    built = graph(tmp_path)
    with dg.instance_for_test() as instance, pytest.raises(dg.DagsterInvalidSubsetError):
        built.definitions.resolve_job_def("all").execute_in_process(
            instance=instance,
            partition_key=KEYS[0],
            asset_selection=[dg.AssetKey(LARGE.path.split("/"))],
        )


def test_a_runner_makes_both_for_what_either_lacks(tmp_path: Path) -> None:
    built = graph(tmp_path)
    with dg.instance_for_test() as instance:
        runner = GraphRunner(built.definitions, instance, lambda _label, _done: None)
        runner.ensure("all", KEYS[:2])
        runner.ensure("all", KEYS[:3])
        assert runner.done("all", KEYS[2])
    assert built.computed == [KEYS[:2], KEYS[2:3]]


def test_a_broken_bound_of_one_table_stops_only_what_reads_that_table(tmp_path: Path) -> None:
    with dg.instance_for_test() as instance:
        result = run(graph(tmp_path, highest_small=20.0), KEYS, instance)
        broken = [
            e.asset_key.path[-1] for e in result.get_asset_check_evaluations() if not e.passed
        ]
    assert broken == ["small"]
    assert Store(tmp_path).partitions(DOUBLE) == KEYS
