"""The signal tables: one per strategy, all with the same columns.

Belongs here: columns, types, units and bounds, once. Does not belong here: which strategies there are
(`discovery.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import polars as pl

from quant_assets.signals.discovery import discover
from quant_assets.signals.strategy import Strategy
from quant_resources.tables import Column, Table

SIDES = ("BUY", "SELL", "HOLD")


def signal_table(strategy: Strategy) -> Table:
    """The table `signals/<strategy>`; its description is the strategy's own documentation."""
    limit = strategy.gross_limit
    return Table(
        stage="signals",
        name=strategy.name,
        grain="session",
        description=inspect.getdoc(type(strategy)) or f"Signals of {strategy.name}.",
        columns=(
            Column("session", pl.Date, "Session at whose close the signal was known."),
            Column("symbol", pl.String, "Ticker at the session."),
            Column("security_id", pl.String, "Listing: symbol and first session."),
            Column("strategy", pl.String, "Strategy.", allowed=(strategy.name,)),
            Column("score", pl.Float64, "What names are ranked by; 0 where there is no view."),
            Column(
                "expected_return",
                pl.Float64,
                "Expected return of one session.",
                unit="fraction",
                minimum=-1,
                maximum=1,
            ),
            Column("confidence", pl.Float64, "From 0 (none) to 1.", minimum=0, maximum=1),
            Column("side", pl.String, "BUY, SELL or HOLD.", allowed=SIDES),
            Column(
                "target_weight",
                pl.Float64,
                "Part of the strategy's capital, negative for short; null keeps what is held.",
                unit="fraction",
                nullable=True,
                minimum=-limit,
                maximum=limit,
            ),
            Column(
                "stop_loss",
                pl.Float64,
                "Price at which the position is given up.",
                unit="USD",
                nullable=True,
                minimum=0,
            ),
            Column(
                "take_profit",
                pl.Float64,
                "Price at which the gain is taken.",
                unit="USD",
                nullable=True,
                minimum=0,
            ),
            Column(
                "model_version",
                pl.String,
                "Model in force at the session, or the version of the rules.",
            ),
        ),
        key=("session", "security_id"),
    )


def tables(strategies: Iterable[Strategy]) -> tuple[Table, ...]:
    """The signal tables of the given strategies, in their order."""
    return tuple(signal_table(strategy) for strategy in strategies)


TABLES: tuple[Table, ...] = tables(discover())
