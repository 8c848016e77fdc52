"""The limit on money, and what has to wait for it.

Belongs here: purchases and short sales against the account's buying power. Does not belong here: releasing
what waits (`submission.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal

from quant_assets.orders.intents import Intent
from quant_assets.orders.limits.limit import (
    ZERO,
    Batch,
    Refusal,
    RiskLimit,
    known,
    opening_cost,
)
from quant_resources.ledger.order_states import OrderState


class BuyingPowerLimit(RiskLimit):
    """More purchases and short sales than the account can carry, once everything else has filled."""

    name = "buying_power"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Opening intents that do not even fit with what this batch's closing intents free."""
        freed = sum((worth_at_least(intent) for intent in batch.reductions), ZERO)
        bound = _spendable(batch, freed)
        needed = ZERO
        for intent in batch.openings:
            cost = opening_cost(intent)
            if needed + cost > bound:
                yield Refusal(
                    intent,
                    needed + cost,
                    bound,
                    f"{needed + cost:,.2f} USD of buying power needed, {bound:,.2f} to be had",
                )
                continue
            needed += cost


def wait_for_money(batch: Batch) -> Sequence[Intent]:
    """The batch's intents; what needs money that sales of the same batch must free first waits for it."""
    left = _spendable(batch, ZERO)
    sent: list[Intent] = []
    for intent in batch.intents:
        if not batch.opens(intent) or intent.state == OrderState.WAITING:
            sent.append(intent)
            continue
        cost = opening_cost(intent)
        if cost > left:
            sent.append(replace(intent, waits_for="buying_power", state=OrderState.WAITING))
            continue
        left -= cost
        sent.append(intent)
    return sent


def worth_at_least(intent: Intent) -> Decimal:
    """The least that an intent brings when it fills, USD: at its limit where that is lower."""
    if intent.limit_price is None:
        return intent.value
    return min(intent.value, intent.quantity * intent.limit_price)


def _spendable(batch: Batch, freed: Decimal) -> Decimal:
    power = known(batch.buying_power)
    return ZERO if power is None else (power + freed) * (1 - batch.limits.buying_power_reserve)
