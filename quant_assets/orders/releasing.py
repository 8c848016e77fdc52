"""Releasing: what must have happened before an intent may be sent, and the intents that waited for it.

Belongs here: second legs, purchases that wait for money, and the protective legs in the way of an intent
that reduces. Does not belong here: sending (`sending.py`).

1. A second leg goes when the first has filled; one whose first leg ended otherwise expires.
2. A purchase that waits for buying power goes when the broker shows it: sales free it only when filled.
3. Protective legs hold the shares that an intent wants to sell, and could sell them too. Before a position
   is reduced they are cancelled and their end is awaited. What is left of the position afterwards is not
   protected any more: that is the price of never selling the same shares twice.
4. A leg may have filled meanwhile, or somebody may have sold by hand. An intent that is larger than what is
   left to reduce is refused: sent, it would turn the position round. The next batch plans with what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from sqlalchemy import update
from sqlalchemy.orm import Session

from quant_assets.orders.booking import sync_with_broker
from quant_assets.orders.broker_view import BrokerView
from quant_assets.orders.halting import cancel_and_wait
from quant_assets.orders.limits import SHORT_SALE_CUSHION
from quant_assets.orders.sending import Pass, expire, intents_in, trading_allows
from quant_resources.ledger import order_book
from quant_resources.ledger.order_states import FINAL, Actor, OrderState
from quant_resources.ledger.order_tables import OrderIntent

S: Final = OrderState
_ZERO: Final = Decimal(0)
#: Named as what refused an intent when the position that it would reduce has become smaller.
POSITION_LEFT: Final = "position_left"


def release_waiting(work: Pass) -> None:
    """Let second legs and purchases go whose leg has filled, or whose money is there."""
    waiting = intents_in(work, frozenset({S.WAITING}))
    if not waiting:
        return
    desk = work.desk
    with desk.ledger.begin() as session:
        legs = order_book.states_of(session, [row.depends_on for row in waiting if row.depends_on])
    reserve = 1 - desk.policy.limits.buying_power_reserve
    money = desk.broker.account().buying_power * reserve
    # What this pass is about to send is not held by the broker yet.
    money -= sum(
        (_cost(row) for row in intents_in(work, frozenset({S.PENDING})) if not row.reduces), _ZERO
    )
    for row in waiting:
        leg = legs.get(row.depends_on or "")
        if leg is not None and leg in FINAL and leg != S.FILLED:
            expire(work, row, Actor.SUBMISSION, f"the leg that closes the position ended {leg}")
            continue
        cost = _cost(row)
        if (leg is not None and leg != S.FILLED) or cost > money:
            continue
        money -= cost
        with desk.ledger.begin() as session:
            order_book.transition(
                session,
                row.client_order_id,
                S.PENDING,
                Actor.SUBMISSION,
                detail="the closing leg has filled" if leg else "the buying power is there",
            )


def clear_the_way(work: Pass, rows: Sequence[OrderIntent], view: BrokerView) -> list[OrderIntent]:
    """Cancel the protective legs of positions that are about to be reduced.

    Args:
        work: The pass; `report.stopped` is set when the book is HALTED.
        rows: Intents that are about to be sent.
        view: The broker as this pass has read it.

    Returns:
        Those that may be sent now: the others' legs have not ended yet, or they were refused.
    """
    desk = work.desk
    reducing = [row for row in rows if row.reduces]
    if not reducing:
        return list(rows)
    symbols = {row.symbol for row in reducing}
    account_id = desk.account.account_id
    with desk.ledger.begin() as session:
        legs = order_book.open_legs(session, account_id, symbols)
        # Nobody's protection is taken away for an intent that is not sent anyway.
        if legs and not trading_allows(session, work, reducing[0]):
            return []
    views = [view]
    left = cancel_and_wait(
        desk,
        legs,
        lambda: views.append(sync_with_broker(desk.ledger, desk.broker).view),
        lambda session: order_book.open_legs(session, account_id, symbols),
    )
    held_back = {order.symbol for order in left}
    with desk.ledger.begin() as session:
        entries = order_book.open_entries(session, account_id, symbols)
        # The broker's own word: what somebody sold there by hand is not in the ledger yet.
        free = {p.symbol: p.quantity for p in views[-1].positions if p.symbol in symbols}
        for order in entries:
            # What another open order takes off the position cannot be taken off twice.
            remaining = (order.quantity or _ZERO) - order.filled_quantity
            change = remaining if order.side == "buy" else -remaining
            if free.get(order.symbol, _ZERO) * change < 0:
                free[order.symbol] += change
        ready: list[OrderIntent] = []
        for row in rows:
            change = row.quantity if row.side == "buy" else -row.quantity
            position = free.get(row.symbol, _ZERO)
            if not row.reduces:
                ready.append(row)
            elif row.symbol in held_back:
                continue
            elif position * change < 0 and abs(position) >= row.quantity:
                free[row.symbol] = position + change
                ready.append(row)
            else:
                _refuse(session, row, abs(position) if position * change < 0 else _ZERO)
    return ready


def _refuse(session: Session, row: OrderIntent, left: Decimal) -> None:
    why = (
        f"{left.normalize():f} shares of {row.symbol} are left to {row.side}, the order is for "
        f"{row.quantity.normalize():f}; {row.reason}"
    )
    session.execute(
        update(OrderIntent)
        .where(OrderIntent.client_order_id == row.client_order_id)
        .values(limit_name=POSITION_LEFT, limit_value=row.quantity, limit_bound=left, reason=why)
    )
    order_book.transition(session, row.client_order_id, S.REFUSED, Actor.SUBMISSION, detail=why)


def _cost(row: OrderIntent) -> Decimal:
    price = max(row.reference_price, row.limit_price or _ZERO)
    dollars = row.notional if row.notional is not None else row.quantity * price
    return dollars * SHORT_SALE_CUSHION if row.side == "sell" else dollars
