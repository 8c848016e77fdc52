"""Bars laid on the calendar in blocks, which is all that Alpha158's arithmetic sees of a frame.

Belongs here: which row of which block a bar becomes. Does not belong here: checking the frame
(`alpha158.py`), what is computed from a block (`alpha158_block.py`).

1. A security is laid out from its listing to its last bar, but no earlier than the windows of its
   first bar begin; sessions in between without a bar are rows of NaN.
2. Securities are dealt to blocks of about `BLOCK_ROWS` rows, in their order, so that the bars of a
   block, and its rows of the result, are slices.
3. In a block they stand one behind the other, each after `LOOKBACK` empty rows, or side by side,
   ending in the same row. The first is written fastest, the second needs no empty rows: long
   histories stand one behind the other, the windows of a single session side by side. Both give
   the same values to the bit.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from quant_assets.features.alpha158_block import Block
from quant_assets.features.alpha158_formulas import LOOKBACK

VALUES: Final = ("open", "high", "low", "close", "volume", "vwap")
"""Columns of bars that the features are computed from."""

BLOCK_ROWS: Final = 20_000
"""Rows of one block: a few dozen arrays of this length stay in the second-level cache."""

SCATTERED: Final = 0.2
"""What a wanted row costs more where securities stand side by side, in rows of computing."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class BlockLayout:
    """A frame sorted by symbol and session, and where its bars stand.

    Attributes:
        values: The columns of `VALUES`.
        wanted: Whether a bar's features are wanted.
        position: Number of each bar's session in the calendar.
        start: First bar of each security.
        stop: Bar after its last one.
        begin: Calendar position of the first row of each security.
        listing: Calendar position of its listing.
    """

    values: tuple[NDArray[np.floating], ...]
    wanted: NDArray[np.bool_]
    position: Numbers
    start: Numbers
    stop: Numbers
    begin: Numbers
    listing: Numbers

    @classmethod
    def of(cls, frame: pl.DataFrame, calendar: NDArray[np.int32]) -> "BlockLayout":
        """Place the bars.

        Args:
            frame: symbol, session, wanted and the columns of `VALUES` (floats, null where not
                observed), not empty, unique and sorted by symbol and session; first_session, not
                after the first bar, where listings are known.
            calendar: Ascending days since 1970 that hold every session of the frame.
        """
        position_of_day = np.zeros(calendar[-1] - calendar[0] + 1, dtype=np.int64)
        position_of_day[calendar - calendar[0]] = np.arange(len(calendar))
        position = position_of_day[frame["session"].to_physical().to_numpy() - calendar[0]]
        stop = np.cumsum(frame["symbol"].rle().struct.field("len").to_numpy(), dtype=np.int64)
        start = np.append(0, stop[:-1])
        listing = _listings(frame, calendar, position, start)
        return cls(
            tuple(frame[name].fill_null(np.nan).to_numpy() for name in VALUES),
            frame["wanted"].to_numpy(),
            position,
            start,
            stop,
            np.maximum(np.maximum(listing, position[start] - LOOKBACK), 0),
            listing,
        )

    @cached_property
    def _length(self) -> Numbers:
        return self.position[self.stop - 1] - self.begin + 1

    @cached_property
    def _written(self) -> Numbers:
        """Wanted bars of the securities before each one."""
        count = np.add.reduceat(self.wanted, self.start, dtype=np.int64)
        return np.cumsum(count) - count

    def parts(self) -> list[slice]:
        """Deal the securities to blocks of about equal numbers of rows; those without a wanted bar are left out."""
        before = np.cumsum(self._length) - self._length
        rows = int(self._length.sum())
        block = before * -(-rows // BLOCK_ROWS) // rows
        first = np.flatnonzero(np.diff(block, prepend=-1)).tolist()
        written = [*self._written.tolist(), int(self.wanted.sum())]
        edges = zip(first, [*first[1:], len(block)], strict=True)
        return [slice(a, b) for a, b in edges if written[a] < written[b]]

    def block(self, some: slice) -> Block:
        """Lay out some securities."""
        bars = slice(int(self.start[some][0]), int(self.stop[some][-1]))
        position, wanted = self.position[bars], self.wanted[bars]
        length, begin, listing = self._length[some], self.begin[some], self.listing[some]
        end, securities = begin + length, len(length)
        security = np.repeat(np.arange(securities), (self.stop - self.start)[some])
        # Side by side, what lies before the windows of the first wanted rows is left out.
        longest = LOOKBACK + int((end[security] - position)[wanted].max(initial=0))
        stacked = (LOOKBACK + length).sum()
        if securities * longest + SCATTERED * wanted.sum() < stacked:
            shape: tuple[int, ...] = (longest, securities)
            origin = end - longest
            row = (position - origin[security]) * securities + security
            place = np.arange(longest)[:, np.newaxis] + origin
        else:
            shape = (int(stacked),)
            origin = end - np.cumsum(LOOKBACK + length)
            row = position - origin[security]
            owner = np.repeat(np.arange(securities), LOOKBACK + length)
            place = np.arange(stacked) + origin[owner]
            begin, listing = begin[owner], listing[owner]
        age = np.where(place >= begin, place - listing + 1, 0).astype(np.float32)
        kept = row[wanted] - LOOKBACK * math.prod(shape[1:])
        first = int(self._written[some][0])
        needed = bars if row.min() >= 0 else bars.start + np.flatnonzero(row >= 0)
        return Block(
            *(_laid(column[needed], row[row >= 0], shape) for column in self.values),
            age=age,
            wanted=kept,
            results=slice(first, first + len(kept)),
        )


def _laid(values: NDArray[Any], row: Numbers, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One column on the rows of a block, as float32; infinite values count as missing."""
    laid = np.full(shape, np.nan, dtype=np.float32)
    with np.errstate(over="ignore"):
        laid.reshape(-1)[row] = values
    np.copyto(laid, np.nan, where=np.isinf(laid))
    return laid


def _listings(
    frame: pl.DataFrame, calendar: NDArray[np.int32], position: Numbers, start: Numbers
) -> Numbers:
    """Calendar position of each symbol's listing: its first_session, or else its first bar.

    How long before the calendar a listing was is not known: a full window is assumed, which is
    right for every session whose window the calendar covers.
    """
    if "first_session" not in frame.columns:
        return position[start]
    day = frame["first_session"].to_physical().to_numpy()[start]
    return np.where(day < calendar[0], -LOOKBACK, np.searchsorted(calendar, day))
