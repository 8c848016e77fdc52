"""Dagster's storage keeps its connections, writes in batches and records what the original does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import psutil
import pytest
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._serdes import deserialize_value
from dagster_postgres import PostgresEventLogStorage
from pydantic import SecretStr
from sqlalchemy import create_engine, event, text

from quant_resources.dagster_storage import BatchedEventLogStorage, dagster_instance
from quant_resources.databases import ensure_databases
from quant_resources.launch import LOCAL_KEY, applied, dagster_home, launch_environment
from quant_resources.postgres import ensure_postgres, stop_postgres
from quant_resources.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]
DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-02-10")


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def first() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"rows": 3})


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run(), deps=[first])
def second() -> None: ...


@dg.asset_check(asset=first)
def sound() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


DEFINITIONS = dg.Definitions(
    [first, second],
    asset_checks=[sound],
    jobs=[dg.define_asset_job("both", dg.AssetSelection.all())],
    executor=dg.in_process_executor,
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    root = tmp_path_factory.mktemp("dagster")
    ensure_postgres(root)
    yield Settings(data_root=root)  # pyright: ignore[reportCallIssue]
    stop_postgres(root)


def _run(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    keys = DAYS.get_partition_keys()
    return DEFINITIONS.resolve_job_def("both").execute_in_process(
        instance=instance,
        tags={
            "dagster/asset_partition_range_start": keys[0],
            "dagster/asset_partition_range_end": keys[-1],
        },
    )


def test_the_instance_of_the_repository_uses_it_and_gives_the_environment_back(
    settings: Settings,
) -> None:
    before = dict(os.environ)
    with dagster_instance(settings) as instance:
        assert isinstance(instance.event_log_storage, BatchedEventLogStorage)
        assert os.environ["DAGSTER_EVENT_BATCH_SIZE"] == "256"
        assert instance.run_monitoring_enabled
        assert not instance.telemetry_enabled
        assert Path(instance.storage_directory()).is_relative_to(settings.data_root)
    assert dict(os.environ) == before


def _recorded(instance: dg.DagsterInstance, run_id: str) -> tuple[object, ...]:
    events = Counter(
        (entry.event_type_value, str(entry.asset_key), entry.partition)
        for entry in (record.event_log_entry.dagster_event for record in _records(instance, run_id))
        if entry is not None and entry.event_type_value.startswith("ASSET_")
    )
    keys = tuple(asset.key for asset in (first, second))
    return (
        events,
        {key: instance.get_latest_materialization_event(key) is not None for key in keys},
        {
            key: record.asset_entry.last_run_id == run_id
            for key in keys
            for record in instance.get_asset_records([key])
        },
        {key: set(instance.get_materialized_partitions(key)) for key in keys},
        _checks(instance, run_id),
    )


def _checks(instance: dg.DagsterInstance, run_id: str) -> Counter[tuple[object, ...]]:
    """What the table of checks holds of a run: a row per announced partition, and the evaluation."""
    storage = instance.event_log_storage
    assert isinstance(storage, PostgresEventLogStorage)
    with storage.index_connection() as connection:
        rows = connection.execute(
            AssetCheckExecutionsTable.select().where(AssetCheckExecutionsTable.c.run_id == run_id)
        ).mappings()
        return Counter(
            (
                row["asset_key"],
                row["check_name"],
                row["partition"],
                row["execution_status"],
                row["evaluation_event_storage_id"] is not None,
                row["evaluation_event_timestamp"] is not None,
                _kind(row["evaluation_event"]),
            )
            for row in rows
        )


def _kind(serialized: str) -> str:
    return deserialize_value(serialized, EventLogEntry).get_dagster_event().event_type_value


def _records(instance: dg.DagsterInstance, run_id: str) -> list[dg.EventLogRecord]:
    return list(instance.get_records_for_run(run_id, limit=10_000).records)


def test_a_run_over_many_partitions_is_recorded_as_by_the_original(
    settings: Settings, tmp_path: Path
) -> None:
    """Batches skip Dagster's code for single events, so the outcome is compared as a whole."""
    with dagster_instance(settings) as instance:
        ours = _recorded(instance, _run(instance).run_id)
    environment = launch_environment(settings)
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "dagster.yaml").write_text(
        (dagster_home() / "dagster.yaml")
        .read_text()
        .replace("quant_resources.dagster_storage", "dagster_postgres")
        .replace("PooledPostgresStorage", "DagsterPostgresStorage")
    )
    with (
        applied({**environment, "DAGSTER_EVENT_BATCH_SIZE": "0"}),
        dg.DagsterInstance.from_config(str(plain)) as instance,
    ):
        assert type(instance.event_log_storage) is PostgresEventLogStorage
        original = _recorded(instance, _run(instance).run_id)

    assert ours == original
    announced = [row for row in ours[-1] if "PLANNED" in row]  # pyright: ignore[reportGeneralTypeIssues, reportOperatorIssue]
    assert len(announced) == len(DAYS.get_partition_keys())
    assert sum(ours[0].values()) > 4 * len(DAYS.get_partition_keys())  # pyright: ignore[reportAttributeAccessIssue]


def test_a_run_opens_few_connections_and_sends_few_statements(settings: Settings) -> None:
    """The original opens 453 connections and sends 713 statements here."""
    with dagster_instance(settings) as instance:
        _run(instance)
        engine = instance._event_storage._engine  # pyright: ignore[reportAttributeAccessIssue]
        connects: list[object] = []
        statements: list[str] = []
        event.listen(engine, "connect", lambda *made: connects.append(made))
        event.listen(
            engine,
            "before_cursor_execute",
            lambda _connection, _cursor, statement, *_: statements.append(statement),
        )
        _run(instance)

    assert len(connects) <= 4
    assert len(statements) < 100
    inserts = [statement for statement in statements if "INSERT INTO event_logs" in statement]
    assert len(inserts) < 60


def test_an_instance_goes_on_after_its_server_was_killed(settings: Settings) -> None:
    with dagster_instance(settings) as instance:
        run_id = _run(instance).run_id
        pid_file = settings.data_root / "postgres/postmaster.pid"
        # Dagster's database commits asynchronously: on disk after three times wal_writer_delay.
        time.sleep(1.0)
        psutil.Process(int(pid_file.read_text().splitlines()[0])).kill()
        ensure_postgres(settings.data_root)

        assert instance.get_run_by_id(run_id) is not None
        assert _run(instance).success


def test_processes_that_open_a_new_database_at_once_all_get_it(settings: Settings) -> None:
    url = ensure_databases(settings).dagster_url.replace("/dagster?", "/another?")
    administration = create_engine(
        ensure_databases(settings).ledger_url, isolation_level="AUTOCOMMIT"
    )
    with administration.connect() as connection:
        connection.execute(text("CREATE DATABASE another"))
    administration.dispose()
    code = (
        "import sys; from quant_resources.dagster_storage import PooledPostgresStorage as S; "
        "print(S(sys.argv[1]).run_storage.get_runs_count())"
    )
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", code, url],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    outcomes = [opener.communicate(timeout=60) for opener in openers]

    assert [output for output, _ in outcomes] == ["0\n"] * 3, outcomes


def _environment(settings: Settings) -> dict[str, str]:
    return launch_environment(settings, ensure_databases(settings))


def test_the_environment_names_absolute_paths_and_every_chosen_setting(settings: Settings) -> None:
    chosen = settings.model_copy(update={"symbols": ("AAPL", "MSFT"), "book": "second"})
    environment = _environment(chosen)

    assert environment["DAGSTER_HOME"] == str(REPOSITORY)
    for name in ("QUANT_DATA_ROOT", "QUANT_DAGSTER_ARTIFACTS", "QUANT_DAGSTER_LOGS"):
        assert Path(environment[name]).is_absolute()
    assert "QUANT_DATABASE_URL" not in environment
    with applied(environment):
        again = Settings()  # pyright: ignore[reportCallIssue]
        assert (again.symbols, again.book) == (("AAPL", "MSFT"), "second")
        assert ensure_databases(again) == ensure_databases(settings)


@pytest.mark.parametrize(
    ("changes", "local"),
    [
        ({}, True),
        ({"data_url": "http://127.0.0.1:80", "trading_url": "http://localhost:81"}, True),
        ({"trading_url": "https://paper-api.alpaca.markets"}, False),
        ({"data_url": "https://data.alpaca.markets"}, False),
        ({"trading_url": "https://127.0.0.1.attacker.example"}, False),
        ({"source": "alpaca"}, False),
    ],
)
def test_local_keys_are_given_to_the_local_exchange_alone(
    settings: Settings, changes: dict[str, str], local: bool
) -> None:
    environment = _environment(settings.model_copy(update=changes))

    assert (environment.get("ALPACA_API_KEY") == LOCAL_KEY) == local
    assert (environment.get("ALPACA_SECRET_KEY") == LOCAL_KEY) == local


def test_a_users_own_keys_are_passed_on(settings: Settings) -> None:
    chosen = settings.model_copy(
        update={"alpaca_api_key": SecretStr("mine"), "alpaca_secret_key": SecretStr("secret")}
    )

    environment = _environment(chosen)

    assert (environment["ALPACA_API_KEY"], environment["ALPACA_SECRET_KEY"]) == ("mine", "secret")
