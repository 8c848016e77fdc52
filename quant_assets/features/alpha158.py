"""Alpha158: the 158 price and volume features of Microsoft Qlib, as one pure function.

Belongs here: checking bars, laying them on the calendar, assembling the result. Does not belong
here: names and formulas (`alpha158_formulas.py`), their arithmetic (`alpha158_block.py`,
`window_lattice.py`), adjustment of prices, storage.

1. The frame is checked (columns, types, duplicates, sessions that are in the calendar) and sorted
   by symbol and session; values become float32, null and infinite values become NaN, as in Qlib's
   storage.
2. Each symbol is laid on the calendar from its listing to its last bar; sessions in between
   without a bar are rows of NaN. Symbols stand one behind the other in blocks that fit into the
   processor's cache, each after empty rows, so that all later steps are array operations along
   time that need to know no symbol.
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
was first listed.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from quant_assets.features.alpha158_block import Block, columns
from quant_assets.features.alpha158_formulas import LOOKBACK, NAMES
from quant_assets.features.window_lattice import PAD
from quant_resources.errors import DataError

VALUES: Final = ("open", "high", "low", "close", "volume", "vwap")
"""Columns of bars that the features are computed from."""

BLOCK_ROWS: Final = 20_000
"""Rows of one block: a few dozen arrays of this length stay in the second-level cache."""


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
    frame = _checked(bars)
    wanted = frame.filter("wanted").select("symbol", "session")
    result = np.empty((len(NAMES), wanted.height), dtype=np.float32)
    if wanted.height:
        blocks = _blocks(frame, _covering(calendar, frame))
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            list(pool.map(lambda block: _write(block, result), blocks))
    features = pa.table(
        {
            name: pa.Array.from_buffers(pa.float32(), wanted.height, [None, pa.py_buffer(values)])
            for name, values in zip(NAMES, result, strict=True)
        }
    )
    return wanted.hstack(pl.DataFrame(features))


def _checked(bars: pl.DataFrame) -> pl.DataFrame:
    """Sentence 1: the frame sorted, its values float32, or a clear refusal."""
    missing = [name for name in ("symbol", "session", *VALUES) if name not in bars.columns]
    if missing:
        raise DataError(f"alpha158 needs columns that the bars do not have: {', '.join(missing)}.")
    keys = ["symbol", *(name for name in ("session", "first_session") if name in bars.columns)]
    for name in keys[1:]:
        if bars.height and bars.schema[name] != pl.Date:
            raise DataError(f"alpha158 needs {name} as Date, not {bars.schema[name]}: cast it.")
    for name in VALUES:
        dtype = bars.schema[name]
        if bars.height and not dtype.is_numeric() and dtype != pl.Null:
            raise DataError(f"alpha158 needs {name} as a number, not {dtype}: cast it.")
    keyless = bars.filter(pl.any_horizontal(pl.col(keys).is_null()))
    if keyless.height:
        raise DataError(
            f"alpha158 got {keyless.height} bars without {', '.join(keys)}, the first one "
            f"{keyless.row(0, named=True)}: repair or drop them."
        )
    value = pl.col(VALUES).cast(pl.Float32, strict=False).fill_null(np.nan)
    wanted = pl.col("wanted") if "wanted" in bars.columns else pl.lit(value=True).alias("wanted")
    frame = bars.select("symbol", pl.col(keys[1:]).cast(pl.Date), value, wanted)
    symbol, session = pl.col("symbol"), pl.col("session")
    same = symbol.eq_missing(symbol.shift())
    if not frame.select(
        ((same & (session > session.shift())) | (symbol > symbol.shift())).all()
    ).item():
        frame = frame.sort("symbol", "session")
        doubled = frame.filter(same & (session == session.shift()))
        if doubled.height:
            raise DataError(
                f"alpha158 got {doubled.height} bars twice, the first one of {doubled['symbol'][0]} on "
                f"{doubled['session'][0]}: keep one bar per symbol and session."
            )
    return frame


def _covering(calendar: Sequence[date] | None, frame: pl.DataFrame) -> NDArray[np.int32]:
    """The calendar as ascending days since 1970 that hold every session of the frame."""
    occurring = frame["session"].unique().sort()
    if calendar is None:
        return occurring.to_physical().to_numpy()
    sessions = pl.Series(calendar, dtype=pl.Date).unique().sort()
    foreign = occurring.filter(~occurring.is_in(sessions.implode()))
    if len(foreign):
        symbol = frame.filter(pl.col("session") == foreign[0])["symbol"][0]
        raise DataError(
            f"alpha158 got a bar of {symbol} on {foreign[0]}, which is no session of the calendar "
            f"({len(foreign)} such days): correct its date or pass the calendar of its market."
        )
    return sessions.to_physical().to_numpy()


def _blocks(frame: pl.DataFrame, calendar: NDArray[np.int32]) -> Iterator[Block]:
    """Sentence 2: lay each symbol on the calendar, and the symbols into blocks."""
    position = np.searchsorted(calendar, frame["session"].to_physical().to_numpy())
    bars_of = frame["symbol"].rle().struct.field("len").to_numpy().astype(np.int64)
    stop = np.cumsum(bars_of)
    start = stop - bars_of
    begin, listed_before = _spans(frame, calendar, position, start)
    length = PAD + 1 + position[stop - 1] - begin
    inputs = [frame[name].to_numpy() for name in VALUES]
    wanted = frame["wanted"].to_numpy()
    symbol = written = 0
    while symbol < len(start):
        fitting = np.searchsorted(np.cumsum(length[symbol:]), BLOCK_ROWS, side="right")
        some = slice(symbol, symbol + max(1, int(fitting)))
        symbol = some.stop
        offset = np.cumsum(length[some]) - length[some]
        bars = slice(int(start[some][0]), int(stop[some][-1]))
        rows = position[bars] + np.repeat(offset + PAD - begin[some], bars_of[some])
        total = int(length[some].sum())
        age = np.arange(total) - np.repeat(offset + PAD - 1, length[some])
        age += np.where(age > 0, np.repeat(listed_before[some], length[some]), 0)
        values: list[NDArray[Any]] = []
        for column in inputs:
            laid = np.full(total, np.nan, dtype=np.float32)
            laid[rows] = column[bars]
            laid[np.isinf(laid)] = np.nan
            values.append(laid)
        rows = rows[wanted[bars]]
        yield Block(*values, age=np.maximum(age, 0), rows=rows, first_result=written)
        written += len(rows)


def _spans(
    frame: pl.DataFrame,
    calendar: NDArray[np.int32],
    position: NDArray[np.int64],
    start: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Calendar position from which each symbol is laid out, and the sessions that it was listed before.

    A symbol begins with its listing, but no earlier than the windows of its first bar do. How
    long before the calendar a listing was is not known: a full window is assumed, which is right
    for every session whose window the calendar covers.
    """
    first = position[start]
    if "first_session" not in frame.columns:
        return first, np.zeros(len(start), dtype=np.int64)
    day = frame["first_session"].to_physical().to_numpy()[start]
    listing = np.searchsorted(calendar, day)
    early = np.flatnonzero(listing > first)
    if len(early):
        row = frame.row(int(start[early[0]]), named=True)
        raise DataError(
            f"alpha158 got a bar of {row['symbol']} on {row['session']}, before its first_session "
            f"{row['first_session']}: give each listing a symbol of its own or correct first_session."
        )
    begin = np.maximum(listing, first - LOOKBACK)
    return begin, begin - listing + np.where(day < calendar[0], LOOKBACK, 0)


def _write(block: Block, result: NDArray[np.float32]) -> None:
    """Sentences 3 to 6 for one block."""
    target = result[:, block.first_result : block.first_result + len(block.rows)]
    with np.errstate(all="ignore"):
        for name, values in columns(block):
            target[_ROW[name]] = values[block.rows]


_ROW: Final = {name: row for row, name in enumerate(NAMES)}
