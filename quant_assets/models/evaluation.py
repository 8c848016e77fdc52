"""How good predictions are: daily information coefficients, their summary, feature importance.

Belongs here: numbers about a model. Does not belong here: pictures of them (`plots.py`) and what is
decided from them (`promotion.py`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import sqrt
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    import lightgbm as lgb

MINIMUM_NAMES = 3  # The correlation of two points is always +1 or -1.


@dataclass(frozen=True, slots=True)
class Evidence:
    """Out-of-sample evidence of a model: means over sessions of the daily coefficients.

    A value is None where it cannot be computed (no session, or one session for a deviation).

    Attributes:
        sessions: Sessions with a coefficient.
        ic_mean: Mean daily IC.
        ic_std: Standard deviation of the daily IC (ddof 1).
        rank_ic_mean: Mean daily rank IC.
        rank_ic_std: Standard deviation of the daily rank IC (ddof 1).
    """

    sessions: int
    ic_mean: float | None
    ic_std: float | None
    rank_ic_mean: float | None
    rank_ic_std: float | None

    @property
    def information_ratio(self) -> float | None:
        """`ic_mean / ic_std`: how steady the skill is from day to day (not annualised)."""
        if self.ic_mean is None or not self.ic_std:
            return None
        return self.ic_mean / self.ic_std

    @property
    def ic_standard_error(self) -> float | None:
        """`ic_std / sqrt(sessions)`, as if the daily coefficients were independent."""
        return None if self.ic_std is None else self.ic_std / sqrt(self.sessions)

    def as_dict(self) -> dict[str, float | int | None]:
        """The fields and the information ratio, for JSON."""
        return {**asdict(self), "information_ratio": self.information_ratio}


def daily_ic(
    predictions: pl.DataFrame, prediction: str = "prediction", label: str = "forward_return_zscore"
) -> pl.DataFrame:
    r"""Information coefficient of every session: how predictions and outcomes line up across names.

    $IC_t = \mathrm{corr}_i(\hat r_{i,t}, r_{i,t})$ (Pearson) and
    $RankIC_t = \mathrm{corr}_i(\mathrm{rank}\,\hat r_{i,t}, \mathrm{rank}\,r_{i,t})$ (Spearman, ties
    averaged). Rows where either value is missing are left out of both.

    Source: Grinold and Kahn, *Active Portfolio Management* (2000), chapter 6.

    Args:
        predictions: `session` and the two columns, one row per name.
        prediction: Column of predictions.
        label: Column of outcomes.

    Returns:
        `session`, `ic`, `rank_ic` (Float64, null where fewer than three names are left or one side
        does not vary), `names` (UInt32), ascending by session; every session of the input is there.
    """
    x, y = pl.col(prediction).cast(pl.Float64), pl.col(label).cast(pl.Float64)
    # Masked in place instead of filtered, so that a session without any pair still has its row.
    paired = x.is_finite() & y.is_finite()
    pairs = predictions.lazy().select(
        "session",
        x=pl.when(paired).then(x),
        y=pl.when(paired).then(y),
    )
    kept_x, kept_y = pl.col("x").drop_nulls(), pl.col("y").drop_nulls()
    varies = (
        (pl.len() - pl.col("x").null_count() >= MINIMUM_NAMES)
        & (kept_x.n_unique() > 1)
        & (kept_y.n_unique() > 1)
    )
    return (
        pairs.group_by("session")
        .agg(
            ic=pl.when(varies).then(pl.corr(kept_x, kept_y)),
            rank_ic=pl.when(varies).then(pl.corr(kept_x.rank("average"), kept_y.rank("average"))),
            names=pl.col("x").count(),
        )
        .with_columns(pl.col("ic", "rank_ic").fill_nan(None))
        .sort("session")
        .collect()
    )


def summarise(daily: pl.DataFrame) -> Evidence:
    """Mean and deviation of the daily coefficients.

    Args:
        daily: The result of `daily_ic`; sessions without a coefficient do not count.
    """
    row = daily.select(
        sessions=pl.col("ic").count(),
        ic_mean=pl.col("ic").mean(),
        ic_std=pl.col("ic").std(),
        rank_ic_mean=pl.col("rank_ic").mean(),
        rank_ic_std=pl.col("rank_ic").std(),
    ).row(0, named=True)
    return Evidence(**row)


def feature_importance(booster: lgb.Booster) -> pl.DataFrame:
    """Gain and number of splits of every feature.

    Gain is the summed reduction of the squared loss over all splits on the feature; `share` is its
    part of the whole (0 for all where the model has no split).

    Returns:
        `feature`, `gain` (Float64), `share` (Float64), `splits` (Int64), descending by gain.
    """
    frame = pl.DataFrame(
        {
            "feature": booster.feature_name(),
            "gain": booster.feature_importance("gain"),
            "splits": booster.feature_importance("split"),
        },
        schema_overrides={"gain": pl.Float64, "splits": pl.Int64},
    )
    total = frame.get_column("gain").sum()
    return frame.select(
        "feature", "gain", share=pl.col("gain") / total if total else pl.lit(0.0), splits="splits"
    ).sort("gain", "feature", descending=[True, False])
