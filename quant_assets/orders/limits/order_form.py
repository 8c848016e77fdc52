"""Limits on an order's own form: its numbers, the broker's rules, its id, and orders that meet each other.

Belongs here: what makes an order wrong however small it is. Does not belong here: how large it may be
(`order_size.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from quant_assets.orders.intents import Intent
from quant_assets.orders.limits.limit import ZERO, Batch, Refusal, RiskLimit
from quant_assets.orders.order_rules import intent_breaches
from quant_resources.broker import BrokerOrder
from quant_resources.order_rules import (
    LARGEST_NOTIONAL,
    LARGEST_PRICE,
    LARGEST_QUANTITY,
    LONGEST_ID,
    is_symbol,
)

_ONE: Final = Decimal(1)
#: Dollars and shares of one order may differ by the rounding of both, not by more.
_NOTIONAL_TOLERANCE: Final = Decimal("0.01")


class QuantityLimit(RiskLimit):
    """Numbers that no order has, a symbol that is none, and closing more than is held."""

    name = "quantity"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Intents that no other limit could measure; one refusal each."""
        for intent in batch.intents:
            refusal = _malformed(intent) or _closes_too_much(intent, batch)
            if refusal:
                yield refusal


def _malformed(intent: Intent) -> Refusal | None:
    for what, number, largest in (
        ("quantity", intent.quantity, LARGEST_QUANTITY),
        ("notional", intent.notional, LARGEST_NOTIONAL),
        ("reference price", intent.reference_price, LARGEST_PRICE),
        ("limit price", intent.limit_price, LARGEST_PRICE),
        ("stop price", intent.stop_price, LARGEST_PRICE),
        ("take profit price", intent.take_profit_price, LARGEST_PRICE),
        ("stop loss price", intent.stop_loss_price, LARGEST_PRICE),
    ):
        if number is not None and not (number.is_finite() and 0 < number < largest):
            return Refusal(intent, number, largest, f"the {what} {number:.6g} is absurd")
    longest = len(intent.client_order_id)
    if not 1 <= longest <= LONGEST_ID:
        return Refusal(
            intent,
            Decimal(longest),
            Decimal(LONGEST_ID),
            f"the client order id has {longest} characters, 1 to {LONGEST_ID} are taken",
        )
    if not is_symbol(intent.symbol):
        return Refusal(intent, _ONE, ZERO, f"{intent.symbol[:40]!r} is no symbol")
    if intent.notional is not None:
        shares_cost = intent.quantity * intent.reference_price
        if abs(shares_cost - intent.notional) > _NOTIONAL_TOLERANCE * max(intent.notional, _ONE):
            return Refusal(
                intent,
                shares_cost,
                intent.notional,
                f"the shares cost {shares_cost:,.2f} USD and the order is for {intent.notional:,.2f}",
            )
    return None


def _closes_too_much(intent: Intent, batch: Batch) -> Refusal | None:
    if not intent.reduces or not batch.opens(intent):
        return None
    closable = batch.closable(intent.symbol, intent.side)
    return Refusal(
        intent,
        intent.quantity,
        closable,
        f"{intent.quantity} shares of {intent.symbol} are to be closed, and {closable} are held that "
        "nothing else closes",
    )


class OrderRulesLimit(RiskLimit):
    """What the broker would refuse by its rules for orders."""

    name = "order_rules"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Intents that break a rule, with every rule that they break; the number is how many."""
        for intent in batch.intents:
            broken = intent_breaches(intent, batch.assets.get(intent.symbol), batch.now)
            if broken:
                why = f"{intent.symbol}: {'; '.join(broken)}"
                yield Refusal(intent, Decimal(len(broken)), ZERO, why)


class DuplicateLimit(RiskLimit):
    """The same order once more."""

    name = "duplicate"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Ids that were used before or are open, and a second order for the same leg of a symbol."""
        open_ids = {order.client_order_id for order in batch.open_orders}
        ids: set[str] = set()
        legs: set[tuple[str, int]] = set()
        for intent in batch.intents:
            leg = (intent.symbol, intent.leg)
            why = ""
            if intent.client_order_id in batch.used_ids or intent.client_order_id in open_ids:
                why = "has been used before"
            elif intent.client_order_id in ids:
                why = "is twice in the batch"
            elif leg in legs:
                why = f"is a second one for leg {intent.leg} of {intent.symbol}"
            if why:
                yield Refusal(intent, Decimal(2), _ONE, f"order {intent.client_order_id} {why}")
            ids.add(intent.client_order_id)
            legs.add(leg)


class SelfCrossLimit(RiskLimit):
    """An order that could trade with another of our own."""

    name = "self_cross"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Intents against an open order of the other side, or an earlier intent of the other side.

        Two limit orders whose prices do not meet may stand beside each other. A bracket is taken beside
        the protective legs of an earlier one, other orders are not (Alpaca, "Preventing Wash Trades").
        """
        orders: dict[str, list[BrokerOrder]] = {}
        for order in batch.open_orders:
            if order.is_open and order.status != "held":
                orders.setdefault(order.symbol, []).append(order)
        passed: dict[str, list[Intent]] = {}
        for intent in batch.intents:
            brackets = intent.take_profit_price is not None
            against = next(
                (
                    other
                    for other in (
                        *(
                            order
                            for order in orders.get(intent.symbol, ())
                            if not (brackets and order.protects)
                        ),
                        *passed.get(intent.symbol, ()),
                    )
                    if _meets(intent, other)
                ),
                None,
            )
            if against is None:
                passed.setdefault(intent.symbol, []).append(intent)
                continue
            yield Refusal(
                intent,
                intent.limit_price or intent.reference_price,
                against.limit_price or ZERO,
                f"it could trade with our own {against.order_type} order to {against.side} "
                f"{intent.symbol}, {against.client_order_id}",
            )


def _meets(intent: Intent, other: Intent | BrokerOrder) -> bool:
    if intent.side == other.side:
        return False
    ours, theirs = intent.limit_price, other.limit_price
    if ours is None or theirs is None or not theirs.is_finite():
        return True
    if not intent.order_type == other.order_type == "limit":
        return True
    return ours >= theirs if intent.side == "buy" else ours <= theirs
