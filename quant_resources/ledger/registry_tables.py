"""The tables of the model registry.

Belongs here: `models` (what was trained, once) and `model_activations` (what serves from which
session on, append-only). Does not belong here: the functions on them (`registry.py`).
"""

from __future__ import annotations

from datetime import date

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from quant_resources.ledger.base import (
    APPEND_ONLY,
    Base,
    JsonObject,
    LongText,
    SequenceId,
    ShortText,
    Utc,
)


class Model(Base):
    """One trained model: its evidence, its configuration and its artefact.

    A row never changes: whether a model is candidate, active or retired follows from the
    activations. The artefact (LightGBM's text format, megabytes) is read only when asked for.
    """

    __tablename__ = "models"
    __table_args__ = (
        UniqueConstraint("model_name", "model_version"),
        CheckConstraint("training_first_session <= training_last_session", name="training_window"),
        CheckConstraint("length(artefact_sha256) = 64", name="artefact_sha256"),
        Index("ix_models_model_name_month", "model_name", "month"),
        {"info": APPEND_ONLY},
    )

    model_version: Mapped[ShortText] = mapped_column(primary_key=True)
    model_name: Mapped[ShortText]
    month: Mapped[date]
    training_first_session: Mapped[date]
    training_last_session: Mapped[date]
    metrics: Mapped[JsonObject]
    config: Mapped[JsonObject]
    artefact: Mapped[LongText] = mapped_column(deferred=True, deferred_raiseload=True)
    artefact_sha256: Mapped[ShortText]
    created_at: Mapped[Utc] = mapped_column(server_default=func.clock_timestamp())


class ModelActivation(Base):
    """From `effective_session` on, `model_version` serves `model_name`; a rollback is a new row."""

    __tablename__ = "model_activations"
    __table_args__ = (
        # Both columns, so that an activation cannot name a version of another model.
        ForeignKeyConstraint(
            ["model_name", "model_version"], ["models.model_name", "models.model_version"]
        ),
        Index("ix_model_activations_in_force", "model_name", "effective_session", "activation_id"),
        {"info": APPEND_ONLY},
    )

    activation_id: Mapped[SequenceId]
    model_name: Mapped[ShortText]
    model_version: Mapped[ShortText]
    effective_session: Mapped[date]
    activated_at: Mapped[Utc] = mapped_column(server_default=func.clock_timestamp())
    activated_by: Mapped[ShortText]
    reason: Mapped[LongText]
