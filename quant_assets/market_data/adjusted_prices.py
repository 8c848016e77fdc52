"""Whether prices that are declared raw come adjusted: what closes did on the days of corporate actions.

What belongs here: the evidence in a delivery, as pure functions. What does not: single rows that an action
leaves unexplained (levels.py), how prices are adjusted (adjustment.py).

1. On the first session of a split, a raw close moves by the split's ratio, an adjusted one does not. Splits
   of at least 1.5 to 1 either way leave no doubt about a single one of them.
2. On an ex-date, raw closes fall by the dividend on average. How much of it they fall is the slope through
   the origin of the falls, less the session's median, over the yields: 1 for raw prices, 0 for adjusted
   ones. It takes some hundred dividends to tell the two apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from quant_assets.market_data.adjustment import SHARE_CHANGING

LEAST_SPLIT_RATIO = 1.5
#: Falls beyond this are other news.
_LARGEST_FALL = 0.10


def splits_followed(closes: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """Whether the close moved with each split.

    Args:
        closes: ``symbol``, ``session``, ``close`` and ``previous_close`` (USD, as sent) of at least the
            sessions of the splits.
        actions: Corporate actions (`schemas.CORPORATE_ACTIONS`).

    Returns:
        ``session``, ``symbol``, ``ratio`` (of the session's splits together), ``previous_close``,
        ``close`` and ``followed``, by session and symbol. Splits of less than 1.5 to 1, and those
        without a close on both sides, are left out.
    """
    ratios = (
        actions.filter(
            pl.col("action_type").is_in(SHARE_CHANGING),
            pl.col("ratio").is_finite(),
            pl.col("ratio") > 0,
        )
        .group_by("session", "symbol")
        .agg(ratio=pl.col("ratio").product())
        .filter(pl.max_horizontal("ratio", 1 / pl.col("ratio")) >= LEAST_SPLIT_RATIO)
    )
    moved = (pl.col("close") / pl.col("previous_close")).log()
    return (
        ratios.join(_usable(closes), on=["session", "symbol"])
        .with_columns(followed=(moved + pl.col("ratio").log()).abs() < moved.abs())
        .select("session", "symbol", "ratio", "previous_close", "close", "followed")
        .sort("session", "symbol")
    )


@dataclass(frozen=True)
class DividendSlope:
    """How much of their dividends closes fall by on ex-dates.

    Attributes:
        slope: 1 for raw prices, 0 for adjusted ones (fraction).
        error: Standard error of the slope, robust to unequal variances (fraction).
        dividends: How many were looked at.
    """

    slope: float
    error: float
    dividends: int


def dividend_slope(closes: pl.DataFrame, actions: pl.DataFrame) -> DividendSlope | None:
    """Regress what closes fell by on the yields of the day's dividends.

    Args:
        closes: As in `splits_followed`, of all symbols of the sessions: the median move of the others is
            taken out.
        actions: As in `splits_followed`.

    Returns:
        The slope; None where fewer than two dividends have a close on both sides.
    """
    other = actions.filter(pl.col("action_type") != "cash_dividend").select("session", "symbol")
    amounts = (
        actions.filter(pl.col("action_type") == "cash_dividend", pl.col("cash") > 0)
        .join(other, on=["session", "symbol"], how="anti")
        .group_by("session", "symbol")
        .agg(cash=pl.col("cash").sum())
    )
    falls = (
        _usable(closes)
        .with_columns(fall=1 - pl.col("close") / pl.col("previous_close"))
        .with_columns(fall=pl.col("fall") - pl.col("fall").median().over("session"))
        .join(amounts, on=["session", "symbol"])
        .select("fall", dividend_yield=pl.col("cash") / pl.col("previous_close"))
        .filter(pl.col("fall").abs() <= _LARGEST_FALL, pl.col("dividend_yield") <= _LARGEST_FALL)
    )
    if falls.height < 2:
        return None
    paid, fell = falls["dividend_yield"].to_numpy(), falls["fall"].to_numpy()
    squares = float((paid**2).sum())
    slope = float((paid * fell).sum()) / squares
    error = float((((fell - slope * paid) * paid) ** 2).sum()) ** 0.5 / squares
    return DividendSlope(slope, error, falls.height)


def _usable(closes: pl.DataFrame) -> pl.DataFrame:
    sound = [pl.col(name).is_finite() & (pl.col(name) > 0) for name in ("close", "previous_close")]
    return closes.filter(*sound).unique(["session", "symbol"], keep="none")
