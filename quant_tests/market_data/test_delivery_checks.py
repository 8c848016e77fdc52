"""What a delivery shows over many rows: adjusted prices declared raw, volumes, levels that wait."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from quant_assets.market_data import delivery_checks as checks
from quant_assets.market_data.adjusted_prices import dividend_slope, splits_followed
from quant_assets.market_data.schemas import BARS, CORPORATE_ACTIONS, QUARANTINE, RAW_BARS
from quant_assets.table_checks import CheckScope, Finding
from quant_resources.store import Store
from quant_resources.tables import Table
from quant_tests.market_data.deliveries import (
    SESSIONS,
    action,
    action_frame,
    bar,
    gated,
    raw_frame,
)

SYMBOLS = [f"S{number:02d}" for number in range(40)]
SPAN = SESSIONS[:60]
#: Every symbol pays 1 % every tenth session or so, and four of them split.
SPLITS = {"S00": (20, 2.0), "S01": (25, 3.0), "S02": (30, 0.1), "S03": (50, 1.5)}
YIELD = 0.01


def market(prices: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A random market as a vendor delivers it: raw, or adjusted for splits, or for dividends too."""
    random = np.random.default_rng(5)
    rows: list[dict[str, Any]] = []
    facts: list[dict[str, Any]] = []
    for number, symbol in enumerate(SYMBOLS):
        close = 50.0 + number
        for at, session in enumerate(SPAN):
            before, close = close, close * float(np.exp(random.normal(0, 0.01)))
            if at and (at + number) % 10 == 0:
                facts.append(action(symbol, session, "cash_dividend", cash=before * YIELD))
                close -= before * YIELD if prices != "adjusted" else 0.0
            when, ratio = SPLITS.get(symbol, (None, 1.0))
            if at == when:
                kind = "forward_split" if ratio > 1 else "reverse_split"
                facts.append(action(symbol, session, kind, ratio=ratio))
                close /= ratio if prices == "raw" else 1.0
            rows.append(bar(symbol, session, close, volume=1e6 + 1000 * ((at * 7 + number) % 11)))
    return rows, facts


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def scope_of(store: Store, sessions: list[date]) -> CheckScope:
    nobody = cast("Any", None)
    return CheckScope([str(session) for session in sessions], store, nobody, nobody)


def deliver(store: Store, rows: list[dict[str, Any]], facts: list[dict[str, Any]]) -> None:
    result = gated(rows, facts)
    sessions = sorted({row["session"] for row in rows})
    keys = [str(session) for session in sessions]
    found: list[tuple[Table, pl.DataFrame]] = [
        (RAW_BARS, raw_frame(rows)),
        (CORPORATE_ACTIONS, action_frame(facts)),
        (QUARANTINE, result.quarantine.filter(pl.col("session").is_in(sessions))),
        (BARS, result.bars.filter(pl.col("session").is_in(sessions))),
    ]
    for table, frame in found:
        store.write(table, frame, keys)


def check(function: Any, store: Store, table: Table, sessions: list[date]) -> Finding:
    frame = store.read(table, [str(session) for session in sessions]).collect()
    return function(frame, scope_of(store, sessions))


def test_raw_prices_are_as_traded(store: Store) -> None:
    deliver(store, *market("raw"))
    found = check(checks.prices_as_traded, store, BARS, SPAN)
    assert found.passed, found.message
    assert "4 of 4 splits followed" in found.message
    assert check(checks.splits_followed, store, BARS, SPAN).passed


@pytest.mark.parametrize("prices", ["split_adjusted", "adjusted"])
def test_adjusted_prices_declared_raw_are_found_by_their_splits(store: Store, prices: str) -> None:
    deliver(store, *market(prices))
    found = check(checks.prices_as_traded, store, BARS, SPAN)
    assert not found.passed
    assert found.message.startswith("Prices come adjusted: 4 of 4 splits")
    assert f"S00 on {SESSIONS[20]} (2 for 1)" in found.message
    assert "adjusted" in found.remedy
    rejected = gated(*market(prices)).quarantine
    assert rejected["symbol"].to_list() == ["S00", "S01", "S02", "S03"]
    assert set(rejected["rule"]) == {"action_not_followed"}


def test_prices_adjusted_for_dividends_are_found_without_a_split(store: Store) -> None:
    rows, facts = market("adjusted")
    deliver(store, rows, [fact for fact in facts if fact["action_type"] == "cash_dividend"])
    found = check(checks.prices_as_traded, store, BARS, SPAN)
    assert not found.passed
    assert "of 236 dividends" in found.message


def test_dividend_slope_tells_raw_from_adjusted_prices() -> None:
    for prices, slope in (("raw", 1.0), ("split_adjusted", 1.0), ("adjusted", 0.0)):
        rows, facts = market(prices)
        closes = raw_frame(rows).with_columns(
            previous_close=pl.col("close").shift(1).over("symbol", order_by="session")
        )
        found = dividend_slope(closes, action_frame(facts))
        assert found is not None
        assert found.slope == pytest.approx(slope, abs=3 * found.error)
        assert found.error < 0.1


def test_one_split_that_is_not_followed_is_a_row_and_no_delivery(store: Store) -> None:
    rows, facts = market("raw")
    false = action("S10", SESSIONS[40], "forward_split", ratio=2.0)
    deliver(store, rows, [*facts, false])
    assert check(checks.prices_as_traded, store, BARS, SPAN).passed
    named = check(checks.splits_followed, store, BARS, SPAN)
    assert not named.passed
    assert named.count == 1
    assert f"S10 on {SESSIONS[40]}" in named.message
    rejected = store.read(QUARANTINE).collect()
    assert rejected.select("symbol", "rule").rows() == [("S10", "action_not_followed")]


def test_a_small_run_is_judged_with_the_splits_of_the_year_before_it(store: Store) -> None:
    rows, facts = market("split_adjusted")
    facts = [fact for fact in facts if fact["action_type"] != "cash_dividend"]
    deliver(store, rows, facts)
    assert check(checks.prices_as_traded, store, BARS, [SESSIONS[25]]).passed
    found = check(checks.prices_as_traded, store, BARS, [SESSIONS[30]])
    assert not found.passed
    assert "3 of 3 splits" in found.message


def test_a_run_without_actions_or_history_passes(store: Store) -> None:
    deliver(store, [bar("AAA", SESSIONS[0], 10.0)], [])
    assert check(checks.prices_as_traded, store, BARS, SESSIONS[:1]).passed
    assert check(checks.splits_followed, store, BARS, SESSIONS[:1]).passed
    assert check(checks.volume_spikes, store, BARS, SESSIONS[:1]).passed


def test_splits_of_unusable_rows_are_left_out() -> None:
    facts = [action("AAA", SESSIONS[1], "forward_split", ratio=2.0)]
    for close in (None, 0.0, float("nan"), float("inf")):
        closes = pl.DataFrame(
            {"symbol": "AAA", "session": SESSIONS[1], "close": close, "previous_close": 10.0},
            schema_overrides={"close": pl.Float64},
        )
        assert splits_followed(closes, action_frame(facts)).is_empty()


def test_volume_spike_is_named_over_the_border_of_a_run(store: Store) -> None:
    rows, facts = market("raw")
    spiked = next(row for row in rows if row["symbol"] == "S20" and row["session"] == SESSIONS[45])
    spiked["volume"] = 3e7
    deliver(store, rows, facts)
    assert check(checks.volume_spikes, store, BARS, SPAN[:45]).passed
    found = check(checks.volume_spikes, store, BARS, SPAN[45:46])
    assert not found.passed
    assert found.count == 1
    assert f"S20 on {SESSIONS[45]} (30 times)" in found.message


def test_doubted_level_is_named_while_it_waits(store: Store) -> None:
    rows, facts = market("raw")
    for row in rows:
        if row["symbol"] == "S30" and row["session"] >= SESSIONS[55]:
            row |= {name: row[name] / 4 for name in ("open", "high", "low", "close")}
    deliver(store, rows, facts)
    found = check(checks.no_level_waits, store, QUARANTINE, SPAN)
    assert not found.passed
    assert "S30 (suspected_missed_split)" in found.message
    assert check(checks.no_level_waits, store, QUARANTINE, SPAN[:55]).passed
