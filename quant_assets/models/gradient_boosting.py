"""LightGBM as a pure function: rows in, model text out; model text and rows in, predictions out.

Belongs here: the learner, its parameters and its text format. Does not belong here: which rows it may
see (`walk_forward.py`), how good it is (`evaluation.py`) and where it is kept (the ledger).

The same rows and parameters give the same text on every run: the seed is fixed, the histogram
algorithm is fixed (`force_row_wise`, otherwise LightGBM times both and takes the quicker one) and
`deterministic` makes sums independent of the thread count. Models are exchanged as LightGBM's own
text, never pickled: text can be read, compared and loaded without running code.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
from pydantic import BaseModel, ConfigDict, Field

from quant_resources.errors import DataError

# OpenMP reads this when LightGBM loads it. By default its threads spin while they wait for each other,
# and on a machine with other work they take the very time the other one needs: 50,000 rows then took 32 s
# (10 s of processor time) instead of 5.6 s (1.9 s).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import lightgbm as lgb


class TrainingError(DataError):
    """The rows given to the learner cannot train a model."""


class ModelArtefactError(DataError):
    """A stored model cannot be read, or does not fit the rows it is given."""


class GradientBoostingConfig(BaseModel):
    """Parameters of the learner, stored beside every model.

    The defaults are few, small and strongly regularised trees: daily cross-sectional returns hold a
    signal of a few hundredths of correlation, and a larger model learns the noise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trees: int = Field(default=100, ge=1, le=10_000)
    learning_rate: float = Field(default=0.05, gt=0, le=1)
    leaves: int = Field(default=15, ge=2, le=4096, description="Most leaves of a tree.")
    minimum_leaf_rows: int = Field(default=200, ge=1, description="Fewest rows in a leaf.")
    feature_fraction: float = Field(
        default=0.5, gt=0, le=1, description="Features drawn for a tree."
    )
    row_fraction: float = Field(default=0.8, gt=0, le=1, description="Rows drawn for a tree.")
    l2: float = Field(default=10.0, ge=0, description="L2 penalty on leaf values.")
    bins: int = Field(default=63, ge=2, le=255, description="Most histogram bins of a feature.")
    seed: int = Field(default=158, ge=0)
    threads: int = Field(default=2, ge=1)

    def parameters(self) -> dict[str, Any]:
        """The same in LightGBM's names (https://lightgbm.readthedocs.io/en/stable/Parameters.html)."""
        return {
            "objective": "regression",
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "min_data_in_leaf": self.minimum_leaf_rows,
            "feature_fraction": self.feature_fraction,
            "bagging_fraction": self.row_fraction,
            "bagging_freq": 1,
            "lambda_l2": self.l2,
            "max_bin": self.bins,
            "seed": self.seed,
            "num_threads": self.threads,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }


def train(
    rows: pl.DataFrame, features: Sequence[str], label: str, config: GradientBoostingConfig
) -> str:
    """Fit boosted regression trees with squared loss.

    Args:
        rows: One row per symbol and session; features are Float32 or Float64, where null, NaN and
            infinity all mean "missing" and are routed by the trees.
        features: Feature columns, in the order that the model keeps.
        label: Label column; finite and never null.
        config: Parameters.

    Returns:
        The model in LightGBM's text format.

    Raises:
        TrainingError: There are no rows, too few for a single split, a column is missing, a label is
            missing or infinite, or the labels do not vary.
    """
    missing = [name for name in (*features, label) if name not in rows.columns]
    if missing:
        raise TrainingError(
            f"Training needs the column {missing[0]!r}, which the rows do not have."
        )
    needed = 2 * config.minimum_leaf_rows
    if rows.height < needed:
        raise TrainingError(
            f"Training has {rows.height} rows and needs {needed} (two leaves of "
            f"{config.minimum_leaf_rows}): backfill more sessions or lower minimum_leaf_rows."
        )
    labels = rows.get_column(label).cast(pl.Float64)
    broken = rows.height - int(labels.is_finite().sum())
    if broken:
        raise TrainingError(
            f"{broken} of {rows.height} training rows have no finite {label!r}: leave them out."
        )
    if labels.n_unique() == 1:
        raise TrainingError(
            f"All {rows.height} training labels {label!r} are {labels[0]}: nothing can be learned."
        )
    parameters = config.parameters()
    dataset = lgb.Dataset(
        observed(rows, features), labels.to_numpy(), params=parameters, free_raw_data=True
    )
    return lgb.train(parameters, dataset, num_boost_round=config.trees).model_to_string()


def load(artefact: str) -> lgb.Booster:
    """Read a model from its text.

    Raises:
        ModelArtefactError: The text is not a complete LightGBM model.
    """
    # LightGBM reads a cut text without complaint, as a model of fewer trees.
    if not artefact.startswith("tree\n") or "\nend of trees\n" not in artefact:
        raise ModelArtefactError(
            "The stored model is not a complete LightGBM text: train its month again, or roll back "
            "to another version with `quant models`."
        )
    try:
        return lgb.Booster(model_str=artefact)
    except lgb.basic.LightGBMError as error:
        raise ModelArtefactError(
            f"LightGBM cannot read the stored model ({error}): train its month again, or roll back "
            "to another version with `quant models`."
        ) from error


def predict(booster: lgb.Booster, rows: pl.DataFrame, threads: int = 2) -> pl.Series:
    """Predict every row.

    Args:
        booster: A loaded model.
        rows: Frame holding at least the model's features, in any order; missing values as in `train`.
        threads: Threads to use; the values do not depend on it.

    Returns:
        Series `prediction` (Float64, length of `rows`), in units of the label.

    Raises:
        ModelArtefactError: A feature of the model is not in `rows`.
    """
    features = booster.feature_name()
    missing = [name for name in features if name not in rows.columns]
    if missing:
        raise ModelArtefactError(
            f"The model reads {len(features)} features and {len(missing)} are not there, first "
            f"{missing[0]!r}: it was trained on another feature set; train again or roll back."
        )
    if not rows.height:
        return pl.Series("prediction", [], dtype=pl.Float64)
    values = booster.predict(observed(rows, features), num_threads=threads)
    return pl.Series("prediction", np.asarray(values, dtype=np.float64))


def observed(rows: pl.DataFrame, features: Sequence[str]) -> pl.DataFrame:
    """The feature columns with every value that is not a finite number turned into NaN."""
    return rows.select(features).with_columns(
        pl.when(cs.float().is_finite()).then(cs.float()).otherwise(float("nan"))
    )
