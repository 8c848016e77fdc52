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

from quant_assets.features.technical_formulas import INDICATORS, History
from quant_resources.errors import DataError

LOOKBACK: Final = 299
"""Sessions before session T that the columns of session T can depend on."""

BARS_NEEDED: Final = {
    name: indicator.bars for indicator in INDICATORS for name in indicator.columns
}
"""Warm-up of each column: bars, the session's own included, without which it is missing."""

_VALUES: Final = ("open", "high", "low", "close", "volume", "dollar_volume")
_CHUNK: Final = 8192  # rows whose windows are laid out at once: 17 MB per series of 253 bars


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
    frame = _complete_bars(bars, calendar)
    ends = np.flatnonzero(frame["wanted"].to_numpy())
    columns = {name: np.full(len(ends), np.nan) for name in BARS_NEEDED}
    if len(ends):
        history = _history(frame)
        with np.errstate(all="ignore"):
            for begin in range(0, len(ends), _CHUNK):
                rows = np.arange(begin, min(begin + _CHUNK, len(ends)))
                for indicator in INDICATORS:
                    ready = rows[history.reaches(ends[rows], indicator.bars, LOOKBACK + 1)]
                    if len(ready):
                        results = indicator.formula(history, ends[ready])
                        for name, values in zip(indicator.columns, results, strict=True):
                            columns[name][ready] = values
    defined = pl.when(pl.all().is_finite()).then(pl.all())
    computed = (
        frame.filter("wanted")
        .select("symbol", "session")
        .hstack(pl.DataFrame(columns).select(defined))
    )
    asked = bars.filter("wanted") if "wanted" in bars.columns else bars
    return (
        asked.select("symbol", "session")
        .join(computed, on=["symbol", "session"], how="left")
        .sort("symbol", "session")
    )


def _complete_bars(bars: pl.DataFrame, calendar: Sequence[date] | None) -> pl.DataFrame:
    """The bars without a missing value, sorted, with the number of their session."""
    required = ("symbol", "session", "open", "high", "low", "close", "volume")
    missing = [name for name in required if name not in bars.columns]
    if missing:
        raise DataError(f"technical needs columns that the bars do not have: {', '.join(missing)}.")
    frame = bars.with_columns(pl.col("open", "high", "low", "close", "volume").cast(pl.Float64))
    if "dollar_volume" not in bars.columns:
        frame = frame.with_columns(dollar_volume=pl.col("close") * pl.col("volume"))
    if "wanted" not in bars.columns:
        frame = frame.with_columns(wanted=pl.lit(value=True))
    frame = frame.select("symbol", pl.col("session").cast(pl.Date), *_VALUES, "wanted").sort(
        "symbol", "session"
    )
    doubled = frame.filter(
        (pl.col("symbol") == pl.col("symbol").shift())
        & (pl.col("session") == pl.col("session").shift())
    )
    if doubled.height:
        raise DataError(
            f"technical got {doubled.height} bars twice, the first one of {doubled['symbol'][0]} on "
            f"{doubled['session'][0]}: keep one bar per symbol and session."
        )
    sessions = (
        frame["session"] if calendar is None else pl.Series("session", calendar, dtype=pl.Date)
    )
    numbered = frame.join(
        sessions.unique().sort().to_frame("session").with_row_index("position"),
        on="session",
        how="left",
        maintain_order="left",
    )
    foreign = numbered.filter(pl.col("position").is_null())
    if foreign.height:
        raise DataError(
            f"technical got a bar of {foreign['symbol'][0]} on {foreign['session'][0]}, which is no session of "
            "the calendar: correct its date or pass the calendar of its market."
        )
    observed = pl.all_horizontal(pl.col(_VALUES).is_finite().fill_null(value=False))
    return numbered.filter(observed)


def _history(frame: pl.DataFrame) -> History:
    lengths = frame["symbol"].rle().struct.field("len").to_numpy().astype(np.int64)
    return History(
        values={name: np.ascontiguousarray(frame[name].to_numpy()) for name in _VALUES},
        position=frame["position"].to_numpy().astype(np.int64),
        start=np.repeat(np.cumsum(lengths) - lengths, lengths),
    )
