"""The lattice against each window computed by itself, on arbitrary values with arbitrary gaps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.features.sorting_network import merge_network
from quant_assets.features.window_lattice import (
    EVERY_SESSION,
    LAST_SESSION,
    Observations,
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

WIDTHS = (5, 10, 20, 30, 60)
PAD = max(WIDTHS)
# Few distinct values, so that ties and constant windows occur; a third is missing.
VALUES = st.lists(
    st.one_of(st.just(float("nan")), st.integers(1, 6).map(float), st.floats(0.5, 500, width=32)),
    min_size=1,
    max_size=140,
)


def padded(values: list[float], fill: float = np.nan) -> np.ndarray:
    return np.concatenate([np.full(PAD, fill), np.array(values)])


def at(windows: Windows, width: int, row: int) -> float:
    """The value of the window that ends at a row of the padded series."""
    return windows[width][PAD + row - (width - 1)]


def window(values: list[float], row: int, width: int) -> np.ndarray:
    return np.array(values[max(0, row - width + 1) : row + 1])


@settings(max_examples=40, deadline=None)
@given(VALUES)
def test_moments_equal_two_passes_over_each_window(values: list[float]) -> None:
    series = padded(values)
    seen = Observations(np.isfinite(series))
    rolled = moments(series, seen)
    weighted = lag_weighted(rolled.total)
    for width in WIDTHS:
        for row in range(len(values)):
            whole = window(values, row, width)
            valid = whole[~np.isnan(whole)]
            lags = np.arange(len(whole))[::-1][~np.isnan(whole)]
            assert at(seen.count, width, row) == len(valid)
            assert at(seen.none, width, row) == (len(valid) == 0)
            assert at(rolled.total, width, row) == pytest.approx(valid.sum(), rel=1e-12)
            assert at(weighted, width, row) == pytest.approx((lags * valid).sum(), rel=1e-12)
            if len(valid) > 1:
                spread = len(valid) * (lags**2).sum() - lags.sum() ** 2
                assert at(seen.lag_spread, width, row) == spread
                assert at(rolled.mean, width, row) == pytest.approx(valid.mean(), rel=1e-12)
                variance = at(rolled.squares, width, row) / at(seen.degrees_of_freedom, width, row)
                assert variance == pytest.approx(valid.var(ddof=1), rel=1e-9, abs=1e-9)
            else:
                assert np.isnan(at(seen.degrees_of_freedom, width, row))


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
        for row in range(len(values)):
            x, y = (window(series[PAD:].tolist(), row, width) for series in (left, right))
            x, y = x[~np.isnan(x)], y[~np.isnan(y)]
            expected = ((x - x.mean()) * (y - y.mean())).sum() if len(x) else 0.0
            assert at(products, width, row) == pytest.approx(expected, rel=1e-9, abs=1e-7)


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
    ranks = rank_of_today(series, WIDTHS, len(values))
    lowest = smallest(np.where(np.isnan(series), np.inf, series), 13)
    for width in WIDTHS:
        for row in range(len(values)):
            whole = window(values, row, width)
            valid = np.sort(whole[~np.isnan(whole)])
            assert at(maximum, width, row) == at(highest, width, row)
            found = [ranked[PAD + row - (width - 1)] for ranked in lowest[width]]
            expected = valid[: len(found)].tolist()
            assert found == expected + [np.inf] * (len(found) - len(expected))
            if len(valid):
                assert at(highest, width, row) == valid[-1]
                oldest = np.flatnonzero(whole == valid[-1])[0]
                assert at(lags, width, row) == len(whole) - 1 - oldest
            if not np.isnan(whole[-1]):
                below, equal = (valid < whole[-1]).sum(), (valid == whole[-1]).sum()
                assert ranks[width][row] == below + (equal + 1) / 2


@given(st.integers(0, 2**31), st.integers(1, 9))
def test_side_by_side_is_one_behind_the_other(seed: int, securities: int) -> None:
    """A second axis changes no bit: every statistic of a column is that of the column alone."""
    rng = np.random.default_rng(seed)
    panel = rng.normal(50, 3, (90, securities)).round(1)
    panel[rng.random(panel.shape) < 0.2] = np.nan
    together = moments(panel, Observations(np.isfinite(panel)))
    infinite = np.where(np.isnan(panel), np.inf, panel)
    sorted_together, (_, lags_together) = smallest(infinite, 13), highest_with_lag(-infinite)
    ranks_together = rank_of_today(panel, WIDTHS, 31)
    for number in range(securities):
        column = np.ascontiguousarray(panel[:, number])
        alone = moments(column, Observations(np.isfinite(column)))
        own = np.ascontiguousarray(infinite[:, number])
        sorted_alone, (_, lags_alone) = smallest(own, 13), highest_with_lag(-own)
        ranks_alone = rank_of_today(column, WIDTHS, 31)
        for width in WIDTHS:
            assert np.array_equal(together.squares[width][:, number], alone.squares[width])
            assert np.array_equal(lags_together[width][:, number], lags_alone[width])
            assert np.array_equal(ranks_together[width][:, number], ranks_alone[width])
            for both, single in zip(sorted_together[width], sorted_alone[width], strict=True):
                assert np.array_equal(both[:, number], single)


@given(VALUES, st.integers(0, 2**31))
def test_the_last_session_alone_is_the_last_of_all(values: list[float], seed: int) -> None:
    """The slices of a single session find the same windows, and merge them to the same bits."""
    series = padded(values)
    other = np.random.default_rng(seed).normal(5, 2, len(series))
    results = []
    for rows in (EVERY_SESSION, LAST_SESSION):
        seen = Observations(np.isfinite(series), rows)
        rolled, keys = moments(series, seen), np.where(seen.observed, series, -np.inf)
        statistics = [
            *(seen.count, seen.none, seen.degrees_of_freedom, seen.lags, seen.lag_spread),
            *(rolled.total, rolled.mean, rolled.squares, lag_weighted(rolled.total, rows)),
            centred_products(rolled, moments(other, seen)),
            rolling(np.minimum, keys, rows),
            *highest_with_lag(keys, rows),
        ]
        lists = smallest(-keys, 13, rows)
        results.append(
            [windows[width][-1] for windows in statistics for width in WIDTHS]
            + [ranked[-1] for width in WIDTHS for ranked in lists[width]]
        )
    assert np.array_equal(*results, equal_nan=True)


def test_last_rows_are_those_before_a_lag() -> None:
    assert last(np.arange(10), 3).tolist() == [7, 8, 9]
    assert last(np.arange(10), 3, lag=2).tolist() == [5, 6, 7]


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=13),
    st.lists(st.integers(0, 9), min_size=1, max_size=13),
    st.integers(1, 26),
)
def test_merge_network_sorts(left: list[int], right: list[int], count: int) -> None:
    inputs = [np.array([value]) for value in sorted(left) + sorted(right)]
    merged = merge_network(len(left), len(right), count)(inputs)
    assert [int(value[0]) for value in merged] == sorted(left + right)[:count]
    assert [int(value[0]) for value in inputs] == sorted(left) + sorted(right)
