"""Predictions of the model in force at each session.

Belongs here: predicting sessions version by version. Pure: which version serves which session comes as a
mapping, the models come through a function. Does not belong here: the ledger (`models/serving.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from quant_assets.models import gradient_boosting

if TYPE_CHECKING:
    import lightgbm as lgb

_SCHEMA = {"session": pl.Date(), "security_id": pl.String(), "prediction": pl.Float64()}


def predictions(
    features: pl.LazyFrame,
    versions: Mapping[date, str],
    booster: Callable[[str], lgb.Booster],
) -> pl.DataFrame:
    """Predict every session with the model in force at it; each model is loaded once.

    Args:
        features: The model's feature table, any number of sessions.
        versions: Session to model version; sessions that are not in it are not predicted.
        booster: Gives the loaded model of a version.

    Returns:
        `session`, `security_id`, `prediction` (Float64), one row per feature row of those sessions.

    Raises:
        ModelArtefactError: A model cannot be read or does not fit the features.
    """
    parts = [pl.DataFrame(schema=_SCHEMA)]
    for version in sorted(set(versions.values())):
        sessions = [session for session, used in versions.items() if used == version]
        model = booster(version)
        rows = (
            features.filter(pl.col("session").is_in(sessions))
            .select("session", "security_id", *_present(features, model.feature_name()))
            .collect()
        )
        parts.append(
            rows.select("session", "security_id").with_columns(
                gradient_boosting.predict(model, rows)
            )
        )
    return pl.concat(parts)


def _present(features: pl.LazyFrame, wanted: Sequence[str]) -> list[str]:
    # A feature that is not there is reported by `gradient_boosting.predict`, in its own words.
    existing = set(features.collect_schema().names())
    return [name for name in wanted if name in existing]
