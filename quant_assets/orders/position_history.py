"""A position as the sum of its history: what happened to the account's shares, in the order in which it happened.

Pure. Belongs here: the events that change holdings, their order, and playing them. Does not belong here: what one
event does to one holding (`positions.py`) and where the events are stored (`ledger_history.py`).

1. The opening balance comes first, whenever it was taken.
2. Then everything in the order of its time: what a day begins with (splits, mergers, renames) before that day's
   trades, and what shares one instant by its id. The order in which things became known does not matter.
3. A corrected fill counts with what really traded, at the time of the fill; a busted one does not count at all.
4. A rename moves the whole holding of the old symbol, with its cost, to the new one.
5. What is newer than everything that was played before is simply played after it. Anything else is put where it
   belongs and the history is played again: both give the same, and what the profit realised so far changes by
   belongs to the event that changed it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import TypeAlias

from quant_assets.orders.positions import Holding, after_fill, after_share_change, round_step

_ZERO = Decimal(0)
#: (time, rank, id): ranks order what shares an instant.
Place: TypeAlias = tuple[datetime, int, str]


@dataclass(frozen=True)
class Traded:
    """Shares bought (`change` > 0) or sold at a price, in USD: a fill as it counts after its corrections.

    A change of zero is a busted fill: it keeps its place, so that it can be corrected again, and does nothing.
    """

    reference: str
    symbol: str
    change: Decimal
    price: Decimal
    at: datetime

    @property
    def place(self) -> Place:
        """Where it stands in the history."""
        return (self.at, 1, self.reference)

    @property
    def symbols(self) -> frozenset[str]:
        """The holdings that it changes."""
        return frozenset({self.symbol})

    def play(self, holdings: dict[str, Holding]) -> None:
        """Let it happen."""
        if self.change:
            held = holdings.get(self.symbol, Holding())
            holdings[self.symbol] = after_fill(held, self.change, self.price)


@dataclass(frozen=True)
class SharesChanged:
    """Shares that came or went without a trade: a split, a spin-off, a merger, a transfer.

    `net_amount` is the cash that came for them, USD: with it the change is a trade at that price, without it the
    cost stays as it is.
    """

    reference: str
    symbol: str
    change: Decimal
    net_amount: Decimal
    at: datetime

    @property
    def place(self) -> Place:
        """Where it stands in the history."""
        return (self.at, 0, self.reference)

    @property
    def symbols(self) -> frozenset[str]:
        """The holdings that it changes."""
        return frozenset({self.symbol})

    def play(self, holdings: dict[str, Holding]) -> None:
        """Let it happen."""
        if not self.change:
            return
        held = holdings.get(self.symbol, Holding())
        price = round_step(abs(self.net_amount / self.change))
        holdings[self.symbol] = (
            after_fill(held, self.change, price) if price else after_share_change(held, self.change)
        )


@dataclass(frozen=True)
class Renamed:
    """What was held under one symbol is held under another."""

    reference: str
    old_symbol: str
    symbol: str
    at: datetime

    @property
    def place(self) -> Place:
        """Where it stands in the history."""
        return (self.at, 0, self.reference)

    @property
    def symbols(self) -> frozenset[str]:
        """The holdings that it changes."""
        return frozenset({self.old_symbol, self.symbol})

    def play(self, holdings: dict[str, Holding]) -> None:
        """Let it happen."""
        old = holdings.get(self.old_symbol, Holding())
        if not old.quantity or self.old_symbol == self.symbol:
            return
        new = holdings.get(self.symbol, Holding())
        holdings[self.symbol] = (
            after_fill(new, old.quantity, old.average_price)
            if old.average_price
            else after_share_change(new, old.quantity)
        )
        # What was realised under the old symbol stays there.
        holdings[self.old_symbol] = replace(old, quantity=_ZERO, average_price=_ZERO)


Event: TypeAlias = Traded | SharesChanged | Renamed


@dataclass(frozen=True)
class History:
    """Everything that happened to some symbols, from the opening balance on.

    Attributes:
        opening: What was held at the opening, with nothing realised yet.
        events: In the order of their places, at most one per reference.
    """

    opening: Mapping[str, Holding]
    events: Sequence[Event] = ()

    @classmethod
    def of(cls, opening: Mapping[str, Holding], events: Iterable[Event]) -> History:
        """A history from events in any order."""
        return cls(dict(opening), tuple(sorted(events, key=lambda event: event.place)))

    def holdings(self) -> dict[str, Holding]:
        """What is held after all of it, with what was realised on the way."""
        holdings = dict(self.opening)
        for event in self.events:
            event.play(holdings)
        return holdings

    def with_event(self, event: Event) -> History:
        """The history with an event put where it belongs; one of the same reference is replaced by it."""
        others = [known for known in self.events if known.reference != event.reference]
        others.insert(bisect_left([known.place for known in others], event.place), event)
        return replace(self, events=tuple(others))

    def is_newest(self, event: Event) -> bool:
        """Whether an event comes after all of it, so that it can be played on top of what is held."""
        return not self.events or self.events[-1].place < event.place


def played_after(holdings: Mapping[str, Holding], event: Event) -> dict[str, Holding]:
    """What is held after one more event, the newest of all."""
    after = dict(holdings)
    event.play(after)
    return after


def realised_by(before: Mapping[str, Holding], after: Mapping[str, Holding]) -> Decimal:
    """How much the realised profit of all symbols changed, USD."""
    return sum(
        (
            after.get(symbol, Holding()).realised_pnl - before.get(symbol, Holding()).realised_pnl
            for symbol in before.keys() | after.keys()
        ),
        _ZERO,
    )
