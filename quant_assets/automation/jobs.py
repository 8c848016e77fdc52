"""The jobs of a trading day, in their order. A run holds assets of one partitions definition only.

| Job | Grain | When (New York) |
|---|---|---|
| ingest | session | 07:00, the session before |
| refetch | session | 07:15, sessions that were ingested before |
| freshness | check alone | 07:30, 08:30 and 09:30 |
| label, label_5, label_20 | labelled session | after ingest, the newest session whose horizon has closed |
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
from typing import Final

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from quant_assets.features.schemas import LABELS
from quant_assets.market_data.coverage_checks import FRESH
from quant_assets.market_data.schemas import BARS, CORPORATE_ACTIONS, RAW_BARS
from quant_resources.tables import Grain, Table

INGEST = "ingest"
REFETCH = "refetch"
FRESHNESS = "freshness"
LABEL = "label"
TRAIN = "train"
SIGNAL = "signal"
COMPARE = "compare"
TRADE = "trade"
SETTLE = "settle"
BACKTEST = "backtest"

#: Grains whose tables can be made again: models and order evidence are what was known at the time.
REPEATED_GRAINS: Final = ("session", "labelled_session", "none")
#: What a source delivers again; everything else follows from it by the restatement plan.
REFETCHED = (RAW_BARS.path, CORPORATE_ACTIONS.path)
_BEFORE_THE_OPEN = ("orders/target_portfolio", "orders/order_intents")
_DESCRIPTIONS = {
    INGEST: "Market data and features of closed sessions.",
    REFETCH: "Deliveries of sessions that were ingested before, once more: a restatement adds a vintage.",
    FRESHNESS: "Whether the newest session that is due is stored; nothing is made.",
    TRAIN: "The models of a month, from what was known before it.",
    SIGNAL: "Signals at the close of a session.",
    COMPARE: "How every strategy has done until the close of a session.",
    TRADE: "Freeze the batch of the trading session in the ledger, then send it.",
    SETTLE: "Book the day's fills, reconcile with the broker, freeze the evidence, report.",
    BACKTEST: "Every strategy over all history, with costs.",
}


def job_of(table: Table) -> str:
    """The job that materializes a table."""
    return job_of_asset(table.path, table.grain, table.horizon)


def label_job(horizon: int) -> str:
    """The job of the labels that are known `horizon` sessions later; their partitions are their own."""
    return LABEL if horizon == LABELS.horizon else f"{LABEL}_{horizon - 1}"


def label_jobs(horizons: Iterable[int]) -> dict[str, int]:
    """The jobs of labels and after how many sessions theirs are known, the shortest first.

    Args:
        horizons: Of tables; those of tables that are no labels (0) are left out.
    """
    return {label_job(horizon): horizon for horizon in sorted(set(horizons)) if horizon}


def job_of_asset(path: str, grain: Grain, horizon: int = 0) -> str:
    """The job that materializes an asset, by its path (`<stage>/<table>`), grain and horizon."""
    if grain == "labelled_session":
        return label_job(horizon)
    if grain == "month":
        return TRAIN
    if grain == "none":
        return BACKTEST
    if grain == "trading_session":
        return TRADE if path in _BEFORE_THE_OPEN else SETTLE
    stage = path.split("/", maxsplit=1)[0]
    if stage == "performance":
        # Not with the signals: a strategy that fails would keep the others from being compared.
        return COMPARE
    return INGEST if stage in ("market_data", "features") else SIGNAL


def repeated_jobs(tables: Iterable[Table]) -> set[str]:
    """The jobs whose tables can be made again."""
    return {job_of(table) for table in tables if table.grain in REPEATED_GRAINS}


def jobs(tables: Iterable[Table]) -> list[UnresolvedAssetJobDefinition]:
    """One asset job per entry of the trading day, checks included."""
    tables = tuple(tables)
    described = _DESCRIPTIONS | {
        name: f"Labels that are known {horizon} sessions later, of sessions whose horizon has closed."
        for name, horizon in label_jobs(table.horizon for table in tables).items()
    }
    selected: dict[str, list[str]] = {}
    for table in tables:
        selected.setdefault(job_of(table), []).append(table.path)
        if table.path in REFETCHED:
            selected.setdefault(REFETCH, []).append(table.path)
    # By the clock, not by the run: every run of a backfill would find the newest session missing.
    freshness = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey(BARS.path.split("/")), FRESH))
    return [
        dg.define_asset_job(
            name,
            selection=selection,
            description=described[name],
            executor_def=dg.in_process_executor,
        )
        for name, selection in [
            *(
                (name, dg.AssetSelection.assets(*(path.split("/") for path in paths)) - freshness)
                for name, paths in selected.items()
            ),
            (FRESHNESS, freshness),
        ]
    ]
