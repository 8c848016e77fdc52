"""The point-in-time trading universe: which securities could be traded at a session, by liquidity.

What belongs here: the rule alone, over validated bars. What does not: prices beyond the session, who was
a member of an index (index_membership.py), or what a strategy makes of it.

A security is in the universe of session T when

1. it has a valid bar at T: it is listed and its price is known;
2. its listing had begun 60 sessions ago and at least 54 of the trailing 60 sessions have a bar (a day in
   quarantine does not cost a security its history, a thin one does);
3. its raw close at T is at least 2 USD;
4. where an index is given, it is a member at T;
5. it ranks among the first N by the median of close times volume over its bars of the trailing 60
   sessions (raw, since splits cancel out), ties by symbol.

What the broker allows is told beside it and decides nothing: of session T it is the newest list observed at
T or up to five sessions before, and nothing where nobody observed one, as in a backfill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from quant_assets.market_data.schemas import UNIVERSE

WINDOW_SESSIONS = 60
#: How many sessions old the broker's list may be; nobody observes one while the platform stands still.
PERMISSION_SESSIONS = 5


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
    *,
    listed_assets: pl.LazyFrame | None = None,
    members: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The universe of some sessions.

    Args:
        bars: Validated raw bars (`schemas.BARS`) from 59 sessions before the first wanted one on.
        wanted: The sessions to produce, ascending.
        sessions: The calendar, ascending, from 59 sessions before the first wanted to the last.
        rule: Size and floors.
        listed_assets: The broker's lists (`schemas.LISTED_ASSETS`) as observed from
            `PERMISSION_SESSIONS` before the first wanted session on; None: nothing is known.
        members: ``session`` and ``symbol`` of the bars that belong to members of an index; None:
            everything may be in the universe.

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
    if members is not None:
        trailing = trailing.join(members.lazy(), on=["session", "symbol"], how="semi")
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
    return _with_permissions(ranked, listed_assets, sessions).select(list(UNIVERSE.schema))


def _with_permissions(
    ranked: pl.DataFrame, listed_assets: pl.LazyFrame | None, sessions: Sequence[date]
) -> pl.DataFrame:
    names = ("tradable", "shortable", "fractionable")
    if listed_assets is None:
        return ranked.with_columns(pl.lit(None, pl.Boolean).alias(name) for name in names)
    listed = listed_assets.select("session", "symbol", *names).collect()
    calendar = pl.DataFrame(
        {"session": list(sessions), "position": range(len(sessions))},
        schema={"session": pl.Date, "position": pl.Int64},
    )
    observed = (
        listed.select(pl.col("session").unique().sort())
        .join(calendar, on="session", maintain_order="left")
        .with_columns(observed_session="session")
        .select("position", "observed_session")
    )
    newest = calendar.join_asof(
        observed, on="position", strategy="backward", tolerance=PERMISSION_SESSIONS
    ).select("session", "observed_session")
    return ranked.join(newest, on="session", how="left", maintain_order="left").join(
        listed,
        left_on=["observed_session", "symbol"],
        right_on=["session", "symbol"],
        how="left",
        maintain_order="left",
    )
