"""The rules of enhanced momentum, name by name and as laws."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.signals.strategies.enhanced_momentum import EnhancedMomentum

SCHEMA = {
    "rsi_14": pl.Float64,
    "macd_histogram": pl.Float64,
    "bollinger_percent_b": pl.Float64,
    "atr_14": pl.Float64,
    "close": pl.Float64,
}


def section(rows: list[tuple[float | None, ...]]) -> pl.DataFrame:
    symbols = pl.Series("symbol", [f"S{number:03d}" for number in range(len(rows))], pl.String)
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row").with_columns(symbols)
    return frame.with_columns(security_id=pl.col("symbol") + "@2020-01-02")


def one(*row: float | None) -> dict[str, object]:
    return EnhancedMomentum().signals(section([row])).row(0, named=True)


def maybe(low: float, high: float) -> st.SearchStrategy[float | None]:
    return st.one_of(st.floats(low, high), st.none(), st.just(math.nan), st.just(math.inf))


indicators = st.lists(
    st.tuples(maybe(0, 100), maybe(-0.1, 0.1), maybe(-1, 2), maybe(0, 0.2), maybe(0.01, 5000)),
    max_size=60,
)


def test_a_steady_rise_is_bought_with_size_stop_and_target() -> None:
    signal = one(65.0, 0.01, 0.9, 0.02, 100.0)
    # Votes: 15/20, clipped 1, 0.8.
    score = (0.75 + 1.0 + 0.8) / 3
    assert signal["side"] == "BUY"
    assert signal["score"] == pytest.approx(score)
    assert signal["confidence"] == pytest.approx(score)
    assert signal["expected_return"] == pytest.approx(0.05 * score * 0.02)
    assert signal["target_weight"] == 0.05
    assert signal["stop_loss"] == pytest.approx(98.0)
    assert signal["take_profit"] == pytest.approx(104.0)


def test_a_steady_fall_is_closed_and_never_sold_short() -> None:
    signal = one(35.0, -0.01, 0.1, 0.02, 100.0)
    assert signal["side"] == "SELL"
    assert signal["target_weight"] == 0.0
    assert signal["stop_loss"] is None


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ((70.0, 0.01, 0.9, 0.02, 100.0), "overbought is not bought"),
        ((30.0, -0.01, 0.1, 0.02, 100.0), "oversold is not sold"),
        ((65.0, -0.0001, 0.9, 0.02, 100.0), "MACD below its signal line is not bought"),
        ((51.0, 0.0001, 0.5, 0.02, 100.0), "a weak score is not bought"),
        ((65.0, 0.01, 0.9, 0.02, None), "no close, no stop, no purchase"),
        ((None, 0.01, 0.9, 0.02, 100.0), "a missing indicator is no view"),
        ((65.0, math.nan, 0.9, 0.02, 100.0), "nor is one that is not a number"),
    ],
)
def test_what_is_held_stays_held(row, why) -> None:
    signal = one(*row)
    assert signal["side"] == "HOLD", why
    assert signal["target_weight"] is None


@given(indicators)
@settings(max_examples=200, deadline=None)
def test_laws(rows: list[tuple[float | None, ...]]) -> None:
    universe = section(rows)
    signals = EnhancedMomentum().signals(universe)
    assert sorted(signals["security_id"]) == sorted(universe["security_id"])
    buys = signals.filter(side="BUY")
    assert buys["target_weight"].eq(0.05).all()
    assert signals["target_weight"].abs().sum() <= 1 + 1e-12
    assert signals.filter(side="SELL")["target_weight"].eq(0.0).all()
    assert signals.filter(side="HOLD")["target_weight"].is_null().all()
    assert signals["score"].is_between(-1, 1).all()
    assert signals["confidence"].is_between(0, 1).all()
    priced = buys.join(universe, on="security_id")
    assert (priced["stop_loss"] < priced["close"]).all()
    assert (priced["take_profit"] > priced["close"]).all()


def test_the_best_twenty_are_kept_and_ties_go_by_security() -> None:
    rows: list[tuple[float | None, ...]] = [(60.0, 0.01, 0.9, 0.02, 50.0)] * 24
    rows += [(65.0, 0.01, 0.9, 0.02, 50.0)] * 3
    signals = EnhancedMomentum().signals(section(rows))
    bought = sorted(signals.filter(side="BUY")["symbol"])
    assert bought == [f"S{number:03d}" for number in [*range(17), 24, 25, 26]]
    assert signals["target_weight"].sum() == pytest.approx(1.0)


def test_no_range_is_no_trend() -> None:
    signal = one(60.0, 0.01, 0.9, 0.0, 50.0)
    assert signal["score"] == pytest.approx((0.5 + 0.0 + 0.8) / 3)
