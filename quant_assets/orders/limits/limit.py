"""What a limit is, and everything that it may look at.

Belongs here: the batch as the limits see it, one refusal, the one method of a limit. Does not belong here:
any limit (the modules beside this one), and applying them (`application.py`).

Numbers come from outside (a broker's answer, a stored table), so none is trusted: `known` and
`known_price` say whether one can be used, and what cannot be used counts as not known.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import ClassVar, Final

from quant_assets.orders.intents import Intent
from quant_assets.orders.policy import Limits
from quant_resources.broker import Asset, BrokerOrder, Quote, Side

ZERO: Final = Decimal(0)
#: What is not known counts as the worst: all of the equity lost, all of the volume traded.
WORST: Final = Decimal(1)
#: A short sale is held against 3 % more than its last price (Alpaca, "Margin and Short Selling").
SHORT_SALE_CUSHION: Final = Decimal("1.03")
#: From here on a number is absurd: no account, holding or price is as large.
_ABSURD: Final = Decimal("1e15")


@dataclass(frozen=True)
class Batch:
    """What the limits look at.

    Attributes:
        intents: The intents that earlier limits left, in the order of sending.
        positions: Signed shares held by symbol, without what open orders may still fill.
        prices: Reference price by symbol, for everything held, open or traded, USD.
        price_ages: How old the reference price is, by traded symbol (`trading_sessions.price_age`).
        equity: USD.
        buying_power: USD, after what open orders hold.
        assets: What the broker allows, by symbol.
        trading_state: ACTIVE, REDUCING or HALTED.
        account_blocked: The broker lets the account not trade.
        shorting_enabled: The broker lets the account sell short.
        limits: The bounds.
        quotes: The last quote by symbol, as far as it is recent (`market_facts.py`).
        last_trades: The last trade's price by symbol, as far as it is recent, USD.
        volumes: Average daily shares by symbol.
        open_orders: What the broker may still fill, protective legs of brackets included.
        used_ids: Client ids of the batch that have been used before.
        daily_loss: Fraction of the equity lost since the close before, negative for a gain; None where it
            is not known.
        drawdown: Fraction of the highest equity lost since then; None where it is not known.
        now: The broker's time.
        sent_before: Orders that earlier attempts of the session have sent.
        filled_today: Shares that the session has filled already, by symbol, both sides together.
    """

    intents: Sequence[Intent]
    positions: Mapping[str, Decimal]
    prices: Mapping[str, Decimal]
    price_ages: Mapping[str, timedelta]
    equity: Decimal
    buying_power: Decimal
    assets: Mapping[str, Asset]
    trading_state: str
    account_blocked: bool
    shorting_enabled: bool
    limits: Limits
    quotes: Mapping[str, Quote]
    last_trades: Mapping[str, Decimal]
    volumes: Mapping[str, Decimal]
    open_orders: Sequence[BrokerOrder]
    used_ids: Set[str]
    daily_loss: Decimal | None
    drawdown: Decimal | None
    now: datetime
    sent_before: int = 0
    filled_today: Mapping[str, Decimal] = field(default_factory=dict)

    @cached_property
    def open_entries(self) -> Sequence[BrokerOrder]:
        """Open orders that are no protective legs: those end with the position that they protect."""
        return [order for order in self.open_orders if order.is_open and not order.protects]

    @cached_property
    def openings(self) -> Sequence[Intent]:
        """The intents that may make a position larger, in the order of sending."""
        return [intent for intent in self.intents if self.opens(intent)]

    @cached_property
    def reductions(self) -> Sequence[Intent]:
        """The intents that can only make a position smaller, in the order of sending."""
        return [intent for intent in self.intents if not self.opens(intent)]

    def opens(self, intent: Intent) -> bool:
        """Whether an intent may make a position larger, whatever it says of itself.

        Only what is held, and is not being closed by an open order or an earlier intent, can be closed.
        """
        return intent.client_order_id not in self._closing_ids

    def closable(self, symbol: str, side: Side) -> Decimal:
        """Shares that orders of a side can still close before any intent of the batch."""
        held = known(self.positions.get(symbol)) or ZERO
        closing = max(held if side == "sell" else -held, ZERO)
        for order in self._entries_by_symbol.get(symbol, ()):
            if order.side == side:
                shares = open_shares(order, known_price(self.prices.get(symbol)))
                closing -= closing if shares is None else min(abs(shares), closing)
        return closing

    def orders_on(self, symbol: str) -> Sequence[BrokerOrder]:
        """The open entries of a symbol."""
        return self._entries_by_symbol.get(symbol, ())

    @cached_property
    def _closing_ids(self) -> Set[str]:
        left: dict[tuple[str, Side], Decimal] = {}
        # What does not claim to close may fill first, unless it waits for the very order that closes.
        ahead: dict[tuple[str, Side], dict[str | None, Decimal]] = {}
        for intent in self.intents:
            what = (intent.symbol, intent.side)
            left[what] = ZERO
            if not intent.reduces:
                waiting = ahead.setdefault(what, {})
                quantity = known(intent.quantity) or ZERO
                waiting[intent.depends_on] = waiting.get(intent.depends_on, ZERO) + quantity
        for what in left:
            left[what] = self.closable(*what) - sum(ahead.get(what, {}).values(), ZERO)
        closing: set[str] = set()
        opening: set[str] = set()
        for intent in self.intents:
            what = (intent.symbol, intent.side)
            behind = ahead.get(what, {}).get(intent.client_order_id, ZERO)
            quantity = known(intent.quantity)
            if intent.reduces and quantity is not None and 0 < quantity <= left[what] + behind:
                left[what] -= quantity
                closing.add(intent.client_order_id)
            else:
                opening.add(intent.client_order_id)
        return closing - opening

    @cached_property
    def _entries_by_symbol(self) -> Mapping[str, Sequence[BrokerOrder]]:
        found: dict[str, list[BrokerOrder]] = {}
        for order in self.open_entries:
            found.setdefault(order.symbol, []).append(order)
        return found


@dataclass(frozen=True)
class Refusal:
    """An intent that a limit refuses, with the number that was measured and the bound it broke."""

    intent: Intent
    value: Decimal
    bound: Decimal
    reason: str


class RiskLimit(ABC):
    """One limit. Without its refusals the rest of the batch honours it as a whole."""

    name: ClassVar[str]

    @abstractmethod
    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """The intents of the batch that must not be sent."""


def known(number: Decimal | None) -> Decimal | None:
    """The number if it can be one of this world, else None."""
    if number is None or not number.is_finite() or abs(number) >= _ABSURD:
        return None
    return number


def known_price(price: Decimal | None) -> Decimal | None:
    """The price if it can be one: known and positive, else None."""
    usable = known(price)
    return usable if usable is not None and usable > 0 else None


def open_shares(order: BrokerOrder, price: Decimal | None) -> Decimal | None:
    """Signed shares that an open order may still fill; None where the broker's numbers do not say."""
    if known(order.filled_quantity) is None:
        return None
    if order.notional is None:
        return None if known(order.quantity) is None else order.remaining
    average = order.average_fill_price
    if price is None or known(order.notional) is None:
        return None
    if average is not None and known(average) is None:
        return None
    return order.remaining_at(price)


def worth(intent: Intent) -> Decimal:
    """The most that an intent trades, USD: at its reference price, or at its limit where that is higher."""
    limit = intent.limit_price or ZERO
    return max(intent.value, intent.quantity * max(intent.reference_price, limit))


def opening_cost(intent: Intent) -> Decimal:
    """Buying power that an opening intent needs, USD."""
    return worth(intent) * (SHORT_SALE_CUSHION if intent.side == "sell" else 1)
