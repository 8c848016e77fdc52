"""The model registry: which models exist, and which one serves a session.

Belongs here: the functions that register, activate and read models, each within a transaction of
the caller. Does not belong here: training and the decision to promote (`quant_assets/models`).

A model's status is not stored but follows from the activations, as of a session:

- `active`: the model in force;
- `retired`: it was in force before, or another one took its place;
- `candidate`: it was never activated, or only for a later session.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from quant_resources.errors import LedgerError
from quant_resources.ledger.registry_tables import Model, ModelActivation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date

    from sqlalchemy.orm import Session

Status = Literal["candidate", "active", "retired"]


class RegistryError(LedgerError):
    """The registry does not hold what is asked for, or holds something else under that version."""


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model of the registry as of a session.

    Attributes:
        model: The stored row, without the artefact.
        status: candidate, active or retired.
        effective_session: First session of its latest activation; None when there is none.
    """

    model: Model
    status: Status
    effective_session: date | None


def register_model(
    transaction: Session,
    *,
    model_name: str,
    model_version: str,
    month: date,
    training_first_session: date,
    training_last_session: date,
    metrics: Mapping[str, Any],
    config: Mapping[str, Any],
    artefact: str,
) -> bool:
    """Register a trained model as a candidate; registering the same again changes nothing.

    Args:
        transaction: Ledger transaction.
        model_name: Family of the model, for instance `alpha158_lightgbm`.
        model_version: Its identity, over all families.
        month: First day of the month that it was trained for.
        training_first_session: First session of its training window.
        training_last_session: Last session of its training window.
        metrics: Out-of-sample evidence; what is not finite is stored as null.
        config: Everything that made it: parameters, features, window.
        artefact: LightGBM's text format.

    Returns:
        True when it is new, False when it was registered before.

    Raises:
        RegistryError: Another model is registered under this version; models are never replaced.
    """
    digest = hashlib.sha256(artefact.encode()).hexdigest()
    row = {
        "model_version": model_version,
        "model_name": model_name,
        "month": month,
        "training_first_session": training_first_session,
        "training_last_session": training_last_session,
        "metrics": _json(metrics),
        "config": _json(config),
        "artefact": artefact,
        "artefact_sha256": digest,
    }
    inserted = transaction.execute(
        insert(Model).values(row).on_conflict_do_nothing().returning(Model.model_version)
    ).scalar()
    if inserted is not None:
        return True
    known = model(transaction, model_version)
    if (known.model_name, known.month, known.artefact_sha256) != (model_name, month, digest):
        raise RegistryError(
            f"Model version {model_version!r} is registered already with another artefact "
            f"({known.model_name}, {known.month:%Y-%m}, sha256 {known.artefact_sha256[:12]}, not "
            f"{digest[:12]}): a changed model needs a new version."
        )
    return False


def activate_model(
    transaction: Session,
    *,
    model_name: str,
    model_version: str,
    effective_session: date,
    activated_by: str,
    reason: str,
) -> ModelActivation:
    """Let a version serve its model from a session on; a rollback is the activation of an old one.

    Args:
        transaction: Ledger transaction.
        model_name: Family of the model.
        model_version: A registered version of it.
        effective_session: First session that it serves, until the next activation's.
        activated_by: Person or rule that decides.
        reason: Why; shown wherever the model is explained.

    Returns:
        The activation; the existing one when this version is already the last word on that session.

    Raises:
        RegistryError: The version is not registered under that name.
    """
    # Two activations at once would each believe to be the last word.
    transaction.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(model_name, 0))))
    known = model(transaction, model_version)
    if known.model_name != model_name:
        raise RegistryError(
            f"Model version {model_version!r} belongs to {known.model_name!r}, not to "
            f"{model_name!r}: name a version of that model (`quant models list`)."
        )
    last = transaction.scalars(
        select(ModelActivation)
        .where(
            ModelActivation.model_name == model_name,
            ModelActivation.effective_session == effective_session,
        )
        .order_by(ModelActivation.activation_id.desc())
        .limit(1)
    ).first()
    if last is not None and last.model_version == model_version:
        return last
    activation = ModelActivation(
        model_name=model_name,
        model_version=model_version,
        effective_session=effective_session,
        activated_by=activated_by,
        reason=reason,
    )
    transaction.add(activation)
    transaction.flush()
    return activation


def activations(
    transaction: Session, model_name: str | None = None, after_id: int = 0
) -> list[ModelActivation]:
    """Return the activations in the order in which they were made.

    Args:
        transaction: Ledger transaction.
        model_name: Only this model's; all by default.
        after_id: Only those made after this `activation_id` (the cursor of a sensor).
    """
    query = select(ModelActivation).where(ModelActivation.activation_id > after_id)
    if model_name is not None:
        query = query.where(ModelActivation.model_name == model_name)
    return list(transaction.scalars(query.order_by(ModelActivation.activation_id)))


def roll_back(
    transaction: Session,
    *,
    model_name: str,
    effective_session: date,
    activated_by: str,
    reason: str,
) -> str:
    """Let the version serve again that served before the present one, from a session on.

    Activations are read as a stack: one that names an earlier version takes back all that came after
    it, so rolling back twice goes back two versions. Later activations are overridden too.

    Returns:
        The version that serves from `effective_session` on.

    Raises:
        RegistryError: There is no earlier version.
    """
    made = activations(transaction, model_name)
    served: list[str] = []
    for activation in sorted(made, key=lambda activation: activation.activation_id):
        if activation.model_version in served:
            del served[served.index(activation.model_version) + 1 :]
        else:
            served.append(activation.model_version)
    if len(served) < 2:
        raise RegistryError(
            f"Model {model_name!r} has no earlier activation to roll back to: `quant models list` "
            "shows what there is."
        )
    previous = served[-2]
    later = {a.effective_session for a in made if a.effective_session > effective_session}
    for session in sorted({effective_session, *later}):
        activate_model(
            transaction,
            model_name=model_name,
            model_version=previous,
            effective_session=session,
            activated_by=activated_by,
            reason=reason,
        )
    return previous


def active_model(transaction: Session, model_name: str, on_session: date) -> str | None:
    """Return the version in force at a session.

    That is the activation with the latest `effective_session` up to it, and among those of the
    same session the one made last; the same in a backfill as on the day itself.

    Returns:
        The version, or None when nothing was in force yet.
    """
    return active_models(transaction, model_name, [on_session])[on_session]


def active_models(
    transaction: Session, model_name: str, sessions: Iterable[date]
) -> dict[date, str | None]:
    """Return the version in force at each of many sessions, in one query (see `active_model`)."""
    starts, versions = _in_force(activations(transaction, model_name))
    return {
        session: versions[position - 1] if (position := bisect_right(starts, session)) else None
        for session in sessions
    }


def model(transaction: Session, model_version: str) -> Model:
    """Return a registered model, without its artefact.

    Raises:
        RegistryError: There is no such version.
    """
    found = transaction.get(Model, model_version)
    if found is None:
        raise RegistryError(
            f"There is no model version {model_version!r}: `quant models list` shows what there is."
        )
    return found


def list_models(
    transaction: Session, model_name: str | None = None, as_of: date | None = None
) -> list[RegisteredModel]:
    """Return the registered models with their status, the newest month first.

    Args:
        transaction: Ledger transaction.
        model_name: Only this model's versions; all by default.
        as_of: Session at which the status is asked; after the last activation by default.
    """
    query = select(Model).order_by(Model.month.desc(), Model.created_at.desc())
    if model_name is not None:
        query = query.where(Model.model_name == model_name)
    by_model: dict[str, list[ModelActivation]] = {}
    for activation in activations(transaction, model_name):
        if as_of is None or activation.effective_session <= as_of:
            by_model.setdefault(activation.model_name, []).append(activation)
    active = {name: _in_force(made)[1][-1] for name, made in by_model.items()}
    effective = {
        activation.model_version: activation.effective_session
        for made in by_model.values()
        for activation in made
    }
    return [
        RegisteredModel(
            found,
            status=(
                "candidate"
                if found.model_version not in effective
                else "active"
                if active[found.model_name] == found.model_version
                else "retired"
            ),
            effective_session=effective.get(found.model_version),
        )
        for found in transaction.scalars(query)
    ]


def load_artefact(transaction: Session, model_version: str) -> str:
    """Return a model's artefact after checking that it is what was registered.

    Raises:
        RegistryError: There is no such version, or its text was damaged.
    """
    digest = model(transaction, model_version).artefact_sha256
    artefact = transaction.execute(
        select(Model.artefact).where(Model.model_version == model_version)
    ).scalar_one()
    if hashlib.sha256(artefact.encode()).hexdigest() != digest:
        raise RegistryError(
            f"The artefact of model version {model_version!r} is damaged (its sha256 is not "
            f"{digest[:12]}…): train that month again and activate the new version."
        )
    return artefact


def _in_force(made: Iterable[ModelActivation]) -> tuple[list[date], list[str]]:
    """Return first sessions, ascending, and the version in force from each on."""
    # In order of making, so that the last word on a session wins.
    last_word = {activation.effective_session: activation.model_version for activation in made}
    starts = sorted(last_word)
    return starts, [last_word[start] for start in starts]


def _json(value: Any) -> Any:
    """Replace what JSON cannot say: numbers that are not finite become null, dates text."""
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if hasattr(value, "item"):  # NumPy's scalars
        return _json(value.item())
    return str(value)
