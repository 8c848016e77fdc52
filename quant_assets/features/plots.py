"""Pictures of features and labels, for the UI.

Belongs here: figures from frames that are already computed. Does not belong here: the numbers.
Figures are made without pyplot, which keeps global state and is not safe in threads.

Most of what a picture costs is not its data but its axes, ticks and automatic layout (19 histograms
as 19 axes: 3 s). So every panel is drawn into one axes by a few collections, from counts and
quantiles of at most `SAMPLE` rows.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from quant_assets.features.alpha158_formulas import ROLLING, WINDOWS

SAMPLE: Final = 20_000
"""Rows that a picture is drawn from, evenly spread over the frame."""

_BLUE, _GREY = "#2457c5", "#8a94a6"
_BINS: Final = 40


def alpha158_overview(frame: pl.DataFrame, missing: pl.DataFrame) -> Figure:
    """The rolling groups: how much is missing, and how their values are distributed.

    Args:
        frame: Rows of features/alpha158.
        missing: `column` and `missing_share` (`missing_shares`).
    """
    share = dict(missing.iter_rows())
    groups = list(ROLLING)
    percent = np.array(
        [[100 * share[f"{group}{window}"] for window in WINDOWS] for group in groups]
    )
    figure = Figure(figsize=(9, 6.5))
    left = figure.add_axes((0.08, 0.05, 0.25, 0.9))
    left.imshow(percent, aspect="auto", cmap="Oranges", vmin=0, vmax=max(percent.max(), 1.0))
    for row, column in zip(*np.nonzero(percent >= 0.05), strict=True):
        text = f"{percent[row, column]:.1f}"
        left.text(column, row, text, ha="center", va="center", fontsize=6.5)
    left.set_xticks(range(len(WINDOWS)), [str(window) for window in WINDOWS])
    left.set_yticks(range(len(groups)), groups, fontsize="small")
    left.set_title("missing, %", fontsize="medium")

    middle = WINDOWS[len(WINDOWS) // 2]
    sample = _sampled(frame, [f"{group}{middle}" for group in groups])
    levels = np.array([_robust_quantiles(sample[f"{group}{middle}"]) for group in groups])
    right = figure.add_axes((0.37, 0.05, 0.61, 0.9))
    rows = np.arange(len(groups))
    right.hlines(rows, levels[:, 0], levels[:, 4], color=_GREY, linewidth=1)
    right.hlines(rows, levels[:, 1], levels[:, 3], color=_BLUE, linewidth=6)
    right.plot(levels[:, 2], rows, "|", color="white", markersize=6)
    right.set_ylim(len(groups) - 0.5, -0.5)
    right.set_yticks([])
    right.set_title(
        f"5, 25, 50, 75, 95 % of the values at {middle} sessions, in robust standard deviations",
        fontsize="medium",
    )
    right.spines[["top", "right", "left"]].set_visible(False)
    return figure


def histograms(frame: pl.DataFrame, columns: Sequence[str], across: int = 4) -> Figure:
    """One histogram per column, between its 0.5 % and 99.5 % quantiles, which stand below it.

    Args:
        frame: The rows.
        columns: Numeric columns to draw; missing values are left out.
        across: Histograms beside each other.
    """
    down = -(-len(columns) // across)
    figure = Figure(figsize=(2.5 * across, 1.4 * down))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, across), ylim=(down, 0))
    axes.set_axis_off()
    sample = _sampled(frame, columns)
    steps, bases = [], []
    for place, name in enumerate(columns):
        left, base = place % across + 0.06, place // across + 0.8
        axes.text(left, base - 0.64, name, fontsize=8, fontweight="bold")
        bases.append([(left, base), (left + 0.88, base)])
        values = _known(sample[name])
        if not len(values):
            axes.text(left, base + 0.13, "no value", fontsize=7, color=_GREY)
            continue
        low, high = np.quantile(values, [0.005, 0.995])
        axes.text(left, base + 0.13, f"{low:.4g}", fontsize=7, color=_GREY)
        axes.text(left + 0.88, base + 0.13, f"{high:.4g}", fontsize=7, color=_GREY, ha="right")
        counts, edges = np.histogram(values, _BINS, range=(low, high) if high > low else None)
        heights = base - 0.58 * np.repeat(counts / counts.max(), 2)
        ends = np.repeat(np.linspace(left, left + 0.88, len(edges)), 2)
        outline = np.column_stack([ends, np.concatenate([[base], heights, [base]])])
        steps.append(outline)
    axes.add_collection(PolyCollection(steps, facecolor=_BLUE, alpha=0.85, linewidth=0))
    axes.add_collection(LineCollection(bases, color=_GREY, linewidth=0.8))
    return figure


def _sampled(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    return frame.select(columns).gather_every(max(1, -(-frame.height // SAMPLE)))


def _known(values: pl.Series) -> NDArray[np.float64]:
    numbers = values.cast(pl.Float64).to_numpy()
    return numbers[np.isfinite(numbers)]


def _robust_quantiles(values: pl.Series) -> NDArray[np.float64]:
    """5, 25, 50, 75 and 95 % quantiles around the median, over the robust standard deviation."""
    known = _known(values)
    if not len(known):
        return np.full(5, np.nan)
    levels = np.quantile(known, [0.05, 0.25, 0.5, 0.75, 0.95])
    scale = 1.4826 * np.median(np.abs(known - levels[2]))
    return np.clip((levels - levels[2]) / (scale or 1.0), -6, 6)
