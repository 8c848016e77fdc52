"""Labels: what a decision at the close of a session would have earned.

Belongs here: forward returns and their cross-sectional forms. Does not belong here: features, and
which labels a model may use (`models/`).

1. A decision of session t is taken after its close, so the position is bought at the close of t + 1 and sold
   `held` sessions later, at the close of t + 1 + `held`. With one session held that is Qlib's label.
2. The return is that of prices adjusted as known at the sale: the purchase price is multiplied by the factors of
   the security's bars after the purchase, up to the sale's own. A bar carries the factors of everything that went
   ex since the bar before it, so that a split on a halted day is in the factor of the next bar.
3. A position needs a bar at the purchase and one at the sale. Where a halt, a quarantined row or a delisting
   leaves no bar at one of them, there is no return, and no other price stands in for it: the name stays among the
   rows, without a value. What lies between the two, a halt too, changes nothing.
4. A security is its listing, not its ticker: a rename between the two does not end the position, and a new owner
   of the ticker does not take it over.
5. The factors are multiplied session by session, so that a return is the same to the bit whatever range of
   sessions is computed.
6. Of each session the known returns are standardised and ranked; names without a return take no part.
"""

from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from quant_assets.features.checked_bars import checked_history
from quant_resources.errors import DataError


def forward_returns(
    bars: pl.DataFrame, universe: pl.DataFrame, calendar: Sequence[date], held: int = 1
) -> pl.DataFrame:
    """Compute the forward returns of the members of a universe.

    Args:
        bars: Raw bars with security_id, session, close (USD) and price_factor, in any order, over the
            `held` + 1 sessions after each session of the universe. A missing close is no bar.
        universe: session, symbol, security_id; one row is one label.
        calendar: The market's sessions, covering both, ascending.
        held: Sessions from the purchase to the sale, at least 1.

    Returns:
        The universe's rows in their order with `forward_return` (fraction), its
        `forward_return_zscore` (ddof 1; 0 where all returns are equal; null if alone) and
        `forward_return_rank` (0 = lowest, 1 = highest, ties averaged, 0.5 if alone) among the session's
        known returns, and `known_session`, the session of the sale.

    Raises:
        DataError: `held` is not positive; a session is too near to the calendar's end; the bars or the
        members are none (`checked_bars.py`).
    """
    if held < 1:
        raise DataError(f"A label needs a position of at least one session, not {held}.")
    bars, universe = checked_history(bars, universe, calendar, "labels", ("close", "price_factor"))
    days = pl.Series("session", list(calendar), dtype=pl.Date)
    place = _places(universe["session"], days)
    _refuse_unknowable(universe, place, days.len(), held)
    listings = universe["security_id"].unique()
    security = _numbers(universe["security_id"], listings)
    closes, factors = _panel(bars, listings, days)
    purchase, sale = place + 1, place + 1 + held
    growth = np.ones(universe.height)
    for later in range(1, held + 1):
        growth *= factors[security, purchase + later]
    returns = closes[security, sale] / (closes[security, purchase] * growth) - 1.0
    return _with_cross_section(
        universe.select(
            "session",
            "symbol",
            "security_id",
            forward_return=pl.Series(returns).fill_nan(None),
            known_session=days.gather(sale),
        )
    )


def _panel(
    bars: pl.DataFrame, listings: pl.Series, days: pl.Series
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Closes (NaN where there is none) and price factors (1 where there is no bar), (listings, sessions)."""
    wanted = bars.filter(pl.col("security_id").is_in(listings.implode()))
    row, column = _numbers(wanted["security_id"], listings), _places(wanted["session"], days)
    shape = (listings.len(), days.len())
    closes, factors = np.full(shape, np.nan), np.ones(shape)
    closes[row, column] = wanted["close"].fill_null(np.nan).to_numpy()
    factors[row, column] = wanted["price_factor"].to_numpy()
    return closes, factors


def _with_cross_section(labels: pl.DataFrame) -> pl.DataFrame:
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


def _places(sessions: pl.Series, days: pl.Series) -> NDArray[np.int64]:
    """The place of each session in the calendar."""
    places = pl.int_range(days.len(), eager=True)
    return sessions.replace_strict(days, places, return_dtype=pl.Int64).to_numpy()


def _numbers(securities: pl.Series, listings: pl.Series) -> NDArray[np.int64]:
    """The place of each security among the listings."""
    return (
        securities.to_frame("listing")
        .join(listings.to_frame("listing").with_row_index(), on="listing", maintain_order="left")[
            "index"
        ]
        .to_numpy()
        .astype(np.int64)
    )


def _refuse_unknowable(
    universe: pl.DataFrame, place: NDArray[np.int64], days: int, held: int
) -> None:
    unknown = np.flatnonzero(place + held + 1 >= days)
    if len(unknown):
        row = universe.row(int(unknown[0]), named=True)
        raise DataError(
            f"The label of {row['symbol']} at {row['session']} needs {held + 1} later sessions, "
            "which the calendar does not have: label only sessions whose horizon has closed."
        )
