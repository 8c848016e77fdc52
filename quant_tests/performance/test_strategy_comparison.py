"""The comparison of strategies: the same in a backfill as day by day, blind to the future, fair."""

import math

import empyrical
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_assets.performance.backtest import FREE, backtest
from quant_assets.performance.schemas import STRATEGY_PERFORMANCE
from quant_assets.performance.strategy_comparison import WINDOW, compare_strategies
from quant_resources.errors import DataError

NOTHING_FILLED = pl.DataFrame(
    schema={"session": pl.Date, "strategy": pl.String, "filled_notional": pl.Float64}
)


@pytest.fixture(scope="module")
def market(random_market):
    signals, bars = random_market(3, 200, 12)
    signals = signals.join(bars, on=["session", "security_id"], how="semi")
    opposite = signals.with_columns(-pl.col("target_weight"), -pl.col("score"))
    return {"as_is": signals, "opposite": opposite}, bars, sorted(bars["session"].unique())


def within(frames, bars, first, last):
    inside = pl.col("session").is_between(first, last)
    return {name: frame.filter(inside) for name, frame in frames.items()}, bars.filter(inside)


@pytest.mark.parametrize("back", [1, 30, 73, 100])
def test_one_session_alone_equals_the_same_session_of_a_backfill(market, back):
    """Also where the window is cut by the beginning of the market; later rows are never seen."""
    frames, bars, days = market
    together = compare_strategies(frames, bars, days, NOTHING_FILLED)
    day = days[-back]
    first = days[max(0, len(days) - back - WINDOW)]
    alone = compare_strategies(*within(frames, bars, first, day), [day], NOTHING_FILLED)
    assert_frame_equal(together.filter(session=day), alone, rel_tol=1e-9, abs_tol=1e-12)


def test_rows_are_the_declared_table_and_everybody_has_a_rank(market):
    frames, bars, days = market
    table = STRATEGY_PERFORMANCE.conform(
        compare_strategies(frames, bars, days[-20:], NOTHING_FILLED)
    )
    assert table.group_by("session").agg(pl.col("rank").sort())["rank"].to_list() == [[1, 2]] * 20
    best = table.filter(rank=1).sort("session")["sharpe_63"].to_numpy()
    worst = table.filter(rank=2).sort("session")["sharpe_63"].to_numpy()
    assert (best >= worst).all()


def test_numbers_are_those_of_the_backtest_of_the_window(market):
    frames, bars, days = market
    first, last = days[-1 - WINDOW], days[-1]
    own, window = within(frames, bars, first, last)
    row = compare_strategies(own, window, [last], NOTHING_FILLED).row(0, named=True)
    path = backtest(own["as_is"], window)
    measured = path["net_return"].to_numpy()[-63:]
    assert row["daily_return"] == pytest.approx(measured[-1])
    assert row["turnover"] == pytest.approx(path["turnover"][-1])
    assert row["names"] == path["names"][-1]
    assert row["cumulative_return"] == pytest.approx(empyrical.cum_returns_final(measured))
    assert row["sharpe_63"] == pytest.approx(empyrical.sharpe_ratio(measured))


def test_coefficient_is_that_of_the_scores_two_sessions_ago(bars, signals):
    """Scores of session 0 against the return from the close of 1 to the close of 2."""
    names = ("A", "B", "C", "D")
    closes = {"A": (10, 11, 12.1), "B": (10, 9, 9.45), "C": (10, 10, 10.0), "D": (10, 12, 11.4)}
    market = bars({name: [(price, price) for price in closes[name]] for name in names})
    scores = pl.DataFrame({"security_id": names, "score": [3.0, 2.0, 1.0, 0.0]})
    own = signals({0: dict.fromkeys(names, 0.0)}).join(scores, on="security_id")
    days = sorted(market["session"].unique())
    table = compare_strategies({"s": own}, market, days, NOTHING_FILLED, FREE)
    expected = np.corrcoef([3, 2, 1, 0], [0.1, 0.05, 0.0, -0.05])[0, 1]
    assert table["information_coefficient"].to_list() == [None, None, pytest.approx(expected)]


def test_young_strategy_has_no_sharpe_and_comes_last(market):
    frames, bars, days = market
    young = {**frames, "a_young": frames["as_is"].filter(pl.col("session") > days[-20])}
    table = compare_strategies(young, bars, days[-1:], NOTHING_FILLED)
    row = table.filter(strategy="a_young").row(0, named=True)
    assert row["sharpe_63"] is None
    assert row["rank"] == 3
    assert math.isfinite(row["cumulative_return"])


def test_fills_are_put_beside_the_paper(market):
    frames, bars, days = market
    filled = pl.DataFrame(
        {"session": days[-1:], "strategy": ["opposite"], "filled_notional": [1234.5]}
    )
    table = compare_strategies(frames, bars, days[-2:], filled)
    assert table.sort("session", "strategy")["filled_notional"].to_list() == [None] * 3 + [1234.5]


def test_session_without_bars_is_named(market):
    frames, bars, days = market
    with pytest.raises(DataError, match=f"Session {days[-1]} has no bars"):
        compare_strategies(*within(frames, bars, days[0], days[-2]), [days[-1]], NOTHING_FILLED)
