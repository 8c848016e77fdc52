"""A planted market with two months of trained models, on an embedded PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from quant_assets.models.assets import ASSETS as MODEL_ASSETS
from quant_assets.models.schemas import TABLES as MODEL_TABLES
from quant_resources.ledger import Ledger
from quant_resources.ledger.migrate import migrate
from quant_resources.postgres import ensure_postgres, stop_postgres
from quant_resources.store import Store
from quant_tests.models.planted_market import PlantedMarket, plant, upstream

# The first trains on 252 sessions, the second on a month more.
MONTHS = ("2024-02-01", "2024-03-01")


@pytest.fixture(scope="session")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    root = tmp_path_factory.mktemp("ledger")
    url = ensure_postgres(root).ledger_url
    migrate(url)
    database = Ledger(url)
    try:
        yield database
    finally:
        database.dispose()
        stop_postgres(root)


@dataclass(frozen=True)
class Trained:
    """The market and what the runs of its models said."""

    market: PlantedMarket
    ledger: Ledger
    runs: tuple[dg.ExecuteInProcessResult, ...]


def train(market: PlantedMarket, ledger: Ledger, month: str) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [*MODEL_ASSETS, *upstream()],
        selection=list(MODEL_ASSETS),
        partition_key=month,
        resources=market.resources(ledger, MODEL_TABLES),
    )


@pytest.fixture(scope="session")
def trained(ledger: Ledger, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root: Path = tmp_path_factory.mktemp("market")
    market = plant(Store(root), last=date(2024, 3, 15))
    return Trained(market, ledger, tuple(train(market, ledger, month) for month in MONTHS))
