"""What was expected of a session, what became of it, and which sessions are worth asking for again.

What belongs here: expectations from deliveries, corporate actions and the calendar alone. What does not:
whether a delivered row is sound (validation.py), fetching, pictures and checks (coverage_checks.py).

What is expected, by what was known at the session:

1. A symbol is alive for `LISTING_GAP_SESSIONS` sessions after it was last delivered, as a listing is
   (listings.py): longer than ordinary halts, short enough that a dead listing is forgotten.
2. A rename, merger, redemption or worthless removal ends it at once: one with an ex-date up to the session
   and not before the last delivery. Whatever is delivered after its end is alive again.
3. A rename hands the expectation on to the new symbol, until the old one is delivered again.
4. Expected and delivered symbols get one row each: ``present`` with a bar, ``quarantined`` if rows were
   delivered and none became a bar, ``missing`` without a delivery.

Only the sessions of one listing gap before a session say anything about it, so that its rows are the same
whether one session or ten years are computed.

Which gaps are asked for again: quarantined rows, since vendors repair, and missing ones that are young
(`LATE_SESSIONS`) or whose symbol came back; a listing that went away without a word is not asked after for
ever. And how often: in the two sessions after it always, then each time the gap is about twice as old as
when it was last asked for, so that a hole which the vendor will never fill costs a handful of requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from quant_assets.market_data.listings import LISTING_GAP_SESSIONS
from quant_assets.market_data.schemas import COVERAGE

PRESENT, QUARANTINED, MISSING = "present", "quarantined", "missing"
#: A symbol that has been absent longer than this and has not come back has probably gone.
LATE_SESSIONS: Final = 5
#: Sessions before the newest that are always fetched again: vendors correct them most.
ALWAYS_REFETCHED: Final = 2
#: Older sessions with gaps that are fetched again in one daily run.
REFETCH_BUDGET: Final = 5
#: Sessions that a gap must have aged beside doubling its age. The order of fetches shows when a session was
#: last asked for only to within the sessions that were themselves fetched again since.
_LEAST_AGEING: Final = 8
_ENDING_ACTIONS: Final = ("merger", "redemption", "worthless_removal")
_NEVER: Final = -(10**6)


def coverage(
    delivered: pl.DataFrame,
    bars: pl.DataFrame,
    actions: pl.DataFrame,
    sessions: Sequence[date],
    wanted: Sequence[date],
) -> pl.DataFrame:
    """State of every expected and every delivered symbol of some sessions.

    Args:
        delivered: ``session`` and ``symbol`` of every delivered row (`schemas.RAW_BARS`) of the wanted
            sessions and of `LISTING_GAP_SESSIONS` before the first of them; more changes nothing.
            Rows without a symbol belong to no symbol and are left out.
        bars: ``session`` and ``symbol`` of the valid bars of the wanted sessions.
        actions: Corporate actions (``symbol``, ``new_symbol``, ``ex_date``, ``action_type``) of the
            same span as `delivered`.
        sessions: The calendar, ascending, over at least that span.
        wanted: The sessions to produce, ascending.

    Returns:
        `schemas.COVERAGE`, sorted by session and symbol.
    """
    calendar = pl.Series("session", list(sessions), dtype=pl.Date)
    days = calendar.to_physical().to_numpy()
    first, last = np.searchsorted(days, _days([wanted[0], wanted[-1]]))
    calendar = calendar[max(int(first) - LISTING_GAP_SESSIONS, 0) : int(last) + 1]
    days = calendar.to_physical().to_numpy()

    renames, endings = _endings(actions)
    symbols = pl.concat([delivered["symbol"], renames["new_symbol"]]).drop_nulls().unique().sort()
    grid = _Grid(days, symbols)
    sent = grid.of(delivered)
    valid = grid.of(bars)
    place = np.arange(len(days), dtype=np.int32)[:, None]
    seen = np.maximum.accumulate(np.where(sent, place, np.int32(_NEVER)), axis=0)
    known = _handed_on(grid, seen, renames)
    missing = (
        ~sent & (place - known <= LISTING_GAP_SESSIONS) & (_ended_after(grid, endings) < known)
    )

    asked = np.isin(days, _days(wanted))[:, None]
    row, column = np.nonzero((sent | missing) & asked)
    # Missing, quarantined and present are 0, 1 and 2.
    states = sent[row, column].astype(np.int8) + (sent & valid)[row, column]
    return pl.DataFrame(
        {
            "session": calendar.gather(row),
            "symbol": symbols.gather(column),
            "state": pl.Series([MISSING, QUARANTINED, PRESENT]).gather(states),
            "absent_sessions": np.where(states == 0, row - known[row, column], 0).astype(np.int32),
        },
        schema=COVERAGE.schema,
    )


def by_session(covered: pl.DataFrame) -> pl.DataFrame:
    """What became of each session.

    Args:
        covered: Rows of `schemas.COVERAGE`.

    Returns:
        ``session``, ``expected`` (symbols expected or delivered), ``present``, ``quarantined``,
        ``missing`` and ``share_present`` (fraction), ascending.
    """
    state = pl.col("state")
    return (
        covered.group_by("session")
        .agg(
            expected=pl.len(),
            present=(state == PRESENT).sum(),
            quarantined=(state == QUARANTINED).sum(),
            missing=(state == MISSING).sum(),
        )
        .with_columns(share_present=pl.col("present") / pl.col("expected"))
        .sort("session")
    )


def by_symbol(covered: pl.DataFrame) -> pl.DataFrame:
    """The symbols that have gaps, those with the most that can be filled first.

    Args:
        covered: Rows of `schemas.COVERAGE` of neighbouring sessions.

    Returns:
        ``symbol``, ``sessions`` (in which it was expected or delivered), ``missing``, ``quarantined``,
        ``to_refetch`` (those of its gaps that another fetch may fill), ``newest_gap`` and
        ``absent`` (sessions in a row until its newest row; 0: it is there again). Listings that went
        away come after those that have holes.
    """
    state = pl.col("state")
    return (
        covered.sort("session")
        .group_by("symbol")
        .agg(
            sessions=pl.len(),
            missing=(state == MISSING).sum(),
            quarantined=(state == QUARANTINED).sum(),
            newest_gap=pl.col("session").filter(state != PRESENT).max(),
            absent=pl.col("absent_sessions").last(),
        )
        .filter(pl.col("newest_gap").is_not_null())
        .join(
            gaps_to_refetch(covered).group_by("symbol").agg(to_refetch=pl.len()), "symbol", "left"
        )
        .select(
            *("symbol", "sessions", "missing", "quarantined"),
            pl.col("to_refetch").fill_null(0),
            *("newest_gap", "absent"),
        )
        .sort(
            *("to_refetch", pl.col("missing") + pl.col("quarantined"), "symbol"),
            descending=[True, True, False],
        )
    )


def gaps_to_refetch(covered: pl.DataFrame) -> pl.DataFrame:
    """The gaps that another fetch may fill.

    Args:
        covered: Rows of `schemas.COVERAGE` of neighbouring sessions.

    Returns:
        The quarantined rows, and the missing ones whose symbol was delivered again within its listing's
        gap or has been absent for at most `LATE_SESSIONS` by the newest session of the frame.
    """
    state = pl.col("state")
    place = pl.col("session").rank("dense").cast(pl.Int64)
    last_seen = pl.col("place") - pl.col("absent_sessions")
    return (
        covered.with_columns(place=place)
        .with_columns(newest=pl.col("place").max())
        .filter(pl.len().over("symbol") > (state == PRESENT).sum().over("symbol"))
        .sort("symbol", "session")
        .with_columns(
            returned=pl.when(state != MISSING).then("place").backward_fill().over("symbol")
        )
        .filter(
            (state == QUARANTINED)
            | (state == MISSING)
            & (
                (pl.col("returned") - last_seen <= LISTING_GAP_SESSIONS)
                | (pl.col("newest") - last_seen <= LATE_SESSIONS)
            )
        )
        .select(list(COVERAGE.schema))
        .sort("session", "symbol")
    )


def sessions_to_refetch(
    covered: pl.DataFrame,
    newest: date,
    last_fetched: Mapping[date, int],
    budget: int = REFETCH_BUDGET,
) -> list[date]:
    """The sessions that a daily run fetches again.

    Args:
        covered: Rows of `schemas.COVERAGE` of as many neighbouring sessions as may be asked for.
        newest: The session that is ingested next; it is never in the answer.
        last_fetched: Session to a number that grows with every fetch, such as the storage id of its
            newest materialization. Sessions that were never fetched are not fetched again.
        budget: How many sessions beside the two that are always fetched.

    Returns:
        The `ALWAYS_REFETCHED` sessions before the newest, and the sessions with gaps that are due (see
        the module), least recently fetched first, up to the budget. Ascending.
    """
    fetched = sorted(day for day in last_fetched if day < newest)
    always = fetched[-ALWAYS_REFETCHED:]
    number = np.array([last_fetched[day] for day in fetched], dtype=np.int64)
    place = {day: at for at, day in enumerate(fetched)}
    due = [
        day
        for day in gaps_to_refetch(covered)["session"].unique().to_list()
        if day in place and day not in always and _is_due(number, place[day])
    ]
    chosen = sorted(due, key=lambda day: last_fetched[day])[: max(budget, 0)]
    return sorted([*always, *chosen])


def _is_due(number: NDArray[np.int64], at: int) -> bool:
    # The newest session that was fetched before this one tells how old this one was then.
    before = np.flatnonzero(number < number[at])
    age_then = max(int(before[-1]) - at, 0) if len(before) else 0
    return len(number) - at >= 2 * age_then + _LEAST_AGEING


class _Grid:
    """Sessions by symbols: rows are places in the calendar, columns numbers of the sorted symbols."""

    def __init__(self, days: NDArray[np.int32], symbols: pl.Series) -> None:
        self.days = days
        self.shape = (len(days), len(symbols))
        self._numbers = pl.Enum(symbols)

    def of(self, rows: pl.DataFrame) -> NDArray[np.bool_]:
        """Where there is a row; those of other days and without a known symbol are left out."""
        cells = np.zeros(self.shape, dtype=np.bool_)
        found = rows.select("session", "symbol").drop_nulls()
        given = found["session"].to_physical().to_numpy()
        place = np.minimum(np.searchsorted(self.days, given), len(self.days) - 1)
        inside = self.days[place] == given
        column = self.columns(found["symbol"])
        inside &= column >= 0
        cells[place[inside], column[inside]] = True
        return cells

    def columns(self, symbols: pl.Series) -> NDArray[np.int64]:
        """Column of each symbol, -1 for unknown ones."""
        numbers = symbols.cast(self._numbers, strict=False).to_physical()
        return numbers.cast(pl.Int64).fill_null(-1).to_numpy()


def _endings(actions: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Renames, and everything that ends a symbol, renames included."""
    known = actions.select("symbol", "new_symbol", "ex_date", "action_type")
    renames = known.filter(
        pl.col("action_type") == "name_change",
        pl.col("new_symbol").is_not_null(),
        pl.col("new_symbol") != pl.col("symbol"),
    )
    return renames, pl.concat([known.filter(pl.col("action_type").is_in(_ENDING_ACTIONS)), renames])


def _ended_after(grid: _Grid, endings: pl.DataFrame) -> NDArray[np.int32]:
    """Place of the last session that an ending known at the session covers: what was seen by then ended."""
    covers = np.full(grid.shape, _NEVER - 1, dtype=np.int32)
    ex_days = endings["ex_date"].to_physical().to_numpy()
    known_at = np.searchsorted(grid.days, ex_days)
    column = grid.columns(endings["symbol"])
    inside = (known_at < len(grid.days)) & (column >= 0)
    last_covered = np.searchsorted(grid.days, ex_days, side="right") - 1
    np.maximum.at(covers, (known_at[inside], column[inside]), last_covered[inside].astype(np.int32))
    return np.maximum.accumulate(covers, axis=0)


def _handed_on(grid: _Grid, seen: NDArray[np.int32], renames: pl.DataFrame) -> NDArray[np.int32]:
    """Place at which each symbol was last seen, under its own name or the one it was renamed from."""
    known_at = np.searchsorted(grid.days, renames["ex_date"].to_physical().to_numpy())
    old, new = grid.columns(renames["symbol"]), grid.columns(renames["new_symbol"])
    row = known_at[:, None] + np.arange(LISTING_GAP_SESSIONS + 1)
    inside = (row < len(grid.days)) & (old >= 0)[:, None]
    old_seen = seen[np.minimum(row, len(grid.days) - 1), old[:, None]]
    inside &= old_seen < known_at[:, None]
    known = seen.copy()
    columns = np.broadcast_to(new[:, None], row.shape)
    np.maximum.at(known, (row[inside], columns[inside]), old_seen[inside])
    return known


def _days(sessions: Sequence[date]) -> NDArray[np.int32]:
    return pl.Series(list(sessions), dtype=pl.Date).to_physical().to_numpy()
