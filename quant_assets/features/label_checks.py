"""The rules of labels: every member has one, it is known exactly when its horizon closes, and bars were there.

Belongs here: pure functions from rows to findings. Does not belong here: what a `Column` can say, and the
recomputation of labels from bars (generated for every table).
"""

from functools import partial

import polars as pl

from quant_assets.features.checks import members_complete
from quant_assets.features.schemas import LABEL_TABLES
from quant_assets.findings import Finding
from quant_assets.table_checks import CheckScope, TableCheck
from quant_resources.calendar import XNYS
from quant_resources.tables import Table


def known_at_its_horizon(table: Table, frame: pl.DataFrame, _scope: CheckScope) -> Finding:
    """The label of session t is known at t + horizon by the calendar, neither earlier nor later."""
    if frame.is_empty():
        return Finding(True, f"{table.path}: no member, no label.")
    sessions = frame["session"].unique().sort()
    calendar = XNYS.sessions(sessions[0], XNYS.offset(sessions[-1], table.horizon))
    known = pl.col("session").replace_strict(
        calendar[: -table.horizon], calendar[table.horizon :], default=None, return_dtype=pl.Date
    )
    wrong = frame.filter(pl.col("known_session").ne_missing(known))
    if wrong.is_empty():
        return Finding(
            True, f"{table.path}: {frame.height} labels are known {table.horizon} sessions later."
        )
    return Finding(
        False,
        f"{table.path}: {wrong.height} labels claim to be known at another session than t+{table.horizon}, "
        f"such as {wrong['symbol'][0]} of {wrong['session'][0]} at {wrong['known_session'][0]}.",
        wrong.height,
        wrong.select("session", "symbol", "known_session").head(10),
        "A model would train on what was not known: materialize the labels again.",
    )


def labels_present(table: Table, frame: pl.DataFrame, _scope: CheckScope) -> Finding:
    """Some member of every session was traded at both ends of its label."""
    known = (
        frame.group_by("session")
        .agg(count=pl.col("forward_return").count(), members=pl.len())
        .sort("session")
    )
    empty = known.filter(pl.col("count") == 0)
    if empty.is_empty():
        return Finding(
            True, f"{table.path}: {known['count'].sum()} of {frame.height} labels have a return."
        )
    return Finding(
        False,
        f"{table.path}: {empty.height} sessions have no label at all, the first one {empty['session'][0]}.",
        int(empty["members"].sum()),
        empty.head(10),
        f"The bars of the session after it, or of t+{table.horizon}, are missing: materialize market_data/bars, "
        "then the labels.",
    )


def _rules_of(table: Table) -> tuple[TableCheck, ...]:
    return (
        TableCheck(
            table,
            "members_complete",
            "Every member of the universe has one label row, traded or not: no survivorship.",
            partial(members_complete, table),
            columns=("session", "symbol", "security_id"),
        ),
        TableCheck(
            table,
            "known_at_its_horizon",
            f"known_session is t+{table.horizon} by the calendar: purging in training relies on it.",
            partial(known_at_its_horizon, table),
            columns=("session", "symbol", "known_session"),
        ),
        TableCheck(
            table,
            "labels_present",
            "No session is without any label: bars of the sessions that it is bought and sold at were there.",
            partial(labels_present, table),
            columns=("session", "forward_return"),
        ),
    )


CHECKS: tuple[TableCheck, ...] = tuple(
    check for table in LABEL_TABLES for check in _rules_of(table)
)
