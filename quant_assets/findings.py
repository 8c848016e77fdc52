"""What a check found, in words that a person can act on. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

_ROWS_SHOWN = 10


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        passed: Whether the rule holds.
        message: One sentence: what was looked at, or what is wrong.
        count: How many rows break the rule.
        sample: Some of the rows that break it.
        remedy: What to do about it.
    """

    passed: bool
    message: str
    count: int = 0
    sample: pl.DataFrame | None = None
    remedy: str = ""

    @classmethod
    def of(cls, breaches: pl.DataFrame, fine: str, wrong: str, remedy: str) -> Finding:
        """What rows in breach of a rule say.

        Args:
            breaches: The rows that break it, with the columns that a person should see; none: it holds.
            fine: The message if it holds.
            wrong: The message if it does not.
            remedy: What to do then.
        """
        if breaches.is_empty():
            return cls(passed=True, message=fine)
        return cls(
            passed=False,
            message=wrong,
            count=breaches.height,
            sample=breaches.head(_ROWS_SHOWN),
            remedy=remedy,
        )
