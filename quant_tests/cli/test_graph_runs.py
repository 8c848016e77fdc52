"""How stretches of missing partitions become runs."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from quant_assets.cli.graph_runs import GraphRunner, RunFailedError
from quant_assets.partitions import DEFAULT, SESSIONS_PER_RUN, stretches, years
from quant_assets.table_assets import TableIOManager, TableResult, sessions_of, table_asset
from quant_assets.table_checks import check_definitions
from quant_resources.store import Store
from quant_resources.tables import Column, Table

VALUES = Table(
    stage="market_data",
    name="values",
    grain="session",
    description="One number a session.",
    columns=(
        Column("session", pl.Date, "The session."),
        Column("value", pl.Float64, "A number.", minimum=0.0),
    ),
    key=("session",),
)
KEYS = list(DEFAULT.session.get_partition_keys())[:4]


class Source:
    """What the asset delivers next; what is wrong with it can be mended."""

    def __init__(self) -> None:
        self.negative: set[str] = set()
        self.error: BaseException | None = None
        self.asked: list[list[str]] = []


def runner(root: Path, source: Source, instance: dg.DagsterInstance) -> GraphRunner:
    """A graph of one checked table in front of a source that can break."""

    @table_asset(VALUES)
    def values(context: dg.AssetExecutionContext) -> TableResult:
        source.asked.append(list(context.partition_keys))
        if source.error is not None:
            raise source.error
        days = sessions_of(context)
        numbers = [-1.0 if day.isoformat() in source.negative else 1.0 for day in days]
        return TableResult(pl.DataFrame({"session": days, "value": numbers}))

    store = Store(root)
    definitions = dg.Definitions(
        assets=[values],
        asset_checks=check_definitions((VALUES,), (), DEFAULT),
        jobs=[dg.define_asset_job("make", selection=dg.AssetSelection.assets(values))],
        resources={
            "store": store,
            "ledger": None,
            "broker": None,
            "table_io": TableIOManager(store, (VALUES,)),
        },
        executor=dg.in_process_executor,
    )
    return GraphRunner(definitions, instance, lambda _label, _done: None)


def test_a_partition_that_a_check_refused_is_work_left_until_it_passes(tmp_path: Path) -> None:
    """A later run over other partitions once hid the refusal."""
    source = Source()
    with dg.instance_for_test() as instance:
        graph = runner(tmp_path, source, instance)
        source.negative = {KEYS[1]}
        with pytest.raises(RunFailedError, match="value leaves"):
            graph.ensure("make", KEYS[1:2])
        graph.ensure("make", KEYS[2:3])
        assert not graph.done("make", KEYS[1])
        assert graph.done("make", KEYS[2])
        source.negative = set()
        graph.ensure("make", KEYS[:3])
        assert all(graph.done("make", key) for key in KEYS[:3])
        assert source.asked[-1] == KEYS[:2]


def test_a_run_that_failed_before_its_checks_can_be_made_again(tmp_path: Path) -> None:
    """The checks of a run that died stay planned, and were once taken for evaluations."""
    source = Source()
    with dg.instance_for_test() as instance:
        graph = runner(tmp_path, source, instance)
        source.error = ValueError("the source is broken")
        with pytest.raises(RunFailedError, match="values failed: the source is broken"):
            graph.ensure("make", KEYS)
        graph.ensure("make", KEYS, optional=["market_data/values"])
        assert len(graph.tally.failed_steps) == 1
        source.error = None
        graph.ensure("make", KEYS)
        assert graph.done("make", KEYS[0])


def test_an_interruption_is_nobodys_failure(tmp_path: Path) -> None:
    source = Source()
    source.error = KeyboardInterrupt()
    with dg.instance_for_test() as instance:
        graph = runner(tmp_path, source, instance)
        with pytest.raises((KeyboardInterrupt, dg.DagsterExecutionInterruptedError)):
            graph.ensure("make", KEYS, optional=["market_data/values"])
        source.error = None
        graph.ensure("make", KEYS)
        assert graph.done("make", KEYS[-1])


@pytest.mark.parametrize(
    ("keys", "wanted", "expected"),
    [
        ("abcdef", "abcdef", ["abcdef"]),
        ("abcdef", "abdf", ["ab", "d", "f"]),
        ("abcdef", "", []),
        ("", "", []),
    ],
)
def test_neighbours_run_together_and_gaps_split(
    keys: str, wanted: str, expected: list[str]
) -> None:
    assert ["".join(stretch) for stretch in stretches(list(keys), set(wanted))] == expected


@pytest.mark.parametrize("count", [1, 251, 252, 253, 505, 2520])
def test_runs_are_at_most_a_year_of_like_length_and_lose_nothing(count: int) -> None:
    keys = [f"{number:05}" for number in range(count)]
    runs = years(keys)
    assert [key for run in runs for key in run] == keys
    lengths = {len(run) for run in runs}
    assert max(lengths) <= SESSIONS_PER_RUN
    assert max(lengths) - min(lengths) <= 1
