"""Pictures of the market data, for the UI.

Belongs here: figures from frames of this stage. Does not belong here: what a bar must satisfy.
"""

from __future__ import annotations

import polars as pl
from matplotlib.figure import Figure


def coverage_picture(bars: pl.DataFrame, quarantine: pl.DataFrame) -> Figure:
    """Bars per session over the rows that were quarantined, by rule.

    Args:
        bars: Rows of `schemas.BARS` (or raw bars): ``session``.
        quarantine: Rows of `schemas.QUARANTINE`: ``session``, ``rule``.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    counts, rejected = figure.subplots(2, 1, sharex=True)
    by_session = bars.group_by("session").len().sort("session")
    counts.plot(by_session["session"].to_numpy(), by_session["len"].to_numpy(), marker=".")
    counts.set_ylabel("bars")
    counts.set_ylim(bottom=0)
    for (rule, *_), rows in sorted(quarantine.partition_by("rule", as_dict=True).items()):
        daily = rows.group_by("session").len().sort("session")
        rejected.scatter(
            daily["session"].to_numpy(), daily["len"].to_numpy(), s=14, label=str(rule)
        )
    rejected.set_ylabel("quarantined")
    if quarantine.height:
        rejected.legend(frameon=False, fontsize="small")
    for axes in (counts, rejected):
        axes.spines[["top", "right"]].set_visible(False)
    figure.autofmt_xdate()
    return figure


def heat_map_picture(bars: pl.DataFrame, quarantine: pl.DataFrame, symbols: int = 80) -> Figure:
    """Which symbols have a bar, a quarantined row or nothing, session by session.

    Args:
        bars: Rows of `schemas.BARS`: ``session``, ``symbol``.
        quarantine: Rows of `schemas.QUARANTINE`: ``session``, ``symbol``.
        symbols: How many symbols to show, those with the most holes first.
    """
    cells = (
        pl.concat(
            [
                bars.select("session", "symbol", state=pl.lit(1.0)),
                quarantine.select("session", "symbol", state=pl.lit(0.5)),
            ]
        )
        .group_by("session", "symbol")
        .agg(pl.col("state").min())
    )
    present = cells.group_by("symbol").agg(pl.col("state").sum()).sort("state", "symbol")
    shown = present.head(symbols)["symbol"].to_list()
    sessions = sorted(cells["session"].unique().to_list())
    grid = (
        cells.filter(pl.col("symbol").is_in(shown))
        .pivot("session", index="symbol", values="state")
        .sort("symbol")
    )
    matrix = grid.select(
        pl.col(str(day)) if str(day) in grid.columns else pl.lit(None, pl.Float64).alias(str(day))
        for day in sessions
    ).fill_null(0.0)
    figure = Figure(figsize=(9, 1 + 0.11 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(
        matrix.to_numpy(), aspect="auto", interpolation="nearest", cmap="RdYlGn", vmin=0, vmax=1
    )
    axes.set_yticks(range(grid.height), grid["symbol"].to_list(), fontsize=5)
    step = max(len(sessions) // 8, 1)
    axes.set_xticks(
        range(0, len(sessions), step), [str(day) for day in sessions[::step]], fontsize=7
    )
    axes.set_title("bar (green), quarantined (yellow), nothing (red): symbols with most holes")
    return figure


def universe_picture(universe: pl.DataFrame) -> Figure:
    """Liquidity by rank in the newest session beside the universe's size over the sessions.

    Args:
        universe: Rows of `schemas.UNIVERSE`, at least one.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    liquidity, size = figure.subplots(1, 2)
    newest = universe.filter(pl.col("session") == pl.col("session").max()).sort("rank")
    liquidity.semilogy(newest["rank"].to_numpy(), newest["median_dollar_volume"].to_numpy())
    liquidity.set_xlabel(f"rank on {newest.item(0, 'session')}")
    liquidity.set_ylabel("median dollar volume, USD")
    counts = universe.group_by("session").len().sort("session")
    size.plot(counts["session"].to_numpy(), counts["len"].to_numpy(), marker=".")
    size.set_ylabel("names")
    size.set_ylim(bottom=0)
    for axes in (liquidity, size):
        axes.spines[["top", "right"]].set_visible(False)
    size.tick_params(axis="x", labelrotation=30)
    return figure
