"""Signals on demand: any stored session, all names or some, computed and not stored.

Belongs here: what `quant signals` calls. Does not belong here: the command line itself.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from datetime import date

import polars as pl

from quant_assets.market_data.schemas import UNIVERSE
from quant_assets.signals.discovery import discover
from quant_assets.signals.session_signals import signals_of, stored_inputs
from quant_assets.signals.strategy import Strategy
from quant_resources.errors import ConfigurationError, MissingPartitionError
from quant_resources.ledger import Ledger
from quant_resources.store import Store


def signals_on_demand(
    store: Store,
    ledger: Ledger,
    session: date | None = None,
    symbols: Sequence[str] = (),
    strategies: Iterable[Strategy] | None = None,
) -> pl.DataFrame:
    """Compute the signals of one session from what is stored, with the models then in force.

    The whole universe is computed, because a rank means nothing among a few names; then the symbols
    asked for are picked.

    Args:
        store: The data root.
        ledger: The ledger with the models.
        session: Session; the newest one with a stored universe when None.
        symbols: Symbols to show; all when empty. Upper or lower case.
        strategies: Strategies to run; all that are discovered when None.

    Returns:
        Rows of all strategies' signal tables, descending by score within each strategy.

    Raises:
        MissingPartitionError: The session's features are not stored.
        ConfigurationError: A symbol is not in the session's universe.
    """
    stored = store.partitions(UNIVERSE)
    if not stored:
        raise MissingPartitionError(
            "No session has a trading universe yet: run `quant demo` or `quant backfill` first."
        )
    day = session or date.fromisoformat(stored[-1])
    if day.isoformat() not in stored:
        raise MissingPartitionError(
            f"No trading universe is stored for {day}; sessions from {stored[0]} to {stored[-1]} are: "
            "choose one of them or run `quant backfill` for that session."
        )
    wanted = [symbol.strip().upper() for symbol in symbols]
    known = store.read(UNIVERSE, [day.isoformat()], ["symbol"]).collect().get_column("symbol")
    for symbol in wanted:
        if symbol not in known:
            near = difflib.get_close_matches(symbol, known.to_list(), n=1)
            raise ConfigurationError(
                f"{symbol} is not in the trading universe of {day} ({known.len()} names)"
                + (f"; did you mean {near[0]}?" if near else ".")
            )
    chosen = discover() if strategies is None else tuple(strategies)
    frames = [
        signals_of(strategy, [day], stored_inputs(strategy, [day], store), ledger).sort(
            "score", "security_id", descending=[True, False]
        )
        for strategy in chosen
    ]
    signals = pl.concat(frames)
    return signals.filter(pl.col("symbol").is_in(wanted)) if wanted else signals
