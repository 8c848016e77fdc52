"""The assets of the signals stage: one table per strategy, made from the strategy's own declaration.

Belongs here: declaring the inputs of each strategy to the graph, metadata. Does not belong here:
computing (`session_signals.py`) and strategies (`strategies/`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from quant_assets.models.schemas import MODEL_TABLES
from quant_assets.partitions import same
from quant_assets.signals import plots
from quant_assets.signals.schemas import signal_table
from quant_assets.signals.session_signals import signals_of, tables_read
from quant_assets.signals.strategy import Strategy
from quant_assets.table_assets import (
    TableInput,
    TableResult,
    picture,
    sessions_of,
    shown_table,
    table_asset,
)
from quant_resources.ledger import Ledger

NAMES_SHOWN = 10


def signal_assets(strategies: Iterable[Strategy]) -> tuple[dg.AssetsDefinition, ...]:
    """One session-grain asset per strategy, in their order.

    A strategy that asks for a table, column or model that does not exist still becomes an asset: it
    fails when it is materialized, and the graph and the other strategies do not.
    """
    return tuple(_signal_asset(strategy) for strategy in strategies)


def _signal_asset(strategy: Strategy) -> dg.AssetsDefinition:
    read = {path.replace("/", "__"): table for path, table in tables_read(strategy).items()}

    def compute(
        context: dg.AssetExecutionContext, ledger: dg.ResourceParam[Ledger], **inputs: pl.LazyFrame
    ) -> TableResult:
        frames = {read[name].path: frame for name, frame in inputs.items()}
        signals = signals_of(strategy, sessions_of(context), frames, ledger)
        return TableResult(signals, partial(signal_metadata, strategy, signals))

    _declare_parameters(compute, ("context", *read, "ledger"))
    compute.__name__ = strategy.name
    compute.__doc__ = inspect.getdoc(type(strategy))
    model = MODEL_TABLES.get(strategy.model or "")
    return table_asset(
        signal_table(strategy),
        ins={name: TableInput(table, same()) for name, table in read.items()},
        # Lineage only: which model serves a session is the ledger's to say.
        deps=[TableInput(model, same())] if model else [],
    )(compute)


def signal_metadata(strategy: Strategy, signals: pl.DataFrame) -> dict[str, Any]:
    """What a trader looks at: the newest session's names, weights and scores."""
    if signals.is_empty():
        reason = (
            f"No model {strategy.model} was in force, or the universe was empty."
            if strategy.model
            else "The universe was empty."
        )
        return {"no_signals": reason}
    newest = signals.filter(pl.col("session") == pl.col("session").max())
    session = newest.item(0, "session")
    columns = ("symbol", "side", "score", "expected_return", "confidence", "target_weight")
    ranked = newest.sort("score", "security_id", descending=[True, False]).select(columns)
    weights = newest.get_column("target_weight")
    return {
        "sessions_with_signals": signals.get_column("session").n_unique(),
        "shown_session": session.isoformat(),
        "buys": newest.filter(side="BUY").height,
        "sells": newest.filter(side="SELL").height,
        "holds": newest.filter(side="HOLD").height,
        "gross_target_weight": float(weights.abs().sum()),
        "net_target_weight": float(weights.sum()),
        "model_versions": ", ".join(sorted(signals.get_column("model_version").unique())),
        "top_names": shown_table(ranked.head(NAMES_SHOWN)),
        "bottom_names": shown_table(ranked.tail(NAMES_SHOWN).reverse()),
        "picture": picture(plots.signal_picture(newest, f"{strategy.name}, {session}")),
    }


def _declare_parameters(compute: Any, names: tuple[str, ...]) -> None:
    # Dagster tells inputs from resources by the signature, and the inputs are the strategy's.
    annotations: dict[str, Any] = {
        "context": dg.AssetExecutionContext,
        **dict.fromkeys(names[1:-1], pl.LazyFrame),
        "ledger": dg.ResourceParam[Ledger],
    }
    compute.__annotations__ = {**annotations, "return": TableResult}
    compute.__signature__ = inspect.Signature(
        [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind)
            for name, kind in annotations.items()
        ],
        return_annotation=TableResult,
    )
