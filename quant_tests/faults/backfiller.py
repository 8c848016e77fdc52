"""A process that backfills market data of a data root, batch of sessions by batch, and can be killed.

It does what `quant backfill` does for the market data stage: the same graph, runner and Dagster storage
in PostgreSQL, over HTTP from a real exchange.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from quant_assets.cli.graph_runs import GraphRunner
from quant_assets.cli.platform import only_one, running_platform
from quant_assets.definitions import build_defs
from quant_assets.market_data.schemas import STAGE
from quant_assets.market_span import MarketSpan
from quant_resources import alpaca_bars
from quant_resources.dagster_storage import dagster_instance
from quant_resources.settings import Settings, load_settings

JOB = "market_data"
SYMBOLS_PER_REQUEST = 2
CONTEXT = multiprocessing.get_context("forkserver")
# Imported once, not by every process that is killed.
CONTEXT.set_forkserver_preload([__name__, "great_expectations", "matplotlib.pyplot"])


@dataclass(frozen=True)
class Work:
    """What a backfilling process needs to know.

    Attributes:
        root: Data root.
        exchange_url: Where bars come from.
        span: The market.
        batches: Partition keys, a run each.
    """

    root: Path
    exchange_url: str
    span: MarketSpan
    batches: Sequence[Sequence[str]]

    @property
    def settings(self) -> Settings:
        """The settings of the data root."""
        return load_settings(
            data_root=self.root, data_url=self.exchange_url, trading_url=self.exchange_url
        )


def market_data_graph(work: Work) -> dg.Definitions:
    """The whole graph, with a job of the market data stage alone."""
    job = dg.define_asset_job(
        JOB, selection=dg.AssetSelection.groups(STAGE), executor_def=dg.in_process_executor
    )
    whole = build_defs(work.settings, work.span, strategies=())
    return dg.Definitions.merge(whole, dg.Definitions(jobs=[job]))


def backfill(work: Work, working: Any) -> None:
    """Make what is missing of every batch; `working` is set when the first run is about to begin."""
    alpaca_bars.SYMBOLS_PER_REQUEST = SYMBOLS_PER_REQUEST  # pyright: ignore[reportAttributeAccessIssue]
    with (
        only_one(work.root, "backfill"),
        running_platform(work.settings, work.span),
        dagster_instance(work.settings) as instance,
    ):
        runner = GraphRunner(market_data_graph(work), instance, lambda _label, _done: None)
        working.set()
        for batch in work.batches:
            runner.ensure(JOB, batch)


def start(work: Work) -> tuple[Any, Any]:
    """Start a backfilling process; returns it and the event that it sets when it works."""
    working = CONTEXT.Event()
    process = CONTEXT.Process(target=backfill, args=(work, working))
    process.start()
    return process, working


def run(work: Work) -> int:
    """Backfill in a process of its own, to the end; returns its exit code."""
    process, _ = start(work)
    process.join(300)
    assert process.exitcode is not None
    return process.exitcode
