"""What must hold of signals before money may follow them.

Belongs here: rules that need thought or another table. Does not belong here: bounds, missing values and
keys, which are generated from the tables (`schemas.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from functools import partial

import polars as pl

from quant_assets.findings import Finding
from quant_assets.market_data.schemas import BARS, UNIVERSE
from quant_assets.models import serving
from quant_assets.signals.schemas import signal_table
from quant_assets.signals.strategy import Strategy
from quant_assets.table_checks import CheckScope, TableCheck

TOLERANCE = 1e-9
_IDENTITY = ["session", "security_id"]


def signal_checks(strategies: Iterable[Strategy]) -> tuple[TableCheck, ...]:
    """The checks of every strategy's table."""
    return tuple(check for strategy in strategies for check in _checks_of(strategy))


def _checks_of(strategy: Strategy) -> tuple[TableCheck, ...]:
    table = signal_table(strategy)
    legs = (
        f" and its legs sum to {strategy.leg_weights[0]:g} and {strategy.leg_weights[1]:g}"
        if strategy.leg_weights
        else ""
    )
    return (
        TableCheck(
            table,
            "weights_keep_their_promise",
            f"In every session the weights gross at most {strategy.gross_limit:g}{legs}; "
            "weights that do not sum trade the wrong money.",
            partial(weights_keep_their_promise, strategy),
        ),
        TableCheck(
            table,
            "sides_agree_with_weights",
            "BUY targets a long weight, SELL none or a short one, HOLD zero or what is held.",
            sides_agree_with_weights,
        ),
        TableCheck(
            table,
            "stops_are_on_the_right_side",
            "A long's stop lies below the close and its target above; a short's the other way round. "
            "A stop on the wrong side would sell at once.",
            stops_are_on_the_right_side,
        ),
        TableCheck(
            table,
            "names_are_in_the_universe",
            "Every name could be traded that session.",
            names_are_in_the_universe,
        ),
        TableCheck(
            table,
            "every_session_has_signals",
            "Every session with a universe has signals, from the first model in force on; a strategy "
            "that falls silent would freeze its sleeve unseen.",
            partial(every_session_has_signals, strategy),
        ),
    )


def weights_keep_their_promise(
    strategy: Strategy, frame: pl.DataFrame, _scope: CheckScope
) -> Finding:
    """Gross limit and leg sums per session; a session without any weight other than 0 or null passes legs."""
    weight = pl.col("target_weight")
    sums = frame.group_by("session").agg(
        gross=weight.abs().sum(),
        long=weight.filter(weight > 0).sum(),
        short=weight.filter(weight < 0).sum(),
        decided=weight.count(),
    )
    broken = pl.col("gross") > strategy.gross_limit + TOLERANCE
    if strategy.leg_weights is not None:
        long, short = strategy.leg_weights
        off = ((pl.col("long") - long).abs() > TOLERANCE) | (
            (pl.col("short") - short).abs() > TOLERANCE
        )
        broken = broken | ((pl.col("decided") > 0) & off)
    breaches = sums.filter(broken).sort("session")
    return Finding.of(
        breaches,
        f"{sums.height} sessions keep the weights that {strategy.name} promises.",
        f"{breaches.height} of {sums.height} sessions break the weights that {strategy.name} promises.",
        "Correct the strategy's weights or its gross_limit and leg_weights, then materialize again.",
    )


def sides_agree_with_weights(frame: pl.DataFrame, _scope: CheckScope) -> Finding:
    """Side and sign of the weight say the same."""
    weight = pl.col("target_weight")
    agrees = (
        pl.when(side="BUY")
        .then(weight > 0)
        .when(side="SELL")
        .then(weight <= 0)
        .otherwise(weight.fill_null(0.0) == 0)
        .fill_null(False)
    )
    breaches = frame.filter(~agrees).select("session", "symbol", "side", "target_weight")
    return Finding.of(
        breaches,
        f"The sides of {frame.height} signals agree with their weights.",
        f"{breaches.height} signals have a side that contradicts their weight.",
        "Correct the strategy, then materialize again.",
    )


def stops_are_on_the_right_side(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """Stops and targets against the session's raw close."""
    guarded = frame.filter(pl.col("stop_loss").is_not_null() | pl.col("take_profit").is_not_null())
    closes = scope.store.read(BARS, scope.partition_keys, [*_IDENTITY, "close"]).collect()
    direction = pl.col("target_weight").fill_null(0.0).sign()
    breaches = (
        guarded.join(closes, on=_IDENTITY, how="left")
        .filter(
            (direction * (pl.col("close") - pl.col("stop_loss")) <= 0)
            | (direction * (pl.col("take_profit") - pl.col("close")) <= 0)
            | pl.col("close").is_null()
        )
        .select("session", "symbol", "target_weight", "stop_loss", "close", "take_profit")
    )
    return Finding.of(
        breaches,
        f"{guarded.height} stops and targets are on the right side of the close.",
        f"{breaches.height} of {guarded.height} stops or targets are on the wrong side of the close.",
        "Correct the strategy's stop_loss and take_profit, then materialize again.",
    )


def names_are_in_the_universe(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """No signal for a name that was not in the session's universe."""
    universe = scope.store.read(UNIVERSE, scope.partition_keys, _IDENTITY).collect()
    breaches = frame.join(universe, on=_IDENTITY, how="anti").select("session", "symbol")
    return Finding.of(
        breaches,
        f"All {frame.height} signals are for names of the universe.",
        f"{breaches.height} signals are for names outside the session's universe.",
        "The universe has changed since: materialize these sessions again.",
    )


def every_session_has_signals(
    strategy: Strategy, frame: pl.DataFrame, scope: CheckScope
) -> Finding:
    """Sessions with a universe and, where a model is used, a model in force, that have no signal."""
    universe = scope.store.read(UNIVERSE, scope.partition_keys, ["session"]).collect()
    sessions: list[date] = universe.get_column("session").unique().sort().to_list()
    if strategy.model is not None:
        served = serving.versions_in_force(scope.ledger, strategy.model, sessions)
        sessions = [session for session in sessions if session in served]
    expected = pl.DataFrame({"session": sessions}, schema={"session": pl.Date})
    silent = expected.join(frame, on="session", how="anti")
    return Finding.of(
        silent,
        f"All {expected.height} sessions that must have signals have some.",
        f"{silent.height} of {expected.height} sessions have no signal although they must.",
        "Look at the run's log for these sessions, then materialize them again.",
    )
