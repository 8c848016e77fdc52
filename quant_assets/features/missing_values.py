"""How much of a feature table is missing.

Belongs here: shares of missing values, null and NaN alike. Does not belong here: which share is
too much (`checks.py`).
"""

from collections.abc import Sequence

import polars as pl


def missing_shares(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Count what is missing.

    Args:
        frame: A feature table.
        columns: Its numeric columns to look at.

    Returns:
        `column` and `missing_share` (fraction of rows that are null, NaN or infinite), in the
        order of `columns`; 0 where there are no rows.
    """
    undefined = pl.col(columns).is_finite().fill_null(value=False).not_()
    shares = frame.select(undefined.mean()).fill_null(0.0)
    return shares.transpose(
        include_header=True, header_name="column", column_names=["missing_share"]
    )
