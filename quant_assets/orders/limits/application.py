"""Applying the limits to a batch, until what is left honours every one of them.

Belongs here: the list of limits, the order in which they run, and marking what they refuse. Does not belong
here: any limit.

1. Limits run in the order of `LIMITS`, each on what the ones before it left: first whether an order is
   one at all, then whether it may be, then its own size and prices, then what the batch makes of the book.
2. An opening leg falls with the leg it waits for.
3. What a limit measured may rest on an intent that a later limit refuses (a sale that frees exposure and
   money). So all limits run again on what is left, until one round refuses nothing: only then does the
   batch as it stands pass every limit. Every round but the last refuses something, so this ends.
4. A refused intent is not taken back, also where a later refusal would have made room for it.
5. Purchases that need what sales of the same batch free are marked to wait for the buying power.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Context, Decimal, localcontext
from typing import Final

from quant_assets.orders.intents import Intent
from quant_assets.orders.limits.buying_power import BuyingPowerLimit, wait_for_money
from quant_assets.orders.limits.exposure import (
    ConcentrationLimit,
    GrossExposureLimit,
    NameWeightLimit,
    NetExposureLimit,
    PositionSizeLimit,
)
from quant_assets.orders.limits.limit import ZERO, Batch, RiskLimit
from quant_assets.orders.limits.loss_limits import DailyLossLimit, DrawdownLimit
from quant_assets.orders.limits.market_prices import PriceCollarLimit, StaleQuoteLimit
from quant_assets.orders.limits.order_form import (
    DuplicateLimit,
    OrderRulesLimit,
    QuantityLimit,
    SelfCrossLimit,
)
from quant_assets.orders.limits.order_size import (
    OrderCountLimit,
    OrderNotionalLimit,
    VolumeShareLimit,
)
from quant_assets.orders.limits.permissions import (
    AccountLimit,
    RestrictedLimit,
    ShortableLimit,
    TradableLimit,
    TradingStateLimit,
)
from quant_resources.ledger.order_states import OrderState
from quant_resources.order_rules import LONGEST_ID

#: Every limit, in the order in which they run. `quantity` is the first: what passes it can be measured.
LIMITS: Final[tuple[RiskLimit, ...]] = (
    QuantityLimit(),
    DuplicateLimit(),
    TradingStateLimit(),
    AccountLimit(),
    RestrictedLimit(),
    TradableLimit(),
    ShortableLimit(),
    OrderRulesLimit(),
    SelfCrossLimit(),
    StaleQuoteLimit(),
    PriceCollarLimit(),
    OrderNotionalLimit(),
    VolumeShareLimit(),
    DailyLossLimit(),
    DrawdownLimit(),
    OrderCountLimit(),
    PositionSizeLimit(),
    NameWeightLimit(),
    ConcentrationLimit(),
    GrossExposureLimit(),
    NetExposureLimit(),
    BuyingPowerLimit(),
)

#: Sums and products of what is bounded above are exact with so many digits; only divisions round.
_EXACT: Final = Context(prec=120)
#: What the ledger can hold as a measured number: nine decimals, eighteen digits before them.
_STORED_STEP: Final = Decimal("1e-9")
_STORED_LARGEST: Final = Decimal("1e18")


def apply_limits(batch: Batch, limits: Sequence[RiskLimit] = LIMITS) -> list[Intent]:
    """All intents of the batch, refused ones marked, in the order in which they are sent.

    Args:
        batch: The batch as planned.
        limits: The limits, in order.

    Returns:
        As many intents as the batch has.
    """
    with localcontext(_EXACT):
        outcome = dict(enumerate(batch.intents))
        left = list(outcome)
        while True:
            refused = _round(batch, limits, outcome, left)
            if not refused:
                break
            left = [place for place in left if place not in refused]
        kept = wait_for_money(replace(batch, intents=[outcome[place] for place in left]))
        outcome.update(zip(left, kept, strict=True))
    return list(outcome.values())


def _round(
    batch: Batch, limits: Sequence[RiskLimit], outcome: dict[int, Intent], left: Sequence[int]
) -> set[int]:
    """Run every limit once over what is left; returns the places of what was refused."""
    refused: set[int] = set()
    now = replace(batch, intents=[outcome[place] for place in left])
    for limit in limits:
        passed = [place for place in left if place not in refused]
        # A refusal names the very object that the limit was given: ids may be there twice.
        places = {id(outcome[place]): place for place in passed}
        new: set[int] = set()
        for refusal in limit.refusals(now):
            place = places[id(refusal.intent)]
            if place in new:
                continue
            new.add(place)
            refused_now = _refused(
                refusal.intent, limit.name, refusal.value, refusal.bound, refusal.reason
            )
            outcome[place] = replace(refused_now, client_order_id=_recorded_id(refused_now, place))
        if not new:
            continue
        new |= _fall_with(batch.intents, outcome, passed, new)
        refused |= new
        now = replace(batch, intents=[outcome[p] for p in passed if p not in refused])
    return refused


def _fall_with(
    given: Sequence[Intent], outcome: dict[int, Intent], passed: Sequence[int], new: set[int]
) -> set[int]:
    """Refuse what waits for a leg that has just been refused."""
    fallen: set[int] = set()
    standing = {outcome[place].client_order_id for place in passed if place not in new}
    gone = {given[place].client_order_id: outcome[place] for place in new}
    for place in passed:
        intent = outcome[place]
        if place in new or intent.depends_on is None or intent.depends_on in standing:
            continue
        closing = gone.get(intent.depends_on)
        if closing is not None:
            fallen.add(place)
            outcome[place] = _refused(
                replace(intent, depends_on=closing.client_order_id),
                closing.limit_name or "",
                closing.limit_value or ZERO,
                closing.limit_bound or ZERO,
                "the leg that closes the position was refused",
            )
    return fallen


def _refused(intent: Intent, name: str, value: Decimal, bound: Decimal, reason: str) -> Intent:
    return replace(
        intent,
        state=OrderState.REFUSED,
        limit_name=name,
        limit_value=_stored(value),
        limit_bound=_stored(bound),
        reason=reason,
    )


def _recorded_id(intent: Intent, place: int) -> str:
    """The id under which a refused intent is kept.

    The id of a duplicate belongs to another order, which the ledger or the broker has or will have, and one
    of a wrong length fits nowhere.
    """
    sent = intent.client_order_id
    if intent.limit_name != DuplicateLimit.name and 1 <= len(sent) <= LONGEST_ID:
        return sent
    ending = f"-refused-{place}"
    return sent[: LONGEST_ID - len(ending)] + ending


def _stored(number: Decimal) -> Decimal:
    if number.is_nan():
        return ZERO
    return min(max(number, -_STORED_LARGEST), _STORED_LARGEST).quantize(_STORED_STEP)
