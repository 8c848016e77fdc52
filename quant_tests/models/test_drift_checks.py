"""Drift of a session against the training window of the model in force, on real stores and a real ledger."""

import shutil
from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from quant_assets.features.schemas import ALPHA158, TECHNICAL
from quant_assets.findings import Finding
from quant_assets.models import drift_checks, serving
from quant_assets.models.schemas import ALPHA158_LIGHTGBM
from quant_assets.partitions import DEFAULT
from quant_assets.table_checks import CheckScope, check_definitions
from quant_resources.store import Store
from quant_resources.tables import Table
from quant_tests.models.planted_market import upstream
from quant_tests.models.trained_market import Trained

SESSION = "2024-03-14"


@pytest.fixture
def store(trained: Trained, tmp_path: Path) -> Store:
    """A copy of the market's features that a test may damage."""
    for table in (ALPHA158, TECHNICAL):
        shutil.copytree(Path(trained.market.store.root.path) / table.path, tmp_path / table.path)
    return Store(tmp_path)


def damage(store: Store, key: str, change: pl.Expr, table: Table = ALPHA158) -> None:
    rows = store.read(table, [key]).with_columns(change).collect()
    store.write(table, table.conform(rows.cast(pl.Schema(table.schema))), [key])


def judge(trained: Trained, store: Store, key: str, table: Table = ALPHA158) -> Finding:
    rule = next(check for check in drift_checks.CHECKS if check.table == table)
    scope = CheckScope([key], store, trained.ledger, None)  # pyright: ignore[reportArgumentType]
    return rule.function(store.read(table, [key], rule.columns).collect(), scope)


def in_force(trained: Trained) -> str:
    day = date.fromisoformat(SESSION)
    return serving.versions_in_force(trained.ledger, ALPHA158_LIGHTGBM.name, [day])[day]


def test_a_session_like_the_training_window_passes(trained: Trained, store: Store) -> None:
    finding = judge(trained, store, SESSION)
    assert finding.passed
    version = in_force(trained)
    first, last = serving.training_window(trained.ledger, version)
    assert last < date(2024, 3, 1)
    assert f"63 sessions of the training window of {version} ({first} to {last})" in finding.message
    assert "columns judged: 158" in finding.message
    assert finding.sample is not None
    assert finding.sample.height == 10


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (pl.col("CORD30") + 5, "its median is"),
        (pl.col("CORD30") * 8, "its 10-90 % width is"),
        (pl.lit(0.25).alias("CORD30"), "its 10-90 % width is 0,"),
        (pl.when(pl.int_range(pl.len()) % 2 == 0).then("CORD30"), "its missing share is 0.5,"),
    ],
)
def test_a_broken_column_is_named_with_numbers(
    trained: Trained, store: Store, change: pl.Expr, said: str
) -> None:
    damage(store, SESSION, change.alias("CORD30"))
    finding = judge(trained, store, SESSION)
    assert (finding.passed, finding.count) == (False, 1)
    assert "in 1 of 158 columns, most of all in CORD30: " in finding.message
    assert said in finding.message
    assert finding.sample is not None
    assert finding.sample["column"].unique().to_list() == ["CORD30"]


def test_later_sessions_are_not_looked_at(trained: Trained, store: Store) -> None:
    before = judge(trained, store, SESSION)
    wild = pl.col(pl.Float32) * 1000 + 7
    damage(store, "2024-03-15", wild)
    assert judge(trained, store, SESSION).message == before.message
    (Path(store.root.path) / ALPHA158.path / "2024-03-15.parquet").unlink()
    assert judge(trained, store, SESSION).message == before.message
    # Nor are those between the window and the session, unlike those of the window itself.
    damage(store, "2024-03-13", wild)
    assert judge(trained, store, SESSION).message == before.message
    first, last = serving.training_window(trained.ledger, in_force(trained))
    for key in [key for key in store.partitions(ALPHA158) if str(first) <= key <= str(last)]:
        damage(store, key, wild)
    assert not judge(trained, store, SESSION).passed


def test_the_newest_session_of_a_run_is_judged(trained: Trained, store: Store) -> None:
    keys = ["2024-03-11", "2024-03-12", SESSION]
    damage(store, keys[0], pl.col("KMID") + 9)
    rule = next(check for check in drift_checks.CHECKS if check.table == ALPHA158)
    scope = CheckScope(keys, store, trained.ledger, None)  # pyright: ignore[reportArgumentType]
    rows = store.read(ALPHA158, keys, rule.columns).collect()
    finding = rule.function(rows, scope)
    assert finding.passed
    assert SESSION in finding.message
    assert rule.function(rows.clear(), scope).message == "features/alpha158: no rows to judge."


def test_without_a_model_the_year_before_is_compared_with(trained: Trained, store: Store) -> None:
    finding = judge(trained, store, SESSION, TECHNICAL)
    assert finding.passed
    assert "63 sessions of the 252 sessions before" in finding.message
    damage(store, SESSION, pl.col("rsi_14") / 10, TECHNICAL)
    worse = judge(trained, store, SESSION, TECHNICAL)
    assert not worse.passed
    assert "rsi_14" in worse.message


def test_too_little_history_says_so_and_passes(trained: Trained, store: Store) -> None:
    early = store.partitions(ALPHA158)[drift_checks.FEWEST_SESSIONS - 1]
    damage(store, early, pl.col("KMID") + 100)
    finding = judge(trained, store, early)
    assert finding.passed
    assert "is not judged: only 125 sessions" in finding.message
    enough = store.partitions(ALPHA158)[drift_checks.FEWEST_SESSIONS]
    damage(store, enough, pl.col("KMID") + 100)
    assert "KMID" in judge(trained, store, enough).message


def test_in_a_run_it_warns_and_shows_the_worst_columns(trained: Trained, store: Store) -> None:
    damage(store, SESSION, pl.col("KSFT2") * 50)
    rules = [check for check in drift_checks.CHECKS if check.table == ALPHA158]
    definitions = dg.Definitions(
        assets=upstream(),
        asset_checks=[
            check
            for check in check_definitions([ALPHA158], rules, DEFAULT)
            if {key.name for key in check.check_keys} == {"distribution_like_training"}
        ],
        jobs=[dg.define_asset_job("judge", selection=dg.AssetSelection.all_asset_checks())],
        resources={**trained.market.resources(trained.ledger, ()), "store": store},
        executor=dg.in_process_executor,
    )
    result = definitions.resolve_job_def("judge").execute_in_process(
        tags={"dagster/partition": SESSION}
    )
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    assert evaluation.metadata["rows_in_breach"].value == 1
    table = str(evaluation.metadata["sample"].value)
    assert table.startswith(
        "| column | aspect | session | usual_low | usual | usual_high | distance |"
    )
    assert "| KSFT2 | 10-90 % width |" in table
