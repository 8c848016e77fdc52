"""A regular market for benchmarks: bars on XNYS sessions, in memory and as the graph stores them.

Belongs here: what is measured on. Does not belong here: markets with irregularities
(`oracles/alpha158_reference.py`, `market_data/generated_market.py`).
"""

from datetime import date
from typing import Final

import numpy as np
import polars as pl

from quant_assets.market_data.schemas import BARS, UNIVERSE
from quant_resources.calendar import XNYS
from quant_resources.store import Store

FIRST: Final = date(2010, 1, 4)
DIVIDEND_EVERY: Final = 63
"""Sessions between the dividends of four of five symbols, which cut the price windows as they do in reality."""


def generated_sessions(count: int) -> list[date]:
    """The first `count` sessions of the market."""
    return [XNYS.offset(FIRST, number) for number in range(count)]


def generated_bars(symbols: int, sessions: int) -> pl.DataFrame:
    """Bars of symbols that trade in every session, sorted by symbol and session."""
    rng = np.random.default_rng(0)
    shape = (symbols, sessions)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, shape), axis=1))
    opening = close * np.exp(rng.normal(0, 0.005, shape))
    high = np.maximum(opening, close) * np.exp(np.abs(rng.normal(0, 0.005, shape)))
    low = np.minimum(opening, close) * np.exp(-np.abs(rng.normal(0, 0.005, shape)))
    calendar = generated_sessions(sessions)
    return pl.DataFrame(
        {
            "symbol": np.repeat([f"S{number:04d}" for number in range(symbols)], sessions),
            "session": pl.Series(calendar * symbols, dtype=pl.Date),
            "open": opening.round(2).ravel(),
            "high": high.round(2).ravel(),
            "low": low.round(2).ravel(),
            "close": close.round(2).ravel(),
            "volume": np.exp(rng.normal(13, 1, shape)).round().ravel(),
            "vwap": ((high + low + close) / 3).ravel(),
        }
    )


def store_history(store: Store, bars: pl.DataFrame, last: int) -> list[date]:
    """Store the last sessions of some bars as raw bars with dividends, all symbols members of the universe.

    Args:
        store: An empty data root.
        bars: As `generated_bars` gives them.
        last: How many sessions to store.

    Returns:
        The sessions that were stored.
    """
    sessions = bars["session"].unique().sort().tail(last)
    number = pl.col("symbol").rle_id()
    dividend = (number % 5 > 0) & (
        (pl.int_range(pl.len()).over("symbol") + number) % DIVIDEND_EVERY == DIVIDEND_EVERY - 1
    )
    stored = (
        bars.with_columns(
            security_id=pl.col("symbol") + f"@{FIRST}",
            first_session=pl.lit(FIRST),
            trade_count=pl.lit(1000, pl.Int64),
            price_factor=pl.when(dividend).then(0.995).otherwise(1.0),
            volume_factor=pl.lit(1.0),
            median_dollar_volume=pl.lit(1e7),
            rank=number.cast(pl.Int32) + 1,
            history_sessions=pl.lit(60, pl.Int32),
            tradable=pl.lit(value=None, dtype=pl.Boolean),
            shortable=pl.lit(value=None, dtype=pl.Boolean),
            fractionable=pl.lit(value=None, dtype=pl.Boolean),
        )
        .filter(pl.col("session").is_in(sessions.implode()))
        .sort("session", "symbol")
    )
    keys = [session.isoformat() for session in sessions]
    for table in (BARS, UNIVERSE):
        store.write(table, stored.select(list(table.schema)), keys)
    return sessions.to_list()
