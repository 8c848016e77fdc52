"""How far two computations of the same features are apart, column by column.

Belongs here: differences as numbers. Does not belong here: where the two frames come from, and what
difference is accepted (`test_alpha158.py`).
"""

import numpy as np
import polars as pl

RELATIVE = 1e-5
"""Relative difference that equality with Qlib means."""


def column_differences(ours: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """Compare two frames of features that have the same rows in the same order.

    Args:
        ours: symbol, session and feature columns.
        other: The same keys and columns from another computation.

    Returns:
        One row per column: name, `values` (rows with a value on both sides), `nan_differs` (rows with a
        value on one side only), `relative` (the largest |a - b| / max(|a|, |b|)), `absolute` (the largest
        |a - b|), `beyond` (rows whose relative difference exceeds `RELATIVE`) and `beyond_absolute` (the
        largest |a - b| of those).

    Raises:
        ValueError: The keys of the rows differ.
    """
    keys = ["symbol", "session"]
    if not ours.select(keys).equals(other.select(keys)):
        raise ValueError("Both frames must have the same symbols and sessions in the same order.")
    rows = []
    for name in ours.columns[len(keys) :]:
        mine, theirs = (frame[name].to_numpy().astype(np.float64) for frame in (ours, other))
        absolute, relative = _differences(mine, theirs)
        both = ~np.isnan(mine) & ~np.isnan(theirs)
        beyond = relative > RELATIVE
        rows.append(
            {
                "name": name,
                "values": int(both.sum()),
                "nan_differs": int((np.isnan(mine) != np.isnan(theirs)).sum()),
                "relative": float(relative.max(initial=0.0)),
                "absolute": float(absolute.max(initial=0.0)),
                "beyond": int(beyond.sum()),
                "beyond_absolute": float(absolute[beyond].max(initial=0.0)),
            }
        )
    return pl.DataFrame(rows)


def values_beyond(ours: pl.DataFrame, **others: pl.DataFrame) -> pl.DataFrame:
    """List the values in which the computations are beyond `RELATIVE` of each other.

    Args:
        ours: symbol, session and feature columns.
        others: Other computations of the same rows by name.

    Returns:
        name, symbol, session, `ours` and a column per other computation; a row where any of them differs
        from ours, those with the largest absolute difference of their column first.
    """
    found = []
    for name in ours.columns[2:]:
        mine = ours[name].to_numpy().astype(np.float64)
        sides = {side: frame[name].to_numpy().astype(np.float64) for side, frame in others.items()}
        apart = [_differences(mine, side) for side in sides.values()]
        rows = np.flatnonzero(np.any([relative > RELATIVE for _, relative in apart], axis=0))
        size = np.max([absolute[rows] for absolute, _ in apart], axis=0)
        rows = rows[np.argsort(-size)]
        values = {side: values[rows] for side, values in {"ours": mine, **sides}.items()}
        found.append(
            ours[rows]
            .select(pl.lit(name).alias("name"), "symbol", "session")
            .with_columns(**values)
        )
    return pl.concat(found)


def _differences(mine: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Absolute and relative difference; 0 where both are the same or either is NaN."""
    comparable = ~np.isnan(mine) & ~np.isnan(theirs) & (mine != theirs)
    absolute, relative = np.zeros(len(mine)), np.zeros(len(mine))
    one, two = mine[comparable], theirs[comparable]
    absolute[comparable] = np.abs(one - two)
    largest = np.maximum(np.abs(one), np.abs(two))
    # An infinite value on one side alone is infinitely far, not undefined.
    share = np.full(len(one), np.inf)
    np.divide(absolute[comparable], largest, out=share, where=np.isfinite(largest))
    relative[comparable] = share
    return absolute, relative
