"""What a trading session's report looks at, and the numbers that follow from it.

Belongs here: the bundle of frames that report and tear sheet are made from, and the pure functions that turn it
into series, metrics per strategy and the rows of `performance/report`. Does not belong here: reading the frames
(`assets`), drawing and writing them (`tear_sheet_charts`, `tear_sheet`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

import polars as pl

from quant_assets.performance import metrics
from quant_assets.performance.profit_and_loss import RESIDUAL, UNATTRIBUTED

SESSIONS_FOR_RATIOS: Final = 20
"""Sessions below which a Sharpe ratio of the account is not shown: it would say nothing."""

STOPPED_STATES: Final = ("refused", "rejected", "expired_unsent")
"""States of an intent that was stopped before it could trade."""


@dataclass(frozen=True)
class TradingEvidence:
    """Everything that a report of one trading session is made from.

    Frames hold the rows of all trading sessions up to this one, where nothing else is said; columns are those of
    the tables of the same name.

    Attributes:
        trading_session: The session that is reported.
        book: Name of the book.
        account: `orders/account`.
        daily_pnl: `performance/daily_pnl`.
        positions: `orders/positions` of the session.
        orders: `orders/orders`.
        fills: `orders/fills`.
        intents: `orders/order_intents`.
        backtests: Strategy to `performance/backtest_<strategy>`.
        comparison: `performance/strategy_performance` of the sessions before.
        models: `models/<model>` of the months until the session.
        checks: name, passed, detail: the newest result of every check.
    """

    trading_session: date
    book: str
    account: pl.DataFrame
    daily_pnl: pl.DataFrame
    positions: pl.DataFrame
    orders: pl.DataFrame
    fills: pl.DataFrame
    intents: pl.DataFrame
    backtests: Mapping[str, pl.DataFrame]
    comparison: pl.DataFrame
    models: pl.DataFrame
    checks: pl.DataFrame


def account_series(evidence: TradingEvidence) -> pl.DataFrame:
    """The account, session by session.

    Returns:
        trading_session, equity, pnl (USD), daily_return (pnl over the equity without it, so that a deposit is no
        return), growth (multiple of the start), drawdown (<= 0), turnover, gross_exposure, net_exposure, cost;
        ascending, only sessions that have both the account and its profit and loss.
    """
    day = pl.col("trading_session")
    traded = evidence.daily_pnl.group_by(day).agg(
        pl.col("pnl", "notional_traded", "cost", "dividends").sum()
    )
    frame = (
        evidence.account.join(traded, on="trading_session")
        .sort("trading_session")
        .with_columns(
            base=pl.when(pl.col("equity") > pl.col("pnl")).then(pl.col("equity") - pl.col("pnl"))
        )
        .with_columns(
            daily_return=(pl.col("pnl") / pl.col("base")).fill_null(0.0),
            turnover=(pl.col("notional_traded") / pl.col("base")).fill_null(0.0),
        )
    )
    growth = metrics.equity_curve(frame.get_column("daily_return").to_numpy())
    return frame.with_columns(
        growth=pl.Series(growth, dtype=pl.Float64),
        drawdown=pl.Series(metrics.drawdowns(growth), dtype=pl.Float64),
    ).select(
        "trading_session",
        "equity",
        "pnl",
        "daily_return",
        "growth",
        "drawdown",
        "turnover",
        "gross_exposure",
        "net_exposure",
        "cost",
        "dividends",
    )


def strategy_metrics(evidence: TradingEvidence) -> pl.DataFrame:
    """One row per strategy: what it earned in trading and what its backtest says.

    Returns:
        strategy, live_pnl, live_traded (USD), then `metrics.summary` of the backtest, turnover and cost (mean
        per session), information_coefficient (mean), sharpe_63, rank (newest); null where there is nothing.
    """
    live = {
        row["strategy"]: row
        for row in evidence.daily_pnl.group_by("strategy")
        .agg(pl.col("pnl", "notional_traded").sum())
        .iter_rows(named=True)
    }
    compared = {
        str(name): own.sort("session")
        for (name,), own in evidence.comparison.partition_by("strategy", as_dict=True).items()
    }
    names = sorted({*live, *evidence.backtests, *compared} - {UNATTRIBUTED})
    rows = []
    for name in names:
        path, own = evidence.backtests.get(name), compared.get(name)
        returns = [] if path is None else path.get_column("net_return").to_numpy()
        row: dict[str, object] = {
            "strategy": name,
            "live_pnl": live.get(name, {}).get("pnl"),
            "live_traded": live.get(name, {}).get("notional_traded"),
            **{key: _or_none(value) for key, value in metrics.summary(returns).items()},
            "turnover": None if path is None else path.get_column("turnover").mean(),
            "cost": None if path is None else path.get_column("cost").mean(),
            "information_coefficient": None,
            "sharpe_63": None,
            "rank": None,
        }
        if own is not None and own.height:
            row["information_coefficient"] = own.get_column("information_coefficient").mean()
            row["sharpe_63"] = own.item(-1, "sharpe_63")
            row["rank"] = own.item(-1, "rank")
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def stopped_intents(evidence: TradingEvidence) -> pl.DataFrame:
    """Intents that a limit, the broker or a deadline stopped, newest session first."""
    return evidence.intents.filter(pl.col("state").is_in(STOPPED_STATES)).sort(
        "trading_session", "symbol", descending=[True, False]
    )


def report_rows(evidence: TradingEvidence) -> pl.DataFrame:
    """The rows of `performance/report`: the trading day in numbers.

    A metric that needs more sessions than there are has an empty value and says so in its text.
    """
    day = evidence.trading_session
    series = account_series(evidence)
    today = series.filter(trading_session=day)
    own = evidence.daily_pnl.filter(trading_session=day)
    orders, fills, intents, stopped = (
        frame.filter(pl.col("trading_session") == day)
        for frame in (evidence.orders, evidence.fills, evidence.intents, stopped_intents(evidence))
    )
    returns = series.get_column("daily_return").to_numpy()
    rows: list[tuple[str, float | None, str]] = []

    def add(name: str, value: object, unit: str) -> None:
        number = _or_none(float(value)) if isinstance(value, int | float) else None
        rows.append((name, number, reading(number, unit)))

    def of_today(column: str) -> object:
        return today.item(0, column) if today.height else None

    add("equity", of_today("equity"), "USD")
    add("daily_pnl", of_today("pnl"), "USD")
    add("daily_return", of_today("daily_return"), "%")
    add("total_pnl", series.get_column("pnl").sum(), "USD")
    add("total_return", metrics.total_return(returns), "%")
    add("max_drawdown", metrics.max_drawdown(returns), "%")
    enough = len(returns) >= SESSIONS_FOR_RATIOS
    add("sharpe", metrics.sharpe_ratio(returns) if enough else None, "")
    add("win_rate", metrics.win_rate(returns), "%")
    add("gross_exposure", of_today("gross_exposure"), "%")
    add("net_exposure", of_today("net_exposure"), "%")
    add("turnover", of_today("turnover"), "%")
    add("cost", of_today("cost"), "USD")
    add("dividends", of_today("dividends"), "USD")
    add("positions", evidence.positions.filter(pl.col("quantity") != 0).height, "count")
    add("intents", intents.height, "count")
    add("orders", orders.height, "count")
    add("fills", fills.filter(pl.col("quantity") > 0).height, "count")
    # A replacement fills what its entry wanted; protective legs want nothing by themselves.
    entries = orders.filter(role="entry")
    wanted = float(entries.get_column("quantity").sum())
    sized = orders.filter(pl.col("role").is_in(("entry", "replacement")))
    filled = float(sized.filter(pl.col("quantity").is_not_null())["filled_quantity"].sum())
    add("filled_share", filled / wanted if wanted else None, "%")
    add("stopped_intents", stopped.height, "count")
    add("failed_checks", evidence.checks.filter(~pl.col("passed")).height, "count")
    by_strategy = own.group_by("strategy").agg(pl.col("pnl").sum()).sort("strategy")
    for strategy, pnl in by_strategy.iter_rows():
        add(f"pnl_{strategy}", pnl, "USD")
    residual = own.filter(symbol=RESIDUAL).get_column("pnl").sum()
    add("unexplained_pnl", residual, "USD")
    return pl.DataFrame(
        [(day, *row) for row in rows],
        schema={
            "trading_session": pl.Date,
            "metric": pl.String,
            "value": pl.Float64,
            "text": pl.String,
        },
        orient="row",
    )


def reading(value: float | None, unit: str) -> str:
    """A number as it is read out: "USD" with cents, "%" of a fraction, "count" whole, "" two decimals."""
    if value is None or math.isnan(value):
        return "not defined yet"
    if unit == "USD":
        amount = round(value, 2) + 0.0  # a rounded -0.0 becomes 0.0
        return f"{'-' if amount < 0 else ''}${abs(amount):,.2f}"
    if unit == "%":
        return f"{value:.2%}"
    if unit == "count":
        return f"{value:,.0f}"
    return f"{value:.2f}"


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
