"""Whether a session's features look like those of a training window.

Belongs here: comparing one cross-section with earlier ones. Does not belong here: which sessions a
model was trained on (`models/drift_checks.py`), and holes that no history excuses (`checks.py`).

1. Of every column and session three numbers are taken over the securities: the share that is
   missing, the median, and the width from the 10 % to the 90 % quantile (its logarithm is compared).
2. The session's numbers are compared with those that the window's sessions had, one by one. A
   comparison with all the window's values in one pot (the usual population stability index over
   deciles) judges a session as if its securities were independent, but the market moves them
   together: of stationary sessions half the columns exceed the index's usual limit of 0.25.
3. The distance is 0 at the median of the window's sessions and 1 at their 1 % or 99 % quantile,
   whichever lies on that side. What hardly ever varies is given some room: `_ROOM`.
4. A column has drifted where a distance exceeds `LIMIT`. A missing share counts only above what was
   usual: fewer holes are no harm.

Measured on Alpha158: of the sessions of three stationary generated markets with fat tails (100
securities, 219 sessions each) 3 to 4 % have a column beyond the limit, of the demo's 2 %, of 500 real
shares in 2016 and 2017 6 %, nearly all of them for rows that the vendor had not sent. A constant
column is found in 99 of 100 cases, one that is half missing always, one moved by 5 standard
deviations in 76 to 98, one whose values are doubled in 59 to 79.
"""

from collections.abc import Sequence
from datetime import date
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

LIMIT: Final = 3.5
"""Distance beyond which a column has drifted."""

SAMPLED_SESSIONS: Final = 63
"""Sessions of the window that are compared with, evenly spread: neighbours say much the same."""

FEWEST_VALUES: Final = 5
"""Securities with a value that a median and a width are taken of."""

MISSING, MEDIAN, WIDTH = "missing share", "median", "10-90 % width"

_LOWEST, _HIGHEST = 0.01, 0.99
_ROOM: Final = {MISSING: 0.02, MEDIAN: 0.1, WIDTH: 0.1}
"""Smallest unit of distance: rows, usual widths, logarithm of the width."""

_NARROWEST: Final = 1e-3
"""Width, as a share of the usual one, below which a column counts as constant."""

_FARTHEST: Final = 1000.0
"""What never varied is as far away as a table can show."""

_TINY: Final = 1e-12

_SCHEMA: Final = {
    "column": pl.String,
    "aspect": pl.String,
    "session": pl.Float64,
    "usual_low": pl.Float64,
    "usual": pl.Float64,
    "usual_high": pl.Float64,
    "distance": pl.Float64,
}


def sampled(sessions: Sequence[date]) -> list[date]:
    """At most `SAMPLED_SESSIONS` of the sessions, evenly spread, the first and the last included."""
    places = np.linspace(0, len(sessions) - 1, min(len(sessions), SAMPLED_SESSIONS))
    return [sessions[place] for place in places.round().astype(int)]


def distances(judged: pl.DataFrame, window: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """How far a session's columns lie from what a window's sessions had.

    Args:
        judged: session and the columns (numbers), rows of one session.
        window: The same of the sessions to compare with, none of them later.
        columns: The columns to judge.

    Returns:
        One row per column and aspect that can be judged, the farthest first: column, aspect
        (missing share, median or width), its value in the session, its 1 %, 50 % and 99 % quantiles
        over the window's sessions, and the distance (see the module). Without a row: a median or a
        width that the session or more than half of the window's sessions do not have, and the width
        of a column that was constant.
    """
    if judged.is_empty() or window.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    names = list(columns)
    here, before = _aspects(judged, names), _aspects(window, names)
    width = _quantiles(before[WIDTH], names)
    compared = [
        _compared(names, aspect, here[aspect], before[aspect], width[1])
        for aspect in (MISSING, MEDIAN, WIDTH)
    ]
    found = pl.concat(compared).filter(pl.col("distance").is_not_nan())
    return found.sort("distance", descending=True, maintain_order=True)


def _aspects(frame: pl.DataFrame, names: list[str]) -> dict[str, pl.DataFrame]:
    """Aspect to its value in every session (rows) and column; null where there are too few values."""
    values = pl.col(names).cast(pl.Float64)
    known = pl.when(values.is_finite()).then(values)
    enough = known.count() >= FEWEST_VALUES
    width = known.quantile(0.9, "linear") - known.quantile(0.1, "linear")
    by_session = frame.group_by("session")
    return {
        MISSING: by_session.agg(known.is_null().mean()),
        MEDIAN: by_session.agg(pl.when(enough).then(known.median())),
        WIDTH: by_session.agg(pl.when(enough).then(width)),
    }


def _compared(
    names: list[str],
    aspect: str,
    here: pl.DataFrame,
    before: pl.DataFrame,
    usual_width: NDArray[np.float64],
) -> pl.DataFrame:
    value = here.select(names).to_numpy()[0].astype(np.float64)
    low, usual, high = _quantiles(before, names)
    if aspect == WIDTH:
        narrowest = _NARROWEST * np.where(usual_width > 0, usual_width, np.nan)
        place, centre, bottom, top = (
            np.log(np.maximum(width, narrowest)) for width in (value, usual, low, high)
        )
        room = np.full(len(names), _ROOM[WIDTH])
    else:
        place, centre, bottom, top = value, usual, low, high
        # A column that was the same everywhere has no width; rounding is no drift.
        scale = np.fmax(usual_width, 1e-5 * np.abs(usual)) if aspect == MEDIAN else 1.0
        room = _ROOM[aspect] * scale * np.ones(len(names)) + _TINY
    above = (place - centre) / np.maximum(top - centre, room)
    below = (centre - place) / np.maximum(centre - bottom, room)
    return pl.DataFrame(
        {
            "column": names,
            "aspect": [aspect] * len(names),
            "session": value,
            "usual_low": low,
            "usual": usual,
            "usual_high": high,
            "distance": np.minimum(
                above if aspect == MISSING else np.maximum(above, below), _FARTHEST
            ),
        },
        schema=_SCHEMA,
    )


def _quantiles(aspect: pl.DataFrame, names: list[str]) -> NDArray[np.float64]:
    """Lowest, median and highest usual value of each column; NaN where half the sessions have none."""
    often = pl.col(names).count() * 2 >= pl.len()
    rows = [
        aspect.select(pl.when(often).then(pl.col(names).quantile(level, "linear")))
        for level in (_LOWEST, 0.5, _HIGHEST)
    ]
    return pl.concat(rows).to_numpy().astype(np.float64)
