"""Stored orders and fills beside what the ledger says of them: the tables are copies, the ledger is the record.

Belongs here: making the copy anew from the ledger, as it stood when the evidence was frozen. Does not belong here:
comparing and telling (`quant_assets/point_in_time/evidence.py`).

1. The account is that of the session's stored `orders/account`. A session that is not frozen, or whose account
   is not stored, has only a preview, which may be older than the ledger.
2. Fills count with the corrections of their session and of none after it, so that they are the same for ever.
3. An order goes on after its session where it lives for weeks, and a bust takes fills from it. What is said of an
   order then is newer than the evidence (`updated_at`): its terms are compared all the same, its fills are those
   of the evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Final

import polars as pl

from quant_assets.orders import frames
from quant_assets.orders.schemas import ACCOUNT, FILLS, ORDERS
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.counted_fills import counted_fills
from quant_resources.ledger.ledger import Ledger
from quant_resources.store import Store

#: What the broker may say of an order long after its session.
_GOES_ON: Final = ("filled_quantity", "average_fill_price", "status", "updated_at")


def _fills(ledger: Ledger, store: Store, key: str) -> pl.DataFrame | None:
    account_id = _account_of(store, key)
    day = date.fromisoformat(key)
    with ledger.begin() as session:
        if account_id is None or account_book.end_of_day(session, account_id, day) is None:
            return None
        return frames.fills_frame(counted_fills(session, account_id, day))


def _orders(ledger: Ledger, store: Store, key: str) -> pl.DataFrame | None:
    account_id = _account_of(store, key)
    day = date.fromisoformat(key)
    with ledger.begin() as session:
        frozen = account_book.end_of_day(session, account_id or "", day)
        if frozen is None:
            return None
        rows = [
            order
            for order in order_book.orders_of(session, frozen[0].account_id, day)
            if order.submitted_at <= frozen[0].taken_at
        ]
        now = frames.orders_frame(rows, day)
    then = store.read(ORDERS, [key]).select("broker_order_id", *_GOES_ON).collect()
    both = now.join(then, on="broker_order_id", how="left", suffix="_then")
    newer = (pl.col("updated_at") > pl.col("updated_at_then")).fill_null(False)
    return both.with_columns(
        pl.when(newer).then(pl.col(f"{name}_then")).otherwise(pl.col(name)).alias(name)
        for name in _GOES_ON
    ).select(now.columns)


def _account_of(store: Store, key: str) -> str | None:
    if not store.exists(ACCOUNT, key):
        return None
    rows = store.read(ACCOUNT, [key], ["account_id"]).collect()
    return rows.item() if rows.height == 1 else None


LEDGER_COPIES: Final[Mapping[str, Callable[[Ledger, Store, str], pl.DataFrame | None]]] = {
    ORDERS.path: _orders,
    FILLS.path: _fills,
}
"""Path of a table to its rows of a session by the ledger; None where the session was never frozen."""
