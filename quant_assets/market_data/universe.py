"""The point-in-time trading universe: which securities could be traded at a session, by liquidity.

What belongs here: the rule alone, over validated bars. What does not: prices beyond the session, index
membership, or what a strategy makes of it.

A security is in the universe of session T when

1. it has a valid bar at T: it is listed and its price is known;
2. its listing had begun 60 sessions ago and at least 54 of the trailing 60 sessions have a bar (a day in
   quarantine does not cost a security its history, a thin one does);
3. its raw close at T is at least 2 USD;
4. it ranks among the first N by the median of close times volume over its bars of the trailing 60
   sessions (raw, since splits cancel out), ties by symbol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from quant_assets.market_data.schemas import UNIVERSE

WINDOW_SESSIONS = 60


@dataclass(frozen=True)
class UniverseRule:
    """What a security must have to be in the universe.

    Attributes:
        size: How many securities at most.
        minimum_close: Raw close in USD at the session.
        minimum_bars: Bars within the trailing 60 sessions.
    """

    size: int = 500
    minimum_close: float = 2.0
    minimum_bars: int = 54


def universe(
    bars: pl.LazyFrame,
    wanted: Sequence[date],
    sessions: Sequence[date],
    rule: UniverseRule,
    assets: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The universe of some sessions.

    Args:
        bars: Validated raw bars (`schemas.BARS`) from 59 sessions before the first wanted one on.
        wanted: The sessions to produce, ascending.
        sessions: The calendar, ascending, from 59 sessions before the first wanted to the last.
        rule: Size and floors.
        assets: The broker's list as observed now (``symbol``, ``tradable``, ``shortable``,
            ``fractionable``); it says something about the last wanted session only. None where
            the present says nothing about the sessions asked for.

    Returns:
        Rows of `schemas.UNIVERSE`, sorted by session and rank; no rows for a session without 60
        sessions of history.
    """
    calendar = pl.LazyFrame(
        {"session": list(sessions), "position": range(len(sessions))},
        schema={"session": pl.Date, "position": pl.Int64},
    ).with_columns(window_start=pl.col("session").shift(WINDOW_SESSIONS - 1))
    trailing = (
        bars.select("session", "symbol", "security_id", "first_session", "close", "volume")
        .join(calendar, on="session", how="inner")
        .with_columns(dollar_volume=pl.col("close") * pl.col("volume"))
        .sort("security_id", "position")
        .rolling("position", period=f"{WINDOW_SESSIONS}i", group_by="security_id")
        .agg(
            pl.col("session", "symbol", "close", "first_session", "window_start").last(),
            median_dollar_volume=pl.col("dollar_volume").median(),
            history_sessions=pl.len().cast(pl.Int32),
        )
    )
    ranked = (
        trailing.filter(
            pl.col("session").is_in(list(wanted)),
            pl.col("first_session") <= pl.col("window_start"),
            pl.col("history_sessions") >= rule.minimum_bars,
            pl.col("close") >= rule.minimum_close,
        )
        .sort("session", "median_dollar_volume", "symbol", descending=[False, True, False])
        .with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("session"))
        .filter(pl.col("rank") <= rule.size)
    ).collect()
    return _with_permissions(ranked, wanted[-1], assets).select(list(UNIVERSE.schema))


def _with_permissions(
    ranked: pl.DataFrame, observed_session: date, assets: pl.DataFrame | None
) -> pl.DataFrame:
    names = ("tradable", "shortable", "fractionable")
    if assets is None:
        return ranked.with_columns(pl.lit(None, pl.Boolean).alias(name) for name in names)
    known = assets.select("symbol", *names).with_columns(session=pl.lit(observed_session, pl.Date))
    return ranked.join(known, on=["session", "symbol"], how="left", maintain_order="left")
