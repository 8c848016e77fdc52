"""Markets, evidence and a ledger, shared by the tests of this stage."""

from collections.abc import Callable, Iterator

import polars as pl
import pytest

from quant_assets.performance.trading_evidence import TradingEvidence
from quant_resources.ledger import Ledger
from quant_resources.ledger.migrate import migrate
from quant_resources.postgres import ensure_postgres, stop_postgres
from quant_tests.performance.sample_evidence import traded_sessions
from quant_tests.performance.sample_markets import any_market, tiny_bars, tiny_signals
from quant_tests.performance.traded_book import TradedBook, trade


@pytest.fixture
def bars() -> Callable[..., pl.DataFrame]:
    return tiny_bars


@pytest.fixture
def signals() -> Callable[..., pl.DataFrame]:
    return tiny_signals


@pytest.fixture(scope="session")
def random_market() -> Callable[..., tuple[pl.DataFrame, pl.DataFrame]]:
    return any_market


@pytest.fixture(scope="session")
def evidence_of() -> Callable[..., TradingEvidence]:
    return traded_sessions


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


@pytest.fixture(scope="session")
def traded(ledger: Ledger, tmp_path_factory: pytest.TempPathFactory) -> TradedBook:
    return trade(tmp_path_factory.mktemp("root"), ledger)
