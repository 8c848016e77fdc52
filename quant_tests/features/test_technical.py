"""Technical indicators against TA-Lib and pandas, their warm-up, and gaps."""

from datetime import date

import numpy as np
import pandas as pd
import polars as pl
import pytest
import talib

from quant_assets.features.technical import BARS_NEEDED, technical
from quant_resources.errors import DataError
from quant_tests.oracles.alpha158_reference import irregular_market, weekdays

CALENDAR = weekdays(420)
ALL_BARS = irregular_market(CALENDAR)
COMPLETE = ALL_BARS.filter(pl.col("symbol") == "REGULAR")


def arrays(bars: pl.DataFrame) -> dict[str, np.ndarray]:
    return {name: bars[name].to_numpy() for name in ("open", "high", "low", "close", "volume")}


def test_recursive_indicators_are_talibs_after_settling() -> None:
    """Beginning 252 bars back instead of at the beginning of history changes less than 1e-5."""
    result, bar = technical(COMPLETE), arrays(COMPLETE)
    high, low, close = bar["high"], bar["low"], bar["close"]
    line, signal, histogram = talib.MACD(close, 12, 26, 9)
    expected = {
        "rsi_14": talib.RSI(close, 14),
        "macd": line / close,
        "macd_signal": signal / close,
        "macd_histogram": histogram / close,
        "atr_14": talib.ATR(high, low, close, 14) / close,
        "adx_14": talib.ADX(high, low, close, 14),
    }
    for name, values in expected.items():
        assert result[name].null_count() == 251
        np.testing.assert_allclose(
            result[name].to_numpy()[251:], values[251:], rtol=1e-5, atol=1e-9, err_msg=name
        )


def test_windowed_indicators_are_talibs_and_pandas() -> None:
    result, bar = technical(COMPLETE), arrays(COMPLETE)
    high, low, close, volume = bar["high"], bar["low"], bar["close"], bar["volume"]
    upper, middle, lower = talib.BBANDS(close, 20, 2, 2)
    slow_k, slow_d = talib.STOCH(high, low, close, 14, 3, talib.MA_Type.SMA, 3, talib.MA_Type.SMA)
    volume_balance = pd.Series(np.asarray(talib.OBV(close, volume)))
    closes = pd.Series(close)
    expected = {
        "bollinger_percent_b": (close - lower) / (upper - lower),
        "bollinger_bandwidth": (upper - lower) / middle,
        "stochastic_k": slow_k,
        "stochastic_d": slow_d,
        "obv_trend_20": volume_balance.diff(20) / pd.Series(volume).rolling(20).sum(),
        "momentum_20": talib.ROC(close, 20) / 100,
        "momentum_60": talib.ROC(close, 60) / 100,
        "momentum_252": talib.ROC(close, 252) / 100,
        "realised_volatility_20": pd.Series(np.log(close)).diff().rolling(20).std() * np.sqrt(252),
        "dollar_volume_20": (closes * volume).rolling(20).mean(),
        "gap": bar["open"] / closes.shift(1) - 1,
        "distance_52w_high": closes / pd.Series(high).rolling(252).max() - 1,
        "distance_52w_low": closes / pd.Series(low).rolling(252).min() - 1,
    }
    for name, values in expected.items():
        warm = BARS_NEEDED[name] - 1
        assert result[name].head(warm).null_count() == warm, name
        # TA-Lib gives the k line from where its d line begins.
        warm = max(warm, 17) if name == "stochastic_k" else warm
        np.testing.assert_allclose(
            result[name].to_numpy()[warm:],
            np.asarray(values)[warm:],
            rtol=1e-8,
            atol=1e-10,
            err_msg=name,
        )


def test_every_column_waits_for_its_warm_up_and_no_longer() -> None:
    result = technical(COMPLETE)
    for name, bars in BARS_NEEDED.items():
        known = result[name].is_not_null()
        assert known.sum() == len(known) - bars + 1
        assert not known.head(bars - 1).any()


def test_missing_sessions_are_skipped_not_filled() -> None:
    """The last bars count, however the calendar looks; a value does not depend on how gaps are stored."""
    every_tenth = pl.int_range(pl.len()) % 10 != 5
    gappy = COMPLETE.filter(every_tenth)
    holes = COMPLETE.with_columns(close=pl.when(every_tenth).then("close"))
    values = list(BARS_NEEDED)
    present = technical(holes, CALENDAR).join(gappy, on="session", how="semi")
    assert present.equals(technical(gappy, CALENDAR))
    absent = technical(holes, CALENDAR).join(gappy, on="session", how="anti")
    assert absent.height == 42
    assert absent.select(pl.col(values).is_null().all()).row(0) == (True,) * len(values)
    close = gappy["close"].to_numpy()
    assert technical(gappy, CALENDAR)["rsi_14"][-1] == pytest.approx(
        talib.RSI(close, 14)[-1], rel=1e-5
    )


def test_bars_beyond_the_lookback_do_not_count() -> None:
    """After a very long halt the old bars are no longer a history."""
    number = pl.int_range(pl.len())
    halted = COMPLETE.filter((number < 30) | (number >= 400))
    result = technical(halted, CALENDAR)
    assert result["momentum_20"].is_not_null().to_list()[20:50] == [True] * 10 + [False] * 20
    assert result["gap"][30] is None


def test_flat_prices_have_no_place_in_their_range() -> None:
    flat = ALL_BARS.filter(pl.col("symbol") == "CONSTANT")
    last = technical(flat).row(-1, named=True)
    undefined = ("rsi_14", "bollinger_percent_b", "stochastic_k", "stochastic_d")
    assert [last[name] for name in undefined] == [None] * 4
    exact = (
        "bollinger_bandwidth",
        "realised_volatility_20",
        "momentum_252",
        "macd",
        "atr_14",
        "gap",
    )
    assert [last[name] for name in exact] == pytest.approx([0.0] * 6, abs=1e-12)
    assert last["realised_volatility_20"] == last["bollinger_bandwidth"] == 0.0


def test_values_do_not_know_the_scale_of_prices() -> None:
    scaled = ALL_BARS.with_columns(
        pl.col("open", "high", "low", "close") * 4.0, volume=pl.col("volume") / 4.0
    )
    left, right = technical(ALL_BARS, CALENDAR), technical(scaled, CALENDAR)
    assert left.equals(right)


def test_only_wanted_rows_are_computed() -> None:
    last = ALL_BARS.with_columns(wanted=pl.col("session") == CALENDAR[-1])
    result = technical(last, CALENDAR)
    assert result.equals(technical(ALL_BARS, CALENDAR).filter(pl.col("session") == CALENDAR[-1]))


def test_empty_frame_gives_the_columns() -> None:
    assert technical(COMPLETE.clear()).columns == ["symbol", "session", *BARS_NEEDED]


@pytest.mark.parametrize(
    ("bars", "message"),
    [
        (COMPLETE.drop("volume"), "volume"),
        (pl.concat([COMPLETE, COMPLETE.tail(1)]), "REGULAR on 2021-08-10"),
        (COMPLETE.with_columns(session=date(1999, 12, 31)).head(1), "no session"),
    ],
)
def test_bad_input_is_named(bars: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        technical(bars, CALENDAR)
