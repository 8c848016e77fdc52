"""The tables of the models stage, and what each model reads.

Belongs here: columns, types, units and bounds, once. Does not belong here: how they are computed.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from quant_assets.features.schemas import ALPHA158
from quant_resources.tables import Column, Table

ALPHA158_LIGHTGBM = Table(
    stage="models",
    name="alpha158_lightgbm",
    grain="month",
    description=(
        "One row per month: the LightGBM model on Alpha158 that was trained on what was known before "
        "the month, with its out-of-sample evidence. The model itself is in the ledger's registry; "
        "which one serves a session is decided by the activations there."
    ),
    columns=(
        Column("month", pl.Date, "First day of the month the model is meant for."),
        Column("model_name", pl.String, "Name of the model."),
        Column(
            "model_version", pl.String, "Name, month and digest of artefact, settings and window."
        ),
        Column(
            "status",
            pl.String,
            "Whether the evidence gate let it serve (active) or not (candidate) when it was trained.",
            allowed=("active", "candidate", "retired"),
        ),
        Column(
            "effective_session", pl.Date, "First session of the month, from which it may serve."
        ),
        Column("training_first_session", pl.Date, "First session of the training window."),
        Column("training_last_session", pl.Date, "Last session of the training window."),
        Column("training_rows", pl.Int64, "Rows the serving model was fitted on.", minimum=1),
        Column("validation_sessions", pl.Int32, "Held-out sessions with an IC.", minimum=0),
        Column(
            "ic_mean",
            pl.Float64,
            "Mean daily IC on the held-out sessions.",
            nullable=True,
            minimum=-1,
            maximum=1,
        ),
        Column(
            "ic_std",
            pl.Float64,
            "Standard deviation of the daily IC.",
            nullable=True,
            minimum=0,
            maximum=2,
        ),
        Column(
            "rank_ic_mean",
            pl.Float64,
            "Mean daily rank IC on the held-out sessions.",
            nullable=True,
            minimum=-1,
            maximum=1,
        ),
        Column(
            "rank_ic_std",
            pl.Float64,
            "Standard deviation of the daily rank IC.",
            nullable=True,
            minimum=0,
            maximum=2,
        ),
    ),
    key=("month", "model_name"),
    kinds=("polars", "parquet", "lightgbm"),
)

#: Feature table that each model reads; a strategy with `model = <name>` depends on it.
MODEL_FEATURES: Mapping[str, Table] = {ALPHA158_LIGHTGBM.name: ALPHA158}
#: Table of each model.
MODEL_TABLES: Mapping[str, Table] = {ALPHA158_LIGHTGBM.name: ALPHA158_LIGHTGBM}

TABLES: tuple[Table, ...] = (ALPHA158_LIGHTGBM,)
