"""Two sources compared: what differs, what is none, what cannot be compared, and what a check says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_assets.market_data.schemas import SOURCE_DIFFERENCES
from quant_assets.market_data.source_checks import sources_agree
from quant_assets.market_data.source_differences import Tolerances, differences, unanswered
from quant_assets.table_checks import CheckScope
from quant_resources.store import Store
from quant_tests.market_data.deliveries import SESSIONS, bar, raw_frame

DAY, NEXT = SESSIONS[0], SESSIONS[1]
TOLERANCES = Tolerances(price=0.001, volume=0.05)


def compared(
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
    sessions: Sequence[date] = (DAY,),
    symbols: Sequence[str] = ("A", "B"),
    second_source: str = "other",
) -> pl.DataFrame:
    found = differences(
        raw_frame(first), raw_frame(second), second_source, sessions, symbols, tolerances=TOLERANCES
    )
    SOURCE_DIFFERENCES.conform(found)
    return found


def test_what_is_within_the_tolerance_is_no_difference() -> None:
    near = bar("A", DAY, 100.09, open=100.0, high=101.0, low=99.0, volume=1_040_000.0)
    assert compared([bar("A", DAY, 100.0)], [near]).is_empty()


def test_what_is_beyond_is_told_field_by_field() -> None:
    far = bar("A", DAY, 100.2, open=100.0, high=101.0, low=98.0, volume=2_000_000.0)
    found = compared([bar("A", DAY, 100.0)], [far])
    assert found.select("symbol", "field", "value", "other_value", "tolerance").rows() == [
        ("A", "close", 100.0, 100.2, 0.001),
        ("A", "low", 99.0, 98.0, 0.001),
        ("A", "volume", 1_000_000.0, 2_000_000.0, 0.05),
    ]
    assert found["relative_difference"].to_list() == pytest.approx([0.002, 1 / 99, 1.0], rel=1e-12)
    assert found.select("source", "other_source").unique().rows() == [("test", "other")]


def test_a_bar_that_one_of_them_lacks_differs_in_presence() -> None:
    found = compared([bar("A", DAY, 10.0)], [bar("B", DAY, 10.0)])
    assert found.select("symbol", "field", "value", "other_value").rows() == [
        ("A", "presence", 1.0, 0.0),
        ("B", "presence", 0.0, 1.0),
    ]
    assert found["source"].to_list() == ["test", "test"]


def test_only_what_was_asked_and_answered_is_compared() -> None:
    first = [bar("A", DAY, 10.0), bar("A", NEXT, 10.0), bar("C", DAY, 10.0)]
    assert compared(first, [bar("A", DAY, 10.0), bar("D", DAY, 1.0)]).is_empty()


def test_values_that_were_not_sent_and_zeros() -> None:
    """A hole is the gate's to judge; a volume of zero has no ratio but differs from any other."""
    first = [bar("A", DAY, 10.0, volume=0.0, open=None), bar("B", DAY, 10.0, low=float("nan"))]
    second = [bar("A", DAY, 10.0, volume=5.0), bar("B", DAY, None, open=10.0, high=10.1)]
    found = compared(first, second)
    assert found.select(
        "symbol", "field", "value", "other_value", "relative_difference"
    ).rows() == [("A", "volume", 0.0, 5.0, None)]


def test_a_repeated_row_counts_once() -> None:
    first = [bar("A", DAY, 10.0), bar("A", DAY, 20.0)]
    assert compared(first, [bar("A", DAY, 10.0)]).is_empty()


@pytest.mark.parametrize(("one", "other"), [("alpaca/iex", "other"), ("test", "alpaca/iex")])
def test_the_volume_of_a_single_venue_is_not_compared(one: str, other: str) -> None:
    first = [bar("A", DAY, 10.0, volume=20_000.0, source=one)]
    second = [bar("A", DAY, 11.0)]
    found = compared(first, second, second_source=other)
    assert set(found["field"]) == {"open", "high", "low", "close"}


@given(
    closes=st.lists(st.floats(0.01, 1e5), min_size=1, max_size=20),
    errors=st.lists(st.floats(-0.01, 0.01), min_size=20, max_size=20),
)
def test_exactly_the_closes_beyond_the_tolerance_are_told(
    closes: list[float], errors: list[float]
) -> None:
    first = [bar(f"S{n}", DAY, close) for n, close in enumerate(closes)]
    second = [row | {"close": row["close"] * (1 + errors[n])} for n, row in enumerate(first)]
    found = compared(first, second, symbols=[row["symbol"] for row in first])
    beyond = {
        row["symbol"]
        for row, other in zip(first, second, strict=True)
        if abs(row["close"] - other["close"]) / row["close"] > TOLERANCES.price
    }
    assert set(found["symbol"]) == beyond
    assert set(found["field"]) <= {"close"}


def scope(tmp_path: Path) -> CheckScope:
    nobody = cast("Any", None)
    return CheckScope([str(DAY), str(NEXT)], Store(tmp_path), nobody, nobody)


def test_the_check_names_the_worst_and_what_to_do(tmp_path: Path) -> None:
    first = [bar("A", DAY, 10.0), bar("B", NEXT, 10.0)]
    second = [bar("A", DAY, 10.1), bar("B", NEXT, 20.0)]
    found = sources_agree(compared(first, second, (DAY, NEXT)), scope(tmp_path))
    assert not found.passed
    assert found.count == 8
    assert f"B on {NEXT} (10 against 20)" in found.message
    assert "2 symbol(s) and 2 session(s)" in found.message
    assert "QUANT_SECOND_SOURCE_TOLERANCE" in found.remedy
    assert sources_agree(compared(first, first, (DAY, NEXT)), scope(tmp_path)).passed


def test_silence_is_not_agreement(tmp_path: Path) -> None:
    silent = SOURCE_DIFFERENCES.conform(unanswered([DAY, NEXT], "test", "other"))
    found = sources_agree(silent, scope(tmp_path))
    assert not found.passed
    assert f"other gave no usable answer for 2 session(s), such as {DAY}" in found.message
    both = pl.concat([silent, compared([bar("A", DAY, 10.0)], [bar("A", DAY, 11.0)])])
    assert "differ in 4 value(s)" in sources_agree(both, scope(tmp_path)).message
