"""Checks that name what a vendor restated: values that changed since the vintage before.

Belongs here: telling a person. Does not belong here: how vintages are compared (restatements.py) and what is
run again (automation/restatements.py).
"""

from __future__ import annotations

from functools import partial

import polars as pl

from quant_assets.market_data.schemas import CORPORATE_ACTIONS, RAW_BARS
from quant_assets.market_data.stored_restatements import newest_differences
from quant_assets.table_checks import CheckScope, Finding, TableCheck
from quant_resources.tables import Table

_SAMPLE = 20
_REMEDY = (
    "Nothing, where the source is right: the sensor `restatements` (or `quant data refetch`, which runs the same "
    "plan) makes exactly the stored sessions and downstream tables again that no longer follow; models and orders "
    "stay as they were. Compare with a second source where a change looks wrong."
)


def not_restated(table: Table, _frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """The newest vintage of each session of the run says what the one before it said.

    Args:
        table: `RAW_BARS` or `CORPORATE_ACTIONS`.
        _frame: Not needed: vintages are read, not the newest rows alone.
        scope: Partitions of the run, and the store.
    """
    lines = newest_differences(scope.store, table, scope.partition_keys)
    if lines.is_empty():
        again = [key for key in scope.partition_keys if len(scope.store.vintages(table, key)) > 1]
        told = "were" if len(scope.partition_keys) != 1 else "was"
        return Finding(
            passed=True,
            message=f"{len(scope.partition_keys)} session(s) {told} not restated"
            + (f" ({len(again)} of them came more than once)." if again else "."),
        )
    first = lines.row(0, named=True)
    rows = lines.select("session", "symbol").n_unique()
    sessions = lines["session"].n_unique()
    return Finding(
        passed=False,
        message=(
            f"{rows} row(s) of {sessions} session(s) were restated: {_sentence(first)}"
            f"{'' if lines.height == 1 else f' ({lines.height} values in all)'}. What this affects "
            "is made again by the command that fetched, or else by the restatements sensor."
        ),
        count=lines.height,
        sample=lines.head(_SAMPLE),
        remedy=_REMEDY,
    )


def _sentence(line: dict[str, object]) -> str:
    what = f"{line['symbol']} of {line['session']}"
    seen = f"observed {_time(line['observed_before'])}, then {_time(line['observed_after'])}"
    if line["kind"] == "changed":
        return f"{what}, {line['field']} {line['old_value']} became {line['new_value']} ({seen})"
    return f"{what} was {line['kind']} ({seen})"


def _time(value: object) -> str:
    return "at an unknown time" if value is None else f"{value:%Y-%m-%d %H:%M:%S}"


CHECKS: tuple[TableCheck, ...] = tuple(
    TableCheck(
        table,
        "not_restated",
        f"{subject} of a session are what they were when it was fetched before; what changed is named with "
        "both versions, and the restatement sensor makes again what it affects.",
        partial(not_restated, table),
        blocking=False,
        columns=("session",),
    )
    for table, subject in ((RAW_BARS, "The bars"), (CORPORATE_ACTIONS, "The corporate actions"))
)
