"""Database URLs: which driver they name, how they are described, what to say when none answers.

Belongs here: what can be known from a URL and from a driver's error, without a connection.
Does not belong here: starting servers (`postgres.py`) and choosing databases (`databases.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from quant_resources.errors import ConfigurationError, LedgerError, StorageError

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError

DRIVER: Final = "postgresql+psycopg2"
CONNECT_TIMEOUT_SECONDS: Final = 5
_DISK_FULL: Final = "53100"
_DIALECTS: Final = frozenset({"postgresql", "postgres"})


class DatabaseUnreachableError(LedgerError):
    """The database does not answer; nothing was written."""


def database_url(text: str | URL, variable: str = "QUANT_DATABASE_URL") -> URL:
    """Read a database URL and name the driver in it.

    SQLAlchemy 2.1 takes `postgresql://` for psycopg 3, on which dagster-postgres does not work.

    Args:
        text: `postgresql://user:password@host:port/database`, with or without a driver.
        variable: The setting it comes from, for the message.

    Returns:
        The URL with the psycopg2 driver.

    Raises:
        ConfigurationError: It is no PostgreSQL URL, or it names no database.
    """
    remedy = f"set {variable} to postgresql://user:password@host:5432/database"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # Neither message nor cause: both would repeat the password.
        raise ConfigurationError(f"{variable} holds no database URL: {remedy}.") from None
    if url.get_backend_name() not in _DIALECTS:
        raise ConfigurationError(
            f"{variable} names a {url.get_backend_name()} database, but only PostgreSQL can hold "
            f"the ledger: {remedy}."
        )
    if not url.database:
        raise ConfigurationError(f"{variable} names no database: {remedy}.")
    return url.set(drivername=DRIVER)


def connect_arguments(url: URL) -> dict[str, Any]:
    """Return the driver's arguments for a connection that gives up soon and says who it is."""
    defaults = {"connect_timeout": CONNECT_TIMEOUT_SECONDS, "application_name": "quant-assets"}
    return {name: value for name, value in defaults.items() if name not in url.query}


def describe(url: URL) -> str:
    """Say which database a URL means, without user or password.

    Returns:
        `database 'quant' on db.example.com:5432`; the socket's folder instead of a host.
    """
    port = url.port or url.query.get("port") or 5432
    where = url.query.get("host") or f"{url.host or 'localhost'}:{port}"
    return f"database {url.database!r} on {where}"


def unreachable(
    url: URL, error: DBAPIError, variable: str = "QUANT_DATABASE_URL"
) -> DatabaseUnreachableError:
    """Turn a driver's connection error into one sentence with the remedy, never the password."""
    lines = str(error.orig or error).strip().splitlines()
    reason = lines[-1].strip().rstrip("?. ") if lines else "no reason given"
    if url.password:
        reason = reason.replace(str(url.password), "***")
    return DatabaseUnreachableError(
        f"The {describe(url)} does not answer ({reason}): start that server or correct {variable}, "
        "or unset it to use the embedded PostgreSQL."
    )


def is_disk_full(error: DBAPIError) -> bool:
    """Say whether the server refused because its disk is full."""
    return getattr(error.orig, "pgcode", None) == _DISK_FULL


def disk_full(url: URL) -> StorageError:
    """Say that the server's disk is full; its transaction was rolled back."""
    return StorageError(
        f"The disk of the {describe(url)} is full, so nothing was written: free some space and "
        "start the same command again."
    )
