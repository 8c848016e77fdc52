"""Activities that tell, late, what somebody has confirmed as an adjustment before.

Belongs here: recognising them, so that a split or dividend is never booked twice. Does not belong here: booking
(`booking.py`) and confirming (`confirmation.py`).

An activity tells of a confirmed split if symbol and shares are the same, of a confirmed dividend if symbol and amount
are, and its day lies near. Each adjustment is told of once.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from quant_assets.orders.drift import Explanation
from quant_assets.orders.opening_balance import without_effect
from quant_resources.broker import AccountActivity
from quant_resources.calendar import NEW_YORK
from quant_resources.ledger.order_tables import Activity, Adjustment

_TOLD: Final = "confirmed before as"
#: How far the day of an activity may lie from the ex-date of what was confirmed.
_NEAR: Final = {"split": timedelta(days=10), "dividend": timedelta(days=60)}
_CENT: Final = Decimal("0.01")
_SHARE: Final = Decimal("1e-6")


class ConfirmedBefore:
    """The confirmed splits and dividends of an account that no activity has told of yet."""

    def __init__(self, session: Session, account_id: str) -> None:
        told = session.scalars(
            select(Activity.description).where(
                Activity.account_id == account_id, Activity.description.startswith(_TOLD)
            )
        )
        known = {text.removeprefix(_TOLD).split(":")[0].strip() for text in told}
        rows = session.scalars(
            select(Adjustment).where(
                Adjustment.account_id == account_id, Adjustment.kind.in_(sorted(_NEAR))
            )
        )
        self._waiting = [
            Explanation.from_json(row.explanation) for row in rows if row.key not in known
        ]

    def without(self, activity: AccountActivity) -> AccountActivity:
        """The activity, without effect if it tells of something that was confirmed."""
        for explanation in self._waiting:
            if _tells(activity, explanation):
                self._waiting.remove(explanation)
                return without_effect(activity, f"{_TOLD} {explanation.key}")
        return activity


def _tells(activity: AccountActivity, explanation: Explanation) -> bool:
    day = explanation.at.astimezone(NEW_YORK).date()
    if activity.symbol != explanation.symbol:
        return False
    if abs(activity.activity_date - day) > _NEAR[explanation.kind]:
        return False
    if explanation.kind == "split":
        shares = activity.quantity or Decimal(0)
        return activity.activity_type == "SPLIT" and abs(shares - explanation.quantity) <= _SHARE
    paid = activity.net_amount
    return activity.activity_type.startswith("DIV") and abs(paid - explanation.cash) <= _CENT
