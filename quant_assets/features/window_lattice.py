"""Rolling statistics of several window lengths at once, without rolling state.

Belongs here: array functions that know windows and missing observations. Does not belong here:
what is computed from prices with them (`alpha158.py`), and frames.

1. A block is one array along time in which several securities stand one behind the other, each
   after `PAD` empty rows. No window is longer than `PAD`, so a shifted view never sees another
   security, and no step needs to know where a security begins.
2. The windows form a lattice: a window of w sessions is a newer one of a sessions and an older
   one of b = w - a sessions, a sessions earlier (`LATTICE`: 2 = 1 + 1, 4 = 2 + 2, 5 = 4 + 1, 10 =
   5 + 5, …, 60 = 30 + 30). Every statistic of the wide window is merged from the same statistic
   of the two narrow ones by shifted array operations; eight of them give all five window lengths.
3. Sums, counts, extremes, positions of extremes, lag moments, centred squares and products (Chan,
   Golub, LeVeque 1979) and sorted lists of the smallest values (Batcher's odd-even merge) all
   merge in this way.
4. Every window is therefore computed from its own values only: nothing drifts, nothing is left
   over when a value leaves the window, a constant window has exactly zero variance, and the same
   window gives the same bits wherever it stands in the array.

Arrays have shape (rows of the block,). A dictionary of arrays has the window length as its key.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

PAD: Final = 64
"""Empty rows in front of each security of a block; longer than every window."""

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

Floats: TypeAlias = NDArray[np.floating]
Flags: TypeAlias = NDArray[np.bool_]
Windows: TypeAlias = dict[int, NDArray[Any]]


def shift(values: NDArray[Any], lag: int, fill: float = np.nan) -> NDArray[Any]:
    """Return the values `lag` rows earlier; the first `lag` rows, which are pad, hold `fill`."""
    shifted = np.empty_like(values)
    shifted[:lag] = fill
    shifted[lag:] = values[:-lag]
    return shifted


def _merge(ufunc: np.ufunc, newer: NDArray[Any], older: NDArray[Any], lag: int) -> NDArray[Any]:
    """Apply `ufunc` to the newer part and the older part `lag` rows earlier."""
    merged = np.empty_like(newer)
    merged[:lag] = newer[:lag]
    ufunc(newer[lag:], older[:-lag], out=merged[lag:])
    return merged


def rolling(ufunc: np.ufunc, values: NDArray[Any]) -> Windows:
    """Roll an associative operation (add, maximum, minimum) over every window of the lattice.

    Args:
        ufunc: The operation.
        values: One value per row; missing rows and pads hold its neutral element.
    """
    windows: Windows = {1: values}
    for width, (newer, older) in LATTICE.items():
        windows[width] = _merge(ufunc, windows[newer], windows[older], newer)
    return windows


class Observations:
    """Which rows of a series are observed, and everything about its windows that depends on that alone.

    Series with the same gaps share one object, and with it the counts and weights.
    """

    def __init__(self, observed: Flags) -> None:
        self.observed = observed
        self.count = rolling(np.add, observed.astype(np.float64))

    @cached_property
    def divisor(self) -> Windows:
        """Number of observations, but 1 where there is none, so that an empty window has mean 0."""
        return {width: np.maximum(count, 1.0) for width, count in self.count.items()}

    @cached_property
    def degrees_of_freedom(self) -> Windows:
        """Number of observations minus 1; NaN where fewer than two make a variance undefined."""
        return {width: np.where(n >= 2, n - 1.0, np.nan) for width, n in self.count.items()}

    @cached_property
    def merge_weight(self) -> Windows:
        """`n_a n_b / (n_a + n_b)` of the two parts of each window, the weight of their difference."""
        weights: Windows = {}
        for width, (newer, older) in LATTICE.items():
            weight = _merge(np.multiply, self.count[newer], self.count[older], newer)
            weight[:newer] = 0.0
            weights[width] = weight / self.divisor[width]
        return weights

    @cached_property
    def lags(self) -> Windows:
        """Sum of the lags (0 = today) of the observed rows."""
        return lag_weighted(self.count)

    @cached_property
    def lag_spread(self) -> Windows:
        """`n Σ lag² - (Σ lag)²` of the observed rows."""
        squares: Windows = {1: np.zeros_like(self.count[1])}
        for width, (newer, older) in LATTICE.items():
            total = _merge(np.add, squares[newer], squares[older], newer)
            total[newer:] += 2.0 * newer * self.lags[older][:-newer]
            total[newer:] += float(newer * newer) * self.count[older][:-newer]
            squares[width] = total
        return {w: self.count[w] * squares[w] - self.lags[w] * self.lags[w] for w in squares}


def lag_weighted(sums: Windows) -> Windows:
    """Return `Σ lag x` of each window (lag 0 = today) from its plain sums `Σ x`."""
    weighted: Windows = {1: np.zeros_like(sums[1])}
    for width, (newer, older) in LATTICE.items():
        total = _merge(np.add, weighted[newer], weighted[older], newer)
        total[newer:] += float(newer) * sums[older][:-newer]
        weighted[width] = total
    return weighted


@dataclass(frozen=True)
class Moments:
    """Sums, means and centred squares `Σ (x - mean)²` of the observed values of each window."""

    observations: Observations
    total: Windows
    mean: Windows
    squares: Windows

    def deviation(self, width: int) -> Floats:
        """Sample standard deviation (ddof 1); NaN below two observations."""
        return np.sqrt(self.squares[width] / self.observations.degrees_of_freedom[width])


def _mean_differences(mean: Windows, width: int) -> Floats:
    newer, older = LATTICE[width]
    return _merge(np.subtract, mean[newer], mean[older], newer)


def moments(values: Floats, observations: Observations) -> Moments:
    """Compute sums, means and centred squares of a series.

    Args:
        values: One value per row; whatever stands in rows that are not observed is ignored.
        observations: Which rows are observed.
    """
    filled = np.where(observations.observed, values, 0.0).astype(np.float64, copy=False)
    total = rolling(np.add, filled)
    mean: Windows = {w: total[w] / observations.divisor[w] for w in total if w > 1}
    mean[1] = filled
    squares: Windows = {1: np.zeros_like(filled)}
    for width, (newer, older) in LATTICE.items():
        between = _mean_differences(mean, width)
        between *= between
        between *= observations.merge_weight[width]
        between += squares[newer]
        between[newer:] += squares[older][:-newer]
        squares[width] = between
    return Moments(observations, total, mean, squares)


def centred_products(left: Moments, right: Moments) -> Windows:
    """Compute `Σ (x - mean x)(y - mean y)` of two series with the same observed rows."""
    products: Windows = {1: np.zeros_like(left.mean[1])}
    weight = left.observations.merge_weight
    for width, (newer, older) in LATTICE.items():
        between = _mean_differences(left.mean, width)
        between *= _mean_differences(right.mean, width)
        between *= weight[width]
        between += products[newer]
        between[newer:] += products[older][:-newer]
        products[width] = between
    return products


def highest_with_lag(keys: Floats) -> tuple[Windows, Windows]:
    """Find the highest key of each window and its lag; of equal ones the oldest.

    Args:
        keys: One key per row; pads hold -inf.

    Returns:
        The highest keys, and their lags (int8, 0 = today).
    """
    highest: Windows = {1: keys}
    lags: Windows = {1: np.zeros(len(keys), dtype=np.int8)}
    for width, (newer, older) in LATTICE.items():
        highest[width] = _merge(np.maximum, highest[newer], highest[older], newer)
        lag = lags[newer].copy()
        older_wins = highest[older][:-newer] >= highest[newer][newer:]
        np.copyto(lag[newer:], lags[older][:-newer] + np.int8(newer), where=older_wins)
        lags[width] = lag
    return highest, lags


def rank_of_today(values: Floats, widths: tuple[int, ...]) -> Windows:
    """Rank today's value among the observed values of each window, ties averaged, 1 = the lowest.

    Args:
        values: One value per row; missing rows and pads hold NaN, which no value compares with.
        widths: Window lengths, ascending and at most 64 (the counts are kept in a byte).
    """
    ranks: Windows = {}
    doubled = np.zeros(len(values), dtype=np.int8)
    for lag in range(1, widths[-1]):
        today, earlier = values[lag:], values[:-lag]
        doubled[lag:] += earlier < today
        doubled[lag:] += earlier <= today
        if lag + 1 in widths:
            ranks[lag + 1] = doubled * np.float32(0.5) + np.float32(1.0)
    return ranks


def smallest(values: Floats, keep: int) -> dict[int, list[NDArray[Any]]]:
    """Sort the smallest values of each window.

    Args:
        values: One value per row; missing rows and pads hold +inf.
        keep: How many of the smallest values are kept.

    Returns:
        For each window length its smallest values, ascending, at most `keep`.
    """
    lists: dict[int, list[NDArray[Any]]] = {1: [values]}
    for width, (newer, older) in LATTICE.items():
        network = merge_network(len(lists[newer]), len(lists[older]), min(width, keep))
        newer_list = [array[newer:] for array in lists[newer]]
        older_list = [array[:-newer] for array in lists[older]]
        lists[width] = []
        for kept in network(newer_list + older_list):
            padded = np.empty_like(values)
            padded[:newer] = np.inf
            padded[newer:] = kept
            lists[width].append(padded)
    return lists


Wire: TypeAlias = "int | tuple[np.ufunc, Wire, Wire]"


@cache
def merge_network(
    left: int, right: int, count: int
) -> Callable[[list[NDArray[Any]]], list[NDArray[Any]]]:
    """Build Batcher's odd-even network that merges two sorted lists, cut to its first `count` outputs.

    Source: Knuth, The Art of Computer Programming 3, section 5.3.4. Minima and maxima that no
    kept output depends on are left out.
    """
    outputs = _odd_even_merge(list(range(left)), list(range(left, left + right)))[:count]
    registers: dict[Wire, int] = {wire: wire for wire in range(left + right)}
    program: list[tuple[np.ufunc, int, int]] = []

    def place(wire: Wire) -> int:
        if wire not in registers and not isinstance(wire, int):
            ufunc, a, b = wire
            step = (ufunc, place(a), place(b))
            registers[wire] = left + right + len(program)
            program.append(step)
        return registers[wire]

    kept = [place(wire) for wire in outputs]

    def run(inputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
        values = list(inputs)
        for ufunc, a, b in program:
            values.append(ufunc(values[a], values[b]))
        return [values[register] for register in kept]

    return run


def _odd_even_merge(left: list[Wire], right: list[Wire]) -> list[Wire]:
    if not left or not right:
        return left + right
    if len(left) == len(right) == 1:
        return [(np.minimum, left[0], right[0]), (np.maximum, left[0], right[0])]
    odd = _odd_even_merge(left[0::2], right[0::2])
    even = _odd_even_merge(left[1::2], right[1::2])
    merged = [odd[0]]
    for low, high in zip(even, odd[1:], strict=False):
        merged += [(np.minimum, low, high), (np.maximum, low, high)]
    paired = min(len(even), len(odd) - 1)
    return merged + odd[1 + paired :] + even[paired:]
