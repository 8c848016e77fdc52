"""The jobs of a trading day, in their order. A run holds assets of one partitions definition only.

| Job | Grain | When (New York) |
|---|---|---|
| ingest | session | 07:00, the session before |
| label | labelled session | after ingest, the newest session whose horizon has closed |
| train | month | before the first signals of a month |
| signal | session | 08:00, the session before |
| compare | session | 08:15, the session before |
| trade | trading session | before the open |
| settle | trading session | 18:00, on the broker's closing marks |
| backtest | none | when asked for |

Belongs here: which assets belong to which job. When they run is in `schedules.py` and `sensors.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from quant_resources.tables import Table

INGEST = "ingest"
LABEL = "label"
TRAIN = "train"
SIGNAL = "signal"
COMPARE = "compare"
TRADE = "trade"
SETTLE = "settle"
BACKTEST = "backtest"

_BEFORE_THE_OPEN = ("orders/target_portfolio", "orders/order_intents")
_DESCRIPTIONS = {
    INGEST: "Market data and features of closed sessions.",
    LABEL: "Labels of sessions whose horizon has closed.",
    TRAIN: "The models of a month, from what was known before it.",
    SIGNAL: "Signals at the close of a session.",
    COMPARE: "How every strategy has done until the close of a session.",
    TRADE: "Freeze the batch of the trading session in the ledger, then send it.",
    SETTLE: "Book the day's fills, reconcile with the broker, freeze the evidence, report.",
    BACKTEST: "Every strategy over all history, with costs.",
}


def job_of(table: Table) -> str:
    """The job that materializes a table."""
    if table.grain == "labelled_session":
        return LABEL
    if table.grain == "month":
        return TRAIN
    if table.grain == "none":
        return BACKTEST
    if table.grain == "trading_session":
        return TRADE if table.path in _BEFORE_THE_OPEN else SETTLE
    if table.stage == "performance":
        # Not with the signals: a strategy that fails would keep the others from being compared.
        return COMPARE
    return INGEST if table.stage in ("market_data", "features") else SIGNAL


def jobs(tables: Iterable[Table]) -> list[UnresolvedAssetJobDefinition]:
    """One asset job per entry of the trading day, checks included."""
    selected: dict[str, list[str]] = {}
    for table in tables:
        selected.setdefault(job_of(table), []).append(table.path)
    return [
        dg.define_asset_job(
            name,
            selection=dg.AssetSelection.assets(*(path.split("/") for path in paths)),
            description=_DESCRIPTIONS[name],
            executor_def=dg.in_process_executor,
        )
        for name, paths in selected.items()
    ]
