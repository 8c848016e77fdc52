"""The parity report's comparison finds what differs, and real Qlib agrees where an interpreter with it is named."""

import os
from pathlib import Path

import polars as pl
import pytest

from quant_assets.features.alpha158 import alpha158
from quant_tests.oracles.alpha158_reference import weekdays
from quant_tests.oracles.parity import column_differences, values_beyond
from quant_tests.oracles.parity_report import irregular_markets, qlib_alpha158

CALENDAR = weekdays(150)
QLIB_PYTHON = os.environ.get("QUANT_QLIB_PYTHON")
ROUNDING_OF_ZERO = {"STD": 1e-7, "RESI": 1e-14}
"""What is left where the exact result is 0; WVMA divides it by 1e-12 and has no bound of its own."""


def test_differences_are_found_where_they_are() -> None:
    nan, inf = float("nan"), float("inf")
    keys = pl.DataFrame({"symbol": list("ABCDE"), "session": CALENDAR[:5]})
    ours = keys.with_columns(MA5=pl.Series([1.0, 2.0, nan, 0.0, inf]), STD5=pl.lit(3.0))
    other = keys.with_columns(MA5=pl.Series([1.0, 2.0002, 4.0, -0.0, inf]), STD5=pl.lit(3.0))
    moved, same = column_differences(ours, other).iter_rows(named=True)
    assert moved["values"] == 4
    assert moved["nan_differs"] == 1
    assert moved["beyond"] == 1
    assert moved["relative"] == pytest.approx(1e-4, rel=1e-3)
    assert moved["absolute"] == moved["beyond_absolute"] == pytest.approx(2e-4)
    assert (same["relative"], same["beyond"], same["nan_differs"]) == (0.0, 0, 0)
    found = values_beyond(ours, slow=other)
    assert found.rows() == [("MA5", "B", CALENDAR[1], 2.0, 2.0002)]


def test_an_infinite_value_on_one_side_is_a_difference() -> None:
    keys = pl.DataFrame({"symbol": ["A"], "session": CALENDAR[:1]})
    found = column_differences(keys.with_columns(X=float("inf")), keys.with_columns(X=1.0))
    assert found["beyond"].item() == 1


def test_rows_that_do_not_belong_together_are_refused() -> None:
    keys = pl.DataFrame({"symbol": ["A", "B"], "session": CALENDAR[:2], "X": [1.0, 2.0]})
    with pytest.raises(ValueError, match="same symbols and sessions"):
        column_differences(keys, keys.reverse())


@pytest.mark.skipif(not QLIB_PYTHON, reason="QUANT_QLIB_PYTHON names no interpreter with pyqlib")
def test_qlib_itself_says_the_same() -> None:
    bars = irregular_markets(CALENDAR, 2)
    _, theirs = qlib_alpha158(Path(str(QLIB_PYTHON)), bars, CALENDAR)
    ours = alpha158(bars, CALENDAR)
    aligned = ours.select("symbol", "session").join(
        theirs, on=["symbol", "session"], how="left", maintain_order="left"
    )
    found = column_differences(ours, aligned)
    assert found["nan_differs"].sum() == 0
    beyond = found.filter(pl.col("beyond") > 0)
    for row in beyond.iter_rows(named=True):
        group = row["name"].rstrip("0123456789")
        if group != "WVMA":
            assert row["beyond_absolute"] <= ROUNDING_OF_ZERO.get(group, 0.0), row
    disputed = values_beyond(ours, qlib=aligned).filter(pl.col("name").str.starts_with("WVMA"))
    assert (disputed["ours"] == 0).all(), disputed
