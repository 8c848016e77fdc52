"""Which session must have been stored by now, and which one has been.

What belongs here: due times by an aware clock, and the verdict on a set of stored sessions. What does not:
whose clock it is and what is stored (coverage_checks.py, cli/status.py), how old a quote may be when an
order is made (orders/limits).

1. Session S is due at `DUE_TIME` New York on the trading day after S: Friday's on Monday, over holidays the
   day after them. The last session of a market that has ended is due like any other, and nothing after it.
2. Data are fresh when the newest session that is due is stored. What else was stored when says nothing: an
   old backfill makes nothing fresh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final

from quant_resources.calendar import NEW_YORK, XNYS

DUE_TIME: Final = time(7, 30)


@dataclass(frozen=True)
class Freshness:
    """What is due and what is there.

    Attributes:
        now: The moment of the verdict, aware.
        due: The newest session that must be stored; None before the market's first one is due.
        stored: The newest session that is stored.
        behind: Sessions that are due and newer than every stored one.
        is_fresh: Whether the session that is due is stored.
        age: Time since the close of the newest stored session.
    """

    now: datetime
    due: date | None
    stored: date | None
    behind: int
    is_fresh: bool
    age: timedelta | None

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.due is None:
            return "No session is due yet."
        if self.is_fresh:
            return f"Fresh: {self.due}, the newest session that is due, is stored."
        if self.stored is None:
            return f"Stale: {self.due} is due and no session is stored."
        if self.behind == 0:
            return f"Stale: {self.due} is due and not stored, though {self.stored} is."
        return (
            f"Stale: {self.due} is due, the newest stored session is {self.stored}, "
            f"{self.behind} session(s) behind."
        )


def due_at(session: date) -> datetime:
    """When a session must be stored: `DUE_TIME` New York on the next trading day."""
    return datetime.combine(XNYS.next(session), DUE_TIME, NEW_YORK)


def newest_due_session(now: datetime) -> date:
    """The newest session that is due at a moment.

    Args:
        now: An aware time.
    """
    latest = XNYS.previous(now.astimezone(NEW_YORK).date())
    return latest if due_at(latest) <= now else XNYS.previous(latest)


def freshness(
    now: datetime, stored: Sequence[date], first: date | None = None, last: date | None = None
) -> Freshness:
    """Judge what is stored.

    Args:
        now: The clock, aware: the broker's, so that a virtual clock judges as a real one does.
        stored: The stored sessions, in any order.
        first: First session of the market; None where it is not known.
        last: Last session of a market that ends; None for one that goes on.
    """
    due: date | None = newest_due_session(now)
    if last is not None:
        due = min(due, last)
    if first is not None and due < first:
        due = None
    newest = max(stored, default=None)
    behind = 0
    if due is not None:
        after = first or due if newest is None else newest + timedelta(days=1)
        behind = len(XNYS.sessions(after, due))
    return Freshness(
        now=now,
        due=due,
        stored=newest,
        behind=behind,
        is_fresh=due is None or due in set(stored),
        age=None if newest is None else now - XNYS.close(newest),
    )
