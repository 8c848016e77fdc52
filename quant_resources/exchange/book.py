"""The account's book: what a fill, a cancellation or a corporate action changes in the state.

Every method runs inside the caller's transaction and leaves orders, cash, positions, activities and
the audit log agreeing with each other. When things happen is decided in `session_events.py`.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from quant_resources.calendar import NEW_YORK
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

    def valuation(self, now: datetime) -> Valuation:
        """The account at the last prices of `now`."""
        positions = self.state.positions()
        orders = self.state.open_orders()
        prices = self.view.last_prices({*positions, *(o.symbol for o in orders)}, now)
        held = {symbol: position.quantity for symbol, position in positions.items()}
        return value(self.state.cash, positions.values(), prices, reserved_by(orders, held, prices))

    def fill(self, order: Order, execution: Execution, session: date, at: datetime) -> Order:
        """Book a fill: order, position, cash, FILL activity."""
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
        activity_id = self._post(
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
        return changed

    def close_order(self, order: Order, status: str, reason: str, at: datetime) -> Order:
        """End an order as "canceled" or "expired"."""
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
        return changed

    def cancel_orders_on(self, symbol: str, reason: str, at: datetime) -> None:
        """Cancel every open order on a symbol."""
        for order in self.state.open_orders():
            if order.symbol == symbol:
                self.close_order(order, "canceled", reason, at)

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
        activity_id = self._post(kind, moment, document)
        self.state.record(
            "activity", {"activity_id": activity_id, "activity_type": kind, **document}, moment
        )

    def _post(self, kind: str, moment: datetime, document: dict[str, Any]) -> str:
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
