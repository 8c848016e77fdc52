"""Limits on the prices that an order was made of: how old they are, how far from the market.

Belongs here: what the market says of an order's prices. Does not belong here: asking the market
(`market_facts.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Final

from quant_assets.orders.intents import Intent
from quant_assets.orders.limits.limit import (
    WORST,
    ZERO,
    Batch,
    Refusal,
    RiskLimit,
    known_price,
)

_MINUTE_STEP: Final = Decimal("0.01")


class StaleQuoteLimit(RiskLimit):
    """A price that is too old to decide by."""

    name = "stale_quote"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Intents on stale prices, reducing ones included: what the position is worth is not known."""
        bound = batch.limits.quote_age_minutes
        for intent in batch.intents:
            age = batch.price_ages.get(intent.symbol)
            if age is None:
                yield Refusal(
                    intent,
                    Decimal(bound + 1),
                    Decimal(bound),
                    f"when the price of {intent.symbol} was made is not known",
                )
            elif age > timedelta(minutes=bound):
                minutes = Decimal(round(age.total_seconds())) / 60
                yield Refusal(
                    intent,
                    minutes.quantize(_MINUTE_STEP),
                    Decimal(bound),
                    f"the last price of {intent.symbol} is {minutes:,.0f} minutes old, at most {bound}",
                )


class PriceCollarLimit(RiskLimit):
    """A price too far from the market: decided on another price, or mistyped."""

    name = "price_collar"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Intents whose reference or limit price lies too far from the last quote's middle.

        A quote that is wider than the collar says nothing; the last trade is asked then. What closes is
        measured by its limit price alone: a falling position must be able to come down.
        """
        bound = batch.limits.price_collar
        for intent in batch.intents:
            opens = batch.opens(intent)
            market = market_price(batch, intent.symbol)
            if market is None:
                if opens:
                    yield Refusal(
                        intent,
                        WORST,
                        bound,
                        f"{intent.symbol} has no recent quote and no recent trade to compare with",
                    )
                continue
            for what, price in (
                ("reference", intent.reference_price if opens else None),
                ("limit", intent.limit_price),
            ):
                if price is not None and abs(price - market) > bound * market:
                    away = abs(price - market) / market
                    yield Refusal(
                        intent,
                        away,
                        bound,
                        f"the {what} price {price:f} of {intent.symbol} is {away:.2%} away from the "
                        f"market's {market:.4f}, at most {bound:.2%}",
                    )
                    break
            else:
                yield from _wrong_side(intent, market)


def _wrong_side(intent: Intent, market: Decimal) -> Iterator[Refusal]:
    """A protective price that the market has passed already would close the position at once."""
    sign = 1 if intent.side == "buy" else -1
    for what, price, direction in (
        ("stop loss", intent.stop_loss_price, -sign),
        ("take profit", intent.take_profit_price, sign),
    ):
        if price is not None and (price - market) * direction <= 0:
            yield Refusal(
                intent,
                price,
                market,
                f"the {what} {price:f} of {intent.symbol} is passed already, the market is at "
                f"{market:.4f}",
            )
            return


def market_price(batch: Batch, symbol: str) -> Decimal | None:
    """The middle of the last quote, else the last trade, USD; None where neither can be used."""
    quote = batch.quotes.get(symbol)
    if quote is not None:
        bid, ask = known_price(quote.bid), known_price(quote.ask)
        if bid is not None and ask is not None and ask - bid >= ZERO:
            middle = (bid + ask) / 2
            if (ask - bid) / 2 <= batch.limits.price_collar * middle:
                return middle
    return known_price(batch.last_trades.get(symbol))
