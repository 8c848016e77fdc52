"""Alpha158: the 158 price and volume features of Microsoft Qlib, as one pure function.

Belongs here: the way from bars to columns, step by step. Does not belong here: what bars must be
(`checked_bars.py`), names and formulas (`alpha158_formulas.py`), their arithmetic
(`alpha158_block.py`, `window_lattice.py`), adjustment of prices, storage.

1. The frame is checked (columns, types, duplicates, sessions that are in the calendar) and sorted
   by symbol and session; values become float32, null and infinite values become NaN, as in Qlib's
   storage.
2. Each symbol is laid on the calendar from its listing to its last bar; sessions in between
   without a bar are rows of NaN. Symbols stand in blocks that fit into the processor's cache, one
   behind the other or side by side (`block_layout.py`), so that all later steps are array
   operations along time that need to know no symbol.
3. The shape of the bar and the price ratios are float32 arithmetic, element by element.
4. Rolling features come from the window lattice in float64: moments of close, volume, their daily
   ratios and the volume-weighted move; the straight line through the closes; the extremes of high
   and low with their lags; the sorted lowest and highest closes for the quantiles; today's rank;
   up and down days; gains and losses.
5. A rolling feature ignores missing rows and exists from one observation on (standard deviations
   from two), with two exceptions that Qlib makes: a missing row counts as "not up" and "not down"
   in CNTP and CNTN, and as the extreme in IMAX and IMIN.
6. Only the rows that came in (of them the wanted ones) are written, as float32, into one array of
   shape (158, rows), which becomes the columns of the result without another copy.

Every value depends on its own window only, so that a frame cut to the last 61 sessions gives the
same bits for its last session as the whole history does, provided that it says when each symbol
was first listed. Where only the last session is wanted, the same formulas merge only the windows
that it consists of.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from quant_assets.features.alpha158_block import Block, columns
from quant_assets.features.alpha158_formulas import NAMES
from quant_assets.features.block_layout import VALUES, BlockLayout
from quant_assets.features.checked_bars import check_sessions, checked_bars


def alpha158(bars: pl.DataFrame, calendar: Sequence[date] | None = None) -> pl.DataFrame:
    """Compute Alpha158 for every bar.

    Args:
        bars: Columns symbol, session (Date), open, high, low, close, volume, vwap (any numeric
            type; null, NaN and infinite mean not observed), in any order. Prices and volumes
            adjusted, on one scale per symbol. Optional column first_session (Date): the session
            of the symbol's listing, which tells a frame that begins with a missing session from
            one that begins with a new symbol. Without it a symbol counts as listed on its first
            row. Optional column wanted (Boolean): the rows to return; otherwise all.
        calendar: The market's sessions, covering the frame. None: the sessions that occur in the
            frame.

    Returns:
        symbol, session and the 158 float32 columns of `NAMES`, one row per wanted bar, sorted by
        symbol and session; NaN (never null) where a feature is undefined.

    Raises:
        DataError: A column is missing or not numeric, a key is null or duplicated, a session is
            not in the calendar, or a bar is older than its symbol's listing.
    """
    frame = checked_bars(bars, "alpha158", VALUES, dtype=pl.Float32)
    if calendar is not None:
        check_sessions(frame, calendar, "alpha158")
    symbol, session = pl.col("symbol"), pl.col("session")
    later = (symbol == symbol.shift()) & (session > session.shift())
    ordered = frame.select((later | (symbol > symbol.shift())).all()).item()
    return alpha158_of_checked(frame if ordered else frame.sort("symbol", "session"), calendar)


def alpha158_of_checked(
    frame: pl.DataFrame, calendar: Sequence[date] | None = None
) -> pl.DataFrame:
    """Compute `alpha158` of bars that have been checked and are sorted by symbol and session."""
    days = frame["session"] if calendar is None else pl.Series(calendar, dtype=pl.Date)
    if "wanted" not in frame.columns:
        frame = frame.with_columns(wanted=pl.lit(value=True))
    wanted = frame.filter("wanted").select("symbol", "session")
    result = np.empty((len(NAMES), wanted.height), dtype=np.float32)
    if wanted.height:
        layout = BlockLayout.of(frame, days.unique().sort().to_physical().to_numpy())
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            list(pool.map(lambda some: _write(layout.block(some), result), layout.parts()))
    features = pa.table(
        {
            name: pa.Array.from_buffers(pa.float32(), wanted.height, [None, pa.py_buffer(values)])
            for name, values in zip(NAMES, result, strict=True)
        }
    )
    return wanted.hstack(pl.DataFrame(features))


def _write(block: Block, result: NDArray[np.float32]) -> None:
    """Sentences 3 to 6 for one block."""
    target = result[:, block.results]
    with np.errstate(all="ignore"):
        for name, values in columns(block):
            row, flat = target[_ROW[name]], values.reshape(-1)
            for place, written in block.runs:
                row[written] = flat[place]


_ROW: Final = {name: row for row, name in enumerate(NAMES)}
