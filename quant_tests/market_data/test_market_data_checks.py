"""Every check of the stage on sessions that break it and on sessions that do not."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest

from quant_assets.market_data import checks
from quant_assets.market_data.schemas import BARS, QUARANTINE, RAW_BARS
from quant_assets.table_checks import CheckScope, Finding
from quant_resources.store import Store
from quant_resources.tables import Table
from quant_tests.market_data.deliveries import SESSIONS, action, bar, gated, raw_frame

SYMBOLS = [f"S{number:02d}" for number in range(20)]


def rows(places: range, symbols: list[str] | None = None) -> list[dict[str, Any]]:
    return [
        bar(symbol, SESSIONS[at], 50.0 + at % 3)
        for at in places
        for symbol in (SYMBOLS if symbols is None else symbols)
    ]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def scope_of(store: Store, sessions: list[date]) -> CheckScope:
    nobody = cast("Any", None)
    return CheckScope([str(session) for session in sessions], store, nobody, nobody)


def put(store: Store, table: Table, frame: pl.DataFrame, sessions: list[date]) -> None:
    store.write(table, frame, [str(session) for session in sessions])


def deliver(store: Store, sent: list[dict[str, Any]], *facts: dict[str, Any]) -> list[date]:
    """Store a delivery and what the gate makes of it; returns its sessions."""
    sessions = sorted({row["session"] for row in sent})
    result = gated(sent, facts, sessions)
    put(store, RAW_BARS, raw_frame(sent), sessions)
    put(store, QUARANTINE, result.quarantine, sessions)
    put(store, BARS, result.bars, sessions)
    return sessions


def check(function: Any, store: Store, table: Table, sessions: list[date]) -> Finding:
    frame = store.read(table, [str(session) for session in sessions]).collect()
    return function(frame, scope_of(store, sessions))


def test_thin_session_is_found_against_the_sessions_before_the_run(store: Store) -> None:
    deliver(store, rows(range(5)))
    thin = deliver(store, rows(range(5, 6), SYMBOLS[:13]))
    found = check(checks.enough_symbols, store, RAW_BARS, thin)
    assert not found.passed
    assert str(SESSIONS[5]) in found.message
    fair = deliver(store, rows(range(6, 7), SYMBOLS[:14]))
    assert check(checks.enough_symbols, store, RAW_BARS, fair).passed


def test_empty_session_is_too_thin(store: Store) -> None:
    put(store, RAW_BARS, raw_frame([]), [SESSIONS[0]])
    found = check(checks.enough_symbols, store, RAW_BARS, [SESSIONS[0]])
    assert not found.passed
    assert str(SESSIONS[0]) in found.message


def test_broken_delivery_is_told_from_broken_rows(store: Store) -> None:
    few = deliver(
        store, [row | ({"volume": -1.0} if n < 2 else {}) for n, row in enumerate(rows(range(1)))]
    )
    assert check(checks.bounded_quarantine, store, BARS, few).passed
    many = deliver(
        store,
        [row | ({"volume": -1.0} if n < 6 else {}) for n, row in enumerate(rows(range(1, 2)))],
    )
    found = check(checks.bounded_quarantine, store, BARS, many)
    assert not found.passed
    assert "30%" in found.message
    assert "bad_volume" in found.message


def test_lost_row_is_found(store: Store) -> None:
    sessions = deliver(store, [*rows(range(2)), bar("S00", SESSIONS[1], 51.0)])
    assert check(checks.nothing_lost, store, BARS, sessions).passed
    put(store, BARS, store.read(BARS, [str(SESSIONS[1])]).collect().head(-1), [SESSIONS[1]])
    found = check(checks.nothing_lost, store, BARS, sessions)
    assert not found.passed
    assert str(SESSIONS[1]) in found.message


def test_bar_of_a_holiday_is_found(store: Store) -> None:
    sessions = deliver(store, rows(range(1)))
    frame = store.read(BARS).collect()
    assert checks.only_sessions(frame, scope_of(store, sessions)).passed
    holiday = frame.with_columns(session=pl.lit(date(2024, 7, 4)))
    found = checks.only_sessions(holiday, scope_of(store, sessions))
    assert not found.passed
    assert "2024-07-04" in found.message


def test_market_wide_jumps_are_a_broken_session_and_single_ones_are_named(store: Store) -> None:
    deliver(store, rows(range(3)))
    merged = [action(symbol, SESSIONS[3], "merger") for symbol in SYMBOLS[:6]]
    jumped = [
        row | ({"open": 90.0, "high": 91.0, "low": 89.0, "close": 90.0} if n < 6 else {})
        for n, row in enumerate(rows(range(3, 4)))
    ]
    # Explained rows are accepted by the gate; six of twenty are too many for one session.
    result = gated([*rows(range(3)), *jumped], merged, [SESSIONS[3]])
    put(store, BARS, result.bars, [SESSIONS[3]])
    assert result.bars.height == 20
    found = check(checks.reasonable_returns, store, BARS, [SESSIONS[3]])
    assert not found.passed
    assert "6 of 20" in found.message
    named = check(checks.accepted_large_moves, store, BARS, [SESSIONS[3]])
    assert not named.passed
    assert named.count == 6


def test_calm_returns_pass(store: Store) -> None:
    sessions = deliver(store, rows(range(4)))
    assert check(checks.reasonable_returns, store, BARS, sessions).passed
    assert check(checks.accepted_large_moves, store, BARS, sessions).passed


def test_stuck_price_is_named_over_the_border_of_a_run(store: Store) -> None:
    stuck = [bar("STUCK", SESSIONS[at], 7.0, volume=1e6 + at) for at in range(5)]
    deliver(store, [*rows(range(4)), *stuck[:4]])
    last = deliver(store, [*rows(range(4, 5)), stuck[4]])
    listed = (
        store.read(BARS)
        .collect()
        .with_columns(security_id=pl.concat_str("symbol", pl.lit("@"), pl.lit(str(SESSIONS[0]))))
    )
    for session in SESSIONS[:5]:
        put(store, BARS, listed.filter(session=session), [session])
    found = check(checks.no_stuck_prices, store, BARS, last)
    assert not found.passed
    assert found.count == 1
    assert "STUCK" in found.message


def test_empty_universe_is_an_error_only_after_the_warm_up(store: Store) -> None:
    for at in range(60):
        put(store, BARS, BARS.empty(), [SESSIONS[at]])
    empty = pl.DataFrame({"session": []}, schema={"session": pl.Date})
    assert checks.universe_not_empty(empty, scope_of(store, [SESSIONS[58]])).passed
    found = checks.universe_not_empty(empty, scope_of(store, [SESSIONS[58], SESSIONS[59]]))
    assert not found.passed
    assert str(SESSIONS[59]) in found.message
