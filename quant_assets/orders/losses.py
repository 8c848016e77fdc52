"""Losses of an account: of the day and from its highest value, with deposits and withdrawals taken out.

Pure. Does not belong here: what a loss leads to (`breakers.py` sets the trading state, the limits refuse
what opens), and gathering equities (`breakers.py`).

Money that came or went from outside is counted as there from the day's beginning, as brokers book
transfers before the open: a withdrawal is no loss, and a deposit does not hide one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Final

_ZERO: Final = Decimal(0)
_ONE: Final = Decimal(1)


def daily_loss(
    equity: Decimal | None, previous_equity: Decimal | None, flows: Decimal = _ZERO
) -> Decimal | None:
    """Fraction of its equity that the account has lost since the close before; negative: a gain.

    loss = 1 - equity / (previous_equity + flows)

    Args:
        equity: Now, USD.
        previous_equity: At the close before, USD.
        flows: Deposits less withdrawals since then, USD.

    Returns:
        The fraction; more than 1 when equity is negative. None when it cannot be known: an equity is
        missing or not finite, or there was nothing to lose.
    """
    if equity is None or previous_equity is None:
        return None
    base = previous_equity + flows
    if not (equity.is_finite() and base.is_finite()) or base <= 0:
        return None
    return _ONE - equity / base


def drawdown(history: Sequence[tuple[date, Decimal, Decimal]]) -> Decimal | None:
    """Fraction lost since the account stood highest, by the growth of a dollar that stayed in it.

    growth_t = growth_(t-1) x equity_t / (equity_(t-1) + flow_t); drawdown = 1 - growth / max(growth)

    Args:
        history: (day, equity, deposits less withdrawals since the entry before), USD, ascending; the last
            entry is now. The flow of the first entry is in its equity.

    Returns:
        0 at the peak, 1 when everything is lost. None without an entry or with one that is not finite.
        An account that held nothing and was filled again begins anew.
    """
    if not history or not all(
        equity.is_finite() and flow.is_finite() for _, equity, flow in history
    ):
        return None
    growth = peak = _ONE
    before = history[0][1]
    for _, equity, flow in history[1:]:
        base = before + flow
        if base <= 0:
            growth = peak = _ONE
        else:
            growth = max(growth * equity / base, _ZERO)
            peak = max(peak, growth)
        before = equity
    return _ONE - growth / peak
