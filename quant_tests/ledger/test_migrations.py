"""The migrated schema is the declared one, history cannot be changed, and nothing is half done."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from quant_resources.database_url import DatabaseUnreachableError
from quant_resources.ledger import Base
from quant_resources.ledger.base import append_only_tables
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.migrate import VERSION_TABLE, NewerLedgerError, migrate
from quant_tests.ledger.catalog import catalog

if TYPE_CHECKING:
    from collections.abc import Callable

HISTORY = {
    "order_events",
    "leg_events",
    "fills",
    "fill_corrections",
    "adjustments",
    "activities",
    "account_snapshots",
    "reconciliations",
    "trading_state",
    "model_activations",
}


def test_alembic_finds_no_difference_between_tables_and_migrations(ledger: Ledger) -> None:
    with ledger.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_server_default": True}
        )

        assert compare_metadata(context, Base.metadata) == []


def test_the_servers_catalog_of_both_is_the_same(
    ledger: Ledger, new_database: Callable[[str], str]
) -> None:
    """Alembic does not compare CHECK constraints, which hold the transitions of orders."""
    declared = Ledger(new_database("template0"))
    Base.metadata.create_all(declared.engine)
    # The version table's primary key exists in one of them only.
    with declared.begin() as transaction:
        transaction.execute(text(f"CREATE TABLE {VERSION_TABLE} ()"))

    migrated = catalog(ledger)

    assert any(kind == "constraint" and "CHECK" in migrated[kind, name] for kind, name in migrated)
    assert migrated == catalog(declared)
    declared.dispose()


def test_the_tables_that_must_be_history_are_declared_so() -> None:
    assert set(append_only_tables()) >= HISTORY


@pytest.mark.parametrize("table", append_only_tables())
@pytest.mark.parametrize(
    "statement",
    ["UPDATE {table} SET {column} = {column}", "DELETE FROM {table}", "TRUNCATE {table} CASCADE"],
)
def test_history_refuses_every_change(ledger: Ledger, table: str, statement: str) -> None:
    # The last one, because the server itself refuses to update a generated key.
    column = list(Base.metadata.tables[table].columns)[-1].name
    with pytest.raises(IntegrityError, match="append-only history"), ledger.begin() as transaction:
        transaction.execute(text(statement.format(table=table, column=column)))


@pytest.mark.parametrize("table", sorted(set(Base.metadata.tables) - set(append_only_tables())))
def test_other_tables_accept_changes(ledger: Ledger, table: str) -> None:
    """Without this, a trigger on every table would pass the test above."""
    with ledger.begin() as transaction:
        transaction.execute(Base.metadata.tables[table].delete())


def test_processes_that_migrate_at_once_do_it_once(new_database: Callable[[str], str]) -> None:
    url = new_database("template0")
    code = "import sys; from quant_resources.ledger.migrate import migrate; print(migrate(sys.argv[1]))"

    def run(_: int) -> str:
        return subprocess.run(
            [sys.executable, "-c", code, url], check=True, capture_output=True, text=True
        ).stdout.strip()

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(run, range(3))) == ["False", "False", "True"]


def test_migrating_again_does_nothing(ledger_url: str) -> None:
    assert not migrate(ledger_url)


def test_a_ledger_of_a_newer_program_is_left_alone(ledger: Ledger, ledger_url: str) -> None:
    with ledger.begin() as transaction:
        transaction.execute(text("UPDATE ledger_revision SET version_num = '9999'"))

    with pytest.raises(NewerLedgerError, match=r"9999.*update quant-assets"):
        migrate(ledger_url)


def test_a_migration_that_fails_leaves_nothing_behind(new_database: Callable[[str], str]) -> None:
    """The last table of the revision is in the way, so everything before it must be undone."""
    url = new_database("template0")
    ledger = Ledger(url)
    with ledger.begin() as transaction:
        transaction.execute(text("CREATE TABLE fills (mine int)"))

    with pytest.raises(Exception, match="fills"):
        migrate(url)

    with ledger.begin() as transaction:
        tables = transaction.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ).all()
        transaction.execute(text("DROP TABLE fills"))
    assert tables == ["fills"]
    assert migrate(url)
    ledger.dispose()


def test_a_server_that_does_not_answer_is_one_sentence() -> None:
    with pytest.raises(DatabaseUnreachableError, match="does not answer") as caught:
        migrate("postgresql://someone:secret@127.0.0.1:1/nowhere")

    assert "secret" not in str(caught.value)
