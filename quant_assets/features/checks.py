"""The rules of the features stage that need thought; bounds and keys are checked from the declarations.

Belongs here: pure functions from rows to findings. Does not belong here: anything that a `Column`
can say.
"""

from functools import partial
from typing import Final

import polars as pl

from quant_assets.features.alpha158_formulas import NAMES
from quant_assets.features.missing_values import missing_shares
from quant_assets.features.schemas import ALPHA158, ANOMALY, TECHNICAL
from quant_assets.features.technical import BARS_NEEDED
from quant_assets.findings import Finding
from quant_assets.market_data.schemas import UNIVERSE
from quant_assets.table_checks import CheckScope, TableCheck
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


def _members_complete(table: Table) -> TableCheck:
    return TableCheck(
        table,
        "members_complete",
        "Every member of the universe has one row: a model must not silently lose names.",
        partial(members_complete, table),
        columns=("session", "symbol", "security_id"),
    )


CHECKS: tuple[TableCheck, ...] = (
    _members_complete(ALPHA158),
    TableCheck(
        ALPHA158,
        "values_present",
        "Columns that need a short history are there for members that have one: models do not train on holes.",
        partial(values_present, ALPHA158, _WARM_ALPHA158),
    ),
    _members_complete(TECHNICAL),
    TableCheck(
        TECHNICAL,
        "values_present",
        "Columns that need a short history are there for members that have one.",
        partial(values_present, TECHNICAL, _WARM_TECHNICAL),
        columns=("session", "symbol", *_WARM_TECHNICAL),
    ),
    _members_complete(ANOMALY),
)
