"""The assets of the features stage: read bars and members, compute, show.

Belongs here: lineage, partition mappings and metadata. Does not belong here: any formula
(`session_features.py` and what it names, `labels.py`).
"""

from typing import Any

import dagster as dg
import polars as pl

from quant_assets.features import plots
from quant_assets.features.alpha158_formulas import NAMES
from quant_assets.features.labels import forward_returns
from quant_assets.features.missing_values import missing_shares
from quant_assets.features.schemas import ALPHA158, ANOMALY, LABELS, TECHNICAL
from quant_assets.features.session_features import (
    ALPHA158_FEATURES,
    ANOMALY_FEATURES,
    MEMBER_COLUMNS,
    TECHNICAL_FEATURES,
    SessionFeatures,
)
from quant_assets.features.technical import BARS_NEEDED
from quant_assets.market_data.schemas import BARS, UNIVERSE
from quant_assets.partitions import LABEL_HORIZON, ahead, same, trailing
from quant_assets.table_assets import (
    TableInput,
    TableResult,
    picture,
    sessions_of,
    shown_table,
    table_asset,
)
from quant_resources.calendar import XNYS


def _inputs(features: SessionFeatures) -> dict[str, TableInput]:
    return {
        "bars": TableInput(BARS, trailing(features.lookback)),
        "universe": TableInput(UNIVERSE, same()),
    }


@table_asset(ALPHA158, ins=_inputs(ALPHA158_FEATURES))
def alpha158(
    context: dg.AssetExecutionContext, bars: pl.LazyFrame, universe: pl.LazyFrame
) -> TableResult:
    """Alpha158 of the members of each session."""
    frame = ALPHA158_FEATURES.compute(bars, universe, sessions_of(context))
    missing = missing_shares(frame, NAMES)
    shown = _missing_metadata(missing)
    if frame.height:
        shown["overview"] = picture(plots.alpha158_overview(frame, missing))
    return TableResult(frame, shown)


@table_asset(TECHNICAL, ins=_inputs(TECHNICAL_FEATURES))
def technical(
    context: dg.AssetExecutionContext, bars: pl.LazyFrame, universe: pl.LazyFrame
) -> TableResult:
    """Technical indicators of the members of each session."""
    frame = TECHNICAL_FEATURES.compute(bars, universe, sessions_of(context))
    shown = _missing_metadata(missing_shares(frame, list(BARS_NEEDED)))
    if frame.height:
        shown["distributions"] = picture(plots.histograms(frame, list(BARS_NEEDED)))
    return TableResult(frame, shown)


@table_asset(ANOMALY, ins=_inputs(ANOMALY_FEATURES), kinds=("scikitlearn",))
def anomaly(
    context: dg.AssetExecutionContext, bars: pl.LazyFrame, universe: pl.LazyFrame
) -> TableResult:
    """Anomaly scores of the members of each session."""
    frame = ANOMALY_FEATURES.compute(bars, universe, sessions_of(context))
    highest = frame.drop_nulls("anomaly_score").sort("anomaly_score", descending=True)
    shown: dict[str, Any] = {"scored": highest.height}
    if highest.height:
        shown["most_unusual"] = shown_table(highest.drop("security_id"), rows=10)
    return TableResult(frame, shown)


@table_asset(
    LABELS,
    ins={"bars": TableInput(BARS, ahead(LABEL_HORIZON)), "universe": TableInput(UNIVERSE, same())},
)
def labels(
    context: dg.AssetExecutionContext, bars: pl.LazyFrame, universe: pl.LazyFrame
) -> TableResult:
    """Forward returns of the members of each session."""
    sessions = sessions_of(context)
    calendar = XNYS.sessions(sessions[0], XNYS.offset(sessions[-1], LABEL_HORIZON))
    frame = forward_returns(
        bars.select("session", "security_id", "close", "price_factor").collect(),
        universe.select(MEMBER_COLUMNS).collect(),
        calendar,
        horizon=LABEL_HORIZON - 1,
    )
    shown: dict[str, Any] = {"not_traded": frame["forward_return"].null_count()}
    if frame["forward_return"].count():
        forms = ["forward_return", "forward_return_zscore", "forward_return_rank"]
        shown["distributions"] = picture(plots.histograms(frame, forms, across=3))
    return TableResult(frame, shown)


def _missing_metadata(missing: pl.DataFrame) -> dict[str, Any]:
    absent = missing.filter(pl.col("missing_share") > 0).sort("missing_share", descending=True)
    shown: dict[str, Any] = {
        "columns_complete": missing.height - absent.height,
        "largest_missing_share": missing["missing_share"].max() or 0.0,
    }
    if absent.height:
        shown["missing_shares"] = shown_table(absent, rows=missing.height)
    return shown


ASSETS: tuple[dg.AssetsDefinition, ...] = (alpha158, technical, anomaly, labels)
