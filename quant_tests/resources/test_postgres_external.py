"""With a database URL of their own, users get the same from an external server, or one sentence."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import URL, create_engine, make_url, text

from quant_resources.database_url import DatabaseUnreachableError, database_url
from quant_resources.databases import ensure_databases, used_databases
from quant_resources.errors import ConfigurationError
from quant_resources.ledger.migrate import migrate
from quant_resources.postgres import ensure_postgres, is_running, stop_postgres
from quant_resources.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    """A server that the settings know by URL alone; `clerk` may not create databases."""
    root = tmp_path_factory.mktemp("external")
    url = make_url(ensure_postgres(root).ledger_url).set(database="postgres")
    _run(url, "CREATE ROLE clerk LOGIN")
    yield url
    stop_postgres(root)


@pytest.fixture
def ledger(server: URL) -> URL:
    name = f"books-{uuid4().hex[:8]}"
    _run(server, f'CREATE DATABASE "{name}" OWNER clerk')
    return server.set(database=name)


def _run(url: URL, statement: str) -> list:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        result = connection.execute(text(statement))
        rows = list(result) if result.returns_rows else []
    engine.dispose()
    return rows


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _settings(tmp_path: Path, url: URL | str, dagster: URL | None = None) -> Settings:
    return Settings(  # pyright: ignore[reportCallIssue]
        data_root=tmp_path / "root",
        database_url=SecretStr(url if isinstance(url, str) else _text(url)),
        dagster_database_url=SecretStr(_text(dagster)) if dagster else None,
    )


def test_dagsters_database_is_made_beside_the_ledger_once(tmp_path: Path, ledger: URL) -> None:
    settings = _settings(tmp_path, ledger)

    first, second = ensure_databases(settings), ensure_databases(settings)

    assert first == second
    assert first.ledger_url == _text(ledger)
    dagster = make_url(first.dagster_url)
    assert _run(dagster, "SELECT current_database()") == [(f"{ledger.database}_dagster",)]
    assert migrate(first.ledger_url)
    assert not is_running(settings.data_root)


def test_who_may_not_create_it_is_told_the_statement(tmp_path: Path, ledger: URL) -> None:
    clerk = ledger.set(username="clerk", password="secret")  # noqa: S106
    with pytest.raises(ConfigurationError) as caught:
        ensure_databases(_settings(tmp_path, clerk))

    message = str(caught.value)
    statement = f'CREATE DATABASE "{ledger.database}_dagster" OWNER clerk;'
    assert f"`{statement}`" in message
    assert "secret" not in message

    _run(ledger, statement)
    assert ensure_databases(_settings(tmp_path, clerk)).ledger_url == _text(clerk)


def test_dagsters_database_may_be_named(tmp_path: Path, ledger: URL, server: URL) -> None:
    urls = ensure_databases(_settings(tmp_path, ledger, dagster=server))

    assert urls.dagster_url == _text(server)
    assert (
        _run(server, f"SELECT FROM pg_database WHERE datname = '{ledger.database}_dagster'") == []
    )


def test_an_embedded_ledger_may_have_dagsters_database_elsewhere(
    tmp_path: Path, server: URL
) -> None:
    settings = Settings(  # pyright: ignore[reportCallIssue]
        data_root=tmp_path / "root", dagster_database_url=SecretStr(_text(server))
    )
    with used_databases(settings) as urls:
        assert urls.dagster_url == _text(server)
        assert str(tmp_path / "root") in make_url(urls.ledger_url).query["host"]
    assert not is_running(settings.data_root)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://ann:secret@127.0.0.1:1/books", "on 127.0.0.1:1 does not answer"),
        ("postgresql://ann:secret@no-such-host.invalid/books", "on no-such-host.invalid:5432"),
        ("postgresql://ann:secret@192.0.2.1/books", "on 192.0.2.1:5432 does not answer"),
    ],
)
def test_a_server_that_does_not_answer_is_one_sentence_soon(
    tmp_path: Path, url: str, reason: str
) -> None:
    started = time.monotonic()
    with pytest.raises(DatabaseUnreachableError) as caught:
        ensure_databases(_settings(tmp_path, url))

    message = str(caught.value)
    assert time.monotonic() - started < 8
    assert message.startswith("The database 'books' ")
    assert reason in message
    assert "QUANT_DATABASE_URL" in message
    assert "secret" not in message
    assert "\n" not in message


def test_a_database_that_does_not_exist_is_one_sentence(tmp_path: Path, server: URL) -> None:
    with pytest.raises(DatabaseUnreachableError, match='"nowhere" does not exist'):
        ensure_databases(_settings(tmp_path, server.set(database="nowhere")))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://ann:secret@host/books", "names a mysql database"),
        ("sqlite:///books.db", "names a sqlite database"),
        ("postgresql://ann:secret@host", "names no database"),
        ("ann:secret@host/books", "holds no database URL"),
        ("postgresql://ann:secret@host:port/books", "holds no database URL"),
    ],
)
def test_what_is_no_postgresql_url_is_refused_without_repeating_it(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        database_url(url)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_postgresql_url_gets_the_driver_that_dagster_needs(scheme: str) -> None:
    url = database_url(f"{scheme}://ann:p%40ss@host:6000/books?sslmode=require")

    assert _text(url) == "postgresql+psycopg2://ann:p%40ss@host:6000/books?sslmode=require"
