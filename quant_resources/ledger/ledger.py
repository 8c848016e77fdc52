"""The connection to the ledger: transactions and locks, nothing about what is stored.

Belongs here: how a program reaches the ledger, begins a transaction and takes a lock.
Does not belong here: tables, queries (`registry.py`, `order_book.py`), the server itself
(`quant_resources/postgres.py`) and the schema's history (`migrations/`).
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import create_engine, func, select
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from quant_resources.database_url import (
    DatabaseUnreachableError,
    connect_arguments,
    database_url,
    describe,
    disk_full,
    is_disk_full,
    unreachable,
)
from quant_resources.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection

_LOCK_POLL_SECONDS: Final = 0.1
_BACKEND: Final = select(func.pg_backend_pid())


class LedgerBusyError(LedgerError):
    """Another process holds the lock that this one needs."""


class HeldLock:
    """A lock of this process; it is lost when its connection to the server is lost."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.name = name
        self._connection = connection
        self._backend = connection.scalar(_BACKEND)

    def verify(self) -> None:
        """Assert that the lock is still ours, to be called before something irrevocable.

        Raises:
            DatabaseUnreachableError: When the connection, and with it the lock, is gone.
        """
        cause: DBAPIError | None = None
        if not self._connection.invalidated:
            try:
                # A connection that was silently replaced would answer, without the lock.
                if self._connection.scalar(_BACKEND) == self._backend:
                    return
            except DBAPIError as error:
                cause = error
        raise DatabaseUnreachableError(
            f"The lock {self.name!r} was lost with its database connection: nothing more is done "
            "under it; start the command again, it recovers what is unfinished."
        ) from cause


class Ledger:
    """A ledger database: gives transactions and named locks.

    Args:
        url: `postgresql+psycopg2://…`; the driver is put in when the URL names none.

    The engine connects when first used, keeps a few connections and tests each before use, so
    a restarted server costs nothing but the transaction that was open.
    """

    def __init__(self, url: str) -> None:
        self.url = database_url(url)
        self.engine = create_engine(
            self.url,
            pool_pre_ping=True,
            pool_size=2,
            max_overflow=8,
            connect_args=connect_arguments(self.url),
        )
        # Objects stay readable after their transaction has ended.
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    def __repr__(self) -> str:
        return f"Ledger({describe(self.url)})"

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """Open one transaction: committed when the block ends, rolled back when it raises.

        Yields:
            A session; nothing that it writes is visible to others before the block ends.

        Raises:
            DatabaseUnreachableError: When the server does not answer; nothing was written.
            StorageError: When the server's disk is full; nothing was written.
        """
        try:
            with self._sessions() as session, session.begin():
                try:
                    session.connection()
                except OperationalError as error:
                    raise unreachable(self.url, error) from error
                yield session
        except OperationalError as error:
            if is_disk_full(error):
                raise disk_full(self.url) from error
            raise

    @contextmanager
    def exclusive(self, name: str, wait_seconds: float = 0.0) -> Iterator[HeldLock]:
        """Hold a lock across transactions, so that one process at a time does a thing.

        The lock is an advisory lock of the server on its own connection: it ends with the block
        or, when the process is killed, with its connection.

        Args:
            name: What is locked, for instance `orders:<account id>`.
            wait_seconds: How long to wait for another holder to finish.

        Yields:
            The lock, which can be verified before something irrevocable.

        Raises:
            LedgerBusyError: When another process still holds it after the wait.
            DatabaseUnreachableError: When the server does not answer.
        """
        key = func.hashtextextended(name, 0)
        try:
            connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        except OperationalError as error:
            raise unreachable(self.url, error) from error
        with connection:
            deadline = time.monotonic() + wait_seconds
            while not connection.scalar(select(func.pg_try_advisory_lock(key))):
                if time.monotonic() >= deadline:
                    raise LedgerBusyError(
                        f"Another process holds the lock {name!r}: let it finish, or end it, and "
                        "start this command again."
                    )
                time.sleep(_LOCK_POLL_SECONDS)
            try:
                yield HeldLock(name, connection)
            finally:
                # With a lost connection the server has released the lock already.
                if not connection.invalidated:
                    connection.execute(select(func.pg_advisory_unlock(key)))

    def dispose(self) -> None:
        """Close the idle connections; the ledger can still be used afterwards."""
        self.engine.dispose()
