"""What a check found, in words that a person can act on. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl


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
