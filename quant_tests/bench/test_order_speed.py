"""How long 500 orders take on the local exchange, from frozen targets to the last answer."""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from quant_tests.orders import ground as trading
from quant_tests.orders.conftest import database_template, exchange, ground, ledger_url

__all__ = ["database_template", "exchange", "ground", "ledger_url"]
SYMBOLS = [f"S{number:03d}" for number in range(500)]
MONDAY, TUESDAY = date(2024, 3, 4), date(2024, 3, 5)


@pytest.fixture(scope="session")
def market_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five hundred symbols in place of the small market."""
    folder = tmp_path_factory.mktemp("wide")
    sessions = trading.XNYS.sessions(trading.FIRST, trading.LAST)
    pl.DataFrame(
        [
            {
                "symbol": symbol,
                "date": session.isoformat(),
                "open": 20.0,
                "high": 21.0,
                "low": 19.0,
                "close": 20.0,
                "volume": 1e7,
            }
            for session in sessions
            for symbol in SYMBOLS
        ]
    ).write_csv(folder / "bars.csv")
    return folder


@pytest.mark.long
def test_five_hundred_orders(ground: trading.Ground) -> None:
    """Written, checked and submitted in under 10 s; a pass over finished ones adds under 0.5 s."""
    targets = ground.frame(
        ground.plan(MONDAY, alpha={symbol: 0.9 / len(SYMBOLS) for symbol in SYMBOLS}), MONDAY
    )
    began = time.perf_counter()
    _, report = ground.send(MONDAY, targets)
    sent = time.perf_counter() - began
    assert report.sent == len(SYMBOLS)
    ground.evening(MONDAY)
    began = time.perf_counter()
    ground.send(MONDAY, targets)
    booked = time.perf_counter() - began
    began = time.perf_counter()
    ground.send(MONDAY, targets)
    again = time.perf_counter() - began
    print(f"sent {sent:.1f} s, booked {booked:.1f} s, nothing to do {again:.2f} s")
    assert sent < 10
    assert again < 1
