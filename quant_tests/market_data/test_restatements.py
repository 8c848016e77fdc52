"""What two vintages differ in, what of the stored tables is stale, and what the check tells a person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest

from quant_assets.market_data.listings import LISTING_GAP_SESSIONS
from quant_assets.market_data.quality_gate import Gated
from quant_assets.market_data.restatement_checks import CHECKS
from quant_assets.market_data.restatements import (
    DIFFERENCES,
    cut_short,
    differences,
    stale_sessions,
)
from quant_assets.market_data.schemas import (
    BARS,
    CORPORATE_ACTIONS,
    QUARANTINE,
    RAW_BARS,
    UTC_TIME,
)
from quant_assets.market_data.stored_gate import gate_stored
from quant_assets.market_data.stored_restatements import newest_differences, stale_in_store
from quant_assets.market_data.validation import HISTORY_SESSIONS
from quant_assets.table_checks import CheckScope
from quant_resources.calendar import XNYS
from quant_resources.store import Store
from quant_tests.market_data.deliveries import (
    SESSIONS,
    action,
    action_frame,
    bar,
    gated,
    raw_frame,
    steady,
)

DAY = SESSIONS[3]
DAYS = XNYS.sessions(date(2022, 1, 3), date(2024, 6, 28))
EARLY, LATE = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, tzinfo=UTC)


def moving(level: float, count: int) -> list[float]:
    """Closes that never repeat their predecessor."""
    return [level * (1 + 0.003 * ((7 * place) % 5)) for place in range(count)]


def compared(
    before: Sequence[dict[str, Any]],
    after: Sequence[dict[str, Any]],
    identity: str = "symbol",
) -> list[tuple[object, ...]]:
    """symbol, field, old, new, kind of the differences between two vintages of `DAY`."""
    frame = raw_frame if identity == "symbol" else action_frame
    observed = pl.DataFrame(
        [(DAY, EARLY, LATE)],
        schema={"session": pl.Date, "observed_before": UTC_TIME, "observed_after": UTC_TIME},
        orient="row",
    )
    found = differences(frame(before), frame(after), identity, observed)
    assert dict(found.schema) == DIFFERENCES
    assert set(found["observed_before"]) | set(found["observed_after"]) <= {EARLY, LATE}
    return found.select("symbol", "field", "old_value", "new_value", "kind").rows()


def test_changed_values_are_named_with_both_versions() -> None:
    before = [bar("A", DAY, 10.0), bar("B", DAY, 20.0), bar("C", DAY, 30.0)]
    after = [
        bar("A", DAY, 10.0, trade_count=None) | {"close": 10.5},
        bar("B", DAY, 20.0),
        bar("C", DAY, 30.0),
    ]
    assert compared(before, after) == [
        ("A", "close", "10.0", "10.5", "changed"),
        ("A", "trade_count", "5000", None, "changed"),
    ]
    assert compared(before, list(reversed(before))) == []


def test_added_and_withdrawn_rows_are_one_line_each() -> None:
    found = compared(
        [bar("A", DAY, 10.0), bar("B", DAY, 20.0)], [bar("B", DAY, 20.0), bar("C", DAY, 30.0)]
    )
    assert [(row[0], row[1], row[4]) for row in found] == [
        ("A", "row", "withdrawn"),
        ("C", "row", "added"),
    ]
    assert found[0][3] is None
    assert "close 10.0" in str(found[0][2])
    assert "close 30.0" in str(found[1][3])


def test_a_delivery_later_is_no_difference() -> None:
    later = bar("A", DAY, 10.0, observed_at=LATE)
    assert compared([bar("A", DAY, 10.0)], [later]) == []


def test_repeated_rows_are_compared_one_for_one() -> None:
    """Two rows of one symbol once multiplied in the join."""
    one, other = bar("A", DAY, 10.0), bar("A", DAY, 11.0)
    assert compared([one, one], [one]) == [
        ("A", "row", compared([one], [])[0][2], None, "withdrawn")
    ]
    assert compared([one, other], [other, one]) == []
    assert compared([one, one, other], [other, one, one]) == []
    changed = compared(
        [one, other, bar("B", DAY, 5.0)], [one, bar("A", DAY, 12.0), bar("B", DAY, 5.0)]
    )
    assert {row[0] for row in changed} == {"A"}
    assert ("A", "close", "11.0", "12.0", "changed") in changed


def test_missing_symbols_and_numbers_that_are_none_are_values() -> None:
    nan = float("nan")
    nameless = bar(None, DAY, 10.0)
    assert compared([nameless], [nameless]) == []
    assert compared([bar("A", DAY, nan)], [bar("A", DAY, nan)]) == []
    assert compared([bar("A", DAY, None, volume=None)], [bar("A", DAY, None, volume=nan)]) == [
        ("A", "volume", None, "NaN", "changed")
    ]


def test_a_corporate_action_is_known_by_its_id() -> None:
    before = [
        action("A", DAY, "cash_dividend", cash=0.5),
        action("A", DAY, "forward_split", ratio=2.0),
    ]
    after = [
        action("A", DAY, "cash_dividend", cash=0.7),
        action("A", DAY, "forward_split", ratio=2.0),
    ]
    assert compared(before, after, "action_id") == [("A", "cash", "0.5", "0.7", "changed")]
    moved = [action("A", DAY, "cash_dividend", cash=0.5) | {"symbol": "AA"}]
    assert compared(before[:1], moved, "action_id") == [("AA", "symbol", "A", "AA", "changed")]


@pytest.mark.parametrize(
    ("lost", "refused"),
    [(0, False), (4, False), (5, True), (40, True)],
)
def test_a_part_of_a_session_is_told_from_a_withdrawn_bar(lost: int, refused: bool) -> None:
    stored = raw_frame([bar(f"S{number:02d}", DAY, 10.0) for number in range(40)])
    found = cut_short(stored, stored.tail(40 - lost))
    assert found.height == refused
    if refused:
        assert found.row(0) == (DAY, 40, lost, "S00, S01, S02, S03, S04")


def test_a_tenth_of_a_large_session_may_be_withdrawn() -> None:
    stored = raw_frame([bar(f"S{number:03d}", DAY, 10.0) for number in range(200)])
    assert cut_short(stored, stored.tail(180)).is_empty()
    assert cut_short(stored, stored.tail(179))["lost"].to_list() == [21]
    # Other symbols instead are no replacement, and more sessions than before lose nothing.
    other = stored.with_columns(symbol=pl.format("X{}", "symbol"))
    assert cut_short(stored, other)["lost"].to_list() == [200]
    assert cut_short(stored, pl.concat([stored, other])).is_empty()


def test_stale_is_what_the_gate_says_otherwise() -> None:
    rows = [*steady("A", moving(10.0, 8)), *steady("B", moving(20.0, 8))]
    was = gated(rows)
    rows[5] = bar("A", SESSIONS[5], 10.2)
    rows[9] = bar("B", SESSIONS[1], 20.0, high=1.0)
    now = gated(rows)
    assert stale_sessions(was, was.bars, was.quarantine) == []
    assert stale_sessions(now, was.bars, was.quarantine) == [SESSIONS[1], SESSIONS[5]]


def test_rounding_in_a_factor_is_not_stale_and_a_cent_is() -> None:
    was = gated(steady("A", [10.0, 10.1, 10.2]))
    for change, stale in ((1e-15, []), (1e-9, [SESSIONS[1]])):
        factor = pl.when(pl.col("session") == SESSIONS[1]).then(1.0 + change).otherwise(1.0)
        now = Gated(was.bars.with_columns(price_factor=factor), was.quarantine, was.unapplied)
        assert stale_sessions(now, was.bars, was.quarantine) == stale


class Root:
    """A data root whose bars are made by the gate from what is delivered."""

    def __init__(self, folder: Path, rows: Sequence[dict[str, Any]], days: Sequence[date]) -> None:
        self.store = Store(folder)
        self.days = days
        self.deliver(rows, self.days, EARLY)
        self.store.write(CORPORATE_ACTIONS, action_frame(), self.keys(self.days))
        judged = gate_stored(self.store, self.days[0], self.days)
        for table, frame in ((BARS, judged.bars), (QUARANTINE, judged.quarantine)):
            self.store.write(table, frame, self.keys(self.days))

    def keys(self, days: Sequence[date]) -> list[str]:
        """Partition keys of days."""
        return [day.isoformat() for day in days]

    def deliver(self, rows: Sequence[dict[str, Any]], days: Sequence[date], when: datetime) -> None:
        """Store what came of some days as their newest vintages."""
        frame = raw_frame([row | {"observed_at": when} for row in rows if row["session"] in days])
        self.store.write(RAW_BARS, frame, self.keys(days))

    def stale(self, *changed: date) -> list[date]:
        """The stale sessions after some have changed."""

        def gate_of(wanted: Sequence[date]) -> Gated:
            return gate_stored(self.store, self.days[0], wanted)

        return stale_in_store(self.store, self.days[0], changed, gate_of)


def test_one_restated_close_makes_its_session_stale_and_no_other(tmp_path: Path) -> None:
    rows = [*steady("A", moving(10.0, 30)), *steady("B", moving(20.0, 30))]
    root = Root(tmp_path, rows, SESSIONS[:30])
    assert root.stale(SESSIONS[4]) == []
    rows[4] = bar("A", SESSIONS[4], 10.3)
    root.deliver(rows, SESSIONS[4:5], LATE)
    assert root.stale(SESSIONS[4]) == [SESSIONS[4]]
    assert root.stale(SESSIONS[12]) == []


def test_a_restatement_that_changes_later_verdicts_makes_those_stale_too(tmp_path: Path) -> None:
    """A jump was quarantined until its level had held; the vendor then gave the level before it."""
    rows = [
        *steady("A", moving(10.0, 10)),
        *steady("A", moving(50.0, 5), start=10),
        *steady("B", moving(20.0, 15)),
    ]
    root = Root(tmp_path, rows, SESSIONS[:15])
    assert root.store.read(QUARANTINE).collect()["symbol"].to_list() == ["A"] * 5
    restated = steady("A", moving(50.0, 10))
    root.deliver([*restated, *rows[15:]], SESSIONS[:10], LATE)
    assert root.stale(*SESSIONS[:10]) == SESSIONS[:15]


def test_an_added_bar_that_joins_two_listings_reaches_to_their_end(tmp_path: Path) -> None:
    """The rows after a gap got a new identity; a bar in the gap gives them back their old one."""
    back = 3 + LISTING_GAP_SESSIONS + 2
    assert len(DAYS) > back + HISTORY_SESSIONS + 100
    closes = moving(10.0, len(DAYS))
    held = [place for place in range(len(DAYS)) if not 3 <= place < back]
    rows = [
        *(bar("A", DAYS[place], closes[place]) for place in held),
        *(bar("B", day, 2 * close) for day, close in zip(DAYS, closes, strict=True)),
    ]
    root = Root(tmp_path, rows, DAYS)
    assert root.store.read(BARS).filter(symbol="A").collect()["security_id"].n_unique() == 2
    filled = DAYS[back - 2]
    root.deliver([*rows, bar("A", filled, closes[back - 2])], [filled], LATE)
    assert root.stale(filled) == [filled, *DAYS[back:]]


def scope(store: Store, *days: date) -> CheckScope:
    keys = [day.isoformat() for day in days]
    return CheckScope(keys, store, cast("Any", None), cast("Any", None))


def test_the_check_names_the_bar_with_both_versions(tmp_path: Path) -> None:
    rows = [*steady("A", moving(10.0, 6)), *steady("B", moving(20.0, 6))]
    root = Root(tmp_path, rows, SESSIONS[:6])
    check = next(check for check in CHECKS if check.table is RAW_BARS)
    assert not check.blocking
    once = check.function(raw_frame([]), scope(root.store, *SESSIONS[:6]))
    assert once.passed
    was = rows[4]["close"]
    rows[4] = rows[4] | {"close": 10.25}
    root.deliver(rows, SESSIONS[4:5], LATE)
    found = check.function(raw_frame([]), scope(root.store, *SESSIONS[:6]))
    assert not found.passed
    assert found.count == 1
    assert f"A of {SESSIONS[4]}, close {was} became 10.25" in found.message
    assert "2025-01-01" in found.message
    assert "2025-01-02" in found.message
    assert "sensor" in found.message
    assert "quant data refetch" in found.remedy
    assert found.sample is not None
    assert found.sample.select("session", "symbol", "field", "old_value", "new_value").rows() == [
        (SESSIONS[4], "A", "close", str(was), "10.25")
    ]
    assert check.function(raw_frame([]), scope(root.store, *SESSIONS[:4])).passed


def test_only_the_last_two_vintages_are_compared(tmp_path: Path) -> None:
    root = Root(tmp_path, steady("A", moving(10.0, 6)), SESSIONS[:6])
    for number, close in enumerate((11.0, 12.0), start=2):
        when = datetime(2025, 1, number, tzinfo=UTC)
        root.deliver([bar("A", DAY, 10.0) | {"close": close}], [DAY], when)
    found = newest_differences(root.store, RAW_BARS, [day.isoformat() for day in SESSIONS[:6]])
    assert found.select("old_value", "new_value").rows() == [("11.0", "12.0")]
    root.store.write(RAW_BARS, RAW_BARS.empty(), [DAY.isoformat()], observed_at=LATE)
    gone = newest_differences(root.store, RAW_BARS, [DAY.isoformat()])
    assert gone["kind"].to_list() == ["withdrawn"]
    assert gone["observed_after"].null_count() == 0
