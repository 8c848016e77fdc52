"""What the data root holds of the market and how fresh it is, without starting anything.

Belongs here: reading the clock that is there and the tables that `quant status` and `quant data coverage`
show. Does not belong here: what is expected (market_data/coverage.py) and when (market_data/freshness.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime

import polars as pl

from quant_assets.market_data.freshness import Freshness, freshness
from quant_assets.market_data.schemas import BARS, COVERAGE
from quant_assets.market_span import remembered_span
from quant_resources.exchange.control import ExchangeControl
from quant_resources.exchange.process import EXCHANGE_FOLDER, running_exchange
from quant_resources.exchange.state import State
from quant_resources.settings import Settings
from quant_resources.store import Store
from quant_resources.tables import Table


def clock_in_force(settings: Settings) -> tuple[datetime, str]:
    """The time by which data are judged, and whose it is.

    Where orders go to the local exchange it is the exchange's, which stands still while it does not run: the
    wall clock would call a market stale that nobody has moved on.
    """
    if settings.source == "exchange" and settings.resolved_trading_url is None:
        folder = settings.data_root / EXCHANGE_FOLDER
        endpoint = running_exchange(folder)
        if endpoint is not None:
            return ExchangeControl(endpoint.url).clock(), "the clock of the local exchange"
        standing = State.peek_clock(folder)
        if standing is not None:
            return standing, "the clock of the local exchange, which does not run"
    return datetime.now(UTC), "the wall clock"


def stored_freshness(settings: Settings, store: Store, now: datetime) -> Freshness:
    """How fresh the stored bars are at a moment."""
    span = remembered_span(settings.data_root)
    stored = [date.fromisoformat(key) for key in store.partitions(BARS)]
    if span is None:
        return freshness(now, stored)
    return freshness(now, stored, span.first_session, span.last_session)


def sessions_missing(store: Store, tables: Iterable[Table]) -> dict[str, list[str]]:
    """Table path to the sessions that the stored bars could fill and the table does not hold.

    A data root that was made before a table existed lacks all of them.

    Args:
        store: The data root.
        tables: Tables by session that follow from bars; labels follow when their horizon has closed.
    """
    sessions = store.partitions(BARS)
    missing: dict[str, list[str]] = {}
    for table in tables:
        stored = set(store.partitions(table))
        possible = sessions[: len(sessions) - min(table.horizon, len(sessions))]
        missing[table.path] = [key for key in possible if key not in stored]
    return missing


def stored_coverage(
    store: Store,
    first: date | None = None,
    last: date | None = None,
    newest: int | None = None,
) -> pl.DataFrame:
    """Rows of `schemas.COVERAGE` as far as they are stored.

    Args:
        store: The data root.
        first: First day; None for the first that is stored.
        last: Last day; None for the newest.
        newest: At most this many sessions, the newest ones; None for all.
    """
    keys = [
        key
        for key in store.partitions(COVERAGE)
        if (first is None or key >= first.isoformat()) and (last is None or key <= last.isoformat())
    ]
    return store.read(COVERAGE, keys if newest is None else keys[-newest:]).collect()
