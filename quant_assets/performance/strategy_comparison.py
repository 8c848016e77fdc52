"""How the strategies have done lately, session by session, and which one is ahead.

Belongs here: the comparison of strategies over a trailing window, as a pure function. Does not belong here:
the simulation (`backtest`) and the formulas (`metrics`).

1. For every session, every strategy's signals of the last 126 sessions are traded on paper from cash. The first
   63 sessions only build the book: a strategy that holds for weeks is in its usual position when the measured
   63 begin. So a session's numbers depend on those sessions alone, whether it is computed by itself or
   in a backfill of a year.
2. The measured 63 sessions give return, Sharpe ratio and drawdown; the last one gives the day's numbers.
3. The information coefficient correlates the scores of two sessions ago with the return that just ended, from
   the close after the signal to the close after that: the horizon that models are trained on.
4. Strategies are ranked by Sharpe ratio, then by return, then by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from quant_assets.market_data.adjustment import adjust
from quant_assets.models.evaluation import daily_ic
from quant_assets.performance import metrics
from quant_assets.performance.backtest import (
    BAR_COLUMNS,
    Path,
    TradingCosts,
    panel,
    simulate,
)
from quant_assets.performance.schemas import COMPARED_SESSIONS
from quant_resources.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

WINDOW: Final = 2 * COMPARED_SESSIONS
"""Sessions of a window: as many to build the book as are measured."""
LABEL_LAG: Final = 2
"""Sessions from a signal to the close at which its return is known."""


def compare_strategies(
    signals: Mapping[str, pl.DataFrame],
    bars: pl.DataFrame,
    sessions: Sequence[date],
    filled: pl.DataFrame,
    costs: TradingCosts | None = None,
) -> pl.DataFrame:
    """Measure and rank every strategy at every given session.

    Args:
        signals: Strategy to its signals: session, security_id, score, target_weight.
        bars: `BAR_COLUMNS` of the sessions and the `WINDOW` sessions before the first of them.
        sessions: Sessions to report, each with bars.
        filled: session, strategy, filled_notional (USD) of the sessions that were traded.
        costs: What trading costs; `TradingCosts()` by default.

    Returns:
        Rows of `performance/strategy_performance`, one per session and strategy.

    Raises:
        DataError: A session has no bars, or a signal has none.
    """
    bars = bars.select(BAR_COLUMNS)
    known = bars.get_column("session").unique().sort()
    missing = sorted(set(sessions) - set(known))
    if missing:
        raise DataError(
            f"Session {missing[0]} has no bars; materialize market_data/bars for it first."
        )
    ends = known.search_sorted(pl.Series(sessions, dtype=pl.Date)).to_numpy().astype(np.int64)
    returns = _returns(bars)
    parts = []
    for strategy, own in signals.items():
        market = panel(own, bars)
        path = simulate(market, ends, WINDOW, costs or TradingCosts())
        parts.append(
            _measures(path, _is_old_enough(market.signalled, ends))
            .with_columns(session=pl.Series(sessions, dtype=pl.Date), strategy=pl.lit(strategy))
            .join(_coefficients(own, returns), on="session", how="left")
        )
    if not parts:
        return pl.DataFrame()
    order = {"sharpe_63": True, "cumulative_return": True, "strategy": False}
    return (
        pl.concat(parts)
        .join(
            filled.select("session", "strategy", "filled_notional"),
            on=["session", "strategy"],
            how="left",
        )
        .sort(*order, descending=list(order.values()), nulls_last=True)
        .with_columns(rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("session"))
        .sort("session", "strategy")
    )


def _measures(path: Path, old_enough: np.ndarray) -> pl.DataFrame:
    """One row per window, from its measured half."""
    measured = path.net_return[:, -COMPARED_SESSIONS:]
    equity = np.cumprod(1.0 + measured, axis=1)
    peak = np.maximum(np.maximum.accumulate(equity, axis=1), 1.0)
    sharpe = [
        metrics.sharpe_ratio(row) if old else np.nan
        for row, old in zip(measured, old_enough, strict=True)
    ]
    return pl.DataFrame(
        {
            "daily_return": path.net_return[:, -1],
            "turnover": path.turnover[:, -1],
            "cost": path.cost[:, -1],
            "names": path.names[:, -1].astype(np.int32),
            "cumulative_return": equity[:, -1] - 1.0,
            "sharpe_63": pl.Series(sharpe, dtype=pl.Float64).fill_nan(None),
            "drawdown": (equity / peak)[:, -1] - 1.0,
        }
    )


def _is_old_enough(signalled: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Whether the strategy had signals before the measured sessions of the window began."""
    count = np.concatenate([[0], np.cumsum(signalled)])
    first, last = np.maximum(ends - WINDOW, 0), np.maximum(ends - COMPARED_SESSIONS + 1, 0)
    return count[last] > count[first]


def _returns(bars: pl.DataFrame) -> pl.DataFrame:
    """session, signal_session, security_id, forward_return: close to close of adjacent sessions."""
    place = (
        bars.select(pl.col("session").unique().sort())
        .with_row_index("place")
        .with_columns(signal_session=pl.col("session").shift(LABEL_LAG))
    )
    closes = adjust(bars).join(place, on="session").select("security_id", "place", "close")
    return (
        closes.with_columns(
            previous_close=pl.col("close").shift(1).over("security_id", order_by="place"),
            previous_place=pl.col("place").shift(1).over("security_id", order_by="place"),
        )
        .filter(pl.col("place") == pl.col("previous_place") + 1)
        .join(place, on="place")
        .select(
            "session",
            "signal_session",
            "security_id",
            forward_return=pl.col("close") / pl.col("previous_close") - 1.0,
        )
    )


def _coefficients(signals: pl.DataFrame, returns: pl.DataFrame) -> pl.DataFrame:
    """session, information_coefficient of the sessions at which the outcome was known."""
    scored = returns.join(
        signals.select("security_id", "score", signal_session="session"),
        on=["signal_session", "security_id"],
    )
    return daily_ic(scored, prediction="score", label="forward_return").select(
        "session", information_coefficient="ic"
    )
