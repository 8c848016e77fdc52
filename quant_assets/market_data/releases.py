"""Rows that a person has looked at and released from quarantine.

What belongs here: how a release recognizes its row. What does not: who writes releases (cli/quarantine.py),
what a released level means for the rows after it (levels.py).

A release names symbol, session, rule and a digest of the values that were looked at. It therefore holds for
these values alone: a restated row, or the same row under another rule, is judged anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from quant_assets.market_data.rules import BY_NAME, RULES
from quant_assets.market_data.schemas import RELEASES, SENT_VALUES
from quant_resources.errors import DataError

SENT = tuple(column.name for column in SENT_VALUES)
_RELEASABLE = [rule.name for rule in RULES if rule.releasable]
_IDENTITY = ("symbol", "session", *SENT)


def row_digest(row: Mapping[str, Any]) -> str:
    """Digest of what was sent: symbol, session and every value; not when or from whom it came.

    Args:
        row: A delivered or quarantined row.

    Returns:
        32 hexadecimal digits, the same on every machine and in every version.
    """
    text = "\x1f".join(_text(row[name]) for name in _IDENTITY)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def released(rows: pl.DataFrame, releases: pl.DataFrame | None) -> pl.DataFrame:
    """Which rows were released, and from which rule.

    Args:
        rows: Delivered rows with ``row`` (their number).
        releases: `schemas.RELEASES`; None: nothing was released.

    Returns:
        Columns ``row`` and ``rule``, unique; a row may be released from several rules.
    """
    nothing = pl.DataFrame(schema={"row": rows.schema["row"], "rule": pl.String})
    if releases is None or releases.is_empty():
        return nothing
    valid = releases.filter(pl.col("rule").is_in(_RELEASABLE))
    named = valid.select("symbol", "session").unique()
    candidates = rows.join(named, on=["symbol", "session"], how="semi")
    if candidates.is_empty():
        return nothing
    # Only rows that somebody has named are digested one by one.
    digests = [row_digest(row) for row in candidates.iter_rows(named=True)]
    return (
        candidates.select("row", "symbol", "session")
        .with_columns(row_digest=pl.Series(digests, dtype=pl.String))
        .join(
            valid.select("symbol", "session", "row_digest", "rule"),
            on=["symbol", "session", "row_digest"],
        )
        .select("row", "rule")
        .unique()
    )


def release_of(
    row: Mapping[str, Any], reason: str, released_by: str, released_at: datetime
) -> pl.DataFrame:
    """The release of one quarantined row.

    Args:
        row: Row of `schemas.QUARANTINE`.
        reason: Why the row is right.
        released_by: Who says so.
        released_at: When, with a time zone.

    Returns:
        One row of `schemas.RELEASES`.

    Raises:
        DataError: The rule cannot be overruled, or no reason is given.
    """
    name, place = row["rule"], f"{row['symbol']} of {row['session']}"
    rule = BY_NAME.get(name)
    if rule is None or not rule.releasable:
        raise DataError(
            f"{place} broke the rule {name} ({row['detail']}): such a row has no values that could be "
            f"traded on, so it cannot be released. {row['remedy']}"
        )
    if not reason.strip():
        raise DataError(
            f"A release of {place} needs a reason: say what shows that the row is right."
        )
    return pl.DataFrame(
        {
            "symbol": [row["symbol"]],
            "session": [row["session"]],
            "rule": [name],
            "row_digest": [row_digest(row)],
            "reason": [reason.strip()],
            "released_by": [released_by],
            "released_at": [released_at],
        },
        schema=RELEASES.schema,
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value.isoformat() if isinstance(value, date) else repr(value)
