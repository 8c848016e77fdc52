"""Limits on whether anything may be traded at all: the trading state, the account, the symbol.

Belongs here: what is allowed or not, whatever the numbers. Does not belong here: how much (`exposure.py`,
`order_size.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from quant_assets.orders.limits.limit import ZERO, Batch, Refusal, RiskLimit, known

_ONE: Final = Decimal(1)


class TradingStateLimit(RiskLimit):
    """HALTED sends nothing, REDUCING only what makes a position smaller."""

    name = "trading_state"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Everything, or everything that opens; a state that is not known is HALTED."""
        if batch.trading_state == "ACTIVE":
            return
        refused = batch.openings if batch.trading_state == "REDUCING" else batch.intents
        for intent in refused:
            yield Refusal(intent, _ONE, ZERO, f"trading is {batch.trading_state}")


class AccountLimit(RiskLimit):
    """The broker has blocked the account, or its equity is not positive."""

    name = "account"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Everything while it is blocked, what opens without equity."""
        if batch.account_blocked:
            for intent in batch.intents:
                yield Refusal(intent, _ONE, ZERO, "the broker has blocked the account")
            return
        equity = known(batch.equity)
        if equity is None or equity <= 0:
            for intent in batch.openings:
                why = "equity is not known" if equity is None else "account has no equity"
                yield Refusal(intent, equity or ZERO, ZERO, f"the {why}")


class RestrictedLimit(RiskLimit):
    """Symbols that the user never trades."""

    name = "restricted"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Intents on restricted symbols, reducing ones included: a person closes those."""
        for intent in batch.intents:
            if intent.symbol in batch.limits.restricted:
                yield Refusal(intent, _ONE, ZERO, f"{intent.symbol} is on the restricted list")


class TradableLimit(RiskLimit):
    """What the broker does not trade, or does not know."""

    name = "tradable"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Intents on symbols that cannot be traded."""
        for intent in batch.intents:
            asset = batch.assets.get(intent.symbol)
            if asset is None or not (asset.tradable and asset.active):
                yield Refusal(intent, _ONE, ZERO, f"the broker does not trade {intent.symbol}")


class ShortableLimit(RiskLimit):
    """What the broker does not lend, or the account may not sell short."""

    name = "shortable"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Short sales without a loan."""
        for intent in batch.openings:
            asset = batch.assets.get(intent.symbol)
            if intent.side != "sell":
                continue
            if not batch.shorting_enabled:
                yield Refusal(intent, _ONE, ZERO, "the account may not sell short")
            elif asset is None or not asset.shortable:
                yield Refusal(intent, _ONE, ZERO, f"the broker does not lend {intent.symbol}")
