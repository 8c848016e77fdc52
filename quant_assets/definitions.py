"""The whole graph: `build_defs` puts stages, partitions, checks, jobs and resources together.

Tests and the command line replace parts through the arguments instead of patching. `workspace.yaml`
loads `defs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import dagster as dg

import quant_assets.features.assets as features_assets
import quant_assets.market_data.assets as market_data_assets
import quant_assets.models.assets as models_assets
from quant_assets.automation.jobs import jobs
from quant_assets.automation.schedules import schedules
from quant_assets.automation.sensors import sensors
from quant_assets.features import checks as features_checks
from quant_assets.features import label_checks
from quant_assets.features import schemas as features_schemas
from quant_assets.market_data import checks as market_data_checks
from quant_assets.market_data import schemas as market_data_schemas
from quant_assets.market_span import MarketSpan, market_span
from quant_assets.models import checks as models_checks
from quant_assets.models import drift_checks
from quant_assets.models import schemas as models_schemas
from quant_assets.orders import checks as orders_checks
from quant_assets.orders import schemas as orders_schemas
from quant_assets.orders.assets import order_assets
from quant_assets.orders.policy import TradingPolicy, load_policy
from quant_assets.partitions import partitions_for
from quant_assets.performance.assets import performance_assets
from quant_assets.performance.checks import performance_checks
from quant_assets.performance.schemas import tables as performance_tables
from quant_assets.point_in_time.checks import point_in_time_checks
from quant_assets.signals.assets import signal_assets
from quant_assets.signals.checks import signal_checks
from quant_assets.signals.discovery import discover, validated
from quant_assets.signals.schemas import tables as signal_tables
from quant_assets.signals.strategy import Strategy
from quant_assets.table_assets import TableIOManager
from quant_assets.table_checks import check_definitions
from quant_resources.resources import platform_resources
from quant_resources.settings import Settings, load_settings
from quant_resources.store import Store
from quant_resources.tables import Table

#: Limits and allocations of the book, below the data root.
POLICY_FILE = "trading.toml"


def all_tables(strategies: Iterable[Strategy]) -> tuple[Table, ...]:
    """Every table of the graph, in the order in which data flows."""
    chosen = tuple(strategies)
    return (
        *market_data_schemas.TABLES,
        *features_schemas.TABLES,
        *models_schemas.TABLES,
        *signal_tables(chosen),
        *orders_schemas.TABLES,
        *performance_tables(chosen),
    )


def build_defs(
    settings: Settings | None = None,
    span: MarketSpan | None = None,
    strategies: Iterable[Strategy] | None = None,
    resources: Mapping[str, Any] | None = None,
) -> dg.Definitions:
    """Build fresh Definitions.

    Args:
        settings: Settings; read from the environment by default.
        span: Market span; what the data root remembers by default.
        strategies: Strategies; all that `signals/strategies` holds by default.
        resources: Resources that replace the default ones by key.
    """
    chosen_settings = settings or load_settings()
    chosen_span = span or market_span(chosen_settings)
    chosen = discover() if strategies is None else validated(strategies)
    partitions = partitions_for(chosen_span)
    tables = all_tables(chosen)
    rules = (
        *market_data_checks.CHECKS,
        *features_checks.CHECKS,
        *label_checks.CHECKS,
        *models_checks.CHECKS,
        *drift_checks.CHECKS,
        *signal_checks(chosen),
        *orders_checks.CHECKS,
        *performance_checks(chosen),
    )
    assets = [
        *market_data_assets.ASSETS,
        *features_assets.ASSETS,
        *models_assets.ASSETS,
        *signal_assets(chosen),
        *order_assets(signal_tables(chosen)),
        *performance_assets(chosen),
    ]
    placed = [partitions.place(asset) for asset in assets]
    all_jobs = jobs(tables)
    return dg.Definitions(
        assets=[*placed, *market_data_assets.EXTERNAL],
        asset_checks=[
            *check_definitions(tables, rules, partitions),
            *point_in_time_checks(placed, partitions),
        ],
        jobs=all_jobs,
        schedules=schedules(partitions, tables, {job.name: job for job in all_jobs}),
        sensors=sensors(partitions, tables, all_jobs),
        resources={
            "table_io": TableIOManager(Store(chosen_settings.data_root), tables),
            **platform_resources(chosen_settings),
            "trading_policy": _policy_resource(chosen_settings),
            **dict(resources or {}),
        },
        executor=dg.in_process_executor,
    )


def trading_policy(settings: Settings) -> TradingPolicy:
    """Mode, allocations and limits: the settings over the data root's policy file.

    Raises:
        ConfigurationError: A value is missing, unknown or absurd.
    """
    return load_policy(
        settings.data_root / POLICY_FILE,
        mode=settings.trading_mode,
        live_account=settings.live_account,
        book=settings.book,
    )


def _policy_resource(settings: Settings) -> dg.ResourceDefinition:
    # Read when a run needs it: an absurd limit must refuse to trade, not hide the whole graph.
    return dg.ResourceDefinition(
        lambda _context: trading_policy(settings),
        description="Mode, allocations and limits of trading.",
    )


@cache
def _loaded() -> dg.Definitions:
    return build_defs()


def __getattr__(name: str) -> dg.Definitions:
    # Lazily, so that importing `build_defs` neither reads settings nor builds a second graph.
    if name == "defs":
        return _loaded()
    raise AttributeError(name)
