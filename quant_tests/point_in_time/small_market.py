"""A small market that the real graph materializes from files: deliveries to backtest, with every irregularity.

Belongs here: the files, the graph over them and running it. Does not belong here: tables that are wrong on
purpose (`wrong_tables.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl

from quant_assets import features, market_data
from quant_assets.market_data.schemas import LISTED_ASSETS, SOURCE_DIFFERENCES
from quant_assets.market_span import MarketSpan
from quant_assets.partitions import GRAIN_METADATA, partitions_for, range_tags
from quant_assets.performance.assets import performance_assets
from quant_assets.performance.schemas import tables as performance_tables
from quant_assets.point_in_time.checks import point_in_time_checks
from quant_assets.point_in_time.recompute import Step, steps
from quant_assets.signals.assets import signal_assets
from quant_assets.signals.schemas import tables as signal_tables
from quant_assets.signals.strategies.enhanced_momentum import EnhancedMomentum
from quant_assets.table_assets import TableIOManager
from quant_resources.calendar import XNYS
from quant_resources.file_bars import FileBars
from quant_resources.store import Store
from quant_resources.tables import Table

SESSIONS = XNYS.sessions(date(2023, 1, 3), date(2023, 12, 29))[:120]
KEYS = [session.isoformat() for session in SESSIONS]
SYMBOLS = 9
STRATEGIES = (EnhancedMomentum(),)
SPAN = MarketSpan(
    first_session=SESSIONS[0], last_session=SESSIONS[-1], first_trading_session=SESSIONS[-1]
)
PARTITIONS = partitions_for(SPAN)
TABLES: tuple[Table, ...] = (
    *market_data.TABLES,
    *features.TABLES,
    *signal_tables(STRATEGIES),
    *performance_tables(STRATEGIES),
)
ASSETS = tuple(
    PARTITIONS.place(asset)
    for asset in (
        *market_data.ASSETS,
        *features.ASSETS,
        *signal_assets(STRATEGIES),
        *performance_assets(STRATEGIES),
    )
)
#: What a broker or a second source would have to be asked for.
ASKED = (LISTED_ASSETS, SOURCE_DIFFERENCES)
LAYOUT = """
name = "vendor"
prices = "raw"
volume = "raw"
[bars]
path = "bars.csv"
format = "csv"
one_file_per = "market"
[actions]
path = "actions.csv"
format = "csv"
[actions.columns]
ratio = "ratio"
cash = "cash"
"""


def traded() -> pl.DataFrame:
    """Nine symbols: one splits, one is listed late, one is delisted, one misses days, one pays dividends."""
    rng = np.random.default_rng(31)
    frames = []
    for number in range(SYMBOLS):
        close = np.round(40 * np.exp(np.cumsum(rng.normal(0.0005, 0.015, len(SESSIONS)))), 2)
        here = np.ones(len(SESSIONS), dtype=bool)
        if number == 1:
            close[70:] = np.round(close[70:] / 2, 2)
        if number == 2:
            here[:30] = False
        if number == 3:
            here[110:] = False
        if number == 4:
            here[[66, 80, 81, 95]] = False
        spread = np.round(close * rng.uniform(0.002, 0.01, len(SESSIONS)), 2)
        frames.append(
            pl.DataFrame(
                {
                    "symbol": f"S{number}",
                    "date": SESSIONS,
                    "open": close,
                    "high": close + spread,
                    "low": close - spread,
                    "close": close,
                    "volume": np.round(np.exp(rng.normal(13, 0.4, len(SESSIONS)))),
                }
            ).filter(pl.Series(here))
        )
    return pl.concat(frames)


class SmallMarket:
    """A data root and the real graph over it.

    Args:
        root: The data root.
        files: Folder with the vendor's files.
        assets: Further assets, placed on this market; they are proved as all others.
        tables: Their tables.
    """

    def __init__(
        self,
        root: Path,
        files: Path,
        assets: Sequence[dg.AssetsDefinition] = (),
        tables: Iterable[Table] = (),
    ) -> None:
        self.store = Store(root)
        none = dg.ResourceDefinition.none_resource()
        self.assets = (*ASSETS, *(PARTITIONS.place(asset) for asset in assets))
        self.definitions = dg.Definitions(
            # Trading is not part of it: its evidence is never computed again.
            assets=[asset for asset in self.assets if _grain(asset) != "trading_session"],
            asset_checks=point_in_time_checks(self.assets, PARTITIONS),
            resources={
                "table_io": TableIOManager(self.store, [*TABLES, *tables]),
                "store": self.store,
                "bar_source": FileBars.from_layout(files / "files.toml", files / "cache"),
                "second_bar_source": none,
                "ledger": none,
                "broker": none,
            },
            executor=dg.in_process_executor,
        )

    def run(
        self, paths: Iterable[str], keys: Sequence[str], *, checks: bool = True
    ) -> dg.ExecuteInProcessResult:
        """Materialize some tables for a range of partitions (none: whole tables), with their checks."""
        selection = dg.AssetSelection.assets(*paths)
        job = dg.define_asset_job("some", selection if checks else selection.without_checks())
        definitions = dg.Definitions.merge(self.definitions, dg.Definitions(jobs=[job]))
        # In memory: this is about the tables, and event bookkeeping on disk costs more than the computing.
        with dg.DagsterInstance.ephemeral() as instance:
            return definitions.resolve_job_def("some").execute_in_process(
                instance=instance,
                tags=dict(range_tags(list(keys))) if keys else {},
                raise_on_error=False,
            )

    def learn(self, keys: Sequence[str]) -> None:
        """Market data, features and signals of some sessions, as an ingest makes them."""
        self.learn_what_is_asked(keys)
        asked = {table.path for table in ASKED}
        first = [*market_data.TABLES, *features.TABLES]
        ingested = [t.path for t in first if t.grain == "session" and t.path not in asked]
        for paths in (
            ingested,
            [table.path for table in signal_tables(STRATEGIES)],
            ["performance/strategy_performance"],
        ):
            result = self.run(paths, keys, checks=False)
            assert result.success

    def learn_what_is_asked(self, keys: Sequence[str]) -> None:
        """What broker and second source were not asked for: nothing."""
        for table in ASKED:
            self.store.write(table, table.empty(), keys)

    def step(self, path: str) -> Step:
        """The step that computes a table."""
        found = {t.path: step for step in steps(self.assets, PARTITIONS) for t in step.tables}
        return found[path]


def _grain(asset: dg.AssetsDefinition) -> str:
    return next(iter(asset.specs)).metadata[GRAIN_METADATA]


def write_files(folder: Path) -> Path:
    """The vendor's files."""
    traded().write_csv(folder / "bars.csv")
    (folder / "actions.csv").write_text(
        "ex_date,symbol,type,ratio,cash\n"
        f"{SESSIONS[70]},S1,split,2,\n{SESSIONS[75]},S5,dividend,,0.4\n{SESSIONS[100]},S5,dividend,,0.4\n"
    )
    (folder / "files.toml").write_text(LAYOUT)
    return folder
