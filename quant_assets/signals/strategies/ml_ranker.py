"""Long the names the model likes best, short the ones it likes least.

Belongs here: this one strategy. Does not belong here: training (the models stage) and limits (orders).
"""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from quant_assets.signals.strategy import SIGNAL_COLUMNS, Strategy

EXPECTED_RETURN_STD = 0.02
#: Predictions that differ by less than this part of their size are equal: trees are sums of floats.
ROUNDING = 1e-9


class MlRanker(Strategy):
    """Top N long, bottom N short by the prediction of the model in force.

    1. `score` is the prediction standardised over the session's names (mean 0, standard deviation 1,
       ddof 0); `expected_return = 0.02 · score`, so that it has mean 0 and standard deviation 0.02.
    2. Names are ranked by prediction, ties by `security_id`. The first N are the long leg (BUY, +1/N
       each), the last N that may be sold short are the short leg (SELL, -1/N each): the legs sum to
       +1 and -1. A name is left out of the short leg when its `shortable` is known to be false.
    3. Every other name is HOLD with target 0: what is held of it is closed.
    4. `confidence = |2p - 1|`, p the name's percentile: 0 in the middle, towards 1 at the ends.

    A session with fewer than 2N rankable names halves them; N is then the smaller leg, so that both
    stay equal in number and no name is in two. With fewer than two names, with equal predictions only
    or with nothing to sell short, nothing can be ranked: every name is HOLD with a null weight, which
    leaves the sleeve as it is. A name without prediction is always HOLD with a null weight.
    """

    name = "ml_ranker"
    version = "1"
    features: ClassVar = {"market_data/universe": ("shortable",)}
    model = "alpha158_lightgbm"
    gross_limit = 2.0
    leg_weights = (1.0, -1.0)

    def __init__(self, names_per_leg: int = 10) -> None:
        self.names_per_leg = names_per_leg

    def signals(self, universe: pl.DataFrame) -> pl.DataFrame:
        """Rank the session's names; see the class."""
        known = universe.with_columns(
            pl.when(pl.col("prediction").is_finite()).then(pl.col("prediction"))
        ).sort("prediction", "security_id", descending=[True, False], nulls_last=True)
        rankable = known.get_column("prediction").count()
        long = min(self.names_per_leg, rankable // 2)
        # Position among rankable names; names without prediction come after all of them.
        position = pl.int_range(pl.len())
        ranked = pl.col("prediction").is_not_null()
        shorts_allowed = ranked & (position >= long) & pl.col("shortable").fill_null(True)
        known = known.with_columns(
            _from_bottom=pl.when(shorts_allowed).then(shorts_allowed.cum_sum(reverse=True)),
            _position=position,
            _ranked=ranked,
        )
        legs = min(long, known.get_column("_from_bottom").count())
        spread = known.get_column("prediction").std(ddof=0) or 0.0
        size = known.get_column("prediction").abs().max() or 0.0
        can_rank = legs > 0 and spread > ROUNDING * size  # pyright: ignore[reportOperatorIssue]
        if not can_rank:
            known = known.with_columns(prediction=pl.lit(None, pl.Float64), _ranked=False)
        is_long = pl.col("_ranked") & (pl.col("_position") < legs)
        is_short = pl.col("_ranked") & (pl.col("_from_bottom") <= legs).fill_null(False)
        centred = pl.col("prediction") - pl.col("prediction").mean()
        score = (centred / centred.std(ddof=0)).fill_null(0.0)
        percentile = (rankable - pl.col("_position") - 0.5) / max(rankable, 1)
        return known.select(
            "symbol",
            "security_id",
            score=score,
            expected_return=score * EXPECTED_RETURN_STD,
            confidence=pl.when("_ranked").then((2 * percentile - 1).abs()).otherwise(0.0),
            side=pl.when(is_long)
            .then(pl.lit("BUY"))
            .when(is_short)
            .then(pl.lit("SELL"))
            .otherwise(pl.lit("HOLD")),
            target_weight=pl.when(is_long)
            .then(1.0 / max(legs, 1))
            .when(is_short)
            .then(-1.0 / max(legs, 1))
            .when("_ranked")
            .then(0.0),
            stop_loss=pl.lit(None, pl.Float64),
            take_profit=pl.lit(None, pl.Float64),
        ).select(SIGNAL_COLUMNS.keys())
