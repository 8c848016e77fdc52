"""The assets of the performance stage: inputs read, one pure function called, metadata attached.

Belongs here: the graph's side of the stage. Does not belong here: anything that computes.

Signals, backtests and earlier sessions are read from the store, whatever of them is there: a strategy that failed
for a session, or a session that was not traded, must not stop the others' report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from quant_assets.market_data.schemas import BARS
from quant_assets.models.schemas import MODEL_TABLES
from quant_assets.orders.schemas import (
    ACCOUNT,
    FILLS,
    ORDER_INTENTS,
    ORDERS,
    POSITIONS,
    TARGET_PORTFOLIO,
)
from quant_assets.partitions import previous, same, trailing
from quant_assets.performance import metrics, plots
from quant_assets.performance.backtest import BAR_COLUMNS, SIGNAL_COLUMNS, backtest
from quant_assets.performance.ledger_evidence import session_in_ledger
from quant_assets.performance.profit_and_loss import RESIDUAL, daily_profit_and_loss
from quant_assets.performance.schemas import (
    DAILY_PNL,
    REPORT,
    STRATEGY_PERFORMANCE,
    backtest_table,
)
from quant_assets.performance.strategy_comparison import WINDOW, compare_strategies
from quant_assets.performance.trading_evidence import (
    TradingEvidence,
    account_series,
    report_rows,
    strategy_metrics,
)
from quant_assets.signals.schemas import signal_table
from quant_assets.signals.strategy import Strategy
from quant_assets.table_assets import (
    TableInput,
    TableResult,
    picture,
    sessions_of,
    shown_table,
    table_asset,
)
from quant_resources.errors import DataError
from quant_resources.ledger import Ledger
from quant_resources.store import Store, write_text_atomically
from quant_resources.tables import Table

LATEST = "latest.html"


def performance_assets(strategies: Iterable[Strategy]) -> tuple[dg.AssetsDefinition, ...]:
    """The assets of the stage; comparison and backtests follow the given strategies."""
    chosen = tuple(strategies)
    return (
        daily_pnl,
        _report(chosen),
        _strategy_performance(chosen),
        *(_backtest(strategy) for strategy in chosen),
    )


@table_asset(
    DAILY_PNL,
    ins={
        "fills": TableInput(FILLS, same()),
        "positions": TableInput(POSITIONS, same()),
        "account": TableInput(ACCOUNT, same()),
    },
    deps=[TableInput(TARGET_PORTFOLIO, same())],
)
def daily_pnl(
    context: dg.AssetExecutionContext,
    fills: pl.LazyFrame,
    positions: pl.LazyFrame,
    account: pl.LazyFrame,
    ledger: dg.ResourceParam[Ledger],
) -> TableResult:
    """Profit and loss of the session; see the table."""
    (day,) = sessions_of(context)
    closed = account_of(account, day)
    start = session_in_ledger(ledger, closed["account_id"], day)
    frame = daily_profit_and_loss(
        day,
        before=start.before,
        after=positions.select("symbol", "quantity", "market_price").collect(),
        fills=fills.collect(),
        activities=start.activities,
        targets=start.targets,
        previous_targets=start.previous_targets,
        equity_before=start.equity_before,
        equity_after=closed["equity"],
    )
    by_strategy = (
        frame.group_by("strategy")
        .agg(pl.col("pnl", "notional_traded", "dividends", "cost").sum())
        .sort("strategy")
    )
    return TableResult(
        frame,
        {
            "pnl": frame.get_column("pnl").sum(),
            "unexplained_pnl": frame.filter(symbol=RESIDUAL).get_column("pnl").sum(),
            "measured_since": start.since.isoformat(),
            "equity": closed["equity"],
            "by_strategy": shown_table(by_strategy),
            "names": shown_table(
                frame.select("strategy", "symbol", "quantity", "market_value", "pnl").sort(
                    pl.col("pnl").abs(), "strategy", "symbol", descending=[True, False, False]
                )
            ),
        },
    )


def _report(strategies: tuple[Strategy, ...]) -> dg.AssetsDefinition:
    tested = {strategy.name: backtest_table(strategy.name) for strategy in strategies}

    @table_asset(
        REPORT,
        ins={
            "account": TableInput(ACCOUNT, same()),
            "daily_pnl": TableInput(DAILY_PNL, same()),
            "positions": TableInput(POSITIONS, same()),
        },
        deps=[
            TableInput(ORDERS, same()),
            TableInput(FILLS, same()),
            TableInput(ORDER_INTENTS, same()),
            TableInput(STRATEGY_PERFORMANCE, previous()),
            *(TableInput(table) for table in tested.values()),
        ],
        kinds=("html",),
    )
    def report(
        context: dg.AssetExecutionContext,
        account: pl.LazyFrame,
        daily_pnl: pl.LazyFrame,  # noqa: ARG001 - that it is there is what makes the report complete
        positions: pl.LazyFrame,
        store: dg.ResourceParam[Store],
    ) -> TableResult:
        """The report of the session and its tear sheet; see the table."""
        # Plotly and its script take half a second that no other asset needs.
        from quant_assets.performance.recorded_checks import newest_results
        from quant_assets.performance.tear_sheet import tear_sheet

        (day,) = sessions_of(context)
        account_of(account, day)
        intents = _until(store, ORDER_INTENTS, day)
        evidence = TradingEvidence(
            trading_session=day,
            book=intents.item(-1, "book") if intents.height else "-",
            account=_until(store, ACCOUNT, day),
            daily_pnl=_until(store, DAILY_PNL, day),
            positions=positions.collect(),
            orders=_until(store, ORDERS, day),
            fills=_until(store, FILLS, day),
            intents=intents,
            backtests={
                name: store.read(table).filter(pl.col("session") <= day).collect()
                for name, table in tested.items()
                if store.exists(table)
            },
            # The session's own row exists next morning; a report made again must not know it.
            comparison=_until(store, STRATEGY_PERFORMANCE, day).filter(pl.col("session") < day),
            models=pl.concat([_until(store, table, day) for table in MODEL_TABLES.values()]),
            checks=newest_results(context.instance, strategies),
        )
        page = tear_sheet(evidence)
        folder = store.root / REPORT.path
        for name in (f"{day}.html", LATEST):
            write_text_atomically(folder / name, page)
        rows = report_rows(evidence)
        path = folder / f"{day}.html"
        local = path.protocol in ("", "file", "local")
        address = Path(path.path).resolve().as_uri() if local else str(path)
        numbers = {
            row["metric"]: row["value"]
            for row in rows.iter_rows(named=True)
            if row["value"] is not None
        }
        return TableResult(
            rows,
            {
                "tear_sheet": dg.MetadataValue.url(address),
                **numbers,
                "strategies": shown_table(strategy_metrics(evidence)),
                "picture": picture(
                    plots.account_picture(account_series(evidence), f"Account until {day}")
                ),
            },
        )

    return report


def _strategy_performance(strategies: tuple[Strategy, ...]) -> dg.AssetsDefinition:
    tables = {strategy.name: signal_table(strategy) for strategy in strategies}

    @table_asset(
        STRATEGY_PERFORMANCE,
        ins={"bars": TableInput(BARS, trailing(WINDOW))},
        deps=[
            *(TableInput(table, trailing(WINDOW)) for table in tables.values()),
            TableInput(FILLS, same()),
            TableInput(DAILY_PNL, same()),
        ],
    )
    def strategy_performance(
        context: dg.AssetExecutionContext,
        bars: pl.LazyFrame,
        store: dg.ResourceParam[Store],
    ) -> TableResult:
        """Every strategy over its last sessions; see the table."""
        sessions = sessions_of(context)
        known = bars.select(BAR_COLUMNS).collect()
        days = {str(day) for day in known.get_column("session").unique()}
        columns = (*SIGNAL_COLUMNS, "score")
        frame = compare_strategies(
            {
                name: store.read(
                    table, [key for key in store.partitions(table) if key in days], columns
                ).collect()
                for name, table in tables.items()
            },
            known,
            sessions,
            _filled(store, {str(day) for day in sessions}),
        )
        if frame.is_empty():
            frame = STRATEGY_PERFORMANCE.empty()

        def shown() -> dict[str, Any]:
            newest = frame.filter(session=sessions[-1]).sort("rank")
            drawn = plots.comparison_picture(frame, f"Strategies until {sessions[-1]}")
            return {"ranking": shown_table(newest.drop("session")), "picture": picture(drawn)}

        return TableResult(frame, shown)

    return strategy_performance


def _backtest(strategy: Strategy) -> dg.AssetsDefinition:
    table = signal_table(strategy)

    @table_asset(
        backtest_table(strategy.name),
        # Read by itself: an open market always has a partition that is not there yet.
        deps=[TableInput(table), TableInput(BARS)],
    )
    def tested(context: dg.AssetExecutionContext, store: dg.ResourceParam[Store]) -> TableResult:
        """The backtest of one strategy; see the table."""
        keys = store.partitions(table)
        signals = store.read(table, keys, SIGNAL_COLUMNS).collect()
        # Bars before the first signal can neither be traded nor earn anything.
        sessions = [key for key in store.partitions(BARS) if keys and key >= keys[0]]
        path = backtest(signals, store.read(BARS, sessions, BAR_COLUMNS).collect())
        context.log.info("%s sessions of %s.", path.height, strategy.name)
        return TableResult(path, partial(_backtest_metadata, strategy.name, path))

    return tested


def _backtest_metadata(strategy: str, path: pl.DataFrame) -> dict[str, Any]:
    if path.is_empty():
        return {"no_backtest": f"{strategy} has no signals yet."}
    numbers = metrics.summary(path.get_column("net_return").to_numpy())
    return {
        **{name: value for name, value in numbers.items() if value == value},  # noqa: PLR0124 - NaN
        "mean_turnover": path.get_column("turnover").mean(),
        "mean_cost_bps": float(path.get_column("cost").to_numpy().mean()) * 10_000.0,
        "first_session": str(path.item(0, "session")),
        "last_session": str(path.item(-1, "session")),
        "equity_curve": picture(plots.backtest_picture(path, f"{strategy}, backtest")),
    }


def account_of(account: pl.LazyFrame, day: date) -> Mapping[str, Any]:
    """The one row of a session's account.

    Raises:
        DataError: The evidence of the session is not there.
    """
    rows = account.collect()
    if rows.height != 1:
        raise DataError(
            f"orders/account of {day} holds {rows.height} rows instead of one; materialize the evidence of the "
            "session first."
        )
    return rows.row(0, named=True)


def _until(store: Store, table: Table, day: date) -> pl.DataFrame:
    """Everything that is stored of a table up to a day."""
    keys = [key for key in store.partitions(table) if key <= day.isoformat()]
    return store.read(table, keys).collect()


def _filled(store: Store, sessions: set[str]) -> pl.DataFrame:
    """session, strategy, filled_notional of the sessions that were traded."""
    keys = [key for key in store.partitions(DAILY_PNL) if key in sessions]
    return (
        store.read(DAILY_PNL, keys)
        .group_by("strategy", session="trading_session")
        .agg(filled_notional=pl.col("notional_traded").sum())
        .collect()
    )
