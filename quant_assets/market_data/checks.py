"""Rules on whole sessions of market data that need thought; bounds and keys are generated elsewhere.

Belongs here: what makes a session unfit for money, and all checks of the stage together. Does not belong
here: rules on single rows, which quarantine them (validation.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl

from quant_assets.market_data import (
    coverage_checks,
    delivery_checks,
    restatement_checks,
    source_checks,
)
from quant_assets.market_data.levels import OUTLIER_RETURN
from quant_assets.market_data.schemas import BARS, QUARANTINE, RAW_BARS, UNIVERSE
from quant_assets.market_data.universe import WINDOW_SESSIONS
from quant_assets.table_checks import CheckScope, Finding, TableCheck
from quant_resources.calendar import XNYS
from quant_resources.tables import Table

#: A session with less than this share of the usual symbols is taken for a broken delivery. The thinnest of
#: 513 real sessions of S&P 500 members has 86 %.
MINIMUM_SYMBOL_SHARE = 0.70
USUAL_SESSIONS = 20
#: More rejected rows than this mean a broken delivery, not broken rows.
MAXIMUM_QUARANTINED_SHARE = 0.10
#: More large moves than this on one session mean missed actions; 2020-03-16 had about 3 %.
MAXIMUM_LARGE_MOVE_SHARE = 0.10
#: Fewer rows than this are rows, not a session, however few symbols are ingested.
MINIMUM_ROWS = 5
_NAMED = 5
STUCK_SESSIONS = 5
_SAMPLE = 10


def enough_symbols(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """Every session was delivered with about as many symbols as the sessions before it."""
    first = date.fromisoformat(scope.partition_keys[0])
    earlier = _stored_before(scope, RAW_BARS, first, USUAL_SESSIONS, ["session", "symbol"])
    counts = (
        pl.concat([earlier, frame.select("session", "symbol")])
        .group_by("session")
        .agg(symbols=pl.col("symbol").n_unique())
        .sort("session")
        .with_columns(
            usual=pl.col("symbols").rolling_median(USUAL_SESSIONS, min_samples=1).shift(1)
        )
        .filter(pl.col("session") >= first)
    )
    thin = counts.filter(pl.col("symbols") < MINIMUM_SYMBOL_SHARE * pl.col("usual"))
    delivered = set(counts["session"].to_list())
    empty = [key for key in scope.partition_keys if date.fromisoformat(key) not in delivered]
    if thin.is_empty() and not empty:
        return Finding(True, f"{counts.height} sessions, at least {_least(counts)} symbols each.")
    named = empty[0] if empty else str(thin.item(0, "session"))
    return Finding(
        False,
        f"{thin.height + len(empty)} session(s) have too few symbols, such as {named}.",
        thin.height + len(empty),
        thin.head(_SAMPLE),
        "Materialize raw_bars of these sessions again; if the source stays thin, ask it why.",
    )


def bounded_quarantine(_bars: pl.DataFrame, scope: CheckScope) -> Finding:
    """The share of rejected rows of every session is bounded."""
    frame = scope.store.read(QUARANTINE, scope.partition_keys, ["session", "rule"]).collect()
    delivered = (
        scope.store.read(RAW_BARS, scope.partition_keys, ["session"])
        .group_by("session")
        .agg(delivered=pl.len())
        .collect()
    )
    shares = (
        frame.group_by("session")
        .agg(rejected=pl.len(), rules=pl.col("rule").unique().sort().str.join(", "))
        .join(delivered, on="session", how="left")
        .with_columns(share=pl.col("rejected") / pl.col("delivered"))
        .sort("share", descending=True)
    )
    broken = shares.filter(
        pl.col("share") > MAXIMUM_QUARANTINED_SHARE, pl.col("rejected") >= MINIMUM_ROWS
    )
    if broken.is_empty():
        return Finding(True, f"{frame.height} rows rejected, no session above the bound.")
    worst = broken.row(0, named=True)
    return Finding(
        False,
        f"{worst['share']:.0%} of the rows of {worst['session']} were rejected ({worst['rules']}).",
        broken.height,
        broken.head(_SAMPLE),
        "This is a broken delivery, not broken rows: fetch the session again.",
    )


def nothing_lost(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """Every delivered row is either a bar or in quarantine."""
    keys = scope.partition_keys
    counted = (
        pl.concat(
            [
                scope.store.read(RAW_BARS, keys, ["session"]).with_columns(rows=1).collect(),
                scope.store.read(QUARANTINE, keys, ["session"]).with_columns(rows=-1).collect(),
                frame.select("session").with_columns(rows=pl.lit(-1, pl.Int32)),
            ]
        )
        .group_by("session")
        .agg(lost=pl.col("rows").sum())
        .filter(pl.col("lost") != 0)
        .sort("session")
    )
    if counted.is_empty():
        return Finding(True, f"{frame.height} bars: no delivered row was lost.")
    return Finding(
        False,
        f"Delivered rows and bars plus quarantine differ on {counted.height} session(s), such as "
        f"{counted.item(0, 'session')}.",
        counted.height,
        counted.head(_SAMPLE),
        "Materialize bars and quarantine of these sessions again.",
    )


def only_sessions(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """Every bar belongs to a day on which the exchange traded."""
    days = frame["session"].unique().to_list()
    strange = sorted(day for day in days if not XNYS.is_session(day))
    return Finding(
        not strange,
        f"Bars of {', '.join(map(str, strange[:5]))}, no session."
        if strange
        else f"{len(days)} of {len(scope.partition_keys)} partitions have bars, all sessions.",
        len(strange),
        remedy="Check the calendar of the source.",
    )


def reasonable_returns(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """Few adjusted returns of a session are beyond 30 %."""
    moves = _moves(frame, scope)
    shares = (
        moves.group_by("session")
        .agg(names=pl.len(), large=(pl.col("move").abs() > OUTLIER_RETURN).sum())
        .with_columns(share=pl.col("large") / pl.col("names"))
        .filter(pl.col("share") > MAXIMUM_LARGE_MOVE_SHARE, pl.col("large") >= MINIMUM_ROWS)
        .sort("share", descending=True)
    )
    if shares.is_empty():
        return Finding(True, f"{moves.height} adjusted returns within reason.")
    worst = shares.row(0, named=True)
    return Finding(
        False,
        f"{worst['large']} of {worst['names']} adjusted returns of {worst['session']} are beyond "
        f"{OUTLIER_RETURN:.0%}.",
        shares.height,
        shares.head(_SAMPLE),
        "Look for missing corporate actions or a delivery of adjusted prices.",
    )


def accepted_large_moves(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """Bars whose adjusted return is beyond 30 %: accepted, since later sessions confirmed them."""
    large = (
        _moves(frame, scope)
        .filter(pl.col("move").abs() > OUTLIER_RETURN)
        .sort((pl.col("move") + 1).log().abs(), descending=True)
    )
    if large.is_empty():
        return Finding(True, "No adjusted return beyond 30 %.")
    named = ", ".join(
        f"{row['symbol']} on {row['session']} ({row['move']:+.0%})"
        for row in large.head(_NAMED).iter_rows(named=True)
    )
    return Finding(
        False,
        f"{large.height} accepted adjusted returns beyond {OUTLIER_RETURN:.0%}: {named}"
        f"{' …' if large.height > _NAMED else ''}.",
        large.height,
        large.head(_SAMPLE),
        "Compare with the news; a missed split has to be reported to the source.",
    )


def no_stuck_prices(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """No symbol repeats the same four prices for five sessions."""
    first = date.fromisoformat(scope.partition_keys[0])
    columns = ["session", "symbol", "security_id", "open", "high", "low", "close"]
    earlier = _stored_before(scope, BARS, first, STUCK_SESSIONS - 1, columns)
    prices = pl.struct("open", "high", "low", "close")
    stuck = (
        pl.concat([earlier, frame.select(columns)])
        .sort("security_id", "session")
        .with_columns(
            run=(prices != prices.shift(1)).fill_null(value=True).cum_sum().over("security_id")
        )
        .group_by("security_id", "run")
        .agg(pl.col("symbol", "session", "close").last(), sessions=pl.len())
        .filter((pl.col("sessions") >= STUCK_SESSIONS) & (pl.col("session") >= first))
        .select("session", "symbol", "close", "sessions")
        .sort("session", "symbol")
    )
    return Finding(
        stuck.is_empty(),
        "No price is stuck."
        if stuck.is_empty()
        else f"{stuck.height} symbols repeat their prices, such as {stuck.item(0, 'symbol')}.",
        stuck.height,
        stuck.head(_SAMPLE),
        "Check whether the symbol still trades.",
    )


def universe_not_empty(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """After 60 sessions of bars every session has a universe."""
    stored = scope.store.partitions(BARS)
    warm = set(stored[WINDOW_SESSIONS - 1 :])
    present = {str(day) for day in frame["session"].unique().to_list()}
    empty = [key for key in scope.partition_keys if key in warm and key not in present]
    if not empty:
        return Finding(True, f"{len(present)} sessions have a universe.")
    return Finding(
        False,
        f"{len(empty)} session(s) have an empty universe, such as {empty[0]}.",
        len(empty),
        remedy="Look at the bars of the 60 sessions before: volume, price floor, gaps.",
    )


def _moves(frame: pl.DataFrame, scope: CheckScope) -> pl.DataFrame:
    """Adjusted close-to-close returns of the run's bars, over at most five sessions' absence."""
    first = date.fromisoformat(scope.partition_keys[0])
    columns = ["session", "symbol", "security_id", "close", "price_factor"]
    earlier = _stored_before(scope, BARS, first, STUCK_SESSIONS, columns)
    previous = pl.col("close").shift(1).over("security_id") * pl.col("price_factor")
    return (
        pl.concat([earlier, frame.select(columns)])
        .sort("security_id", "session")
        .with_columns(move=pl.col("close") / previous - 1)
        .filter(pl.col("session") >= first, pl.col("move").is_not_null())
        .select("session", "symbol", "close", "price_factor", "move")
    )


def _stored_before(
    scope: CheckScope, table: Table, first: date, count: int, columns: Sequence[str]
) -> pl.DataFrame:
    keys = [key for key in scope.store.partitions(table) if key < first.isoformat()][-count:]
    return scope.store.read(table, keys, columns).collect()


def _least(counts: pl.DataFrame) -> object:
    return counts["symbols"].min() if counts.height else 0


CHECKS: tuple[TableCheck, ...] = (
    TableCheck(
        RAW_BARS,
        "enough_symbols",
        "Each session has at least 70 % of the symbols that the 20 sessions before had: part of a "
        "session is never taken for the whole.",
        enough_symbols,
        columns=("session", "symbol"),
    ),
    # On bars, since it is what is computed from bars that a broken delivery has to stop.
    TableCheck(
        BARS,
        "bounded_quarantine",
        "At most 10 % of a session's rows are rejected (or four): beyond that the delivery is broken.",
        bounded_quarantine,
        columns=("session",),
    ),
    TableCheck(
        BARS,
        "nothing_lost",
        "Delivered rows = bars + quarantined rows: nothing is dropped silently.",
        nothing_lost,
        columns=("session",),
    ),
    TableCheck(
        BARS,
        "only_sessions",
        "Bars lie on trading days of XNYS.",
        only_sessions,
        columns=("session",),
    ),
    TableCheck(
        BARS,
        "reasonable_returns",
        "Not more than 10 % of a session's adjusted returns (or four) are beyond 30 %: otherwise "
        "actions are missing or prices come adjusted.",
        reasonable_returns,
        columns=("session", "symbol", "security_id", "close", "price_factor"),
    ),
    TableCheck(
        BARS,
        "accepted_large_moves",
        "Names the adjusted returns beyond 30 % that were accepted, for a person to compare.",
        accepted_large_moves,
        blocking=False,
        columns=("session", "symbol", "security_id", "close", "price_factor"),
    ),
    TableCheck(
        BARS,
        "no_stuck_prices",
        "No symbol repeats the same open, high, low and close for five sessions.",
        no_stuck_prices,
        blocking=False,
        columns=("session", "symbol", "security_id", "open", "high", "low", "close"),
    ),
    TableCheck(
        UNIVERSE,
        "universe_not_empty",
        "Every session after the first 60 has a universe.",
        universe_not_empty,
        columns=("session",),
    ),
    *delivery_checks.CHECKS,
    *restatement_checks.CHECKS,
    *coverage_checks.CHECKS,
    *source_checks.CHECKS,
)
