"""What a strategy would have earned: its signals traded over raw bars, with costs.

Belongs here: the simulation, as arrays. Does not belong here: judging the result (`metrics`), comparing
strategies (`strategy_comparison`), drawing it (`plots`).

The algorithm:

1. Bars are adjusted for splits and dividends (CRSP) and laid out as sessions x securities. Adjusted prices
   reinvest a dividend in the share that paid it; live, it arrives as cash.
2. Signals of session T are targets for session T + 1: weight x equity at the close of T, divided by that
   close, is the wanted quantity. A null weight keeps the quantity that is held. A session with signals
   closes every position it does not name; a session without any leaves all as it is (a strategy that failed
   is never liquidated by accident).
3. The difference to what is held is traded at the open of T + 1, as live: market orders at the next open.
   No bar or no volume (a halt): no trade. More than the allowed share of the session's volume: the rest is not
   traded, as a day order expires.
4. Every trade pays commission, half the spread and an impact that grows with the root of its share of volume.
5. At the close the book is marked; a security without a bar keeps its last close. Between signals quantities
   stay and weights drift.
6. A security without a bar for `delisted_after_sessions` sessions is cashed at its last close. Waiting is what
   a trader could have known: whether a gap is a halt or the end is only known later.

7. A book that has lost everything is closed: it returns -1 once and 0 from then on.

Nothing in a row depends on a bar or a signal after its session.

Cost: quantities of a session depend on the session before, so there is one loop over sessions, on arrays of
all securities at once (and of many windows at once, for `quant_assets.performance.strategy_comparison`):
2,520 sessions x 500 securities take 0.7 s, the layout of the bars included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from quant_assets.market_data.adjustment import adjust
from quant_assets.performance import metrics
from quant_resources.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

BAR_COLUMNS = (
    "session",
    "security_id",
    "open",
    "close",
    "volume",
    "price_factor",
    "volume_factor",
)
"""Columns of `market_data/bars` that a backtest reads."""
SIGNAL_COLUMNS = ("session", "security_id", "target_weight")
"""Columns of `signals/<strategy>` that a backtest reads."""


@dataclass(frozen=True, slots=True)
class TradingCosts:
    """What it costs to trade, and what can be traded.

    Attributes:
        capital: Starting capital in USD; it matters only against the volume of the market.
        commission_bps: Commission and fees, basis points of the notional.
        half_spread_bps: Half the quoted spread, basis points of the notional.
        impact_bps: Market impact of trading a whole session's volume, in basis points; a trade of share p of the
            volume pays impact_bps x sqrt(p). Source: Almgren et al. (2005), Direct Estimation of Equity Market
            Impact (square-root law).
        maximum_volume_share: Largest share of a session's volume that is filled, 0..1.
        delisted_after_sessions: Sessions without a bar after which a position is cashed at its last close.
    """

    capital: float = 1_000_000.0
    commission_bps: float = 0.0
    half_spread_bps: float = 2.0
    impact_bps: float = 10.0
    maximum_volume_share: float = 0.1
    delisted_after_sessions: int = 10

    def __post_init__(self) -> None:
        """Refuse costs that no market has.

        Raises:
            ConfigurationError: A cost is negative, or a share or a capital out of its bounds.
        """
        if min(self.commission_bps, self.half_spread_bps, self.impact_bps) < 0.0:
            raise ConfigurationError(f"A trading cost is negative in {self}; costs are >= 0.")
        if not 0.0 < self.maximum_volume_share <= 1.0:
            raise ConfigurationError(
                f"maximum_volume_share is {self.maximum_volume_share}; it must be above 0 and at most 1."
            )
        if not self.capital > 0.0 or self.delisted_after_sessions < 1:
            raise ConfigurationError(
                f"capital {self.capital} and delisted_after_sessions {self.delisted_after_sessions} must be positive."
            )


FREE = TradingCosts(half_spread_bps=0.0, impact_bps=0.0, maximum_volume_share=1.0)
"""No costs and all the volume there is: for comparisons and proofs."""


@dataclass(frozen=True)
class Panel:
    """Bars and signals as sessions x securities (float64, sessions ascending).

    Attributes:
        sessions: The T sessions, as a Date series.
        securities: The N security ids.
        opens: Adjusted open, NaN where nothing could be traded.
        marks: Last adjusted close at or before the session, 0 before the first.
        dollar_volume: Raw close x raw volume in USD, 0 without a bar.
        absent: Sessions since the last bar, 0 on a session with a bar.
        targets: Target weight of the session's signals; NaN keeps what is held.
        signalled: Whether the session has any signal, shape (T,).
    """

    sessions: pl.Series
    securities: tuple[str, ...]
    opens: Floats
    marks: Floats
    dollar_volume: Floats
    absent: Integers
    targets: Floats
    signalled: NDArray[np.bool_]


@dataclass(frozen=True)
class Path:
    """What happened in W windows of L sessions each; every array is (W, L), fractions of the equity before."""

    net_return: Floats
    cost: Floats
    turnover: Floats
    gross_exposure: Floats
    net_exposure: Floats
    names: Integers


def panel(signals: pl.DataFrame, bars: pl.DataFrame) -> Panel:
    """Lay out signals and raw bars as arrays.

    Args:
        signals: `SIGNAL_COLUMNS`, one row per (session, security_id).
        bars: `BAR_COLUMNS`, raw prices with factors, one row per (session, security_id). Securities that are
            never signalled are left out.

    Raises:
        DataError: A signal names a session or a security without bars, or a weight or price is not finite.
    """
    signals = signals.select(SIGNAL_COLUMNS)
    sessions = bars.get_column("session").unique().sort()
    securities = signals.get_column("security_id").unique().sort()
    bars = bars.select(BAR_COLUMNS).filter(pl.col("security_id").is_in(securities.implode()))
    _refuse_strangers(signals, bars, sessions)
    traded = adjust(bars)
    raw = bars.select((pl.col("close") * pl.col("volume")).alias("dollar_volume")).to_series()

    session_of = {day: i for i, day in enumerate(sessions)}
    security_of = {name: i for i, name in enumerate(securities)}

    def places(frame: pl.DataFrame) -> tuple[Integers, Integers]:
        return (
            frame.get_column("session")
            .replace_strict(session_of, return_dtype=pl.Int64)
            .to_numpy(),
            frame.get_column("security_id")
            .replace_strict(security_of, return_dtype=pl.Int64)
            .to_numpy(),
        )

    shape = (len(sessions), len(securities))
    opens, closes = np.full(shape, np.nan), np.full(shape, np.nan)
    dollar_volume = np.zeros(shape)
    if traded.height:
        at = places(traded)
        opens[at] = traded.get_column("open").to_numpy()
        closes[at] = traded.get_column("close").to_numpy()
        dollar_volume[at] = raw.to_numpy()
    opens[dollar_volume <= 0.0] = np.nan

    last_bar = np.where(np.isfinite(closes), np.arange(shape[0])[:, None], -1)
    last_bar = np.maximum.accumulate(last_bar, axis=0)
    marks = np.where(
        last_bar >= 0, np.take_along_axis(closes, np.maximum(last_bar, 0), axis=0), 0.0
    )
    absent = np.where(last_bar >= 0, np.arange(shape[0])[:, None] - last_bar, 0)

    targets = np.full(shape, np.nan)
    signalled = np.zeros(shape[0], dtype=np.bool_)
    if signals.height:
        at = places(signals)
        signalled[at[0]] = True
        targets[signalled] = 0.0
        targets[at] = signals.get_column("target_weight").cast(pl.Float64).to_numpy()
    return Panel(
        sessions, tuple(securities), opens, marks, dollar_volume, absent, targets, signalled
    )


def simulate(market: Panel, ends: Integers, length: int, costs: TradingCosts) -> Path:
    """Trade windows of `length` sessions that end at the given rows of the panel, each from cash.

    Args:
        market: The panel.
        ends: Row of the last session of every window, shape (W,). A window may begin before the panel: nothing
            happens there.
        length: Sessions per window, L >= 1. Targets of a window's own sessions and of the one before it are used.
        costs: What trading costs.
    """
    pad = max(0, length - int(ends.min(initial=0)))
    opens = np.pad(market.opens, ((pad, 0), (0, 0)), constant_values=np.nan)
    targets = np.pad(market.targets, ((pad, 0), (0, 0)), constant_values=np.nan)
    marks, volume, absent = (
        np.pad(array, ((pad, 0), (0, 0)))
        for array in (market.marks, market.dollar_volume, market.absent)
    )
    windows = (len(ends), length)
    net, cost, turnover, gross, exposed = (np.zeros(windows) for _ in range(5))
    names = np.zeros(windows, dtype=np.int64)

    held = np.zeros((len(ends), opens.shape[1]))
    cash, equity = np.ones(len(ends)), np.ones(len(ends))
    for step in range(length):
        now = ends + pad - length + 1 + step
        with np.errstate(divide="ignore", invalid="ignore"):
            # 0 / 0 (never traded) and w / 0 (not yet listed) end as "no trade" below.
            wanted = targets[now - 1] * equity[:, None] / marks[now - 1]
        trade = wanted - held
        trade = np.where(np.isfinite(trade) & np.isfinite(opens[now]), trade, 0.0)
        price = np.where(trade != 0.0, opens[now], 0.0)
        available = volume[now] / costs.capital
        notional = np.abs(trade) * price
        filled = np.minimum(notional, costs.maximum_volume_share * available)
        # np.divide's `where` leaves untraded names at zero instead of dividing by it.
        trade *= np.divide(filled, notional, out=np.zeros_like(notional), where=notional > 0.0)
        share = np.divide(filled, available, out=np.zeros_like(filled), where=filled > 0.0)
        rate = costs.commission_bps + costs.half_spread_bps + costs.impact_bps * np.sqrt(share)
        paid = (filled * rate).sum(axis=1) / 10_000.0

        held += trade
        cash -= (trade * price).sum(axis=1) + paid
        values = held * marks[now]
        closed = cash + values.sum(axis=1)
        capital = np.where(equity > 0.0, equity, 1.0)
        cost[:, step] = paid / capital
        turnover[:, step] = filled.sum(axis=1) / capital

        gone = absent[now] >= costs.delisted_after_sessions
        cash += np.where(gone, values, 0.0).sum(axis=1)
        held[gone] = 0.0
        ruined = closed <= 0.0
        held[ruined], cash[ruined], closed[ruined] = 0.0, 0.0, 0.0
        net[:, step] = np.where(equity > 0.0, closed / capital - 1.0, 0.0)
        equity = closed

        values = held * marks[now]
        capital = np.where(equity > 0.0, equity, 1.0)
        gross[:, step] = np.abs(values).sum(axis=1) / capital
        exposed[:, step] = values.sum(axis=1) / capital
        names[:, step] = np.count_nonzero(held, axis=1)
    return Path(net, cost, turnover, gross, exposed, names)


def backtest(
    signals: pl.DataFrame, bars: pl.DataFrame, costs: TradingCosts | None = None
) -> pl.DataFrame:
    """Trade the signals of one strategy over all its history.

    Args:
        signals: `SIGNAL_COLUMNS`, one row per (session, security_id); target_weight is a fraction of equity,
            negative for a short, null to keep what is held.
        bars: `BAR_COLUMNS`, raw prices with factors.
        costs: What trading costs; `TradingCosts()` by default.

    Returns:
        One row per session after the first one with a signal: session, gross_return (before costs), cost and
        net_return (fractions of the equity before), equity (multiples of the starting capital), drawdown (<= 0),
        turnover (traded value over equity, two-sided), gross_exposure, net_exposure (fractions of equity at the
        close), names (positions). Without signals, no rows.

    Raises:
        DataError: A signal has no bar to trade on, or a weight or price is not finite.
    """
    market = panel(signals, bars)
    first = int(np.argmax(market.signalled)) if market.signalled.any() else len(market.sessions)
    length = len(market.sessions) - first - 1
    if length <= 0:
        return _frame(market.sessions.head(0), None)
    path = simulate(market, np.array([len(market.sessions) - 1]), length, costs or TradingCosts())
    return _frame(market.sessions.slice(first + 1), path)


def _frame(sessions: pl.Series, path: Path | None) -> pl.DataFrame:
    def row(values: NDArray[np.generic] | None) -> NDArray[np.generic]:
        return np.zeros(0) if values is None else values[0]

    net = np.asarray(row(path and path.net_return), dtype=np.float64)
    cost = np.asarray(row(path and path.cost), dtype=np.float64)
    equity = metrics.equity_curve(net)
    return pl.DataFrame(
        {
            "session": sessions.cast(pl.Date),
            "gross_return": net + cost,
            "cost": cost,
            "net_return": net,
            "equity": equity,
            "drawdown": metrics.drawdowns(equity),
            "turnover": row(path and path.turnover),
            "gross_exposure": row(path and path.gross_exposure),
            "net_exposure": row(path and path.net_exposure),
            "names": pl.Series(row(path and path.names)).cast(pl.Int32),
        }
    )


def _refuse_strangers(signals: pl.DataFrame, bars: pl.DataFrame, sessions: pl.Series) -> None:
    """Refuse signals without bars: an order of a security that does not exist is a defect upstream."""
    known = bars.get_column("security_id").unique()
    for column, values in (("session", sessions), ("security_id", known)):
        strange = signals.filter(~pl.col(column).is_in(values.implode()))
        if strange.height:
            raise DataError(
                f"{strange.height} signals name a {column} without bars, for example "
                f"{strange.item(0, 'security_id')} in session {strange.item(0, 'session')}; "
                "materialize market_data/bars for it first."
            )
    broken = signals.filter(
        pl.col("target_weight").is_not_null() & ~pl.col("target_weight").is_finite()
    )
    if broken.height:
        raise DataError(
            f"{broken.height} target weights are not finite, for example {broken.item(0, 'security_id')} in "
            f"session {broken.item(0, 'session')}; repair the strategy."
        )
    unpriced = bars.filter(~(pl.col("open").is_finite() & pl.col("close").is_finite()))
    if unpriced.height:
        raise DataError(
            f"{unpriced.height} bars have no finite open or close, for example {unpriced.item(0, 'security_id')} in "
            f"session {unpriced.item(0, 'session')}; quarantine them."
        )
