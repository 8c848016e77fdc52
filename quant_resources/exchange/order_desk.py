"""Taking, replacing and cancelling orders: what a client's request does to the book.

1. A submission is read (`tickets.py`), checked (`order_entry.py`) and kept; nothing fills at that moment.
2. Before a session's open an order waits for the open; while it is open, for its close, since a daily bar
   knows nothing in between.
3. A replacement puts a new order into the place of an open one, which ends as "replaced". What has filled
   stays with the old one; legs follow their entry.
4. A cancellation ends an order and what is open of its bracket.

Every method runs inside the caller's transaction (`exchange.py`), which also writes the audit log of
submissions.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from quant_resources.exchange import brackets, order_entry
from quant_resources.exchange.book import Book
from quant_resources.exchange.orders import HELD, Order
from quant_resources.exchange.quotes import sides_around
from quant_resources.exchange.refusals import forbidden, malformed, not_found, unprocessable
from quant_resources.exchange.tickets import Ticket, read_replacement, read_ticket
from quant_resources.exchange.visibility import session_open

_GTC_LIFE = timedelta(days=90)


@dataclass(frozen=True)
class OrderDesk:
    """Where the orders of one book are taken."""

    book: Book

    def take(self, body: object, now: datetime) -> Order:
        """Take an order, with its legs.

        Raises:
            RefusalError: The order is not taken.
        """
        ticket = read_ticket(body)
        self._check_id(ticket.client_order_id)
        if self.book.state.get("suspend_trade") == "true":
            raise forbidden("new orders are rejected by user request")
        order = self._new_order(ticket, self._check(ticket, now), now)
        if ticket.legs is None:
            return self.book.state.insert_order(order)
        entry = brackets.entry_of_group(order, self.book.account_id)
        return self.book.state.insert_order(entry)

    def hold_legs(self, body: object, entry: Order, now: datetime) -> None:
        """Take the legs of an entry that was just taken."""
        legs = read_ticket(body).legs
        if legs is not None:
            self.book.hold_legs(brackets.legs_of(entry, legs, self.book.account_id), now)

    def replace(self, order_id: str, body: object, now: datetime) -> Order:
        """Put an order with other terms into the place of an open one.

        Raises:
            RefusalError: There is no such order, it cannot be replaced, or the new terms are not taken.
        """
        state = self.book.state
        old = self._known(order_id)
        if not old.is_open:
            raise unprocessable("unable to replace order, order is not open")
        if old.status == "accepted":
            raise unprocessable("unable to replace order, order isn't sent to exchange yet")
        ticket = read_replacement(body, old)
        self._check_id(ticket.client_order_id)
        if state.get("suspend_trade") == "true":
            raise forbidden("new orders are rejected by user request")
        others = brackets.others_of(old, state.open_orders())
        if old.is_leg:
            self._check_leg(ticket, old, others)
            intent = old.position_intent
        else:
            ticket = replace(ticket, legs=brackets.terms_of(others))
            intent = self._check(ticket, now, instead_of=old)
        fresh = self._new_order(ticket, intent, now)
        if old.status == HELD:
            fresh = replace(fresh, eligible_session=old.eligible_session, close_only=None)
        new = state.insert_order(
            replace(
                fresh,
                status=HELD if old.status == HELD else fresh.status,
                order_class=old.order_class,
                parent_id=old.parent_id,
                group_id=old.group_id,
                triggered_at=old.triggered_at,
                replaces=old.order_id,
            )
        )
        self.book.replace_order(old, new, now)
        return new

    def cancel(self, order_id: str, now: datetime) -> None:
        """Cancel an open order.

        Raises:
            RefusalError: There is no such order, or it has ended.
        """
        order = self._known(order_id)
        if not order.is_open:
            raise unprocessable(f'order is already in "{order.status}" state')
        self.book.close_order(order, "canceled", "requested", now)

    def cancel_all(self, now: datetime) -> list[Order]:
        """Cancel every open order; returns them."""
        orders = self.book.state.open_orders()
        for order in orders:
            if still := self.book.state.still_open(order):
                self.book.close_order(still, "canceled", "requested", now)
        return orders

    def _known(self, order_id: str) -> Order:
        order = self.book.state.order(order_id=order_id)
        if order is None:
            raise not_found(f"order not found for {order_id}")
        return order

    def _check_id(self, client_order_id: str) -> None:
        if client_order_id and self.book.state.order(client_order_id=client_order_id):
            raise malformed("client_order_id must be unique")

    def _check(self, ticket: Ticket, now: datetime, instead_of: Order | None = None) -> str:
        """Check a ticket against market and account; returns the position intent."""
        book, state = self.book, self.book.state
        listing = book.view.listing(ticket.symbol, now)
        active = listing is not None and book.view.is_active(listing, now)
        order_entry.check_asset(ticket, listing, active=active)
        assert listing is not None  # noqa: S101 - checked above
        order_entry.check_hour(ticket, now)
        positions = state.positions()
        gone = instead_of.sequence if instead_of else None
        open_orders = [order for order in state.open_orders() if order.sequence != gone]
        symbols = {ticket.symbol, *positions, *(order.symbol for order in open_orders)}
        prices = book.view.last_prices(symbols, now)
        price = prices.get(ticket.symbol)
        sides = None if price is None else sides_around(price, book.costs.half_spread_bps)
        return order_entry.check_account(
            ticket,
            listing,
            position=positions.get(ticket.symbol),
            open_orders=open_orders,
            prices=prices,
            sides=sides,
            valuation=book.valuation(now, instead_of),
        )

    def _check_leg(self, ticket: Ticket, old: Order, others: list[Order]) -> None:
        """A leg stays on its side of the other one; a stop in the market is not reached yet."""
        now = self.book.state.clock
        price = self.book.view.last_prices([old.symbol], now).get(old.symbol)
        if old.waits_for_stop and old.status != HELD and price is not None:
            assert ticket.stop_price is not None  # noqa: S101 - a stop order has one
            order_entry.check_stop(old.side, ticket.stop_price, price)
        for other in others:
            if not other.is_leg:
                continue
            profit, loss = (ticket, other) if old.group_role == "take_profit" else (other, ticket)
            assert profit.limit_price is not None  # noqa: S101 - a take-profit is a limit order
            assert loss.stop_price is not None  # noqa: S101 - a stop-loss has a stop
            # Legs sell what a purchase has opened, and buy what a sale has.
            sign = 1 if old.side == "sell" else -1
            if (profit.limit_price - loss.stop_price) * sign <= 0:
                raise unprocessable(
                    f"take_profit.limit_price must be {'>' if sign > 0 else '<'} "
                    "stop_loss.stop_price"
                )

    def _new_order(self, ticket: Ticket, intent: str, now: datetime) -> Order:
        state, account_id = self.book.state, self.book.account_id
        client_order_id = ticket.client_order_id or str(
            uuid.uuid5(account_id, f"client order {state.count_orders()}")
        )
        moment = state.next_stamp()
        eligible, close_only = self._sessions(ticket.time_in_force, now)
        return Order(
            sequence=0,
            order_id=str(uuid.uuid5(account_id, f"order {client_order_id}")),
            client_order_id=client_order_id,
            symbol=ticket.symbol,
            side=ticket.side,
            order_type=ticket.order_type,
            time_in_force=ticket.time_in_force,
            quantity=ticket.quantity,
            notional=ticket.notional,
            limit_price=ticket.limit_price,
            stop_price=ticket.stop_price,
            position_intent=intent,
            status="accepted" if close_only is None else "new",
            eligible_session=eligible,
            close_only=close_only,
            submitted_at=moment,
            updated_at=moment,
            expires_at=moment + _GTC_LIFE if ticket.time_in_force == "gtc" else None,
        )

    def _sessions(self, time_in_force: str, now: datetime) -> tuple[date, date | None]:
        """The first session in which an order of now can trade, and that of which it sees the close only."""
        if time_in_force == "opg":
            return self.book.view.session_at_or_after(now), None
        session = self.book.view.session_at_or_after(now, by_close=True)
        return session, session if session_open(session) <= now else None
