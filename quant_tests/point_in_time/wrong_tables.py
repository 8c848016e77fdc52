"""Tables that look at the future in the ways in which people do, each beside a twin that does not.

Belongs here: the tables and their assets, as a user would add them. Does not belong here: who catches them
(`test_leaks.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Final

import dagster as dg
import polars as pl

from quant_assets.market_data.schemas import BARS
from quant_assets.partitions import ahead, same, trailing
from quant_assets.table_assets import TableInput, TableResult, sessions_of, table_asset
from quant_resources.calendar import XNYS
from quant_resources.store import Store
from quant_resources.tables import Column, Grain, Table

_NAMES: Final = ("session", "symbol", "security_id")
ASSETS: list[dg.AssetsDefinition] = []
TABLES: list[Table] = []


def _table(name: str, grain: Grain = "session", horizon: int = 0) -> Table:
    table = Table(
        stage="features",
        name=name,
        grain=grain,
        description=f"Made for a test: {name}.",
        columns=(
            Column("session", pl.Date, "Session"),
            Column("symbol", pl.String, "Ticker"),
            Column("security_id", pl.String, "Security"),
            Column("value", pl.Float64, "A number", nullable=True),
        ),
        key=("session", "security_id"),
        horizon=horizon,
    )
    TABLES.append(table)
    return table


def _from_bars(
    mapping: dg.PartitionMapping, table: Table | None = None
) -> Callable[[Callable[[pl.DataFrame], pl.DataFrame]], None]:
    """A table of the sessions' bars with a `value`, computed from the bars that a mapping names."""

    def declare(function: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        @table_asset(table or _table(function.__name__), ins={"bars": TableInput(BARS, mapping)})
        def compute(context: dg.AssetExecutionContext, bars: pl.LazyFrame) -> TableResult:
            known = bars.select(*_NAMES, "close").sort("security_id", "session").collect()
            return TableResult(_chosen(function(known), sessions_of(context)))

        ASSETS.append(compute)

    return declare


def _from_store(
    function: Callable[[pl.DataFrame, Store, Sequence[date]], pl.DataFrame],
) -> Callable[[pl.DataFrame, Store, Sequence[date]], pl.DataFrame]:
    """A table of the sessions' bars with a `value`, whose function also reads the store by itself."""

    @table_asset(_table(function.__name__), ins={"bars": TableInput(BARS, same())})
    def compute(
        context: dg.AssetExecutionContext, bars: pl.LazyFrame, store: dg.ResourceParam[Store]
    ) -> TableResult:
        sessions = sessions_of(context)
        known = bars.select(*_NAMES, "close").collect()
        return TableResult(_chosen(function(known, store, sessions), sessions))

    ASSETS.append(compute)
    return function


def _chosen(frame: pl.DataFrame, sessions: Sequence[date]) -> pl.DataFrame:
    return frame.filter(pl.col("session").is_in(list(sessions))).select(*_NAMES, "value")


@_from_bars(trailing(1))
def next_close(bars: pl.DataFrame) -> pl.DataFrame:
    """Tomorrow's return, by a shift in the wrong direction."""
    return bars.with_columns(value=pl.col("close").shift(-1).over("security_id") / pl.col("close"))


@_from_bars(trailing(1))
def previous_close(bars: pl.DataFrame) -> pl.DataFrame:
    """Today's return, from the session before; nothing after a day without a bar."""
    days = bars.select(pl.col("session").unique().sort())
    before = days.with_columns(before=pl.col("session").shift(1))
    earlier = bars.select("security_id", before="session", past="close")
    return (
        bars.join(before, on="session")
        .join(earlier, on=["security_id", "before"], how="left")
        .with_columns(value=pl.col("close") / pl.col("past"))
    )


@_from_store
def survivors(bars: pl.DataFrame, store: Store, _sessions: Sequence[date]) -> pl.DataFrame:
    """The names that are still there at the end."""
    newest = store.read(BARS, store.partitions(BARS)[-1:], ["security_id"]).collect()
    return bars.join(newest, on="security_id", how="semi").with_columns(value=pl.lit(1.0))


@_from_store
def present(bars: pl.DataFrame, store: Store, sessions: Sequence[date]) -> pl.DataFrame:
    """The names that were there in the session before and are there in the session."""
    earlier = [XNYS.previous(day) for day in sessions]
    keys = [day.isoformat() for day in earlier]
    past = store.read(BARS, keys, ["session", "security_id"]).collect()
    following = pl.DataFrame({"before": earlier, "session": sessions})
    there = past.rename({"session": "before"}).join(following, on="before").drop("before")
    return bars.join(there, on=["security_id", "session"], how="semi").with_columns(
        value=pl.lit(1.0)
    )


@_from_store
def scaled_by_all_history(bars: pl.DataFrame, store: Store, _: Sequence[date]) -> pl.DataFrame:
    """Closes scaled by a mean and deviation that were fitted on everything."""
    everything = store.read(BARS, columns=["close"]).collect().get_column("close")
    mean, deviation = everything.mean(), everything.std()
    return bars.with_columns(value=(pl.col("close") - mean) / deviation)


@_from_bars(trailing(20))
def scaled_by_the_range(bars: pl.DataFrame) -> pl.DataFrame:
    """Closes scaled by what happened to be loaded."""
    close = pl.col("close")
    return bars.with_columns(value=(close - close.mean()) / close.std())


@_from_bars(same())
def scaled_by_the_session(bars: pl.DataFrame) -> pl.DataFrame:
    """Closes scaled across the names of their session."""
    close = pl.col("close")
    return bars.with_columns(
        value=(close - close.mean().over("session")) / close.std().over("session")
    )


@_from_bars(dg.TimeWindowPartitionMapping(end_offset=1, allow_nonexistent_upstream_partitions=True))
def mapped_ahead(bars: pl.DataFrame) -> pl.DataFrame:
    """Right values, but tomorrow's bars are loaded for them."""
    return bars.with_columns(value=pl.col("close") * 2)


@_from_bars(same())
def mapped_to_the_session(bars: pl.DataFrame) -> pl.DataFrame:
    """The same values from the session's bars alone."""
    return bars.with_columns(value=pl.col("close") * 2)


@_from_bars(trailing(10))
def average_that_never_settles(bars: pl.DataFrame) -> pl.DataFrame:
    """An exponential average that is given ten sessions of a memory of thirty."""
    return bars.with_columns(value=pl.col("close").ewm_mean(span=30).over("security_id"))


@_from_bars(trailing(9))
def average_over_ten_sessions(bars: pl.DataFrame) -> pl.DataFrame:
    """A mean over the ten sessions that its mapping names, by their days."""
    days = bars.select(pl.col("session").unique().sort()).with_row_index("place")
    placed = bars.join(days, on="session")
    windows = placed.join(placed, on="security_id", suffix="_past").filter(
        pl.col("place") - pl.col("place_past").cast(pl.Int64) < 10,
        pl.col("place_past") <= pl.col("place"),
    )
    return (
        windows.sort(*_NAMES, "session_past")
        .group_by(_NAMES, maintain_order=True)
        .agg(value=pl.col("close_past").mean())
    )


@_from_bars(same())
def counted_since_the_range_began(bars: pl.DataFrame) -> pl.DataFrame:
    """A number that is kept between sessions."""
    return bars.with_columns(value=pl.col("close").cum_sum().over("security_id"))


@_from_store
def asks_by_name(bars: pl.DataFrame, store: Store, sessions: Sequence[date]) -> pl.DataFrame:
    """Tomorrow's close, read from the store by its session."""
    following = [XNYS.next(day) for day in sessions]
    keys = [day.isoformat() for day in following]
    later = store.read(BARS, keys, ["session", "security_id", "close"]).collect()
    days = pl.DataFrame({"session": sessions, "following": following})
    return bars.join(days, on="session").join(
        later.rename({"session": "following", "close": "value"}),
        on=["security_id", "following"],
        how="left",
    )


def _close_after(count: int) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def label(bars: pl.DataFrame) -> pl.DataFrame:
        days = bars.select(pl.col("session").unique().sort())
        later = days.with_columns(later=pl.col("session").shift(-count))
        ends = bars.select("security_id", "close", later="session")
        return (
            bars.drop("close")
            .join(later, on="session")
            .join(ends, on=["security_id", "later"], how="left")
            .rename({"close": "value"})
        )

    return label


_from_bars(ahead(5), _table("label_known_early", "labelled_session", 5))(_close_after(2))
_from_bars(ahead(5), _table("label_beyond_its_horizon", "labelled_session", 3))(_close_after(5))
_from_bars(ahead(5), _table("label_at_its_horizon", "labelled_session", 5))(_close_after(5))


def _whole(name: str, value: pl.Expr) -> None:
    @table_asset(_table(name, "none"), deps=[TableInput(BARS)])
    def compute(_context: dg.AssetExecutionContext, store: dg.ResourceParam[Store]) -> TableResult:
        bars = store.read(BARS, columns=[*_NAMES, "close"]).sort("security_id", "session")
        return TableResult(bars.with_columns(value=value).select(*_NAMES, "value").collect())

    ASSETS.append(compute)


_whole("curve_that_ends_at_one", pl.col("close") / pl.col("close").last().over("security_id"))
_whole("curve_that_begins_at_one", pl.col("close") / pl.col("close").first().over("security_id"))

BY_NAME: dict[str, Table] = {table.name: table for table in TABLES}


def _follower(read: Table) -> Table:
    """A table of the same sessions that reads another: what a leak must not reach."""
    table = _table(f"after_{read.name}")

    @table_asset(table, ins={"read": TableInput(read, same())})
    def compute(_context: dg.AssetExecutionContext, read: pl.LazyFrame) -> TableResult:
        return TableResult(read.collect())

    ASSETS.append(compute)
    return table


FOLLOWERS: dict[str, Table] = {
    name: _follower(table) for name, table in BY_NAME.items() if table.grain == "session"
}


def of_grain(grain: Grain) -> list[Table]:
    """The tables of one grain, without those that follow another."""
    return [table for table in BY_NAME.values() if table.grain == grain]
