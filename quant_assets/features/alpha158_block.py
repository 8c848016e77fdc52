"""The formulas of Alpha158 on one block of securities.

Belongs here: the derived series, and the arithmetic of each group of columns. Does not belong
here: checking frames (`alpha158.py`), laying them out (`block_layout.py`), the rolling arithmetic
itself (`window_lattice.py`).

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

from quant_assets.features.alpha158_formulas import LOOKBACK, WINDOWS
from quant_assets.features.window_lattice import (
    EVERY_SESSION,
    LAST_SESSION,
    Flags,
    Moments,
    Observations,
    Rows,
    Windows,
    centred_products,
    highest_with_lag,
    lag_weighted,
    last,
    moments,
    rank_of_today,
    rolling,
    smallest,
)

Series = NDArray[Any]
Places = slice | NDArray[np.int64]
Columns = Iterator[tuple[str, Series]]

NEGLIGIBLE: Final = 1e-12
"""Qlib's guard against division by zero; in float32 it vanishes unless the other term is 0."""

SLICED_RUNS: Final = 24
"""Runs of rows up to which copying one after the other is quicker than by row numbers."""

FLAT_VARIANCE: Final = 2e-5**2
"""Qlib calls a series constant where its rolling standard deviation is at most 2e-5, in its own units."""


@dataclass(frozen=True)
class Block:
    """Some securities on the calendar, laid out as `window_lattice` wants them.

    The first `LOOKBACK` rows are only looked back at: features are computed of the `rows` after
    them.

    Attributes:
        open: Float32, NaN where not observed; likewise high, low, close, volume and vwap.
        age: Sessions since the listing, 1 on the listing's own; 0 where nothing is known.
        wanted: Where the wanted bars stand in the flattened last rows.
        results: Their rows of the whole result.
    """

    open: NDArray[np.float32]
    high: NDArray[np.float32]
    low: NDArray[np.float32]
    close: NDArray[np.float32]
    volume: NDArray[np.float32]
    vwap: NDArray[np.float32]
    age: NDArray[np.float32]
    wanted: NDArray[np.int64]
    results: slice
    _observations: list[Observations] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many rows features are computed of."""
        return len(self.close) - LOOKBACK

    @property
    def window_rows(self) -> Rows:
        """The sessions whose windows are wanted."""
        return LAST_SESSION if self.rows == 1 else EVERY_SESSION

    def last(self, values: Series, lag: int = 0) -> Series:
        """Return the rows that features are computed of, or those `lag` sessions earlier."""
        return last(values, self.rows, lag)

    def observations(self, series: Series) -> Observations:
        """Describe the gaps of a series; series with the same gaps share one description."""
        observed = np.isfinite(series)
        for known in self._observations:
            if np.array_equal(known.observed, observed):
                return known
        self._observations.append(Observations(observed, self.window_rows))
        return self._observations[-1]

    def moments(self, series: Series) -> Moments:
        """Roll means and centred squares of a series over its observed rows."""
        return moments(series, self.observations(series))

    @cached_property
    def runs(self) -> list[tuple[Places, Places]]:
        """Where wanted bars stand in the flattened last rows, and in the block's part of the result.

        As slices, unless they are so scattered that one array of row numbers is quicker.
        """
        breaks = np.flatnonzero(np.diff(self.wanted) != 1) + 1
        if len(breaks) > SLICED_RUNS:
            return [(self.wanted, slice(None))]
        edges = zip([0, *breaks], [*breaks, len(self.wanted)], strict=True)
        first = self.wanted
        return [(slice(first[a], first[a] + b - a), slice(a, b)) for a, b in edges]

    @cached_property
    def listed(self) -> Flags:
        """Rows from the listing on, observed or not."""
        return self.age > 0

    @cached_property
    def sessions_listed(self) -> Windows:
        """Sessions of each window since the listing."""
        return {window: np.minimum(self.last(self.age), np.float32(window)) for window in WINDOWS}

    @cached_property
    def partial_windows(self) -> dict[int, tuple[tuple[NDArray[np.int64], ...], NDArray[np.int64]]]:
        """Where a wanted bar's window lacks some of its closes, but not all, and how many it has."""
        windows = {}
        is_wanted = np.zeros(self.last(self.close).shape, dtype=np.bool_)
        is_wanted.reshape(-1)[self.wanted] = True
        for window in WINDOWS:
            count = self.last(self.close_moments.observations.count[window])
            partial = np.nonzero(is_wanted & (count < window) & (count > 0))
            windows[window] = partial, count[partial].astype(np.int64)
        return windows

    @cached_property
    def exact_close(self) -> Series:
        """The close as float64, of the rows that features are computed of."""
        return self.last(self.close).astype(np.float64)

    @cached_property
    def close_ratio(self) -> Series:
        """Close over the close one session earlier."""
        return self.close[1:] / self.close[:-1]

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
    opening, high, low, close = (bar.last(x) for x in (bar.open, bar.high, bar.low, bar.close))
    length = high - low
    guarded = length + np.float32(NEGLIGIBLE)
    body = close - opening
    upper = high - np.maximum(opening, close)
    lower = np.minimum(opening, close) - low
    skew = np.float32(2) * close - high - low
    yield "KLEN", length / opening
    for name, part in (("KMID", body), ("KUP", upper), ("KLOW", lower), ("KSFT", skew)):
        yield name, part / opening
        yield f"{name}2", part / guarded


def _price_ratios(bar: Block) -> Columns:
    """OPEN0, HIGH0, LOW0, VWAP0, ROC."""
    close = bar.last(bar.close)
    yield "OPEN0", bar.last(bar.open) / close
    yield "HIGH0", bar.last(bar.high) / close
    yield "LOW0", bar.last(bar.low) / close
    yield "VWAP0", bar.last(bar.vwap) / close
    for window in WINDOWS:
        yield f"ROC{window}", bar.last(bar.close, window) / close


def _closes(bar: Block) -> Columns:
    """MA, STD, BETA, RSQR, RESI, RANK."""
    close, rolled, seen = bar.exact_close, bar.close_moments, bar.close_moments.observations
    weighted_total = lag_weighted(rolled.total, bar.window_rows)
    for window in WINDOWS:
        total, weighted, mean, squares, count, lags, spread, divisor = (
            bar.last(windows[window])
            for windows in (
                *(rolled.total, weighted_total, rolled.mean, rolled.squares),
                *(seen.count, seen.lags, seen.lag_spread, seen.divisor),
            )
        )
        yield f"MA{window}", mean / close
        yield f"STD{window}", _deviation(rolled, window, bar) / close
        # Time runs against the lag, so that the covariance with time is that with the lag, negated.
        covariance = lags * total - count * weighted
        slope = covariance / spread
        yield f"BETA{window}", slope / close
        explained = covariance * covariance / (spread * count * squares)
        yield f"RSQR{window}", _undefined(explained, _flat(rolled, window, bar))
        line = mean + slope * lags / divisor
        yield f"RESI{window}", (close - line) / close
    missing = ~bar.last(seen.observed)
    for window, rank in rank_of_today(bar.close, WINDOWS, bar.rows).items():
        share = rank / bar.last(seen.count[window]).astype(np.float32)
        yield f"RANK{window}", _undefined(share, missing)


def _deviation(rolled: Moments, window: int, bar: Block) -> Series:
    """Sample standard deviation (ddof 1); NaN below two observations."""
    freedom = rolled.observations.degrees_of_freedom[window]
    return np.sqrt(bar.last(rolled.squares[window]) / bar.last(freedom))


def _flat(rolled: Moments, window: int, bar: Block) -> Flags:
    """Where Qlib takes a series for constant; never below two observations."""
    freedom = rolled.observations.degrees_of_freedom[window]
    return bar.last(rolled.squares[window]) <= FLAT_VARIANCE * bar.last(freedom)


def _undefined(values: Series, where: Flags) -> Series:
    """Make some rows NaN, in place."""
    np.copyto(values, np.nan, where=where)
    return values


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
    seen = bar.close_moments.observations
    for name, sign, ranks in (("QTLD", 1, LOWER_QUANTILE), ("QTLU", -1, UPPER_QUANTILE)):
        closes = np.float32(sign) * bar.close
        np.copyto(closes, np.inf, where=~seen.observed)
        lowest = smallest(closes, SORTED_VALUES, bar.window_rows)
        for window in WINDOWS:
            quantile = _quantile(lowest[window], ranks, window, bar)
            yield f"{name}{window}", sign * quantile / bar.exact_close


def _quantile(values: list[Series], ranks: QuantileRanks, window: int, bar: Block) -> Series:
    """Interpolate between two of the sorted values of each window, by how many it observed."""
    below = bar.last(values[ranks.below[window]]).astype(np.float64)
    quantile = bar.last(values[ranks.above[window]]).astype(np.float64)
    quantile -= below
    quantile *= ranks.fraction[window]
    quantile += below
    partial, number = bar.partial_windows[window]
    few = np.array([bar.last(ranked)[partial] for ranked in values], dtype=np.float64)
    place = np.arange(len(number))
    below, above = few[ranks.below[number], place], few[ranks.above[number], place]
    quantile[partial] = below + (above - below) * ranks.fraction[number]
    return quantile


def _extremes(bar: Block) -> Columns:
    """MAX, MIN, RSV, IMAX, IMIN, IMXD."""
    close = bar.last(bar.close)
    top, top_place = _highest(bar.high, bar)
    bottom, bottom_place = _highest(-bar.low, bar)
    for window in WINDOWS:
        high, low = top[window], -bottom[window]
        yield f"MAX{window}", high / close
        yield f"MIN{window}", low / close
        floor, span = low.astype(np.float64), high.astype(np.float64)
        span -= floor
        span += NEGLIGIBLE
        yield f"RSV{window}", (bar.exact_close - floor) / span
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
    present = series.copy()
    np.copyto(present, -np.inf, where=~observed)
    keys = present.copy()
    np.copyto(keys, np.inf, where=bar.listed & ~observed)
    highest, lags = highest_with_lag(keys, bar.window_rows)
    if not np.array_equal(observed, bar.listed):
        highest = rolling(np.maximum, present, bar.window_rows)
    values, places = {}, {}
    for window in WINDOWS:
        value = bar.last(highest[window])
        place = bar.sessions_listed[window] - bar.last(lags[window]).astype(np.float32)
        nothing = value == -np.inf
        values[window], places[window] = _undefined(value, nothing), _undefined(place, nothing)
    return values, places


def _correlations(bar: Block) -> Columns:
    """CORR, CORD."""
    volume_ratio = bar.volume[1:] / bar.volume[:-1]
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
            scale = np.sqrt(
                bar.last(pair_left.squares[window]) * bar.last(pair_right.squares[window])
            )
            flat = _flat(own_left, window, bar) | _flat(own_right, window, bar)
            yield f"{name}{window}", _undefined(bar.last(products[window]) / scale, flat)


def _day_counts(bar: Block) -> Columns:
    """CNTP, CNTN, CNTD. A day without a comparison counts as neither, and in the denominator."""
    today, before = bar.close[1:], bar.close[:-1]
    up = rolling(np.add, (today > before).astype(np.float32), bar.window_rows)
    down = rolling(np.add, (today < before).astype(np.float32), bar.window_rows)
    for window in WINDOWS:
        days = bar.sessions_listed[window]
        ups, downs = bar.last(up[window]), bar.last(down[window])
        yield f"CNTP{window}", ups / days
        yield f"CNTN{window}", downs / days
        yield f"CNTD{window}", (ups - downs) / days


def _changes(prefix: str, series: Series, bar: Block) -> Columns:
    """SUMP, SUMN, SUMD of the close, and VSUMP, VSUMN, VSUMD of the volume."""
    change = series[1:] - series[:-1]
    seen = bar.observations(change)
    np.copyto(change, 0.0, where=~seen.observed)
    gains = rolling(np.add, np.maximum(change, np.float32(0)).astype(np.float64), bar.window_rows)
    losses = rolling(np.add, np.maximum(-change, np.float32(0)).astype(np.float64), bar.window_rows)
    for window in WINDOWS:
        gain, loss = bar.last(gains[window]), bar.last(losses[window])
        moved = _undefined(gain + loss + NEGLIGIBLE, bar.last(seen.none[window]))
        yield f"{prefix}P{window}", gain / moved
        yield f"{prefix}N{window}", loss / moved
        yield f"{prefix}D{window}", (gain - loss) / moved


def _volumes(bar: Block) -> Columns:
    """VMA, VSTD, WVMA."""
    guarded = bar.last(bar.volume + np.float32(NEGLIGIBLE)).astype(np.float64)
    volume = bar.moments(bar.volume)
    weighted_move = bar.moments(np.abs(bar.close_ratio - np.float32(1)) * bar.volume[1:])
    for window in WINDOWS:
        yield f"VMA{window}", bar.last(volume.mean[window]) / guarded
        yield f"VSTD{window}", _deviation(volume, window, bar) / guarded
        deviation = _deviation(weighted_move, window, bar)
        yield f"WVMA{window}", deviation / (bar.last(weighted_move.mean[window]) + NEGLIGIBLE)
