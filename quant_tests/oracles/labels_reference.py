"""Labels as the story of one position, straight from raw closes and corporate actions: slow, obvious, exact.

Knows nothing of factors, listings or adjusted prices, and shares nothing with `labels.py` or `adjustment.py`: a
share is bought, every day until the sale is lived through, and what has become of it is sold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import NamedTuple

from quant_tests.oracles.adjustment_reference import Action

_SPLITS = ("forward_split", "reverse_split", "stock_dividend")


class Label(NamedTuple):
    """What one decision would have earned: exact, or nothing where the position was not bought and sold."""

    forward_return: Fraction | None
    zscore: Decimal | None
    rank: Fraction | None
    known_session: date


@dataclass(frozen=True)
class RawMarket:
    """Everything that was delivered.

    Attributes:
        sessions: The calendar.
        closes: Raw close in USD by ticker and session; no entry is no bar.
        actions: Everything that happened, in any order; ``name_change`` is given to the old ticker.
        convention: As in `adjustment_reference.adjusted`.
    """

    sessions: Sequence[date]
    closes: Mapping[tuple[str, date], float]
    actions: Sequence[Action]
    convention: str = "crsp"

    def labels(
        self, members: Iterable[tuple[str, date]], held: int
    ) -> dict[tuple[str, date], Label]:
        """The label of every member (ticker and session of the decision), held so many sessions."""
        returns: dict[date, dict[str, Fraction | None]] = {}
        for ticker, session in members:
            bought, sold = self._after(session, 1), self._after(session, 1 + held)
            earned = self._earned(ticker, session, bought, sold)
            returns.setdefault(session, {})[ticker] = earned
        found = {}
        for session, of_session in returns.items():
            known = [value for value in of_session.values() if value is not None]
            for ticker, earned in of_session.items():
                found[ticker, session] = Label(
                    earned,
                    _zscore(earned, known),
                    _rank(earned, known),
                    self._after(session, 1 + held),
                )
        return found

    def _after(self, session: date, count: int) -> date:
        return self.sessions[self.sessions.index(session) + count]

    def _earned(self, ticker: str, decided: date, bought: date, sold: date) -> Fraction | None:
        """One share bought at one close and sold at another one, with everything that it paid put back into it."""
        day = decided
        while day < bought:
            day += timedelta(1)
            ticker = self._renamed(ticker, day)
        if (ticker, bought) not in self.closes:
            return None
        paid = Fraction(self.closes[ticker, bought])
        shares, last_close = Fraction(1), paid
        while day < sold:
            day += timedelta(1)
            ticker = self._renamed(ticker, day)
            amount, ratio = self._amount(ticker, day, sold), self._new_shares(ticker, day)
            if amount and self.convention == "crsp":
                shares *= last_close / (last_close - amount)
            elif amount:
                worth = self._next_worth(ticker, day, sold)
                shares *= 1 if worth is None else (worth + amount) / worth
            shares *= ratio
            last_close /= ratio
            if (ticker, day) in self.closes:
                last_close = Fraction(self.closes[ticker, day])
        if (ticker, sold) not in self.closes:
            return None
        return shares * Fraction(self.closes[ticker, sold]) / paid - 1

    def _next_worth(self, ticker: str, ex_date: date, last: date) -> Fraction | None:
        """What a share of before the ex-date is worth at its next close; nothing if there is none until the last day."""
        day, shares = ex_date, Fraction(1)
        while day <= last:
            shares *= self._new_shares(ticker, day)
            if (ticker, day) in self.closes:
                return Fraction(self.closes[ticker, day]) * shares
            day += timedelta(1)
            ticker = self._renamed(ticker, day)
        return None

    def _facts(self, ticker: str, day: date) -> list[Action]:
        return [fact for fact in self.actions if (fact.symbol, fact.ex_date) == (ticker, day)]

    def _new_shares(self, ticker: str, day: date) -> Fraction:
        shares = Fraction(1)
        for fact in self._facts(ticker, day):
            if fact.action_type in _SPLITS:
                shares *= Fraction(fact.ratio or 0)
        return shares

    def _amount(self, ticker: str, ex_date: date, last: date) -> Fraction:
        """What a share is paid on a day: cash, or new shares at their first close from then on."""
        total = Fraction(0)
        for fact in self._facts(ticker, ex_date):
            if fact.action_type not in ("cash_dividend", "spin_off"):
                continue
            if fact.cash is not None:
                total += Fraction(fact.cash)
                continue
            day = ex_date
            while (fact.new_symbol, day) not in self.closes and day < last:
                day += timedelta(1)
            total += Fraction(fact.ratio or 0) * Fraction(self.closes[str(fact.new_symbol), day])
        return total

    def _renamed(self, ticker: str, day: date) -> str:
        for fact in self._facts(ticker, day):
            if fact.action_type == "name_change":
                return str(fact.new_symbol)
        return ticker


def _zscore(value: Fraction | None, known: Sequence[Fraction]) -> Decimal | None:
    if value is None or len(known) < 2:
        return None
    mean = sum(known, Fraction(0)) / len(known)
    variance = sum(((other - mean) ** 2 for other in known), Fraction(0)) / (len(known) - 1)
    if not variance:
        return Decimal(0)
    with localcontext(prec=50):
        return _decimal(value - mean) / _decimal(variance).sqrt()


def _rank(value: Fraction | None, known: Sequence[Fraction]) -> Fraction | None:
    if value is None:
        return None
    if len(known) == 1:
        return Fraction(1, 2)
    lower = sum(other < value for other in known)
    equal = sum(other == value for other in known)
    return Fraction(2 * lower + equal - 1, 2 * (len(known) - 1))


def _decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / Decimal(value.denominator)
