"""Exchanges for tests: a real server on a free port, spoken to by alpaca-py's own clients.

`serve` runs the server in a thread of the test process, which starts in milliseconds; the tests of
`process.py` start real processes.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import uvicorn
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.historical.corporate_actions import CorporateActionsClient
from alpaca.trading.client import TradingClient

from quant_resources.calendar import NEW_YORK
from quant_resources.exchange.app import build_app
from quant_resources.exchange.control import ExchangeControl
from quant_resources.exchange.exchange import Exchange
from quant_resources.exchange.serving import server_config


@dataclass
class Served:
    """A served exchange and the clients that talk to it."""

    folder: Path
    exchange: Exchange
    url: str
    control: ExchangeControl = field(init=False)
    # alpaca-py declares every answer as model or raw; Any spares each test from saying which.
    bars: Any = field(init=False)
    trading: Any = field(init=False)
    actions: Any = field(init=False)

    def __post_init__(self) -> None:
        self.control = ExchangeControl(self.url)
        self.bars = StockHistoricalDataClient("k", "s", url_override=self.url, raw_data=True)
        self.trading = TradingClient("k", "s", url_override=self.url)
        self.actions = CorporateActionsClient("k", "s", url_override=self.url)

    def at(self, text: str) -> None:
        """Move the clock to a New York time such as "2024-03-01 09:00"."""
        self.control.advance(new_york(text))

    def order(self, client_order_id: str) -> dict[str, Any]:
        """An order as the exchange answers it."""
        return self.get("/v2/orders:by_client_order_id", client_order_id=client_order_id)

    def submit(self, symbol: str, side: str, qty: object = None, **more: Any) -> dict[str, Any]:
        """Submit a market day order, or what `more` makes of it, over the wire."""
        body = {"symbol": symbol, "side": side, "type": "market", "time_in_force": "day", **more}
        if qty is not None:
            body["qty"] = str(qty)
        return self.trading.post("/orders", body)

    def get(self, path: str, **parameters: Any) -> Any:
        """GET with keys; the path includes the API's version."""
        version, rest = path.strip("/").split("/", 1)
        return self.trading.get("/" + rest, parameters, api_version=version)


def new_york(text: str) -> datetime:
    """A New York time such as "2024-03-01 09:00"."""
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK)


class Server:
    """A server in a thread of this process."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.exchange = Exchange(folder)
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._server = uvicorn.Server(server_config(build_app(self.exchange)))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.002)

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._listener]))

    def stop(self) -> None:
        """Tell it to end."""
        self._server.should_exit = True

    def wait(self) -> None:
        """Wait for its end and close its state."""
        self._thread.join()
        self._listener.close()
        self.exchange.state.close()


Bar = tuple[str, str, float, float, float, float, float]


def write_history(
    folder: Path, bars: list[Bar], actions: list[dict[str, Any]] | None = None
) -> Path:
    """A history folder with a CSV of bars and, if given, a CSV of corporate actions."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = ["symbol", "date", "open", "high", "low", "close", "volume"]
    pl.DataFrame(bars, schema=columns, orient="row").write_csv(folder / "bars.csv")
    if actions:
        pl.DataFrame(actions, infer_schema_length=None).write_csv(folder / "actions.csv")
    return folder


# A week in which ABC trades from 100 and XYZ from 50; Monday 4 March 2024 is the first session.
WEEK: list[Bar] = [
    ("ABC", "2024-03-04", 100.0, 101.0, 99.0, 100.0, 10_000),
    ("ABC", "2024-03-05", 102.0, 104.0, 101.0, 103.0, 10_000),
    ("ABC", "2024-03-06", 104.0, 106.0, 98.0, 105.0, 10_000),
    ("ABC", "2024-03-07", 106.0, 107.0, 105.0, 106.5, 10_000),
    ("ABC", "2024-03-08", 107.0, 108.0, 106.0, 107.5, 10_000),
    ("XYZ", "2024-03-04", 50.0, 51.0, 49.0, 50.0, 100_000),
    ("XYZ", "2024-03-05", 50.5, 51.0, 50.0, 50.5, 100_000),
    ("XYZ", "2024-03-06", 51.0, 52.0, 50.0, 51.5, 100_000),
    ("XYZ", "2024-03-07", 51.0, 52.0, 50.0, 51.0, 100_000),
    ("XYZ", "2024-03-08", 52.0, 53.0, 51.0, 52.5, 100_000),
]
