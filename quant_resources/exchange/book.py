"""The account's book: what a fill, the end of an order or a corporate action changes in the state.

What that means for the rest of a bracket is said by `brackets.py`; busts and corrections are in
`corrections.py`. Every method runs inside the caller's transaction and leaves orders, cash, positions, activities and
the audit log agreeing with each other. When things happen is decided in `session_events.py`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from quant_resources.calendar import NEW_YORK
from quant_resources.exchange import brackets
from quant_resources.exchange.account import Position, Valuation, reserved_by, value
from quant_resources.exchange.matching import Costs
from quant_resources.exchange.orders import ZERO, Execution, Order, plain
from quant_resources.exchange.state import State
from quant_resources.exchange.visibility import MarketView, stamp

_CENT = Decimal("0.01")


@dataclass(frozen=True)
class Book:
    """The state of one account beside the market it trades."""

    state: State
    view: MarketView
    costs: Costs
    account_id: uuid.UUID

    def valuation(self, now: datetime, without: Order | None = None) -> Valuation:
        """The account at the last prices of `now`; `without` an order that shall be replaced."""
        positions = self.state.positions()
        gone = without.sequence if without else None
        orders = [order for order in self.state.open_orders() if order.sequence != gone]
        prices = self.view.last_prices({*positions, *(o.symbol for o in orders)}, now)
        held = {symbol: position.quantity for symbol, position in positions.items()}
        return value(self.state.cash, positions.values(), prices, reserved_by(orders, held, prices))

    def fill(
        self,
        order: Order,
        execution: Execution,
        session: date,
        at: datetime,
        legs_from: tuple[date, date | None],
    ) -> Order:
        """Book a fill: order, position, cash, FILL activity, and what it means for a bracket.

        Args:
            order: The order, as it is.
            execution: What it gets.
            session: The session whose volume it takes.
            at: When.
            legs_from: For legs that this releases: their first session, and the session of which
                they see the close only.
        """
        moment = self.state.next_stamp(at)
        filled = order.filled_quantity + execution.quantity
        changed = replace(
            order,
            filled_quantity=filled,
            filled_value=order.filled_value + execution.quantity * execution.price,
            updated_at=moment,
        )
        left = changed.remaining(execution.price)
        done = left <= 0
        changed = replace(
            changed,
            status="filled" if done else "partially_filled",
            filled_at=moment if done else None,
        )
        self.state.update_order(changed)

        signed = order.sign * execution.quantity
        held = self.state.positions().get(order.symbol, Position(order.symbol, ZERO, ZERO))
        self.state.set_position(held.after_trade(signed, execution.price))
        self.state.add_cash(-signed * execution.price)
        activity_id = self.post(
            "FILL",
            moment,
            {
                "transaction_time": stamp(moment),
                "type": "fill" if done else "partial_fill",
                "price": plain(execution.price),
                "qty": plain(execution.quantity),
                "side": order.side,
                "symbol": order.symbol,
                "leaves_qty": plain(max(left, ZERO)),
                "cum_qty": plain(filled),
                "order_id": order.order_id,
                "order_status": changed.status,
            },
        )
        self.state.insert_fill(activity_id, order, execution, session, moment)
        self.state.record(
            "fill",
            {
                "execution_id": activity_id,
                "client_order_id": order.client_order_id,
                "order_id": order.order_id,
                "symbol": order.symbol,
                "side": order.side,
                "quantity": plain(execution.quantity),
                "price": plain(execution.price),
                "session": session.isoformat(),
                "status": changed.status,
            },
            moment,
        )
        self._settle_bracket(changed, execution, at, legs_from)
        return changed

    def _settle_bracket(
        self,
        order: Order,
        execution: Execution,
        at: datetime,
        legs_from: tuple[date, date | None],
    ) -> None:
        """Release the legs of an entry that has filled; take from a leg what the other has filled."""
        for other in brackets.others_of(order, self.state.open_orders()):
            if not order.is_leg:
                if order.status == "filled":
                    moment = self.state.next_stamp(at)
                    leg = replace(brackets.released(other, *legs_from), updated_at=moment)
                    self.state.update_order(leg)
                    self._record_order("released", leg, moment)
            elif other.is_leg:
                left = brackets.without(other, execution.quantity)
                if left is None:
                    self.close_order(other, "canceled", "the other leg has filled", at)
                else:
                    self.state.update_order(left)

    def trigger(self, order: Order, at: datetime) -> Order:
        """Turn a stop order whose stop is reached into a market or limit order."""
        moment = self.state.next_stamp(at)
        changed = replace(order, triggered_at=moment, updated_at=moment)
        self.state.update_order(changed)
        self._record_order("trigger", changed, moment)
        return changed

    def hold_legs(self, legs: Sequence[Order], at: datetime) -> None:
        """Take the legs of an entry, to be released when it has filled."""
        for leg in legs:
            moment = self.state.next_stamp(at)
            self.state.insert_order(replace(leg, submitted_at=moment, updated_at=moment))
            self._record_order("held", leg, moment)

    def _record_order(self, event: str, order: Order, at: datetime) -> None:
        names = {
            "client_order_id": order.client_order_id,
            "order_id": order.order_id,
            "symbol": order.symbol,
        }
        parent = {"parent_id": order.parent_id} if order.is_leg else {}
        self.state.record(event, {**names, **parent}, at)

    def close_order(self, order: Order, status: str, reason: str, at: datetime) -> Order:
        """End an order, and what is open of its bracket, as "canceled" or "expired"."""
        moment = self.state.next_stamp(at)
        changed = replace(
            order,
            status=status,
            updated_at=moment,
            canceled_at=moment if status == "canceled" else None,
            expired_at=moment if status == "expired" else None,
        )
        self.state.update_order(changed)
        self.state.record(
            "cancel" if status == "canceled" else "expire",
            {
                "client_order_id": order.client_order_id,
                "order_id": order.order_id,
                "symbol": order.symbol,
                "filled_quantity": plain(order.filled_quantity),
                "reason": reason,
            },
            moment,
        )
        for other in brackets.others_of(order, self.state.open_orders()):
            if still := self.state.still_open(other):
                self.close_order(still, status, f"its bracket has ended: {reason}", at)
        return changed

    def replace_order(self, old: Order, new: Order, at: datetime) -> Order:
        """End an order whose place another one has taken; legs follow a new entry."""
        moment = self.state.next_stamp(at)
        for leg in brackets.others_of(old, self.state.open_orders()):
            if leg.parent_id == old.order_id:
                self.state.update_order(replace(leg, parent_id=new.order_id))
        changed = replace(
            old,
            status="replaced",
            replaced_by=new.order_id,
            replaced_at=moment,
            updated_at=moment,
        )
        self.state.update_order(changed)
        self.state.record(
            "replace",
            {
                "client_order_id": old.client_order_id,
                "order_id": old.order_id,
                "symbol": old.symbol,
                "filled_quantity": plain(old.filled_quantity),
                "replaced_by": new.order_id,
                "replacing_client_order_id": new.client_order_id,
            },
            moment,
        )
        return changed

    def cancel_orders_on(self, symbol: str, reason: str, at: datetime) -> None:
        """Cancel every open order on a symbol."""
        for order in self.state.open_orders():
            if order.symbol == symbol and (still := self.state.still_open(order)):
                self.close_order(still, "canceled", reason, at)

    def pay_dividend(self, position: Position, per_share: Decimal, day: date, at: datetime) -> None:
        """Credit (to a short position: debit) a cash dividend, rounded to cents."""
        amount = (position.quantity * per_share).quantize(_CENT)
        self.state.add_cash(amount)
        self._post_non_trade(
            "DIV",
            position.symbol,
            day,
            at,
            qty=position.quantity,
            net_amount=amount,
            per_share_amount=per_share,
            description=f"Cash dividend {position.symbol} {plain(per_share)} a share",
        )

    def split(self, position: Position, ratio: Fraction, day: date, at: datetime) -> None:
        """Turn a position into new shares."""
        changed = position.after_split(ratio)
        self.state.set_position(changed)
        self._post_non_trade(
            "SPLIT",
            position.symbol,
            day,
            at,
            qty=changed.quantity - position.quantity,
            net_amount=ZERO,
            description=f"Split {position.symbol} {ratio.numerator} for {ratio.denominator}",
        )

    def cash_out(
        self, position: Position, price: Decimal, kind: str, day: date, at: datetime
    ) -> None:
        """Exchange a position for cash, rounded to cents (kind: MA for a merger, else REORG)."""
        amount = (position.quantity * price).quantize(_CENT)
        self.state.add_cash(amount)
        self.state.set_position(replace(position, quantity=ZERO, cost_basis=ZERO))
        self._post_non_trade(
            kind,
            position.symbol,
            day,
            at,
            qty=-position.quantity,
            price=price,
            net_amount=amount,
            description=f"{position.symbol} exchanged for {plain(price)} USD a share",
        )

    def rename(self, position: Position, new_symbol: str, day: date, at: datetime) -> None:
        """Move a position to the company's new symbol."""
        self.state.set_position(replace(position, quantity=ZERO, cost_basis=ZERO))
        held = self.state.positions().get(new_symbol, Position(new_symbol, ZERO, ZERO))
        self.state.set_position(
            Position(
                new_symbol,
                held.quantity + position.quantity,
                held.cost_basis + position.cost_basis,
            )
        )
        self._post_non_trade(
            "NC",
            new_symbol,
            day,
            at,
            old_symbol=position.symbol,
            qty=position.quantity,
            net_amount=ZERO,
            description=f"{position.symbol} is now {new_symbol}",
        )

    def spin_off(
        self, position: Position, new_symbol: str, ratio: Fraction, day: date, at: datetime
    ) -> None:
        """Give holders shares of a company spun off, at a cost of zero."""
        source = Position(new_symbol, position.quantity, ZERO).after_split(ratio)
        held = self.state.positions().get(new_symbol, Position(new_symbol, ZERO, ZERO))
        self.state.set_position(replace(held, quantity=held.quantity + source.quantity))
        self._post_non_trade(
            "SPIN",
            new_symbol,
            day,
            at,
            qty=source.quantity,
            net_amount=ZERO,
            description=f"Spun off from {position.symbol}",
        )

    def _post_non_trade(self, kind: str, symbol: str, day: date, at: datetime, **more: Any) -> None:
        moment = self.state.next_stamp(at)
        document = {
            "date": day.isoformat(),
            "symbol": symbol,
            "status": "executed",
            **{name: plain(v) if isinstance(v, Decimal) else v for name, v in more.items()},
        }
        activity_id = self.post(kind, moment, document)
        self.state.record(
            "activity", {"activity_id": activity_id, "activity_type": kind, **document}, moment
        )

    def post(self, kind: str, moment: datetime, document: dict[str, Any]) -> str:
        """Append an activity; its id begins with the moment and never repeats."""
        unique = uuid.uuid5(self.account_id, f"activity {self.state.count_activities()}")
        local = moment.astimezone(NEW_YORK)
        activity_id = f"{local:%Y%m%d%H%M%S}{local.microsecond // 1000:03d}::{unique}"
        whole = {
            "id": activity_id,
            "account_id": str(self.account_id),
            "activity_type": kind,
            **document,
        }
        self.state.insert_activity(activity_id, kind, local.date(), moment, whole)
        return activity_id
