"""The usual technical indicators, each from exactly the bars that it declares.

Belongs here: from bars in a frame to indicators in a frame. Does not belong here: the formulas
(`technical_formulas.py`), Alpha158, anything across securities, adjustment.

1. An indicator looks at the last n bars of a security, the session's own included, and is missing
   without them. Sessions without a bar are skipped, not filled; the n bars must lie within
   `LOOKBACK` + 1 sessions.
2. Recursive formulas never settle completely: what they give depends on where they began. They
   always begin 252 bars back, so that a value is the same whatever else is loaded.
3. So a value depends on its declared bars only: a day alone equals the day in a range to the bit,
   and more history moves nothing.

All values are free of the scale of prices, except `dollar_volume_20`.
"""

from collections.abc import Sequence
from datetime import date
from typing import Final

import numpy as np
import polars as pl

from quant_assets.features.checked_bars import check_sessions, checked_bars
from quant_assets.features.technical_formulas import INDICATORS, Floats, History, Rows

LOOKBACK: Final = 299
"""Sessions before session T that the columns of session T can depend on."""

BARS_NEEDED: Final = {
    name: indicator.bars for indicator in INDICATORS for name in indicator.columns
}
"""Warm-up of each column: bars, the session's own included, without which it is missing."""

BAR_VALUES: Final = ("open", "high", "low", "close", "volume")
"""Columns of bars that the indicators are computed from."""

_VALUES: Final = (*BAR_VALUES, "dollar_volume")
_CHUNK: Final = 16_384  # rows computed at once: their arrays stay in the processor's cache


def technical(bars: pl.DataFrame, calendar: Sequence[date] | None = None) -> pl.DataFrame:
    """Compute the technical indicators.

    Args:
        bars: Columns symbol, session (Date), open, high, low, close, volume, in any order,
            adjusted on one scale per symbol. Optional: dollar_volume (USD as traded; otherwise
            close times volume), and wanted (Boolean: the rows to compute; otherwise all). A row
            with a missing value counts as a session without a bar.
        calendar: The market's sessions, covering the frame. None: the sessions that occur in the
            frame.

    Returns:
        symbol, session and the Float64 columns of `BARS_NEEDED`, one row per wanted row, sorted
        by symbol and session; null where the warm-up is not satisfied or the formula is
        undefined.

    Raises:
        DataError: A column is missing, or a bar occurs twice or on a day that is no session.
    """
    rows = _checked(bars, calendar)
    frame = rows.drop_nulls(_VALUES)
    ends = np.flatnonzero(frame["wanted"].to_numpy())
    columns = {name: np.full(len(ends), np.nan) for name in BARS_NEEDED}
    if len(ends):
        history = _history(frame)
        with np.errstate(all="ignore"):
            for begin in range(0, len(ends), _CHUNK):
                _compute(history, ends[begin : begin + _CHUNK], begin, columns)
    defined = pl.when(pl.all().is_finite()).then(pl.all())
    computed = (
        frame.filter("wanted")
        .select("symbol", "session")
        .hstack(pl.DataFrame(columns).select(defined))
    )
    asked = rows.filter("wanted").select("symbol", "session")
    return asked.join(computed, on=["symbol", "session"], how="left", maintain_order="left")


def _compute(history: History, ends: Rows, begin: int, columns: dict[str, Floats]) -> None:
    """Write the indicators of some rows into the columns, from place `begin` on."""
    first = max(0, int(ends[0]) - LOOKBACK)
    part, ends = history.span(first, int(ends[-1]) + 1), ends - first
    for indicator in INDICATORS:
        ready = np.flatnonzero(part.reaches(ends, indicator.bars, LOOKBACK + 1))
        if len(ready):
            results = indicator.formula(part, ends[ready])
            for name, values in zip(indicator.columns, results, strict=True):
                columns[name][begin + ready] = values


def _checked(bars: pl.DataFrame, calendar: Sequence[date] | None) -> pl.DataFrame:
    """The bars sorted by symbol and session, with the number of their session in the calendar."""
    traded = "dollar_volume" in bars.columns
    frame = checked_bars(bars, "technical", _VALUES if traded else BAR_VALUES)
    if not traded:
        frame = frame.with_columns(dollar_volume=pl.col("close") * pl.col("volume"))
    if "wanted" not in bars.columns:
        frame = frame.with_columns(wanted=pl.lit(value=True))
    if calendar is None:
        calendar = frame["session"].unique().to_list()
    check_sessions(frame, calendar, "technical")
    sessions = pl.Series("session", calendar, dtype=pl.Date).unique().sort()
    return (
        frame.select("symbol", "session", *_VALUES, "wanted")
        .join(sessions.to_frame().with_row_index("position"), on="session")
        .sort("symbol", "session")
    )


def _history(frame: pl.DataFrame) -> History:
    lengths = frame["symbol"].rle().struct.field("len").to_numpy().astype(np.int64)
    return History(
        values={name: np.ascontiguousarray(frame[name].to_numpy()) for name in _VALUES},
        position=frame["position"].to_numpy().astype(np.int64),
        start=np.repeat(np.cumsum(lengths) - lengths, lengths),
    )
