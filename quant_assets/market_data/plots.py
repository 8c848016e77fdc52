"""Pictures of the market data, for the UI.

Belongs here: figures from frames of this stage. Does not belong here: what a bar must satisfy.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from quant_assets.market_data.coverage import MISSING, PRESENT, QUARANTINED, by_session, by_symbol

#: Told apart by lightness too; what is there stays in the background.
STATE_COLOURS: Final = {PRESENT: "#dbe7ef", QUARANTINED: "#f2a104", MISSING: "#9e1b32"}
SYMBOLS_SHOWN: Final = 60


def deliveries_picture(delivered: pl.DataFrame) -> Figure:
    """Delivered rows per session.

    Args:
        delivered: Rows of `schemas.RAW_BARS`: ``session``.
    """
    figure = Figure(figsize=(9, 2.2), layout="constrained")
    axes = figure.subplots()
    by_session = delivered.group_by("session").len().sort("session")
    axes.plot(by_session["session"].to_numpy(), by_session["len"].to_numpy(), marker=".")
    axes.set_ylabel("rows")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.autofmt_xdate()
    return figure


def coverage_picture(covered: pl.DataFrame, symbols: int = SYMBOLS_SHOWN) -> Figure:
    """The share of expected symbols with a bar over the holes of the symbols that have the most.

    Args:
        covered: Rows of `schemas.COVERAGE`, at least one.
        symbols: How many symbols to show.
    """
    sessions = by_session(covered)
    with_holes = by_symbol(covered).head(symbols)["symbol"]
    rows = max(len(with_holes), 1)
    # Laid out in inches: to let matplotlib find the layout would draw everything twice.
    above, below, gap = 1.3, 0.13 * rows + 0.13, 0.35
    height = 0.1 + above + gap + below + 0.6
    figure = Figure(figsize=(9, height))
    share, holes = figure.subplots(2, 1, sharex=True, height_ratios=[above, below])
    figure.subplots_adjust(
        *(0.08, 0.6 / height, 0.95, 1 - 0.1 / height), hspace=gap / ((above + below) / 2)
    )
    percent = 100 * sessions["share_present"].to_numpy()
    share.plot(percent, drawstyle="steps-mid", linewidth=1, marker="." if len(percent) < 3 else "")
    share.set_ylim(min(percent.min() - 1, 95), 100.5)
    share.set_ylabel("% present")
    share.spines[["top", "right"]].set_visible(False)
    cells = np.zeros((rows, sessions.height), dtype=np.int8)
    shown = covered.filter(pl.col("symbol").is_in(with_holes.implode()))
    row = shown["symbol"].cast(pl.Enum(with_holes)).to_physical().to_numpy()
    column = np.searchsorted(
        sessions["session"].to_physical().to_numpy(), shown["session"].to_physical().to_numpy()
    )
    cells[row, column] = shown["state"].cast(pl.Enum(list(STATE_COLOURS))).to_physical() + 1
    holes.imshow(
        cells,
        aspect="auto",
        interpolation="nearest",
        cmap=ListedColormap(["white", *STATE_COLOURS.values()]),
        vmin=0,
        vmax=len(STATE_COLOURS),
    )
    holes.set_yticks(range(len(with_holes)), with_holes.to_list(), fontsize=6)
    step = max(sessions.height // 8, 1)
    holes.set_xticks(
        range(0, sessions.height, step),
        [str(day) for day in sessions["session"][::step]],
        fontsize=7,
    )
    figure.legend(
        handles=[Patch(color=colour, label=state) for state, colour in STATE_COLOURS.items()],
        loc="lower center",
        ncols=len(STATE_COLOURS),
        frameon=False,
        fontsize=7,
    )
    holes.set_title(
        f"symbols with most holes: {len(with_holes)} of {covered['symbol'].n_unique()}", fontsize=8
    )
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
