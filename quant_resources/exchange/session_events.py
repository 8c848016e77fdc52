"""What happens as the clock moves, in order. Each function plays one event on the book.

1. Midnight New York of a day: splits, mergers, renames, spin-offs with this ex-date, then delistings.
   Open orders on the symbol are cancelled, and the position is in new shares from here on.
2. The open of a session: cash dividends of ex-dates since the session before; then the open orders
   that may trade, in the order of submission (`matching.at_open`); what only lives at the open ends.
3. The close: resting limit orders and stops that the session's range touched (stamped with the close,
   since a daily bar does not say when), orders that wait for the close, then the expiry of the day's
   orders, then the account's equity is kept: from the next day on it is `last_equity`.

An order submitted before a session's open may trade in all of it; one submitted while it is open trades at
its close only, and so do the legs of an entry that filled within the session. Legs of an entry that filled
at the open see the whole session, those of one that filled at the close the next. A symbol without a bar
does not trade.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

from quant_resources.calendar import XNYS, start_of_day
from quant_resources.exchange import matching
from quant_resources.exchange.book import Book
from quant_resources.exchange.markets.market import CorporateAction
from quant_resources.exchange.order_faults import part_of
from quant_resources.exchange.orders import HELD, Execution, Order, TradedBar, plain
from quant_resources.exchange.visibility import (
    MarketView,
    new_york_day,
    session_close,
    session_open,
)


@dataclass(frozen=True, order=True)
class Event:
    """Something that happens at a moment; `rank` orders events of one moment."""

    at: datetime
    rank: int
    day: date

    def play(self, book: Book) -> None:
        """Let it happen."""
        (begin_day, open_session, close_session)[self.rank](book, self.day, self.at)


def events_between(view: MarketView, after: datetime, until: datetime) -> Iterator[Event]:
    """Events with after < moment <= until, in order."""
    first, last = new_york_day(after), new_york_day(until)
    days = {d for d in (*view.actions_by_day, *view.delistings_by_day) if first <= d <= last}
    events = [Event(start_of_day(day), 0, day) for day in days]
    for session in XNYS.sessions(first, last):
        events.append(Event(session_open(session), 1, session))
        events.append(Event(session_close(session), 2, session))
    return (event for event in sorted(events) if after < event.at <= until)


def begin_day(book: Book, day: date, at: datetime) -> None:
    """Apply share-changing corporate actions and delistings of a day."""
    for action in book.view.actions_by_day.get(day, ()):
        if action.applies and action.action_type != "cash_dividend":
            book.cancel_orders_on(action.symbol, f"{action.action_type} on {day}", at)
            _apply(book, action, day, at)
    for listing in book.view.delistings_by_day.get(day, ()):
        book.cancel_orders_on(listing.symbol, f"{listing.symbol} delisted on {day}", at)
        position = book.state.positions().get(listing.symbol)
        last = book.view.previous_close(listing.symbol, day)
        if position is not None and last is not None:
            book.cash_out(position, last.price, "REORG", day, at)


def _apply(book: Book, action: CorporateAction, day: date, at: datetime) -> None:
    position = book.state.positions().get(action.symbol)
    if position is None:
        return
    if action.share_ratio is not None:
        book.split(position, action.share_ratio, day, at)
    elif action.action_type == "cash_merger" and action.cash is not None:
        book.cash_out(position, action.cash, "MA", day, at)
    elif action.action_type == "name_change" and action.new_symbol:
        book.rename(position, action.new_symbol, day, at)
    elif action.action_type == "spin_off" and action.new_symbol and action.ratio:
        book.spin_off(position, action.new_symbol, action.ratio, day, at)


def open_session(book: Book, session: date, at: datetime) -> None:
    """Pay dividends, then match orders at the open."""
    before = XNYS.previous(session)
    positions = book.state.positions()
    for day in sorted(d for d in book.view.actions_by_day if before < d <= session):
        for action in book.view.actions_by_day[day]:
            holding = positions.get(action.symbol)
            dividend = action.action_type == "cash_dividend" and action.applies
            if dividend and holding is not None and action.cash is not None:
                book.pay_dividend(holding, action.cash, day, at)

    _match(book, session, at, _AT_OPEN)
    for order in _eligible(book, session):
        if order.time_in_force in {"ioc", "fok"}:
            book.close_order(order, "canceled", "not filled at once", at)
        elif order.time_in_force == "opg":
            book.close_order(order, "expired", "not filled at the open", at)
        elif order.status == "accepted":
            book.state.update_order(replace(order, status="new"))


def close_session(book: Book, session: date, at: datetime) -> None:
    """Match what the range touched and what waits for the close, expire the day's, keep the equity."""
    _match(book, session, at, _DURING)
    _match(book, session, at, _AT_CLOSE)
    for order in _eligible(book, session):
        out_of_time = order.expires_at is not None and order.expires_at <= at
        if order.time_in_force in {"ioc", "fok"}:
            book.close_order(order, "canceled", "not filled at once", at)
        elif order.time_in_force in {"day", "cls"} or out_of_time:
            book.close_order(order, "expired", f"end of session {session}", at)
    book.state.put("last_equity", book.state.get("closing_equity"))
    book.state.put("closing_equity", plain(book.valuation(at).equity))
    book.state.put("closing_day", session.isoformat())


@dataclass(frozen=True)
class _Phase:
    """A moment of the session at which orders meet the bar.

    Attributes:
        triggers: Whether a stop is reached in it.
        executes: What an order gets in it.
        after_trigger: What an order gets in it whose stop was just reached.
        legs_see: What the legs of an entry that fills in it see of the session: all of it, the close, or
            nothing before the next session.
    """

    triggers: Callable[[Order, TradedBar], bool]
    executes: Callable[[Order, TradedBar, Decimal, matching.Costs], Execution | None]
    after_trigger: Callable[[Order, TradedBar, Decimal, matching.Costs], Execution | None]
    legs_see: Literal["session", "close", "next"]

    def legs_from(self, session: date) -> tuple[date, date | None]:
        """The first session of released legs, and the one that they see only the close of."""
        if self.legs_see == "next":
            return XNYS.next(session), session
        return session, session if self.legs_see == "close" else None


_AT_OPEN = _Phase(matching.triggered_at_open, matching.at_open, matching.at_open, "session")
_DURING = _Phase(
    matching.triggered_during,
    lambda order, bar, left, _: matching.during(order, bar, left),
    matching.at_stop,
    "close",
)
_AT_CLOSE = _Phase(matching.triggered_at_close, matching.at_close, matching.at_close, "next")


def _match(book: Book, session: date, at: datetime, phase: _Phase) -> None:
    """Let the orders that may trade meet the session's bars."""
    """Let the orders that may trade meet the session's bars, in the order of submission.

    Take-profits come last: where the range touches both exits, the loss is taken to have come first.
    """
    budgets: dict[str, Decimal] = {}
    in_turn = sorted(book.state.open_orders(), key=lambda o: o.group_role == "take_profit")
    for known in in_turn:
        # Another order's fill may have released, shortened or ended this one.
        order = book.state.still_open(known)
        if order is None or order.status == HELD or order.eligible_session > session:
            continue
        bar = book.view.bar(order.symbol, session)
        if bar is None:
            continue
        if order.symbol not in budgets:
            taken = book.state.filled_in(session, order.symbol)
            budgets[order.symbol] = book.costs.budget(bar) - taken
        rule = phase.executes
        if phase.triggers(order, bar):
            order, rule = book.trigger(order, at), phase.after_trigger
        execution = rule(order, bar, budgets[order.symbol], book.costs)
        if execution is not None:
            execution = part_of(book.state, order, execution)
            budgets[order.symbol] -= execution.quantity
            book.fill(order, execution, session, at, phase.legs_from(session))


def _eligible(book: Book, session: date) -> Iterator[Order]:
    """Open orders whose session this is or was; what ends with another one is left out.

    Legs released at the close belong to this session although they could trade from the next one on.
    """
    for known in book.state.open_orders():
        order = book.state.still_open(known)
        if order is not None and (order.eligible_session <= session or order.close_only == session):
            yield order
