"""Labels: what a decision at the close of a session would have earned.

Belongs here: forward returns and their cross-sectional forms. Does not belong here: features, and
which labels a model may use (`models/`).

A signal of session t is known after its close, traded at the close of t + 1 at the latest and
held for `horizon` sessions: the return runs from close t + 1 to close t + 1 + horizon, on prices
adjusted as known at the latter. Qlib's label is the one with horizon 1. It is known from the last
session used on, `known_session`.
"""

from collections.abc import Sequence
from datetime import date

import polars as pl

from quant_resources.errors import DataError


def forward_returns(
    bars: pl.DataFrame, universe: pl.DataFrame, calendar: Sequence[date], horizon: int = 1
) -> pl.DataFrame:
    """Compute the forward returns of the members of a universe.

    Args:
        bars: Raw bars with security_id, session, close (USD) and price_factor, over the
            universe's sessions and `horizon` + 1 sessions after the last.
        universe: session, symbol, security_id; one row is one label.
        calendar: The market's sessions, ascending, covering both.
        horizon: Sessions that the position is held, at least 1.

    Returns:
        The universe's rows in their order with `forward_return` (fraction), its
        `forward_return_zscore` (ddof 1) and `forward_return_rank` (0 = lowest, 1 = highest, ties
        averaged, 0.5 if alone) among the session's known returns, and `known_session`. Null where
        the security has no bar at either end: a delisted or halted position cannot be opened or
        closed there, and no later price stands in for it.

    Raises:
        DataError: The horizon is not positive, or a session is not in the calendar or too near to
        its end.
    """
    if horizon < 1:
        raise DataError(f"A label needs a horizon of at least one session, not {horizon}.")
    days = pl.DataFrame({"session": calendar}, schema={"session": pl.Date}).unique().sort("session")
    ahead = days.with_columns(
        pl.col("session").shift(-step).alias(f"_{step}") for step in range(1, horizon + 2)
    )
    labels = universe.select("session", "symbol", "security_id").join(
        ahead, on="session", how="left", maintain_order="left"
    )
    unknown = labels.filter(pl.col(f"_{horizon + 1}").is_null())
    if unknown.height:
        raise DataError(
            f"The label of {unknown['symbol'][0]} at {unknown['session'][0]} needs {horizon + 1} later sessions, "
            "which the calendar does not have: label only sessions whose horizon has closed."
        )
    # Multiplied session by session: the product is then the same whatever range is computed.
    growth = pl.lit(1.0)
    prices = bars.select("security_id", "close", "price_factor", _session="session")
    for step in range(1, horizon + 2):
        labels = labels.join(
            prices.rename(
                {"_session": f"_{step}", "close": f"_close{step}", "price_factor": f"_factor{step}"}
            ),
            on=["security_id", f"_{step}"],
            how="left",
            maintain_order="left",
        )
        if step > 1:
            growth = growth * pl.col(f"_factor{step}").fill_null(1.0)
    labels = labels.select(
        "session",
        "symbol",
        "security_id",
        forward_return=pl.col(f"_close{horizon + 1}") / (pl.col("_close1") * growth) - 1.0,
        known_session=f"_{horizon + 1}",
    )
    value = pl.col("forward_return")
    count, deviation = value.count(), value.std()
    # The running standard deviation of equal returns need not be exactly zero.
    spread = pl.when(value.min() != value.max()).then(deviation)
    known = value.is_not_null()
    zscore = (
        pl.when(spread.is_not_null())
        .then((value - value.mean()) / spread)
        .when(known & (count > 1))
        .then(0.0)
    )
    rank = pl.when(count > 1).then((value.rank("average") - 1) / (count - 1)).when(known).then(0.5)
    return labels.select(
        "session",
        "symbol",
        "security_id",
        "forward_return",
        zscore.over("session").alias("forward_return_zscore"),
        rank.over("session").alias("forward_return_rank"),
        "known_session",
    )
