"""Trading sessions of an exchange, from exchange-calendars.

A session is a `datetime.date`. Opens and closes are timezone-aware UTC datetimes and know half days.
What the platform does with sessions (partitions, schedules) is decided elsewhere.
"""

from __future__ import annotations

import bisect
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from quant_resources.errors import ConfigurationError

if TYPE_CHECKING:
    import exchange_calendars

NEW_YORK = ZoneInfo("America/New_York")
_FIRST_DAY = date(1990, 1, 1)


class MarketCalendar:
    """Sessions of one exchange from 1990 until about a year from today.

    Args:
        name: Calendar name of exchange-calendars, such as "XNYS".
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def _calendar(self) -> exchange_calendars.ExchangeCalendar:
        # Brings pandas along, which a command that only prints its help does not need.
        import exchange_calendars

        return exchange_calendars.get_calendar(self.name, start=_FIRST_DAY.isoformat())

    @cached_property
    def all_sessions(self) -> tuple[date, ...]:
        """Every known session, ascending."""
        return tuple(stamp.date() for stamp in self._calendar.sessions)

    def is_session(self, day: date) -> bool:
        """Whether the exchange trades on `day`."""
        position = bisect.bisect_left(self.all_sessions, day)
        return position < len(self.all_sessions) and self.all_sessions[position] == day

    def sessions(self, first: date, last: date) -> list[date]:
        """Sessions with first <= session <= last, ascending; both ends may be any day."""
        start = bisect.bisect_left(self.all_sessions, first)
        stop = bisect.bisect_right(self.all_sessions, last)
        return list(self.all_sessions[start:stop])

    def at_or_after(self, day: date) -> date:
        """The first session that is not before `day`."""
        return self._at(bisect.bisect_left(self.all_sessions, day), day)

    def at_or_before(self, day: date) -> date:
        """The last session that is not after `day`."""
        return self._at(bisect.bisect_right(self.all_sessions, day) - 1, day)

    def next(self, day: date) -> date:
        """The first session after `day` (any day)."""
        return self._at(bisect.bisect_right(self.all_sessions, day), day)

    def previous(self, day: date) -> date:
        """The last session before `day` (any day)."""
        return self._at(bisect.bisect_left(self.all_sessions, day) - 1, day)

    def offset(self, session: date, count: int) -> date:
        """The session `count` sessions after (before, when negative) `session`.

        Raises:
            ConfigurationError: `session` is no session, or the calendar ends before the answer.
        """
        if not self.is_session(session):
            raise ConfigurationError(
                f"{session} is no {self.name} session; the nearest before it is {self.previous(session)}."
            )
        return self._at(bisect.bisect_left(self.all_sessions, session) + count, session)

    def open(self, session: date) -> datetime:
        """Opening time of the session, UTC."""
        return self._calendar.session_open(session.isoformat()).to_pydatetime().astimezone(UTC)

    def close(self, session: date) -> datetime:
        """Closing time of the session, UTC; earlier on half days."""
        return self._calendar.session_close(session.isoformat()).to_pydatetime().astimezone(UTC)

    def newest_closed(self, moment: datetime) -> date:
        """The last session whose close is not after an aware moment."""
        newest = self.at_or_before(moment.astimezone(UTC).date())
        return newest if self.close(newest) <= moment else self.previous(newest)

    def closed_days(self, first: date, last: date) -> list[date]:
        """Weekdays between both days (inclusive) on which the exchange does not trade."""
        trading = set(self.sessions(first, last))
        days = (first + timedelta(days=n) for n in range((last - first).days + 1))
        return [day for day in days if day.weekday() < 5 and day not in trading]

    def _at(self, position: int, asked: date) -> date:
        if not 0 <= position < len(self.all_sessions):
            raise ConfigurationError(
                f"The {self.name} calendar knows sessions from {self.all_sessions[0]} to "
                f"{self.all_sessions[-1]}; nothing is known around {asked}."
            )
        return self.all_sessions[position]


XNYS = MarketCalendar("XNYS")


def start_of_day(day: date) -> datetime:
    """Midnight in New York at the start of `day`, as an aware UTC datetime."""
    return datetime(day.year, day.month, day.day, tzinfo=NEW_YORK).astimezone(UTC)
