"""Using the embedded PostgreSQL for a while, and stopping it when nobody does any more.

Belongs here: who uses the server of a data root, and who stops it. Does not belong here: how it is
started and stopped (`postgres.py`).

A command that starts the server must stop it, but not under another command that came later. Every
user therefore holds a shared lock on a file, which ends with its process however that ends, and the
last one to leave stops the server when a user had started it. A server that somebody asked to stay
(`keep_postgres`) is left running.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from quant_resources.postgres import ServerUrls, ensure_postgres, is_running, stop_postgres
from quant_resources.postgres_cluster import storage_errors, usable_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def used_postgres(data_root: Path) -> Iterator[ServerUrls]:
    """Have the data root's server run while the block does.

    Args:
        data_root: Folder of the data root; made when it does not exist.

    Yields:
        The URLs of the ledger's and Dagster's database.

    Raises:
        StorageError: The folder cannot be used, or the disk is full.
        PostgresError: The server does not start.
    """
    with storage_errors(usable_cluster(data_root)):
        descriptor = os.open(
            data_root / "postgres.users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        was_running = is_running(data_root)
        urls = ensure_postgres(data_root)
        if not was_running:
            _temporary(data_root).touch()
        try:
            yield urls
        finally:
            if _is_last(descriptor) and _temporary(data_root).exists():
                stop_postgres(data_root)
                _temporary(data_root).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def keep_postgres(data_root: Path) -> ServerUrls:
    """Start the server when it does not run, and let it run until `stop_postgres`."""
    urls = ensure_postgres(data_root)
    _temporary(data_root).unlink(missing_ok=True)
    return urls


def _temporary(data_root: Path) -> Path:
    """The mark of a server that its last user shall stop."""
    return data_root / "postgres.temporary"


def _is_last(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
