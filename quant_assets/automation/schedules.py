"""The trading day by the clock of New York: explicit partitions, run keys and reasons to skip.

Off by default: the user turns them on in the UI. Declarative automation is not used, because a daily
cron would ask for Friday's session again on Sunday and on holidays, and some of these runs send orders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime

import dagster as dg

from quant_assets.automation import jobs
from quant_assets.partitions import LABEL_HORIZON, TIMEZONE, Partitions
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.tables import Grain


@dataclass(frozen=True)
class DailyStep:
    """One scheduled step of a trading day.

    Attributes:
        job: Job to run.
        grain: Grain of its partitions.
        cron: When, in New York time, every weekday.
        partition: From the trading session of today to the partition to run, or a reason to skip.
    """

    job: str
    grain: Grain
    cron: str
    partition: Callable[[date], date | str]


def _previous(today: date) -> date:
    return XNYS.previous(today)


def _labelled(today: date) -> date:
    return XNYS.offset(XNYS.previous(today), -LABEL_HORIZON)


def _new_month(today: date) -> date | str:
    session = XNYS.previous(today)
    if XNYS.previous(session).month == session.month:
        return f"the model of {session:%Y-%m} is trained before the month's first signals only"
    return session.replace(day=1)


def _today(today: date) -> date:
    return today


STEPS: tuple[DailyStep, ...] = (
    DailyStep(jobs.INGEST, "session", "0 7 * * 1-5", _previous),
    DailyStep(jobs.LABEL, "labelled_session", "30 7 * * 1-5", _labelled),
    DailyStep(jobs.TRAIN, "month", "40 7 * * 1-5", _new_month),
    DailyStep(jobs.SIGNAL, "session", "0 8 * * 1-5", _previous),
    DailyStep(jobs.COMPARE, "session", "15 8 * * 1-5", _previous),
    DailyStep(jobs.TRADE, "trading_session", "0 9 * * 1-5", _today),
    DailyStep(jobs.SETTLE, "trading_session", "0 18 * * 1-5", _today),
)


def requested(step: DailyStep, now: datetime, partitions: Partitions) -> dg.RunRequest | str:
    """What a step asks for at a moment: one run of one partition, or the reason to skip.

    Args:
        step: Step of the day.
        now: Aware time of the tick.
        partitions: Partition definitions of the market.
    """
    today = now.astimezone(NEW_YORK).date()
    if not XNYS.is_session(today):
        return f"{today} is no trading session."
    answer = step.partition(today)
    if isinstance(answer, str):
        return f"{today}: {answer}."
    definition = partitions.of(step.grain)
    key = answer.isoformat()
    if definition is None or not definition.has_partition_key(key):
        return f"{key} lies outside the market of this data root; job {step.job} has nothing to do."
    return dg.RunRequest(run_key=f"{step.job}-{key}", partition_key=key)


def schedules(partitions: Partitions, known: Mapping[str, object]) -> list[dg.ScheduleDefinition]:
    """One schedule per step whose job exists, stopped by default."""
    return [_schedule(step, partitions) for step in STEPS if step.job in known]


def _schedule(step: DailyStep, partitions: Partitions) -> dg.ScheduleDefinition:
    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        answer = requested(step, context.scheduled_execution_time, partitions)
        return dg.SkipReason(answer) if isinstance(answer, str) else answer

    return dg.ScheduleDefinition(
        name=f"daily_{step.job}",
        job_name=step.job,
        cron_schedule=step.cron,
        execution_timezone=TIMEZONE,
        execution_fn=evaluate,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"Job {step.job} on trading days ({step.cron}, New York).",
    )
