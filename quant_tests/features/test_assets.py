"""The features stage in real Dagster runs: a range, single days, checks that find what is wrong."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from quant_assets import features
from quant_assets.features.schemas import ALPHA158, ANOMALY, LABEL_TABLES, TECHNICAL
from quant_assets.market_data.schemas import BARS, UNIVERSE
from quant_assets.partitions import DEFAULT, range_tags
from quant_assets.table_assets import TableIOManager
from quant_assets.table_checks import CheckScope, check_definitions
from quant_resources.errors import MissingPartitionError
from quant_resources.store import Store
from quant_resources.tables import Table
from quant_tests.features.conftest import Market, raw_market

SMALL = raw_market(count=120, symbols=8)
SESSION_TABLES = (ALPHA158, TECHNICAL, ANOMALY)


def store_of(root: Path, market: Market) -> Store:
    store = Store(root)
    keys = [session.isoformat() for session in market.calendar]
    store.write(BARS, BARS.conform(market.bars), keys)
    store.write(UNIVERSE, UNIVERSE.conform(market.universe), keys)
    return store


def graph(store: Store) -> dg.Definitions:
    upstream = [
        dg.AssetSpec(table.path.split("/"), partitions_def=DEFAULT.session).with_io_manager_key(
            "table_io"
        )
        for table in (BARS, UNIVERSE)
    ]
    return dg.Definitions(
        assets=[*upstream, *features.ASSETS],
        asset_checks=check_definitions(features.TABLES, features.CHECKS, DEFAULT),
        jobs=[
            dg.define_asset_job("sessions", selection=[table.path for table in SESSION_TABLES]),
            *(dg.define_asset_job(table.name, selection=[table.path]) for table in LABEL_TABLES),
        ],
        resources={
            "store": store,
            "ledger": dg.ResourceDefinition.none_resource(),
            "broker": dg.ResourceDefinition.none_resource(),
            "table_io": TableIOManager(store, (BARS, UNIVERSE, *features.TABLES)),
        },
        executor=dg.in_process_executor,
    )


def run(definitions: dg.Definitions, job: str, keys: list[str]) -> dg.ExecuteInProcessResult:
    # In memory: this is about the assets, and event bookkeeping on disk costs more than the computing.
    return definitions.resolve_job_def(job).execute_in_process(
        tags=dict(range_tags(keys)), instance=dg.DagsterInstance.ephemeral()
    )


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store whose last 64 sessions were computed as one range, and the labels that were known by then."""
    store = store_of(tmp_path_factory.mktemp("range"), SMALL)
    keys = [session.isoformat() for session in SMALL.calendar]
    result = run(graph(store), "sessions", keys[56:])
    passed = {
        (check.asset_key.to_user_string(), check.check_name): check.passed
        for check in result.get_asset_check_evaluations()
    }
    assert len(passed) == 3 + 5
    assert all(passed.values()), passed
    for table in LABEL_TABLES:
        labelled = run(graph(store), table.name, keys[56 : -table.horizon])
        checks = labelled.get_asset_check_evaluations()
        assert len(checks) == 4
        assert all(check.passed for check in checks), checks
    return store


def test_a_range_writes_every_session_and_empty_ones_too(computed: Store) -> None:
    keys = [session.isoformat() for session in SMALL.calendar]
    for table in SESSION_TABLES:
        assert computed.partitions(table) == keys[56:]
        # The universe of the first 60 sessions is empty.
        assert computed.read(table, keys[56:60]).collect().is_empty()
        rows = computed.read(table).collect()
        assert rows.height == SMALL.universe.height
    for table in LABEL_TABLES:
        assert computed.partitions(table) == keys[56 : -table.horizon]


def test_days_alone_equal_the_range(computed: Store, tmp_path: Path) -> None:
    store = store_of(tmp_path, SMALL)
    keys = [session.isoformat() for session in SMALL.calendar]
    for key in (keys[62], keys[-22]):
        run(graph(store), "sessions", [key])
        for table in LABEL_TABLES:
            run(graph(store), table.name, [key])
        for table in features.TABLES:
            assert store.read(table, [key]).collect().equals(computed.read(table, [key]).collect())


@pytest.mark.parametrize("table", LABEL_TABLES, ids=lambda table: table.name)
def test_labels_are_not_made_from_bars_that_are_not_there(table: Table, tmp_path: Path) -> None:
    """Without the bars of the sale every label would be empty, and look like a halt of the market."""
    store = store_of(tmp_path, SMALL)
    sold = SMALL.calendar[70 + table.horizon].isoformat()
    (tmp_path / BARS.path / f"{sold}.parquet").unlink()
    with pytest.raises(MissingPartitionError, match=f"missing \\({sold}\\); materialize"):
        run(graph(store), table.name, [SMALL.calendar[70].isoformat()])
    assert store.partitions(table) == []


@pytest.mark.parametrize("table", features.TABLES, ids=lambda table: table.name)
def test_checks_find_lost_and_invented_rows(table: Table, computed: Store) -> None:
    key = SMALL.calendar[-22].isoformat()
    scope = CheckScope([key], computed, None, None)  # pyright: ignore[reportArgumentType]
    rule = next(c for c in features.CHECKS if c.table == table and c.name == "members_complete")
    frame = computed.read(table, [key]).collect()
    assert rule.function(frame, scope).passed
    lost = rule.function(frame.tail(-1), scope)
    assert (lost.passed, lost.count) == (False, 1)
    invented = frame.with_columns(security_id=pl.lit("X@2020-01-01"))
    assert rule.function(invented, scope).count == 2 * frame.height


@pytest.mark.parametrize(("table", "column"), [(ALPHA158, "STD10"), (TECHNICAL, "momentum_20")])
def test_holes_are_found(table: Table, column: str, computed: Store) -> None:
    key = SMALL.calendar[-1].isoformat()
    scope = CheckScope([key], computed, None, None)  # pyright: ignore[reportArgumentType]
    rule = next(c for c in features.CHECKS if c.table == table and c.name == "values_present")
    frame = computed.read(table, [key]).collect()
    assert rule.function(frame, scope).passed
    for hole in (None, float("nan"), float("inf")):
        wrong = frame.with_columns(pl.lit(hole, frame.schema[column]).alias(column))
        finding = rule.function(wrong, scope)
        assert not finding.passed
        assert column in finding.message


@pytest.mark.parametrize("table", LABEL_TABLES, ids=lambda table: table.name)
def test_labels_known_at_another_session_are_found(table: Table, computed: Store) -> None:
    keys = [SMALL.calendar[place].isoformat() for place in (-40, -23, -22)]
    scope = CheckScope(keys, computed, None, None)  # pyright: ignore[reportArgumentType]
    rules = {c.name: c.function for c in features.CHECKS if c.table == table}
    frame = computed.read(table, keys).collect()
    assert rules["known_at_its_horizon"](frame, scope).passed
    one = pl.int_range(pl.len()) == frame.height - 1
    known = pl.col("known_session")
    for wrong in (pl.col("session"), known.dt.offset_by("-1d"), known.dt.offset_by("7d"), None):
        early = frame.with_columns(known_session=pl.when(one).then(wrong).otherwise(known))
        finding = rules["known_at_its_horizon"](early, scope)
        assert (finding.passed, finding.count) == (False, 1)
        assert f"{keys[-1]} at" in finding.message
    nothing = pl.when(pl.col("session") < pl.lit(keys[-1]).str.to_date()).then("forward_return")
    finding = rules["labels_present"](frame.with_columns(forward_return=nothing), scope)
    assert not finding.passed
    assert f"the first one {keys[-1]}" in finding.message
    assert rules["labels_present"](frame, scope).passed
    assert rules["known_at_its_horizon"](frame.clear(), scope).passed


def test_every_column_says_what_it_is() -> None:
    for table in features.TABLES:
        for column in table.columns:
            assert len(column.description) > 10, column.name
    names = [column.name for column in ALPHA158.columns]
    assert names[3] == "KMID"
    assert names[-1] == "VSUMD60"
    assert len(names) == 3 + 158
