"""Signals of a strategy for any sessions: the one path of asset, look-ahead check and command line.

Belongs here: which tables a strategy needs, and going from them and the ledger's models to its signals.
Does not belong here: Dagster, storing, and the steps themselves (`cross_section.py`, `prediction.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import polars as pl

from quant_assets.market_data.schemas import UNIVERSE
from quant_assets.models import serving
from quant_assets.models.schemas import MODEL_FEATURES
from quant_assets.signals.cross_section import (
    READABLE,
    check_inputs,
    cross_sections,
    rules_version,
    run_strategy,
)
from quant_assets.signals.prediction import predictions
from quant_assets.signals.strategy import Strategy
from quant_resources.ledger import Ledger
from quant_resources.store import Store
from quant_resources.tables import Table


def tables_read(strategy: Strategy) -> dict[str, Table]:
    """Tables that the strategy's signals are made of, by path; those that do not exist are left out."""
    declared = [READABLE[path] for path in strategy.features if path in READABLE]
    model = MODEL_FEATURES.get(strategy.model or "")
    tables = (UNIVERSE, *declared) if model is None else (UNIVERSE, *declared, model)
    return {table.path: table for table in tables}


def signals_of(
    strategy: Strategy,
    sessions: Sequence[date],
    read: Mapping[str, pl.LazyFrame],
    ledger: Ledger,
) -> pl.DataFrame:
    """Compute the signals of some sessions.

    Args:
        strategy: The strategy.
        sessions: Sessions to compute.
        read: Table path to its rows of exactly those sessions, for every table of `tables_read`.
        ledger: Where the models in force are; not touched for strategies without a model.

    Returns:
        Rows of the strategy's signal table; sessions before the first model in force have none.

    Raises:
        StrategyInputError: The strategy asks for what does not exist.
        StrategyOutputError: The strategy answered something that is no set of signals.
        ModelArtefactError: The model in force cannot be read or does not fit the features.
    """
    check_inputs(strategy)
    universe = read[UNIVERSE.path]
    if strategy.model is None:
        versions = dict.fromkeys(sessions, rules_version(strategy))
        return run_strategy(strategy, cross_sections(strategy, universe, read), versions)
    versions = serving.versions_in_force(ledger, strategy.model, sessions)
    predicted = predictions(
        read[MODEL_FEATURES[strategy.model].path],
        versions,
        lambda version: serving.load_booster(ledger, version),
    )
    sections = cross_sections(strategy, universe, read, predicted)
    return run_strategy(strategy, sections, versions)


def stored_inputs(
    strategy: Strategy, sessions: Sequence[date], store: Store
) -> dict[str, pl.LazyFrame]:
    """The stored rows of the given sessions, for `signals_of`.

    Raises:
        MissingPartitionError: A session of a needed table has not been materialized.
    """
    keys = [session.isoformat() for session in sessions]
    return {path: store.read(table, keys) for path, table in tables_read(strategy).items()}
