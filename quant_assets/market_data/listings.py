"""Which listing a delivered row belongs to: the identity that keeps two companies of one ticker apart.

What belongs here: listings and their security ids, from nothing but (symbol, session) pairs and
renames. What does not: whether a row's values are sound.

1. A listing begins when a symbol is delivered for the first time in the data root, or again after it
   was absent for more than `LISTING_GAP_SESSIONS`, or when its old owner was renamed away.
2. ``security_id`` is ``<symbol>@<first session of the listing>``.
3. A rename hands the identity on: a listing of the new symbol that begins on the rename's date or
   within `LISTING_GAP_SESSIONS` after it continues the listing that the old symbol had before it.
4. Only what was known when a listing began decides about it, so that a row keeps its identity
   whichever range of sessions is computed.

Pairs are numbers here (symbol number times calendar length plus calendar position), since a history is
large: 12.6 million pairs (5,000 symbols, ten years) take about 5 s and 0.5 GB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

#: Sessions that a symbol may be absent and still be the same listing. Longer than ordinary trading
#: halts; a longer absence costs a security its history, joining two companies would cost money.
LISTING_GAP_SESSIONS = 30


def assign_listings(
    pairs: pl.DataFrame,
    actions: pl.DataFrame,
    sessions: Sequence[date],
    since: date | None = None,
) -> pl.DataFrame:
    """Give every (symbol, session) pair its listing.

    Args:
        pairs: Columns ``symbol`` and ``session`` of everything delivered up to the last session of
            interest, from the data root's first session on. Repeated pairs count once, missing
            symbols and days outside the calendar are ignored.
        actions: Corporate actions; only ``name_change`` is read (``symbol`` is the old ticker).
        sessions: The calendar, ascending, over the span of the pairs.
        since: First session to return; None for all.

    Returns:
        Unique pairs with ``first_session`` (Date) and ``security_id``, sorted by symbol and session.
    """
    history = _History.of(pairs, sessions)
    renames = _renames(actions)
    runs = _runs(history, renames)
    first = 0 if since is None else _position(history.days, since)
    shown = runs.filter(pl.col("position") >= first)
    calendar = pl.Series(list(sessions), dtype=pl.Date)
    rows = shown.select(
        symbol=history.symbols.gather(shown["code"]),
        session=calendar.gather(shown["position"]),
        first_session=calendar.gather(shown["start"]),
    ).with_columns(
        security_id=pl.format("{}@{}", "symbol", pl.col("first_session").dt.to_string("%Y-%m-%d"))
    )
    return _handed_on(rows, _heirs(history, runs, renames, sessions))


@dataclass(frozen=True)
class _History:
    """Everything delivered, as sorted numbers.

    Attributes:
        symbols: The symbols, ascending; a symbol's number is its place.
        days: The calendar as days since 1970.
        keys: ``number * len(days) + position`` of every pair, ascending and unique.
    """

    symbols: pl.Series
    days: NDArray[np.int64]
    keys: NDArray[np.int64]

    @classmethod
    def of(cls, pairs: pl.DataFrame, sessions: Sequence[date]) -> _History:
        known = pairs.select("symbol", "session").drop_nulls()
        symbols = known["symbol"].unique().sort()
        days = pl.Series(list(sessions), dtype=pl.Date).to_physical().to_numpy().astype(np.int64)
        given = known["session"].to_physical().to_numpy()
        position = np.minimum(np.searchsorted(days, given), len(days) - 1)
        code = known["symbol"].cast(pl.Enum(symbols)).to_physical().to_numpy().astype(np.int64)
        inside = days[position] == given
        keys = pl.Series((code * len(days) + position)[inside]).unique().sort().to_numpy()
        return cls(symbols, days, keys)

    def key(self, symbol: str, day: date) -> int:
        """The key of the symbol's first possible pair at or after a day; -1 for unknown symbols."""
        code = self.symbols.search_sorted(symbol)
        if code >= len(self.symbols) or self.symbols[code] != symbol:
            return -1
        return code * len(self.days) + _position(self.days, day)


def _position(days: NDArray[np.int64], day: date) -> int:
    return int(np.searchsorted(days, (day - date(1970, 1, 1)).days))


def _runs(history: _History, renames: list[tuple[date, str, str]]) -> pl.DataFrame:
    """Columns ``code``, ``position`` and ``start`` (position at which the row's listing begins)."""
    keys = history.keys
    code, position = np.divmod(keys, len(history.days))
    begins = np.ones(len(keys), dtype=bool)
    begins[1:] = (np.diff(code) != 0) | (np.diff(position) > LISTING_GAP_SESSIONS)
    for ex_date, old_symbol, _ in renames:
        key = history.key(old_symbol, ex_date)
        place = int(np.searchsorted(keys, key))
        if key >= 0 and place < len(keys) and code[place] == key // len(history.days):
            begins[place] = True
    begun_at = np.maximum.accumulate(np.where(begins, np.arange(len(keys)), 0))
    return pl.DataFrame({"code": code, "position": position, "start": position[begun_at]})


def _renames(actions: pl.DataFrame) -> list[tuple[date, str, str]]:
    """Ex-date, old and new symbol of every rename, oldest first."""
    return (
        actions.filter(
            pl.col("action_type") == "name_change",
            pl.col("new_symbol").is_not_null(),
            pl.col("new_symbol") != pl.col("symbol"),
        )
        .select("ex_date", "symbol", "new_symbol")
        .unique()
        .sort("ex_date", "symbol", "new_symbol")
        .rows()
    )


def _heirs(
    history: _History,
    runs: pl.DataFrame,
    renames: list[tuple[date, str, str]],
    sessions: Sequence[date],
) -> dict[str, tuple[date, str]]:
    """Listings that continue a renamed one: security id to the oldest listing's start and id."""
    length = len(history.days)
    starts = runs["start"].to_numpy()
    position = runs["position"].to_numpy()
    beginnings = np.flatnonzero(starts == position)
    start_keys = history.keys[beginnings]
    heirs: dict[str, tuple[date, str]] = {}
    handed_on: set[str] = set()
    for ex_date, old_symbol, new_symbol in renames:
        old_key, new_key = history.key(old_symbol, ex_date), history.key(new_symbol, ex_date)
        last = int(np.searchsorted(history.keys, old_key)) - 1
        begun = int(np.searchsorted(start_keys, new_key))
        if (
            old_key < 0
            or new_key < 0
            or last < 0
            or history.keys[last] // length != old_key // length
            or begun >= len(start_keys)
            or start_keys[begun] // length != new_key // length
        ):
            continue
        begins_at = int(start_keys[begun] % length)
        old_start = sessions[int(starts[last])]
        old_id = f"{old_symbol}@{old_start}"
        # A listing is handed on once: a second heir begins a listing of its own.
        if begins_at - int(position[last]) <= LISTING_GAP_SESSIONS and old_id not in handed_on:
            handed_on.add(old_id)
            heirs[f"{new_symbol}@{sessions[begins_at]}"] = heirs.get(old_id, (old_start, old_id))
    return heirs


def _handed_on(rows: pl.DataFrame, heirs: dict[str, tuple[date, str]]) -> pl.DataFrame:
    """Rows whose listing continues a renamed one, with the identity of the oldest in the chain."""
    if not heirs:
        return rows
    handed = pl.DataFrame(
        [(new_id, first, old_id) for new_id, (first, old_id) in heirs.items()],
        schema={"security_id": pl.String, "older_first": pl.Date, "older_id": pl.String},
        orient="row",
    )
    return (
        rows.join(handed, on="security_id", how="left", maintain_order="left")
        .with_columns(
            first_session=pl.coalesce("older_first", "first_session"),
            security_id=pl.coalesce("older_id", "security_id"),
        )
        .drop("older_first", "older_id")
    )
