"""How long orders take: a large batch from targets to the last answer, and recovery over a long history.

    python -m quant_tests.bench.bench_orders [--orders 500] [--finished 10000] [--rounds 3]

On the local exchange without a rate limit, with the embedded PostgreSQL: a batch is frozen, checked against
every limit, and sent; then the evening books its fills. After that the ledger is given as many finished orders
as asked for, and a pass with nothing to do is timed before and after, taking turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
from sqlalchemy import insert, make_url, text

from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.exchange.control import ExchangeControl
from quant_resources.exchange.process import create_state
from quant_resources.exchange.spec import MarketSpec
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.migrate import migrate
from quant_resources.ledger.order_tables import Fill, Order, OrderBatch, OrderEvent, OrderIntent
from quant_resources.postgres import ensure_postgres, stop_postgres
from quant_resources.store import Store
from quant_tests.exchange.served import Server
from quant_tests.orders import ground as trading
from quant_tests.orders.ground import Ground

MONDAY = date(2024, 3, 4)
#: Where the finished orders lie: before the ledger's newest day, in batches of a session each.
_PAST = date(2023, 1, 3)
_PER_BATCH = 100
#: The states of an order that met no trouble, and who caused each.
_LIFE = (
    ("pending", "planning"),
    ("sending", "submission"),
    ("accepted", "submission"),
    ("filled", "booking"),
)


@dataclass(frozen=True)
class Timed:
    """Seconds of a trading day of many orders; `processor` those of this process while it sent."""

    orders: int
    sent: float
    booked: float
    processor: float


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=500)
    parser.add_argument("--finished", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench-orders-") as folder,
        wide_ground(Path(folder), arguments.orders) as ground,
    ):
        timed = large_batch(ground, arguments.orders)
        print(
            f"{timed.orders} orders frozen, checked and sent: {timed.sent:.2f} s "
            f"({timed.orders / timed.sent:.0f} a second; {timed.processor:.2f} s of the processor, the "
            f"exchange's included); their fills booked: {timed.booked:.2f} s"
        )
        before = statistics.median(seconds(ground.finish) for _ in range(arguments.rounds))
        finished_orders(ground, arguments.finished)
        after = statistics.median(seconds(ground.finish) for _ in range(arguments.rounds))
        print(
            f"a pass with nothing to do: {before:.3f} s; behind {arguments.finished} finished "
            f"orders: {after:.3f} s, {after - before:+.3f} s, {after / before:.2f} times"
        )


def symbols(count: int) -> list[str]:
    """Names of a wide market."""
    return [f"S{number:04d}" for number in range(count)]


@contextmanager
def wide_ground(folder: Path, count: int) -> Iterator[Ground]:
    """A trading ground of many symbols, with a database server of its own."""
    url = make_url(ensure_postgres(folder / "ledger").ledger_url)
    ledger_url = url.render_as_string(hide_password=False)
    migrate(ledger_url)
    spec = MarketSpec.model_validate({"kind": "history", "folder": wide_market(folder, count)})
    state = folder / "exchange"
    create_state(state, spec)
    server = Server(state)
    ledger = Ledger(ledger_url)
    broker = AlpacaBroker(server.url, server.url, "key", "secret")
    try:
        ground = Ground(
            exchange=ExchangeControl(server.url),
            broker=broker,
            ledger=ledger,
            store=Store(folder / "data"),
            folder=folder,
            volumes=dict.fromkeys(symbols(count), Decimal(10_000_000)),
        )
        ground.morning(MONDAY)
        yield ground
    finally:
        broker.close()
        ledger.dispose()
        server.stop()
        server.wait()
        stop_postgres(folder / "ledger")


def wide_market(folder: Path, count: int) -> Path:
    """Many symbols that trade at 20 USD all month."""
    market = folder / "market"
    market.mkdir(parents=True)
    bar = {"open": 20.0, "high": 21.0, "low": 19.0, "close": 20.0, "volume": 1e7}
    pl.DataFrame(
        [
            {"symbol": symbol, "date": session.isoformat(), **bar}
            for session in trading.XNYS.sessions(trading.FIRST, trading.LAST)
            for symbol in symbols(count)
        ]
    ).write_csv(market / "bars.csv")
    return market


def large_batch(ground: Ground, count: int) -> Timed:
    """Trade a session with an order in every symbol."""
    weights = dict.fromkeys(symbols(count), 0.9 / count)
    targets = ground.frame(ground.plan(MONDAY, alpha=weights), MONDAY)
    reports: list[Any] = []
    worked = time.process_time()
    sent = seconds(lambda: reports.append(ground.send(MONDAY, targets)))
    worked = time.process_time() - worked
    assert reports[0][1].sent == count, reports[0][1]
    ground.evening(MONDAY)
    booked = seconds(ground.finish)
    return Timed(count, sent, booked, worked)


def finished_orders(ground: Ground, count: int) -> None:
    """Give the ledger orders that were filled long ago, a batch of them for each past session."""
    account_id = ground.broker.account().account_id
    sessions = trading.XNYS.sessions(_PAST, _PAST + timedelta(days=3 * count // _PER_BATCH + 10))
    with ground.ledger.begin() as session:
        for number in range(0, count, _PER_BATCH):
            day = sessions[number // _PER_BATCH]
            _past_batch(session, account_id, day, min(_PER_BATCH, count - number))


def _past_batch(session: Any, account_id: str, day: date, count: int) -> None:
    batch = OrderBatch(
        book="main",
        trading_session=day,
        attempt=1,
        account_id=account_id,
        mode="paper",
        equity=Decimal(1_000_000),
        cash=Decimal(1_000_000),
        buying_power=Decimal(2_000_000),
        configuration={},
    )
    session.add(batch)
    session.flush()
    at = datetime(day.year, day.month, day.day, 14, 30, tzinfo=UTC)
    names = [f"main-{day}-{number:08x}" for number in range(count)]
    ids = [str(uuid4()) for _ in names]
    traded = symbols(count)
    order = {"side": "buy", "quantity": Decimal(10)}
    session.execute(
        insert(OrderIntent),
        [
            {
                "client_order_id": name,
                "batch_id": batch.batch_id,
                **order,
                "symbol": symbol,
                "security_id": f"{symbol}@2023-01-03",
                "leg": 1,
                "reduces": False,
                "order_type": "market",
                "time_in_force": "day",
                "reference_price": Decimal(20),
                "deadline": at,
                "state": "pending",
                "reason": "a finished order",
            }
            for name, symbol in zip(names, traded, strict=True)
        ],
    )
    before = None
    for state, actor in _LIFE:
        session.execute(
            text("UPDATE order_intents SET state = :state WHERE batch_id = :batch"),
            {"state": state, "batch": batch.batch_id},
        )
        session.execute(
            insert(OrderEvent),
            [
                {
                    "client_order_id": name,
                    "from_state": before,
                    "to_state": state,
                    "actor": actor,
                    "detail": "long ago",
                }
                for name in names
            ],
        )
        before = state
    session.execute(
        insert(Order),
        [
            {
                "broker_order_id": broker_id,
                "client_order_id": name,
                **order,
                "symbol": symbol,
                "broker_client_order_id": name,
                "order_type": "market",
                "time_in_force": "day",
                "submitted_at": at,
                "filled_quantity": Decimal(10),
                "average_fill_price": Decimal(20),
                "status": "filled",
                "updated_at": at,
            }
            for name, symbol, broker_id in zip(names, traded, ids, strict=True)
        ],
    )
    session.execute(
        insert(Fill),
        [
            {
                "execution_id": f"{day}::{broker_id}",
                "account_id": account_id,
                "trading_session": day,
                "client_order_id": name,
                "broker_order_id": broker_id,
                **order,
                "symbol": symbol,
                "price": Decimal(20),
                "realised_pnl": Decimal(0),
                "filled_at": at,
                "broker_message": {},
            }
            for name, symbol, broker_id in zip(names, traded, ids, strict=True)
        ],
    )


def seconds(task: Callable[[], Any]) -> float:
    """How long a task takes."""
    began = time.perf_counter()
    task()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
