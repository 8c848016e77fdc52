"""Following the broker's stream of order updates: each update is a reason to look, and nothing more.

Belongs here: when a pass is made. Does not belong here: what a pass does (`submission.py`), how it books
(`booking.py`), the stream's connection (`quant_resources/alpaca_stream.py`).

1. An update never books anything. It causes a pass, which reads the broker and books every execution once,
   by the broker's id. So a lost, doubled or reordered update can change nothing but the hour of a pass.
2. A gap causes a pass as well: a new connection, a broken one, a message that cannot be read.
3. So does every stretch without news: what the stream does not tell, the poll finds.
4. Updates that come together, or while a pass runs, cause one pass for all of them.
5. After a pass that an update has caused there is another one soon: the broker's API may not yet have seen
   what its stream has told.
6. A pass that could not be made (another process trades the account, the broker or the database does not
   answer) is owed, and tried again soon. What a person must look at ends the following.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.exc import DBAPIError

from quant_assets.orders.trading_desk import PassReport
from quant_resources.alpaca_stream import Gap, TradeUpdate
from quant_resources.broker import UnauthorizedError
from quant_resources.database_url import DatabaseUnreachableError
from quant_resources.errors import BrokerError
from quant_resources.ledger.ledger import LedgerBusyError


class Updates(Protocol):
    """Where updates come from; `TradeUpdateStream` is one."""

    def wait(self, seconds: float) -> list[TradeUpdate | Gap]:
        """What has come, after `seconds` at the latest; a gap when that is nothing."""
        ...


@dataclass(frozen=True)
class Look:
    """One turn of following: what came, and the pass that it caused.

    Attributes:
        updates: Updates that came since the turn before.
        gaps: Why updates may be missing.
        report: What the pass did; None if it could not be made.
        owed: Why it could not be made; empty if it was.
    """

    updates: tuple[TradeUpdate, ...]
    gaps: tuple[str, ...]
    report: PassReport | None
    owed: str = ""


def follow(
    updates: Updates,
    make_pass: Callable[[], PassReport],
    *,
    poll_seconds: float = 60.0,
    again_seconds: float = 5.0,
    tell: Callable[[Look], object] = lambda _: None,
    ended: Callable[[], bool] = lambda: False,
) -> None:
    """Make a pass for everything that comes, and one every so often when nothing does.

    Args:
        updates: The stream; its first answer, a gap, causes the first pass.
        make_pass: One pass, such as `run_pass` on a ledger, a broker and a policy.
        poll_seconds: How long no news is waited for.
        again_seconds: How soon to look again after updates, or when a pass is owed.
        tell: Is told every turn.
        ended: Asked after every turn; True ends the following.

    Raises:
        UnauthorizedError: The broker does not accept the keys.
        ConfigurationError: The mode does not fit the account or the address.
        WrongOrderError: The broker's order is not the one that was frozen; the book is halted.
    """
    soon = False
    while True:
        came = updates.wait(min(again_seconds, poll_seconds) if soon else poll_seconds)
        news = tuple(item for item in came if isinstance(item, TradeUpdate))
        gaps = tuple(item.reason for item in came if isinstance(item, Gap))
        look = _look(make_pass, news, gaps)
        soon = bool(news or look.owed)
        tell(look)
        if ended():
            return


def _look(
    make_pass: Callable[[], PassReport], news: tuple[TradeUpdate, ...], gaps: tuple[str, ...]
) -> Look:
    try:
        return Look(news, gaps, make_pass())
    except UnauthorizedError:
        raise
    except (BrokerError, LedgerBusyError, DatabaseUnreachableError) as error:
        return Look(news, gaps, None, str(error))
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        return Look(news, gaps, None, "the database ended the connection")
