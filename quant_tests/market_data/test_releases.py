"""Released rows: recognized by their values, judged anew when restated, refused when worthless."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest

from quant_assets.market_data.quality_gate import Gated, gate
from quant_assets.market_data.releases import release_of, row_digest
from quant_assets.market_data.rules import RULES
from quant_assets.market_data.schemas import RELEASES
from quant_resources.errors import DataError
from quant_tests.market_data.deliveries import (
    SESSIONS,
    action,
    action_frame,
    bar,
    raw_frame,
    steady,
)

NOW = datetime(2024, 12, 31, 12, tzinfo=UTC)
CALM = [100.0 + 0.5 * (n % 3) for n in range(25)]
#: A level that nothing explains: ordinary volume, gap from the open.
LOWER = [44.0 + 0.2 * (n % 3) for n in range(30)]


def judged(
    rows: list[dict[str, Any]],
    releases: pl.DataFrame | None = None,
    actions: list[dict[str, Any]] | None = None,
) -> Gated:
    last = max(row["session"] for row in rows)
    wanted = [session for session in SESSIONS if session <= last]
    return gate(
        raw_frame(rows).lazy(),
        action_frame(actions or []).lazy(),
        wanted,
        SESSIONS,
        releases=releases,
    )


def released(found: Gated, at: int) -> pl.DataFrame:
    """The release of the quarantined row of a session."""
    row = found.quarantine.filter(session=SESSIONS[at]).row(0, named=True)
    return release_of(row, "looked at it", "tester", NOW)


def rejected(found: Gated) -> list[int]:
    return [SESSIONS.index(day) for day in found.quarantine["session"]]


def test_released_row_is_a_bar_and_nothing_else_changes() -> None:
    rows = [*steady("AAA", CALM), bar("AAA", SESSIONS[25], 101.0, volume=0.0)]
    rows += [bar("BBB", SESSIONS[25], 10.0, volume=-1.0)]
    before = judged(rows)
    assert before.quarantine["rule"].to_list() == ["zero_volume", "bad_volume"]
    after = judged(rows, released(before, 25))
    assert after.quarantine["rule"].to_list() == ["bad_volume"]
    assert after.bars.filter(symbol="AAA", session=SESSIONS[25])["close"].to_list() == [101.0]
    RELEASES.conform(released(before, 25))


def test_release_of_the_jump_makes_its_level_acceptable() -> None:
    rows = [*steady("AAA", CALM), *steady("AAA", LOWER, start=25)]
    before = judged(rows)
    assert rejected(before) == list(range(25, 45))
    assert rejected(judged(rows, released(before, 25))) == []


def test_release_of_a_later_row_holds_from_that_row_on() -> None:
    rows = [*steady("AAA", CALM), *steady("AAA", LOWER, start=25)]
    assert rejected(judged(rows, released(judged(rows), 30))) == list(range(25, 30))


def test_released_level_is_one_to_come_back_to() -> None:
    """A wrong row within the released level is rejected, the level after it is not."""
    after = [*LOWER[:3], 12.0, *LOWER[3:6]]
    rows = [*steady("AAA", CALM), *steady("AAA", list(after), start=25)]
    found = judged(rows, released(judged(rows), 25))
    assert rejected(found) == [28]


@pytest.mark.parametrize(
    "restated",
    [{"close": 44.01}, {"volume": 1_000_001.0}, {"vwap": None}, {"trade_count": 1}],
)
def test_restated_row_is_judged_anew(restated: dict[str, Any]) -> None:
    rows = [*steady("AAA", CALM), *steady("AAA", LOWER[:1], start=25)]
    release = released(judged(rows), 25)
    assert rejected(judged(rows, release)) == []
    rows[-1] |= restated
    assert rejected(judged(rows, release)) == [25]


def test_row_fetched_again_keeps_its_release() -> None:
    rows = [*steady("AAA", CALM), *steady("AAA", LOWER[:1], start=25)]
    release = released(judged(rows), 25)
    rows[-1] |= {"observed_at": NOW, "source": "another/feed"}
    assert rejected(judged(rows, release)) == []


def test_release_from_one_rule_is_none_from_another() -> None:
    rows = [*steady("AAA", CALM), bar("AAA", SESSIONS[25], 44.0, volume=0.0)]
    release = released(judged(rows), 25)
    assert release["rule"].to_list() == ["zero_volume"]
    again = judged(rows, release)
    assert again.quarantine["rule"].to_list() == ["return_outlier"]
    both = pl.concat([release, released(again, 25)])
    assert rejected(judged(rows, both)) == []


def test_release_of_the_same_values_of_another_symbol_is_none() -> None:
    rows = [*steady("AAA", CALM), *steady("AAA", LOWER[:1], start=25)]
    release = released(judged(rows), 25).with_columns(symbol=pl.lit("BBB"))
    assert rejected(judged(rows, release)) == [25]


def test_release_of_a_price_that_stayed_ignores_the_action_at_once() -> None:
    split = action("AAA", SESSIONS[25], "forward_split", ratio=2.0)
    rows = [*steady("AAA", CALM), *steady("AAA", [100.1, 100.2], start=25)]
    before = judged(rows, actions=[split])
    assert before.quarantine["rule"].to_list() == ["action_not_followed"]
    after = judged(rows, released(before, 25), [split])
    assert after.quarantine.is_empty()
    assert set(after.bars["price_factor"]) == {1.0}
    assert after.unapplied.height == 1


@pytest.mark.parametrize("rule", [rule.name for rule in RULES if not rule.releasable])
def test_row_without_usable_values_cannot_be_released(rule: str) -> None:
    row = bar("AAA", SESSIONS[0], None) | {"rule": rule, "detail": "seen", "remedy": "Do it."}
    with pytest.raises(
        DataError, match=rf"AAA of {SESSIONS[0]} .*{rule}.*cannot be released. Do it"
    ):
        release_of(row, "I want it", "tester", NOW)


def test_release_needs_a_reason() -> None:
    row = bar("AAA", SESSIONS[0], 1.0) | {"rule": "stale_row", "detail": "", "remedy": ""}
    with pytest.raises(DataError, match="needs a reason"):
        release_of(row, "  ", "tester", NOW)


def test_release_of_a_worthless_row_in_the_table_overrules_nothing() -> None:
    """Whatever got into the table: a row without a price never becomes a bar."""
    rows = [*steady("AAA", CALM), bar("AAA", SESSIONS[25], None)]
    row = judged(rows).quarantine.row(0, named=True)
    forged = release_of(row | {"rule": "return_outlier"}, "forged", "tester", NOW).with_columns(
        rule=pl.lit("missing_price")
    )
    assert rejected(judged(rows, forged)) == [25]


def test_digest_is_of_what_was_sent_and_the_same_for_ever() -> None:
    row = bar("AAA", SESSIONS[0], 100.25, trade_count=None)
    assert row_digest(row) == "2ddb325347da028f12310865f29392d4"
    moved = row["bar_time"].astimezone(timezone(timedelta(hours=-5)))
    assert row_digest(row | {"observed_at": NOW}) == row_digest(row)
    assert row_digest(row | {"bar_time": moved}) == row_digest(row)
    assert row_digest(row | {"bar_time": None}) != row_digest(row)
