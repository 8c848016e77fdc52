"""Trend following on RSI, MACD and Bollinger bands, long only.

Belongs here: this one strategy. Does not belong here: the indicators (features/technical).
"""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from quant_assets.signals.strategy import SIGNAL_COLUMNS, Strategy

OVERSOLD, OVERBOUGHT = 30.0, 70.0
POSITION_SIZE = 0.05
STOP_LOSS = 0.02
TAKE_PROFIT = 0.04
ENTRY_SCORE = 0.25
#: Histogram of this many average true ranges counts as a full trend.
FULL_TREND_RANGES = 0.25
#: Part of a day's range that a score of one is expected to earn on the next; a prior, not an estimate.
EDGE = 0.05


class EnhancedMomentum(Strategy):
    """BUY what rises and is not exhausted, SELL (close, never short) what falls and is not washed out.

    Three votes in -1..1 per name, each clipped:

    * strength: `(RSI14 - 50) / 20`, so ±1 at 70 and 30;
    * trend: `(MACD - signal) / (0.25 · ATR14)`, MACD 12/26/9, both as fractions of the close;
    * place: `2 · %B - 1`, so ±1 at the upper and lower Bollinger band.

    `score` is their mean. Then:

    * BUY where MACD is above its signal line, the score is at least 0.25 and RSI is below 70;
    * SELL where MACD is below its signal line, the score is at most -0.25 and RSI is above 30;
    * HOLD otherwise, and where an indicator or the close is missing.

    A BUY targets 5 % with a stop 2 % below the close and a target 4 % above it. At most twenty BUYs
    keep their signal, so that the gross stays within 1: the best scores, ties by `security_id`; the
    others become HOLD. SELL targets 0. HOLD has a null weight: what is held stays held.
    `confidence = |score|`; `expected_return = 0.05 · score · ATR14`.
    """

    name = "enhanced_momentum"
    version = "1"
    features: ClassVar = {
        "features/technical": ("rsi_14", "macd_histogram", "bollinger_percent_b", "atr_14"),
        "market_data/bars": ("close",),
    }

    def signals(self, universe: pl.DataFrame) -> pl.DataFrame:
        """Vote and choose; see the class."""
        inputs = ("rsi_14", "macd_histogram", "bollinger_percent_b", "atr_14", "close")
        complete = pl.all_horizontal(pl.col(inputs).is_finite().fill_null(False))
        strength = ((pl.col("rsi_14") - 50.0) / (OVERBOUGHT - 50.0)).clip(-1.0, 1.0)
        full_trend = FULL_TREND_RANGES * pl.col("atr_14")
        trend = (
            pl.when(full_trend > 0)
            .then((pl.col("macd_histogram") / full_trend).clip(-1.0, 1.0))
            .otherwise(0.0)
        )
        place = (2.0 * pl.col("bollinger_percent_b") - 1.0).clip(-1.0, 1.0)
        voted = universe.with_columns(
            score=pl.when(complete).then((strength + trend + place) / 3.0).otherwise(0.0),
            _range=pl.when(complete).then("atr_14").otherwise(0.0),
        ).sort("score", "security_id", descending=[True, False])
        bullish = (
            complete
            & (pl.col("macd_histogram") > 0)
            & (pl.col("score") >= ENTRY_SCORE)
            & (pl.col("rsi_14") < OVERBOUGHT)
        )
        bearish = (
            complete
            & (pl.col("macd_histogram") < 0)
            & (pl.col("score") <= -ENTRY_SCORE)
            & (pl.col("rsi_14") > OVERSOLD)
        )
        affordable = int(self.gross_limit / POSITION_SIZE + 1e-9)
        buys = bullish & (bullish.cast(pl.Int64).cum_sum() <= affordable)
        return (
            voted.with_columns(_buy=buys, _sell=bearish)
            .select(
                "symbol",
                "security_id",
                "score",
                expected_return=EDGE * pl.col("score") * pl.col("_range"),
                confidence=pl.col("score").abs(),
                side=pl.when("_buy")
                .then(pl.lit("BUY"))
                .when("_sell")
                .then(pl.lit("SELL"))
                .otherwise(pl.lit("HOLD")),
                target_weight=pl.when("_buy").then(POSITION_SIZE).when("_sell").then(0.0),
                stop_loss=pl.when("_buy").then(pl.col("close") * (1.0 - STOP_LOSS)),
                take_profit=pl.when("_buy").then(pl.col("close") * (1.0 + TAKE_PROFIT)),
            )
            .select(SIGNAL_COLUMNS.keys())
        )
