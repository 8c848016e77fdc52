"""How much of a feature table is missing.

Belongs here: shares of missing values, whatever form they have. Does not belong here: which share
is too much (`checks.py`).
"""

from collections.abc import Sequence

import polars as pl


def missing_shares(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Count what is missing.

    Args:
        frame: A feature table.
        columns: Its columns to look at, numbers or texts.

    Returns:
        `column` and `missing_share` (fraction of rows that are null, NaN or infinite, or of a
        text null or empty), in the order of `columns`; 0 where there are no rows.
    """
    undefined = [_undefined(frame.schema[name], pl.col(name)).mean() for name in columns]
    shares = frame.select(undefined).row(0) if frame.height else (0.0,) * len(columns)
    return pl.DataFrame(
        {"column": list(columns), "missing_share": list(shares)},
        schema={"column": pl.String, "missing_share": pl.Float64},
    )


def _undefined(dtype: pl.DataType, values: pl.Expr) -> pl.Expr:
    defined = values != "" if dtype == pl.String else values.is_finite()
    return defined.fill_null(value=False).not_()
