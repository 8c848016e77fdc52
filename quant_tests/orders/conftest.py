"""Fixtures of the trading ground: one PostgreSQL server per run, a fresh exchange and ledger per test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import URL, create_engine, make_url, text

from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.exchange.control import ExchangeControl
from quant_resources.exchange.process import create_state
from quant_resources.exchange.spec import MarketSpec
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.migrate import migrate
from quant_resources.postgres import ensure_postgres, stop_postgres
from quant_resources.store import Store
from quant_tests.exchange.served import Server
from quant_tests.orders.ground import Ground, history


@pytest.fixture(scope="session")
def database_template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A migrated database that the tests' own are copied from."""
    data_root = tmp_path_factory.mktemp("ledger")
    url = make_url(ensure_postgres(data_root).ledger_url)
    _administer(url, "CREATE DATABASE template_ledger")
    template = url.set(database="template_ledger").render_as_string(hide_password=False)
    migrate(template)
    yield template
    stop_postgres(data_root)


@pytest.fixture
def ledger_url(database_template: str) -> Iterator[str]:
    """A fresh ledger's URL."""
    url = make_url(database_template)
    name = f"test_{uuid4().hex[:16]}"
    _administer(url, f"CREATE DATABASE {name} TEMPLATE template_ledger")
    yield url.set(database=name).render_as_string(hide_password=False)
    _administer(url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def market_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The market's history on disk."""
    return history(tmp_path_factory.mktemp("history"))


@pytest.fixture
def exchange(market_folder: Path, tmp_path: Path) -> Iterator[Server]:
    """A fresh exchange, served over HTTP."""
    spec = MarketSpec.model_validate({"kind": "history", "folder": market_folder})
    state = tmp_path / "exchange"
    state.mkdir()
    create_state(state, spec)
    server = Server(state)
    yield server
    server.stop()


@pytest.fixture
def ground(exchange: Server, ledger_url: str, tmp_path: Path) -> Iterator[Ground]:
    """A trading ground in paper mode, its clock in the morning of the second session."""
    broker = AlpacaBroker(exchange.url, exchange.url, "key", "secret", backoff=(0.01, 0.02, 0.04))
    ledger = Ledger(ledger_url)
    ground = Ground(
        exchange=ExchangeControl(exchange.url),
        broker=broker,
        ledger=ledger,
        store=Store(tmp_path / "data"),
        folder=tmp_path,
    )
    ground.at("2024-03-04 08:30")
    yield ground
    broker.close()
    ledger.dispose()


def _administer(url: URL, statement: str) -> None:
    engine = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
