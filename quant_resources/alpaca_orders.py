"""The order lists of Alpaca: paged, with the legs of brackets beside the entries that they belong to.

Belongs here: how lists of orders are read completely. Does not belong here: single orders and what is done
with them (`alpaca_broker.py`).

1. A page holds the oldest orders first and the next one begins at its last order's time; orders of one
   instant may be split over pages, so pages overlap and what was seen is left out.
2. Only a nested list says which entry a leg belongs to: legs have no field for it.
3. The nested list of open orders leaves out an entry that has filled, and its legs with it; the flat one
   shows a leg that is working and leaves out one that is held. So open orders are read flat, and where
   a leg may be among them, the nested list of everything since those orders says whose it is, and which
   legs are held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from quant_resources import alpaca_messages as messages
from quant_resources.alpaca_connection import AlpacaConnection
from quant_resources.broker import BrokerOrder
from quant_resources.errors import BrokerError

_PAGE: Final = 500
#: More orders than an entry has with its legs, replaced ones included.
_FAMILY: Final = 10
_INSTANT: Final = timedelta(microseconds=1)
#: A leg is submitted a little after its entry.
_LEG_DELAY: Final = timedelta(minutes=1)


def open_orders(connection: AlpacaConnection) -> list[BrokerOrder]:
    """All orders that may still fill, legs after their entry."""
    flat = list(_pages(connection, {"status": "open", "nested": "false"}, None))
    complex_orders = [order for order in flat if order.order_class != "simple"]
    if not complex_orders:
        return flat
    symbols = ",".join(sorted({order.symbol for order in complex_orders}))
    query = {"status": "all", "nested": "true", "symbols": symbols}
    nested: dict[str, BrokerOrder] = {}
    # A leg that was replaced is younger than its entry by days: then everything is read.
    recently = min(order.submitted_at for order in complex_orders) - _LEG_DELAY
    for start in (recently, None):
        nested = {order.broker_order_id: order for order in _pages(connection, query, start)}
        if all(order.broker_order_id in nested for order in complex_orders):
            break
    of_symbols = [order for order in nested.values() if order.is_open]
    return [order for order in flat if order.broker_order_id not in nested] + of_symbols


def orders_since(connection: AlpacaConnection, after: datetime) -> list[BrokerOrder]:
    """All orders submitted after a time, whatever became of them, legs after their entry."""
    return list(_pages(connection, {"status": "all", "nested": "true"}, after))


def _pages(
    connection: AlpacaConnection, query: Mapping[str, Any], after: datetime | None
) -> Iterator[BrokerOrder]:
    seen: set[str] = set()
    start = after
    while True:
        page = dict(query) | {"limit": _PAGE, "direction": "asc"}
        if start is not None:
            page |= {"after": start.isoformat()}
        families = connection.read("orders", "/orders", page, _families)
        orders = [order for family in families for order in family]
        fresh = [order for order in orders if order.broker_order_id not in seen]
        yield from fresh
        # Whether the limit counts legs is not said: a page may be full by either count.
        if len(orders) <= _PAGE - _FAMILY or (not fresh and len(families) < _PAGE):
            return
        if not fresh:
            raise BrokerError(
                f"More than {_PAGE} orders share the time {start}; Alpaca's order list cannot "
                "be paged through them."
            )
        seen.update(order.broker_order_id for order in fresh)
        start = families[-1][0].submitted_at - _INSTANT


def _families(rows: Any) -> Sequence[Sequence[BrokerOrder]]:
    return [messages.order_with_legs(row) for row in rows]
