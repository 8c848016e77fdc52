"""Limits on what the book holds once the batch has traded: by name, gross, net, concentrated.

Belongs here: how far positions can go, and the five limits on that. Does not belong here: the money for it
(`buying_power.py`).

1. Certain is what is held, and what closes at the market.
2. Everything else may fill or not: open orders, what closes at a price of its own, and what opens. So a
   symbol can end anywhere between what is certain less all its sales and what is certain plus all its
   purchases, and is measured at the worse end. An order that may never fill frees nothing.
3. A symbol is valued at the highest of its price and what the batch's own orders may pay.
4. What opens is added in the order of sending, and refused where it would lift the book above the bound.
   What closes always passes: a book above its bounds must be able to come down.
5. Something held that has no price makes the exposure unknown, and nothing is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from heapq import nlargest

from quant_assets.orders.intents import Intent
from quant_assets.orders.limits.limit import (
    WORST,
    ZERO,
    Batch,
    Refusal,
    RiskLimit,
    known,
    known_price,
    open_shares,
)

#: The names whose weights make the concentration.
LARGEST_NAMES = 5


class Reach:
    """Between which values in USD every symbol's position can end.

    Attributes:
        low: Symbol to the value if only what sells fills, of all that is uncertain.
        high: Symbol to the value if only what buys fills.
        unknown: Held or open symbols without a usable price or number of shares.
    """

    def __init__(self, batch: Batch) -> None:
        """Everything but what opens: that is added one by one."""
        self.low: dict[str, Decimal] = {}
        self.high: dict[str, Decimal] = {}
        self.unknown: set[str] = set()
        self._marks: dict[str, Decimal] = {}
        for symbol, price in batch.prices.items():
            self._raise_mark(symbol, price)
        for intent in batch.intents:
            self._raise_mark(intent.symbol, intent.reference_price)
            self._raise_mark(intent.symbol, intent.limit_price)
        for symbol, shares in batch.positions.items():
            self._move(symbol, known(shares), certain=True)
        for order in batch.open_entries:
            shares = open_shares(order, self._marks.get(order.symbol))
            self._move(order.symbol, shares, certain=False)
        for intent in batch.reductions:
            self._move(intent.symbol, intent.change, certain=intent.order_type == "market")

    def add(self, intent: Intent) -> None:
        """Count what an intent opens."""
        self._move(intent.symbol, intent.change, certain=False)

    def largest(self, symbol: str) -> Decimal:
        """The largest absolute value that a position can end at, USD."""
        return max(abs(self.low.get(symbol, ZERO)), abs(self.high.get(symbol, ZERO)))

    def after(self, intent: Intent) -> Decimal:
        """The same with what an intent opens."""
        change = intent.change * self._marks[intent.symbol]
        low, high = self.low.get(intent.symbol, ZERO), self.high.get(intent.symbol, ZERO)
        return max(abs(low + min(change, ZERO)), abs(high + max(change, ZERO)))

    def value(self, intent: Intent) -> Decimal:
        """What an intent trades at the price by which its symbol is valued, USD."""
        return intent.quantity * self._marks[intent.symbol]

    def _raise_mark(self, symbol: str, price: Decimal | None) -> None:
        usable = known_price(price)
        if usable is not None and usable > self._marks.get(symbol, ZERO):
            self._marks[symbol] = usable

    def _move(self, symbol: str, shares: Decimal | None, *, certain: bool) -> None:
        if shares == 0:
            return
        mark = self._marks.get(symbol)
        if shares is None or mark is None:
            self.unknown.add(symbol)
            return
        value = shares * mark
        if certain or value < 0:
            self.low[symbol] = self.low.get(symbol, ZERO) + value
        else:
            self.low.setdefault(symbol, ZERO)
        if certain or value > 0:
            self.high[symbol] = self.high.get(symbol, ZERO) + value
        else:
            self.high.setdefault(symbol, ZERO)


class PositionSizeLimit(RiskLimit):
    """Too many dollars in one name."""

    name = "position_size"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Opening intents after which a position can be above the bound."""
        bound = batch.limits.position_notional
        reach = Reach(batch)
        for intent in batch.openings:
            value = reach.after(intent)
            if value <= bound:
                reach.add(intent)
                continue
            yield Refusal(
                intent, value, bound, f"{value:,.2f} USD in {intent.symbol}, at most {bound:,.2f}"
            )


class NameWeightLimit(RiskLimit):
    """Too much of the equity in one name."""

    name = "name_weight"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Opening intents after which a position can be above the bound."""
        bound = batch.limits.name_weight
        reach = Reach(batch)
        for intent in batch.openings:
            value = reach.after(intent)
            if value <= bound * batch.equity:
                reach.add(intent)
                continue
            weight = value / batch.equity
            yield Refusal(
                intent,
                weight,
                bound,
                f"{weight:.2%} of equity in {intent.symbol}, at most {bound:.2%}",
            )


class ConcentrationLimit(RiskLimit):
    """Too much of the equity in the five largest names together."""

    name = "concentration"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Opening intents that would lift the sum of the five largest weights above the bound."""
        bound = batch.limits.concentration
        reach = Reach(batch)
        if reach.unknown:
            yield from _unknown(batch, reach, bound)
            return
        values = {symbol: reach.largest(symbol) for symbol in reach.low}
        top = dict(nlargest(LARGEST_NAMES, values.items(), key=lambda item: item[1]))
        for intent in batch.openings:
            # Values only grow here, so the five largest are five of the last five and this one.
            grown = top | {intent.symbol: reach.after(intent)}
            grown = dict(nlargest(LARGEST_NAMES, grown.items(), key=lambda item: item[1]))
            value = sum(grown.values(), ZERO)
            if value <= bound * batch.equity or value == sum(top.values(), ZERO):
                reach.add(intent)
                top = grown
                continue
            weight = value / batch.equity
            yield Refusal(
                intent,
                weight,
                bound,
                f"{weight:.2%} of equity in the {LARGEST_NAMES} largest names, at most {bound:.2%}",
            )


class GrossExposureLimit(RiskLimit):
    """Too much exposure, long and short together."""

    name = "gross_exposure"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Opening intents that would lift gross exposure above the bound."""
        bound = batch.limits.gross_exposure
        reach = Reach(batch)
        if reach.unknown:
            yield from _unknown(batch, reach, bound)
            return
        gross = sum((reach.largest(symbol) for symbol in reach.low), ZERO)
        for intent in batch.openings:
            after = gross - reach.largest(intent.symbol) + reach.after(intent)
            if after <= bound * batch.equity:
                gross = after
                reach.add(intent)
                continue
            value = after / batch.equity
            yield Refusal(
                intent, value, bound, f"gross exposure {value:.2%} of equity, at most {bound:.2%}"
            )


class NetExposureLimit(RiskLimit):
    """Too much exposure in one direction."""

    name = "net_exposure"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Purchases that could lift net exposure above the bound, short sales that could push it below.

        Neither relies on the other: a short sale that is refused or does not fill hedges nothing.
        """
        bound = batch.limits.net_exposure
        reach = Reach(batch)
        if reach.unknown:
            yield from _unknown(batch, reach, bound)
            return
        ends = {"buy": sum(reach.high.values(), ZERO), "sell": -sum(reach.low.values(), ZERO)}
        for intent in batch.openings:
            after = ends[intent.side] + reach.value(intent)
            if after <= bound * batch.equity:
                ends[intent.side] = after
                continue
            value = after / batch.equity * (1 if intent.side == "buy" else -1)
            yield Refusal(
                intent,
                value,
                bound,
                f"net exposure {value:.2%} of equity, at most {bound:.2%} either way",
            )


def _unknown(batch: Batch, reach: Reach, bound: Decimal) -> Iterator[Refusal]:
    names = ", ".join(sorted(reach.unknown)[:3])
    for intent in batch.openings:
        yield Refusal(
            intent, WORST * len(reach.unknown), bound, f"what is held of {names} has no known value"
        )
