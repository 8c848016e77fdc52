"""Two computations of the same rows of one table: where they differ. Pure.

Belongs here: what counts as the same value, and the frame that names what is not. Does not belong here:
which computations are compared (`detectors.py`).

Floats are the same within a relative tolerance of their type, counted from the larger of both values, and
a missing or undefined value (null, NaN) is the same as another of its kind. Where a column cancels to
almost nothing, the rounding of what cancelled remains: below a billionth of the column's usual size
values count as equal. Everything else must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from quant_resources.tables import Table

ROW: Final = "(row)"
"""What stands for the column's name where a row is only on one side."""
_RELATIVE: Final = {pl.Float32: 1e-5, pl.Float64: 1e-9}
_ROUNDING: Final = {pl.Float32: 1e-6, pl.Float64: 1e-12}
_PRESENT, _ABSENT = "a row", "no row"


def differences(
    table: Table,
    one: pl.DataFrame,
    other: pl.DataFrame,
    names: tuple[str, str] = ("one", "other"),
) -> pl.DataFrame:
    """Compare two frames of one table by its key.

    Args:
        table: Declaration of both; a table without a key is compared row by row as a whole.
        one: Rows.
        other: The same rows from another computation, in any order.
        names: What the two columns of values are called.

    Returns:
        One row per differing value, by key: the key's columns, `column`, and both values as text; a
        row that only one side has is one difference, of the column "(row)". Empty if all is equal.
    """
    key = list(table.key) or list(table.schema)
    if one.height == other.height and one.equals(other, null_equal=True):
        return _empty(table, key, names)
    if not table.key:
        one, other = _numbered(one, key), _numbered(other, key)
        key = [*key, _COPY]
    left, right = one.sort(key), other.sort(key)
    both = left.join(right, on=key, how="inner", suffix=_OTHER, nulls_equal=True).sort(key)
    found = [
        _one_sided(left, right, key, names, (_PRESENT, _ABSENT)),
        _one_sided(right, left, key, names, (_ABSENT, _PRESENT)),
        *(
            _differing(both, key, name, names)
            for name in table.schema
            if name not in key and both.height
        ),
    ]
    told = pl.concat(found).sort(key, maintain_order=True)
    return told.drop(_COPY, strict=False)


def differing_rows(table: Table, found: pl.DataFrame) -> int:
    """How many rows the differences are of."""
    key = [name for name in found.columns if name in (table.key or table.schema)]
    return found.select(key).n_unique() if found.height else 0


_OTHER: Final = "__other"
_COPY: Final = "__copy"


def _numbered(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    # Equal rows may repeat: the first of one side is the first of the other.
    return frame.with_columns(pl.int_range(pl.len()).over(columns).alias(_COPY))


def _one_sided(
    frame: pl.DataFrame,
    other: pl.DataFrame,
    key: list[str],
    names: tuple[str, str],
    texts: tuple[str, str],
) -> pl.DataFrame:
    return frame.join(other, on=key, how="anti", nulls_equal=True).select(
        *key,
        column=pl.lit(ROW),
        **{name: pl.lit(text) for name, text in zip(names, texts, strict=True)},
    )


def _differing(
    both: pl.DataFrame, key: list[str], name: str, names: tuple[str, str]
) -> pl.DataFrame:
    one, other = both.get_column(name), both.get_column(f"{name}{_OTHER}")
    apart = _floats_apart(one, other) if one.dtype.is_float() else one.ne_missing(other)
    rows = both.filter(apart) if apart.any() else both.clear()
    return rows.select(
        *key,
        column=pl.lit(name),
        **{
            told: pl.col(value).cast(pl.String).fill_null("missing")
            for told, value in zip(names, (name, f"{name}{_OTHER}"), strict=True)
        },
    )


def _floats_apart(one: pl.Series, other: pl.Series) -> pl.Series:
    kind = type(one.dtype)
    left, right = (_doubles(side) for side in (one, other))
    larger = np.maximum(np.abs(left), np.abs(right))
    usual = np.nanmedian(larger) if not np.isnan(larger).all() else 0.0
    with np.errstate(invalid="ignore"):
        gap = np.abs(left - right)
        apart = gap > np.maximum(_RELATIVE[kind] * larger, _ROUNDING[kind] * usual)
    # Infinite values have no gap; a missing value is neither near nor far.
    apart |= np.isinf(larger) & (left != right)
    apart |= np.isnan(left) != np.isnan(right)
    missing = one.is_null() != other.is_null()
    return pl.Series(apart) | missing


def _doubles(values: pl.Series) -> np.ndarray:
    return values.cast(pl.Float64).to_numpy()


def _empty(table: Table, key: list[str], names: tuple[str, str]) -> pl.DataFrame:
    texts = dict.fromkeys(("column", *names), pl.String)
    return pl.DataFrame(schema={**{name: table.schema[name] for name in key}, **texts})
