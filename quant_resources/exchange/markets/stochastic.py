"""A made-up stock market that behaves like one, with a signal planted in it whose strength is known.

1. Log returns are market * beta + sector + idiosyncratic, with Student-t shocks.
2. Volatility clusters: the market switches between a calm and a turbulent regime, and market and
   idiosyncratic variances follow GARCH(1,1) recursions.
3. The idiosyncratic part of session t has a drift of `_STRENGTH` * its volatility * signal(t - 1).
4. The signal is a function of published prices and volumes only: a reversal of the last 20 sessions,
   a momentum from 60 to 20 sessions back, and the trend of volume (5 sessions over 60), each
   standardised over the listed symbols.
5. A return splits into an overnight gap and a session; the range around them gives high and low.
6. Dividends are quarterly; a price that climbs or falls too far is split or reverse-split; one
   listing comes late, and one is bought for cash and delisted.
7. Every session draws from its own random stream, so that a longer market begins with the shorter.

Prices are rounded to cents before they are carried on, so that what is published is the whole truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction

import numpy as np
import polars as pl

from quant_resources.calendar import XNYS
from quant_resources.errors import ConfigurationError
from quant_resources.exchange.markets.market import (
    BAR_SCHEMA,
    CorporateAction,
    Listing,
    MarketData,
)
from quant_resources.exchange.markets.names import company_names, tickers

_BURN_IN = 80
_STRENGTH = 0.12
_SECTORS = 10
_TAILS = 5.0
_OVERNIGHT_SHARE = 0.3
_SPLIT_ABOVE, _REVERSE_SPLIT_BELOW = 260.0, 4.0
_QUARTER = 63

SIGNAL_WEIGHTS = {"reversal_20": -0.75, "momentum_60_20": 0.45, "volume_trend_5_60": 0.5}
"""Weights of the standardised components of the planted signal."""


@dataclass(frozen=True)
class StochasticMarket:
    """The stochastic market of a seed.

    Attributes:
        seed: Everything random follows from it.
        symbols: Number of listings.
        first_session, last_session: Range of sessions; days without trading are snapped inwards.
        sessions_beyond: Sessions generated after `last_session`.
    """

    seed: int
    symbols: int
    first_session: date
    last_session: date
    sessions_beyond: int = 20

    def load(self) -> MarketData:
        """Generate the market: about 1 ms for a session of 100 symbols.

        Raises:
            ConfigurationError: There is no session between the two dates.
        """
        wanted = XNYS.sessions(self.first_session, self.last_session)
        if not wanted:
            raise ConfigurationError(
                f"There is no XNYS session from {self.first_session} to {self.last_session}; "
                "choose a longer range."
            )
        known = XNYS.all_sessions
        # The session after the last must be known too: the clock stops before it opens.
        end = min(known.index(wanted[-1]) + 1 + self.sessions_beyond, len(known) - 2)
        sessions = tuple(known[known.index(wanted[0]) : end])
        path = _simulate(self.seed, self.symbols, sessions)
        return MarketData(
            bars=path.bars(sessions),
            actions=tuple(path.actions),
            listings=path.listings(sessions),
            sessions=sessions,
            planted_information_coefficient=path.information_coefficient(),
        )


@dataclass(frozen=True)
class _Traits:
    """What stays the same about each symbol (arrays over symbols)."""

    symbols: list[str]
    names: list[str]
    beta: np.ndarray
    sector: np.ndarray
    volatility: np.ndarray
    shares_a_day: np.ndarray
    first_price: np.ndarray
    dividend_yield: np.ndarray
    dividend_phase: np.ndarray
    shortable: np.ndarray
    fractionable: np.ndarray
    nasdaq: np.ndarray
    listed_from: np.ndarray
    listed_until: np.ndarray


def _traits(seed: int, count: int) -> _Traits:
    rng = np.random.default_rng([seed, 1])
    listed_from = np.zeros(count, dtype=np.int64)
    listed_until = np.full(count, np.iinfo(np.int64).max)
    late, leaving = rng.choice(count, 2, replace=False)
    listed_from[late] = rng.integers(60, 180)
    listed_until[leaving] = rng.integers(120, 240)
    price = np.exp(rng.normal(np.log(60), 0.7, count)).clip(8, 240)
    dollars_a_day = np.exp(rng.normal(np.log(60e6), 1.0, count)).clip(5e6, 3e9)
    pays = rng.random(count) < 0.6
    return _Traits(
        symbols=tickers(rng, count),
        names=company_names(rng, count),
        beta=rng.normal(1.0, 0.25, count).clip(0.3, 1.8),
        sector=rng.integers(0, _SECTORS, count),
        volatility=np.exp(rng.normal(np.log(0.016), 0.25, count)).clip(0.008, 0.03),
        shares_a_day=dollars_a_day / price,
        first_price=np.round(price, 2),
        dividend_yield=np.where(pays, rng.uniform(0.005, 0.04, count), 0.0),
        dividend_phase=rng.integers(0, _QUARTER, count),
        shortable=rng.random(count) < 0.92,
        fractionable=rng.random(count) < 0.95,
        nasdaq=rng.random(count) < 0.5,
        listed_from=listed_from,
        listed_until=listed_until,
    )


class _Path:
    """The simulated market: arrays of (burn-in + sessions) * symbols."""

    def __init__(self, traits: _Traits, length: int) -> None:
        shape = (_BURN_IN + length, len(traits.symbols))
        self.traits = traits
        self.open, self.high, self.low, self.close = (np.full(shape, np.nan) for _ in range(4))
        self.volume, self.vwap, self.trade_count = (np.full(shape, np.nan) for _ in range(3))
        self.total_return = np.zeros(shape)
        self.signal = np.full(shape, np.nan)
        self.listed = np.zeros(shape, dtype=bool)
        self.split_factor = np.ones(shape)
        self.actions: list[CorporateAction] = []

    def bars(self, sessions: tuple[date, ...]) -> pl.DataFrame:
        """The published bars, sorted by symbol and session."""
        row, column = np.nonzero(self.listed[_BURN_IN:].T)[::-1]
        at = (row + _BURN_IN, column)
        days = np.array(sessions, dtype="datetime64[D]")
        frame = pl.DataFrame(
            {
                "symbol": pl.Series(self.traits.symbols, dtype=pl.String).gather(column),
                "session": days[row],
                "open": self.open[at],
                "high": self.high[at],
                "low": self.low[at],
                "close": self.close[at],
                "volume": self.volume[at],
                "vwap": self.vwap[at],
                "trade_count": self.trade_count[at].astype(np.int64),
                "trades": np.ones(len(row), dtype=bool),
            },
            schema=BAR_SCHEMA,
        )
        return frame.sort("symbol", "session", maintain_order=True)

    def listings(self, sessions: tuple[date, ...]) -> dict[str, Listing]:
        """Listings by symbol; a symbol listed after the last session is not there."""
        found: dict[str, Listing] = {}
        traits = self.traits
        for index, symbol in enumerate(traits.symbols):
            traded = np.nonzero(self.listed[_BURN_IN:, index])[0]
            if not len(traded):
                continue
            leaves = int(traits.listed_until[index])
            found[symbol] = Listing(
                symbol=symbol,
                name=traits.names[index],
                first_session=sessions[traded[0]],
                last_session=sessions[traded[-1]],
                delisted=sessions[leaves] if leaves < len(sessions) else None,
                exchange="NASDAQ" if traits.nasdaq[index] else "NYSE",
                shortable=bool(traits.shortable[index]),
                fractionable=bool(traits.fractionable[index]),
            )
        return found

    def information_coefficient(self) -> float | None:
        """Mean over t of the correlation, over symbols, of signal(t) and the return t+1 → t+2."""
        signal = self.signal[_BURN_IN:-2]
        forward = np.expm1(self.total_return[_BURN_IN + 2 :])
        both = np.isfinite(signal) & self.listed[_BURN_IN + 2 :] & self.listed[_BURN_IN:-2]
        correlations = [
            np.corrcoef(signal[t][both[t]], forward[t][both[t]])[0, 1]
            for t in range(len(signal))
            if both[t].sum() >= 3
        ]
        return float(np.mean(correlations)) if correlations else None


def _simulate(seed: int, count: int, sessions: tuple[date, ...]) -> _Path:
    traits = _traits(seed, count)
    path = _Path(traits, len(sessions))
    returns, trading = _Returns(traits), _Trading(traits)
    price, signal = traits.first_price.copy(), np.zeros(count)
    ordinals = [*range(-_BURN_IN, 0), *(day.toordinal() for day in sessions)]
    for t, ordinal in enumerate(ordinals):
        step = t - _BURN_IN
        rng = np.random.default_rng([seed, 2, ordinal + _BURN_IN])
        alive = (traits.listed_from <= step) & (step < traits.listed_until)
        alive |= (step < 0) & (traits.listed_from == 0)
        ratio, cash = np.ones(count), np.zeros(count)
        if step >= 0:
            ratio, cash = _actions_of(
                path, price, rng, step=step, session=sessions[step], alive=alive
            )
        base = (price - cash) / ratio
        log_return, scale = returns.step(rng, signal)
        candle = _candle(rng, base, log_return, scale)
        volume, trade_count = trading.step(rng, ratio, log_return)

        path.open[t], path.high[t], path.low[t], path.close[t], path.vwap[t] = candle
        path.volume[t], path.trade_count[t] = volume, trade_count
        path.total_return[t] = np.log(path.close[t] / base)
        path.split_factor[t] = ratio
        path.listed[t] = alive
        path.signal[t] = _signal(path, t, alive)
        price, signal = path.close[t], np.nan_to_num(path.signal[t])
    return path


class _Returns:
    """Log returns of a session, and the volatility that lives on between sessions."""

    def __init__(self, traits: _Traits) -> None:
        self._traits = traits
        self._turbulent = False
        self._market_variance = 1.0
        self._own_variance = np.ones(len(traits.symbols))

    def step(self, rng: np.random.Generator, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Total log returns and idiosyncratic volatilities over symbols."""
        traits = self._traits
        self._turbulent = bool(rng.random() < (0.97 if self._turbulent else 0.012))
        market_shock, sector_shock, own_shock = (
            rng.standard_t(_TAILS, size) / np.sqrt(_TAILS / (_TAILS - 2))
            for size in (None, _SECTORS, len(traits.symbols))
        )
        level = 1.8 if self._turbulent else 0.85
        market_return = 0.0003 + 0.0085 * level * np.sqrt(self._market_variance) * market_shock
        scale = (
            traits.volatility * np.sqrt(self._own_variance) * (1.25 if self._turbulent else 0.95)
        )
        log_return = (
            traits.beta * market_return
            + 0.004 * level * sector_shock[traits.sector]
            + _STRENGTH * scale * signal
            + scale * own_shock
            - 0.5 * scale**2
        )
        self._market_variance = 0.06 + (0.08 * market_shock**2 + 0.86) * self._market_variance
        self._own_variance = 0.08 + (0.07 * own_shock**2 + 0.85) * self._own_variance
        return log_return.clip(-0.5, 0.5), scale


class _Trading:
    """Volumes and trade counts: an activity that lives on, more of it on days of large moves."""

    def __init__(self, traits: _Traits) -> None:
        self._volatility = traits.volatility
        self._shares_a_day = traits.shares_a_day
        self._activity = np.zeros(len(traits.symbols))

    def step(
        self, rng: np.random.Generator, ratio: np.ndarray, log_return: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Shares and trades of a session over symbols; `ratio` new shares for one old."""
        count = len(ratio)
        self._shares_a_day = self._shares_a_day * ratio
        self._activity = 0.92 * self._activity + 0.13 * rng.standard_normal(count)
        surprise = (np.abs(log_return) / self._volatility - 0.8).clip(-1, 6)
        log_share = self._activity + 0.25 * surprise + 0.2 * rng.standard_normal(count)
        volume = np.round(self._shares_a_day * np.exp(log_share)).clip(100)
        return volume, np.maximum(np.round(volume / rng.uniform(80, 220, count)), 1)


def _candle(
    rng: np.random.Generator, base: np.ndarray, log_return: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Open, high, low, close (cents) and vwap of a session that starts from `base`."""
    count = len(base)
    bridge = np.sqrt(_OVERNIGHT_SHARE * (1 - _OVERNIGHT_SHARE)) * scale * rng.standard_normal(count)
    opened = np.maximum(np.round(base * np.exp(_OVERNIGHT_SHARE * log_return + bridge), 2), 0.01)
    closed = np.maximum(np.round(base * np.exp(log_return), 2), 0.01)
    top, bottom = np.maximum(opened, closed), np.minimum(opened, closed)
    reach = 0.6 * scale * np.abs(rng.standard_normal((2, count)))
    high = np.maximum(np.round(top * np.exp(reach[0]), 2), top)
    low = np.clip(np.round(bottom * np.exp(-reach[1]), 2), 0.01, bottom)
    weight = rng.random((2, count))
    middle = (opened + closed + high * weight[0] + low * weight[1]) / (2 + weight.sum(axis=0))
    vwap = np.round(middle, 4).clip(low, high)
    return opened, high, low, closed, vwap


def _actions_of(
    path: _Path,
    price: np.ndarray,
    rng: np.random.Generator,
    *,
    step: int,
    session: date,
    alive: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Corporate actions with ex-date `session`: split ratios and dividends over symbols."""
    traits = path.traits
    ratio, cash = np.ones(len(price)), np.zeros(len(price))
    holders = alive & (traits.listed_from < step)
    split_draw, choice = rng.random(len(price)), rng.integers(2, 5, len(price))
    splitting = holders & (price > _SPLIT_ABOVE) & (split_draw < 0.15)
    merging = holders & (price < _REVERSE_SPLIT_BELOW) & (split_draw < 0.15)
    ratio[splitting] = choice[splitting]
    ratio[merging] = 0.1
    paying = holders & (traits.dividend_yield > 0) & ~splitting & ~merging
    paying &= (step + traits.dividend_phase) % _QUARTER == 0
    cash[paying] = np.maximum(np.round(price * traits.dividend_yield / 4, 2), 0.01)[paying]
    for index in np.nonzero(splitting | merging | paying)[0]:
        symbol = traits.symbols[index]
        if paying[index]:
            amount = Decimal(f"{cash[index]:.2f}")
            action = CorporateAction("cash_dividend", symbol, session, cash=amount)
        elif splitting[index]:
            shares = Fraction(int(choice[index]))
            action = CorporateAction("forward_split", symbol, session, ratio=shares)
        else:
            action = CorporateAction("reverse_split", symbol, session, ratio=Fraction(1, 10))
        path.actions.append(action)
    for index in np.nonzero(traits.listed_until == step)[0]:
        amount = Decimal(f"{price[index]:.2f}")
        path.actions.append(
            CorporateAction("cash_merger", traits.symbols[index], session, cash=amount)
        )
    return ratio, cash


def _signal(path: _Path, t: int, alive: np.ndarray) -> np.ndarray:
    """The planted signal after session t, standardised over symbols; NaN without 61 sessions."""
    if t < 61:
        return np.full(len(alive), np.nan)
    window = slice(t - 59, t + 1)
    whole = alive & path.listed[window].all(axis=0)
    if whole.sum() < 3:
        return np.full(len(alive), np.nan)
    to_today = np.cumprod(path.split_factor[window][::-1], axis=0)[::-1]
    later_splits = np.vstack([to_today[1:], np.ones(len(alive))])
    volume = path.volume[window] * later_splits
    recent = path.total_return[t - 19 : t + 1].sum(axis=0)
    components = {
        "reversal_20": recent,
        "momentum_60_20": path.total_return[t - 59 : t - 19].sum(axis=0),
        "volume_trend_5_60": np.log(volume[-5:].mean(axis=0) / volume.mean(axis=0)),
    }
    mixed = sum(
        weight * _standardised(components[name], whole) for name, weight in SIGNAL_WEIGHTS.items()
    )
    return np.where(whole, _standardised(np.asarray(mixed), whole), np.nan)


def _standardised(values: np.ndarray, over: np.ndarray) -> np.ndarray:
    """(values - mean) / standard deviation over the chosen symbols, cut at ±3."""
    chosen = values[over]
    return ((values - chosen.mean()) / max(chosen.std(), 1e-12)).clip(-3, 3)
