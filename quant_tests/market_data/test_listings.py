"""Identity: reused tickers stay apart, renames go on, whatever range is computed."""

from __future__ import annotations

from datetime import date
from typing import Any

import polars as pl
from polars.testing import assert_frame_equal

from quant_assets.market_data.listings import LISTING_GAP_SESSIONS, assign_listings
from quant_tests.market_data.deliveries import SESSIONS, action, action_frame


def pairs(**spans: list[int]) -> pl.DataFrame:
    """Pairs of symbol and session from positions in the calendar."""
    rows = [(symbol, SESSIONS[at]) for symbol, places in spans.items() for at in places]
    return pl.DataFrame(rows, schema={"symbol": pl.String, "session": pl.Date}, orient="row")


def ids(frame: pl.DataFrame, *actions: dict[str, Any]) -> dict[tuple[str, date], str]:
    found = assign_listings(frame, action_frame(actions), SESSIONS)
    return {(row["symbol"], row["session"]): row["security_id"] for row in found.to_dicts()}


def test_listing_keeps_its_first_session_over_an_ordinary_halt() -> None:
    found = ids(pairs(AAA=[2, 3, 3 + LISTING_GAP_SESSIONS]))
    assert set(found.values()) == {f"AAA@{SESSIONS[2]}"}


def test_reused_ticker_is_another_listing() -> None:
    back = 4 + LISTING_GAP_SESSIONS
    found = ids(pairs(AAA=[2, 3, back, back + 1]))
    assert found["AAA", SESSIONS[3]] == f"AAA@{SESSIONS[2]}"
    assert found["AAA", SESSIONS[back + 1]] == f"AAA@{SESSIONS[back]}"


def test_rename_hands_the_identity_on() -> None:
    rename = action("FB", SESSIONS[10], "name_change", new_symbol="META")
    found = ids(pairs(FB=[0, 9], META=[10, 11]), rename)
    assert set(found.values()) == {f"FB@{SESSIONS[0]}"}


def test_chain_of_renames_keeps_the_oldest_identity() -> None:
    found = ids(
        pairs(A=[0, 1], B=[2, 3], C=[4, 5]),
        action("A", SESSIONS[2], "name_change", new_symbol="B"),
        action("B", SESSIONS[4], "name_change", new_symbol="C"),
    )
    assert set(found.values()) == {f"A@{SESSIONS[0]}"}


def test_ticker_that_another_company_takes_over_the_next_day_is_a_new_listing() -> None:
    rename = action("S", SESSIONS[10], "name_change", new_symbol="TMUS")
    found = ids(pairs(S=[8, 9, 10, 11], TMUS=[10, 11]), rename)
    assert found["S", SESSIONS[9]] == f"S@{SESSIONS[8]}"
    assert found["S", SESSIONS[10]] == f"S@{SESSIONS[10]}"
    assert found["TMUS", SESSIONS[11]] == f"S@{SESSIONS[8]}"


def test_two_heirs_of_one_listing_do_not_share_its_identity() -> None:
    found = ids(
        pairs(A=[0, 1], B=[2], C=[2]),
        action("A", SESSIONS[2], "name_change", new_symbol="B"),
        action("A", SESSIONS[2], "name_change", new_symbol="C", action_id="second"),
    )
    assert found["B", SESSIONS[2]] != found["C", SESSIONS[2]]


def test_rename_known_only_later_does_not_rewrite_history() -> None:
    rename = action("A", SESSIONS[5], "name_change", new_symbol="B")
    found = ids(pairs(A=[0, 1], B=[2, 3, 6]), rename)
    assert found["B", SESSIONS[6]] == f"B@{SESSIONS[2]}"


def test_what_comes_later_changes_no_identity() -> None:
    frame = pairs(A=[0, 1, 40, 41], B=[3, 42], C=[10, 11, 60])
    rename = action("A", SESSIONS[41], "name_change", new_symbol="B")
    whole = assign_listings(frame, action_frame([rename]), SESSIONS)
    for last in (1, 11, 41, 42):
        until = pl.col("session") <= SESSIONS[last]
        known = action_frame([rename]).filter(until)
        part = assign_listings(frame.filter(until), known, SESSIONS[: last + 1])
        assert_frame_equal(part, whole.filter(until))


def test_strange_rows_have_no_listing() -> None:
    frame = pl.DataFrame(
        {"symbol": [None, "AAA"], "session": [SESSIONS[0], date(2024, 1, 6)]},
        schema={"symbol": pl.String, "session": pl.Date},
    )
    assert assign_listings(frame, action_frame(), SESSIONS).is_empty()
