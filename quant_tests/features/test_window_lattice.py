"""The lattice against each window computed by itself, on arbitrary values with arbitrary gaps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.features.window_lattice import (
    PAD,
    Observations,
    centred_products,
    highest_with_lag,
    lag_weighted,
    merge_network,
    moments,
    rank_of_today,
    rolling,
    smallest,
)

WIDTHS = (5, 10, 20, 30, 60)
# Few distinct values, so that ties and constant windows occur; a third is missing.
VALUES = st.lists(
    st.one_of(st.just(float("nan")), st.integers(1, 6).map(float), st.floats(0.5, 500, width=32)),
    min_size=1,
    max_size=140,
)


def padded(values: list[float], fill: float = np.nan) -> np.ndarray:
    return np.concatenate([np.full(PAD, fill), np.array(values)])


def window(values: list[float], row: int, width: int) -> np.ndarray:
    return np.array(values[max(0, row - width + 1) : row + 1])


@settings(max_examples=40, deadline=None)
@given(VALUES)
def test_moments_equal_two_passes_over_each_window(values: list[float]) -> None:
    series = padded(values)
    rolled = moments(series, Observations(np.isfinite(series)))
    weighted = lag_weighted(rolled.total)
    for width in WIDTHS:
        for row in range(len(values)):
            whole = window(values, row, width)
            valid = whole[~np.isnan(whole)]
            lags = np.arange(len(whole))[::-1][~np.isnan(whole)]
            place = PAD + row
            assert rolled.observations.count[width][place] == len(valid)
            assert rolled.total[width][place] == pytest.approx(valid.sum(), rel=1e-12)
            assert weighted[width][place] == pytest.approx((lags * valid).sum(), rel=1e-12)
            if len(valid) > 1:
                spread = len(valid) * (lags**2).sum() - lags.sum() ** 2
                assert rolled.observations.lag_spread[width][place] == spread
                assert rolled.deviation(width)[place] == pytest.approx(
                    valid.std(ddof=1), rel=1e-9, abs=1e-9
                )
            else:
                assert np.isnan(rolled.deviation(width)[place])


@settings(max_examples=25, deadline=None)
@given(VALUES, st.integers(0, 2**31))
def test_products_equal_the_covariance_of_each_window(values: list[float], seed: int) -> None:
    left = padded(values)
    right = np.where(
        np.isnan(left), np.nan, np.random.default_rng(seed).normal(5, 2, len(left)).round(1)
    )
    seen = Observations(np.isfinite(left))
    products = centred_products(moments(left, seen), moments(right, seen))
    for width in WIDTHS:
        for row in range(PAD, len(left)):
            x, y = (series[max(PAD, row - width + 1) : row + 1] for series in (left, right))
            x, y = x[~np.isnan(x)], y[~np.isnan(y)]
            expected = ((x - x.mean()) * (y - y.mean())).sum() if len(x) else 0.0
            assert products[width][row] == pytest.approx(expected, rel=1e-9, abs=1e-7)


@given(st.floats(0.125, 1e6, width=32), st.integers(1, 130))
def test_a_constant_window_has_exactly_no_variance(value: float, length: int) -> None:
    series = padded([value] * length)
    rolled = moments(series, Observations(np.isfinite(series)))
    assert all(not rolled.squares[width].any() for width in WIDTHS)


@settings(max_examples=40, deadline=None)
@given(VALUES)
def test_order_statistics_equal_sorting_each_window(values: list[float]) -> None:
    series = padded(values)
    keys = np.where(np.isnan(series), -np.inf, series)
    highest, lags = highest_with_lag(keys)
    maximum = rolling(np.maximum, keys)
    ranks = rank_of_today(series, WIDTHS)
    lowest = smallest(np.where(np.isnan(series), np.inf, series), 13)
    for width in WIDTHS:
        for row in range(len(values)):
            whole = window(values, row, width)
            valid = np.sort(whole[~np.isnan(whole)])
            place = PAD + row
            assert maximum[width][place] == highest[width][place]
            found = [ranked[place] for ranked in lowest[width]]
            expected = valid[: len(found)].tolist()
            assert found == expected + [np.inf] * (len(found) - len(expected))
            if len(valid):
                assert highest[width][place] == valid[-1]
                oldest = np.flatnonzero(whole == valid[-1])[0]
                assert lags[width][place] == len(whole) - 1 - oldest
            if not np.isnan(whole[-1]):
                below, equal = (valid < whole[-1]).sum(), (valid == whole[-1]).sum()
                assert ranks[width][place] == below + (equal + 1) / 2


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=13),
    st.lists(st.integers(0, 9), min_size=1, max_size=13),
    st.integers(1, 26),
)
def test_merge_network_sorts(left: list[int], right: list[int], count: int) -> None:
    inputs = [np.array([value]) for value in sorted(left) + sorted(right)]
    merged = merge_network(len(left), len(right), count)(inputs)
    assert [int(value[0]) for value in merged] == sorted(left + right)[:count]
