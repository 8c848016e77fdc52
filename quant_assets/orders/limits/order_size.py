"""Limits on the size of an order and of the batch: dollars, share of the volume, number of orders.

Belongs here: orders larger, or more of them, than anything that was meant. Does not belong here: what the
book holds after them (`exposure.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from quant_assets.orders.limits.limit import (
    WORST,
    ZERO,
    Batch,
    Refusal,
    RiskLimit,
    known_price,
    open_shares,
    worth,
)


class OrderNotionalLimit(RiskLimit):
    """A single order larger than anything that was meant."""

    name = "order_notional"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Intents above the bound, reducing ones included: a wrong close hurts as much."""
        bound = batch.limits.order_notional
        for intent in batch.intents:
            value = worth(intent)
            if value > bound:
                yield Refusal(
                    intent, value, bound, f"{value:,.2f} USD in one order, at most {bound:,.2f}"
                )


class VolumeShareLimit(RiskLimit):
    """More of a symbol than its market takes without moving."""

    name = "volume_share"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Opening intents after which the session trades too much of a symbol's volume.

        Counted are what it has filled already, what is open, and the batch. What closes counts, and passes: a holding in a thin market must be able to come down.
        """
        bound = batch.limits.volume_share
        traded: dict[str, Decimal] = dict(batch.filled_today)
        unknown: set[str] = set()
        for order in batch.open_entries:
            shares = open_shares(order, known_price(batch.prices.get(order.symbol)))
            if shares is None:
                unknown.add(order.symbol)
            else:
                traded[order.symbol] = traded.get(order.symbol, ZERO) + abs(shares)
        for intent in batch.reductions:
            traded[intent.symbol] = traded.get(intent.symbol, ZERO) + intent.quantity
        for intent in batch.openings:
            symbol = intent.symbol
            # Volumes are positive as prices are: none, zero or an absurd one says nothing.
            volume = known_price(batch.volumes.get(symbol))
            after = traded.get(symbol, ZERO) + intent.quantity
            if volume is None or symbol in unknown:
                yield Refusal(intent, WORST, bound, f"the average volume of {symbol} is not known")
            elif after > bound * volume:
                yield Refusal(
                    intent,
                    after / volume,
                    bound,
                    f"{after / volume:.2%} of the average volume of {symbol}, at most {bound:.2%}",
                )
            else:
                traded[symbol] = after


class OrderCountLimit(RiskLimit):
    """More orders than anything that was meant."""

    name = "orders_per_session"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Intents beyond the bound, in the order of sending, earlier attempts of the session counted."""
        bound = batch.limits.orders_per_session
        count = batch.sent_before + len(batch.intents)
        for intent in batch.intents[max(bound - batch.sent_before, 0) :]:
            yield Refusal(
                intent,
                Decimal(count),
                Decimal(bound),
                f"{count} orders in one session, at most {bound}",
            )
