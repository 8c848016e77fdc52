"""Identity: reused tickers stay apart, renames go on, whatever range is computed."""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_assets.market_data.listings import (
    LISTING_GAP_SESSIONS,
    assign_listings,
    with_listings,
)
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


SYMBOLS = ("AAA", "BBB", "CCC", "DDD")
PLACES = st.integers(0, 99)


def listings_one_by_one(
    pairs: set[tuple[str, int]], renames: list[tuple[int, str, str]]
) -> dict[tuple[str, int], str]:
    """The listing of every (symbol, place in `SESSIONS`), by walking along the calendar."""
    starts: dict[str, list[int]] = {}
    for symbol in SYMBOLS:
        own = sorted(at for name, at in pairs if name == symbol)
        after = {
            min((at for at in own if at >= ex), default=-1)
            for ex, old, _ in renames
            if old == symbol
        }
        gaps = [at for last, at in pairwise(own) if at - last > LISTING_GAP_SESSIONS]
        starts[symbol] = sorted({*own[:1], *gaps, *after} - {-1})

    def listing(symbol: str, at: int) -> tuple[str, int]:
        return symbol, max(start for start in starts[symbol] if start <= at)

    oldest: dict[tuple[str, int], tuple[str, int]] = {}
    handed_on = set()
    for ex, old, new in sorted(set(renames)):
        before = [at for name, at in pairs if name == old and at < ex]
        begun = [at for at in starts[new] if at >= ex]
        if not before or not begun or begun[0] - max(before) > LISTING_GAP_SESSIONS:
            continue
        owner = listing(old, max(before))
        if owner not in handed_on:
            handed_on.add(owner)
            oldest[new, begun[0]] = oldest.get(owner, owner)
    names = {}
    for symbol, at in pairs:
        own = listing(symbol, at)
        name, start = oldest.get(own, own)
        names[symbol, at] = f"{name}@{SESSIONS[start]}"
    return names


@settings(max_examples=150, deadline=None)
@given(
    holes=st.lists(st.tuples(st.sampled_from(SYMBOLS), PLACES, st.integers(1, 60)), max_size=8),
    renames=st.lists(
        st.tuples(PLACES, st.sampled_from(SYMBOLS), st.sampled_from(SYMBOLS)).filter(
            lambda told: told[1] != told[2]
        ),
        max_size=6,
    ),
    since=PLACES,
)
def test_any_history_equals_walking_along_it(
    holes: list[tuple[str, int, int]], renames: list[tuple[int, str, str]], since: int
) -> None:
    absent = {(name, at) for name, start, length in holes for at in range(start, start + length)}
    pairs = {(name, at) for name in SYMBOLS for at in range(100)} - absent
    frame = pl.DataFrame(
        [(name, SESSIONS[at]) for name, at in sorted(pairs, key=lambda pair: pair[1])],
        schema={"symbol": pl.String, "session": pl.Date},
        orient="row",
    )
    facts = [action(old, SESSIONS[ex], "name_change", new_symbol=new) for ex, old, new in renames]
    found = assign_listings(frame, action_frame(facts), SESSIONS[:100], SESSIONS[since])
    names = listings_one_by_one(pairs, renames)
    assert {
        (symbol, session): identity
        for symbol, session, identity in found.select("symbol", "session", "security_id").rows()
    } == {(symbol, SESSIONS[at]): name for (symbol, at), name in names.items() if at >= since}
    assert found["session"].to_list() == found.sort("symbol", "session")["session"].to_list()


def test_rows_beside_their_listings_equal_a_left_join() -> None:
    frame = pairs(AAA=[0, 1, 40], BBB=[0, 39, 40])
    listings = assign_listings(frame, action_frame(), SESSIONS[:41], SESSIONS[1])
    rows = pl.concat(
        [
            frame,
            frame.head(2),  # repeated rows
            pairs(CCC=[1], AAA=[5]),  # of no listing
            pl.DataFrame({"symbol": [None], "session": [SESSIONS[40]]}, schema=frame.schema),
        ]
    )
    joined = rows.join(listings, on=["symbol", "session"], how="left", maintain_order="left")
    assert_frame_equal(with_listings(rows, listings), joined)
    assert_frame_equal(
        with_listings(rows, listings.clear()),
        rows.join(listings.clear(), on=["symbol", "session"], how="left", maintain_order="left"),
    )
