"""Rolling statistics of several window lengths at once, without rolling state.

Belongs here: array functions that know windows and missing observations. Does not belong here:
what is computed from prices with them (`alpha158_block.py`), and frames.

1. The first axis is time. Either several securities stand one behind the other on it, each after
   as many empty rows (pads) as the longest window has, so that none reaches another security, or
   they stand side by side on a second axis. A slice of the first axis means the same in both, so
   that no step needs to know which it is, or where a security begins.
2. The windows form a lattice: a window of w sessions is a newer one of a sessions and an older
   one of b = w - a sessions, a sessions earlier (`LATTICE`: 2 = 1 + 1, 4 = 2 + 2, 5 = 4 + 1, 10 =
   5 + 5, …, 60 = 30 + 30). Every statistic of the wide window is merged from the same statistic
   of the two narrow ones by shifted array operations; seven merges give all five window lengths.
3. Sums, counts, extremes, positions of extremes, lag moments, centred squares and products (Chan,
   Golub, LeVeque 1979) and sorted lists of the smallest values (`sorting_network.py`) all merge
   in this way.
4. Which rows of a window length are merged is a table of slices: those of every session, or, where
   only the last session is wanted, the few that its windows consist of (`LAST_SESSION`).
5. Every window is therefore computed from its own values only: nothing drifts, nothing is left
   over when a value leaves the window, a constant window has exactly zero variance, and the same
   window gives the same bits wherever it stands in the array.

Series have shape (rows,) or (rows, securities), in C order. `Windows` hold one array per window
length, whose last row belongs to the last session; that of w sessions is w - 1 rows shorter than
the series, because its first row is the first full window. What numpy has no vector instructions
for costs ten times an addition and is avoided: `where`, masked copies of more than a few rows,
operands of different types.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from quant_assets.features.sorting_network import merge_network

LATTICE: Final = {
    2: (1, 1),
    4: (2, 2),
    5: (4, 1),
    10: (5, 5),
    20: (10, 10),
    30: (20, 10),
    60: (30, 30),
}
"""Each window length as (newer part, older part)."""

Index: TypeAlias = slice | tuple[slice | int, ...]

Rows: TypeAlias = dict[int, tuple[Index, Index]]
"""For each window length, which rows of the newer and of the older part's windows are merged."""

EVERY_SESSION: Final[Rows] = {
    width: (np.s_[older:], np.s_[:-newer]) for width, (newer, older) in LATTICE.items()
}

LAST_SESSION: Final[Rows] = {
    2: (np.s_[:, 2::2], np.s_[:, 1::2]),
    4: (np.s_[:, 1], np.s_[:, 0]),
    5: (np.s_[:], np.s_[:, 0]),
    10: (np.s_[1::2], np.s_[0::2]),
    20: (np.s_[2::3], np.s_[1::3]),
    30: (np.s_[:], np.s_[0::3]),
    60: (np.s_[1:], np.s_[:1]),
}
"""One window of 60, two of 30 and 20, six of 10, twelve of 5 and 4, of a series as 12 times 5 sessions."""

Floats: TypeAlias = NDArray[np.floating]
Flags: TypeAlias = NDArray[np.bool_]
Windows: TypeAlias = dict[int, NDArray[Any]]


def last(values: NDArray[Any], rows: int, lag: int = 0) -> NDArray[Any]:
    """Return the last rows of a series or window, or those that lie `lag` rows before them."""
    stop = len(values) - lag
    return values[stop - rows : stop]


def _sessions(values: NDArray[Any], rows: Rows) -> NDArray[Any]:
    """Windows of one session."""
    return values[-60:].reshape(12, 5, *values.shape[1:]) if rows is LAST_SESSION else values


def _parts(windows: Windows, width: int, rows: Rows) -> tuple[NDArray[Any], NDArray[Any]]:
    """The newer and the older part of each window."""
    newer, older = LATTICE[width]
    newer_rows, older_rows = rows[width]
    return windows[newer][newer_rows], windows[older][older_rows]


def rolling(ufunc: np.ufunc, values: NDArray[Any], rows: Rows = EVERY_SESSION) -> Windows:
    """Roll an associative operation (add, maximum, minimum) over every window of the lattice.

    Args:
        ufunc: The operation.
        values: One value per row; missing rows and pads hold its neutral element.
        rows: Which sessions' windows are wanted.
    """
    windows: Windows = {1: _sessions(values, rows)}
    for width in LATTICE:
        windows[width] = ufunc(*_parts(windows, width, rows))
    return windows


class Observations:
    """Which rows of a series are observed, and everything about its windows that depends on that alone.

    Series with the same gaps share one object, and with it the counts and weights.
    """

    def __init__(self, observed: Flags, rows: Rows = EVERY_SESSION) -> None:
        self.observed, self.rows = observed, rows
        self.count = rolling(np.add, observed.astype(np.float64), rows)

    @cached_property
    def divisor(self) -> Windows:
        """Number of observations, but 1 where there is none, so that an empty window has mean 0."""
        return {width: np.maximum(self.count[width], 1.0) for width in LATTICE}

    @cached_property
    def degrees_of_freedom(self) -> Windows:
        """Number of observations minus 1; NaN where fewer than two make a variance undefined."""
        freedom = {width: self.count[width] - 1.0 for width in LATTICE}
        for values in freedom.values():
            np.copyto(values, np.nan, where=values < 1.0)
        return freedom

    @cached_property
    def none(self) -> Windows:
        """Where a window holds no observation."""
        return {width: self.count[width] == 0.0 for width in LATTICE}

    @cached_property
    def merge_weight(self) -> Windows:
        """`n_a n_b / (n_a + n_b)` of the two parts of each window, the weight of their difference."""
        weights: Windows = {}
        for width in LATTICE:
            weights[width] = np.multiply(*_parts(self.count, width, self.rows))
            weights[width] /= self.divisor[width]
        return weights

    @cached_property
    def lags(self) -> Windows:
        """Sum of the lags (0 = today) of the observed rows."""
        return lag_weighted(self.count, self.rows)

    @cached_property
    def lag_spread(self) -> Windows:
        """`n Σ lag² - (Σ lag)²` of the observed rows."""
        squares: Windows = {1: np.zeros_like(self.count[1])}
        for width, (newer, _) in LATTICE.items():
            squares[width] = np.add(*_parts(squares, width, self.rows))
            squares[width] += 2.0 * newer * _parts(self.lags, width, self.rows)[1]
            squares[width] += float(newer * newer) * _parts(self.count, width, self.rows)[1]
        return {w: self.count[w] * squares[w] - self.lags[w] * self.lags[w] for w in LATTICE}


def lag_weighted(sums: Windows, rows: Rows = EVERY_SESSION) -> Windows:
    """Return `Σ lag x` of each window (lag 0 = today) from its plain sums `Σ x`."""
    weighted: Windows = {1: np.zeros_like(sums[1])}
    for width, (newer, _) in LATTICE.items():
        weighted[width] = np.add(*_parts(weighted, width, rows))
        weighted[width] += float(newer) * _parts(sums, width, rows)[1]
    return weighted


@dataclass(frozen=True)
class Moments:
    """Sums, means and centred squares `Σ (x - mean)²` of the observed values of each window."""

    observations: Observations
    total: Windows
    mean: Windows
    squares: Windows


def moments(values: Floats, observations: Observations) -> Moments:
    """Compute sums, means and centred squares of a series.

    Args:
        values: One value per row; whatever stands in rows that are not observed is ignored.
        observations: Which rows are observed.
    """
    filled = values.astype(np.float64)
    np.copyto(filled, 0.0, where=~observations.observed)
    total = rolling(np.add, filled, observations.rows)
    mean: Windows = {1: total[1]}
    squares: Windows = {1: np.zeros_like(total[1])}
    for width in LATTICE:
        mean[width] = total[width] / observations.divisor[width]
        between = np.subtract(*_parts(mean, width, observations.rows))
        between *= between
        squares[width] = _with_parts(squares, width, between, observations)
    return Moments(observations, total, mean, squares)


def centred_products(left: Moments, right: Moments) -> Windows:
    """Compute `Σ (x - mean x)(y - mean y)` of two series with the same observed rows."""
    products: Windows = {1: np.zeros_like(left.mean[1])}
    for width in LATTICE:
        between = np.subtract(*_parts(left.mean, width, left.observations.rows))
        between *= np.subtract(*_parts(right.mean, width, left.observations.rows))
        products[width] = _with_parts(products, width, between, left.observations)
    return products


def _with_parts(
    windows: Windows, width: int, between: Floats, observations: Observations
) -> Floats:
    """Add what the two parts hold to what lies between them, in place."""
    between *= observations.merge_weight[width]
    for part in _parts(windows, width, observations.rows):
        between += part
    return between


def highest_with_lag(keys: Floats, rows: Rows = EVERY_SESSION) -> tuple[Windows, Windows]:
    """Find the highest key of each window and its lag; of equal ones the oldest.

    Args:
        keys: One key per row; pads hold -inf.
        rows: Which sessions' windows are wanted.

    Returns:
        The highest keys, and their lags (int8, 0 = today).
    """
    highest: Windows = {1: _sessions(keys, rows)}
    lags: Windows = {1: np.zeros(highest[1].shape, dtype=np.int8)}
    for width, (newer, _) in LATTICE.items():
        newer_key, older_key = _parts(highest, width, rows)
        newer_lag, older_lag = _parts(lags, width, rows)
        highest[width] = np.maximum(newer_key, older_key)
        lags[width] = older_lag + np.int8(newer)
        lags[width] -= newer_lag
        lags[width] *= (older_key >= newer_key).view(np.int8)
        lags[width] += newer_lag
    return highest, lags


def rank_of_today(values: Floats, widths: tuple[int, ...], rows: int) -> Windows:
    """Rank today's value among the observed values of each window, ties averaged, 1 = the lowest.

    Args:
        values: One value per row; missing rows and pads hold NaN, which no value compares with.
        widths: Window lengths, ascending and at most 64 (the counts are kept in a byte).
        rows: How many of the last rows are ranked.
    """
    ranks: Windows = {}
    today = last(values, rows)
    doubled = np.zeros(today.shape, dtype=np.int8)
    compared = np.empty(today.shape, dtype=np.bool_)
    for lag in range(1, widths[-1]):
        earlier = last(values, rows, lag)
        for compare in (np.less, np.less_equal):
            doubled += compare(earlier, today, out=compared).view(np.int8)
        if lag + 1 in widths:
            ranks[lag + 1] = doubled * np.float32(0.5) + np.float32(1.0)
    return ranks


def smallest(
    values: Floats, keep: int, rows: Rows = EVERY_SESSION
) -> dict[int, list[NDArray[Any]]]:
    """Sort the smallest values of each window.

    Args:
        values: One value per row; missing rows and pads hold +inf.
        keep: How many of the smallest values are kept.
        rows: Which sessions' windows are wanted.

    Returns:
        For each window length its smallest values, ascending, at most `keep`.
    """
    lists: dict[int, list[NDArray[Any]]] = {1: [_sessions(values, rows)]}
    for width, (newer, older) in LATTICE.items():
        merge = merge_network(len(lists[newer]), len(lists[older]), min(width, keep))
        newer_rows, older_rows = rows[width]
        lists[width] = merge(
            [kept[newer_rows] for kept in lists[newer]]
            + [kept[older_rows] for kept in lists[older]]
        )
    return lists
