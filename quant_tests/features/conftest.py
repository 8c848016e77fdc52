"""A small raw market with everything that features must survive: actions, gaps, late listings, a delisting."""

from datetime import date
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from quant_resources.calendar import XNYS


class Market(NamedTuple):
    """Raw bars with factors, members of the universe, and the calendar they live on."""

    bars: pl.DataFrame
    universe: pl.DataFrame
    calendar: list[date]


def raw_market(count: int = 340, symbols: int = 10, seed: int = 11) -> Market:
    calendar = XNYS.sessions(date(2023, 1, 3), date(2025, 12, 31))[:count]
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(symbols):
        adjusted = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, count)))
        price_factor, volume_factor = np.ones(count), np.ones(count)
        for place in range(20 + number, count, 63):
            price_factor[place] = 1 - 0.004
        if number in (1, 2):
            price_factor[count - 40] *= 0.5
            volume_factor[count - 40] = 2.0
        raw = adjusted / np.append(np.cumprod(price_factor[::-1])[::-1][1:], 1.0)
        close = np.round(raw, 2)
        opening = np.round(raw * np.exp(rng.normal(0, 0.006, count)), 2)
        high = np.maximum(opening, close) + np.round(raw * np.abs(rng.normal(0, 0.006, count)), 2)
        low = np.minimum(opening, close) - np.round(raw * np.abs(rng.normal(0, 0.006, count)), 2)
        volume = np.round(np.exp(rng.normal(12, 0.6, count)))
        here = np.ones(count, dtype=bool)
        if number == 3:
            here[: count // 2] = False
        if number == 4:
            here[count - 30 :] = False
        if number == 5:
            here[count - 75 : count - 60] = False
        if number == 6:
            here &= rng.random(count) > 0.1
        first = calendar[int(np.flatnonzero(here)[0])]
        frame = pl.DataFrame(
            {
                "session": calendar,
                "symbol": [f"S{number}"] * count,
                "security_id": [f"S{number}@{first}"] * count,
                "first_session": [first] * count,
                "open": opening,
                "high": high,
                "low": low,
                "close": close,
                "volume": volume,
                "vwap": (high + low + close) / 3,
                "trade_count": np.full(count, 100),
                "price_factor": price_factor,
                "volume_factor": volume_factor,
            },
            schema_overrides={"trade_count": pl.Int64},
        )
        bars_before = np.concatenate([np.zeros(60), np.cumsum(here)])
        history = (bars_before[60:] - bars_before[:-60]).astype(np.int32)
        frames.append(frame.with_columns(history_sessions=history).filter(pl.Series(here)))
    bars = pl.concat(frames).sort("session", "symbol")
    universe = bars.filter(pl.col("session") >= calendar[60]).select(
        "session",
        "symbol",
        "security_id",
        "close",
        "history_sessions",
        median_dollar_volume=pl.lit(1e7),
        rank=pl.col("symbol").rank().over("session").cast(pl.Int32),
        tradable=pl.lit(None, pl.Boolean),
        shortable=pl.lit(None, pl.Boolean),
        fractionable=pl.lit(None, pl.Boolean),
    )
    return Market(bars.drop("history_sessions"), universe, calendar)


@pytest.fixture(scope="session")
def market() -> Market:
    return raw_market()
