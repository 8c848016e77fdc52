"""The blocking rules of signals, run again on the very rows that orders are made of.

Pure. Checks in the graph block only within a run of one grain, so money never relies on them alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

import polars as pl

from quant_resources.errors import DataError

#: Sums of weights are of binary fractions.
_ROUNDING: Final = 1e-6


class TargetsRefusedError(DataError):
    """The target portfolio breaks a rule; no order is made of it."""


@dataclass(frozen=True)
class StrategySignals:
    """One strategy's rows of the session before, or why they cannot be used."""

    strategy: str
    rows: pl.DataFrame | None
    problem: str = ""


def usable_signals(
    strategy: str, rows: pl.DataFrame | None, signal_session: date, largest_gross: float
) -> StrategySignals:
    """Judge the rows of a strategy's signal table.

    Args:
        strategy: Its name.
        rows: Rows of its partition, None when there is none.
        signal_session: The session before the trading session: no other may be traded on.
        largest_gross: Largest sum of absolute target weights.

    Returns:
        The rows, or the first problem found. A strategy with a problem keeps its sleeve.
    """
    problem = _problem(rows, signal_session, largest_gross)
    return StrategySignals(strategy, None if problem else rows, problem or "")


def require_sound_targets(
    targets: pl.DataFrame,
    trading_session: date,
    signal_session: date,
    largest_gross: Mapping[str, float],
) -> None:
    """Refuse a target portfolio that breaks a rule, before anything is frozen from it.

    Args:
        targets: Rows of `orders/target_portfolio`.
        trading_session: The session that they must be for.
        signal_session: The session that changed targets must come from.
        largest_gross: Strategy to its largest sum of absolute target weights.

    Raises:
        TargetsRefusedError: Naming the rule, a symbol and the remedy.
    """
    again = "; materialize orders/target_portfolio again"
    rules = {
        "belong to another trading session": pl.col("trading_session") != trading_session,
        "change a position on signals of another session": pl.col("changed")
        & (pl.col("signal_session") != signal_session),
        "repeat a strategy's symbol": pl.struct("strategy", "symbol").is_duplicated(),
        "have no finite weight, quantity or positive price": ~(
            pl.col("target_weight").is_finite()
            & pl.col("target_quantity").is_finite()
            & pl.col("reference_price").is_finite()
            & (pl.col("reference_price") > 0)
        ),
        "have a price of protection that is no positive number": _no_price("stop_loss")
        | _no_price("take_profit"),
        "have a weight and a quantity of opposite signs": pl.col("changed")
        & (pl.col("target_weight").sign() * pl.col("target_quantity").sign() < 0),
    }
    for rule, broken in rules.items():
        rows = targets.filter(broken)
        if rows.height:
            first = rows.row(0, named=True)
            raise TargetsRefusedError(
                f"{rows.height} target(s) for {trading_session} {rule}, the first is {first['symbol']} of "
                f"{first['strategy']}: nothing is ordered{again}."
            )
    gross = targets.filter("changed").group_by("strategy").agg(pl.col("target_weight").abs().sum())
    for strategy, weight in gross.iter_rows():
        bound = largest_gross.get(strategy, 0.0)
        if weight > bound + _ROUNDING:
            raise TargetsRefusedError(
                f"The target weights of {strategy} for {trading_session} sum to {weight:.4f}, at most "
                f"{bound:.4f} is allowed: nothing is ordered; correct the strategy{again}."
            )


def as_decimal(value: float) -> Decimal:
    """A stored Float64 as the nine decimals that the ledger keeps."""
    return Decimal(repr(value)).quantize(Decimal("1e-9"))


def _no_price(column: str) -> pl.Expr:
    """Rows with a price that is given and is none; a missing one is no problem."""
    price = pl.col(column)
    return price.is_not_null() & ~(price.is_finite() & (price > 0))


def _problem(rows: pl.DataFrame | None, signal_session: date, largest_gross: float) -> str | None:
    if rows is None:
        return f"no signals of {signal_session} are stored"
    if not rows.height:
        return f"the signals of {signal_session} are empty"
    weight = pl.col("target_weight")
    rules = {
        "is not of the session before": pl.col("session") != signal_session,
        "has more than one signal": pl.col("symbol").is_duplicated(),
        "has no model version": pl.col("model_version").fill_null("") == "",
        "has a target weight that is no number": weight.is_not_null() & ~weight.is_finite(),
        "has a stop loss that is no positive price": _no_price("stop_loss"),
        "has a take profit that is no positive price": _no_price("take_profit"),
    }
    for rule, broken in rules.items():
        wrong = rows.filter(broken)
        if wrong.height:
            return f"{wrong.item(0, 'symbol')} {rule} ({signal_session})"
    gross = float(rows.get_column("target_weight").drop_nulls().abs().sum())
    if gross > largest_gross + _ROUNDING:
        return f"target weights sum to {gross:.4f}, at most {largest_gross:.4f} is allowed"
    return None
