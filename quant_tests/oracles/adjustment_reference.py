"""Adjusted prices straight from raw bars and corporate actions: slow, obvious, in exact fractions.

Written from the conventions alone, without factors of bars: every price is carried forward, action by action,
to the last session of its window. Shares nothing with `adjustment.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from fractions import Fraction
from math import prod
from typing import NamedTuple

_NOTHING = Fraction(0)
_SPLITS = ("forward_split", "reverse_split", "stock_dividend")


class RawBar(NamedTuple):
    """A bar as traded: close in USD, volume in shares."""

    symbol: str
    session: date
    close: float
    volume: float


class Action(NamedTuple):
    """A corporate action: shares after per share before, or USD per share held before the ex-date."""

    symbol: str
    ex_date: date
    action_type: str
    ratio: float | None = None
    cash: float | None = None
    new_symbol: str | None = None


def adjusted(
    bars: Sequence[RawBar], actions: Sequence[Action], convention: str
) -> dict[tuple[str, date], tuple[Fraction, Fraction]]:
    """Close and volume of every bar in shares of its symbol's last session.

    Args:
        bars: One window of raw bars; a symbol is one security.
        actions: Splits, stock dividends, cash dividends and spin-offs, in any order.
        convention: "crsp": a distribution takes its share of the last close before the ex-date;
            "wiki": it is worth what it would have bought at the first close from the ex-date on.
    """
    worth = {}
    for bar in bars:
        close, volume = Fraction(bar.close), Fraction(bar.volume)
        own = [other for other in bars if other.symbol == bar.symbol]
        facts = [action for action in actions if action.symbol == bar.symbol]
        last = max(other.session for other in own)
        for day in {action.ex_date for action in facts if bar.session < action.ex_date <= last}:
            after = min(other for other in own if other.session >= day)
            paid = sum(
                (_amount(a, after.session, bars) for a in facts if a.ex_date == day), _NOTHING
            )
            close *= _kept(day, paid, own, facts, convention)
            close /= _new_shares(facts, day, day)
            volume *= _new_shares(facts, day, day)
        worth[bar.symbol, bar.session] = (close, volume)
    return worth


def _new_shares(facts: Sequence[Action], first: date, last: date) -> Fraction:
    """How many shares one share has become after everything that went ex from first to last."""
    return prod(
        (
            Fraction(action.ratio or 0)
            for action in facts
            if first <= action.ex_date <= last and action.action_type in _SPLITS
        ),
        start=Fraction(1),
    )


def _kept(
    day: date,
    paid: Fraction,
    own: Sequence[RawBar],
    facts: Sequence[Action],
    convention: str,
) -> Fraction:
    """What is left of a share's value when everything that goes ex on the day has been paid out."""
    if convention == "crsp":
        before = max(bar for bar in own if bar.session < day)
        tomorrow, yesterday = before.session + timedelta(1), day - timedelta(1)
        value = Fraction(before.close) / _new_shares(facts, tomorrow, yesterday)
        return (value - paid) / value
    after = min(bar for bar in own if bar.session >= day)
    value = Fraction(after.close) * _new_shares(facts, day, after.session)
    return value / (value + paid)


def _amount(action: Action, session: date, bars: Sequence[RawBar]) -> Fraction:
    if action.action_type not in ("cash_dividend", "spin_off"):
        return _NOTHING
    if action.cash is not None:
        return Fraction(action.cash)
    assert action.ratio is not None
    (spun_off,) = (
        bar.close for bar in bars if bar.symbol == action.new_symbol and bar.session == session
    )
    return Fraction(action.ratio) * Fraction(spun_off)
