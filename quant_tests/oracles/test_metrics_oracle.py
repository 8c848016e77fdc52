"""Our performance metrics against empyrical-reloaded, an independent implementation.

Guards against a formula that drifted: a population instead of a sample deviation, a downside taken over
losing sessions only, a drawdown that forgets the starting capital, a year of the wrong length.
"""

import empyrical
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from quant_assets.performance import metrics

PAIRS = [
    (metrics.total_return, empyrical.cum_returns_final),
    (metrics.annual_return, empyrical.annual_return),
    (metrics.annual_volatility, empyrical.annual_volatility),
    (metrics.sharpe_ratio, empyrical.sharpe_ratio),
    (metrics.sortino_ratio, empyrical.sortino_ratio),
    (metrics.max_drawdown, empyrical.max_drawdown),
    (metrics.calmar_ratio, empyrical.calmar_ratio),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=[ours.__name__ for ours, _ in PAIRS])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("sessions", [2, 21, 252, 1500])
def test_metric_equals_empyrical(ours, theirs, seed, sessions):
    returns = np.random.default_rng(seed).standard_t(4, sessions) * 0.012
    expected = theirs(returns)
    if np.isfinite(expected):
        assert ours(returns) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    else:
        assert np.isnan(ours(returns))


@given(
    npst.arrays(
        np.float64, st.integers(2, 60), elements=st.floats(-0.3, 0.3, allow_subnormal=False)
    )
)
def test_drawdown_and_totals_equal_empyrical_on_any_series(returns):
    assert metrics.total_return(returns) == pytest.approx(
        empyrical.cum_returns_final(returns), rel=1e-9, abs=1e-12
    )
    assert metrics.max_drawdown(returns) == pytest.approx(
        empyrical.max_drawdown(returns), rel=1e-9, abs=1e-12
    )


def test_rolling_sharpe_equals_empyrical_window_by_window():
    returns = np.random.default_rng(5).normal(0.0005, 0.01, 300)
    rolled = metrics.rolling_sharpe(returns, 63)
    assert np.isnan(rolled[:62]).all()
    expected = empyrical.roll_sharpe_ratio(returns, 63)
    np.testing.assert_allclose(rolled[62:], np.asarray(expected), rtol=1e-9)
