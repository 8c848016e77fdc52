"""The charts of the tear sheet, drawn with Plotly.

Belongs here: one function per chart, from frames to a figure. Does not belong here: the numbers
(`trading_evidence`, `metrics`) and the page around the charts (`tear_sheet`).

Names come from data and are escaped, because Plotly reads HTML in labels.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from quant_assets.performance import metrics
from quant_assets.performance.profit_and_loss import UNATTRIBUTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

INK, MUTED, LINE, ACCENT, LOSS, GAIN = (
    "#172033",
    "#6b7689",
    "#e6e9ef",
    "#2457c5",
    "#c8443c",
    "#1d8a5f",
)
PALETTE: Final = ("#e08a1e", "#1d8a5f", "#8250c4", "#0f96a8", "#b8457f", "#7a8b2e", "#a5663f")
FONT: Final = "Inter, 'Segoe UI', 'Helvetica Neue', Helvetica, Arial, sans-serif"
_WEEKENDS: Final = [{"bounds": ["sat", "mon"]}]


def strategy_colours(strategies: Iterable[str]) -> dict[str, str]:
    """A colour per strategy, the same in every chart."""
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(sorted(strategies))}
    return {**colours, UNATTRIBUTED: "#b4bccb"}


def live_equity(
    series: pl.DataFrame, backtests: Mapping[str, pl.DataFrame], colours: Mapping[str, str]
) -> go.Figure:
    """Growth of the account beside the backtests of the same sessions, both starting at 100."""
    figure = go.Figure()
    sessions = series.get_column("trading_session")
    for name, path in sorted(backtests.items()):
        same = path.filter(pl.col("session").is_in(sessions.implode())).sort("session")
        growth = metrics.equity_curve(same.get_column("net_return").to_numpy())
        figure.add_scatter(
            x=same.get_column("session").to_list(),
            y=100.0 * growth,
            name=f"{escape(name)} (backtest)",
            line={"color": colours[name], "width": 1.6, "dash": "dot"},
            hovertemplate="%{y:.2f}",
        )
    figure.add_scatter(
        x=sessions.to_list(),
        y=100.0 * series.get_column("growth").to_numpy(),
        name="account",
        mode="lines+markers",
        line={"color": ACCENT, "width": 2.6},
        marker={"size": 5},
        hovertemplate="%{y:.2f}",
    )
    figure.add_hline(y=100, line={"color": MUTED, "width": 1})
    return _styled(figure, y_title="start = 100", weekends=True)


def backtest_history(
    backtests: Mapping[str, pl.DataFrame],
    series: pl.DataFrame,
    colours: Mapping[str, str],
) -> go.Figure:
    """Equity of every backtest over all history with its drawdown below; the traded sessions are shaded."""
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.7, 0.3], vertical_spacing=0.06
    )
    for name, path in sorted(backtests.items()):
        sessions = path.get_column("session").to_list()
        line = {"color": colours[name], "width": 1.8}
        figure.add_scatter(
            x=sessions,
            y=path.get_column("equity").to_list(),
            name=escape(name),
            line=line,
            hovertemplate="%{y:.3f}",
            row=1,
            col=1,
        )
        figure.add_scatter(
            x=sessions,
            y=path.get_column("drawdown").to_list(),
            name=escape(name),
            showlegend=False,
            line={**line, "width": 1.0},
            fill="tozeroy",
            opacity=0.6,
            hovertemplate="%{y:.1%}",
            row=2,
            col=1,
        )
    if series.height > 1 and backtests:
        traded = series.get_column("trading_session")
        figure.add_vrect(x0=traded[0], x1=traded[-1], fillcolor=ACCENT, opacity=0.08, line_width=0)
    figure = _styled(figure, height=430)
    figure.update_yaxes(title_text="equity, start = 1", row=1, col=1)
    figure.update_yaxes(title_text="drawdown", tickformat=".0%", row=2, col=1)
    return figure


def daily_profit(daily_pnl: pl.DataFrame, colours: Mapping[str, str]) -> go.Figure:
    """Profit and loss of every session, stacked by strategy, with the running total."""
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    by_day = (
        daily_pnl.group_by("trading_session", "strategy")
        .agg(pl.col("pnl").sum())
        .sort("trading_session", "strategy")
    )
    for (name,), own in sorted(by_day.partition_by("strategy", as_dict=True).items(), key=str):
        figure.add_bar(
            x=own.get_column("trading_session").to_list(),
            y=own.get_column("pnl").to_list(),
            name=escape(str(name)),
            marker={"color": colours[str(name)], "line": {"width": 0}},
            hovertemplate="%{y:$,.0f}",
        )
    total = by_day.group_by("trading_session").agg(pl.col("pnl").sum()).sort("trading_session")
    figure.add_scatter(
        x=total.get_column("trading_session").to_list(),
        y=total.get_column("pnl").cum_sum().to_list(),
        name="total",
        line={"color": ACCENT, "width": 2.2},
        hovertemplate="%{y:$,.0f}",
        secondary_y=True,
    )
    figure.update_layout(barmode="relative", bargap=0.35)
    figure = _styled(figure, y_title="per session", weekends=True)
    figure.update_yaxes(tickformat="$~s")
    figure.update_yaxes(
        title_text="running total", showgrid=False, tickmode="auto", secondary_y=True
    )
    return figure


def drawdown(series: pl.DataFrame) -> go.Figure:
    """How far the account is below its highest value."""
    figure = go.Figure()
    figure.add_scatter(
        x=series.get_column("trading_session").to_list(),
        y=series.get_column("drawdown").to_list(),
        name="drawdown",
        fill="tozeroy",
        line={"color": LOSS, "width": 1.6},
        fillcolor="rgba(200, 68, 60, 0.18)",
        hovertemplate="%{y:.2%}",
    )
    return _styled(figure, tick_format=".2%", weekends=True, legend=False)


def exposure(series: pl.DataFrame) -> go.Figure:
    """Gross and net exposure of the account at every close."""
    figure = go.Figure()
    sessions = series.get_column("trading_session").to_list()
    for column, colour in (("gross_exposure", MUTED), ("net_exposure", GAIN)):
        figure.add_scatter(
            x=sessions,
            y=series.get_column(column).to_list(),
            name=column.split("_")[0],
            mode="lines+markers",
            marker={"size": 5},
            line={"color": colour, "width": 2.0},
            hovertemplate="%{y:.1%}",
        )
    figure.add_hline(y=0, line={"color": MUTED, "width": 1})
    return _styled(figure, tick_format=".0%", weekends=True)


def turnover(series: pl.DataFrame) -> go.Figure:
    """Value traded in every session over the equity, both sides counted."""
    figure = go.Figure()
    figure.add_bar(
        x=series.get_column("trading_session").to_list(),
        y=series.get_column("turnover").to_list(),
        name="turnover",
        marker={"color": "#8fa9dd", "line": {"width": 0}},
        hovertemplate="%{y:.1%}",
    )
    figure.update_layout(bargap=0.35)
    return _styled(figure, tick_format=".0%", weekends=True, legend=False)


def model_skill(models: pl.DataFrame) -> go.Figure:
    """Out-of-sample information coefficient of the model of every month, with its standard error."""
    figure = go.Figure()
    models = models.sort("month")
    error = pl.col("ic_std") / pl.col("validation_sessions").cast(pl.Float64).sqrt()
    for i, ((name,), own) in enumerate(
        sorted(models.partition_by("model_name", as_dict=True).items(), key=str)
    ):
        figure.add_bar(
            x=own.get_column("month").to_list(),
            y=own.get_column("ic_mean").to_list(),
            name=escape(str(name)),
            error_y={
                "type": "data",
                "array": own.select(error).to_series().to_list(),
                "color": MUTED,
                "thickness": 1.2,
                "width": 3,
            },
            marker={"color": (ACCENT, *PALETTE)[i % (1 + len(PALETTE))], "line": {"width": 0}},
            customdata=[escape(version) for version in own.get_column("model_version")],
            hovertemplate="%{y:.4f}<br>%{customdata}",
        )
    figure.add_hline(y=0, line={"color": MUTED, "width": 1})
    figure.update_layout(bargap=0.35)
    return _styled(figure, tick_format=".3f")


def _styled(
    figure: go.Figure,
    *,
    y_title: str = "",
    tick_format: str | None = None,
    height: int = 300,
    weekends: bool = False,
    legend: bool = True,
) -> go.Figure:
    """The one look of all charts."""
    axis: dict[str, Any] = {
        "gridcolor": LINE,
        "linecolor": LINE,
        "zeroline": False,
        "tickfont": {"size": 11, "color": MUTED},
        "title_font": {"size": 11, "color": MUTED},
        "automargin": True,
    }
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 10, "r": 10, "t": 8, "b": 8},
        font={"family": FONT, "size": 12, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="x unified",
        hoverlabel={"bgcolor": "white", "bordercolor": LINE, "font": {"size": 12}},
        showlegend=legend,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11}},
    )
    figure.update_xaxes(**axis, showgrid=False, hoverformat="%a %d %b %Y")
    if weekends:
        figure.update_xaxes(rangebreaks=_WEEKENDS)
    figure.update_yaxes(**axis, tickformat=tick_format)
    if y_title:
        figure.update_yaxes(title_text=y_title)
    return figure
