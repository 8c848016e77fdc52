"""The account's positions in the ledger, moved by events and at any time equal to their history.

Belongs here: which rows of the ledger are which events, and writing what events make of the positions. Does not belong
here: what an event does (`position_history.py`) and booking the rows themselves (`booking.py`, `confirmation.py`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from quant_assets.orders.drift import Explanation
from quant_assets.orders.position_history import (
    Event,
    History,
    Place,
    Renamed,
    SharesChanged,
    Traded,
    played_after,
    realised_by,
)
from quant_assets.orders.positions import Holding
from quant_resources.calendar import NEW_YORK, start_of_day
from quant_resources.ledger import account_book
from quant_resources.ledger.counted_fills import CountedFill, corrections_by_fill, counted
from quant_resources.ledger.order_tables import (
    Activity,
    Adjustment,
    Fill,
    Position,
    PositionSnapshot,
)

#: Activities whose `qty` changes the holding; a dividend's says what it was paid on.
SHARE_CHANGES: Final = frozenset(
    {"SPLIT", "SPIN", "MA", "REORG", "NC", "JNLS", "ACATS", "SSO", "SSP", "VOF"}
)
_RENAMED: Final = re.compile(r"^(\S+) is now \S+$")
_BEGINNING: Final[Place] = (datetime(1900, 1, 1, tzinfo=UTC), 0, "")


class LedgerPositions:
    """The positions of an account inside one transaction, which holds the account's booking lock.

    Args:
        session: The transaction.
        account_id: The account.
        since: No event that will be played is older: only what the ledger has from then on can be newer than it.
    """

    def __init__(self, session: Session, account_id: str, since: datetime) -> None:
        self._session = session
        self._account_id = account_id
        self._rows = account_book.positions_of(session, account_id)
        self._newest: dict[str, Place] = {}
        for event in _events(session, account_id, since=since):
            self._note(event)

    def play(self, event: Event) -> Decimal:
        """Let an event happen, at its place in the history; one that is known is replaced by it.

        Returns:
            How much the realised profit changed by it, USD.
        """
        symbols = event.symbols
        before = {symbol: self.holding(symbol) for symbol in symbols}
        if all(self._newest.get(symbol, _BEGINNING) < event.place for symbol in symbols):
            after = played_after(before, event)
        else:
            symbols = self._connected(symbols)
            before = {symbol: self.holding(symbol) for symbol in symbols}
            history = ledger_history(self._session, self._account_id, symbols)
            after = history.with_event(event).holdings()
        if isinstance(event, Renamed):
            self.name(event.symbol, self._security_id(event.old_symbol))
        for symbol in symbols:
            self._write(symbol, after.get(symbol, Holding()))
        self._note(event)
        return realised_by(before, after)

    def holding(self, symbol: str) -> Holding:
        """What is held of a symbol."""
        row = self._rows.get(symbol)
        return Holding() if row is None else holding_of(row)

    def name(self, symbol: str, security_id: str | None) -> None:
        """Note the listing that is held under a symbol, where it is known."""
        if security_id is not None:
            self._row(symbol).security_id = security_id

    def _security_id(self, symbol: str) -> str | None:
        row = self._rows.get(symbol)
        return None if row is None else row.security_id

    def _note(self, event: Event) -> None:
        for symbol in event.symbols:
            self._newest[symbol] = max(self._newest.get(symbol, _BEGINNING), event.place)

    def _write(self, symbol: str, holding: Holding) -> None:
        if symbol not in self._rows and holding == Holding():
            return
        row = self._row(symbol)
        row.quantity, row.average_price = holding.quantity, holding.average_price
        row.realised_pnl = holding.realised_pnl

    def _row(self, symbol: str) -> Position:
        if symbol not in self._rows:
            self._rows[symbol] = Position(
                account_id=self._account_id,
                symbol=symbol,
                security_id=None,
                quantity=Decimal(0),
                average_price=Decimal(0),
                realised_pnl=Decimal(0),
            )
            self._session.add(self._rows[symbol])
        return self._rows[symbol]

    def _connected(self, symbols: Collection[str]) -> frozenset[str]:
        """The symbols, with all whose holdings were ever moved into theirs or out of them."""
        renames = [
            event.symbols
            for event in (
                *_activity_events(self._session, self._account_id, only="NC"),
                *_adjustment_events(self._session, self._account_id),
            )
            if isinstance(event, Renamed)
        ]
        found = frozenset(symbols)
        while True:
            wider = found.union(*(pair for pair in renames if pair & found))
            if wider == found:
                return found
            found = wider


def ledger_history(session: Session, account_id: str, symbols: Collection[str]) -> History:
    """Everything that the ledger knows of some symbols, opening balance first."""
    opening = account_book.opening_snapshot(session, account_id)
    held = (
        ()
        if opening is None
        else session.scalars(
            select(PositionSnapshot).where(
                PositionSnapshot.snapshot_id == opening.snapshot_id,
                PositionSnapshot.symbol.in_(symbols),
            )
        )
    )
    wanted = frozenset(symbols)
    return History.of(
        {row.symbol: Holding(row.quantity, row.average_price) for row in held},
        (event for event in _events(session, account_id, symbols=wanted) if event.symbols & wanted),
    )


def fill_event(fill: Fill | CountedFill) -> Traded:
    """A fill as an event."""
    change = fill.quantity if fill.side == "buy" else -fill.quantity
    return Traded(fill.execution_id, fill.symbol, change, fill.price, fill.filled_at)


def activity_event(activity: Activity) -> Event | None:
    """What an activity does to positions, if it does anything.

    Without shares it does nothing: a row of what the opening balance or a confirmed adjustment holds already
    has none.
    """
    if activity.activity_type not in SHARE_CHANGES or activity.symbol is None:
        return None
    if not activity.quantity:
        return None
    at = start_of_day(activity.activity_date)
    if activity.activity_type != "NC":
        return SharesChanged(
            activity.activity_id, activity.symbol, activity.quantity, activity.net_amount, at
        )
    old = old_symbol(activity.description, activity.broker_message)
    return None if old is None else Renamed(activity.activity_id, old, activity.symbol, at)


def old_symbol(description: str, raw: Mapping[str, Any]) -> str | None:
    """What a renamed symbol was called, if the broker says it."""
    named = _RENAMED.match(description)
    found = raw.get("old_symbol") or (named.group(1) if named else None)
    return None if found is None else str(found)


def explained_events(explanation: Explanation) -> list[Event]:
    """What booking an explanation does to positions."""
    symbol, key = explanation.symbol, explanation.key
    if symbol is None:
        return []
    if explanation.kind == "manual_trade":
        return [
            Traded(one.corrects or one.execution_id, symbol, one.change, one.price, one.at)
            for one in explanation.executions
        ]
    if explanation.old_symbol is not None:
        return [Renamed(key, explanation.old_symbol, symbol, explanation.at)]
    if not explanation.quantity:
        return []
    return [SharesChanged(key, symbol, explanation.quantity, explanation.cash, explanation.at)]


def holding_of(row: Position) -> Holding:
    """A position of the ledger as the accounting sees it."""
    return Holding(row.quantity, row.average_price, row.realised_pnl)


def _events(
    session: Session,
    account_id: str,
    *,
    since: datetime | None = None,
    symbols: Collection[str] | None = None,
) -> Iterator[Event]:
    """Fills as they count, activities and adjustments: those of some symbols, or those from a day on."""
    query = select(Fill).where(Fill.account_id == account_id)
    if since is not None:
        query = query.where(Fill.trading_session >= since.astimezone(NEW_YORK).date())
    if symbols is not None:
        query = query.where(Fill.symbol.in_(symbols))
    fills = session.scalars(query).all()
    corrections = corrections_by_fill(session, [fill.execution_id for fill in fills])
    for fill in fills:
        yield fill_event(counted(fill, corrections.get(fill.execution_id, ())))
    yield from _activity_events(session, account_id, since=since)
    yield from _adjustment_events(session, account_id)


def _activity_events(
    session: Session, account_id: str, *, since: datetime | None = None, only: str | None = None
) -> Iterator[Event]:
    kinds = SHARE_CHANGES if only is None else {only}
    query = select(Activity).where(
        Activity.account_id == account_id, Activity.activity_type.in_(kinds)
    )
    if since is not None:
        query = query.where(Activity.activity_date >= since.astimezone(NEW_YORK).date())
    for activity in session.scalars(query):
        event = activity_event(activity)
        if event is not None:
            yield event


def _adjustment_events(session: Session, account_id: str) -> Iterator[Event]:
    """One event per reference: a confirmed correction takes the place of what it corrects."""
    events: dict[str, Event] = {}
    rows = session.scalars(
        select(Adjustment)
        .where(Adjustment.account_id == account_id)
        .order_by(Adjustment.adjustment_id)
    )
    for row in rows:
        for event in explained_events(Explanation.from_json(row.explanation)):
            events[event.reference] = event
    yield from events.values()
