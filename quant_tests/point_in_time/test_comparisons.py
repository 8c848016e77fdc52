"""What counts as the same value of two computations, and how a difference is named."""

from __future__ import annotations

import math
from datetime import date

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_assets.point_in_time.comparisons import ROW, differences, differing_rows
from quant_resources.tables import Column, Table

DAY = date(2024, 6, 3)
COLUMNS = (
    Column("session", pl.Date, "Session"),
    Column("symbol", pl.String, "Ticker"),
    Column("exact", pl.Float64, "A double", nullable=True),
    Column("single", pl.Float32, "A single", nullable=True),
    Column("count", pl.Int64, "A count", nullable=True),
    Column("word", pl.String, "A word", nullable=True),
)
TABLE = Table("features", "made_up", "session", "Made for a test.", COLUMNS, ("session", "symbol"))
KEYLESS = Table("features", "repeated", "session", "Made for a test.", COLUMNS, ())


def frame(**columns: list[object]) -> pl.DataFrame:
    count = len(next(iter(columns.values())))
    given_columns = {
        "session": [DAY] * count,
        "symbol": [f"S{number}" for number in range(count)],
        "exact": [1.0] * count,
        "single": [1.0] * count,
        "count": [1] * count,
        "word": ["a"] * count,
        **columns,
    }
    return pl.DataFrame(given_columns, schema=TABLE.schema)


@pytest.mark.parametrize(
    ("column", "value", "other", "same"),
    [
        ("exact", 100.0, 100.0 * (1 + 1e-10), True),
        ("exact", 100.0, 100.0 * (1 + 1e-8), False),
        ("single", 100.0, 100.0 * (1 + 2e-6), True),
        ("single", 100.0, 100.0 * (1 + 1e-4), False),
        ("exact", math.nan, math.nan, True),
        ("exact", None, None, True),
        ("exact", None, math.nan, False),
        ("exact", math.nan, 1.0, False),
        ("exact", None, 1.0, False),
        ("exact", math.inf, math.inf, True),
        ("exact", math.inf, -math.inf, False),
        ("exact", math.inf, 1.0, False),
        ("exact", 0.0, -0.0, True),
        ("count", 1, 2, False),
        ("count", 1, None, False),
        ("word", "a", "b", False),
        ("word", None, None, True),
    ],
)
def test_values(column: str, value: object, other: object, same: bool) -> None:
    # Beside ordinary values, so that the size of the column is known.
    one, two = (
        frame(**{column: [value, *_usual(column)]}),
        frame(**{column: [other, *_usual(column)]}),
    )
    found = differences(TABLE, one, two)
    assert found.is_empty() == same
    if not same:
        assert found.select("session", "symbol", "column").rows() == [(DAY, "S0", column)]


def _usual(column: str) -> list[object]:
    return {"word": ["x", "y"], "count": [5, 7]}.get(column, [5.0, 7.0])


def test_what_cancels_to_nothing_may_keep_the_rounding_of_what_cancelled() -> None:
    one = frame(exact=[5.0, 7.0, 1e-13])
    assert differences(TABLE, one, frame(exact=[5.0, 7.0, -1e-13])).is_empty()
    assert differences(TABLE, one, frame(exact=[5.0, 7.0, 1e-9])).height == 1


def test_a_difference_names_session_symbol_column_and_both_values() -> None:
    found = differences(
        TABLE,
        frame(exact=[1.0, 2.5], word=["a", None]),
        frame(exact=[1.0, 2.0], word=["a", "z"]),
        ("stored", "alone"),
    )
    assert found.rows(named=True) == [
        {"session": DAY, "symbol": "S1", "column": "exact", "stored": "2.5", "alone": "2.0"},
        {"session": DAY, "symbol": "S1", "column": "word", "stored": "missing", "alone": "z"},
    ]
    assert differing_rows(TABLE, found) == 1


def test_rows_of_one_side_alone_and_their_order() -> None:
    whole = frame(exact=[1.0, 2.0, 3.0])
    assert differences(TABLE, whole, whole.reverse()).is_empty()
    found = differences(TABLE, whole.head(2), whole.tail(2))
    assert found.select("symbol", "column", "one", "other").rows() == [
        ("S0", ROW, "a row", "no row"),
        ("S2", ROW, "no row", "a row"),
    ]
    assert differences(TABLE, TABLE.empty(), TABLE.empty()).is_empty()
    assert differences(TABLE, whole, TABLE.empty()).height == 3


def test_a_table_without_a_key_may_repeat_rows() -> None:
    once = frame(exact=[1.0])
    twice = pl.concat([once, once])
    assert differences(KEYLESS, twice, twice).is_empty()
    found = differences(KEYLESS, twice, once)
    assert found["column"].to_list() == [ROW]
    assert found.columns == [*TABLE.schema, "column", "one", "other"]


@given(st.lists(st.one_of(st.none(), st.floats(width=32)), min_size=1, max_size=12), st.data())
def test_a_changed_value_is_found_whatever_stands_beside_it(
    values: list[float | None], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(values) - 1))
    one = frame(count=list(range(len(values))), single=list(values), exact=list(values))
    assert differences(TABLE, one, one.sample(fraction=1.0, shuffle=True, seed=3)).is_empty()
    changed = pl.int_range(pl.len()) == place
    other = one.with_columns(count=pl.when(changed).then(-1).otherwise("count").cast(pl.Int64))
    assert differences(TABLE, one, other)["symbol"].to_list() == [f"S{place}"]
