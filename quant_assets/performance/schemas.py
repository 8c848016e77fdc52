"""The tables of the performance stage: columns, types, units and bounds, each written once.

Belongs here: declarations. Does not belong here: how the values are computed. Backtests are one table per
strategy, so the stage's tables follow from the list of strategies.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from quant_assets.signals.discovery import discover
from quant_assets.signals.strategy import Strategy
from quant_resources.tables import Column, Table

STAGE = "performance"
COMPARED_SESSIONS = 63
"""Sessions over which strategies are compared: a quarter."""

DAILY_PNL = Table(
    stage=STAGE,
    name="daily_pnl",
    grain="trading_session",
    description=(
        "Profit and loss of the trading session by strategy and symbol, on the broker's closing marks. "
        "pnl adds up to the change of the account's equity, deposits aside: what no strategy caused is "
        "`unattributed`, and what nothing explains is its row RESIDUAL."
    ),
    columns=(
        Column("trading_session", pl.Date, "Trading session"),
        Column("strategy", pl.String, "Strategy whose sleeve it is, or `unattributed`"),
        Column("symbol", pl.String, "Ticker; CASH and RESIDUAL for money without one"),
        Column("quantity", pl.Float64, "Sleeve after the session, negative for short", "shares"),
        Column("notional_traded", pl.Float64, "Value bought and sold", "USD", minimum=0.0),
        Column("market_value", pl.Float64, "Sleeve at the closing mark", "USD"),
        Column("pnl", pl.Float64, "Profit after costs, dividends included", "USD"),
        Column("realised_pnl", pl.Float64, "Part realised by closing trades", "USD"),
        Column("dividends", pl.Float64, "Dividends received, negative when paid", "USD"),
        Column("cost", pl.Float64, "Commissions and fees paid, negative for a refund", "USD"),
    ),
    key=("trading_session", "strategy", "symbol"),
)

REPORT = Table(
    stage=STAGE,
    name="report",
    grain="trading_session",
    description=(
        "The trading day in numbers, one metric a row. The tear sheet of the session is written beside "
        "it as `<trading_session>.html`, and as `latest.html`."
    ),
    columns=(
        Column("trading_session", pl.Date, "Trading session"),
        Column("metric", pl.String, "Name of the metric"),
        Column("value", pl.Float64, "Its value; empty where it is not defined yet", nullable=True),
        Column("text", pl.String, "The value as it is read out, with its unit"),
    ),
    key=("trading_session", "metric"),
)

STRATEGY_PERFORMANCE = Table(
    stage=STAGE,
    name="strategy_performance",
    grain="session",
    description=(
        "Every strategy's signals traded on paper over the last sessions with costs, on validated bars: "
        f"metrics over {COMPARED_SESSIONS} sessions, and its rank among the others."
    ),
    columns=(
        Column("session", pl.Date, "Session"),
        Column("strategy", pl.String, "Strategy"),
        Column("daily_return", pl.Float64, "Return after costs", "fraction", minimum=-1.0),
        Column("turnover", pl.Float64, "Traded value over equity", "fraction", minimum=0.0),
        Column("cost", pl.Float64, "Costs over equity", "fraction", minimum=0.0),
        Column(
            "information_coefficient",
            pl.Float64,
            "Correlation of the scores of two sessions ago with this session's returns",
            nullable=True,
            minimum=-1.0 - 1e-9,
            maximum=1.0 + 1e-9,
        ),
        Column("names", pl.Int32, "Positions at the close", minimum=0),
        Column(
            "cumulative_return",
            pl.Float64,
            f"Compound return of the last {COMPARED_SESSIONS} sessions",
            "fraction",
            minimum=-1.0,
        ),
        Column(
            "sharpe_63",
            pl.Float64,
            f"Annual Sharpe ratio of the last {COMPARED_SESSIONS} sessions; empty before there are so many",
            nullable=True,
        ),
        Column(
            "drawdown",
            pl.Float64,
            f"Below the peak of the last {COMPARED_SESSIONS} sessions",
            "fraction",
            minimum=-1.0,
            maximum=0.0,
        ),
        Column("rank", pl.Int32, "1 is the best Sharpe ratio of the session", minimum=1),
        Column(
            "filled_notional",
            pl.Float64,
            "Value really bought and sold for the strategy; empty when the session was not traded",
            "USD",
            nullable=True,
            minimum=0.0,
        ),
    ),
    key=("session", "strategy"),
)


def backtest_table(strategy: str) -> Table:
    """The table `performance/backtest_<strategy>`."""
    return Table(
        stage=STAGE,
        name=f"backtest_{strategy}",
        grain="none",
        description=(
            f"What the signals of {strategy} would have earned over all stored history: executed at the "
            "next open, with spread, impact and volume limits."
        ),
        columns=(
            Column("session", pl.Date, "Session"),
            Column("gross_return", pl.Float64, "Return before costs", "fraction"),
            Column("cost", pl.Float64, "Costs over the equity before", "fraction", minimum=0.0),
            Column("net_return", pl.Float64, "Return after costs", "fraction", minimum=-1.0),
            Column("equity", pl.Float64, "Multiple of the starting capital", minimum=0.0),
            Column("drawdown", pl.Float64, "Below the peak", "fraction", minimum=-1.0, maximum=0.0),
            Column("turnover", pl.Float64, "Traded value over equity", "fraction", minimum=0.0),
            Column("gross_exposure", pl.Float64, "Long plus short", "fraction", minimum=0.0),
            Column("net_exposure", pl.Float64, "Long minus short", "fraction"),
            Column("names", pl.Int32, "Positions at the close", minimum=0),
        ),
        key=("session",),
    )


def tables(strategies: Iterable[Strategy]) -> tuple[Table, ...]:
    """The tables of the stage, a backtest for every strategy."""
    return (
        DAILY_PNL,
        REPORT,
        STRATEGY_PERFORMANCE,
        *(backtest_table(strategy.name) for strategy in strategies),
    )


TABLES: tuple[Table, ...] = tables(discover())
