"""Which sessions are fetched again by the daily update: the newest ones, and those with gaps.

Belongs here: reading what the choice needs. Does not belong here: the choice itself
(market_data/coverage.py) and what a restated session leads to (restatements.py).
"""

from __future__ import annotations

from datetime import date
from typing import Final

import dagster as dg

from quant_assets.market_data.coverage import sessions_to_refetch
from quant_assets.market_data.schemas import COVERAGE, RAW_BARS
from quant_assets.partitions import stretches, years
from quant_resources.calendar import XNYS
from quant_resources.store import Store

#: How far back gaps are looked for; whatever is older is asked for by hand (`quant data refetch FIRST LAST`).
SESSIONS_LOOKED_AT: Final = 504


def sessions_due(store: Store, instance: dg.DagsterInstance, newest: date) -> list[str]:
    """Keys of the sessions that the daily update fetches again, ascending.

    Args:
        store: The data root.
        instance: Knows when each session was fetched last.
        newest: The newest closed session. It is fetched again only where it has been ingested already,
            an hour or a night ago: it is what today's orders are priced by.
    """
    fetched = instance.event_log_storage.get_latest_storage_id_by_partition(
        dg.AssetKey(RAW_BARS.path.split("/")), dg.DagsterEventType.ASSET_MATERIALIZATION
    )
    stored = set(store.partitions(RAW_BARS))
    until = XNYS.next(newest) if newest.isoformat() in stored else newest
    covered = [key for key in store.partitions(COVERAGE) if key < until.isoformat()]
    due = sessions_to_refetch(
        store.read(COVERAGE, covered[-SESSIONS_LOOKED_AT:]).collect(),
        until,
        {date.fromisoformat(key): number for key, number in fetched.items() if key in stored},
    )
    return [day.isoformat() for day in due]


def refetch_runs(store: Store, keys: list[str]) -> list[list[str]]:
    """Stored sessions cut into runs: neighbours together, at most a year a run."""
    wanted = set(keys)
    return [
        run for stretch in stretches(store.partitions(RAW_BARS), wanted) for run in years(stretch)
    ]
