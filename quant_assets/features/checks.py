"""The rules of the features stage that need thought; bounds and keys are checked from the declarations.

Belongs here: pure functions from rows to findings. Does not belong here: anything that a `Column`
can say.
"""

from datetime import date
from functools import partial
from typing import Final

import numpy as np
import polars as pl

from quant_assets.features.alpha158_formulas import NAMES
from quant_assets.features.missing_values import missing_shares
from quant_assets.features.schemas import ALPHA158, LABELS, TECHNICAL
from quant_assets.features.session_features import (
    ALPHA158_FEATURES,
    ANOMALY_FEATURES,
    TECHNICAL_FEATURES,
    SessionFeatures,
)
from quant_assets.features.technical import BARS_NEEDED
from quant_assets.findings import Finding
from quant_assets.market_data.schemas import BARS, UNIVERSE
from quant_assets.partitions import LABEL_HORIZON
from quant_assets.table_checks import CheckScope, TableCheck
from quant_resources.calendar import XNYS
from quant_resources.store import Store
from quant_resources.tables import Table

LARGEST_MISSING_SHARE: Final = 0.1
"""Share of well-known members for whom a warmed-up column may be missing."""

KNOWN_SESSIONS: Final = 40
"""Bars within the last 60 sessions that make a member well known."""

# One missing session of the market is missing in all of these d sessions later, and rightly so; a source need not
# send a vwap at all.
_SINGLE_SESSION = ("VWAP0", "ROC5", "ROC10", "ROC20", "ROC30", "ROC60")

_WARM_ALPHA158 = tuple(name for name in NAMES if name not in _SINGLE_SESSION)
_WARM_TECHNICAL = tuple(name for name, bars in BARS_NEEDED.items() if bars <= KNOWN_SESSIONS)


def members_complete(table: Table, frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """Every member of the universe has its row, and nobody else has."""
    keys = ["session", "symbol", "security_id"]
    members = scope.store.read(UNIVERSE, scope.partition_keys, keys).collect()
    absent = members.join(frame, on=keys, how="anti").with_columns(problem=pl.lit("no row"))
    strange = (
        frame.select(keys)
        .join(members, on=keys, how="anti")
        .with_columns(problem=pl.lit("no member"))
    )
    wrong = pl.concat([absent, strange])
    if wrong.is_empty():
        return Finding(True, f"{table.path}: one row for each of {members.height} members.")
    return Finding(
        False,
        f"{table.path}: {absent.height} members without a row, {strange.height} rows without a member.",
        wrong.height,
        wrong.head(10),
        "Materialize the universe and this table again for these sessions.",
    )


def values_present(
    table: Table, columns: tuple[str, ...], frame: pl.DataFrame, scope: CheckScope
) -> Finding:
    """Columns that need a short history are there for members that have one."""
    known = (
        scope.store.read(UNIVERSE, scope.partition_keys, ["session", "symbol", "history_sessions"])
        .filter(pl.col("history_sessions") >= KNOWN_SESSIONS)
        .collect()
    )
    rows = frame.join(known, on=["session", "symbol"], how="semi")
    excessive = missing_shares(rows, columns).filter(
        pl.col("missing_share") > LARGEST_MISSING_SHARE
    )
    if excessive.is_empty():
        return Finding(
            True,
            f"{table.path}: {len(columns)} columns present for {rows.height} members with history.",
        )
    worst = excessive.sort("missing_share", descending=True)
    return Finding(
        False,
        f"{table.path}: {excessive.height} columns are missing or infinite for more than "
        f"{LARGEST_MISSING_SHARE:.0%} of {rows.height} members with history, most of all "
        f"{worst['column'][0]} ({worst['missing_share'][0]:.0%}).",
        excessive.height,
        worst.head(10),
        "Look for prices of zero, volumes that are not sent, or gaps in market_data/bars.",
    )


def recomputed_alone(features: SessionFeatures, frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """The newest session, recomputed from its own trailing bars with nothing later, gives what is stored."""
    session = date.fromisoformat(scope.partition_keys[-1])
    fresh = recomputed(features, scope.store, session)
    stored = frame.filter(pl.col("session") == session)
    different = differing_rows(stored, fresh)
    name = features.table.path
    if not different.height:
        return Finding(
            True, f"{name}: {stored.height} rows of {session} are the same when computed alone."
        )
    return Finding(
        False,
        f"{name}: {different.height} rows of {session} differ when computed alone from {features.lookback} sessions.",
        different.height,
        different.head(10),
        "A feature looks at more than its lookback or at the future, or bars changed since: materialize again, and "
        "if it stays, correct the feature.",
    )


def recomputed(features: SessionFeatures, store: Store, session: date) -> pl.DataFrame:
    """Compute one session from the stored bars up to it and no later ones."""
    first = features.first_needed(session).isoformat()
    keys = [key for key in store.partitions(BARS) if first <= key <= session.isoformat()]
    return features.compute(
        store.read(BARS, keys), store.read(UNIVERSE, [session.isoformat()]), [session]
    )


def differing_rows(stored: pl.DataFrame, fresh: pl.DataFrame) -> pl.DataFrame:
    """Rows of one session whose columns differ by more than 1e-5 relative, or that only one side has."""
    keys = ["session", "symbol", "security_id"]
    both = stored.join(fresh, on=keys, how="full", coalesce=True, suffix="_alone").sort(keys)
    one_sided = both.join(stored.join(fresh, on=keys, how="semi"), on=keys, how="anti").select(
        *keys, problem=pl.lit("only stored or only computed alone")
    )
    different = []
    for name in stored.columns:
        if name in keys:
            continue
        left, right = both[name], both[f"{name}_alone"]
        if left.dtype.is_float():
            ours, theirs = left.to_numpy(), right.to_numpy()
            apart = ~np.isclose(ours, theirs, rtol=1e-5, atol=1e-9, equal_nan=True)
        else:
            apart = left.ne_missing(right).to_numpy()
        if apart.any():
            different.append(both.filter(apart).select(*keys, problem=pl.lit(name)))
    rows = pl.concat([one_sided, *different])
    return rows.group_by(keys, maintain_order=True).agg(
        pl.col("problem").unique(maintain_order=True).head(5).str.join(", ")
    )


def labels_known_later(frame: pl.DataFrame, _scope: CheckScope) -> Finding:
    """The label of session t is known at t+2 by the calendar, neither earlier nor later."""
    horizon = {
        session: XNYS.offset(session, LABEL_HORIZON) for session in frame["session"].unique()
    }
    wrong = frame.filter(
        pl.col("known_session") != pl.col("session").replace_strict(horizon, return_dtype=pl.Date)
    )
    if wrong.is_empty():
        return Finding(
            True,
            f"features/labels: {frame.height} labels are known {LABEL_HORIZON} sessions later.",
        )
    return Finding(
        False,
        f"features/labels: {wrong.height} labels claim to be known at another session than t+{LABEL_HORIZON}.",
        wrong.height,
        wrong.select("session", "symbol", "known_session").head(10),
        "A model would train on what was not known: materialize the labels again.",
    )


def labels_present(frame: pl.DataFrame, _scope: CheckScope) -> Finding:
    """Some member of every session was traded at both ends of its label."""
    known = (
        frame.group_by("session")
        .agg(count=pl.col("forward_return").count(), members=pl.len())
        .sort("session")
    )
    empty = known.filter(pl.col("count") == 0)
    if empty.is_empty():
        return Finding(
            True, f"features/labels: {known['count'].sum()} of {frame.height} labels have a return."
        )
    return Finding(
        False,
        f"features/labels: {empty.height} sessions have no label at all, the first one {empty['session'][0]}.",
        int(empty["members"].sum()),
        empty.head(10),
        "The bars of the two following sessions are missing: materialize market_data/bars, then the labels.",
    )


def _rules_of(features: SessionFeatures) -> tuple[TableCheck, TableCheck]:
    return (
        TableCheck(
            features.table,
            "members_complete",
            "Every member of the universe has one row: a model must not silently lose names.",
            partial(members_complete, features.table),
            columns=("session", "symbol", "security_id"),
        ),
        TableCheck(
            features.table,
            "same_when_computed_alone",
            "A sample session, recomputed from its own trailing bars, equals what is stored: a range equals day by day, "
            "and nothing looks at the future.",
            partial(recomputed_alone, features),
        ),
    )


CHECKS: tuple[TableCheck, ...] = (
    *_rules_of(ALPHA158_FEATURES),
    TableCheck(
        ALPHA158,
        "values_present",
        "Columns that need a short history are there for members that have one: models do not train on holes.",
        partial(values_present, ALPHA158, _WARM_ALPHA158),
    ),
    *_rules_of(TECHNICAL_FEATURES),
    TableCheck(
        TECHNICAL,
        "values_present",
        "Columns that need a short history are there for members that have one.",
        partial(values_present, TECHNICAL, _WARM_TECHNICAL),
        columns=("session", "symbol", *_WARM_TECHNICAL),
    ),
    *_rules_of(ANOMALY_FEATURES),
    TableCheck(
        LABELS,
        "members_complete",
        "Every member of the universe has one label row, traded or not: no survivorship.",
        partial(members_complete, LABELS),
        columns=("session", "symbol", "security_id"),
    ),
    TableCheck(
        LABELS,
        "known_two_sessions_later",
        "known_session is t+2 by the calendar: purging in training relies on it.",
        labels_known_later,
    ),
    TableCheck(
        LABELS,
        "labels_present",
        "No session is without any label: bars of the following sessions were there.",
        labels_present,
    ),
)
