"""Training of one month from rows to an artefact with its evidence.

Belongs here: the order of the steps. Pure: rows in, a `TrainedModel` out. Does not belong here: reading
tables, registering and promoting (`assets.py`).

1. Labelled sessions are split by what was known when (`walk_forward.py`).
2. A model is fitted on the early part and predicts the held-out part: the out-of-sample evidence.
3. A second model is fitted with the same parameters on the whole window: the one that serves.
4. Its version is a digest over artefact, settings and window: the same inputs give the same version.

Both fits learn `forward_return_zscore`, the return standardised within its session: the market's own
move of the day is no part of what a ranker must know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl
from pydantic import BaseModel, ConfigDict

from quant_assets.models import evaluation, gradient_boosting, walk_forward
from quant_assets.models.evaluation import Evidence
from quant_assets.models.gradient_boosting import GradientBoostingConfig
from quant_assets.models.promotion import PromotionRule
from quant_assets.models.walk_forward import WalkForwardConfig, WalkForwardSplit

LABEL = "forward_return_zscore"


class TrainingConfig(BaseModel):
    """Everything a person may choose about a model; stored as JSON beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    walk_forward: WalkForwardConfig = WalkForwardConfig()
    gradient_boosting: GradientBoostingConfig = GradientBoostingConfig()
    promotion: PromotionRule = PromotionRule()


@dataclass(frozen=True)
class TrainedModel:
    """A month's model and everything that is known about it.

    Attributes:
        name: Model name.
        version: `<name>-<YYYY-MM>-<8 hex digits>`.
        artefact: LightGBM text.
        config: What it was trained with.
        split: Sessions that fitted and judged it.
        training_rows: Rows the serving model was fitted on.
        last_known_session: Latest `known_session` of a label that was used.
        held_out: `session`, `security_id`, prediction and label of the held-out part.
        daily_ic: `evaluation.daily_ic` of it.
        evidence: Its summary.
        importance: `evaluation.feature_importance` of the serving model.
    """

    name: str
    version: str
    artefact: str
    config: TrainingConfig
    split: WalkForwardSplit
    training_rows: int
    last_known_session: date
    held_out: pl.DataFrame
    daily_ic: pl.DataFrame
    evidence: Evidence
    importance: pl.DataFrame

    def metrics(self) -> dict[str, object]:
        """What the registry stores as evidence; plain JSON."""
        window = self.split.window
        return {
            **self.evidence.as_dict(),
            "effective_session": self.split.effective_session.isoformat(),
            "fit_sessions": len(self.split.fit),
            "withheld_sessions": len(self.split.withheld),
            "held_out_first_session": self.split.held_out[0].isoformat(),
            "held_out_last_session": self.split.held_out[-1].isoformat(),
            "window_first_session": window[0].isoformat(),
            "window_last_session": window[-1].isoformat(),
            "last_known_session": self.last_known_session.isoformat(),
            "training_rows": self.training_rows,
        }


def training_rows(
    features_table: pl.LazyFrame,
    labels: pl.LazyFrame,
    features: Sequence[str],
    effective_session: date,
    config: WalkForwardConfig,
) -> pl.DataFrame:
    """Join features and labels of the sessions that the month's window can hold, and no others.

    Args:
        features_table: `session`, `symbol`, `security_id` and the features; the large side, from
            which only those sessions are read.
        labels: The labels table.
        features: Feature columns.
        effective_session: First session of the month.
        config: Length of the window.

    Returns:
        Rows for `train_month`; labels that are missing are left out.
    """
    known = (
        labels.filter((pl.col("known_session") < effective_session) & pl.col(LABEL).is_finite())
        .select("session", "security_id", "known_session", LABEL)
        .collect()
    )
    recent = known.get_column("session").unique().sort().tail(config.training_sessions)
    return (
        features_table.filter(pl.col("session").is_in(recent.implode()))
        .select("session", "symbol", "security_id", *features)
        .join(known.lazy(), on=["session", "security_id"])
        .collect()
    )


def train_month(
    name: str,
    rows: pl.DataFrame,
    features: Sequence[str],
    effective_session: date,
    config: TrainingConfig,
) -> TrainedModel:
    """Train, judge and name the model of a month.

    Args:
        name: Model name.
        rows: `session`, `symbol`, `security_id`, `known_session`, the label and the features; one row
            per security and session with a label. May hold more history than the window needs.
        features: Feature columns in the model's order.
        effective_session: First session of the month.
        config: Settings.

    Raises:
        InsufficientHistoryError: Too few sessions with labels known before the month.
        LookAheadError: A label claims to be known before it could be.
        TrainingError: The rows cannot train a model.
    """
    split = walk_forward.walk_forward_split(
        rows.select("session", "known_session"), effective_session, config.walk_forward
    )
    # Sorted, so that the order in which files were read cannot change the model.
    window = rows.filter(pl.col("session").is_in(split.window)).sort("session", "security_id")
    walk_forward.refuse_look_ahead(window, effective_session, f"training the model {name}")
    held_out = _judged(window, features, split, config.gradient_boosting)
    daily = evaluation.daily_ic(held_out, label=LABEL)

    artefact = gradient_boosting.train(window, features, LABEL, config.gradient_boosting)
    return TrainedModel(
        name=name,
        version=model_version(name, artefact, config, split),
        artefact=artefact,
        config=config,
        split=split,
        training_rows=window.height,
        last_known_session=_latest(window.get_column("known_session")),
        held_out=held_out,
        daily_ic=daily,
        evidence=evaluation.summarise(daily),
        importance=evaluation.feature_importance(gradient_boosting.load(artefact)),
    )


def _judged(
    window: pl.DataFrame,
    features: Sequence[str],
    split: WalkForwardSplit,
    config: GradientBoostingConfig,
) -> pl.DataFrame:
    """Predictions and labels of the held-out part, by a model fitted on the early part alone."""
    fit = window.filter(pl.col("session").is_in(split.fit))
    walk_forward.refuse_look_ahead(fit, split.held_out[0], "judging a model")
    booster = gradient_boosting.load(gradient_boosting.train(fit, features, LABEL, config))
    held_out = window.filter(pl.col("session").is_in(split.held_out))
    prediction = gradient_boosting.predict(booster, held_out, config.threads)
    return held_out.select("session", "security_id", LABEL, prediction)


def model_version(name: str, artefact: str, config: TrainingConfig, split: WalkForwardSplit) -> str:
    """`<name>-<YYYY-MM>-<8 hex digits>` over artefact, settings and window: same inputs, same name."""
    parts = (
        artefact,
        config.model_dump_json(),
        *(",".join(day.isoformat() for day in part) for part in (split.fit, split.held_out)),
    )
    digest = hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:8]
    return f"{name}-{split.effective_session:%Y-%m}-{digest}"


def daily_ic_of(
    artefact: str, rows: pl.DataFrame, sessions: Sequence[date], threads: int = 2
) -> pl.DataFrame:
    """Daily IC of another model on some of the rows, for the comparison in `promotion.py`.

    Args:
        artefact: LightGBM text of the other model.
        rows: As in `train_month`.
        sessions: Sessions that the other model had not seen.
        threads: Threads to predict with.
    """
    unseen = rows.filter(pl.col("session").is_in(list(sessions)))
    prediction = gradient_boosting.predict(gradient_boosting.load(artefact), unseen, threads)
    return evaluation.daily_ic(unseen.select("session", LABEL, prediction), label=LABEL)


def _latest(days: pl.Series) -> date:
    latest = days.max()
    if not isinstance(latest, date):
        raise walk_forward.LookAheadError(
            "The training rows do not say when their labels were known."
        )
    return latest
