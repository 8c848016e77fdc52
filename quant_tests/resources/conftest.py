"""Fixtures of the adapter: a real local exchange with a small market, and the adapter in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.calendar import XNYS
from quant_resources.exchange.control import ExchangeControl
from quant_resources.exchange.process import create_state
from quant_resources.exchange.spec import MarketSpec
from quant_tests.exchange.served import Server

NOW = datetime(2024, 3, 4, 13, 30, tzinfo=UTC)
#: What happens to the holders of EEE.
ACTIONS = [
    {"symbol": "EEE", "ex_date": "2024-03-05", "action_type": "cash_dividend", "cash": 0.25},
    {"symbol": "EEE", "ex_date": "2024-03-07", "action_type": "forward_split", "ratio": 2.0},
]


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Server]:
    """An exchange on Monday morning, 2024-03-04; AAA costs 100 and EEE 10, a little more every other day."""
    folder = tmp_path / "history"
    folder.mkdir()
    _bars().write_csv(folder / "bars.csv")
    pl.DataFrame(ACTIONS, infer_schema_length=None).write_csv(folder / "actions.csv")
    state = tmp_path / "state"
    state.mkdir()
    create_state(state, MarketSpec.model_validate({"kind": "history", "folder": folder}))
    server = Server(state)
    ExchangeControl(server.url).advance(NOW)
    yield server
    server.stop()


@pytest.fixture
def control(exchange: Server) -> ExchangeControl:
    """Its clock, faults and audit log."""
    return ExchangeControl(exchange.url)


@pytest.fixture
def broker(exchange: Server) -> Iterator[AlpacaBroker]:
    """The adapter."""
    broker = AlpacaBroker(
        exchange.url,
        exchange.url,
        "key",
        "secret",
        timeout=(1.0, 0.5),
        backoff=(0.01, 0.01, 0.01),
    )
    yield broker
    broker.close()


def _bars() -> pl.DataFrame:
    rows: list[dict[str, object]] = []
    for number, session in enumerate(XNYS.sessions(date(2024, 3, 1), date(2024, 3, 8))):
        for symbol, start in (("AAA", 100.0), ("EEE", 10.0)):
            price = start * (1.01 if number % 2 else 1.0)
            if symbol == "EEE" and session >= date(2024, 3, 7):
                price /= 2
            rows.append(
                {
                    "symbol": symbol,
                    "date": session.isoformat(),
                    "open": price,
                    "high": price * 1.02,
                    "low": price * 0.98,
                    "close": price,
                    "volume": 10_000_000.0,
                }
            )
    return pl.DataFrame(rows)
