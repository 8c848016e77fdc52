"""Which trading session it is, by the broker's clock, and which one orders and evidence are for.

Belongs here: the guards that keep order assets on the current session. Pure: the clock is an argument,
so that a virtual clock decides as a real one does.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

from quant_resources.broker import BrokerClock
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.errors import DataError


class WrongSessionError(DataError):
    """A trading session is asked for that is not the one that can be traded or closed now."""


def session_to_trade(clock: BrokerClock) -> date:
    """The session that is open, or the next one to open."""
    moment = clock.now if clock.is_open else clock.next_open
    return moment.astimezone(NEW_YORK).date()


def session_to_settle(clock: BrokerClock) -> date:
    """The session that is open, or the last one that closed."""
    today = clock.now.astimezone(NEW_YORK).date()
    latest = XNYS.at_or_before(today)
    return latest if clock.now >= XNYS.open(latest) else XNYS.previous(latest)


def has_closed(clock: BrokerClock, session: date) -> bool:
    """Whether the session's regular trading has ended."""
    return clock.now >= XNYS.close(session)


def require_tradable(clock: BrokerClock, session: date) -> None:
    """Refuse any session but the one that can be traded now.

    Raises:
        WrongSessionError: Naming both sessions.
    """
    current = session_to_trade(clock)
    if session != current:
        raise WrongSessionError(
            f"Orders for {session} are refused: by the broker's clock ({clock.now:%Y-%m-%d %H:%M} UTC) "
            f"the session to trade is {current}; materialize that partition."
        )


def require_settleable(clock: BrokerClock, session: date) -> None:
    """Refuse any session but the one that is open or has just closed.

    Raises:
        WrongSessionError: Naming both sessions.
    """
    current = session_to_settle(clock)
    if session != current:
        raise WrongSessionError(
            f"Evidence of {session} was never frozen, and by the broker's clock "
            f"({clock.now:%Y-%m-%d %H:%M} UTC) only {current} can be read from the broker; what was "
            "held on another day cannot be asked for any more."
        )


def price_age(made_at: datetime, now: datetime, session: date) -> timedelta:
    """How old a price is for orders of the session.

    From the open on it is the time since the price was made: yesterday's close says nothing of a market
    that moves. Before the open it is the trading that the price has missed: how long before the close
    of the session before it was made, and nothing when it is that close or later.

    Args:
        made_at: When the price was made, aware.
        now: The broker's time.
        session: The session to trade.
    """
    newest = now if now >= XNYS.open(session) else XNYS.close(XNYS.previous(session))
    return max(newest - made_at, timedelta(0))


def sending_deadline(session: date, minutes_before_close: int) -> datetime:
    """Until when an order of the session may be sent, UTC; earlier on half days."""
    return XNYS.close(session) - timedelta(minutes=minutes_before_close)
