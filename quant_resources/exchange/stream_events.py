"""What the trading stream tells: entries of the audit log as events in Alpaca's shape.

1. The audit log is the source: what is written there happened, in this order, and each entry that concerns
   an order makes one event.
2. An event shows its order as it was right after the entry: what the entries behind it did is taken back
   (`earlier_answers.py`), since one request can move a clock over many of them.
3. The shares held (`position_qty`) are those after the event, too.

Who is connected and what goes wrong on the way is in `stream.py` and `faulty_stream.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from quant_resources.exchange.api_orders import order_json
from quant_resources.exchange.earlier_answers import UPDATES, order_before, signed_change
from quant_resources.exchange.exchange import Exchange
from quant_resources.exchange.orders import ZERO, plain
from quant_resources.exchange.visibility import stamp

#: Entry of the audit log → event of the stream; a fill that leaves something is a `partial_fill`.
_EVENTS: Final = {
    "submit": "new",
    "released": "new",
    "held": "held",
    "fill": "fill",
    "cancel": "canceled",
    "expire": "expired",
    "replace": "replaced",
    "reject": "rejected",
    "bust": "trade_bust",
    "correct": "trade_correct",
}
_TAKEN: Final = frozenset({"submit", "replacement"})
_EXECUTIONS: Final = frozenset({"fill", "bust", "correct"})


@dataclass(frozen=True)
class StreamEvent:
    """One event: its name, what a rule of the fault plan may look at, and the message."""

    event: str
    symbol: str
    client_order_id: str
    message: Mapping[str, Any]


def events_after(exchange: Exchange, sequence: int) -> list[StreamEvent]:
    """The events of every entry of the audit log after a sequence number, oldest first."""
    later: list[Mapping[str, Any]] = []
    found: list[StreamEvent] = []
    for entry in reversed(exchange.state.audit(sequence)):
        name = _name(entry)
        if name == "replaced":
            # The order that takes its place has no entry of its own.
            taken = {"event": "replacement", "order_id": entry["replaced_by"]}
            new = {**entry, **taken}
            found.append(_event(exchange, "new", new, later[::-1]))
        if name is not None:
            found.append(_event(exchange, name, entry, later[::-1]))
        if entry["event"] in UPDATES:
            later.append(entry)
    return found[::-1]


def _name(entry: Mapping[str, Any]) -> str | None:
    if entry["event"] == "submit" and entry["outcome"] != "accepted":
        return None
    if entry["event"] == "fill" and entry["status"] == "partially_filled":
        return "partial_fill"
    return _EVENTS.get(entry["event"])


def _event(
    exchange: Exchange, name: str, entry: Mapping[str, Any], later: list[Mapping[str, Any]]
) -> StreamEvent:
    order = exchange.state.order(order_id=entry["order_id"])
    assert order is not None  # noqa: S101 - the audit log names orders that were taken
    legs = exchange.state.legs([order]).get(order.order_id, ())
    data: dict[str, Any] = {
        "event": name,
        "event_id": str(entry["sequence"]),
        "at": _moment(entry),
        "timestamp": _moment(entry),
        "order": order_before(order_json(order, legs), later),
        "execution_id": None,
    }
    if name == "held":
        data["order"]["status"] = name
    elif entry["event"] in _TAKEN and not order.is_leg:
        # Before the open it waits to be routed; while the session is open it is at once.
        data["order"]["status"] = "accepted" if order.close_only is None else "new"
    if entry["event"] in _EXECUTIONS:
        # The id of the FILL activity ends with that of the execution.
        data["execution_id"] = str(entry["execution_id"]).rpartition("::")[2]
        data |= {"price": entry["price"], "qty": entry["quantity"]}
        data["position_qty"] = plain(_held_before(exchange, order.symbol, later))
    message = {"stream": "trade_updates", "data": data}
    return StreamEvent(name, order.symbol, order.client_order_id, message)


def _held_before(exchange: Exchange, symbol: str, later: list[Mapping[str, Any]]) -> Decimal:
    held = exchange.state.positions().get(symbol)
    quantity = held.quantity if held else ZERO
    return quantity - sum(
        (signed_change(entry) for entry in later if entry["symbol"] == symbol), ZERO
    )


def _moment(entry: Mapping[str, Any]) -> str:
    return stamp(datetime.fromisoformat(entry["at"]))
