"""What the files of a layout hold, counted and shown before anything is stored of them.

What belongs here: looking. What does not: refusing (file_bars.py) and printing (the command line).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from quant_resources.calendar import XNYS
from quant_resources.errors import SourceError
from quant_resources.file_actions import file_actions
from quant_resources.file_bars import FileBars, readable
from quant_resources.file_cells import NUMBERS
from quant_resources.file_prices import (
    DividendEvidence,
    dividend_evidence,
    split_evidence,
    whole_cents,
)

_SHOWN = 10


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        counts: Name to number, day or text.
        unreadable: Cells that cannot be read: ``file``, ``line``, ``symbol``, ``day``, ``column``,
            ``cell``; the first ten.
        missing_sessions: Sessions between the first and the last day without any row.
        splits: From `file_prices.split_evidence`, as the files have the prices.
        dividends: From `file_prices.dividend_evidence`.
        cents: Share of closes that are whole cents.
        sample: Rows of the newest closed session as the platform gets them; empty when refused.
        refusal: Why the platform would take nothing, or None.
    """

    counts: Mapping[str, Any]
    unreadable: pl.DataFrame
    missing_sessions: tuple[date, ...]
    splits: pl.DataFrame
    dividends: DividendEvidence | None
    cents: float | None
    sample: pl.DataFrame
    refusal: str | None

    @property
    def verdict(self) -> str:
        """What the splits and dividends of the actions file say about the prices."""
        support = dict(self.splits.group_by("supports").len().iter_rows())
        raw, adjusted = support.get("raw", 0), support.get("split_adjusted", 0)
        if not raw and not adjusted:
            told = "no split with bars around it says whether prices are raw or adjusted"
        else:
            told = f"{raw} splits say raw, {adjusted} say adjusted for splits"
        if self.dividends is not None:
            told += (
                f"; on {self.dividends.dividends} ex-dates prices fell by {self.dividends.followed:.2f} "
                f"± {self.dividends.standard_error:.2f} of the dividend (1: not adjusted for dividends, "
                "0: adjusted)"
            )
        if self.cents is not None:
            told += f"; {self.cents:.1%} of closes are whole cents, as prices are traded"
        return told + "."


def inspect(source: FileBars) -> Inspection:
    """Look over all files of a source.

    Raises:
        SourceError: The files cannot be read at all.
    """
    files, rows = source.rows()
    bad = pl.col("bad_column").is_not_null()
    place = ["symbol", "day"]
    with readable():
        totals, days, unreadable, closes = pl.collect_all(
            [
                rows.select(
                    rows=pl.len(),
                    symbols=pl.col("symbol").n_unique(),
                    repeated=pl.struct(place).is_duplicated().sum(),
                    unreadable=bad.sum(),
                    without_symbol=pl.col("symbol").null_count(),
                    missing_values=pl.sum_horizontal(
                        pl.col(name).is_null().sum() for name in NUMBERS[:5]
                    ),
                ),
                rows.group_by("day").agg(rows=pl.len()).sort("day"),
                rows.filter(bad)
                .select("file", "line", *place, column="bad_column", cell="bad_cell")
                .head(_SHOWN),
                rows.select(*place, "close"),
            ]
        )
    known = days.get_column("day").drop_nulls().to_list()
    sessions = set(XNYS.sessions(known[0], known[-1])) if known else set()
    counts = {
        "files": len(files),
        "bytes": sum(file.source.size for file in files),
        **totals.row(0, named=True),
        "first_day": known[0] if known else None,
        "last_day": known[-1] if known else None,
        "sessions": len(sessions & set(known)),
        "missing_sessions": len(sessions - set(known)),
        "days_that_are_no_session": len(set(known) - sessions),
    }
    actions, splits, dividends = pl.DataFrame(), _no_splits(), None
    sample, refusal = pl.DataFrame(), None
    try:
        actions = file_actions(source.layout)
        splits = split_evidence(closes, actions)
        dividends = dividend_evidence(closes, actions, source.layout.prices)
        newest = source.newest_closed_session()
        counts["newest_closed_session"] = newest
        sample = source.bars(None, newest, newest).head(_SHOWN)
    except SourceError as error:
        refusal = str(error)
    if refusal is None and unreadable.height:
        first = unreadable.row(0, named=True)
        refusal = (
            f"{counts['unreadable']} cell(s) cannot be read, the first in {first['file']}, line "
            f"{first['line']} ({first['symbol']}, {first['day']}), column {first['column']}: "
            f"{first['cell']!r}; their sessions would be refused: correct them, or declare how they are "
            "written."
        )
    counts["actions"] = actions.height
    return Inspection(
        counts=counts,
        unreadable=unreadable,
        missing_sessions=tuple(sorted(sessions - set(known))),
        splits=splits,
        dividends=dividends,
        cents=whole_cents(closes),
        sample=sample,
        refusal=refusal,
    )


def _no_splits() -> pl.DataFrame:
    return pl.DataFrame(schema={"supports": pl.String})
