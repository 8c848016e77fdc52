"""The generated checks in real runs: a leak stops what is downstream, whether a range or a day is made."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from quant_assets.features.schemas import ALPHA158, ANOMALY, LABELS, TECHNICAL
from quant_assets.market_data.schemas import BARS, CORPORATE_ACTIONS, UNIVERSE
from quant_assets.point_in_time.checks import (
    DESCRIPTIONS,
    NO_LOOK_AHEAD,
    SAME_ALONE,
    SAME_WITH_MORE_HISTORY,
    judged,
    point_in_time_checks,
)
from quant_assets.point_in_time.recompute import reason_not_recomputed, steps
from quant_resources.tables import Table
from quant_tests.point_in_time.conftest import FILLED, copied
from quant_tests.point_in_time.small_market import KEYS, PARTITIONS, SmallMarket
from quant_tests.point_in_time.wrong_tables import BY_NAME, FOLLOWERS

NOTHING: dict[str, object] = {"ledger": None}


def failures(run: dg.ExecuteInProcessResult) -> set[tuple[str, str]]:
    return {
        (evaluation.asset_key.path[-1], evaluation.check_name)
        for evaluation in run.get_asset_check_evaluations()
        if not evaluation.passed
    }


def passes(run: dg.ExecuteInProcessResult) -> set[str]:
    return {
        evaluation.check_name
        for evaluation in run.get_asset_check_evaluations()
        if evaluation.passed
    }


def test_every_table_that_can_be_computed_again_has_the_three_checks(market: SmallMarket) -> None:
    made = {
        (key.asset_key.to_user_string(), key.name)
        for checks in point_in_time_checks(market.assets, PARTITIONS)
        for key in checks.check_keys
    }
    wanted = {
        (table.path, name)
        for step in steps(market.assets, PARTITIONS)
        if reason_not_recomputed(step) is None
        for table in step.tables
        for name in DESCRIPTIONS
    }
    assert made == wanted
    assert (BARS.path, NO_LOOK_AHEAD) in made
    assert (LABELS.path, SAME_ALONE) in made


def test_a_backfill_of_a_leaking_feature_stops_what_is_downstream(
    market: SmallMarket, tmp_path: Path, files: Path
) -> None:
    market = copied(market, tmp_path, files)
    leak, follower = BY_NAME["next_close"], FOLLOWERS["next_close"]
    run = market.run([leak.path, follower.path], FILLED)
    assert not run.success
    assert failures(run) == {("next_close", NO_LOOK_AHEAD), ("next_close", SAME_ALONE)}
    assert market.store.partitions(follower) == []
    (told,) = (e for e in run.get_asset_check_evaluations() if e.check_name == NO_LOOK_AHEAD)
    assert told.blocking
    assert "change when what comes later can be seen, in value" in str(told.description)
    assert "shifts by a negative number" in str(told.metadata["what_to_do"].value)
    assert "in_a_range" in str(told.metadata["sample"].value)
    right, after = BY_NAME["previous_close"], FOLLOWERS["previous_close"]
    run = market.run([right.path, after.path], FILLED)
    assert run.success
    assert passes(run) == set(DESCRIPTIONS)
    assert market.store.partitions(after) == FILLED


@pytest.mark.parametrize(
    ("name", "caught"),
    [
        ("next_close", NO_LOOK_AHEAD),
        ("scaled_by_all_history", NO_LOOK_AHEAD),
        ("average_that_never_settles", SAME_WITH_MORE_HISTORY),
        ("previous_close", None),
        ("present", None),
        ("scaled_by_the_session", None),
        ("average_over_ten_sessions", None),
    ],
)
def test_a_run_of_one_day_sees_a_leak_too(
    name: str, caught: str | None, morning: SmallMarket
) -> None:
    """The day before was stored when today did not exist, so that its rows were right."""
    run = morning.run([BY_NAME[name].path, FOLLOWERS[name].path], KEYS[-1:])
    found = {check for _, check in failures(run)}
    assert run.success == (caught is None)
    assert (caught in found) if caught else not found
    done = KEYS[-1] in morning.store.partitions(FOLLOWERS[name])
    assert done == (caught is None)


def test_an_older_session_shows_who_has_vanished_long_ago(
    morning: SmallMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between yesterday and today nobody did: the mask looks right until an older session is looked at."""
    found = {}
    for name in ("survivors", "present"):
        table = BY_NAME[name]
        assert morning.run([table.path], KEYS[-1:], checks=False).success
        for every in (10**10, 1):
            monkeypatch.setattr("quant_assets.point_in_time.checks._OLDER_EVERY", every)
            findings = judged(morning.step(table.path), morning.store, NOTHING, KEYS[-1:])
            found[name, every] = {check for (_, check), f in findings.items() if not f.passed}
    assert found["survivors", 10**10] == set()
    assert found["survivors", 1] == {NO_LOOK_AHEAD}
    assert found["present", 10**10] == found["present", 1] == set()


def test_the_whole_graph_passes_as_a_range_and_on_the_next_day(
    yesterday: SmallMarket, tmp_path: Path, files: Path
) -> None:
    market = copied(yesterday, tmp_path, files)
    ingested = [BARS.path, "market_data/quarantine", "market_data/coverage", UNIVERSE.path]
    features = [ALPHA158.path, TECHNICAL.path, "features/anomaly"]
    signals = ["signals/enhanced_momentum"]
    compared = ["performance/strategy_performance"]
    asked = ["market_data/raw_bars", "market_data/corporate_actions"]
    for keys in (FILLED[:-1], KEYS[-1:]):
        market.learn_what_is_asked(keys)
        for paths in ([*asked, *ingested, *features], signals, compared):
            run = market.run(paths, keys)
            assert run.success
            assert not failures(run)
            made = {e.asset_key.to_user_string() for e in run.get_asset_check_evaluations()}
            assert made == set(paths) - set(asked)
    run = market.run(["performance/backtest_enhanced_momentum"], [])
    assert run.success
    assert passes(run) == set(DESCRIPTIONS)
    labelled = [key for key in FILLED if key in KEYS[: -LABELS.horizon]]
    for keys in (labelled[:-1], labelled[-1:]):
        run = market.run([LABELS.path], keys)
        assert run.success
        assert passes(run) == set(DESCRIPTIONS)


@pytest.mark.parametrize(
    ("table", "column"), [(ALPHA158, "STD30"), (TECHNICAL, "gap"), (ANOMALY, "explained_by")]
)
def test_a_changed_value_and_a_lost_row_are_found(
    table: Table, column: str, market: SmallMarket, tmp_path: Path, files: Path
) -> None:
    changed = copied(market, tmp_path, files)
    key = KEYS[90]
    frame = changed.store.read(table, [key]).collect()
    first = pl.int_range(pl.len()) == 0
    other = pl.lit("gap +9.9") if table == ANOMALY else pl.col(column) * 1.001
    wrong = frame.with_columns(pl.when(first).then(other).otherwise(column).alias(column))
    changed.store.write(table, wrong, [key])
    step = changed.step(table.path)

    def found(keys: Sequence[str]) -> dict[str, bool]:
        judgement = judged(step, changed.store, NOTHING, keys)
        return {name: finding.passed for (_, name), finding in judgement.items()}

    assert found([key]) == {NO_LOOK_AHEAD: True, SAME_ALONE: False, SAME_WITH_MORE_HISTORY: True}
    finding = judged(step, changed.store, NOTHING, [key])[table.path, SAME_ALONE]
    assert finding.count == 1
    assert finding.sample is not None
    assert finding.sample.select("symbol", "column").rows() == [(frame["symbol"][0], column)]
    changed.store.write(table, frame.tail(-1), [key])
    assert not found([key])[SAME_ALONE]
    changed.store.write(table, frame, [key])
    assert all(found([key]).values())


def test_an_older_restatement_does_not_stop_the_newest_day(
    market: SmallMarket, tmp_path: Path, files: Path
) -> None:
    """What is restated is made again by its own plan; today's signals need not wait for it."""
    restated = copied(market, tmp_path, files)
    yesterday, today = KEYS[-2:]
    for table, name in ((ALPHA158, "KLEN"), (TECHNICAL, "gap")):
        frame = restated.store.read(table, [yesterday]).collect()
        restated.store.write(table, frame.with_columns(pl.col(name) * 2), [yesterday])
        findings = judged(restated.step(table.path), restated.store, NOTHING, [today])
        assert all(finding.passed for finding in findings.values()), findings
        # A run of the restated day itself would not pass.
        judgement = judged(restated.step(table.path), restated.store, NOTHING, [yesterday])
        assert not judgement[table.path, SAME_ALONE].passed


def test_a_missing_input_is_told_and_stops(
    market: SmallMarket, tmp_path: Path, files: Path
) -> None:
    incomplete = copied(market, tmp_path, files)
    (tmp_path / BARS.path / f"{KEYS[85]}.parquet").unlink()
    findings = judged(incomplete.step(ALPHA158.path), incomplete.store, NOTHING, KEYS[88:92])
    assert {finding.passed for finding in findings.values()} == {False}
    assert (
        f"market_data/bars: 1 partition(s) are missing ({KEYS[85]})"
        in findings[ALPHA158.path, NO_LOOK_AHEAD].message
    )


def test_a_later_name_of_a_member_is_no_look_into_the_future(
    market: SmallMarket, tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's list of members speaks of S7 by the name that it bears since ten sessions later."""
    renamed = copied(market, tmp_path, files)
    moment = datetime(2023, 12, 29, tzinfo=UTC)
    action = {
        "session": date.fromisoformat(KEYS[100]),
        "ex_date": date.fromisoformat(KEYS[100]),
        "symbol": "S7",
        "action_type": "name_change",
        "new_symbol": "NEW",
        "action_id": "1",
        "source": "vendor",
        "observed_at": moment,
    }
    row = pl.DataFrame([action], schema_overrides={"observed_at": pl.Datetime("us", "UTC")})
    empty = CORPORATE_ACTIONS.empty()
    renamed.store.write(
        CORPORATE_ACTIONS, pl.concat([empty, row], how="diagonal_relaxed"), [KEYS[100]]
    )
    members = tmp_path / "members.csv"
    members.write_text("symbol,start_date,end_date\nNEW,2020-01-01,\nS5,2020-01-01,\n")
    monkeypatch.setenv("QUANT_UNIVERSE_MEMBERSHIP", str(members))
    assert renamed.run([UNIVERSE.path], FILLED[:30]).success
    rows = renamed.store.read(UNIVERSE, [KEYS[90]]).collect()
    assert rows["symbol"].sort().to_list() == ["S5", "S7"]


def test_the_first_session_of_a_market_has_nothing_to_be_compared_with(
    yesterday: SmallMarket, tmp_path: Path, files: Path
) -> None:
    market = copied(yesterday, tmp_path, files)
    run = market.run([BY_NAME["previous_close"].path], KEYS[:1])
    assert run.success
    assert passes(run) == set(DESCRIPTIONS)


def test_the_sample_of_a_run_is_always_the_same(market: SmallMarket) -> None:
    step = market.step(UNIVERSE.path)
    messages = {
        judged(step, market.store, NOTHING, FILLED)[UNIVERSE.path, NO_LOOK_AHEAD].message
        for _ in range(2)
    }
    assert len(messages) == 1
    assert " 0 rows" not in messages.pop()
