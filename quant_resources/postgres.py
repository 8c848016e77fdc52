"""The embedded PostgreSQL server of a data root: started on demand, shared by all processes.

Belongs here: finding the server of a data root, and deciding who starts and stops it.
Does not belong here: its files and programs (`postgres_cluster.py`), external servers and what a
database URL means (`databases.py`), and tables.

How a working database comes about, whoever calls and whatever was killed before:

1. A server that answers on the socket named in its pid file is used as it is.
2. Otherwise the start lock is asked for. The lock is an open file that the server and all its
   child processes inherit, so holding it proves that no process of this cluster lives: neither
   a pid file nor a process id, which the system may have given to somebody else, is believed.
3. With the lock: a cluster is initialised beside its place and moved there when complete, a stale
   pid file is removed, the configuration is written, and the server starts with the lock.
4. Without it: another process is starting the server, or a server is recovering or ending;
   begin again at 1, within a time limit.
5. The databases `quant` and `dagster` are created when they are missing.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg2
from psycopg2 import sql
from sqlalchemy import URL

from quant_resources.postgres_cluster import (
    PORT,
    START_SECONDS,
    STOP_SECONDS,
    SUPERUSER,
    Cluster,
    PostgresError,
    no_space,
    start_server,
    stop_server,
    storage_errors,
    usable_cluster,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

LEDGER_DATABASE: Final = "quant"
DAGSTER_DATABASE: Final = "dagster"

_POLL_SECONDS: Final = 0.05
_PID_FILE_LINES: Final = 8
_DISK_FULL: Final = "53100"


@dataclass(frozen=True, slots=True)
class ServerUrls:
    """The two databases of a data root, as `postgresql+psycopg2://` URLs.

    Attributes:
        ledger_url: The ledger.
        dagster_url: Dagster's own runs, events and schedules.
    """

    ledger_url: str = field(repr=False)
    dagster_url: str = field(repr=False)


def ensure_postgres(data_root: Path) -> ServerUrls:
    """Make sure that the data root's PostgreSQL server runs and holds both databases.

    Args:
        data_root: Folder of the data root; made when it does not exist.

    Returns:
        The URLs of the ledger's and Dagster's database.

    Raises:
        StorageError: The folder cannot be used, or the disk is full.
        PostgresError: The server does not start.
        ConfigurationError: The caller is root, and the server's account cannot be made.
    """
    cluster = usable_cluster(data_root)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with storage_errors(cluster):
            if (socket_folder := _answering(cluster)) is not None:
                return ServerUrls(
                    *(_url(socket_folder, name) for name in (LEDGER_DATABASE, DAGSTER_DATABASE))
                )
            with _start_lock(cluster) as lock:
                if lock is not None:
                    start_server(cluster, lock)
                    continue
        time.sleep(_POLL_SECONDS)
    raise PostgresError(
        f"The PostgreSQL server of {cluster.data_root} runs but does not answer: see "
        f"{cluster.log}; if the folder was moved or another container uses it, stop it there first "
        "(`quant db stop`)."
    )


def stop_postgres(data_root: Path) -> bool:
    """Stop the data root's server, after its open transactions were rolled back.

    Args:
        data_root: Folder of the data root.

    Returns:
        True when a server was running, False when there was none.

    Raises:
        PostgresError: The server does not stop.
    """
    cluster = Cluster(data_root.expanduser().resolve())
    if not cluster.pid_file.exists():
        return False
    with storage_errors(cluster):
        with _start_lock(cluster) as lock:
            if lock is not None:
                return False
        for mode in ("fast", "immediate"):
            stop_server(cluster, mode)
            deadline = time.monotonic() + STOP_SECONDS
            while time.monotonic() < deadline:
                with _start_lock(cluster) as lock:
                    if lock is not None:
                        cluster.pid_file.unlink(missing_ok=True)
                        return True
                time.sleep(_POLL_SECONDS)
    raise PostgresError(
        f"The PostgreSQL server of {cluster.data_root} does not stop: see {cluster.log}."
    )


def is_running(data_root: Path) -> bool:
    """Say whether the data root's server runs and answers, without starting it."""
    cluster = Cluster(data_root.expanduser().resolve())
    with storage_errors(cluster):
        return _answering(cluster) is not None


def _answering(cluster: Cluster) -> Path | None:
    """Return the socket folder of the running server, with both databases in place, or None."""
    try:
        lines = [line.strip() for line in cluster.pid_file.read_text().splitlines()]
    except FileNotFoundError:
        return None
    # A copied or moved data root brings the pid file of another server along.
    if len(lines) < _PID_FILE_LINES or lines[7] != "ready" or Path(lines[1]) != cluster.folder:
        return None
    socket_folder = Path(lines[4])
    try:
        connection = psycopg2.connect(
            host=str(socket_folder),
            port=PORT,
            user=SUPERUSER,
            dbname="postgres",
            connect_timeout=5,
        )
    except psycopg2.OperationalError:
        return None
    try:
        _create_databases(connection)
    except psycopg2.OperationalError as error:
        if error.pgcode == _DISK_FULL:
            raise no_space(cluster) from error
        return None
    finally:
        connection.close()
    return socket_folder


def _create_databases(connection: psycopg2.extensions.connection) -> None:
    """Create the missing ones of the two databases; safe against another process doing so."""
    connection.autocommit = True
    with connection.cursor() as cursor:
        wanted = (LEDGER_DATABASE, DAGSTER_DATABASE)

        def missing() -> list[str]:
            cursor.execute("SELECT datname FROM pg_database WHERE datname IN %s", (wanted,))
            return sorted(set(wanted) - {name for (name,) in cursor.fetchall()})

        if not missing():
            return
        cursor.execute("SELECT pg_advisory_lock(hashtextextended('quant databases', 0))")
        for name in missing():
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            if name == DAGSTER_DATABASE:
                # Losing the last moments of Dagster's event log in a power failure costs a
                # re-materialization; the ledger's commits always wait for the disk.
                cursor.execute(
                    sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(
                        sql.Identifier(name)
                    )
                )


def _url(socket_folder: Path, database: str) -> str:
    # The port is named, because libpq would otherwise take it from a PGPORT in the environment.
    url = URL.create(
        "postgresql+psycopg2",
        username=SUPERUSER,
        database=database,
        query={"host": str(socket_folder), "port": str(PORT)},
    )
    return url.render_as_string(hide_password=False)


@contextmanager
def _start_lock(cluster: Cluster) -> Iterator[int | None]:
    """Yield the file descriptor of the start lock, or None when a living process holds it."""
    descriptor = os.open(cluster.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        # Closing is enough: the lock lives on in the server, which has inherited the open file.
        os.close(descriptor)
