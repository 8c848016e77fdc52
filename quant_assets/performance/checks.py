"""What must hold of the performance tables, beyond what their declarations say.

Belongs here: rules that need thought or another table. Does not belong here: bounds, missing values and keys, which
are generated from the tables (`schemas.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
import polars as pl

from quant_assets.findings import Finding
from quant_assets.orders.schemas import ACCOUNT
from quant_assets.performance import metrics
from quant_assets.performance.ledger_evidence import session_in_ledger
from quant_assets.performance.profit_and_loss import FLOW_TYPES, RESIDUAL
from quant_assets.performance.schemas import (
    DAILY_PNL,
    REPORT,
    STRATEGY_PERFORMANCE,
    backtest_table,
)
from quant_assets.signals.strategy import Strategy
from quant_assets.table_checks import CheckScope, TableCheck

TOLERANCE_USD = 0.01
"""What rounding may cost: the broker reports equity in cents."""
UNEXPLAINED_BPS = 1.0
"""Basis points of the equity that may stay unexplained before money must stop."""
RETURN_TOLERANCE = 1e-9
POOR_SHARPE = 0.0
POOR_DRAWDOWN = -0.15


def performance_checks(strategies: Iterable[Strategy]) -> tuple[TableCheck, ...]:
    """The checks of the stage; comparison and backtests follow the given strategies."""
    chosen = tuple(strategies)
    return (
        TableCheck(
            DAILY_PNL,
            "adds_up_to_the_equity",
            "Profit and loss of all strategies and names adds up to the change of the account's equity, "
            f"and at most {UNEXPLAINED_BPS:g} bp of it is unexplained.",
            adds_up_to_the_equity,
        ),
        TableCheck(
            REPORT,
            "equity_is_positive",
            "The account is worth something, and the report's numbers are those of the account.",
            equity_is_positive,
        ),
        TableCheck(
            STRATEGY_PERFORMANCE,
            "every_strategy_is_ranked_once",
            "Every session ranks every strategy once, the best first, without a gap.",
            partial(every_strategy_is_ranked_once, tuple(strategy.name for strategy in chosen)),
        ),
        TableCheck(
            STRATEGY_PERFORMANCE,
            "no_underperformers",
            f"No strategy has a Sharpe ratio below {POOR_SHARPE:g} or a drawdown beyond {-POOR_DRAWDOWN:.0%} "
            "over the compared sessions.",
            no_underperformers,
            blocking=False,
        ),
        *(
            TableCheck(
                backtest_table(strategy.name),
                "equity_follows_from_returns",
                "Equity is positive and finite, compounds the net returns, and drawdown is its distance from "
                "the peak.",
                equity_follows_from_returns,
            )
            for strategy in chosen
        ),
    )


def adds_up_to_the_equity(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """Sum of the rows against the account, read again from evidence and ledger."""
    broken: list[dict[str, object]] = []
    for key in scope.partition_keys:
        account = scope.store.read(ACCOUNT, [key]).collect().row(0, named=True)
        start = session_in_ledger(scope.ledger, account["account_id"], account["trading_session"])
        flows = start.activities.filter(pl.col("activity_type").is_in(FLOW_TYPES))
        change = account["equity"] - start.equity_before - flows.get_column("net_amount").sum()
        own = frame.filter(pl.col("trading_session") == account["trading_session"])
        added = float(own.get_column("pnl").sum())
        unexplained = float(own.filter(symbol=RESIDUAL).get_column("pnl").sum())
        allowed = max(TOLERANCE_USD, abs(start.equity_before) * UNEXPLAINED_BPS / 10_000.0)
        if abs(added - change) > TOLERANCE_USD or abs(unexplained) > allowed:
            broken.append(
                {
                    "trading_session": key,
                    "pnl": added,
                    "change_of_equity": change,
                    "unexplained": unexplained,
                    "allowed": allowed,
                }
            )
    if broken:
        return Finding(
            False,
            f"In {len(broken)} session(s) profit and loss does not explain the change of equity: "
            f"{broken[0]['unexplained']:,.2f} USD are unexplained in {broken[0]['trading_session']}.",
            len(broken),
            pl.DataFrame(broken),
            "Compare the account's activities at the broker with the ledger's (quant status), book what "
            "is missing, then materialize performance/daily_pnl again.",
        )
    total = float(frame.filter(symbol=RESIDUAL).get_column("pnl").abs().sum())
    return Finding(True, f"Adds up to the change of equity; {total:,.2f} USD are unexplained.")


def equity_is_positive(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """The metric `equity` against the account."""
    account = scope.store.read(ACCOUNT, scope.partition_keys).collect()
    stated = frame.filter(metric="equity").select("trading_session", stated="value")
    compared = account.select("trading_session", "equity").join(
        stated, on="trading_session", how="left"
    )
    broken = compared.filter(
        ~(pl.col("equity") > 0.0).fill_null(False)
        | ~((pl.col("equity") - pl.col("stated")).abs() <= TOLERANCE_USD).fill_null(False)
    )
    if broken.height:
        return Finding(
            False,
            f"{broken.height} report(s) have an equity that is not positive or not the account's.",
            broken.height,
            broken,
            "Look at orders/account of the session, then materialize performance/report again.",
        )
    return Finding(
        True, f"The equity of {compared.height} report(s) is positive and the account's."
    )


def every_strategy_is_ranked_once(
    strategies: tuple[str, ...], frame: pl.DataFrame, scope: CheckScope
) -> Finding:
    """Strategies and ranks of every session of the run."""
    wanted = sorted(strategies)
    sessions = frame.group_by(pl.col("session").cast(pl.String)).agg(
        pl.col("strategy").sort(), pl.col("rank").sort()
    )
    seen = {session: (named, ranks) for session, named, ranks in sessions.iter_rows() if named}
    expected = (wanted, list(range(1, len(wanted) + 1)))
    broken = [key for key in scope.partition_keys if strategies and seen.get(key) != expected]
    if broken:
        return Finding(
            False,
            f"{len(broken)} session(s) do not rank every strategy once, for example {broken[0]}: "
            f"{seen.get(broken[0], 'no row')} instead of {wanted}.",
            len(broken),
            frame.filter(pl.col("session").cast(pl.String) == broken[0]),
            "Materialize the signals of the missing strategy, then performance/strategy_performance again.",
        )
    return Finding(True, f"{len(scope.partition_keys)} session(s) rank {len(wanted)} strategies.")


def no_underperformers(frame: pl.DataFrame, _scope: CheckScope) -> Finding:
    """Strategies that lose, at the newest session of the run."""
    newest = frame.filter(pl.col("session") == pl.col("session").max())
    poor = newest.filter(
        (pl.col("sharpe_63") < POOR_SHARPE).fill_null(False) | (pl.col("drawdown") < POOR_DRAWDOWN)
    ).select("session", "strategy", "rank", "sharpe_63", "cumulative_return", "drawdown")
    if poor.height:
        names = ", ".join(poor.get_column("strategy"))
        return Finding(
            False,
            f"{poor.height} of {newest.height} strategies underperform at {poor.item(0, 'session')}: {names}.",
            poor.height,
            poor,
            "Look at performance/backtest_<strategy>; lower its allocation or take it out.",
        )
    return Finding(True, f"None of {newest.height} strategies underperforms.")


def equity_follows_from_returns(frame: pl.DataFrame, _scope: CheckScope) -> Finding:
    """Equity and drawdown recomputed from the net returns, and costs from the gross ones."""
    path = frame.sort("session")
    equity = metrics.equity_curve(path.get_column("net_return").to_numpy())
    broken = path.with_columns(
        recomputed=pl.Series(equity, dtype=pl.Float64),
        depth=pl.Series(metrics.drawdowns(equity), dtype=pl.Float64),
    ).filter(
        ~pl.col("equity").is_finite()
        | (pl.col("equity") <= 0.0)
        | ((pl.col("equity") / pl.col("recomputed") - 1.0).abs() > RETURN_TOLERANCE)
        | ((pl.col("drawdown") - pl.col("depth")).abs() > RETURN_TOLERANCE)
        | (
            (pl.col("gross_return") - pl.col("cost") - pl.col("net_return")).abs()
            > RETURN_TOLERANCE
        )
    )
    if broken.height:
        first = broken.row(0, named=True)
        return Finding(
            False,
            f"{broken.height} of {path.height} sessions have an equity that is not positive or does not "
            f"follow from the returns, first {first['session']} with {first['equity']:.6g}.",
            broken.height,
            broken.head(10),
            "An equity of 0 is a strategy that lost everything: lower its leverage. Otherwise materialize again.",
        )
    last = float(np.asarray(equity)[-1]) if path.height else 1.0
    return Finding(True, f"{path.height} sessions compound to {last:.4f}.")
