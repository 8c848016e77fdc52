"""Brackets: an entry and the two legs that close what it opens, of which only one can.

1. The legs are taken together with their entry and are held: they are not in the market.
2. When the entry has filled completely, both are released.
3. What one leg fills, the other wants no longer; when one has filled, the other is cancelled.
4. When any order of a bracket is cancelled or expires, the rest of it that is open ends with it. An entry
   that ends with a part filled leaves that part without protection (Alpaca, "Bracket Orders").

Pure functions on orders: what shall change is returned, the book (`book.py`) changes it.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal

from quant_resources.exchange.orders import HELD, ZERO, Order
from quant_resources.exchange.tickets import Legs


def entry_of_group(entry: Order, account_id: uuid.UUID) -> Order:
    """An order as the entry of a bracket."""
    group = str(uuid.uuid5(account_id, f"group {entry.client_order_id}"))
    return replace(entry, order_class="bracket", group_id=group)


def legs_of(entry: Order, legs: Legs, account_id: uuid.UUID) -> list[Order]:
    """The two legs of an entry, held."""
    side = "sell" if entry.side == "buy" else "buy"
    common = replace(
        entry,
        sequence=0,
        side=side,
        position_intent=f"{side}_to_close",
        status=HELD,
        parent_id=entry.order_id,
        limit_price=None,
        stop_price=None,
        close_only=None,
    )

    def leg(role: str, order_type: str, limit: Decimal | None, stop: Decimal | None) -> Order:
        client_order_id = str(uuid.uuid5(account_id, f"{role} of {entry.client_order_id}"))
        return replace(
            common,
            client_order_id=client_order_id,
            order_id=str(uuid.uuid5(account_id, f"order {client_order_id}")),
            order_type=order_type,
            limit_price=limit,
            stop_price=stop,
        )

    stop_type = "stop" if legs.stop_limit_price is None else "stop_limit"
    return [
        leg("stop_loss", stop_type, legs.stop_limit_price, legs.stop_price),
        leg("take_profit", "limit", legs.take_profit_price, None),
    ]


def terms_of(legs: Sequence[Order]) -> Legs | None:
    """The prices of a bracket's legs; None where one of them has ended."""
    found = {leg.group_role: leg for leg in legs if leg.is_open}
    profit, loss = found.get("take_profit"), found.get("stop_loss")
    if profit is None or loss is None:
        return None
    assert profit.limit_price is not None  # noqa: S101 - a take-profit is a limit order
    assert loss.stop_price is not None  # noqa: S101 - a stop-loss has a stop
    return Legs(profit.limit_price, loss.stop_price, loss.limit_price)


def others_of(order: Order, open_orders: Sequence[Order]) -> list[Order]:
    """The open orders of the same bracket."""
    if order.group_id is None:
        return []
    return [
        other
        for other in open_orders
        if other.group_id == order.group_id and other.sequence != order.sequence
    ]


def released(leg: Order, eligible_session: date, close_only: date | None) -> Order:
    """A held leg in the market."""
    return replace(leg, status="new", eligible_session=eligible_session, close_only=close_only)


def without(leg: Order, filled: Decimal) -> Order | None:
    """A leg after the other one has filled some shares; None if it wants nothing more."""
    assert leg.quantity is not None  # noqa: S101 - brackets are in shares
    quantity = leg.quantity - filled
    return replace(leg, quantity=quantity) if quantity - leg.filled_quantity > ZERO else None
