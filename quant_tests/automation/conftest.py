"""The trading ground's fixtures, for sensors that trade on it."""

from quant_tests.orders.conftest import (
    database_template,
    exchange,
    ground,
    ledger_url,
    market_folder,
)

__all__ = ["database_template", "exchange", "ground", "ledger_url", "market_folder"]
