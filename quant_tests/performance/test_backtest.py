"""Backtests small enough for a pencil, and the law that no row knows its future."""

import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.performance.backtest import FREE, TradingCosts, backtest
from quant_resources.errors import ConfigurationError, DataError


def test_one_purchase_with_costs_by_hand(bars, signals):
    """Signals of session 0 trade at the open of session 1, sized on the close of session 0."""
    market = bars({"A": [(99, 100), (102, 104), (104, 103)]}, volume=10_000.0)
    costs = TradingCosts(capital=1_000.0, commission_bps=1.0, half_spread_bps=2.0, impact_bps=30.0)
    result = backtest(signals({0: {"A": 0.5}}), market, costs)

    quantity = 0.5 / 100
    notional = quantity * 102
    participation = notional * 1_000 / (104 * 10_000)
    cost = notional * (1 + 2 + 30 * participation**0.5) / 10_000
    first = (1 - notional - cost) + quantity * 104
    second = (1 - notional - cost) + quantity * 103
    assert result["equity"].to_list() == pytest.approx([first, second], rel=1e-12)
    assert result["cost"].to_list() == pytest.approx([cost, 0.0])
    assert result["turnover"].to_list() == pytest.approx([notional, 0.0])
    assert result["net_return"].to_list() == pytest.approx([first - 1, second / first - 1])
    assert result["gross_return"].to_list() == pytest.approx([first - 1 + cost, second / first - 1])
    assert result["drawdown"].to_list() == pytest.approx([0.0, second / first - 1])
    assert result["gross_exposure"][1] == pytest.approx(quantity * 103 / second)
    assert result["names"].to_list() == [1, 1]
    assert result["session"].to_list() == market["session"].to_list()[1:]


def test_split_changes_nothing_but_the_count(bars, signals):
    """4:1 with a price that follows: a book that did not see the split would lose three quarters."""
    split = bars(
        {"A": [(100, 100), (100, 100), (25, 26)]}, factors={("A", 2): (0.25, 4.0)}, volume=1e9
    )
    plain = bars({"A": [(100, 100), (100, 100), (100, 104)]})
    weights = signals({0: {"A": 1.0}})
    assert backtest(weights, split, FREE)["equity"].to_list() == pytest.approx(
        backtest(weights, plain, FREE)["equity"].to_list()
    )
    assert backtest(weights, split, FREE)["net_return"][1] == pytest.approx(0.04)


def test_dividend_is_earned_by_longs_and_paid_by_shorts(bars, signals):
    """2 USD on 100: the price falls to 98 and nobody is poorer; a short pays what its price gains."""
    market = bars({"A": [(100, 100), (100, 100), (98, 98)]}, factors={("A", 2): (0.98, 1.0)})
    for weight in (1.0, -1.0):
        result = backtest(signals({0: {"A": weight}}), market, FREE)
        assert result["net_return"].to_list() == pytest.approx([0.0, 0.0])


def test_halt_neither_trades_nor_moves(bars, signals):
    market = bars({"A": [(10, 10), (10, 10), None, (12, 12)], "B": [(5, 5)] * 4})
    result = backtest(signals({0: {"A": 0.5, "B": 0.0}, 1: {"A": 0.0, "B": 0.0}}), market, FREE)
    # The exit of session 1 falls on the halt and expires; without a new signal A is kept.
    assert result["net_return"].to_list() == pytest.approx([0.0, 0.0, 0.1])
    assert result["names"].to_list() == [1, 1, 1]
    assert result["gross_exposure"].to_list()[:2] == pytest.approx([0.5, 0.5])


def test_session_without_volume_is_a_halt(bars, signals):
    market = bars({"A": [(10, 10), (10, 10), (10, 11)]}).with_columns(
        volume=pl.Series([1e9, 0.0, 1e9])
    )
    assert backtest(signals({0: {"A": 1.0}}), market, FREE)["names"].to_list() == [0, 0]


def test_delisted_security_is_cashed_at_its_last_close(bars, signals):
    market = bars({"A": [(10, 10), (10, 8), None, None, None, None], "B": [(1, 1)] * 6})
    costs = TradingCosts(half_spread_bps=0, impact_bps=0, delisted_after_sessions=2)
    result = backtest(signals({0: {"A": 1.0, "B": 0.0}}), market, costs)
    assert result["equity"].to_list() == pytest.approx([0.8] * 5)
    assert result["names"].to_list() == [1, 1, 0, 0, 0]
    assert result["gross_exposure"].to_list() == pytest.approx([1, 1, 0, 0, 0])
    assert result["turnover"].sum() == pytest.approx(1.0)


def test_hold_keeps_the_quantity_and_lets_the_weight_drift(bars, signals):
    market = bars({"A": [(10, 10), (10, 10), (20, 20), (20, 20)], "B": [(10, 10)] * 4})
    keep = {"A": None, "B": None}
    result = backtest(signals({0: {"A": 0.5, "B": 0.5}, 1: keep, 2: keep}), market, FREE)
    assert result["equity"].to_list() == pytest.approx([1.0, 1.5, 1.5])
    assert result["turnover"].to_list() == pytest.approx([1.0, 0.0, 0.0])
    rebalanced = {"A": 0.5, "B": 0.5}
    result = backtest(signals({0: rebalanced, 2: rebalanced}), market, FREE)
    # 1.5 of equity, 1.0 of it in A: a quarter is sold and bought.
    assert result["turnover"].to_list() == pytest.approx([1.0, 0.0, 0.5 / 1.5])


def test_name_that_left_the_signals_is_closed_but_a_silent_session_keeps_all(bars, signals):
    market = bars({"A": [(10, 10)] * 5, "B": [(10, 10)] * 5})
    result = backtest(signals({0: {"A": 0.5, "B": 0.5}, 2: {"B": 0.5}}), market, FREE)
    assert result["names"].to_list() == [2, 2, 1, 1]


def test_long_short_book(bars, signals):
    market = bars({"A": [(10, 10), (10, 11)], "B": [(20, 20), (20, 18)]})
    result = backtest(signals({0: {"A": 1.0, "B": -1.0}}), market, FREE)
    assert result["net_return"][0] == pytest.approx(0.1 + 0.1)
    assert result["gross_exposure"][0] == pytest.approx((1.1 + 0.9) / 1.2)
    assert result["net_exposure"][0] == pytest.approx(0.2 / 1.2)


def test_volume_share_limits_the_fill(bars, signals):
    market = bars({"A": [(10, 10), (10, 10)]}, volume=1_000.0)
    costs = TradingCosts(
        capital=100_000, half_spread_bps=0, impact_bps=0, maximum_volume_share=0.05
    )
    result = backtest(signals({0: {"A": 1.0}}), market, costs)
    assert result["turnover"][0] == pytest.approx(0.05 * 10_000 / 100_000)


def test_ruin_is_final_and_shows_as_minus_one(bars, signals):
    market = bars({"A": [(10, 10), (10, 10), (25, 25), (10, 10)]})
    result = backtest(signals({0: {"A": -1.0}, 2: {"A": 1.0}}), market, FREE)
    assert result["net_return"].to_list() == [0.0, -1.0, 0.0]
    assert result["equity"].to_list() == [1.0, 0.0, 0.0]


def test_no_signals_no_rows(bars, signals):
    market = bars({"A": [(10, 10), (10, 10)]})
    assert backtest(signals({0: {}}), market).height == 0
    assert backtest(signals({1: {"A": 1.0}}), market).height == 0


def test_empty_data_root_has_an_empty_backtest(bars, signals):
    nothing = bars({"A": [(10, 10)]}).clear()
    assert backtest(signals({0: {}}), nothing).height == 0


def test_signal_without_bars_is_refused_by_name(bars, signals):
    market = bars({"A": [(10, 10), (10, 10)]})
    with pytest.raises(DataError, match=r"security_id without bars, for example Z in session 2024"):
        backtest(signals({0: {"Z": 1.0}}), market)
    with pytest.raises(DataError, match="session without bars"):
        backtest(signals({3: {"A": 1.0}}), market)
    with pytest.raises(DataError, match="not finite"):
        backtest(signals({0: {"A": float("inf")}}), market)


def test_absurd_costs_are_refused():
    with pytest.raises(ConfigurationError, match="negative"):
        TradingCosts(half_spread_bps=-1)
    with pytest.raises(ConfigurationError, match="maximum_volume_share"):
        TradingCosts(maximum_volume_share=0)
    with pytest.raises(ConfigurationError, match="capital"):
        TradingCosts(capital=0)


@given(st.integers(0, 10_000), st.integers(3, 28), st.sampled_from(["cut", "shock"]))
@settings(max_examples=40, deadline=None)
def test_no_row_depends_on_what_comes_after_it(random_market, seed, known, future):
    """Cutting off or rewriting everything after session T leaves every row up to T as it was."""
    signals, bars = random_market(seed, 30, 6)
    if signals.height == 0:
        return
    day = sorted(bars["session"].unique())[known]
    late = pl.col("session") > day
    if future == "cut":
        changed = signals.filter(~late), bars.filter(~late)
    else:
        changed = (
            signals.with_columns(
                pl.when(late).then(0.3).otherwise("target_weight").alias("target_weight")
            ),
            bars.with_columns(
                pl.when(late).then(pl.col(name) * 3).otherwise(name).alias(name)
                for name in ("open", "close", "volume", "price_factor")
            ),
        )
    known_rows = signals.filter(~late)["security_id"].unique()
    if not set(known_rows) <= set(changed[1]["security_id"]):
        return
    before = backtest(signals, bars).filter(~late)
    after = backtest(*changed).filter(~late)
    assert before.height == after.height
    for column in before.columns[1:]:
        np.testing.assert_allclose(before[column], after[column], rtol=1e-9, atol=1e-12)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_laws_of_every_backtest(random_market, seed):
    """Costs only cost, equity compounds the returns, and the volume limit holds."""
    signals, bars = random_market(seed, 30, 6)
    result, free = backtest(signals, bars), backtest(signals, bars, FREE)
    assert (result["cost"] >= 0).all()
    assert (result["drawdown"] <= 0).all()
    np.testing.assert_allclose(result["equity"], np.cumprod(1 + result["net_return"]))
    np.testing.assert_allclose(result["gross_return"] - result["cost"], result["net_return"])
    assert (free["cost"] == 0).all()


def test_ten_years_of_five_hundred_securities_in_seconds(random_market):
    signals, bars = random_market(1, 2_520, 500)
    start = time.perf_counter()
    result = backtest(signals, bars)
    elapsed = time.perf_counter() - start
    print(f"2,520 sessions x 500 securities: {elapsed:.2f} s")
    assert result.height > 2_500
    assert elapsed < 20.0
