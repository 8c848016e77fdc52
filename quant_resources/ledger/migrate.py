"""Bringing a ledger database up to date with the schema's history (`migrations/`).

Belongs here: how revisions are applied, safely and at once. Does not belong here: the revisions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from quant_resources.database_url import describe, disk_full, is_disk_full, unreachable
from quant_resources.errors import LedgerError
from quant_resources.ledger.ledger import Ledger

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

#: A name of our own, because an external database may hold tables of other programs.
VERSION_TABLE: Final = "ledger_revision"


class NewerLedgerError(LedgerError):
    """The database was migrated by a newer version of this program."""


def migrate(url: str) -> bool:
    """Bring a ledger database to the newest revision; several processes may do so at once.

    The steps run in one transaction: a database is migrated, or it is as before.

    Args:
        url: URL of the ledger's database.

    Returns:
        True when something was done, False when the database was up to date.

    Raises:
        NewerLedgerError: The database is at a revision that this program does not know.
        DatabaseUnreachableError: The server does not answer.
        StorageError: The server's disk is full.
    """
    from alembic import command
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    ledger = Ledger(url)
    config = alembic_config()
    scripts = ScriptDirectory.from_config(config)
    try:
        with ledger.engine.begin() as connection:
            connection.execute(
                select(func.pg_advisory_xact_lock(func.hashtextextended(VERSION_TABLE, 0)))
            )
            context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
            current = context.get_current_revision()
            if current == scripts.get_current_head():
                return False
            known = {revision.revision for revision in scripts.walk_revisions()}
            if current is not None and current not in known:
                raise NewerLedgerError(
                    f"The {describe(ledger.url)} is at schema revision {current!r}, which this "
                    "version of quant-assets does not know: update quant-assets, nothing was "
                    "changed."
                )
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            return True
    except OperationalError as error:
        if is_disk_full(error):
            raise disk_full(ledger.url) from error
        if error.connection_invalidated or error.statement is None:
            raise unreachable(ledger.url, error) from error
        raise
    finally:
        ledger.dispose()


def alembic_config(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration; there is no `alembic.ini`."""
    from alembic.config import Config

    config = Config()
    folder = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
