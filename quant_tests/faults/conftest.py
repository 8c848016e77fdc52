"""The trading ground's fixtures, for tests that break it."""

from quant_tests.orders.conftest import (
    database_template,
    exchange,
    ground,
    ledger_url,
    market_folder,
)

__all__ = ["database_template", "exchange", "ground", "ledger_url", "market_folder"]
