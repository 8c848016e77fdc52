"""Whether the broker's order is the one that was frozen: every term of an entry, the bracket of a leg.

Belongs here: the comparison and its error; only the intent's row and the broker's answer are looked at.
Does not belong here: recording (`broker_orders.py`), and Alpaca's own rules (`quant_assets.orders`).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from sqlalchemy.orm import Session

from quant_resources.broker import BrokerOrder
from quant_resources.errors import LedgerError
from quant_resources.ledger.order_states import OrderState
from quant_resources.ledger.order_tables import Order, OrderBatch, OrderIntent, Role

#: An order for an amount of money may exceed it by rounding only, of shares and of the average price.
_NOTIONAL_SLACK: Final = Decimal("1.001")
#: States of intents that nobody ever sends.
_NEVER_SENT: Final = frozenset({OrderState.REFUSED, OrderState.DRY_RUN})


class WrongOrderError(LedgerError):
    """The broker's order under one of our ids is not the one that was frozen.

    Attributes:
        book: The book whose order it is.
    """

    def __init__(self, message: str, book: str) -> None:
        super().__init__(message)
        self.book = book


def require_frozen_entry(session: Session, intent: OrderIntent, order: BrokerOrder) -> None:
    """Refuse an entry that is not what was frozen, or that was never to be sent.

    Raises:
        WrongOrderError: Another symbol, side, size, type, price, time in force or class than frozen, or
            more filled than it is.
    """
    if OrderState(intent.state) in _NEVER_SENT:
        raise wrong_order(
            session,
            intent,
            f"The broker has order {order.client_order_id}, which was never to be sent ({intent.state})",
        )
    frozen, seen = _terms(intent), _terms(order)
    if frozen != seen:
        raise wrong_order(
            session,
            intent,
            f"The broker's order {order.client_order_id} is {seen}, the frozen one is {frozen}",
        )
    _refuse_overfill(session, intent, order)


def require_frozen_leg(
    session: Session, intent: OrderIntent, leg: BrokerOrder, role: Role, *, by_terms: bool
) -> None:
    """Refuse a leg that the intent did not freeze.

    Args:
        session: The transaction.
        intent: The intent.
        leg: The leg at the broker.
        role: Which leg of the bracket it is.
        by_terms: Whether price and size must be those frozen; not so where the entry was replaced.

    Raises:
        WrongOrderError: Another symbol or side, another price, larger than the entry, or more filled
            than it is.
    """
    side = "sell" if intent.side == "buy" else "buy"
    price = intent.take_profit_price if role == "take_profit" else intent.stop_loss_price
    seen = leg.limit_price if role == "take_profit" else leg.stop_price
    larger = leg.quantity is None or leg.quantity > intent.quantity
    if (leg.symbol, leg.side) != (intent.symbol, side) or (by_terms and (seen != price or larger)):
        frozen = (
            "no bracket"
            if price is None
            else f"{side} {_plain(intent.quantity)} at {_plain(price)}"
        )
        raise wrong_order(
            session,
            intent,
            f"The broker's {role} leg of order {intent.client_order_id} ({intent.symbol}) is {leg.side} "
            f"{_plain(leg.quantity)} {leg.symbol} at {_plain(seen)}, the frozen one is {frozen}",
        )
    _refuse_overfill(session, intent, leg)


def require_successor(
    session: Session, intent: OrderIntent, replaced: Order, order: BrokerOrder
) -> None:
    """Refuse a replacement that trades something else; its size and prices are what was changed.

    Raises:
        WrongOrderError: Another symbol or side than the order replaced, or more filled than it is.
    """
    if (order.symbol, order.side) != (replaced.symbol, replaced.side):
        raise wrong_order(
            session,
            intent,
            f"The broker's order {order.broker_order_id} is {order.side} {order.symbol}, the order "
            f"{replaced.broker_order_id} that it replaces is {replaced.side} {replaced.symbol}",
        )
    _refuse_overfill(session, intent, order)


def wrong_order(session: Session, intent: OrderIntent, finding: str) -> WrongOrderError:
    """The error that halts the intent's book."""
    book = session.get_one(OrderBatch, intent.batch_id).book
    return WrongOrderError(f"{finding}; trading stops until a person has looked at it.", book)


@dataclass(frozen=True)
class _Terms:
    """What an order is, as far as it was frozen."""

    symbol: str
    side: str
    quantity: Decimal | None
    notional: Decimal | None
    order_type: str
    limit_price: Decimal | None
    stop_price: Decimal | None
    time_in_force: str
    bracket: bool

    def __str__(self) -> str:
        size = f"{_plain(self.notional)} USD of" if self.quantity is None else _plain(self.quantity)
        limit = "" if self.limit_price is None else f" limit {_plain(self.limit_price)}"
        stop = "" if self.stop_price is None else f" stop {_plain(self.stop_price)}"
        bracket = " bracket" if self.bracket else ""
        return f"{self.side} {size} {self.symbol} {self.order_type}{limit}{stop} {self.time_in_force}{bracket}"


def _terms(order: OrderIntent | BrokerOrder) -> _Terms:
    if isinstance(order, BrokerOrder):
        bracket = order.order_class == "bracket"
    else:
        bracket = order.take_profit_price is not None
    return _Terms(
        symbol=order.symbol,
        side=order.side,
        # The shares of an order for an amount of money are known when it has filled.
        quantity=None if order.notional is not None else order.quantity,
        notional=order.notional,
        order_type=order.order_type,
        limit_price=order.limit_price,
        stop_price=order.stop_price,
        time_in_force=order.time_in_force,
        bracket=bracket,
    )


def _refuse_overfill(session: Session, intent: OrderIntent, order: BrokerOrder) -> None:
    filled = order.filled_quantity
    if order.quantity is not None:
        whole, limit = f"{_plain(order.quantity)} shares", order.quantity
        excess = filled > limit
    else:
        money = order.notional or Decimal(0)
        whole = f"{_plain(money)} USD"
        excess = filled * (order.average_fill_price or Decimal(0)) > money * _NOTIONAL_SLACK
    if excess or filled < 0:
        raise wrong_order(
            session,
            intent,
            f"The broker says that {_plain(filled)} shares of order {order.client_order_id} "
            f"({order.symbol}, {whole}) have filled",
        )


def _plain(number: Decimal | None) -> str:
    return "nothing" if number is None else f"{number.normalize():f}"
