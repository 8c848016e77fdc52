"""What a series of returns, profits or weights is worth, as numbers.

Belongs here: pure functions on one-dimensional numpy arrays, each with its formula, its unit and what it
says when there is nothing to say. Does not belong here: building the series (`backtest`,
`profit_and_loss`), the information coefficient (`quant_assets.models.evaluation` holds it, because
models are judged by it first), drawing (`plots`) and reporting (`tear_sheet`).

Conventions of the whole module:

* `returns` are simple (not log) returns per session, as fractions: 0.01 is one percent.
* A NaN is a session without an observation: it is left out, and does not count as a session.
* An undefined number is NaN, never an infinity and never a made-up zero: the Sharpe ratio of a constant
  series, the Sortino ratio of a series that never lost, the profit factor of a book without a loss.
* A year has 252 sessions.

The formulas are those of empyrical (Quantopian, now empyrical-reloaded), which the oracle test holds
them against; the deliberate differences are the NaNs of the second and third line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

SESSIONS_PER_YEAR = 252
"""Sessions in a year, the constant every annual number is scaled with."""


def _observed(values: ArrayLike) -> NDArray[np.float64]:
    """Return the observations of a series: float64, one dimension, NaNs left out."""
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[~np.isnan(array)]


def equity_curve(returns: ArrayLike) -> NDArray[np.float64]:
    """Grow one unit of capital through the returns.

    Formula: E_t = prod_{s <= t} (1 + r_s). Unit: multiples of the starting capital. A NaN return leaves
    the equity as it was. Shape: that of the input.
    """
    array = np.asarray(returns, dtype=np.float64).ravel()
    return np.cumprod(1.0 + np.nan_to_num(array, nan=0.0), dtype=np.float64)


def total_return(returns: ArrayLike) -> float:
    """Compound return of the whole period: prod(1 + r) - 1, a fraction. NaN without observations."""
    observed = _observed(returns)
    return float(np.prod(1.0 + observed) - 1.0) if observed.size else math.nan


def annual_return(returns: ArrayLike) -> float:
    """Compound annual growth rate: (1 + total)^(252 / n) - 1, a fraction per year.

    -1 when everything was lost (a total return of -1 or less has no root); NaN without observations.
    """
    observed = _observed(returns)
    if not observed.size:
        return math.nan
    growth = float(np.prod(1.0 + observed))
    if growth <= 0.0:
        return -1.0
    exponent = SESSIONS_PER_YEAR / observed.size * math.log(growth)
    return math.expm1(exponent) if exponent < math.log(np.finfo(np.float64).max) else math.nan


def annual_volatility(returns: ArrayLike) -> float:
    """Sample standard deviation (n - 1) times sqrt(252), a fraction per year. NaN below two observations."""
    observed = _observed(returns)
    if observed.size < 2:
        return math.nan
    return float(np.std(observed, ddof=1) * math.sqrt(SESSIONS_PER_YEAR))


def sharpe_ratio(returns: ArrayLike, risk_free: float = 0.0) -> float:
    """Reward per unit of risk: mean(r - f) / std(r - f, n - 1) * sqrt(252), per year.

    `risk_free` is a fraction per session. NaN below two observations or when all are equal.
    Source: Sharpe (1994), The Sharpe Ratio.
    """
    excess = _observed(returns) - risk_free
    if excess.size < 2 or np.ptp(excess) == 0.0:
        return math.nan
    return float(np.mean(excess) / np.std(excess, ddof=1) * math.sqrt(SESSIONS_PER_YEAR))


def sortino_ratio(returns: ArrayLike, required: float = 0.0) -> float:
    """Reward per unit of downside: mean(r - q) / sqrt(mean(min(r - q, 0)^2)) * sqrt(252), per year.

    The mean below the root runs over all sessions, not over the losing ones alone. `required` is a fraction
    per session. NaN below two observations or when nothing fell below `required`.
    Source: Sortino and Price (1994), Performance Measurement in a Downside Risk Framework.
    """
    excess = _observed(returns) - required
    downside = np.minimum(excess, 0.0)
    if excess.size < 2 or not downside.any():
        return math.nan
    deviation = math.sqrt(float(np.mean(downside**2)))
    return float(np.mean(excess)) / deviation * math.sqrt(SESSIONS_PER_YEAR)


def drawdowns(equity: ArrayLike, start: float = 1.0) -> NDArray[np.float64]:
    """Distance of every equity below the highest one so far: E_t / max(start, E_1..E_t) - 1.

    Unit: a fraction, zero at a new high and negative below it. `start` is the capital before the first
    session, so that a loss on day one is a drawdown. NaN stays NaN and does not raise the peak.
    """
    array = np.asarray(equity, dtype=np.float64).ravel()
    peak = np.fmax.accumulate(np.concatenate([[start], array]))[1:]
    return array / peak - 1.0


def max_drawdown(returns: ArrayLike) -> float:
    """Deepest drawdown of the compounded returns, a fraction <= 0. NaN without observations."""
    observed = _observed(returns)
    return float(drawdowns(equity_curve(observed)).min()) if observed.size else math.nan


def calmar_ratio(returns: ArrayLike) -> float:
    """Annual return over the absolute deepest drawdown. NaN when there was no drawdown.

    Source: Young (1991), Calmar Ratio: A Smoother Tool.
    """
    deepest = max_drawdown(returns)
    if math.isnan(deepest) or deepest == 0.0:
        return math.nan
    return annual_return(returns) / abs(deepest)


def win_rate(profits: ArrayLike) -> float:
    """Share of gains among gains and losses: #(x > 0) / #(x != 0), from 0 to 1.

    Sessions (or trades) that neither won nor lost do not count. NaN when none did either.
    """
    observed = _observed(profits)
    decided = int(np.count_nonzero(observed))
    return float(np.count_nonzero(observed > 0.0) / decided) if decided else math.nan


def average_win(profits: ArrayLike) -> float:
    """Mean of the gains, in the unit of the input. NaN without a gain."""
    observed = _observed(profits)
    wins = observed[observed > 0.0]
    return float(wins.mean()) if wins.size else math.nan


def average_loss(profits: ArrayLike) -> float:
    """Mean of the losses, negative, in the unit of the input. NaN without a loss."""
    observed = _observed(profits)
    losses = observed[observed < 0.0]
    return float(losses.mean()) if losses.size else math.nan


def profit_factor(profits: ArrayLike) -> float:
    """Sum of gains over the absolute sum of losses. NaN without a loss."""
    observed = _observed(profits)
    lost = float(-observed[observed < 0.0].sum())
    return float(observed[observed > 0.0].sum()) / lost if lost else math.nan


def hit_rate(predicted: ArrayLike, realised: ArrayLike) -> float:
    """Share of predictions with the sign of what came: #(sign p = sign y) / #(p != 0 and y != 0).

    Pairs with a NaN or a zero on either side do not count; NaN when none is left.

    Raises:
        ValueError: The two series differ in length.
    """
    forecast = np.asarray(predicted, dtype=np.float64).ravel()
    outcome = np.asarray(realised, dtype=np.float64).ravel()
    if forecast.shape != outcome.shape:
        raise ValueError(f"{forecast.size} predictions were compared with {outcome.size} outcomes.")
    product = np.sign(forecast) * np.sign(outcome)
    decided = product[~np.isnan(product) & (product != 0.0)]
    return float(np.mean(decided > 0.0)) if decided.size else math.nan


def turnover(traded_notional: ArrayLike, equity: float) -> float:
    """Traded value over equity: sum(|notional|) / equity, buys and sales both counted (two-sided).

    A book that sells all it holds and buys as much of something else turns over 2.0. NaN entries are no
    trade; NaN when the equity is not positive.
    """
    if not equity > 0.0:
        return math.nan
    return float(np.abs(_observed(traded_notional)).sum() / equity)


@dataclass(frozen=True, slots=True)
class Exposure:
    """What a book has in the market, as fractions of its equity: long >= 0, short <= 0."""

    long: float
    short: float

    @property
    def gross(self) -> float:
        """Long plus absolute short."""
        return self.long - self.short

    @property
    def net(self) -> float:
        """Long minus absolute short."""
        return self.long + self.short


def exposure(market_values: ArrayLike, equity: float) -> Exposure:
    """Split the market values of a book (signed, USD) into long and short fractions of its equity.

    NaN values are no position; both sides are NaN when the equity is not positive.
    """
    if not equity > 0.0:
        return Exposure(math.nan, math.nan)
    values = _observed(market_values)
    return Exposure(
        float(values[values > 0.0].sum() / equity), float(values[values < 0.0].sum() / equity)
    )


def rolling_sharpe(returns: ArrayLike, sessions: int) -> NDArray[np.float64]:
    """Sharpe ratio of every trailing window of `sessions` returns, NaN until the first one is full.

    A window that holds a NaN is NaN. Shape: that of the input.
    """
    array = np.asarray(returns, dtype=np.float64).ravel()
    result = np.full(array.size, np.nan)
    if sessions < 2 or array.size < sessions:
        return result
    windows = np.lib.stride_tricks.sliding_window_view(array, sessions)
    spread = windows.std(axis=1, ddof=1)
    varied = np.ptp(windows, axis=1) > 0.0
    result[sessions - 1 :][varied] = (
        windows.mean(axis=1)[varied] / spread[varied] * math.sqrt(SESSIONS_PER_YEAR)
    )
    return result


def summary(returns: ArrayLike) -> dict[str, float]:
    """Return the standard table of a series of returns, in the order in which it is shown."""
    return {
        "total_return": total_return(returns),
        "annual_return": annual_return(returns),
        "annual_volatility": annual_volatility(returns),
        "sharpe": sharpe_ratio(returns),
        "sortino": sortino_ratio(returns),
        "max_drawdown": max_drawdown(returns),
        "calmar": calmar_ratio(returns),
        "win_rate": win_rate(returns),
        "average_win": average_win(returns),
        "average_loss": average_loss(returns),
        "profit_factor": profit_factor(returns),
    }
