"""Pictures of the orders stage. Numbers come ready; nothing is computed here but sums for bars."""

from __future__ import annotations

import polars as pl
from matplotlib.figure import Figure

_NAMES_SHOWN = 15


def target_picture(targets: pl.DataFrame, title: str) -> Figure:
    """The largest targets by value, long and short, in USD.

    Args:
        targets: symbol, target_quantity, reference_price.
        title: What it shows.
    """
    values = (
        targets.group_by("symbol")
        .agg(value=(pl.col("target_quantity") * pl.col("reference_price")).sum())
        .sort(pl.col("value").abs(), "symbol", descending=[True, False])
        .head(_NAMES_SHOWN)
        .sort("value")
    )
    return _bars(values.get_column("symbol").to_list(), values.get_column("value").to_list(), title)


def exposure_picture(positions: pl.DataFrame, title: str) -> Figure:
    """The largest holdings at their marks, in USD.

    Args:
        positions: symbol, market_value.
        title: What it shows.
    """
    values = (
        positions.filter(pl.col("market_value") != 0)
        .sort(pl.col("market_value").abs(), "symbol", descending=[True, False])
        .head(_NAMES_SHOWN)
        .sort("market_value")
    )
    return _bars(
        values.get_column("symbol").to_list(), values.get_column("market_value").to_list(), title
    )


def _bars(names: list[str], values: list[float], title: str) -> Figure:
    figure = Figure(figsize=(7, max(2.0, 0.28 * len(names) + 0.8)))
    axes = figure.subplots()
    axes.barh(names, values, color=["#2a7f62" if value >= 0 else "#b3413b" for value in values])
    axes.axvline(0, color="#444444", linewidth=0.8)
    axes.set_xlabel("USD")
    axes.set_title(title)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return figure
