"""Every way in which a table can see the future, caught; its right twin, and every real table, passing."""

from __future__ import annotations

import pytest

from quant_assets.findings import Finding
from quant_assets.point_in_time.checks import DESCRIPTIONS
from quant_assets.point_in_time.detectors import day_equals_range, look_ahead, start_up
from quant_assets.point_in_time.recompute import reason_not_recomputed, steps
from quant_assets.point_in_time.session_recomputations import Recomputations
from quant_tests.point_in_time.conftest import FILLED
from quant_tests.point_in_time.small_market import KEYS, PARTITIONS, SmallMarket
from quant_tests.point_in_time.wrong_tables import BY_NAME

SAMPLE = (KEYS[79], KEYS[80], KEYS[95])


def found(market: SmallMarket, path: str, keys: tuple[str, ...] = SAMPLE) -> dict[str, Finding]:
    step = market.step(path)
    table = next(table for table in step.tables if table.path == path)
    again = Recomputations(step, market.store, {"ledger": None})
    return {
        detector.__name__: detector(again, table, keys)
        for detector in (look_ahead, day_equals_range, start_up)
    }


@pytest.mark.parametrize(
    ("name", "caught", "told"),
    [
        (
            "next_close",
            {"look_ahead", "day_equals_range"},
            "change when what comes later can be seen, in value",
        ),
        (
            "survivors",
            {"look_ahead", "day_equals_range"},
            "change when what comes later can be seen, in (row)",
        ),
        ("scaled_by_all_history", {"look_ahead", "day_equals_range"}, "rows of 3 sessions"),
        (
            "scaled_by_the_range",
            {"look_ahead", "day_equals_range", "start_up"},
            "rows of 3 sessions",
        ),
        (
            "mapped_ahead",
            {"look_ahead"},
            f"its mapping names market_data/bars of {KEYS[80]} for {KEYS[79]}",
        ),
        (
            "asks_by_name",
            {"look_ahead", "day_equals_range", "start_up"},
            f"market_data/bars: {KEYS[80]} does not exist yet at the close of {KEYS[79]}",
        ),
        ("label_known_early", {"look_ahead"}, "labels of 3 sessions"),
        (
            "label_beyond_its_horizon",
            {"look_ahead", "day_equals_range"},
            "its mapping names market_data/bars",
        ),
        (
            "curve_that_ends_at_one",
            {"look_ahead", "day_equals_range"},
            "change when what comes later",
        ),
    ],
)
def test_a_look_into_the_future_is_caught(
    name: str, caught: set[str], told: str, market: SmallMarket
) -> None:
    findings = found(market, BY_NAME[name].path)
    assert {detector for detector, finding in findings.items() if not finding.passed} == caught
    leak = findings["look_ahead"]
    assert told in leak.message
    assert leak.message.startswith(f"features/{name}")
    assert leak.count > 0
    assert leak.remedy


@pytest.mark.parametrize("name", ["average_that_never_settles", "counted_since_the_range_began"])
def test_a_history_that_is_too_short_is_no_look_into_the_future(
    name: str, market: SmallMarket
) -> None:
    findings = found(market, BY_NAME[name].path)
    assert findings["look_ahead"].passed
    assert not findings["start_up"].passed
    assert "move with up to 20 more sessions of history, in value" in findings["start_up"].message
    assert not findings["day_equals_range"].passed


@pytest.mark.parametrize(
    "name",
    [
        "previous_close",
        "present",
        "scaled_by_the_session",
        "mapped_to_the_session",
        "average_over_ten_sessions",
        "label_at_its_horizon",
        "curve_that_begins_at_one",
    ],
)
def test_the_right_twin_passes(name: str, market: SmallMarket) -> None:
    findings = found(market, BY_NAME[name].path)
    assert all(finding.passed for finding in findings.values()), findings
    assert " 0 rows" not in findings["look_ahead"].message


def test_every_table_of_the_graph_passes(market: SmallMarket) -> None:
    proved = []
    for step in steps(market.assets, PARTITIONS):
        if reason_not_recomputed(step) or step.tables[0].name.removeprefix("after_") in BY_NAME:
            continue
        stored = market.store.partitions(step.tables[0])
        keys = tuple(key for key in FILLED[::9] if key in stored) or SAMPLE
        for table in step.tables:
            findings = found(market, table.path, keys)
            assert all(finding.passed for finding in findings.values()), findings
            proved.append(table.name)
    assert proved == [
        "quarantine",
        "bars",
        "coverage",
        "universe",
        "alpha158",
        "technical",
        "anomaly",
        "labels",
        "labels_5",
        "labels_20",
        "enhanced_momentum",
        "strategy_performance",
        "backtest_enhanced_momentum",
    ]


def test_what_cannot_be_computed_again_says_why(market: SmallMarket) -> None:
    reasons = {
        table.path: reason_not_recomputed(step)
        for step in steps(market.assets, PARTITIONS)
        for table in step.tables
    }
    assert "it comes from bar_source" in str(reasons["market_data/raw_bars"])
    assert "it comes from broker" in str(reasons["market_data/listed_assets"])
    assert "evidence of trading" in str(reasons["performance/daily_pnl"])
    assert reasons["features/alpha158"] is None


def test_every_finding_names_what_to_look_at(market: SmallMarket) -> None:
    leak = found(market, BY_NAME["next_close"].path)["look_ahead"]
    assert leak.sample is not None
    assert leak.sample.columns == ["session", "security_id", "column", "alone", "in_a_range"]
    assert leak.sample["column"].unique().to_list() == ["value"]
    assert leak.sample["alone"].unique().to_list() == ["missing"]
    assert set(DESCRIPTIONS) == {
        "no_look_ahead",
        "same_when_computed_alone",
        "same_with_more_history",
    }
