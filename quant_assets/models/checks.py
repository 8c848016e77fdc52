"""What must hold of a month's model before its predictions may be used.

Belongs here: rules on the stored row, re-derived from tables and ledger. Does not belong here: the gate
that promotes (`promotion.py`), and bounds, which are generated from the table.
"""

from __future__ import annotations

from datetime import date
from functools import partial

import polars as pl

from quant_assets.features.schemas import LABELS
from quant_assets.findings import Finding
from quant_assets.models import serving
from quant_assets.models.gradient_boosting import ModelArtefactError
from quant_assets.models.monthly_training import TrainingConfig, training_rows
from quant_assets.models.schemas import ALPHA158_LIGHTGBM, MODEL_FEATURES
from quant_assets.point_in_time.models import training_rows_are_known
from quant_assets.table_checks import CheckScope, TableCheck
from quant_resources.calendar import XNYS
from quant_resources.errors import LedgerError
from quant_resources.ledger import registry
from quant_resources.store import Store


def evidence_is_present(frame: pl.DataFrame, _scope: CheckScope) -> Finding:
    """Every model has finite out-of-sample coefficients."""
    measures = ("ic_mean", "ic_std", "rank_ic_mean", "rank_ic_std")
    finite = pl.all_horizontal(pl.col(measures).is_finite().fill_null(False))
    breaches = frame.filter(~finite | (pl.col("validation_sessions") < 1))
    return Finding.of(
        breaches.select("month", "model_version", "validation_sessions", *measures),
        "Out-of-sample IC and rank IC are present and finite.",
        "A model has no finite out-of-sample evidence.",
        "Look whether predictions or labels of the held-out sessions are constant or missing.",
    )


def no_label_was_known_too_late(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """The last label of the window, read again from its table, was known before the month began."""
    keys = sorted({day.isoformat() for day in frame.get_column("training_last_session")})
    known = (
        scope.store.read(LABELS, keys, ["session", "known_session"])
        .group_by("session")
        .agg(pl.col("known_session").max())
        .collect()
    )
    first_sessions = pl.DataFrame(
        {
            "month": frame.get_column("month"),
            "first_session": [XNYS.at_or_after(day) for day in frame.get_column("month")],
        }
    )
    breaches = (
        frame.join(known, left_on="training_last_session", right_on="session", how="left")
        .join(first_sessions, on="month")
        .filter(
            (pl.col("known_session") >= pl.col("first_session"))
            | pl.col("known_session").is_null()
            | (pl.col("effective_session") != pl.col("first_session"))
            | (pl.col("training_first_session") > pl.col("training_last_session"))
        )
    )
    return Finding.of(
        breaches.select(
            "month", "model_version", "training_last_session", "known_session", "first_session"
        ),
        "Every label of the training window was known before the month's first session.",
        "A model was trained on a label that was not known before its month.",
        "Do not use the model: repair features/labels and train the month again.",
    )


def no_look_ahead(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """The rows that trained the month are those of a store that ends with the session before it.

    Which rows they are is what the check is about; their features have detectors of their own.
    """
    finding = Finding(passed=True, message="There is no model in this month.")
    columns = ("model_name", "model_version", "effective_session")
    for name, version, effective in frame.select(columns).iter_rows():
        rows_of = partial(_training_rows, name, _settings(scope, version), effective)
        finding = training_rows_are_known(rows_of, scope.store, effective)
        if not finding.passed:
            return finding
    return finding


def _settings(scope: CheckScope, version: str) -> TrainingConfig:
    """What a registered model was trained with."""
    with scope.ledger.begin() as transaction:
        return TrainingConfig.model_validate(registry.model(transaction, version).config)


def _training_rows(
    name: str, settings: TrainingConfig, effective_session: date, store: Store
) -> pl.DataFrame:
    """Securities, sessions and labels of a month's training."""
    features, labels = store.read(MODEL_FEATURES[name]), store.read(LABELS)
    return training_rows(features, labels, (), effective_session, settings.walk_forward)


def model_is_registered(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """The ledger holds the model, it can be loaded, and it reads the features that its table has."""
    problems: list[tuple[str, str]] = []
    for name, version in frame.select("model_name", "model_version").iter_rows():
        try:
            booster = serving.load_booster(scope.ledger, version)
        except (LedgerError, ModelArtefactError) as error:
            problems.append((version, str(error)))
            continue
        schema = MODEL_FEATURES[name].schema
        foreign = [feature for feature in booster.feature_name() if feature not in schema]
        if foreign:
            problems.append((version, f"reads {foreign[0]!r}, which is no feature"))
    return Finding.of(
        pl.DataFrame(problems, schema=["model_version", "problem"], orient="row"),
        "The ledger holds the model, and it can be loaded.",
        "A model cannot be loaded from the ledger.",
        "Train the month again, or roll back to another version with `quant models`.",
    )


def skill_is_positive(frame: pl.DataFrame, _scope: CheckScope) -> Finding:
    """The mean out-of-sample IC is not below zero."""
    return Finding.of(
        frame.filter(pl.col("ic_mean") < 0).select("month", "model_version", "ic_mean", "status"),
        "The mean out-of-sample IC is not negative.",
        "The mean out-of-sample IC is negative: the model stays a candidate.",
        "The model in force before goes on; look at the daily IC picture and at what changed.",
    )


CHECKS: tuple[TableCheck, ...] = (
    TableCheck(
        ALPHA158_LIGHTGBM,
        "evidence_is_present",
        "A model without out-of-sample evidence is a guess.",
        evidence_is_present,
    ),
    TableCheck(
        ALPHA158_LIGHTGBM,
        "no_label_was_known_too_late",
        "No label that was known later than the month's start took part in training.",
        no_label_was_known_too_late,
    ),
    TableCheck(
        ALPHA158_LIGHTGBM,
        "no_look_ahead",
        "The month trains on the same rows whether the store ends with the session before it or goes on.",
        no_look_ahead,
    ),
    TableCheck(
        ALPHA158_LIGHTGBM,
        "model_is_registered",
        "The model can be loaded from the ledger and fits the feature table.",
        model_is_registered,
    ),
    TableCheck(
        ALPHA158_LIGHTGBM,
        "skill_is_positive",
        "The mean out-of-sample IC is not negative; when it is, a person should look.",
        skill_is_positive,
        blocking=False,
    ),
)
