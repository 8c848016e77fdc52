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

Pairs are numbers here (symbol number times a row's width, plus calendar position), since a history is
large: 11.4 million pairs (5,000 symbols, ten years) take about half a second. A symbol's row is longer
than the calendar by `LISTING_GAP_SESSIONS`, so that the next symbol is always further away than that.
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
    calendar = pl.Series("session", list(sessions), pl.Date)
    first = 0 if since is None else int(calendar.search_sorted(since))
    number, position = np.nonzero(history.present[:, first:])
    position += first
    renames = _Renames.of(actions, history)
    starts = _starts(history, renames)
    listing = np.searchsorted(starts, number * history.width + position, side="right") - 1
    rows = pl.DataFrame(
        {"symbol": history.symbols.gather(number), "session": calendar.gather(position)}
    )
    return rows.hstack(_identities(history, renames, starts, calendar)[listing])


def with_listings(rows: pl.DataFrame, listings: pl.DataFrame) -> pl.DataFrame:
    """Put rows beside their listings: a left join on symbol and session, several times as fast.

    Args:
        rows: Rows with ``symbol`` and ``session``, in any order, repeated ones too.
        listings: From `assign_listings`.

    Returns:
        The rows in their order with ``first_session`` and ``security_id``, null where there is none.
    """
    if listings.is_empty():
        nothing = listings.select("first_session", "security_id").clear(rows.height)
        return rows.hstack(nothing)
    symbols = listings["symbol"].unique(maintain_order=True)
    days = listings["session"].unique().sort().to_physical().to_numpy()

    def cells(frame: pl.DataFrame) -> NDArray[np.intp]:
        # The last row and column of the table belong to what no listing has.
        number = frame["symbol"].cast(pl.Enum(symbols), strict=False).to_physical().cast(pl.Int64)
        session = frame["session"].to_physical().to_numpy()
        position = _positions(session, days, outside=len(days))
        unknown_last = number.fill_null(len(symbols)).to_numpy().astype(np.intp)
        return unknown_last * (len(days) + 1) + position

    place_of = np.full((len(symbols) + 1) * (len(days) + 1), -1)
    place_of[cells(listings)] = np.arange(listings.height)
    places = pl.Series(place_of[cells(rows)])
    places = places.set(places < 0, None)
    return rows.with_columns(
        listings[name].gather(places) for name in ("first_session", "security_id")
    )


@dataclass(frozen=True)
class _History:
    """Everything delivered, as sorted numbers.

    Attributes:
        symbols: The symbols, ascending; a symbol's number is its place.
        days: The calendar as days since 1970, ascending.
        width: How far apart the keys of two symbols on one session are.
        present: (symbols, width) whether a symbol was delivered on a session.
        keys: ``number * width + position`` of every pair, ascending and unique.
    """

    symbols: pl.Series
    days: NDArray[np.int32]
    width: int
    present: NDArray[np.bool_]
    keys: NDArray[np.int64]

    @classmethod
    def of(cls, pairs: pl.DataFrame, sessions: Sequence[date]) -> _History:
        known = pairs.select("symbol", "session").drop_nulls()
        symbols = known["symbol"].unique().sort()
        days = pl.Series(list(sessions), dtype=pl.Date).to_physical().to_numpy()
        width = len(days) + LISTING_GAP_SESSIONS
        number = known["symbol"].cast(pl.Enum(symbols)).to_physical().to_numpy()
        position = _positions(known["session"].to_physical().to_numpy(), days, outside=width - 1)
        # A table of cells sorts the pairs and drops repetitions, and has hardly more cells than pairs.
        present = np.zeros((len(symbols), width), dtype=bool)
        present[number, position] = True
        present[:, len(days) :] = False
        return cls(symbols, days, width, present, np.flatnonzero(present))

    def keys_at(self, symbols: pl.Series, days: pl.Series) -> NDArray[np.int64]:
        """Keys that the symbols have, or would have, at or after the days; -1 if never delivered."""
        if self.symbols.is_empty():
            return np.full(len(symbols), -1)
        number = self.symbols.search_sorted(symbols).to_numpy().clip(0, len(self.symbols) - 1)
        position = np.searchsorted(self.days, days.to_physical().to_numpy())
        known = (self.symbols.gather(number) == symbols).to_numpy()
        return np.where(known, number.astype(np.int64) * self.width + position, -1)

    def same_symbol(
        self, keys: NDArray[np.int64], places: NDArray[np.int64], as_keys: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Of sorted keys those at the places, where they are of the symbols of other keys; else -1."""
        if len(keys) == 0:
            return np.full(len(places), -1)
        there = keys[places.clip(0, len(keys) - 1)]
        same = (there // self.width == as_keys // self.width) & (as_keys >= 0)
        return np.where(same & (places >= 0) & (places < len(keys)), there, -1)


def _positions(
    given: NDArray[np.int32], days: NDArray[np.int32], outside: int
) -> NDArray[np.int32]:
    """Places of the given days in the calendar, looked up: searching millions takes five times as long."""
    place_of = np.full(days[-1] - days[0] + 3, outside, dtype=np.int32)
    place_of[days - days[0] + 1] = np.arange(len(days))
    return place_of[np.clip(given - days[0] + 1, 0, len(place_of) - 1)]


@dataclass(frozen=True)
class _Renames:
    """Every rename, oldest first, as places in the history; -1 where there is none.

    Attributes:
        before: Key of the last pair that the old symbol has before the ex-date.
        after: Key of the first pair that the old symbol has from the ex-date on.
        handed: Key that the new symbol has, or would have, on the ex-date.
    """

    before: NDArray[np.int64]
    after: NDArray[np.int64]
    handed: NDArray[np.int64]

    @classmethod
    def of(cls, actions: pl.DataFrame, history: _History) -> _Renames:
        told = (
            actions.filter(
                pl.col("action_type") == "name_change",
                pl.col("new_symbol").is_not_null(),
                pl.col("new_symbol") != pl.col("symbol"),
            )
            .select("ex_date", "symbol", "new_symbol")
            .unique()
            .sort("ex_date", "symbol", "new_symbol")
        )
        ex_date = history.keys_at(told["symbol"], told["ex_date"])
        places = np.searchsorted(history.keys, ex_date)
        return cls(
            before=history.same_symbol(history.keys, places - 1, ex_date),
            after=history.same_symbol(history.keys, places, ex_date),
            handed=history.keys_at(told["new_symbol"], told["ex_date"]),
        )


def _starts(history: _History, renames: _Renames) -> NDArray[np.int64]:
    """Keys at which a listing begins, ascending."""
    steps = np.diff(history.keys, prepend=-history.width)
    begun = history.keys[steps > LISTING_GAP_SESSIONS]
    return np.union1d(begun, renames.after[renames.after >= 0])


def _identities(
    history: _History, renames: _Renames, starts: NDArray[np.int64], calendar: pl.Series
) -> pl.DataFrame:
    """``first_session`` and ``security_id`` of each listing, in the order of the starts."""
    number, position = np.divmod(starts, history.width)
    own = pl.DataFrame(
        {"symbol": history.symbols.gather(number), "first_session": calendar.gather(position)}
    ).select(
        "first_session",
        security_id=pl.format("{}@{}", "symbol", pl.col("first_session").dt.to_string("%Y-%m-%d")),
    )
    return own[_oldest(history, renames, starts)]


def _oldest(history: _History, renames: _Renames, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each listing the one that it continues: the oldest in its chain of renames, or itself."""
    heirs = np.searchsorted(starts, renames.handed)
    begun = history.same_symbol(starts, heirs, renames.handed)
    gap = begun % history.width - renames.before % history.width
    continues = (begun >= 0) & (renames.before >= 0) & (gap <= LISTING_GAP_SESSIONS)
    owners = np.searchsorted(starts, renames.before, side="right") - 1
    oldest = np.arange(len(starts))
    handed_on: set[int] = set()
    for owner, heir in zip(owners[continues].tolist(), heirs[continues].tolist(), strict=True):
        # A listing is handed on once: a second heir begins a listing of its own.
        if owner not in handed_on:
            handed_on.add(owner)
            oldest[heir] = oldest[owner]
    return oldest
