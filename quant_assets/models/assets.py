"""The assets of the models stage: a trained, registered and, if it has earned it, activated model a month.

Belongs here: reading inputs, calling `monthly_training` and `promotion`, recording in the ledger, metadata.
Does not belong here: anything that computes.
"""

from __future__ import annotations

from datetime import date

import dagster as dg
import polars as pl

from quant_assets.features.schemas import ALPHA158, LABELS
from quant_assets.models import plots, serving
from quant_assets.models.monthly_training import (
    TrainedModel,
    TrainingConfig,
    train_month,
    training_rows,
)
from quant_assets.models.schemas import ALPHA158_LIGHTGBM
from quant_assets.partitions import months_before
from quant_assets.table_assets import (
    TableInput,
    TableResult,
    picture,
    sessions_of,
    shown_table,
    table_asset,
)
from quant_resources.calendar import XNYS
from quant_resources.ledger import Ledger

#: Months of features and labels that a model may reach back to.
HISTORY_MONTHS = 36
FEATURES = tuple(name for name, dtype in ALPHA158.schema.items() if dtype == pl.Float32)


def model_assets(config: TrainingConfig | None = None) -> tuple[dg.AssetsDefinition, ...]:
    """The assets of the stage, trained with `config` (its defaults when None)."""
    settings = config or TrainingConfig()

    @table_asset(
        ALPHA158_LIGHTGBM,
        ins={
            "alpha158": TableInput(ALPHA158, months_before(HISTORY_MONTHS)),
            "labels": TableInput(LABELS, months_before(HISTORY_MONTHS)),
        },
    )
    def alpha158_lightgbm(
        context: dg.AssetExecutionContext,
        alpha158: pl.LazyFrame,
        labels: pl.LazyFrame,
        ledger: dg.ResourceParam[Ledger],
    ) -> TableResult:
        (month,) = sessions_of(context)
        effective = XNYS.at_or_after(month)
        rows = training_rows(alpha158, labels, FEATURES, effective, settings.walk_forward)
        model = train_month(ALPHA158_LIGHTGBM.name, rows, FEATURES, effective, settings)
        outcome = serving.register_and_promote(ledger, model, rows)
        context.log.info("%s: %s", model.version, outcome.reason)
        return TableResult(model_row(model, month, outcome.status), model_metadata(model, outcome))

    return (alpha158_lightgbm,)


def model_row(model: TrainedModel, month: date, status: str) -> pl.DataFrame:
    """The month's row of the model table."""
    evidence = model.evidence
    return pl.DataFrame(
        {
            "month": month,
            "model_name": model.name,
            "model_version": model.version,
            "status": status,
            "effective_session": model.split.effective_session,
            "training_first_session": model.split.window[0],
            "training_last_session": model.split.window[-1],
            "training_rows": model.training_rows,
            "validation_sessions": evidence.sessions,
            "ic_mean": evidence.ic_mean,
            "ic_std": evidence.ic_std,
            "rank_ic_mean": evidence.rank_ic_mean,
            "rank_ic_std": evidence.rank_ic_std,
        },
        schema=ALPHA158_LIGHTGBM.schema,
    )


def model_metadata(model: TrainedModel, outcome: serving.Outcome) -> dict[str, object]:
    """What a person looks at after a training: evidence, decision, pictures."""
    evidence, split = model.evidence, model.split
    measured = {
        "ic_mean": evidence.ic_mean,
        "ic_std": evidence.ic_std,
        "rank_ic_mean": evidence.rank_ic_mean,
        "rank_ic_std": evidence.rank_ic_std,
        "information_ratio": evidence.information_ratio,
    }
    return {
        "model_version": model.version,
        "status": outcome.status,
        "promotion": outcome.reason,
        **{name: value for name, value in measured.items() if value is not None},
        "window": f"{split.window[0]} to {split.window[-1]} ({len(split.window)} sessions)",
        "held_out": f"{split.held_out[0]} to {split.held_out[-1]} ({len(split.held_out)} sessions)",
        "training_rows": model.training_rows,
        "config": dg.MetadataValue.json(model.config.model_dump(mode="json")),
        "daily_ic": picture(plots.daily_ic_plot(model.daily_ic, f"{model.version}, held out")),
        "feature_importance": picture(
            plots.feature_importance_bars(model.importance, model.version)
        ),
        "feature_importance_table": shown_table(model.importance, rows=25),
    }


ASSETS: tuple[dg.AssetsDefinition, ...] = model_assets()
