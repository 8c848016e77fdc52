"""Dagster's own storage: PostgreSQL with connections that are kept.

Belongs here: the storage class that `dagster.yaml` names, and the instance for use in a process
of ours. Does not belong here: the environment in which Dagster is started (`launch.py`).

dagster-postgres opens a new connection for every event, which costs more than the event, and
writes the events that announce a materialization one by one. Here runs, events and schedules of a
process share one pool, whose connections are tested before use so that a restarted server is not
noticed, and announcements are written in batches. One asset over 1,000 partitions in one run:
17 s with dagster-postgres, 5.3 s with `DAGSTER_EVENT_BATCH_SIZE` set, 0.6 s with this class too.

An announced check is a row per partition, and dagster serializes the same event for each of them: a table with
7 checks over 247 partitions took 1.35 s of processor time in one run, and takes 0.95 s when it is serialized once.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from dagster import DagsterInstance
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import SqlEventLogStorageTable
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._serdes import serialize_value
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.utils import create_pg_engine, pg_url_from_config

from quant_resources.database_url import connect_arguments, database_url
from quant_resources.launch import applied, launch_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dagster._core.events.log import EventLogEntry
    from dagster._serdes import ConfigurableClassData

    from quant_resources.settings import Settings

#: A command's own runs write where the command writes; capturing costs two processes a run, which
#: moreover answer Ctrl-C with a traceback.
_OUTPUT_STAYS_HERE: Final = {
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
}
_KEPT_CONNECTIONS: Final = 2
_MORE_CONNECTIONS: Final = 20


class BatchedEventLogStorage(PostgresEventLogStorage):
    """Event log that writes a batch of announced materializations in one statement."""

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store a batch of events; Dagster stores them singly when this raises."""
        announced, others = [], []
        for event in events:
            kind = event.get_dagster_event()
            (announced if kind.is_asset_materialization_planned else others).append(event)
        if announced:
            self._store_announced(announced)
        if others:
            super().store_event_batch(others)

    def _store_announced(self, announced: Sequence[EventLogEntry]) -> None:
        insert = self.prepare_insert_event_batch(announced)
        with self._connect() as connection:
            result = connection.execute(insert.returning(SqlEventLogStorageTable.c.id))
            event_ids = [int(row[0]) for row in result]
        # The table of assets keeps the run that announced an asset last. Unlike a batch of
        # materializations, an announcement of a run holds several assets.
        last = {
            event.get_dagster_event().asset_key: (event, event_id)
            for event, event_id in zip(announced, event_ids, strict=True)
        }
        with self.index_transaction() as connection:
            for event, event_id in last.values():
                self._store_asset_event(connection, event, event_id)

    def _store_asset_check_evaluation_planned(
        self, event: EventLogEntry, event_id: int | None
    ) -> None:
        """Store an announced check: the same rows as the original, serialized and compiled once."""
        planned = event.get_dagster_event().asset_check_planned_data
        subset = planned.partitions_subset
        row = {
            "asset_key": planned.asset_key.to_string(),
            "check_name": planned.check_name,
            "run_id": event.run_id,
            "execution_status": AssetCheckExecutionRecordStatus.PLANNED.value,
            "evaluation_event": serialize_value(event),
            "evaluation_event_timestamp": self._event_insert_timestamp(event),
            "evaluation_event_storage_id": event_id,
        }
        keys = [None] if subset is None else subset.get_partition_keys()
        with self.index_connection() as connection:
            connection.execute(
                AssetCheckExecutionsTable.insert(), [row | {"partition": key} for key in keys]
            )


class PooledPostgresStorage(DagsterPostgresStorage):
    """PostgreSQL storage of Dagster with one connection pool per process."""

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        url = database_url(postgres_url, "QUANT_DAGSTER_DATABASE_URL")
        super().__init__(
            url.render_as_string(hide_password=False), should_autocreate_tables, inst_data
        )
        self._event_log_storage = BatchedEventLogStorage(
            self.postgres_url, should_autocreate_tables=False
        )
        engine = create_pg_engine(
            self.postgres_url,
            isolation_level="AUTOCOMMIT",
            pool_size=_KEPT_CONNECTIONS,
            max_overflow=_MORE_CONNECTIONS,
            pool_pre_ping=True,
            connect_args=connect_arguments(url),
        )
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = engine

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> PooledPostgresStorage:
        """Build the storage from `dagster.yaml`; the parent's would return the parent's class."""
        return cls(
            pg_url_from_config(config_value),
            config_value.get("should_autocreate_tables", True),
            inst_data,
        )


@contextmanager
def dagster_instance(settings: Settings) -> Iterator[DagsterInstance]:
    """Open the Dagster instance of this installation in the calling process.

    Starts the embedded server when it is not running. While the block runs, the process has the
    environment that Dagster's own processes get, for the steps of a run to find.

    Args:
        settings: The settings of this installation.

    Yields:
        The instance that `dagster.yaml` describes.
    """
    with (
        applied(launch_environment(settings)) as environment,
        DagsterInstance.from_ref(
            InstanceRef.from_dir(environment["DAGSTER_HOME"], overrides=_OUTPUT_STAYS_HERE)
        ) as instance,
    ):
        yield instance
