"""The assets of the market data stage: thin functions between source, pure modules and the UI.

Belongs here: reading inputs, calling one pure function, metadata. Does not belong here: what a bar must
satisfy (validation.py), how prices are adjusted (adjustment.py), who is tradable (universe.py).

``bars`` and ``quarantine`` read their history from the store: which listing a row belongs to depends on
every session before it, far beyond what a partition mapping can name, though of the old ones on symbol and
session alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from quant_assets.market_data import coverage as expectations
from quant_assets.market_data import plots
from quant_assets.market_data.index_membership import membership, read_membership
from quant_assets.market_data.listed_assets import observed_list
from quant_assets.market_data.listings import LISTING_GAP_SESSIONS
from quant_assets.market_data.quality_gate import Gated
from quant_assets.market_data.restatements import cut_short
from quant_assets.market_data.schemas import (
    BARS,
    CORPORATE_ACTIONS,
    COVERAGE,
    LISTED_ASSETS,
    QUARANTINE,
    RAW_BARS,
    RELEASES,
    SOURCE_DIFFERENCES,
    UNIVERSE,
)
from quant_assets.market_data.second_source import ask
from quant_assets.market_data.source_differences import Tolerances, differences, unanswered
from quant_assets.market_data.stored_gate import gate_stored
from quant_assets.market_data.universe import PERMISSION_SESSIONS, WINDOW_SESSIONS, UniverseRule
from quant_assets.market_data.universe import universe as trading_universe
from quant_assets.partitions import GRAIN_METADATA, everything_until, same, trailing
from quant_assets.point_in_time.cut_store import uncut
from quant_assets.table_assets import (
    TableInput,
    TableResult,
    column_metadata,
    picture,
    sessions_of,
    shown_table,
    table_asset,
    table_multi_asset,
)
from quant_resources.bar_source import BarSource
from quant_resources.broker import Broker
from quant_resources.calendar import XNYS
from quant_resources.errors import ConfigurationError, SourceError
from quant_resources.settings import load_settings
from quant_resources.store import Store

#: A day's run shows what the sessions before it looked like too.
_SESSIONS_SHOWN_BEFORE = 60


#: Sessions in which a symbol was delivered before it is missed by the comparison of two sources.
_LATELY_SESSIONS = 5


@table_asset(RAW_BARS)
def raw_bars(
    context: dg.AssetExecutionContext,
    bar_source: dg.ResourceParam[BarSource],
    store: dg.ResourceParam[Store],
) -> TableResult:
    """Fetch the sessions of the run, all of which the source's clock must have closed."""
    sessions = _closed_sessions(context, bar_source)
    frame = _of_sessions(bar_source.bars(None, sessions[0], sessions[-1]), sessions)
    _assert_whole(frame, sessions, store)
    return TableResult(
        frame,
        {
            "source": bar_source.name,
            "sessions": len(sessions),
            "symbols": frame.get_column("symbol").n_unique(),
            "picture": picture(plots.deliveries_picture(frame)),
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


@table_multi_asset(
    (QUARANTINE, BARS),
    deps=[
        TableInput(RAW_BARS, everything_until()),
        TableInput(CORPORATE_ACTIONS, everything_until()),
        TableInput(RELEASES),
    ],
)
def bars_and_quarantine(
    context: dg.AssetExecutionContext, store: dg.ResourceParam[Store]
) -> tuple[TableResult, TableResult]:
    """Judge the delivered rows: those that break a rule, and the others with the session's factors."""
    gated = _gated(context, store)
    return (
        TableResult(gated.quarantine, partial(_rejected, gated)),
        TableResult(gated.bars, partial(_valid, gated)),
    )


@table_asset(
    COVERAGE,
    ins={
        "delivered": TableInput(RAW_BARS, trailing(LISTING_GAP_SESSIONS)),
        "actions": TableInput(CORPORATE_ACTIONS, trailing(LISTING_GAP_SESSIONS)),
        "bars": TableInput(BARS, same()),
    },
)
def coverage(
    context: dg.AssetExecutionContext,
    delivered: pl.LazyFrame,
    actions: pl.LazyFrame,
    bars: pl.LazyFrame,
    store: dg.ResourceParam[Store],
) -> TableResult:
    """What became of every symbol that was expected, or delivered."""
    sessions = sessions_of(context)
    frame = expectations.coverage(
        delivered.select("session", "symbol").collect(),
        bars.select("session", "symbol").collect(),
        actions.select("symbol", "new_symbol", "ex_date", "action_type").collect(),
        XNYS.all_sessions,
        sessions,
    )

    def shown() -> dict[str, Any]:
        newest = frame.filter(session=sessions[-1])
        gaps = newest.filter(pl.col("state") != expectations.PRESENT)
        before = [key for key in store.partitions(COVERAGE) if key < sessions[0].isoformat()]
        lately = store.read(COVERAGE, before[-_SESSIONS_SHOWN_BEFORE:]).collect()
        told = pl.concat([lately, frame])
        metadata: dict[str, Any] = {
            "expected_symbols": newest.height,
            "gaps": gaps.height,
            "newest_gaps": shown_table(gaps.sort("state", "absent_sessions", "symbol")),
            "most_gaps": shown_table(expectations.by_symbol(told)),
            "by_session": shown_table(expectations.by_session(told).reverse()),
        }
        if told.height:
            metadata["picture"] = picture(plots.coverage_picture(told))
        return metadata

    return TableResult(frame, shown)


@table_asset(LISTED_ASSETS)
def listed_assets(
    context: dg.AssetExecutionContext,
    broker: dg.ResourceParam[Broker],
    store: dg.ResourceParam[Store],
) -> TableResult:
    """The broker's list, observed for the session that closed last by the broker's clock.

    What the list said of older sessions cannot be asked any more: they keep what was observed then.
    """
    sessions = sessions_of(context)
    stored = [key for key in context.partition_keys if store.exists(LISTED_ASSETS, key)]
    newest = XNYS.newest_closed(broker.clock().now)
    kept = store.read(LISTED_ASSETS, stored).collect().filter(pl.col("session") != newest)
    if newest not in sessions:
        return TableResult(
            kept, {"observed": f"Nothing: the newest closed session is {newest}, not of this run."}
        )
    observed = observed_list(broker.listings(), newest, broker.name, datetime.now(UTC))
    counts = {
        name: int(observed.get_column(name).sum())
        for name in ("active", "tradable", "shortable", "fractionable")
    }
    return TableResult(
        pl.concat([kept, observed]),
        {"broker": broker.name, "listed": observed.height, **counts},
    )


@table_asset(SOURCE_DIFFERENCES, ins={"raw_bars": TableInput(RAW_BARS, same())})
def source_differences(
    context: dg.AssetExecutionContext,
    raw_bars: pl.LazyFrame,
    store: dg.ResourceParam[Store],
    second_bar_source: dg.ResourceParam[BarSource | None],
) -> TableResult:
    """What the second source tells differently; one that does not answer is told and stops nothing."""
    if second_bar_source is None:
        return TableResult(
            SOURCE_DIFFERENCES.empty(),
            {"second_source": "None (QUANT_SECOND_SOURCE): nothing was compared."},
        )
    sessions = sessions_of(context)
    first = raw_bars.collect()
    settings = load_settings()
    answer = ask(second_bar_source, _lately_delivered(store, first, sessions), sessions)
    found = differences(
        first,
        answer.bars,
        second_bar_source.name,
        answer.sessions,
        answer.symbols,
        tolerances=Tolerances(
            settings.second_source_tolerance, settings.second_source_volume_tolerance
        ),
    )
    silent = [session for session in sessions if session not in answer.sessions]
    told = first.get_column("source").drop_nulls()
    named = told[-1] if told.len() else ""
    metadata: dict[str, Any] = {
        "second_source": second_bar_source.name,
        "compared_bars": answer.bars.height,
        "compared_symbols": len(answer.symbols),
        "symbols_it_does_not_hold": answer.unknown_symbols,
        "unanswered_sessions": len(silent),
        "by_field": shown_table(found.get_column("field").value_counts(sort=True)),
        "largest": shown_table(found.sort("relative_difference", descending=True, nulls_last=True)),
    }
    if answer.reason:
        metadata["why_unanswered"] = answer.reason
    return TableResult(
        pl.concat([found, unanswered(silent, named, second_bar_source.name)]), metadata
    )


@table_asset(
    UNIVERSE,
    ins={
        "bars": TableInput(BARS, trailing(WINDOW_SESSIONS - 1)),
        "listed_assets": TableInput(LISTED_ASSETS, trailing(PERMISSION_SESSIONS)),
    },
)
def universe(
    context: dg.AssetExecutionContext,
    bars: pl.LazyFrame,
    listed_assets: pl.LazyFrame,
    store: dg.ResourceParam[Store],
) -> TableResult:
    """The securities that could be traded, with the broker's permissions where they were observed."""
    sessions, settings = sessions_of(context), load_settings()
    members = None
    metadata: dict[str, Any] = {}
    if settings.universe_membership is not None:
        index = membership(
            read_membership(settings.universe_membership),
            bars.filter(pl.col("session").is_in(sessions)).select("session", "symbol").collect(),
            # Renames after the session as well: they only tell which line of the file is meant.
            uncut(store).read(CORPORATE_ACTIONS).collect(),
            sessions,
        )
        members = index.bars
        metadata["members"] = index.bars.height + index.without_bar.height
        metadata["members_without_bar"] = index.without_bar.height
    frame = trading_universe(
        bars,
        sessions,
        XNYS.sessions(XNYS.offset(sessions[0], 1 - WINDOW_SESSIONS), sessions[-1]),
        UniverseRule(size=settings.universe_size),
        listed_assets=listed_assets,
        members=members,
    )
    return TableResult(frame, partial(_universe_metadata, frame, metadata))


def _universe_metadata(frame: pl.DataFrame, membership: Mapping[str, Any]) -> dict[str, Any]:
    if frame.is_empty():
        empty = f"Fewer than {WINDOW_SESSIONS} sessions of history, or no member."
        return {**membership, "empty": empty}
    newest = frame.filter(pl.col("session") == pl.col("session").max())
    return {
        "names": newest.height,
        "smallest_median_dollar_volume": float(newest["median_dollar_volume"][-1]),
        "permissions_observed": newest["tradable"].null_count() < newest.height,
        "most_liquid": shown_table(newest),
        "picture": picture(plots.universe_picture(frame)),
        **membership,
    }


def _closed_sessions(context: dg.AssetExecutionContext, source: BarSource) -> list[date]:
    sessions = sessions_of(context)
    newest = source.newest_closed_session()
    if sessions[-1] > newest:
        raise SourceError(
            f"Session {sessions[-1]} is not there yet: by the clock of {source.name} the newest "
            f"closed session is {newest}; materialize up to that one."
        )
    return sessions


def _assert_whole(frame: pl.DataFrame, sessions: Sequence[date], store: Store) -> None:
    """Refuse a delivery that lost a large part of what the one before it had of a session."""
    named = ["session", "symbol"]
    fetched = [day.isoformat() for day in sessions if store.exists(RAW_BARS, day.isoformat())]
    if not fetched:
        return
    lost = cut_short(store.read(RAW_BARS, fetched, named).collect(), frame.select(named))
    if lost.height:
        session, stored, count, sample = lost.row(0)
        others = f", and {lost.height - 1} more session(s)" if lost.height > 1 else ""
        raise SourceError(
            f"Session {session} came without {count} of the {stored} symbols that it had before "
            f"({sample} …){others}: a part is never taken for the whole, nothing was stored. Fetch it "
            "again later; if fewer symbols are wanted on purpose, give them a data root of their own."
        )


def _lately_delivered(store: Store, frame: pl.DataFrame, sessions: Sequence[date]) -> list[str]:
    # With the sessions just before, so that a bar that only the second source has is seen as well.
    before = [key for key in store.partitions(RAW_BARS) if key < sessions[0].isoformat()]
    earlier = store.read(RAW_BARS, before[-_LATELY_SESSIONS:], ["symbol"]).collect()
    both = pl.concat([earlier, frame.select("symbol")])
    return both.get_column("symbol").drop_nulls().unique().sort().to_list()


def _of_sessions(frame: pl.DataFrame, sessions: Sequence[date]) -> pl.DataFrame:
    # A run may name single sessions of a span; what lies between them was not asked for.
    return frame.filter(pl.col("session").is_in(list(sessions)))


def _rejected(gated: Gated) -> dict[str, Any]:
    rejected = gated.quarantine
    rules = rejected.group_by("rule").agg(
        rows=pl.len(), symbols=pl.col("symbol").n_unique(), remedy=pl.col("remedy").first()
    )
    return {
        "delivered_rows": rejected.height + gated.bars.height,
        "by_rule": shown_table(rules.sort("rows", "rule", descending=[True, False])),
        "sample": shown_table(
            rejected.select("session", "symbol", "rule", "detail", "remedy").reverse()
        ),
    }


def _valid(gated: Gated) -> dict[str, Any]:
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
    }
    if gated.unapplied.height:
        metadata["actions_not_applied"] = shown_table(gated.unapplied)
    return metadata


def _gated(context: dg.AssetExecutionContext, store: Store) -> Gated:
    wanted = sessions_of(context)
    definition = context.assets_def.partitions_def
    first = None if definition is None else definition.get_first_partition_key()
    if first is None:
        raise ConfigurationError("The market of this data root has no session; see market.json.")
    convention = load_settings().dividend_convention
    return gate_stored(store, date.fromisoformat(first), wanted, convention)


ASSETS: tuple[dg.AssetsDefinition, ...] = (
    raw_bars,
    corporate_actions,
    bars_and_quarantine,
    coverage,
    listed_assets,
    source_differences,
    universe,
)

#: What people write and the graph reads.
EXTERNAL: tuple[dg.AssetSpec, ...] = (
    dg.AssetSpec(
        key=RELEASES.path.split("/"),
        description=RELEASES.description,
        owners=list(RELEASES.owners),
        kinds=set(RELEASES.kinds),
        group_name=RELEASES.stage,
        metadata={**column_metadata(RELEASES), GRAIN_METADATA: RELEASES.grain},
    ),
)
