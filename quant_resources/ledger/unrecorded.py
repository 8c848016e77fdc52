"""The ledger for whoever computes again what was computed before: read as it is, changed by nothing.

Belongs here: transactions that are never committed. Does not belong here: what is done in them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import text

from quant_resources.ledger.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session


class UnrecordedLedger(Ledger):
    """A ledger whose transactions are all rolled back when their block ends.

    What computes with it runs every statement that it would run otherwise, with every rule of the
    database applied, and sees its own changes within a transaction; the next one does not.
    """

    @classmethod
    def over(cls, ledger: Ledger) -> UnrecordedLedger:
        """The same database over the same connections, unrecorded."""
        unrecorded = cls.__new__(cls)
        unrecorded.__dict__.update(ledger.__dict__)
        return unrecorded

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """Open one transaction; see `Ledger.begin`, but nothing of it is ever committed."""
        with super().begin() as session:
            yield session
            session.flush()
            # What the database checks at the commit, it checks here: there is none.
            session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
            # Objects stay readable after their transaction has ended, as those of a real one do.
            session.expunge_all()
            session.rollback()
