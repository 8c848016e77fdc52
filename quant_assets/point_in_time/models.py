"""What can be proved of models: that training and serving used nothing that was not known yet.

Belongs here: rules on the rows that a model is trained on, on what training again gives, and on the
ledger's word for which model served a session. Does not belong here: computing a month by its own asset
(`recompute.py`), and what a good model is (`quant_assets/models`).

1. A month may train on what was known before its first session: the rows that training reads from a
   store that ends with the session before must be those that it reads from everything.
2. No such row may hold a label that was known on that session or later.
3. A month that is trained again by its own asset, once with everything visible and once from a store that
   ends with the session before, gives the same version and evidence, and the stored row. Its status aside:
   a person may have activated it since.
4. A signal of a session names the model version that the ledger says was in force at it.
5. That version served no session before the month it was trained for, and its training window and its
   last label lie before that month.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from quant_assets.findings import Finding
from quant_assets.point_in_time.comparisons import differences
from quant_assets.point_in_time.cut_store import CutStore
from quant_assets.point_in_time.recompute import Step, recompute
from quant_resources.calendar import XNYS
from quant_resources.errors import DataError
from quant_resources.ledger import Ledger, registry
from quant_resources.ledger.registry_tables import Model
from quant_resources.store import Store
from quant_resources.tables import Table

#: Rows of a training set that tell which one it is.
_IDENTITY = ("session", "security_id")
_KNOWN = "known_session"
_SHOWN = 10
_TRAIN_AGAIN = (
    "Features, labels or settings were changed since the month was trained: train it again, its version will be "
    "another one."
)
#: Stage of the tables whose assets train models.
_MODELS = "models"
#: What a person may change of a trained month.
_DECIDED_LATER = "status"
_LATE_TRAINING = (
    "Filter labels on known_session before the month's first session, and fit whatever is fitted (a scaler, a "
    "ranking, a mask of names) on those rows alone."
)


def training_rows_are_known(
    rows_of: Callable[[Store], pl.DataFrame], store: Store, effective_session: date
) -> Finding:
    """Rules 1 and 2: a month trains on what was known before it.

    Args:
        rows_of: From a store to the rows that train: `session`, `security_id`, `known_session` (Date, when
            the label was known) and any other columns, which are compared too.
        store: The data root, with everything that is stored.
        effective_session: First session that the month's model may serve.
    """
    before = XNYS.previous(effective_session)
    everything, known = rows_of(store), rows_of(CutStore(store, before))
    late = everything.filter(pl.col(_KNOWN) >= effective_session)
    if late.height:
        return Finding(
            passed=False,
            message=f"{late.height} of {everything.height} training rows of {effective_session:%Y-%m} hold "
            f"a label that was not known before {effective_session}.",
            count=late.height,
            sample=late.select(*_IDENTITY, _KNOWN).sort(_IDENTITY).head(_SHOWN),
            remedy=_LATE_TRAINING,
        )
    # As multisets: a row that comes twice with the future known is a difference as well.
    columns = known.columns
    both = pl.concat(
        [
            everything.select(columns).with_columns(seen=pl.lit("everything"), weight=pl.lit(1)),
            known.with_columns(seen=pl.lit("known before"), weight=pl.lit(-1)),
        ],
        how="vertical_relaxed",
    )
    apart = (
        both.group_by(columns)
        .agg(pl.col("seen").first(), pl.col("weight").sum())
        .filter(pl.col("weight") != 0)
        .sort(_IDENTITY)
    )
    return Finding.of(
        apart.select(*_IDENTITY, _KNOWN, "seen"),
        f"The {everything.height} training rows of {effective_session:%Y-%m} are the same when the store ends "
        f"with {before}.",
        f"{apart.height} training rows of {effective_session:%Y-%m} are others when the store ends with {before}: "
        "training sees what was not known yet.",
        _LATE_TRAINING,
    )


@dataclass(frozen=True)
class Retrained:
    """What training a month again showed.

    Attributes:
        rows: Rows of the month that were compared.
        look_ahead: Whether the future changes it.
        parity: Whether it is what is stored.
    """

    rows: int
    look_ahead: Finding
    parity: Finding


def retrained(
    step: Step, table: Table, key: str, store: Store, resources: Mapping[str, Any]
) -> Retrained:
    """Rule 3: train a month again by its own asset, with and without what came later.

    Args:
        step: The step of the table, of grain month.
        table: One of its tables.
        key: The month's partition.
        store: The data root.
        resources: Resources of the step; the ledger among them must record nothing
            (`UnrecordedLedger`), since a training writes to it.

    Raises:
        DataError: With everything visible the month cannot be trained.
    """
    before = XNYS.previous(XNYS.at_or_after(date.fromisoformat(key)))
    everything = recompute(step, table, [key], store, resources)
    stored = store.read(table, [key]).collect()
    parity = _same_training(table, {"as_stored": stored, "trained_again": everything}, _TRAIN_AGAIN)
    try:
        known = recompute(step, table, [key], CutStore(store, before), resources)
    except DataError as error:
        missing = Finding(
            False,
            f"{table.path} of {key} cannot be trained on what was known at the close of {before}. {error}",
            everything.height,
            remedy=_LATE_TRAINING,
        )
        return Retrained(everything.height, missing, parity)
    look_ahead = _same_training(
        table, {"with_what_was_known": known, "with_everything": everything}, _LATE_TRAINING
    )
    return Retrained(everything.height, look_ahead, parity)


def models_behind(step: Step) -> list[str]:
    """Names of the models that a step's tables depend on, by their assets."""
    upstream = {key for keys in step.asset.asset_deps.values() for key in keys}
    return sorted(key.path[-1] for key in upstream if key.path[0] == _MODELS)


def known_models(
    step: Step, table: Table, store: Store, ledger: Ledger, keys: Sequence[str]
) -> list[Finding]:
    """Rules 4 and 5 of every model behind the stored rows of a table; none where rows name no version."""
    if "model_version" not in table.schema:
        return []
    made = store.read(table, keys, ["session", "model_version"]).collect()
    return [models_were_known(ledger, name, made) for name in models_behind(step)]


def models_were_known(ledger: Ledger, name: str, signals: pl.DataFrame) -> Finding:
    """Rules 4 and 5: the models behind stored signals served their sessions and were known by then.

    Args:
        ledger: Where models are registered and activated.
        name: Name of the model.
        signals: `session` and `model_version` of a strategy's signals.
    """
    used = signals.select("session", "model_version").unique().sort("session", "model_version")
    sessions: list[date] = used.get_column("session").unique().to_list()
    with ledger.begin() as transaction:
        in_force = registry.active_models(transaction, name, sessions)
        knowledge = [_knowledge(found.model) for found in registry.list_models(transaction, name)]
    served = pl.DataFrame(
        {"session": list(in_force), "in_force": list(in_force.values())},
        schema={"session": pl.Date, "in_force": pl.String},
    )
    judged = used.join(served, on="session", how="left").join(
        pl.DataFrame(knowledge, schema=_KNOWLEDGE, orient="row"), on="model_version", how="left"
    )
    breaches = judged.filter(
        pl.col("model_version").ne_missing(pl.col("in_force"))
        | (pl.col("trained_for") > pl.col("session"))
        | (pl.col("last_known") >= pl.col("trained_for"))
        | pl.col("last_known").is_null()
    )
    return Finding.of(
        breaches,
        f"{used.height} sessions used the version of {name} that was in force, trained on what was known before.",
        f"{breaches.height} of {used.height} sessions used a version of {name} that was not in force at them, or "
        "that had learned from what was not known yet.",
        "`quant models list` shows who serves from when; where a model was activated for sessions that have been, "
        "materialize their signals again.",
    )


#: Version, first session of the month it was trained for, newest session that it learned from.
_KNOWLEDGE = {"model_version": pl.String, "trained_for": pl.Date, "last_known": pl.Date}


def _knowledge(model: Model) -> tuple[str, date, date]:
    told = model.metrics.get("last_known_session")
    last_known = model.training_last_session
    if told is not None:
        last_known = max(last_known, date.fromisoformat(told))
    return model.model_version, XNYS.at_or_after(model.month), last_known


def _same_training(table: Table, sides: Mapping[str, pl.DataFrame], remedy: str) -> Finding:
    """Whether two trainings of a month are the same one; `sides` names them."""
    (name, one), (other_name, other) = sides.items()
    month = f"{table.path} of {', '.join(str(day) for day in other.get_column('month'))}"
    told = f"{name.replace('_', ' ')} and {other_name.replace('_', ' ')}"
    found = differences(table, one, other, (name, other_name))
    found = found.filter(pl.col("column") != _DECIDED_LATER)
    if found.is_empty():
        return Finding(True, f"{month} has the same version and evidence {told}.")
    columns = ", ".join(found.get_column("column").unique(maintain_order=True))
    return Finding(
        False,
        f"{month} differs {told}, in {columns}.",
        found.height,
        found.head(_SHOWN),
        remedy,
    )
