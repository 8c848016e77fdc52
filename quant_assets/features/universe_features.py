"""Features of the members of the universe, from raw bars as stored.

Belongs here: the way from raw bars and a universe to one row per member, the same for a day and a
range. Does not belong here: the formulas (`alpha158.py`, `technical.py`), the cutting of windows
(`known_windows.py`).
"""

from collections.abc import Sequence
from datetime import date

import polars as pl

from quant_assets.features import alpha158_formulas
from quant_assets.features import technical as indicators
from quant_assets.features.alpha158 import VALUES, alpha158_of_checked
from quant_assets.features.checked_bars import checked_history
from quant_assets.features.known_windows import known_windows
from quant_assets.features.technical import technical

_FACTORS = ("price_factor", "volume_factor")


def universe_alpha158(
    bars: pl.DataFrame, universe: pl.DataFrame, calendar: Sequence[date]
) -> pl.DataFrame:
    """Compute Alpha158 for the members of a universe.

    Args:
        bars: Raw bars of the universe's sessions and the 60 sessions before the first (columns as
            in `known_windows`).
        universe: session, symbol, security_id, one row per member.
        calendar: The market's sessions over the span of the bars.

    Returns:
        session, symbol, security_id and the 158 float32 columns, one row per member in the
        universe's order; NaN where a feature is undefined.

    Raises:
        DataError: The bars or the members are none (`checked_bars.py`).
    """
    bars, universe = checked_history(bars, universe, calendar, "alpha158", (*VALUES, *_FACTORS))
    windows = known_windows(bars, universe, calendar, alpha158_formulas.LOOKBACK)
    features = alpha158_of_checked(windows.with_columns(symbol="window"), calendar)
    names = list(alpha158_formulas.NAMES)
    return _of_members(universe, windows, features).with_columns(
        pl.col(names).fill_null(float("nan"))
    )


def universe_technical(
    bars: pl.DataFrame, universe: pl.DataFrame, calendar: Sequence[date]
) -> pl.DataFrame:
    """Compute the technical indicators for the members of a universe.

    Args:
        bars: Raw bars of the universe's sessions and the 299 sessions before the first (columns
            as in `known_windows`).
        universe: session, symbol, security_id, one row per member.
        calendar: The market's sessions over the span of the bars.

    Returns:
        session, symbol, security_id and the Float64 indicators, one row per member in the
        universe's order; null where an indicator is undefined.

    Raises:
        DataError: The bars or the members are none (`checked_bars.py`).
    """
    values = (*indicators.BAR_VALUES, *_FACTORS)
    bars, universe = checked_history(bars, universe, calendar, "technical", values)
    windows = known_windows(bars, universe, calendar, indicators.LOOKBACK)
    features = technical(windows.with_columns(symbol="window"), calendar)
    return _of_members(universe, windows, features)


def _of_members(
    universe: pl.DataFrame, windows: pl.DataFrame, features: pl.DataFrame
) -> pl.DataFrame:
    """Put the features of the windows' wanted rows beside the members."""
    owners = windows.filter("wanted").select("session", "security_id", "window")
    computed = features.rename({"symbol": "window"}).join(owners, on=["session", "window"])
    return universe.select("session", "symbol", "security_id").join(
        computed.drop("window"), on=["session", "security_id"], how="left", maintain_order="left"
    )
