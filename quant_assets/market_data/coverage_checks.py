"""Rules on what should be there and is not: gaps in a session, and a session that is late.

Belongs here: which gaps and delays a person should see. Does not belong here: what is expected of a session
(coverage.py), when it is due (freshness.py), rules on what was delivered (checks.py).

Both rules warn and block nothing. A gap costs its symbol a session, which features and universe know how to
live with; a session with far too few symbols is stopped by ``enough_symbols`` already. Stale data stop
money where money is spent: orders are made of the signals and bars of the very session before, or not at
all (orders/assets.py).
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Final

import polars as pl

from quant_assets.findings import Finding
from quant_assets.market_data.coverage import (
    LATE_SESSIONS,
    PRESENT,
    REFETCH_BUDGET,
    gaps_to_refetch,
)
from quant_assets.market_data.freshness import freshness
from quant_assets.market_data.schemas import BARS, COVERAGE
from quant_assets.market_span import remembered_span
from quant_assets.table_checks import CheckScope, TableCheck

#: More gaps than this share of a session's symbols are a delivery to look at. Of 513 real sessions of S&P 500
#: members six have more, from 2 to 12 September 2016; a delisting is 0.2 %.
MAXIMUM_GAP_SHARE: Final = 0.01
#: Name of the check that looks at the clock, for the job that runs it alone.
FRESH: Final = "fresh"
_SAMPLE: Final = 10


def covered(frame: pl.DataFrame, _scope: CheckScope) -> Finding:
    """Nearly every expected symbol of every session has a bar."""
    young = (pl.col("state") != PRESENT) & (pl.col("absent_sessions") <= LATE_SESSIONS)
    sessions = frame.group_by("session").agg(expected=pl.len(), gaps=young.sum()).sort("session")
    thin = sessions.filter(pl.col("gaps") > MAXIMUM_GAP_SHARE * pl.col("expected"))
    if thin.is_empty():
        return Finding(
            True,
            f"{sessions.height} session(s), at most {sessions['gaps'].max() or 0} gap(s) in one.",
        )
    gaps = frame.filter(young).join(thin.select("session"), on="session", how="semi")
    newest = thin.row(-1, named=True)
    named = gaps.filter(session=newest["session"])["symbol"]
    again = gaps_to_refetch(frame).join(gaps, on=["session", "symbol"], how="semi").height
    return Finding(
        False,
        f"{newest['session']} has no bar for {newest['gaps']} of {newest['expected']} expected symbols "
        f"({', '.join(named.head(5))}{' …' if named.len() > 5 else ''})"
        + (f"; {thin.height} sessions have gaps like this." if thin.height > 1 else "."),
        gaps.height,
        gaps.sort("session", "symbol", descending=[True, False]).head(_SAMPLE),
        f"{again} of these gaps are asked for again by the next daily runs (the last two sessions "
        f"always, {REFETCH_BUDGET} older ones a run); `quant data coverage` shows them all. What stays "
        "away was delisted, halted or renamed, or the source lacks it.",
    )


def fresh(_frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """The newest session that is due by the broker's clock is stored, with rows."""
    span = remembered_span(Path(scope.store.root.path))
    found = freshness(
        scope.broker.clock().now,
        [date.fromisoformat(key) for key in scope.store.partitions(BARS)],
        *(() if span is None else (span.first_session, span.last_session)),
    )
    if not found.is_fresh:
        return Finding(
            False,
            found.verdict,
            max(found.behind, 1),
            remedy="Look at the run of job ingest for it and start it again, or use `quant backfill`; "
            "no order is made before the bars and signals of the session before are there.",
        )
    if found.due is not None:
        rows = scope.store.read(BARS, [found.due.isoformat()], ["session"]).select(pl.len())
        if rows.collect().item() == 0:
            return Finding(
                False,
                f"Stale: {found.due} is due and stored without a single bar.",
                1,
                remedy="Materialize market_data/raw_bars and market_data/bars of the session again.",
            )
    return Finding(True, found.verdict)


CHECKS: tuple[TableCheck, ...] = (
    TableCheck(
        COVERAGE,
        "covered",
        "At most 1 % of a session's expected symbols have no bar, symbols that have been away for more "
        "than five sessions aside: they have probably gone.",
        covered,
        blocking=False,
    ),
    TableCheck(
        BARS,
        FRESH,
        "By 07:30 New York the bars of the session before are stored, whatever else was backfilled "
        "when. Judged by the broker's clock, also while an older session is being made.",
        fresh,
        blocking=False,
        columns=("session",),
    ),
)
