"""Which databases this installation uses: the embedded server's, or an external server's.

Belongs here: the choice by settings, and making Dagster's database beside an external ledger.
Does not belong here: the embedded server (`postgres.py`) and tables (`ledger/`).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from psycopg2 import errors
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from quant_resources.database_url import connect_arguments, database_url, unreachable
from quant_resources.errors import ConfigurationError
from quant_resources.postgres import ServerUrls, ensure_postgres
from quant_resources.postgres_use import used_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

    from quant_resources.settings import Settings

DAGSTER_SUFFIX: Final = "_dagster"


def ensure_databases(settings: Settings) -> ServerUrls:
    """Make sure that the ledger's and Dagster's databases answer, starting what is embedded.

    With `QUANT_DATABASE_URL` the ledger is that database, and Dagster's lies beside it under the
    same name with `_dagster` (created when missing), unless `QUANT_DAGSTER_DATABASE_URL` names it.

    Args:
        settings: Data root and database URLs.

    Returns:
        Both URLs; both databases have answered.

    Raises:
        ConfigurationError: A URL cannot be used, or Dagster's database may not be created.
        DatabaseUnreachableError: A server does not answer within seconds.
        StorageError: The embedded server's folder cannot be used.
        PostgresError: The embedded server does not start.
    """
    dagster = (
        database_url(settings.dagster_database_url.get_secret_value(), "QUANT_DAGSTER_DATABASE_URL")
        if settings.dagster_database_url
        else None
    )
    if settings.database_url is None:
        embedded = ensure_postgres(settings.data_root)
        # A URL that `quant db url` has printed is the embedded server's own.
        if dagster is None or _text(dagster) == embedded.dagster_url:
            return embedded
        _assert_answers(dagster, "QUANT_DAGSTER_DATABASE_URL")
        return ServerUrls(embedded.ledger_url, _text(dagster))
    ledger = database_url(settings.database_url.get_secret_value())
    if dagster is None:
        dagster = ledger.set(database=f"{ledger.database}{DAGSTER_SUFFIX}")
        _create_beside(ledger, str(dagster.database))
    else:
        _assert_answers(ledger, "QUANT_DATABASE_URL")
        _assert_answers(dagster, "QUANT_DAGSTER_DATABASE_URL")
    return ServerUrls(_text(ledger), _text(dagster))


@contextmanager
def used_databases(settings: Settings) -> Iterator[ServerUrls]:
    """Have both databases answer while the block runs (see `ensure_databases`).

    An embedded server that did not run before is stopped by the last block that uses it.
    """
    if settings.database_url is not None:
        yield ensure_databases(settings)
        return
    with used_postgres(settings.data_root):
        yield ensure_databases(settings)


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _assert_answers(url: URL, variable: str) -> None:
    engine = create_engine(url, poolclass=NullPool, connect_args=connect_arguments(url))
    try:
        engine.connect().close()
    except OperationalError as error:
        raise unreachable(url, error, variable) from error


def _create_beside(ledger: URL, name: str) -> None:
    """Create a database on the ledger's server when it is missing."""
    engine = create_engine(
        ledger,
        poolclass=NullPool,
        connect_args=connect_arguments(ledger),
        isolation_level="AUTOCOMMIT",
    )
    try:
        connection = engine.connect()
    except OperationalError as error:
        raise unreachable(ledger, error) from error
    with connection:
        exists = text("SELECT EXISTS (SELECT FROM pg_database WHERE datname = :name)")
        if connection.scalar(exists, {"name": name}):
            return
        statement = f"CREATE DATABASE {engine.dialect.identifier_preparer.quote_identifier(name)}"
        try:
            connection.execute(text(statement))
        except DBAPIError as error:
            if isinstance(error.orig, errors.DuplicateDatabase | errors.UniqueViolation):
                return  # Another process was a moment faster.
            reason = str(error.orig).strip().splitlines()[0]
            raise ConfigurationError(
                f"Dagster's own database {name!r} is missing on {ledger.host or 'localhost'} and "
                f"cannot be created ({reason}): let an administrator run `{statement} OWNER "
                f"{ledger.username};`, or name another one in QUANT_DAGSTER_DATABASE_URL."
            ) from error
