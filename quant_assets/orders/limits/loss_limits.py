"""Limits on losses: after one, nothing is opened until it is understood.

Belongs here: refusing what opens. Does not belong here: measuring losses (`losses.py`) and setting the
trading state (`breakers.py`), which outlasts the batch. Both act as soon as the bound is reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from quant_assets.orders.limits.limit import WORST, Batch, Refusal, RiskLimit, known


class DailyLossLimit(RiskLimit):
    """Too much lost since the close before."""

    name = "daily_loss"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Everything that opens, also where the loss is not known."""
        yield from _beyond(batch, batch.daily_loss, batch.limits.daily_loss, "loss of the day")


class DrawdownLimit(RiskLimit):
    """Too much lost since the highest equity."""

    name = "drawdown"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Everything that opens, also where the drawdown is not known."""
        yield from _beyond(batch, batch.drawdown, batch.limits.drawdown, "drawdown")


def _beyond(batch: Batch, loss: Decimal | None, bound: Decimal, what: str) -> Iterator[Refusal]:
    lost = known(loss)
    if lost is not None and lost < bound:
        return
    why = (
        f"the {what} is not known"
        if lost is None
        else f"the {what} is {lost:.2%} of equity, below {bound:.2%} it has to be"
    )
    for intent in batch.openings:
        yield Refusal(intent, WORST if lost is None else lost, bound, why)
