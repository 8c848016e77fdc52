"""Changing what the exchange holds behind its own back: what a broker would do that no request can ask of it.

A broker that contradicts itself is no fault of the wire: the exchange's state file is written, and the answers come from
it as they always do.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from quant_resources.broker import BrokerOrder, OrderRequest, Side
from quant_tests.exchange.served import Server
from quant_tests.orders.ground import Ground


def by_hand(
    ground: Ground, symbol: str, side: Side, quantity: int, client_order_id: str = "by-hand"
) -> BrokerOrder:
    """Give an order at the broker, as a person does in its application."""
    return ground.broker.submit(OrderRequest(client_order_id, symbol, side, Decimal(quantity)))


@contextmanager
def state_of(ground: Ground) -> Iterator[sqlite3.Connection]:
    """The exchange's state file, in a transaction of its own."""
    connection = sqlite3.connect(ground.folder / "exchange" / "exchange.sqlite", timeout=10)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def hold(ground: Ground, server: Server, symbol: str, quantity: str, cost: str) -> None:
    """Let the account hold something, with no record of how it came by it."""
    with state_of(ground) as state:
        state.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", (symbol, quantity, cost))
    # The exchange remembers what it has read.
    server.exchange.state._held = None  # pyright: ignore[reportPrivateUsage]


def add_cash(ground: Ground, amount: str) -> None:
    """Let cash come or go, with no record of why."""
    with state_of(ground) as state:
        (cash,) = state.execute("SELECT value FROM meta WHERE key = 'cash'").fetchone()
        state.execute(
            "UPDATE meta SET value = ? WHERE key = 'cash'", (str(Decimal(cash) + Decimal(amount)),)
        )


def post(ground: Ground, kind: str, copied_from: str, **changed: Any) -> str:
    """Post an activity that is like another one, but for some fields; returns its id."""
    with state_of(ground) as state:
        day, at, document = state.execute(
            "SELECT day, at, document FROM activities WHERE activity_id = ?", (copied_from,)
        ).fetchone()
        name = f"{copied_from}-again"
        whole = json.loads(document) | {"id": name, "activity_type": kind} | changed
        state.execute(
            "INSERT INTO activities (activity_id, activity_type, day, at, document) "
            "VALUES (?, ?, ?, ?, ?)",
            (name, kind, day, at, json.dumps(whole)),
        )
    return name
