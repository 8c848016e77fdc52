"""Pictures of performance for asset metadata, drawn with matplotlib.

Belongs here: figures from frames that are already computed. Does not belong here: the numbers (`metrics`,
`backtest`) and the interactive report (`tear_sheet`). Figures are made without pyplot, which keeps global
state, so nothing here needs a display.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl
    from matplotlib.axes import Axes

BLUE, RED, GREY, GREEN = "#2457c5", "#c8443c", "#8a94a6", "#1d8a5f"
_COLOURS = (BLUE, "#e08a1e", GREEN, "#8250c4", "#0f96a8", "#b8457f")


def backtest_picture(path: pl.DataFrame, title: str) -> Figure:
    """Equity before and after costs, drawdown and exposure of a backtest, one above the other.

    Args:
        path: Rows of `performance/backtest_<strategy>`.
        title: Title of the picture.
    """
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    equity, drawdown, exposed = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1.2, 1.2))
    sessions = path.get_column("session").to_list()
    gross = (1.0 + path.get_column("gross_return")).cum_prod()
    equity.plot(sessions, gross, color=GREY, linewidth=1.0, label="before costs")
    equity.plot(sessions, path.get_column("equity"), color=BLUE, linewidth=1.6, label="after costs")
    equity.axhline(1.0, color="black", linewidth=0.6)
    equity.set_ylabel("equity, start = 1")
    equity.legend(
        loc="lower left", bbox_to_anchor=(0.0, 0.98), frameon=False, fontsize="small", ncols=2
    )
    _draw_drawdown(drawdown, path)
    _draw_exposure(exposed, path)
    _clean(equity, drawdown, exposed)
    return figure


def account_picture(account: pl.DataFrame, title: str) -> Figure:
    """Equity of the account over its exposure.

    Args:
        account: trading_session, equity (USD), gross_exposure and net_exposure (fractions).
        title: Title of the picture.
    """
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    equity, exposed = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    account = account.rename({"trading_session": "session"})
    equity.plot(
        account.get_column("session").to_list(),
        account.get_column("equity"),
        color=BLUE,
        linewidth=1.6,
        marker="o",
        markersize=3,
    )
    equity.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    equity.set_ylabel("equity, USD")
    _draw_exposure(exposed, account)
    _clean(equity, exposed)
    return figure


def comparison_picture(performance: pl.DataFrame, title: str) -> Figure:
    """Cumulative return and information coefficient of every strategy.

    Args:
        performance: Rows of `performance/strategy_performance`.
        title: Title of the picture.
    """
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    earned, skill = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    parts: Mapping[tuple[object, ...], pl.DataFrame] = performance.sort("session").partition_by(
        "strategy", as_dict=True
    )
    for i, ((strategy,), own) in enumerate(sorted(parts.items(), key=str)):
        colour = _COLOURS[i % len(_COLOURS)]
        sessions = own.get_column("session").to_list()
        earned.plot(sessions, own.get_column("cumulative_return"), color=colour, label=strategy)
        coefficient = own.get_column("information_coefficient").rolling_mean(21, min_samples=1)
        skill.plot(sessions, coefficient, color=colour, linewidth=1.0)
    for axes in (earned, skill):
        axes.axhline(0.0, color="black", linewidth=0.6)
    earned.yaxis.set_major_formatter(PercentFormatter(1.0))
    earned.set_ylabel("return, 63 sessions")
    skill.set_ylabel("IC, mean of 21")
    if parts:
        earned.legend(
            loc="lower left", bbox_to_anchor=(0.0, 0.98), frameon=False, fontsize="small", ncols=3
        )
    _clean(earned, skill)
    return figure


def _draw_drawdown(axes: Axes, path: pl.DataFrame) -> None:
    sessions = path.get_column("session").to_list()
    axes.fill_between(
        sessions, path.get_column("drawdown"), 0.0, color=RED, alpha=0.35, linewidth=0
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylabel("drawdown")


def _draw_exposure(axes: Axes, frame: pl.DataFrame) -> None:
    sessions = frame.get_column("session").to_list()
    axes.plot(
        sessions, frame.get_column("gross_exposure"), color=GREY, linewidth=1.0, label="gross"
    )
    axes.plot(sessions, frame.get_column("net_exposure"), color=GREEN, linewidth=1.2, label="net")
    axes.axhline(0.0, color="black", linewidth=0.6)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylabel("exposure")
    axes.legend(
        loc="lower left", bbox_to_anchor=(0.0, 0.98), frameon=False, fontsize="small", ncols=2
    )


def _clean(*all_axes: Axes) -> None:
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize="small")
