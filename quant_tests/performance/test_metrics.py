"""What the metrics say at the edges, where an oracle says inf, warns or disagrees with itself."""

import math

import numpy as np
import pytest

from quant_assets.performance import metrics


def test_empty_series_has_no_metric():
    assert all(math.isnan(value) for value in metrics.summary([]).values())


def test_nan_is_a_session_without_observation():
    with_gap = [0.01, math.nan, -0.02, 0.03]
    without = [0.01, -0.02, 0.03]
    assert metrics.summary(with_gap) == pytest.approx(metrics.summary(without), nan_ok=True)
    np.testing.assert_allclose(metrics.equity_curve(with_gap)[1], 1.01)


def test_undefined_ratios_are_nan_not_infinite():
    rising = [0.01, 0.02, 0.01]
    assert math.isnan(metrics.sharpe_ratio([0.01, 0.01]))
    assert math.isnan(metrics.sortino_ratio(rising))
    assert math.isnan(metrics.calmar_ratio(rising))
    assert math.isnan(metrics.profit_factor(rising))


def test_ruin_is_minus_one_a_year():
    assert metrics.annual_return([0.5, -1.0]) == -1.0
    assert metrics.max_drawdown([0.5, -1.0]) == -1.0


def test_loss_on_the_first_session_is_a_drawdown():
    assert metrics.max_drawdown([-0.1, 0.05]) == pytest.approx(-0.1)


def test_wins_and_losses_by_hand():
    profits = [100.0, -50.0, 0.0, 20.0, -10.0, math.nan]
    assert metrics.win_rate(profits) == 0.5
    assert metrics.average_win(profits) == 60.0
    assert metrics.average_loss(profits) == -30.0
    assert metrics.profit_factor(profits) == 2.0


def test_hit_rate_counts_only_decided_pairs():
    assert metrics.hit_rate([1, -1, 0, 2, math.nan], [3, 2, 1, 1, 1]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="3 predictions were compared with 2 outcomes"):
        metrics.hit_rate([1, 2, 3], [1, 2])


def test_turnover_counts_both_sides():
    assert metrics.turnover([500.0, -500.0, math.nan], 1000.0) == 1.0
    assert math.isnan(metrics.turnover([1.0], 0.0))


def test_exposure_of_a_long_short_book():
    book = metrics.exposure([600.0, -400.0, math.nan], 1000.0)
    assert (book.long, book.short) == (0.6, -0.4)
    assert book.gross == pytest.approx(1.0)
    assert book.net == pytest.approx(0.2)
    assert math.isnan(metrics.exposure([1.0], -5.0).gross)
