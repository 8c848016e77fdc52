"""Bars of every session through the prices that were known at that session.

Belongs here: which bars, on which adjustment, a session's features may look at, in a range as on
a single day. Does not belong here: what is computed from them, and how factors arise
(`market_data/adjustment.py`).

A price window is adjusted as known at its last session. A range of sessions computed at once has
many last sessions, and a split or dividend in its middle must not reach the sessions before it.
Between two corporate actions of a security nothing changes, so:

1. The history of each security is cut into segments, each beginning with the session of a
   corporate action.
2. Each segment that holds wanted sessions becomes one window: its sessions up to the last wanted
   one, and the lookback before the first wanted one, adjusted as known at its end, which is as
   known at each of its wanted sessions.

A session computed alone and the same session in a range thus see the same prices, to the bit.
"""

from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl

from quant_assets.market_data.adjustment import adjust


def known_windows(
    bars: pl.DataFrame, wanted: pl.DataFrame, calendar: Sequence[date], lookback: int
) -> pl.DataFrame:
    """Cut bars into windows that are adjusted as known at the wanted sessions.

    Args:
        bars: Raw bars with security_id, session, first_session, open, high, low, close, volume,
            vwap, price_factor and volume_factor, in any order: the wanted sessions and those
            before them.
        wanted: The rows whose features are wanted, by session and security_id, unique.
        calendar: The market's sessions over the span of the bars.
        lookback: How many sessions before a wanted one its features look at.

    Returns:
        One row per bar of a window, sorted by window and session: the columns of the bars,
        adjusted, with `window` (UInt32, which segment of which security), `wanted` (whether the
        row is wanted; true in one window only) and `dollar_volume` (USD traded, raw close times
        raw volume). `first_session` is at the earliest the window's first session: what lies
        before it is no business of the window's. A wanted row without a bar is absent.
    """
    ordered = _ordered(bars, wanted, calendar)
    windows = (
        ordered.filter("wanted")
        .group_by("_security", "_segment")
        .agg(
            _first=(pl.col("_position").min() - lookback).clip(0),
            _stop=pl.col("_row").max() + 1,
        )
        .sort("_security", "_segment")
        .with_columns(_begin=pl.lit(pl.Series(calendar, dtype=pl.Date)).gather("_first"))
    )
    # In bars sorted by security and session a window is a slice, from the first bar within the lookback.
    first = windows.select(pl.col("_security") * len(calendar) + pl.col("_first")).to_series()
    start = np.searchsorted(ordered["_place"].to_numpy(), first.to_numpy())
    length = windows["_stop"].to_numpy() - start
    window = np.repeat(np.arange(len(start), dtype=np.uint32), length)
    row = np.arange(len(window)) + np.repeat(start - (np.cumsum(length) - length), length)
    rows = ordered[row].with_columns(
        window=window,
        wanted=pl.col("wanted") & (pl.col("_segment") == windows["_segment"].gather(window)),
        first_session=pl.max_horizontal("first_session", windows["_begin"].gather(window)),
    )
    adjusted = adjust(rows.with_columns(_listing="security_id", security_id="window"))
    return adjusted.with_columns(security_id="_listing").select(
        *bars.columns, "dollar_volume", "window", "wanted"
    )


def _ordered(bars: pl.DataFrame, wanted: pl.DataFrame, calendar: Sequence[date]) -> pl.DataFrame:
    """The bars of the wanted securities sorted by security and session, numbered and cut into segments."""
    securities = (
        wanted.select("security_id").unique(maintain_order=True).with_row_index("_security")
    )
    sessions = pl.DataFrame({"session": calendar}, schema={"session": pl.Date})
    acted = (pl.col("price_factor") != 1.0) | (pl.col("volume_factor") != 1.0)
    return (
        bars.join(securities, on="security_id")
        .join(sessions.with_row_index("_position"), on="session")
        .join(
            wanted.select("session", "security_id", wanted=True),
            on=["session", "security_id"],
            how="left",
        )
        .with_columns(pl.col("_security", "_position").cast(pl.Int64))
        .with_columns(_place=pl.col("_security") * len(calendar) + pl.col("_position"))
        # One number sorts several times faster than a name and a date.
        .sort("_place")
        .with_columns(
            pl.col("wanted").fill_null(value=False),
            dollar_volume=pl.col("close") * pl.col("volume"),
            _row=pl.int_range(pl.len()),
            # A segment ends where the next action is seen, whichever security it belongs to.
            _segment=acted.cum_sum(),
        )
    )
