"""The technical indicators written out from their definitions: one security, one session, plain Python.

Belongs here: the reference that the fast implementation is compared with. It shares no code with it
and knows neither NumPy nor TA-Lib.

Definitions: J. W. Wilder, "New Concepts in Technical Trading Systems" (1978), for RSI, ATR and ADX;
G. Appel for MACD; J. Bollinger, "Bollinger on Bollinger Bands" (2001); G. C. Lane for the stochastic;
J. Granville for on-balance volume. Recursive means begin with a plain mean of their first values, and
the two means of MACD on the same bar.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Bar(NamedTuple):
    """One bar: prices in USD on one scale, volume in shares."""

    open: float
    high: float
    low: float
    close: float
    volume: float


def reference_indicators(bars: Sequence[Bar]) -> dict[str, float | None]:
    """Compute the indicators at the last of a security's bars; None without enough bars or undefined."""
    close = [bar.close for bar in bars]
    year = bars[-252:] if len(bars) >= 252 else None
    closes = [bar.close for bar in year] if year else []
    values: dict[str, float | None] = {
        "rsi_14": relative_strength(closes) if year else None,
        "atr_14": true_range_mean(year) / close[-1] if year else None,
        "adx_14": directional_index(year) if year else None,
        "obv_trend_20": volume_trend(bars[-21:]) if len(bars) >= 21 else None,
        "stochastic_k": slow_stochastic(bars) if len(bars) >= 16 else None,
        "stochastic_d": slow_stochastic_mean(bars) if len(bars) >= 18 else None,
        "gap": bars[-1].open / close[-2] - 1 if len(bars) >= 2 else None,
        "distance_52w_high": close[-1] / max(bar.high for bar in year) - 1 if year else None,
        "distance_52w_low": close[-1] / min(bar.low for bar in year) - 1 if year else None,
        "realised_volatility_20": volatility(close[-21:]) if len(bars) >= 21 else None,
        "dollar_volume_20": (
            sum(bar.close * bar.volume for bar in bars[-20:]) / 20 if len(bars) >= 20 else None
        ),
    }
    for back in (20, 60, 252):
        values[f"momentum_{back}"] = close[-1] / close[-1 - back] - 1 if len(close) > back else None
    line, signal = convergence(closes) if year else (None, None)
    values["macd"] = None if line is None else line / close[-1]
    values["macd_signal"] = None if signal is None else signal / close[-1]
    values["macd_histogram"] = (
        None if line is None or signal is None else (line - signal) / close[-1]
    )
    place, width = bands(close[-20:]) if len(close) >= 20 else (None, None)
    values["bollinger_percent_b"], values["bollinger_bandwidth"] = place, width
    return values


def wilder_mean(values: Sequence[float]) -> float:
    mean = sum(values[:14]) / 14
    for value in values[14:]:
        mean = mean * 13 / 14 + value / 14
    return mean


def exponential_means(values: Sequence[float], bars: int) -> list[float]:
    """The mean of the first `bars` values and every exponential mean after it."""
    means = [sum(values[:bars]) / bars]
    for value in values[bars:]:
        means.append(means[-1] + 2 / (bars + 1) * (value - means[-1]))
    return means


def relative_strength(close: Sequence[float]) -> float | None:
    changes = [after - before for before, after in itertools.pairwise(close)]
    up = wilder_mean([max(change, 0.0) for change in changes])
    down = wilder_mean([max(-change, 0.0) for change in changes])
    if up + down == 0:
        return None
    return 100.0 if down == 0 else 100 - 100 / (1 + up / down)


def true_range_mean(bars: Sequence[Bar]) -> float:
    ranges = []
    for before, bar in itertools.pairwise(bars):
        ranges.append(max(bar.high, before.close) - min(bar.low, before.close))
    return wilder_mean(ranges)


def convergence(close: Sequence[float]) -> tuple[float, float]:
    slow = exponential_means(close, 26)
    fast = exponential_means(close[26 - 12 :], 12)
    line = [quick - steady for quick, steady in zip(fast, slow, strict=True)]
    return line[-1], exponential_means(line, 9)[-1]


def directional_index(bars: Sequence[Bar]) -> float:
    """Wilder's sums begin with 13 movements; 14 indices make the first mean."""
    up, down, ranges = [], [], []
    for before, bar in itertools.pairwise(bars):
        rise, fall = bar.high - before.high, before.low - bar.low
        up.append(rise if rise > fall and rise > 0 else 0.0)
        down.append(fall if fall > rise and fall > 0 else 0.0)
        ranges.append(max(bar.high, before.close) - min(bar.low, before.close))
    sums = [sum(series[:13]) for series in (up, down, ranges)]
    indices: list[float | None] = []
    for values in zip(up[13:], down[13:], ranges[13:], strict=True):
        sums = [total * 13 / 14 + value for total, value in zip(sums, values, strict=True)]
        plus, minus, true_range = sums
        if plus == 0 and minus == 0:
            indices.append(None)
        else:
            plus, minus = plus / true_range, minus / true_range
            indices.append(100 * abs(plus - minus) / (plus + minus))
    mean = sum(index or 0.0 for index in indices[:14]) / 14
    for index in indices[14:]:
        mean = mean if index is None else mean * 13 / 14 + index / 14
    return mean


def bands(close: Sequence[float]) -> tuple[float | None, float]:
    middle = sum(close) / 20
    deviation = statistics.pstdev(close)
    upper, lower = middle + 2 * deviation, middle - 2 * deviation
    place = (close[-1] - lower) / (upper - lower) if deviation else None
    return place, (upper - lower) / middle


def slow_stochastic(bars: Sequence[Bar]) -> float | None:
    places = []
    for last in (len(bars), len(bars) - 1, len(bars) - 2):
        span = bars[last - 14 : last]
        highest, lowest = max(bar.high for bar in span), min(bar.low for bar in span)
        if highest == lowest:
            return None
        places.append(100 * (span[-1].close - lowest) / (highest - lowest))
    return sum(places) / 3


def slow_stochastic_mean(bars: Sequence[Bar]) -> float | None:
    lines = [slow_stochastic(bars[: len(bars) - back]) for back in range(3)]
    known = [line for line in lines if line is not None]
    return sum(known) / 3 if len(known) == 3 else None


def volume_trend(bars: Sequence[Bar]) -> float | None:
    balance = total = 0.0
    for before, bar in itertools.pairwise(bars):
        total += bar.volume
        if bar.close > before.close:
            balance += bar.volume
        elif bar.close < before.close:
            balance -= bar.volume
    return balance / total if total else None


def volatility(close: Sequence[float]) -> float:
    returns = [math.log(after / before) for before, after in itertools.pairwise(close)]
    return statistics.stdev(returns) * math.sqrt(252)
