"""The check that a session's features look like those that the model in force was trained on.

Belongs here: which sessions a feature table is compared with, and what a person is told. Does not
belong here: the comparison (`features/drift.py`). A stage later than features, because a training
window is a model's.

1. Judged is the newest session of the run that has rows; nothing later is looked at.
2. It is compared with the training window of the model in force at it, where a model reads the
   table, and otherwise with the `WINDOW_SESSIONS` sessions before it.
3. Where fewer than `FEWEST_SESSIONS` of these are stored, nothing is judged, and the check says so.
"""

from datetime import date, timedelta
from functools import partial
from typing import Final

import polars as pl

from quant_assets.features import drift
from quant_assets.features.schemas import ALPHA158, ANOMALY, TECHNICAL
from quant_assets.findings import Finding
from quant_assets.models import serving
from quant_assets.models.schemas import MODEL_FEATURES
from quant_assets.table_checks import CheckScope, TableCheck
from quant_resources.tables import Table

WINDOW_SESSIONS: Final = 252
"""Sessions to compare with where no model in force reads the table."""

FEWEST_SESSIONS: Final = 126
"""Fewer say too little of what is usual: values that look back 60 sessions hardly vary in them."""


def distribution_like_training(table: Table, frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """The newest session's columns are distributed as in the sessions they are compared with.

    Args:
        table: A table of features by session.
        frame: `session` of the run's rows.
        scope: The store, for the values, and the ledger, for the model in force.
    """
    session = frame["session"].max()
    if not isinstance(session, date):
        return Finding(True, f"{table.path}: no rows to judge.")
    sessions, window = _window(table, session, scope)
    if len(sessions) < FEWEST_SESSIONS:
        return Finding(
            True,
            f"{table.path}: {session} is not judged: only {len(sessions)} sessions of {window} are stored, "
            f"{FEWEST_SESSIONS} are needed.",
        )
    columns = [name for name, dtype in table.schema.items() if dtype.is_float()]
    compared = drift.sampled(sessions)
    values = scope.store.read(
        table, [day.isoformat() for day in [*compared, session]], ["session", *columns]
    ).collect()
    here = pl.col("session") == session
    found = drift.distances(values.filter(here), values.filter(~here), columns)
    return _finding(table, session, f"{len(compared)} sessions of {window}", found)


def _finding(table: Table, session: date, window: str, found: pl.DataFrame) -> Finding:
    drifted = found.filter(pl.col("distance") > drift.LIMIT)
    judged = found["column"].n_unique()
    if not judged:
        return Finding(
            True, f"{table.path}: {session} is not judged: {window} have too few values to compare."
        )
    worst = found.row(0, named=True)
    if drifted.is_empty():
        return Finding(
            True,
            f"{table.path}: {session} is distributed like {window}; columns judged: {judged}, farthest is "
            f"{worst['column']} ({worst['aspect']}, {worst['distance']:.1f} of {drift.LIMIT}).",
            sample=found.head(10),
        )
    count = drifted["column"].n_unique()
    return Finding(
        False,
        f"{table.path}: {session} is unlike {window} in {count} of {judged} columns, most of all in {worst['column']}: "
        f"its {worst['aspect']} is {worst['session']:.4g}, there it was {worst['usual_low']:.4g} to "
        f"{worst['usual_high']:.4g}.",
        count,
        drifted,
        "Look at the bars and corporate actions of the session first (zero prices or volumes, a split that was not "
        "adjusted, rows that were not sent); if the market itself has changed, trust the model less until it has "
        "been trained on it.",
    )


def _window(table: Table, session: date, scope: CheckScope) -> tuple[list[date], str]:
    """The stored sessions to compare with, ascending and before the session, and what they are."""
    stored = [date.fromisoformat(key) for key in scope.store.partitions(table)]
    model = next((name for name, read in MODEL_FEATURES.items() if read.path == table.path), None)
    served = {} if model is None else serving.versions_in_force(scope.ledger, model, [session])
    if session in served:
        first, last = serving.training_window(scope.ledger, served[session])
        # Trained before it serves; said again, because nothing later may be looked at.
        last = min(last, session - timedelta(days=1))
        window = f"the training window of {served[session]} ({first} to {last})"
        return [day for day in stored if first <= day <= last], window
    before = [day for day in stored if day < session][-WINDOW_SESSIONS:]
    return before, f"the {WINDOW_SESSIONS} sessions before"


CHECKS: tuple[TableCheck, ...] = tuple(
    TableCheck(
        table,
        "distribution_like_training",
        "The newest session's columns are distributed as in the sessions that the model in force was trained on, or "
        "in the year before: a model knows nothing of values it has never seen.",
        partial(distribution_like_training, table),
        blocking=False,
        columns=("session",),
    )
    for table in (ALPHA158, TECHNICAL, ANOMALY)
)
