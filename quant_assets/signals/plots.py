"""Pictures of a session's signals, for the UI.

Belongs here: figures from a signal frame. Does not belong here: what the signals are (`strategies/`).
"""

from __future__ import annotations

import polars as pl
from matplotlib.figure import Figure

COLOURS = {"BUY": "C2", "SELL": "C3", "HOLD": "0.75"}


def signal_picture(signals: pl.DataFrame, title: str, names: int = 30) -> Figure:
    """The distribution of scores beside the largest target weights of one session.

    Args:
        signals: Rows of one session of a signal table.
        title: Title of the picture.
        names: How many weights to show, largest in size first.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title)
    scores, weights = figure.subplots(1, 2)
    shown = [side for side in COLOURS if side in signals.get_column("side")]
    scores.hist(
        [signals.filter(side=side).get_column("score").to_numpy() for side in shown],
        bins=25,
        stacked=True,
        color=[COLOURS[side] for side in shown],
        label=shown,
    )
    scores.set_xlabel("score")
    scores.set_ylabel("names")
    if shown:
        scores.legend(frameon=False, fontsize="small")
    held = (
        signals.filter(pl.col("target_weight") != 0)
        .sort(pl.col("target_weight").abs(), "security_id", descending=[True, False])
        .head(names)
        .sort("target_weight", "security_id", descending=[True, False])
    )
    weights.bar(
        held.get_column("symbol").to_list(),
        held.get_column("target_weight").to_numpy() * 100,
        color=[COLOURS[side] for side in held.get_column("side")],
    )
    weights.axhline(0, color="black", linewidth=0.8)
    weights.set_ylabel("target weight, %")
    weights.tick_params(axis="x", labelrotation=90, labelsize="x-small")
    for axes in (scores, weights):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
