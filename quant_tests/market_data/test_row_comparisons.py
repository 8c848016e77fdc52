"""Rules on rows beside other rows: repeated, copied and impossible ones, and their harmless neighbours."""

from __future__ import annotations

from typing import Any

import pytest

from quant_tests.market_data.deliveries import SESSIONS, action, bar, gated, steady

CALM = [100.0 + 0.5 * (n % 3) for n in range(40)]


def rules(
    rows: list[dict[str, Any]], actions: list[dict[str, Any]] | None = None
) -> dict[tuple[str, int], str]:
    """Rule by symbol and place of the session."""
    result = gated(rows, actions or [])
    assert result.bars.height + result.quarantine.height == len(rows)
    return {
        (row["symbol"], SESSIONS.index(row["session"])): row["rule"]
        for row in result.quarantine.iter_rows(named=True)
    }


def test_repeated_row_is_stale_each_time() -> None:
    stuck = [bar("AAA", SESSIONS[at], CALM[39]) for at in (40, 41, 42)]
    fresh = bar("AAA", SESSIONS[43], 101.7)
    found = rules([*steady("AAA", CALM), *stuck, fresh])
    assert found == {("AAA", at): "stale_row" for at in (40, 41, 42)}


def test_stale_row_names_the_session_that_it_repeats() -> None:
    rows = [*steady("AAA", CALM), bar("AAA", SESSIONS[40], CALM[39])]
    assert str(SESSIONS[39]) in gated(rows).quarantine["detail"][0]


@pytest.mark.parametrize(
    "sent",
    [
        {"volume": 1_000_001.0},
        {"open": 99.7},
        {"open": 100.0, "high": 100.0, "low": 100.0},  # one price all day, as before
    ],
)
def test_nearly_repeated_row_is_kept(sent: dict[str, float]) -> None:
    before = bar("AAA", SESSIONS[0], 100.0) | (sent if "high" in sent else {})
    assert rules([before, bar("AAA", SESSIONS[1], 100.0, **sent)]) == {}


def other(volume: float = 3e5) -> list[dict[str, Any]]:
    return [
        row | {"volume": volume + n} for n, row in enumerate(steady("BBB", [c / 3 for c in CALM]))
    ]


def test_row_of_another_symbol_is_a_copy_and_the_original_stays() -> None:
    mixed = [row | {"symbol": "AAA"} for row in other()[20:23]]
    right = [row for row in steady("AAA", CALM) if row["session"] not in SESSIONS[20:23]]
    found = rules([*right, *mixed, *other()])
    assert found == {("AAA", at): "copied_row" for at in (20, 21, 22)}


def test_copy_of_a_symbol_of_nearly_the_same_price_is_found_too() -> None:
    near = [
        row | {"volume": 5e5 + n} for n, row in enumerate(steady("BBB", [c * 1.1 for c in CALM]))
    ]
    mixed = near[20] | {"symbol": "AAA"}
    right = [row for row in steady("AAA", CALM) if row["session"] != SESSIONS[20]]
    assert rules([*right, mixed, *near]) == {("AAA", 20): "copied_row"}


def test_two_symbols_that_are_always_alike_are_left_alone() -> None:
    """Old and new ticker of one company, both delivered: neither contradicts its own past."""
    rows = steady("AAA", CALM)
    assert rules([*rows, *(row | {"symbol": "AAB"} for row in rows)]) == {}


def test_volume_in_the_wrong_unit_is_found() -> None:
    rows = steady("AAA", CALM)
    rows[30] |= {"volume": 1e9}
    rows[35] |= {"volume": 9e7}  # an index change
    assert rules(rows) == {("AAA", 30): "volume_spike"}


def test_volume_that_a_split_or_the_news_explains_is_kept() -> None:
    rows = [*steady("AAA", CALM), *steady("AAA", [0.3, 0.31], start=40, volume=4e8)]
    assert rules(rows, [action("AAA", SESSIONS[40], "forward_split", ratio=300.0)]) == {}
    crashed = [*steady("AAA", CALM), *steady("AAA", [85.0], start=40, volume=4e8)]
    assert rules(crashed) == {}


def test_block_trade_in_a_symbol_that_hardly_trades_is_kept() -> None:
    rows = steady("AAA", CALM, volume=400.0)
    rows[30] |= {"volume": 3e6}
    assert rules(rows) == {}
