"""Busts and corrections: what the market says later of a fill that it had reported.

1. A fill is named by its execution id. A bust says that it never was, a correction that it was of other
   shares, or at another price.
2. Its order's filled quantity and value become what is true now. An order that has ended stays so; one
   that is open wants again what it lost.
3. Cash changes by the difference. The position is what the account's history makes of it when the fill
   counts as it is now: everything is played again from the activities, in order.
4. A FILL activity of type `trade_bust` or `trade_correct` names the fill (`previous_execution_id`); the
   first report stays as it was. A fill can be corrected again: the newest report counts.
5. Legs that protect what a bust took away are cancelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from quant_resources.exchange import brackets
from quant_resources.exchange.account import Position
from quant_resources.exchange.book import Book
from quant_resources.exchange.order_rows import Fill
from quant_resources.exchange.orders import ZERO, Order, plain
from quant_resources.exchange.refusals import misread, not_found, unprocessable
from quant_resources.exchange.visibility import stamp

BUST: Final = "trade_bust"
CORRECT: Final = "trade_correct"
_PREVIOUS: Final = "previous_execution_id"

_Amount = Annotated[Decimal, Field(gt=0, lt=10**12, allow_inf_nan=False, max_digits=30)]
_Reported = tuple[Decimal, Decimal]


class Correction(BaseModel):
    """What is asked: a fill is busted, or has other shares or another price (USD)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    execution_id: str
    kind: Literal["bust", "correct"]
    quantity: _Amount | None = None
    price: _Amount | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        named = self.quantity is not None or self.price is not None
        if named != (self.kind == "correct"):
            raise ValueError("a correction names a quantity or a price, a bust names neither")
        return self


def correct(book: Book, body: object, now: datetime) -> dict[str, Any]:
    """Bust or correct a fill; returns its activity.

    Raises:
        RefusalError: There is no such fill, it is busted already, or nothing would change.
    """
    try:
        asked = Correction.model_validate(body)
    except ValidationError as error:
        raise misread(error, "correction") from None
    documents = book.state.activities()
    reports = _reports(documents)
    fill = book.state.fill(_original(documents, asked.execution_id))
    if fill is None:
        raise not_found(f"execution not found for {asked.execution_id}")
    was = reports.get(fill.execution_id, (fill.quantity, fill.price))
    if was[0] == ZERO:
        raise unprocessable(f"execution {fill.execution_id} is busted already")
    now_is = _asked_values(asked, was)
    if now_is == was:
        raise unprocessable(f"execution {fill.execution_id} is not changed by this")
    order = book.state.order(order_id=fill.order_id)
    assert order is not None  # noqa: S101 - a fill refers to its order
    moment = book.state.next_stamp(now)
    change = _Change(asked.kind, fill, _order_after(order, fill, was, now_is), was, now_is, moment)
    book.state.update_order(replace(change.order, updated_at=moment))
    book.state.add_cash(-fill.sign * (now_is[0] * now_is[1] - was[0] * was[1]))
    before = played(documents, reports)
    after = played(documents, reports | {fill.execution_id: now_is})
    for symbol in sorted({*before, *after}):
        if before.get(symbol) != after.get(symbol):
            book.state.set_position(after.get(symbol, Position(symbol, ZERO, ZERO)))
    document = _report(book, change)
    _record(book, change, document)
    if not order.is_leg and now_is[0] < was[0]:
        for leg in brackets.others_of(order, book.state.open_orders()):
            if still := book.state.still_open(leg):
                book.close_order(still, "canceled", "a fill of its entry was corrected", now)
    return document


@dataclass(frozen=True)
class _Change:
    """What a fill was and is: shares and USD a share; `order` as it is now."""

    kind: str
    fill: Fill
    order: Order
    was: _Reported
    now_is: _Reported
    moment: datetime


def _asked_values(asked: Correction, was: _Reported) -> _Reported:
    if asked.kind == "bust":
        return ZERO, ZERO
    quantity = was[0] if asked.quantity is None else asked.quantity
    return quantity, was[1] if asked.price is None else asked.price


def _order_after(order: Order, fill: Fill, was: _Reported, now_is: _Reported) -> Order:
    filled = order.filled_quantity + now_is[0] - was[0]
    value = order.filled_value + now_is[0] * now_is[1] - was[0] * was[1]
    if order.quantity is not None and filled > order.quantity:
        raise unprocessable(
            f"execution {fill.execution_id} cannot be of {plain(now_is[0])} shares: order "
            f"{order.client_order_id} would have {plain(filled)} of {plain(order.quantity)} filled"
        )
    status = order.status
    if order.is_open and order.status != "accepted":
        status = "partially_filled" if filled > 0 else "new"
    return replace(order, filled_quantity=filled, filled_value=value, status=status)


def _reports(documents: Iterable[Mapping[str, Any]]) -> dict[str, _Reported]:
    """What the newest report of every corrected fill says: shares (zero for a bust) and USD a share."""
    found: dict[str, _Reported] = {}
    for document in documents:
        if document.get("type") == BUST:
            found[document[_PREVIOUS]] = (ZERO, ZERO)
        elif document.get("type") == CORRECT:
            found[document[_PREVIOUS]] = (Decimal(document["qty"]), Decimal(document["price"]))
    return found


def _original(documents: Iterable[Mapping[str, Any]], execution_id: str) -> str:
    """The fill that an id names by itself, or by a correction of it."""
    for document in documents:
        if document["id"] == execution_id:
            return document.get(_PREVIOUS, execution_id)
    return execution_id


def played(
    documents: Iterable[Mapping[str, Any]], reports: Mapping[str, _Reported]
) -> dict[str, Position]:
    """The holdings that an account's activities make, by symbol; nothing was held before the first.

    Shares that a split gave are counted as they were given, also where a fill before it is corrected.

    Args:
        documents: Activities, oldest first.
        reports: Corrected fills: shares and USD a share.
    """
    held: dict[str, Position] = {}
    for document in documents:
        symbol, kind = document["symbol"], document["activity_type"]
        position = held.get(symbol, Position(symbol, ZERO, ZERO))
        if kind == "FILL":
            if _PREVIOUS in document:
                continue
            reported = Decimal(document["qty"]), Decimal(document["price"])
            quantity, price = reports.get(document["id"], reported)
            if quantity:
                signed = quantity if document["side"] == "buy" else -quantity
                held[symbol] = position.after_trade(signed, price)
        elif kind in {"SPLIT", "SPIN"}:
            held[symbol] = replace(position, quantity=position.quantity + Decimal(document["qty"]))
        elif kind == "NC":
            old_symbol = document.get("old_symbol") or document["description"].split()[0]
            old = held.pop(old_symbol, Position(old_symbol, ZERO, ZERO))
            held[symbol] = Position(
                symbol, position.quantity + old.quantity, position.cost_basis + old.cost_basis
            )
        elif kind in {"MA", "REORG"}:
            held.pop(symbol, None)
    return {symbol: position for symbol, position in held.items() if position.quantity}


def _report(book: Book, change: _Change) -> dict[str, Any]:
    """The activity that tells of it: a correction with what is true now, a bust with what was not."""
    fill, order = change.fill, change.order
    busted = change.kind == "bust"
    quantity, price = (fill.quantity, fill.price) if busted else change.now_is
    left = order.remaining(fill.price) if order.is_open else ZERO
    document = {
        "transaction_time": stamp(change.moment),
        "type": BUST if busted else CORRECT,
        "price": plain(price),
        "qty": plain(quantity),
        "side": fill.side,
        "symbol": fill.symbol,
        "leaves_qty": plain(max(left, ZERO)),
        "cum_qty": plain(order.filled_quantity),
        "order_id": fill.order_id,
        "order_status": order.status,
        _PREVIOUS: fill.execution_id,
    }
    activity_id = book.post("FILL", change.moment, document)
    return {
        "id": activity_id,
        "account_id": str(book.account_id),
        "activity_type": "FILL",
        **document,
    }


def _record(book: Book, change: _Change, document: Mapping[str, Any]) -> None:
    order = change.order
    book.state.record(
        change.kind,
        {
            "execution_id": document["id"],
            _PREVIOUS: document[_PREVIOUS],
            "client_order_id": order.client_order_id,
            "order_id": order.order_id,
            "symbol": order.symbol,
            "side": order.side,
            "quantity": document["qty"],
            "price": document["price"],
            "previous_quantity": plain(change.was[0]),
            "previous_price": plain(change.was[1]),
            "status": order.status,
        },
        change.moment,
    )
