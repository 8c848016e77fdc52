"""What a fault makes of an order that was taken: it is rejected afterwards, or fills in parts.

Which orders have which fault is decided by the plan (`faults.py`); the marks are kept in the state, so that
they outlive a killed server.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from typing import Final

from quant_resources.exchange import brackets
from quant_resources.exchange.book import Book
from quant_resources.exchange.orders import SHARE_STEP, Execution, Order, is_whole, plain
from quant_resources.exchange.state import State

_KEPT: Final = "partial_fills"


def reject(book: Book, order_id: str, reason: str, now: datetime) -> None:
    """End an open order as rejected, with its audit entry (`reject`), and what is open of its bracket.

    One that has ended stays as it is.
    """
    state = book.state
    order = state.order(order_id=order_id)
    if order is None or not order.is_open:
        return
    with state.transaction():
        moment = state.next_stamp(now)
        state.update_order(replace(order, status="rejected", updated_at=moment))
        state.record(
            "reject",
            {
                "client_order_id": order.client_order_id,
                "order_id": order.order_id,
                "symbol": order.symbol,
                "filled_quantity": plain(order.filled_quantity),
                "reason": reason,
            },
            moment,
        )
        for other in brackets.others_of(order, state.open_orders()):
            if still := state.still_open(other):
                book.close_order(still, "canceled", f"its bracket has ended: {reason}", now)


def fill_in_parts(state: State, order_id: str, share: float) -> None:
    """From now on the order gets at most this share of its quantity each time that it trades."""
    with state.transaction():
        state.put(_KEPT, json.dumps(_shares(state) | {order_id: str(share)}))


def part_of(state: State, order: Order, execution: Execution) -> Execution:
    """What the order gets of an execution: all of it, unless it shall fill in parts."""
    share = _shares(state).get(order.order_id)
    if share is None:
        return execution
    whole = order.filled_quantity + order.remaining(execution.price)
    step = Decimal(1) if is_whole(order.quantity) else SHARE_STEP
    part = max((whole * Decimal(share)).quantize(step, ROUND_DOWN), step)
    return Execution(min(part, execution.quantity), execution.price)


def _shares(state: State) -> dict[str, str]:
    return json.loads(state.find(_KEPT) or "{}")
