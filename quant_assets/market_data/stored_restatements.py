"""What the stored vintages say of a session: what the newest changed, and which sessions are stale.

Belongs here: reading vintages and handing them to restatements.py. Does not belong here: how frames are
compared (restatements.py), what is done about it (automation/restatements.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from itertools import compress
from typing import Final

import numpy as np
import polars as pl

from quant_assets.market_data.listings import assign_listings
from quant_assets.market_data.quality_gate import Gated
from quant_assets.market_data.restatements import (
    DIFFERENCES,
    WHOLE_ROW,
    differences,
    stale_sessions,
)
from quant_assets.market_data.schemas import (
    BARS,
    CORPORATE_ACTIONS,
    QUARANTINE,
    RAW_BARS,
    UTC_TIME,
)
from quant_assets.market_data.validation import HISTORY_SESSIONS
from quant_assets.partitions import stretches, years
from quant_resources.calendar import XNYS
from quant_resources.store import Store, observed_at
from quant_resources.tables import Table

#: The deliveries that are compared, and the column that names a row within its session.
IDENTITIES: Final = {RAW_BARS.path: "symbol", CORPORATE_ACTIONS.path: "action_id"}
_LISTING: Final = ["session", "symbol", "first_session", "security_id"]

#: From sessions, ascending and neighbours, to what the gate makes of their newest deliveries.
GateOf = Callable[[Sequence[date]], Gated]


def newest_differences(store: Store, table: Table, keys: Iterable[str]) -> pl.DataFrame:
    """What the newest vintage of each partition changed against the one before it.

    Args:
        store: The data root.
        table: `schemas.RAW_BARS` or `schemas.CORPORATE_ACTIONS`.
        keys: Partitions; those that were delivered once, or never, have no differences.

    Returns:
        `restatements.DIFFERENCES`.
    """
    pairs = {key: stems[-2:] for key in keys if len(stems := store.vintages(table, key)) > 1}
    if not pairs:
        return pl.DataFrame(schema=DIFFERENCES)
    earlier, later = (
        pl.concat([store.read_vintage(table, key, stems[place]) for key, stems in pairs.items()])
        for place in (0, 1)
    )
    times: list[tuple[date, datetime | None, datetime | None]] = [
        (date.fromisoformat(key), observed_at(before), observed_at(after))
        for key, (before, after) in pairs.items()
    ]
    observed = pl.DataFrame(
        times,
        schema={"session": pl.Date, "observed_before": UTC_TIME, "observed_after": UTC_TIME},
        orient="row",
    )
    return differences(earlier, later, IDENTITIES[table.path], observed)


def stale_in_store(
    store: Store, first: date, changed: Iterable[date], gate_of: GateOf
) -> list[date]:
    """The sessions whose stored bars or quarantined rows no longer follow from the newest deliveries.

    A changed session can change the verdict and the factors of the `HISTORY_SESSIONS` after it. A row
    that was added or withdrawn, or a rename, can change which listing rows belong to for good: where it
    does, the sessions after that are judged too.

    Args:
        store: The data root.
        first: First session of the market.
        changed: Sessions with a new vintage or a new release.
        gate_of: The gate over the newest deliveries.

    Returns:
        Sessions that are stored, ascending.
    """
    stored = sorted(set(store.partitions(BARS)) & set(store.partitions(QUARANTINE)))
    if not stored:
        return []
    sessions = XNYS.sessions(first, date.fromisoformat(stored[-1]))
    roots = {day for day in changed if day in set(sessions)}
    if not roots:
        return []
    roots |= _listing_changes(store, sessions, min(roots), stored)
    reached = _within_reach(roots, sessions)
    found: list[date] = []
    for stretch in stretches([day.isoformat() for day in sessions], reached & set(stored)):
        for keys in years(stretch):
            found += stale_sessions(
                gate_of([date.fromisoformat(key) for key in keys]),
                store.read(BARS, keys).collect(),
                store.read(QUARANTINE, keys).collect(),
            )
    return found


def restated_symbols(lines: pl.DataFrame) -> pl.DataFrame:
    """One line per restated symbol and session, for people: ``session``, ``symbol``, ``what``."""
    told = (
        pl.when(pl.col("field") == WHOLE_ROW)
        .then("kind")
        .otherwise(
            pl.format(
                "{} {} → {}",
                "field",
                pl.col("old_value").fill_null("none"),
                pl.col("new_value").fill_null("none"),
            )
        )
    )
    return (
        lines.with_columns(what=told)
        .group_by("session", "symbol", maintain_order=True)
        .agg(pl.col("what").str.join(", "))
    )


def _listing_changes(
    store: Store, sessions: Sequence[date], since: date, stored: Sequence[str]
) -> set[date]:
    """The sessions since one whose stored bars belong to other listings than they would now."""
    known = [day.isoformat() for day in sessions]
    pairs = store.read(RAW_BARS, known, ["symbol", "session"]).collect()
    facts = store.read(CORPORATE_ACTIONS, known).collect()
    now = assign_listings(pairs, facts, sessions, since=since).select(_LISTING)
    keys = [key for key in stored if key >= since.isoformat()]
    then = store.read(BARS, keys, _LISTING).collect()
    return set(then.join(now, on=_LISTING, how="anti").get_column("session"))


def _within_reach(roots: Iterable[date], sessions: Sequence[date]) -> set[str]:
    """Keys of the sessions from each root to `HISTORY_SESSIONS` after it."""
    count = len(sessions)
    begins = np.flatnonzero(pl.Series(sessions, dtype=pl.Date).is_in(list(roots)).to_numpy())
    depth = np.zeros(count + 1, dtype=np.int64)
    np.add.at(depth, begins, 1)
    np.add.at(depth, np.minimum(begins + HISTORY_SESSIONS + 1, count), -1)
    reached = (np.cumsum(depth[:count]) > 0).tolist()
    return {day.isoformat() for day in compress(sessions, reached)}
