"""Answers as they were before some updates: pure functions on decoded JSON and on entries of the audit log.

1. An update is an entry of the audit log that changed an order: a fill, what was said of one later, the
   release of a leg, or an end (`UPDATES`).
2. An order before an update: without what it filled, and open again if the update ended it.
3. The activities before an update: without its own.
4. A position before an update: its shares taken back. Its cost is exact where they added to the position;
   of what reduced it the average price stays; what closed it is said to have cost the price that it was
   closed at.

Which updates are not seen yet is decided by the caller: a fault on purpose (`faulty_wire.py`), or an event
of the stream that tells of an order as it was then (`stream_events.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from quant_resources.exchange.orders import ZERO, plain

_ENDS: Final = frozenset({"cancel", "expire", "replace", "reject"})
_EXECUTIONS: Final = frozenset({"fill", "bust", "correct"})
#: Entries of the audit log that change an order after it was taken.
UPDATES: Final = _ENDS | _EXECUTIONS | {"released"}
_LATER_FIELDS: Final = (
    "filled_at",
    "canceled_at",
    "expired_at",
    "failed_at",
    "replaced_at",
    "replaced_by",
)
_PRICE_STEP: Final = Decimal("1e-9")

Entry = Mapping[str, Any]


def shares_changed(entry: Entry) -> tuple[Decimal, Decimal]:
    """By how many shares, and how many USD of value, an entry changed what its order has filled."""
    if entry["event"] not in _EXECUTIONS:
        return ZERO, ZERO
    quantity, price = Decimal(entry["quantity"]), Decimal(entry["price"])
    if entry["event"] == "fill":
        return quantity, quantity * price
    was = Decimal(entry["previous_quantity"])
    now_is = ZERO if entry["event"] == "bust" else quantity
    return now_is - was, now_is * price - was * Decimal(entry["previous_price"])


def signed_change(entry: Entry) -> Decimal:
    """By how many shares an entry changed the position."""
    return shares_changed(entry)[0] * (1 if entry.get("side") == "buy" else -1)


def order_before(row: Mapping[str, Any], updates: Sequence[Entry]) -> dict[str, Any]:
    """An order in Alpaca's shape as it was before updates of it.

    Args:
        row: The order as it is now, with its legs.
        updates: Entries of the audit log; those of other orders are passed over.
    """
    before = dict(row)
    if row.get("legs"):
        before["legs"] = [order_before(leg, updates) for leg in row["legs"]]
    undone = [entry for entry in updates if entry.get("order_id") == row["id"]]
    if not undone:
        return before
    filled = Decimal(row["filled_qty"])
    value = filled * Decimal(row["filled_avg_price"] or 0)
    for entry in undone:
        quantity, worth = shares_changed(entry)
        filled, value = filled - quantity, value - worth
    before["filled_qty"] = plain(filled)
    average = (value / filled).quantize(_PRICE_STEP) if filled > 0 else None
    before["filled_avg_price"] = None if average is None else plain(average)
    before["updated_at"] = row["submitted_at"]
    if any(entry["event"] in _ENDS | {"fill"} for entry in undone):
        before["status"] = "partially_filled" if filled > 0 else "new"
        before |= dict.fromkeys(_LATER_FIELDS)
    if any(entry["event"] == "released" for entry in undone):
        before["status"] = "held"
    return before


def answer_before(content: Any, updates: Sequence[Entry], *, of_positions: bool = False) -> Any:
    """An answer about orders, activities or positions as it was before updates.

    Args:
        content: The decoded JSON; anything else in it is left as it is.
        updates: Entries of the audit log, oldest first.
        of_positions: Whether it is about positions, which an empty list does not say.

    Returns:
        The answer; None if it is about one thing that there was not yet.
    """
    executions = [entry for entry in updates if entry["event"] in _EXECUTIONS]
    if of_positions:
        if isinstance(content, list):
            return positions_before(content, executions)
        rows = positions_before([content], executions)
        return next((row for row in rows if row["symbol"] == content["symbol"]), None)
    if isinstance(content, list):
        hidden = {entry["execution_id"] for entry in executions}
        return [
            answer_before(row, updates)
            for row in content
            if not (isinstance(row, dict) and row.get("id") in hidden)
        ]
    if isinstance(content, dict) and "client_order_id" in content and "filled_qty" in content:
        return order_before(content, updates)
    return content


def positions_before(
    rows: Sequence[Mapping[str, Any]], executions: Sequence[Entry]
) -> list[dict[str, Any]]:
    """Positions in Alpaca's shape as they were before executions, ascending by symbol."""
    found = {str(row["symbol"]): dict(row) for row in rows}
    for entry in reversed(executions):
        symbol, change = entry["symbol"], signed_change(entry)
        price = Decimal(entry["price"])
        if change == 0:
            continue
        row = found.pop(symbol, None) or _nothing(symbol, price)
        quantity, cost = Decimal(row["qty"]), Decimal(row["cost_basis"])
        before = quantity - change
        if before == 0:
            continue
        if before * change > 0:
            cost -= change * price
        else:
            average = Decimal(row["avg_entry_price"]) if before * quantity > 0 else price
            cost = before * average
        found[symbol] = row | _amounts(before, cost, Decimal(row["current_price"]))
    return [row for _, row in sorted(found.items())]


def _amounts(quantity: Decimal, cost: Decimal, price: Decimal) -> dict[str, str]:
    amounts = {
        "qty": quantity,
        "qty_available": quantity,
        "avg_entry_price": cost / quantity,
        "cost_basis": cost,
        "market_value": quantity * price,
        "unrealized_pl": quantity * price - cost,
    }
    shown = {name: plain(amount) for name, amount in amounts.items()}
    return shown | {"side": "long" if quantity > 0 else "short"}


def _nothing(symbol: str, price: Decimal) -> dict[str, Any]:
    zeros = ("qty", "cost_basis", "avg_entry_price", "unrealized_plpc", "change_today")
    return {
        "symbol": symbol,
        "asset_class": "us_equity",
        "current_price": plain(price),
        "lastday_price": plain(price),
        **dict.fromkeys(zeros, "0"),
    }
