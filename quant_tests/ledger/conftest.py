"""A migrated ledger of its own for every test, on one embedded server."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url, text

from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.migrate import migrate
from quant_resources.postgres import ensure_postgres, stop_postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL

TEMPLATE = "migrated"


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a migrated database that serves as the template of the others."""
    data_root = tmp_path_factory.mktemp("ledger")
    url = make_url(ensure_postgres(data_root).ledger_url)
    _administer(url, f"CREATE DATABASE {TEMPLATE}")
    template = url.set(database=TEMPLATE).render_as_string(hide_password=False)
    migrate(template)
    yield template
    stop_postgres(data_root)


@pytest.fixture
def new_database(server_url: str) -> Iterator[Callable[[str], str]]:
    """Create a database from a template (`template0` for an empty one); return its URL."""
    made: list[Ledger] = []

    def create(template: str) -> str:
        url = make_url(server_url)
        name = f"test_{uuid4().hex}"
        _administer(url, f"CREATE DATABASE {name} TEMPLATE {template}")
        made.append(Ledger(url.set(database=name).render_as_string(hide_password=False)))
        return made[-1].url.render_as_string(hide_password=False)

    yield create
    for ledger in made:
        _administer(ledger.url, f"DROP DATABASE {ledger.url.database} WITH (FORCE)")


@pytest.fixture
def ledger_url(new_database: Callable[[str], str]) -> str:
    """URL of an empty, migrated ledger."""
    return new_database(TEMPLATE)


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """An empty, migrated ledger."""
    ledger = Ledger(ledger_url)
    yield ledger
    ledger.dispose()


def _administer(url: URL, statement: str) -> None:
    engine = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
