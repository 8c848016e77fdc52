"""When the evidence of a trading session is made again: what the order_updates sensor decides.

Pure: what was asked for before, and what a pass has found, are arguments.

1. While a session is open every look that finds a change asks for a preview of its evidence, once.
2. Not before the last one has ended: two runs of one partition would write the same tables. What changes
   meanwhile is owed, and asked for with the next look.
3. A quarter of an hour after the close, when the closing auction has reported, the evidence is asked for
   once more, for good: from then on it is frozen.
4. The evidence of a session that was asked for for good is never asked for again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, ValidationError

from quant_resources.calendar import XNYS

#: How long after the close fills of the closing auction, and corrections of them, may still come.
AUCTION: Final = timedelta(minutes=15)


class Asked(BaseModel):
    """What was asked for: the sensor's cursor.

    Attributes:
        session: Trading session, as a partition key; empty before the first look.
        previews: Previews of it that were asked for.
        owed: Whether something has changed since the last of them.
        final: Whether its evidence was asked for for good.
    """

    session: str = ""
    previews: int = 0
    owed: bool = False
    final: bool = False

    @classmethod
    def read(cls, cursor: str | None) -> Asked:
        """A cursor; one of an older version is a session that was settled."""
        if not cursor:
            return cls()
        try:
            return cls.model_validate_json(cursor)
        except ValidationError:
            return cls(session=cursor, final=True)


@dataclass(frozen=True)
class Decision:
    """What a look asks for.

    Attributes:
        asked: The new cursor.
        run_name: What distinguishes the run from others of the partition; None to ask for nothing.
        reason: Why nothing is asked for.
    """

    asked: Asked
    run_name: str | None = None
    reason: str = ""


def decide(before: Asked, key: str, now: datetime, *, changed: bool, running: bool) -> Decision:
    """What to ask for after a pass.

    Args:
        before: The cursor.
        key: The session that is open, or closed last.
        now: The broker's time.
        changed: Whether the pass found news of orders, fills or corrections.
        running: Whether a run for the session's evidence has not ended yet.
    """
    asked = before if before.session == key else Asked(session=key)
    if asked.final:
        return Decision(asked, reason=f"session {key} was settled already")
    asked = asked.model_copy(update={"owed": asked.owed or changed})
    session = datetime.fromisoformat(key).date()
    if XNYS.close(session) <= now < XNYS.close(session) + AUCTION:
        return Decision(asked, reason=f"session {key} has closed, its last fills may still come")
    if running:
        return Decision(asked, reason=f"the evidence of {key} is being made")
    if now >= XNYS.close(session):
        return Decision(asked.model_copy(update={"owed": False, "final": True}), run_name=key)
    if not asked.owed:
        return Decision(asked, reason=f"session {key} is open, and nothing has changed")
    previews = asked.previews + 1
    return Decision(
        asked.model_copy(update={"owed": False, "previews": previews}),
        run_name=f"{key}-preview-{previews}",
    )
