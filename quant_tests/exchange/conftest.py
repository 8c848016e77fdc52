"""Fixtures that serve exchanges; the tests of `process.py` start real processes instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from quant_resources.exchange.process import create_state
from quant_resources.exchange.spec import MarketSpec
from quant_tests.exchange.served import WEEK, Bar, Served, Server, write_history


@pytest.fixture(scope="session")
def ending() -> Iterator[list[Server]]:
    """Servers that were told to end; waiting for each in its test would take 0.2 s a test."""
    servers: list[Server] = []
    yield servers
    for server in servers:
        server.wait()


@pytest.fixture(scope="module")
def unchanged_week(
    tmp_path_factory: pytest.TempPathFactory, ending: list[Server]
) -> Iterator[Served]:
    """The week of `week`, shared by tests that leave the account as it is."""
    root = tmp_path_factory.mktemp("unchanged")
    folder = write_history(root / "history", WEEK)
    create_state(root / "state", MarketSpec(kind="history", folder=folder))
    server = Server(root / "state")
    served = Served(root / "state", server.exchange, server.url)
    served.at("2024-03-05 09:00")
    yield served
    server.stop()
    ending.append(server)


@pytest.fixture
def serve(tmp_path: Path, ending: list[Server]) -> Iterator[Callable[..., Served]]:
    """A function that serves a new exchange of a specification, or goes on with a folder's."""
    servers: list[Server] = []

    def start(spec: MarketSpec | None = None, folder: Path | None = None) -> Served:
        folder = folder or tmp_path / f"state-{len(servers)}"
        create_state(folder, spec)
        servers.append(Server(folder))
        return Served(folder, servers[-1].exchange, servers[-1].url)

    yield start
    for server in servers:
        server.stop()
    ending.extend(servers)


@pytest.fixture
def history(tmp_path: Path, serve: Callable[..., Served]) -> Callable[..., Served]:
    """A function that serves a hand-written history without trading costs (unless given)."""

    def start(bars: list[Bar], actions: list[dict[str, Any]] | None = None, **spec: Any) -> Served:
        folder = write_history(tmp_path / "history", bars, actions)
        free = {"half_spread_bps": 0, "impact_bps": 0, **spec}
        return serve(MarketSpec(kind="history", folder=folder, **free))

    return start


@pytest.fixture
def week(history: Callable[..., Served]) -> Served:
    """The hand-written week, on Tuesday 5 March 2024 at 09:00 New York."""
    served = history(WEEK)
    served.at("2024-03-05 09:00")
    return served


@pytest.fixture
def small_spec() -> MarketSpec:
    """A small stochastic market."""
    return MarketSpec(
        seed=11, symbols=12, first_session=date(2023, 1, 3), last_session=date(2023, 6, 30)
    )
