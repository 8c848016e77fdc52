"""The assets of the market data stage: thin functions between source, pure modules and the UI.

Belongs here: reading inputs, calling one pure function, metadata. Does not belong here: what a bar must
satisfy (validation.py), how prices are adjusted (adjustment.py), who is tradable (universe.py).

``bars`` and ``quarantine`` read their history from the store: which listing a row belongs to depends on
every session before it, far beyond what a partition mapping can name, though of the old ones on symbol and
session alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from quant_assets.market_data import plots
from quant_assets.market_data.quality_gate import Gated, gate
from quant_assets.market_data.schemas import BARS, CORPORATE_ACTIONS, QUARANTINE, RAW_BARS, UNIVERSE
from quant_assets.market_data.universe import WINDOW_SESSIONS, UniverseRule
from quant_assets.market_data.universe import universe as trading_universe
from quant_assets.partitions import everything_until, same, trailing
from quant_assets.table_assets import (
    TableInput,
    TableResult,
    picture,
    sessions_of,
    shown_table,
    table_asset,
)
from quant_resources.bar_source import BarSource
from quant_resources.calendar import XNYS
from quant_resources.errors import ConfigurationError, SourceError
from quant_resources.settings import load_settings
from quant_resources.store import Store


@table_asset(RAW_BARS)
def raw_bars(
    context: dg.AssetExecutionContext, bar_source: dg.ResourceParam[BarSource]
) -> TableResult:
    """Fetch the sessions of the run, all of which the source's clock must have closed."""
    sessions = _closed_sessions(context, bar_source)
    frame = _of_sessions(bar_source.bars(None, sessions[0], sessions[-1]), sessions)
    return TableResult(
        frame,
        {
            "source": bar_source.name,
            "sessions": len(sessions),
            "symbols": frame.get_column("symbol").n_unique(),
            "picture": picture(
                plots.coverage_picture(frame, QUARANTINE.empty()),
            ),
        },
    )


@table_asset(CORPORATE_ACTIONS)
def corporate_actions(
    context: dg.AssetExecutionContext, bar_source: dg.ResourceParam[BarSource]
) -> TableResult:
    """Fetch the actions that first show in the prices of the run's sessions."""
    sessions = _closed_sessions(context, bar_source)
    frame = _of_sessions(bar_source.corporate_actions(sessions[0], sessions[-1]), sessions)
    counts = frame.get_column("action_type").value_counts(sort=True)
    return TableResult(
        frame,
        {
            "source": bar_source.name,
            "by_type": shown_table(counts),
            "newest": shown_table(
                frame.sort("ex_date", "symbol", descending=[True, False]).select(
                    "ex_date", "symbol", "action_type", "ratio", "cash", "new_symbol"
                )
            ),
        },
    )


@table_asset(
    QUARANTINE,
    deps=[
        TableInput(RAW_BARS, everything_until()),
        TableInput(CORPORATE_ACTIONS, everything_until()),
    ],
)
def quarantine(context: dg.AssetExecutionContext, store: dg.ResourceParam[Store]) -> TableResult:
    """The delivered rows that break a rule."""
    gated = _gated(context, store)
    rejected = gated.quarantine
    rules = rejected.group_by("rule").agg(
        rows=pl.len(), symbols=pl.col("symbol").n_unique(), remedy=pl.col("remedy").first()
    )
    return TableResult(
        rejected,
        {
            "delivered_rows": rejected.height + gated.bars.height,
            "by_rule": shown_table(rules.sort("rows", "rule", descending=[True, False])),
            "sample": shown_table(
                rejected.select("session", "symbol", "rule", "detail", "remedy").reverse()
            ),
        },
    )


@table_asset(
    BARS,
    deps=[
        TableInput(RAW_BARS, everything_until()),
        TableInput(CORPORATE_ACTIONS, everything_until()),
        # After the quarantine, so that a check can prove that no delivered row was lost.
        TableInput(QUARANTINE, same()),
    ],
)
def bars(context: dg.AssetExecutionContext, store: dg.ResourceParam[Store]) -> TableResult:
    """The delivered rows that break no rule, with the factors of the session's actions."""
    gated = _gated(context, store)
    adjusted = gated.bars.filter(pl.col("price_factor") != 1.0)
    metadata: dict[str, Any] = {
        "symbols": gated.bars.get_column("symbol").n_unique(),
        "quarantined_rows": gated.quarantine.height,
        "bars_with_actions": adjusted.height,
        "largest_factors": shown_table(
            adjusted.sort((pl.col("price_factor") - 1).abs(), descending=True).select(
                "session", "symbol", "close", "price_factor", "volume_factor"
            )
        ),
        "coverage": picture(plots.coverage_picture(gated.bars, gated.quarantine)),
        "holes": picture(plots.heat_map_picture(gated.bars, gated.quarantine)),
    }
    if gated.unapplied.height:
        metadata["actions_not_applied"] = shown_table(gated.unapplied)
    return TableResult(gated.bars, metadata)


@table_asset(UNIVERSE, ins={"bars": TableInput(BARS, trailing(WINDOW_SESSIONS - 1))})
def universe(
    context: dg.AssetExecutionContext,
    bars: pl.LazyFrame,
    bar_source: dg.ResourceParam[BarSource],
) -> TableResult:
    """The securities that could be traded, with the broker's permissions where they were observed."""
    sessions = sessions_of(context)
    observed = sessions[-1] == bar_source.newest_closed_session()
    frame = trading_universe(
        bars,
        wanted=sessions,
        sessions=XNYS.sessions(XNYS.offset(sessions[0], 1 - WINDOW_SESSIONS), sessions[-1]),
        rule=UniverseRule(size=load_settings().universe_size),
        assets=bar_source.assets() if observed else None,
    )
    if frame.is_empty():
        return TableResult(frame, {"empty": f"Fewer than {WINDOW_SESSIONS} sessions of history."})
    newest = frame.filter(pl.col("session") == pl.col("session").max())
    return TableResult(
        frame,
        {
            "names": newest.height,
            "smallest_median_dollar_volume": float(newest["median_dollar_volume"][-1]),
            "permissions_observed": observed,
            "most_liquid": shown_table(newest),
            "picture": picture(plots.universe_picture(frame)),
        },
    )


def _closed_sessions(context: dg.AssetExecutionContext, source: BarSource) -> list[date]:
    sessions = sessions_of(context)
    newest = source.newest_closed_session()
    if sessions[-1] > newest:
        raise SourceError(
            f"Session {sessions[-1]} has not closed: by the clock of {source.name} the newest "
            f"closed session is {newest}; materialize up to that one."
        )
    return sessions


def _of_sessions(frame: pl.DataFrame, sessions: Sequence[date]) -> pl.DataFrame:
    # A run may name single sessions of a span; what lies between them was not asked for.
    return frame.filter(pl.col("session").is_in(list(sessions)))


def _gated(context: dg.AssetExecutionContext, store: Store) -> Gated:
    wanted = sessions_of(context)
    definition = context.assets_def.partitions_def
    first = None if definition is None else definition.get_first_partition_key()
    if first is None:
        raise ConfigurationError("The market of this data root has no session; see market.json.")
    sessions = XNYS.sessions(date.fromisoformat(first), wanted[-1])
    keys = [session.isoformat() for session in sessions]
    return gate(store.read(RAW_BARS, keys), store.read(CORPORATE_ACTIONS, keys), wanted, sessions)


ASSETS: tuple[dg.AssetsDefinition, ...] = (
    raw_bars,
    corporate_actions,
    quarantine,
    bars,
    universe,
)
