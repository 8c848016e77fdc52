"""Pictures of a model's evidence, for the UI.

Belongs here: figures from frames that are already computed. Does not belong here: the numbers
(`evaluation.py`). Figures are made without pyplot, which keeps global state and is not safe in threads.
"""

from __future__ import annotations

import polars as pl
from matplotlib.figure import Figure

ROLLING_SESSIONS = 21


def feature_importance_bars(importance: pl.DataFrame, title: str, top: int = 20) -> Figure:
    """Horizontal bars of the features with the largest share of gain, the largest on top.

    Args:
        importance: `feature` and `share`, descending (`evaluation.feature_importance`).
        title: Title of the picture.
        top: How many features to show.
    """
    shown = importance.head(top).reverse()
    figure = Figure(figsize=(7, 0.6 + 0.24 * max(shown.height, 4)), layout="constrained")
    axes = figure.subplots()
    axes.barh(shown.get_column("feature").to_list(), shown.get_column("share").to_numpy() * 100)
    axes.set_xlabel("share of gain, %")
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def daily_ic_plot(daily: pl.DataFrame, title: str) -> Figure:
    """Bars of the daily IC with its mean and its rolling mean.

    Args:
        daily: `session` and `ic` (`evaluation.daily_ic`).
        title: Title of the picture.
    """
    known = daily.drop_nulls("ic")
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    sessions = known.get_column("session").to_list()
    values = known.get_column("ic")
    axes.bar(sessions, values.to_list(), width=1.0, color="0.75", label="daily IC")
    if known.height:
        rolling = values.rolling_mean(ROLLING_SESSIONS, min_samples=1)
        axes.plot(sessions, rolling.to_list(), label=f"mean of {ROLLING_SESSIONS} sessions")
        mean = float(values.to_numpy().mean())
        axes.axhline(mean, linestyle="--", color="C1", label=f"mean {mean:+.4f}")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylabel("information coefficient")
    axes.set_title(title)
    axes.legend(loc="upper left", fontsize="small", frameon=False, ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
