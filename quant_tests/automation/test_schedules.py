"""A walk through days: what each schedule asks for, and why it skips."""

from __future__ import annotations

from datetime import date, datetime

import dagster as dg
import pytest

from quant_assets.automation import jobs
from quant_assets.automation.schedules import (
    FRESHNESS_CRON,
    daily_steps,
    freshness_request,
    requested,
)
from quant_assets.features.schemas import TABLES, label_table
from quant_assets.market_data.freshness import due_at
from quant_assets.market_span import MarketSpan
from quant_assets.partitions import partitions_for
from quant_resources.calendar import NEW_YORK

STEPS = daily_steps(TABLES)
SPAN = MarketSpan(
    first_session=date(2022, 1, 3),
    last_session=date(2024, 12, 31),
    first_trading_session=date(2023, 11, 1),
)
PARTITIONS = partitions_for(SPAN)


def asked(day: date) -> dict[str, str]:
    """Job to partition key, for the ticks of one day; skipped jobs are absent."""
    answers = {}
    for step in STEPS:
        minute, hour = step.cron.split()[:2]
        tick = datetime(day.year, day.month, day.day, int(hour), int(minute), tzinfo=NEW_YORK)
        answer = requested(step, tick, PARTITIONS)
        if isinstance(answer, dg.RunRequest):
            assert answer.run_key == f"{step.job}-{answer.partition_key}"
            answers[step.job] = answer.partition_key
    return answers


def test_thanksgiving_week() -> None:
    wednesday = asked(date(2023, 11, 22))
    assert wednesday["signal"] == "2023-11-21"
    assert wednesday["trade"] == wednesday["settle"] == "2023-11-22"
    assert asked(date(2023, 11, 23)) == {}
    half_day = asked(date(2023, 11, 24))
    assert half_day["ingest"] == "2023-11-22"
    assert half_day["label"] == "2023-11-20"
    # Bought at the next close and held over 5 and 20 sessions.
    assert half_day["label_5"] == "2023-11-14"
    assert half_day["label_20"] == "2023-10-24"
    assert half_day["trade"] == "2023-11-24"
    assert asked(date(2023, 11, 25)) == asked(date(2023, 11, 26)) == {}
    assert asked(date(2023, 11, 27))["signal"] == "2023-11-24"


def test_a_further_horizon_is_a_further_table() -> None:
    """One number gives it a job and a step of the day; a run holds partitions of one horizon only."""
    more = (*TABLES, label_table(3))
    known = {job.name: job for job in jobs.jobs(more)}
    assert {"label", "label_3", "label_5", "label_20"} <= set(known)
    (step,) = (step for step in daily_steps(more) if step.job == "label_3")
    tick = datetime(2023, 11, 24, 7, 30, tzinfo=NEW_YORK)
    answer = requested(step, tick, PARTITIONS)
    assert isinstance(answer, dg.RunRequest)
    assert answer.partition_key == "2023-11-16"
    assert jobs.repeated_jobs(more) == {"ingest", "label", "label_3", "label_5", "label_20"}


def test_new_year() -> None:
    assert asked(date(2023, 12, 29))["signal"] == "2023-12-28"
    assert asked(date(2024, 1, 1)) == {}
    second = asked(date(2024, 1, 2))
    assert second["signal"] == "2023-12-29"
    assert "train" not in second
    third = asked(date(2024, 1, 3))
    # The first session of January is signalled next morning, by January's model.
    assert third["train"] == "2024-01-01"
    assert third["signal"] == "2024-01-02"
    assert "train" not in asked(date(2024, 1, 4))


def test_outside_the_market_is_a_reason_not_a_run() -> None:
    assert asked(date(2025, 6, 2)) == {}
    assert "trade" not in asked(date(2023, 6, 1))


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.job)
def test_a_skip_says_why(step: object) -> None:
    answer = requested(step, datetime(2023, 11, 23, 9, tzinfo=NEW_YORK), PARTITIONS)  # pyright: ignore[reportArgumentType]
    assert answer == "2023-11-23 is no trading session."


def test_freshness_is_judged_from_the_moment_data_are_due_until_the_open() -> None:
    """Nothing on holidays; every tick is a run of its own, so that what came late turns it green."""
    ticks = [datetime(2023, 11, 24, hour, 30, tzinfo=NEW_YORK) for hour in (7, 8, 9)]
    answers = [freshness_request(tick) for tick in ticks]
    assert FRESHNESS_CRON == "30 7-9 * * 1-5"
    assert due_at(date(2023, 11, 22)) == ticks[0]
    assert [
        (answer.run_key, answer.partition_key)
        for answer in answers
        if isinstance(answer, dg.RunRequest)
    ] == [(f"freshness-2023-11-24T0{hour}:30", None) for hour in (7, 8, 9)]
    thanksgiving = datetime(2023, 11, 23, 7, 30, tzinfo=NEW_YORK)
    assert freshness_request(thanksgiving) == "2023-11-23 is no trading session."
