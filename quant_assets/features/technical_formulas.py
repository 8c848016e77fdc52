"""The formula, the warm-up and the meaning of each technical indicator, once.

Belongs here: what each column is, and its arithmetic over bars as arrays. Does not belong here: frames
and calendars (`technical.py`).

Recursive formulas (RSI, MACD, ATR, ADX) are TA-Lib's, called on the last 252 bars. The others are
array operations over many rows at once, each row from its own bars.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import talib
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.int64]

RECURSIVE_BARS: Final = 252
"""Bars that a recursive formula runs over; what lies before them would weigh less than 1e-7."""

TRADING_DAYS: Final = 252
"""Sessions of a year, for annualising."""


@dataclass(frozen=True)
class History:
    """The bars of all securities, one security behind the other.

    Attributes:
        values: open, high, low, close (USD, adjusted), volume (shares, adjusted), dollar_volume
            (USD).
        position: Number of each bar's session in the calendar.
        start: Row of the first bar of each bar's security.
    """

    values: dict[str, Floats]
    position: Rows
    start: Rows

    def span(self, first: int, stop: int) -> "History":
        """Some neighbouring rows as a history of their own; a view."""
        some = slice(first, stop)
        values = {name: series[some] for name, series in self.values.items()}
        return History(values, self.position[some], self.start[some] - first)

    def reaches(self, ends: Rows, count: int, sessions: int) -> NDArray[np.bool_]:
        """Which rows end `count` bars of their security within `sessions` sessions."""
        first = ends - count + 1
        span = self.position[ends] - self.position[np.maximum(first, 0)]
        return (first >= self.start[ends]) & (span < sessions)

    def windows(self, name: str, ends: Rows, count: int) -> Floats:
        """The last `count` values up to each row; shape (rows, count), oldest first."""
        return sliding_window_view(self.values[name], count)[ends - count + 1]

    def at(self, name: str, ends: Rows, back: int = 0) -> Floats:
        """The value `back` bars before each row."""
        return self.values[name][ends - back]

    def slices(self, ends: Rows, *names: str) -> list[list[Floats]]:
        """For each row the last 252 values of each name, as views."""
        return [
            [self.values[name][end - RECURSIVE_BARS + 1 : end + 1] for name in names]
            for end in ends.tolist()
        ]

    def highest(self, name: str, count: int) -> Floats:
        """The highest of the last `count` values up to every row, and NaN before there are so many."""
        return _extremes(np.maximum, self.values[name], count)

    def lowest(self, name: str, count: int) -> Floats:
        """The lowest of the last `count` values up to every row, and NaN before there are so many."""
        return _extremes(np.minimum, self.values[name], count)


@dataclass(frozen=True)
class Indicator:
    """A formula that gives one or more columns.

    Attributes:
        bars: Bars, the session's own included, that it looks at and without which it is missing.
        columns: Name to (description, unit) of each column it gives, in the order of its results.
        formula: From the history and the rows to compute to one array per column; NaN where
            undefined.
    """

    bars: int
    columns: dict[str, tuple[str, str]]
    formula: Callable[[History, Rows], tuple[Floats, ...]]


def _extremes(of: Any, values: Floats, count: int) -> Floats:
    """Windows of 1, 2, 4 ... values, each from two of half the length; the last two overlap."""
    extremes, width = values, 1
    while width < count:
        step = min(width, count - width)
        extremes = of(extremes[step:], extremes[:-step])
        width += step
    return np.concatenate([np.full(count - 1, np.nan), extremes])


def _flat(values: Floats) -> NDArray[np.bool_]:
    return values.max(axis=1) == values.min(axis=1)


def _rsi(history: History, ends: Rows) -> tuple[Floats, ...]:
    values = np.array([talib.RSI(close, 14)[-1] for (close,) in history.slices(ends, "close")])
    # For a price that never moved TA-Lib says 0, the most oversold of all.
    return (np.where(_flat(history.windows("close", ends, RECURSIVE_BARS)), np.nan, values),)


def _macd(history: History, ends: Rows) -> tuple[Floats, ...]:
    lines = [talib.MACD(close, 12, 26, 9) for (close,) in history.slices(ends, "close")]
    last = history.at("close", ends)
    line, signal, histogram = (np.array([part[i][-1] for part in lines]) / last for i in range(3))
    return line, signal, histogram


def _atr(history: History, ends: Rows) -> tuple[Floats, ...]:
    slices = history.slices(ends, "high", "low", "close")
    values = np.array([talib.ATR(high, low, close, 14)[-1] for high, low, close in slices])
    return (values / history.at("close", ends),)


def _adx(history: History, ends: Rows) -> tuple[Floats, ...]:
    slices = history.slices(ends, "high", "low", "close")
    return (np.array([talib.ADX(high, low, close, 14)[-1] for high, low, close in slices]),)


def _bollinger(history: History, ends: Rows) -> tuple[Floats, ...]:
    closes = history.windows("close", ends, 20)
    mean, deviation = closes.mean(axis=1), np.where(_flat(closes), 0.0, closes.std(axis=1))
    lower, width = mean - 2 * deviation, 4 * deviation
    return (closes[:, -1] - lower) / width, width / mean


def _raw_stochastic(history: History) -> Floats:
    """Place of every row's close in the range of its last 14 bars."""
    highest, lowest = history.highest("high", 14), history.lowest("low", 14)
    return 100 * ((history.values["close"] - lowest) / (highest - lowest))


def _stochastic_k(history: History, ends: Rows) -> tuple[Floats, ...]:
    raw = _raw_stochastic(history)
    return (np.mean([raw[ends - back] for back in range(3)], axis=0),)


def _stochastic_d(history: History, ends: Rows) -> tuple[Floats, ...]:
    raw = _raw_stochastic(history)
    lines = [np.mean([raw[ends - back - k] for k in range(3)], axis=0) for back in range(3)]
    return (np.mean(lines, axis=0),)


def _obv_trend(history: History, ends: Rows) -> tuple[Floats, ...]:
    direction = np.sign(np.diff(history.windows("close", ends, 21), axis=1))
    volume = history.windows("volume", ends, 20)
    return ((direction * volume).sum(axis=1) / volume.sum(axis=1),)


def _momentum(bars: int) -> Callable[[History, Rows], tuple[Floats, ...]]:
    def formula(history: History, ends: Rows) -> tuple[Floats, ...]:
        return (history.at("close", ends) / history.at("close", ends, bars) - 1,)

    return formula


def _realised_volatility(history: History, ends: Rows) -> tuple[Floats, ...]:
    closes = history.windows("close", ends, 21)
    returns = np.log(closes[:, 1:] / closes[:, :-1])
    deviation = np.where(_flat(closes), 0.0, returns.std(axis=1, ddof=1))
    return (deviation * np.sqrt(TRADING_DAYS),)


def _dollar_volume(history: History, ends: Rows) -> tuple[Floats, ...]:
    return (history.windows("dollar_volume", ends, 20).mean(axis=1),)


def _gap(history: History, ends: Rows) -> tuple[Floats, ...]:
    return (history.at("open", ends) / history.at("close", ends, 1) - 1,)


def _distance_high(history: History, ends: Rows) -> tuple[Floats, ...]:
    highest = history.highest("high", TRADING_DAYS)[ends]
    return (history.at("close", ends) / highest - 1,)


def _distance_low(history: History, ends: Rows) -> tuple[Floats, ...]:
    lowest = history.lowest("low", TRADING_DAYS)[ends]
    return (history.at("close", ends) / lowest - 1,)


def _of(
    bars: int, formula: Callable[[History, Rows], tuple[Floats, ...]], **columns: str
) -> Indicator:
    """Declare an indicator; each column's text is its description, a bar, and its unit."""
    texts = {name: text.rsplit(" | ", 1) for name, text in columns.items()}
    return Indicator(bars, {name: (text, unit) for name, (text, unit) in texts.items()}, formula)


INDICATORS: Final = (
    _of(
        RECURSIVE_BARS,
        _rsi,
        rsi_14="Relative strength index of Wilder over 14 bars; missing if the price never moved | percent",
    ),
    _of(
        RECURSIVE_BARS,
        _macd,
        macd="EMA(close, 12) - EMA(close, 26), over the close | fraction of close",
        macd_signal="EMA of macd over 9 bars, over the close | fraction of close",
        macd_histogram="macd - macd_signal | fraction of close",
    ),
    _of(
        20,
        _bollinger,
        bollinger_percent_b="Place of the close between the bands of 20 bars, 2 deviations: 0 = lower, "
        "1 = upper; missing if the bands coincide | fraction",
        bollinger_bandwidth="Distance between the bands, over the mean of 20 closes | fraction",
    ),
    _of(
        RECURSIVE_BARS,
        _atr,
        atr_14="Average true range of Wilder over 14 bars, over the close | fraction of close",
    ),
    _of(RECURSIVE_BARS, _adx, adx_14="Average directional index of Wilder over 14 bars | percent"),
    _of(
        16,
        _stochastic_k,
        stochastic_k="Slow stochastic: mean over 3 bars of the place of the close in the range of 14 bars; missing "
        "if there is no range | percent",
    ),
    _of(18, _stochastic_d, stochastic_d="Mean of stochastic_k over 3 bars | percent"),
    _of(
        21,
        _obv_trend,
        obv_trend_20="Change of on-balance volume over 20 bars, over their volume: 1 = all volume on rising closes; "
        "missing without volume | fraction",
    ),
    _of(21, _momentum(20), momentum_20="close / close 20 bars before - 1 | fraction"),
    _of(61, _momentum(60), momentum_60="close / close 60 bars before - 1 | fraction"),
    _of(253, _momentum(252), momentum_252="close / close 252 bars before - 1 | fraction"),
    _of(
        21,
        _realised_volatility,
        realised_volatility_20="Standard deviation of 20 daily log returns times sqrt(252) | fraction per year",
    ),
    _of(
        20, _dollar_volume, dollar_volume_20="Mean over 20 bars of raw close times raw volume | USD"
    ),
    _of(2, _gap, gap="open / previous close - 1, adjusted | fraction"),
    _of(252, _distance_high, distance_52w_high="close / highest high of 252 bars - 1 | fraction"),
    _of(252, _distance_low, distance_52w_low="close / lowest low of 252 bars - 1 | fraction"),
)
"""Every technical indicator, in the order of the table's columns."""
