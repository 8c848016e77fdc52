"""Models in the ledger's registry: recording and promoting a new one, and who serves which session.

Belongs here: the stage's dealings with the registry. Does not belong here: the registry itself
(`quant_resources/ledger`) and the rule of promotion (`promotion.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from quant_assets.models import gradient_boosting
from quant_assets.models.gradient_boosting import ModelArtefactError
from quant_assets.models.monthly_training import TrainedModel, daily_ic_of
from quant_assets.models.promotion import Decision, decide
from quant_resources.calendar import XNYS
from quant_resources.ledger import Ledger, registry

if TYPE_CHECKING:
    import lightgbm as lgb
    from sqlalchemy.orm import Session

ACTIVATED_BY = "evidence gate"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trained model.

    Attributes:
        status: "active" when it was let serve from its month on, "candidate" when not.
        reason: Why, in one sentence.
    """

    status: str
    reason: str


def register_and_promote(ledger: Ledger, model: TrainedModel, rows: pl.DataFrame) -> Outcome:
    """Register a month's model and activate it when its evidence earns it, in one transaction.

    Doing it again changes nothing: the version is the same, and a version that was ever activated is
    not activated again, so that a rollback by a person stands.

    Args:
        ledger: The ledger.
        model: The trained model.
        rows: The rows it was trained on, for judging the model in force on the same sessions.

    Raises:
        RegistryError: Another artefact is registered under the version.
    """
    effective = model.split.effective_session
    with ledger.begin() as transaction:
        registry.register_model(
            transaction,
            model_name=model.name,
            model_version=model.version,
            month=effective.replace(day=1),
            training_first_session=model.split.window[0],
            training_last_session=model.split.window[-1],
            metrics=model.metrics(),
            config=model.config.model_dump(mode="json"),
            artefact=model.artefact,
        )
        for activation in registry.activations(transaction, model.name):
            if activation.model_version == model.version:
                return Outcome(
                    "active",
                    f"Activated before by {activation.activated_by} from "
                    f"{activation.effective_session} on: {activation.reason}",
                )
        decision = _decision(transaction, model, rows)
        if not decision.promote:
            return Outcome("candidate", decision.reason)
        registry.activate_model(
            transaction,
            model_name=model.name,
            model_version=model.version,
            effective_session=effective,
            activated_by=ACTIVATED_BY,
            reason=decision.reason,
        )
    return Outcome("active", decision.reason)


def versions_in_force(ledger: Ledger, name: str, sessions: Iterable[date]) -> dict[date, str]:
    """The version in force at each session; sessions before the first activation are left out."""
    with ledger.begin() as transaction:
        served = registry.active_models(transaction, name, sessions)
    return {session: version for session, version in served.items() if version is not None}


def training_window(ledger: Ledger, version: str) -> tuple[date, date]:
    """First and last session that a registered model was trained on.

    Raises:
        RegistryError: There is no such version.
    """
    with ledger.begin() as transaction:
        registered = registry.model(transaction, version)
        return registered.training_first_session, registered.training_last_session


def load_booster(ledger: Ledger, version: str) -> lgb.Booster:
    """Load a registered model.

    Raises:
        RegistryError: There is no such version, or its text was damaged.
        ModelArtefactError: The text is no model.
    """
    with ledger.begin() as transaction:
        artefact = registry.load_artefact(transaction, version)
    return gradient_boosting.load(artefact)


def _decision(transaction: Session, model: TrainedModel, rows: pl.DataFrame) -> Decision:
    rule = model.config.promotion
    # As of the session before, so that a month trained again is judged as it was the first time.
    before = XNYS.previous(model.split.effective_session)
    in_force = registry.active_model(transaction, model.name, before)
    if in_force is None:
        return decide(model.evidence, rule=rule)
    # What its own month began with is the first thing the model in force had not seen.
    unseen_from = XNYS.at_or_after(registry.model(transaction, in_force).month)
    unseen = [session for session in model.split.held_out if session >= unseen_from]
    try:
        in_force_daily = daily_ic_of(
            registry.load_artefact(transaction, in_force),
            rows,
            unseen,
            model.config.gradient_boosting.threads,
        )
    except ModelArtefactError as error:
        # A model that cannot predict today's features is no rival.
        alone = decide(model.evidence, rule=rule)
        return Decision(
            promote=alone.promote, reason=f"{alone.reason} {in_force} cannot be compared: {error}"
        )
    return decide(
        model.evidence,
        in_force=in_force,
        candidate_daily=model.daily_ic,
        in_force_daily=in_force_daily,
        rule=rule,
    )
