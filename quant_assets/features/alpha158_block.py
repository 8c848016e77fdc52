"""The formulas of Alpha158 on one block of securities.

Belongs here: the derived series, and the arithmetic of each group of columns. Does not belong
here: checking and laying out frames (`alpha158.py`), the rolling arithmetic itself
(`window_lattice.py`).

Element-wise steps are float32 and rolling results float64, as in Qlib; where a float32 step is
kept, it decides the last bits of the result. pandas, which Qlib rolls with, takes an infinite
value for a missing one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from quant_assets.features.alpha158_formulas import WINDOWS
from quant_assets.features.window_lattice import (
    Moments,
    Observations,
    Windows,
    centred_products,
    highest_with_lag,
    lag_weighted,
    moments,
    rank_of_today,
    rolling,
    shift,
    smallest,
)

Series = NDArray[Any]
Columns = Iterator[tuple[str, Series]]

NEGLIGIBLE: Final = 1e-12
"""Qlib's guard against division by zero; in float32 it vanishes unless the other term is 0."""

FLAT_VARIANCE: Final = 2e-5**2
"""Qlib calls a series constant where its rolling standard deviation is at most 2e-5, in its own units."""


@dataclass(frozen=True)
class Block:
    """Some securities on the calendar, one behind the other, each after `PAD` empty rows.

    Attributes:
        open: Float32, NaN where not observed; likewise high, low, close, volume and vwap.
        age: Sessions since the listing, 1 on the listing's own; 0 in pads.
        rows: The rows of the wanted bars.
        first_result: Number of the first of them in the whole result.
    """

    open: NDArray[np.float32]
    high: NDArray[np.float32]
    low: NDArray[np.float32]
    close: NDArray[np.float32]
    volume: NDArray[np.float32]
    vwap: NDArray[np.float32]
    age: NDArray[np.int32]
    rows: NDArray[np.int64]
    first_result: int
    _observations: list[Observations] = field(default_factory=list)

    def observations(self, series: Series) -> Observations:
        """Describe the gaps of a series; series with the same gaps share one description."""
        observed = np.isfinite(series)
        for known in self._observations:
            if np.array_equal(known.observed, observed):
                return known
        self._observations.append(Observations(observed))
        return self._observations[-1]

    def moments(self, series: Series) -> Moments:
        """Roll means and centred squares of a series over its observed rows."""
        return moments(series, self.observations(series))

    @cached_property
    def listed(self) -> NDArray[np.bool_]:
        """Rows from the listing on, observed or not."""
        return self.age > 0

    @cached_property
    def sessions_listed(self) -> Windows:
        """Sessions of each window since the listing."""
        age = np.where(self.listed, self.age, np.nan).astype(np.float32)
        return {window: np.minimum(age, np.float32(window)) for window in WINDOWS}

    @cached_property
    def previous_close(self) -> Series:
        """Close one session earlier."""
        return shift(self.close, 1)

    @cached_property
    def close_ratio(self) -> Series:
        """Close over the close one session earlier."""
        return self.close / self.previous_close

    @cached_property
    def close_moments(self) -> Moments:
        """Rolling moments of the close."""
        return self.moments(self.close)


def columns(bar: Block) -> Columns:
    """Compute all 158 columns, as pairs of a name and one value per row of the block."""
    yield from _bar_shape(bar)
    yield from _price_ratios(bar)
    yield from _closes(bar)
    yield from _quantiles(bar)
    yield from _extremes(bar)
    yield from _correlations(bar)
    yield from _day_counts(bar)
    yield from _changes("SUM", bar.close, bar)
    yield from _volumes(bar)
    yield from _changes("VSUM", bar.volume, bar)


def _bar_shape(bar: Block) -> Columns:
    """KMID, KLEN, KMID2, KUP, KUP2, KLOW, KLOW2, KSFT, KSFT2."""
    length = bar.high - bar.low
    guarded = length + np.float32(NEGLIGIBLE)
    body = bar.close - bar.open
    upper = bar.high - np.maximum(bar.open, bar.close)
    lower = np.minimum(bar.open, bar.close) - bar.low
    skew = np.float32(2) * bar.close - bar.high - bar.low
    yield "KLEN", length / bar.open
    for name, part in (("KMID", body), ("KUP", upper), ("KLOW", lower), ("KSFT", skew)):
        yield name, part / bar.open
        yield f"{name}2", part / guarded


def _price_ratios(bar: Block) -> Columns:
    """OPEN0, HIGH0, LOW0, VWAP0, ROC."""
    yield "OPEN0", bar.open / bar.close
    yield "HIGH0", bar.high / bar.close
    yield "LOW0", bar.low / bar.close
    yield "VWAP0", bar.vwap / bar.close
    for window in WINDOWS:
        yield f"ROC{window}", shift(bar.close, window) / bar.close


def _closes(bar: Block) -> Columns:
    """MA, STD, BETA, RSQR, RESI, RANK."""
    close, rolled = bar.close.astype(np.float64), bar.close_moments
    seen = rolled.observations
    weighted = lag_weighted(rolled.total)
    ranks = rank_of_today(bar.close, WINDOWS)
    for window in WINDOWS:
        count, lags, spread = seen.count[window], seen.lags[window], seen.lag_spread[window]
        yield f"MA{window}", rolled.mean[window] / close
        yield f"STD{window}", rolled.deviation(window) / close
        # Time runs against the lag, so that the covariance with time is that with the lag, negated.
        covariance = lags * rolled.total[window] - count * weighted[window]
        slope = covariance / spread
        yield f"BETA{window}", slope / close
        explained = covariance * covariance / (spread * count * rolled.squares[window])
        yield f"RSQR{window}", np.where(_flat(rolled, window), np.nan, explained)
        line = rolled.mean[window] + slope * lags / seen.divisor[window]
        yield f"RESI{window}", (close - line) / close
        yield f"RANK{window}", np.where(seen.observed, ranks[window] / count, np.nan)


def _flat(rolled: Moments, window: int) -> NDArray[np.bool_]:
    """Where Qlib takes a series for constant; never below two observations."""
    return rolled.squares[window] <= FLAT_VARIANCE * rolled.observations.degrees_of_freedom[window]


@dataclass(frozen=True)
class QuantileRanks:
    """Where the linear quantile of n sorted values lies, for n = 0 … 60 (n = 0 is never asked for).

    Attributes:
        below: Rank of the value below, 0 = the lowest.
        above: Rank of the value above; the same where the quantile is a value itself.
        fraction: Share of the way from one to the other.
    """

    below: NDArray[np.int64]
    above: NDArray[np.int64]
    fraction: NDArray[np.float64]

    @classmethod
    def of(cls, share: float) -> "QuantileRanks":
        """Locate the quantile `share` as pandas does: at `share * (n - 1)`."""
        place = share * np.maximum(np.arange(max(WINDOWS) + 1) - 1.0, 0.0)
        below = np.floor(place)
        return cls(below.astype(np.int64), np.ceil(place).astype(np.int64), place - below)

    def from_top(self) -> "QuantileRanks":
        """Count the ranks from the highest value down, 0 = the highest."""
        last = np.maximum(np.arange(len(self.below)) - 1, 0)
        return QuantileRanks(last - self.below, last - self.above, self.fraction)


LOWER_QUANTILE: Final = QuantileRanks.of(0.2)
UPPER_QUANTILE: Final = QuantileRanks.of(0.8).from_top()
SORTED_VALUES: Final = 1 + int(max(LOWER_QUANTILE.above.max(), UPPER_QUANTILE.below.max()))
"""How many of the lowest (highest) closes of a window the two quantiles can need."""


def _quantiles(bar: Block) -> Columns:
    """QTLU, QTLD."""
    seen, close = bar.close_moments.observations, bar.close
    infinite = np.float32(np.inf)
    lowest = smallest(np.where(seen.observed, close, infinite), SORTED_VALUES)
    for window in WINDOWS:
        yield f"QTLD{window}", _quantile(lowest[window], LOWER_QUANTILE, window, bar) / close
    del lowest
    highest = smallest(np.where(seen.observed, -close, infinite), SORTED_VALUES)
    for window in WINDOWS:
        yield f"QTLU{window}", -_quantile(highest[window], UPPER_QUANTILE, window, bar) / close


def _quantile(values: list[Series], ranks: QuantileRanks, window: int, bar: Block) -> Series:
    """Interpolate between two of the sorted values of each window, by how many it observed."""
    below = values[ranks.below[window]].astype(np.float64)
    quantile = below + (values[ranks.above[window]] - below) * ranks.fraction[window]
    count = bar.close_moments.observations.count[window]
    partial = np.flatnonzero(bar.listed & (count < window) & (count > 0))
    few, number = np.array([ranked[partial] for ranked in values]), count[partial].astype(np.int64)
    place = np.arange(len(partial))
    below = few[ranks.below[number], place].astype(np.float64)
    above = few[ranks.above[number], place]
    quantile[partial] = below + (above - below) * ranks.fraction[number]
    return quantile


def _extremes(bar: Block) -> Columns:
    """MAX, MIN, RSV, IMAX, IMIN, IMXD."""
    top, top_place = _highest(bar.high, bar)
    bottom, bottom_place = _highest(-bar.low, bar)
    for window in WINDOWS:
        high, low = top[window], -bottom[window]
        yield f"MAX{window}", high / bar.close
        yield f"MIN{window}", low / bar.close
        floor = low.astype(np.float64)
        yield f"RSV{window}", (bar.close - floor) / (high - floor + NEGLIGIBLE)
        yield f"IMAX{window}", top_place[window] / np.float32(window)
        yield f"IMIN{window}", bottom_place[window] / np.float32(window)
        difference = top_place[window] - bottom_place[window]
        yield f"IMXD{window}", difference / np.float32(window)


def _highest(series: Series, bar: Block) -> tuple[Windows, Windows]:
    """Roll the highest observed value, and the place (1 = oldest) of the highest in the window.

    The place is that of numpy's argmax on the raw window: of the first missing value if there is
    one, of the oldest of equal values otherwise.
    """
    observed = np.isfinite(series)
    keys = np.where(observed, series, np.where(bar.listed, np.float32(np.inf), np.float32(-np.inf)))
    highest, lags = highest_with_lag(keys)
    if not np.array_equal(observed, bar.listed):
        highest = rolling(np.maximum, np.where(observed, series, np.float32(-np.inf)))
    values, places = {}, {}
    for window in WINDOWS:
        nothing = np.isneginf(highest[window])
        values[window] = np.where(nothing, np.float32(np.nan), highest[window])
        place = bar.sessions_listed[window] - lags[window]
        places[window] = np.where(nothing, np.float32(np.nan), place)
    return values, places


def _correlations(bar: Block) -> Columns:
    """CORR, CORD."""
    volume_ratio = bar.volume / shift(bar.volume, 1)
    for name, left, right in (
        ("CORR", bar.close, np.log(bar.volume + np.float32(1))),
        ("CORD", bar.close_ratio, np.log(volume_ratio + np.float32(1))),
    ):
        own_left = bar.close_moments if left is bar.close else bar.moments(left)
        own_right = bar.moments(right)
        # A row counts where both are observed; whether a series is constant is asked of each on its own.
        joint = bar.observations(left + right)
        pair_left, pair_right = (
            own if own.observations is joint else moments(series, joint)
            for series, own in ((left, own_left), (right, own_right))
        )
        products = centred_products(pair_left, pair_right)
        for window in WINDOWS:
            scale = np.sqrt(pair_left.squares[window] * pair_right.squares[window])
            flat = _flat(own_left, window) | _flat(own_right, window)
            yield f"{name}{window}", np.where(flat, np.nan, products[window] / scale)


def _day_counts(bar: Block) -> Columns:
    """CNTP, CNTN, CNTD. A day without a comparison counts as neither, and in the denominator."""
    up = rolling(np.add, (bar.close > bar.previous_close).astype(np.float32))
    down = rolling(np.add, (bar.close < bar.previous_close).astype(np.float32))
    for window in WINDOWS:
        days = bar.sessions_listed[window]
        yield f"CNTP{window}", up[window] / days
        yield f"CNTN{window}", down[window] / days
        yield f"CNTD{window}", (up[window] - down[window]) / days


def _changes(prefix: str, series: Series, bar: Block) -> Columns:
    """SUMP, SUMN, SUMD of the close, and VSUMP, VSUMN, VSUMD of the volume."""
    change = series - shift(series, 1)
    seen = bar.observations(change)
    known = np.where(seen.observed, change, np.float32(0))
    gains = rolling(np.add, np.maximum(known, np.float32(0)).astype(np.float64))
    losses = rolling(np.add, np.maximum(-known, np.float32(0)).astype(np.float64))
    for window in WINDOWS:
        gain, loss = gains[window], losses[window]
        moved = np.where(seen.count[window] > 0, gain + loss + NEGLIGIBLE, np.nan)
        yield f"{prefix}P{window}", gain / moved
        yield f"{prefix}N{window}", loss / moved
        yield f"{prefix}D{window}", (gain - loss) / moved


def _volumes(bar: Block) -> Columns:
    """VMA, VSTD, WVMA."""
    guarded = bar.volume + np.float32(NEGLIGIBLE)
    volume = bar.moments(bar.volume)
    weighted_move = bar.moments(np.abs(bar.close_ratio - np.float32(1)) * bar.volume)
    for window in WINDOWS:
        yield f"VMA{window}", volume.mean[window] / guarded
        yield f"VSTD{window}", volume.deviation(window) / guarded
        deviation = weighted_move.deviation(window)
        yield f"WVMA{window}", deviation / (weighted_move.mean[window] + NEGLIGIBLE)
