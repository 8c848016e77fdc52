"""The assets of the features stage: read bars and members, compute, show.

Belongs here: lineage, partition mappings and metadata. Does not belong here: any formula
(`session_features.py` and what it names, `labels.py`).
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from quant_assets.features import plots
from quant_assets.features.documentation import (
    ALPHA158_TEXTS,
    ANOMALY_TEXTS,
    TECHNICAL_TEXTS,
    ColumnText,
    documented_columns,
    shown_share,
)
from quant_assets.features.labels import forward_returns
from quant_assets.features.missing_values import missing_shares
from quant_assets.features.schemas import ALPHA158, ANOMALY, LABEL_TABLES, TECHNICAL
from quant_assets.features.session_features import (
    ALPHA158_FEATURES,
    ANOMALY_FEATURES,
    MEMBER_COLUMNS,
    TECHNICAL_FEATURES,
    SessionFeatures,
)
from quant_assets.market_data.schemas import BARS, UNIVERSE
from quant_assets.partitions import ahead, same, trailing
from quant_assets.table_assets import (
    TableInput,
    TableResult,
    column_metadata,
    picture,
    sessions_of,
    shown_table,
    table_asset,
)
from quant_resources.calendar import XNYS
from quant_resources.tables import Table


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

    def shown() -> dict[str, Any]:
        missing = missing_shares(frame, list(ALPHA158_TEXTS))
        metadata = _column_documentation(ALPHA158, ALPHA158_TEXTS, missing)
        if frame.height:
            metadata["overview"] = picture(plots.alpha158_overview(frame, missing))
        return metadata

    return TableResult(frame, shown)


@table_asset(TECHNICAL, ins=_inputs(TECHNICAL_FEATURES))
def technical(
    context: dg.AssetExecutionContext, bars: pl.LazyFrame, universe: pl.LazyFrame
) -> TableResult:
    """Technical indicators of the members of each session."""
    frame = TECHNICAL_FEATURES.compute(bars, universe, sessions_of(context))

    def shown() -> dict[str, Any]:
        missing = missing_shares(frame, list(TECHNICAL_TEXTS))
        metadata = _column_documentation(TECHNICAL, TECHNICAL_TEXTS, missing)
        if frame.height:
            metadata["distributions"] = picture(plots.histograms(frame, list(TECHNICAL_TEXTS)))
        return metadata

    return TableResult(frame, shown)


@table_asset(ANOMALY, ins=_inputs(ANOMALY_FEATURES), kinds=("scikitlearn",))
def anomaly(
    context: dg.AssetExecutionContext, bars: pl.LazyFrame, universe: pl.LazyFrame
) -> TableResult:
    """Anomaly scores of the members of each session."""
    frame = ANOMALY_FEATURES.compute(bars, universe, sessions_of(context))

    def shown() -> dict[str, Any]:
        highest = frame.drop_nulls("anomaly_score").sort("anomaly_score", descending=True)
        missing = missing_shares(frame, list(ANOMALY_TEXTS))
        metadata = _column_documentation(ANOMALY, ANOMALY_TEXTS, missing)
        metadata["scored"] = highest.height
        if highest.height:
            metadata["most_unusual"] = shown_table(highest.drop("security_id"), rows=10)
        return metadata

    return TableResult(frame, shown)


def _label_asset(table: Table) -> dg.AssetsDefinition:
    @table_asset(
        table,
        ins={
            "bars": TableInput(BARS, ahead(table.horizon)),
            "universe": TableInput(UNIVERSE, same()),
        },
    )
    def labels(
        context: dg.AssetExecutionContext, bars: pl.LazyFrame, universe: pl.LazyFrame
    ) -> TableResult:
        sessions = sessions_of(context)
        frame = forward_returns(
            bars.select("session", "security_id", "close", "price_factor").collect(),
            universe.select(MEMBER_COLUMNS).collect(),
            XNYS.sessions(sessions[0], XNYS.offset(sessions[-1], table.horizon)),
            held=table.horizon - 1,
        )

        def shown() -> dict[str, Any]:
            metadata: dict[str, Any] = {"not_traded": frame["forward_return"].null_count()}
            if frame["forward_return"].count():
                forms = ["forward_return", "forward_return_zscore", "forward_return_rank"]
                metadata["distributions"] = picture(plots.histograms(frame, forms, across=3))
            return metadata

        return TableResult(frame, shown)

    return labels


def _column_documentation(
    table: Table, texts: Mapping[str, ColumnText], missing: pl.DataFrame
) -> dict[str, Any]:
    """What every column is and how much of it is missing in this run."""
    share = dict(missing.iter_rows())
    return {
        "columns_complete": sum(value == 0 for value in share.values()),
        "largest_missing_share": max(share.values()),
        "columns": dg.MetadataValue.md(documented_columns(texts, missing)),
        "dagster/column_schema": dg.TableSchema(
            columns=[
                _with_share(column, share.get(column.name))
                for column in column_metadata(table)["dagster/column_schema"].columns
            ]
        ),
    }


def _with_share(column: dg.TableColumn, share: float | None) -> dg.TableColumn:
    # The UI takes descriptions and tags from the definition, but constraints from the newest materialization.
    if share is None:
        return column
    declared = column.constraints
    return dg.TableColumn(
        column.name,
        column.type,
        column.description,
        dg.TableColumnConstraints(
            declared.nullable, declared.unique, [*declared.other, f"missing {shown_share(share)}"]
        ),
    )


ASSETS: tuple[dg.AssetsDefinition, ...] = (
    *(alpha158, technical, anomaly),
    *(_label_asset(table) for table in LABEL_TABLES),
)
