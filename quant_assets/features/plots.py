"""Pictures of features and labels, for the UI.

Belongs here: figures from frames that are already computed. Does not belong here: the numbers.
Figures are made without pyplot, which keeps global state and is not safe in threads.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from quant_assets.features.alpha158_formulas import ROLLING_FORMULAS, WINDOWS


def alpha158_overview(frame: pl.DataFrame, missing: pl.DataFrame) -> Figure:
    """The rolling groups: how much is missing, and how their values are distributed.

    Args:
        frame: Rows of features/alpha158.
        missing: `column` and `missing_share` (`missing_shares`).
    """
    share = dict(missing.iter_rows())
    groups = list(ROLLING_FORMULAS)
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 2), sharey=True)
    image = left.imshow(
        np.array([[100 * share[f"{group}{window}"] for window in WINDOWS] for group in groups]),
        aspect="auto",
        cmap="Oranges",
        vmin=0,
    )
    left.set_xticks(range(len(WINDOWS)), [str(window) for window in WINDOWS])
    left.set_yticks(range(len(groups)), groups, fontsize="small")
    left.set_title("missing, %")
    figure.colorbar(image, ax=left)
    middle = WINDOWS[len(WINDOWS) // 2]
    scaled = [_standardised(frame[f"{group}{middle}"]) for group in groups]
    right.boxplot(
        scaled, positions=range(len(groups)), orientation="horizontal", showfliers=False, widths=0.6
    )
    right.set_yticks(range(len(groups)), groups)
    right.set_title(f"values at {middle} sessions, in robust standard deviations")
    right.spines[["top", "right"]].set_visible(False)
    return figure


def histograms(frame: pl.DataFrame, columns: Sequence[str], across: int = 4) -> Figure:
    """One histogram per column, between its 0.5 % and 99.5 % quantiles."""
    down = -(-len(columns) // across)
    figure = Figure(figsize=(2.6 * across, 1.7 * down), layout="constrained")
    axes = np.atleast_1d(figure.subplots(down, across)).ravel()
    for place, name in zip(axes, columns, strict=False):
        values = frame[name].drop_nulls().to_numpy()
        if len(values):
            low, high = np.quantile(values, [0.005, 0.995])
            place.hist(values, bins=40, range=(low, high) if high > low else None)
        place.set_title(name, fontsize="small")
        place.tick_params(labelsize="x-small")
        place.spines[["top", "right"]].set_visible(False)
    for place in axes[len(columns) :]:
        place.set_axis_off()
    return figure


def _standardised(values: pl.Series) -> np.ndarray:
    known = values.drop_nans().drop_nulls().to_numpy().astype(np.float64)
    if not len(known):
        return known
    median = np.median(known)
    scale = 1.4826 * np.median(np.abs(known - median))
    return np.clip((known - median) / (scale or 1.0), -6, 6)
