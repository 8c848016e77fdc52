"""The trading day by the clock of New York: explicit partitions, run keys and reasons to skip.

Off by default: the user turns them on in the UI. Declarative automation is not used, because a daily
cron would ask for Friday's session again on Sunday and on holidays, and some of these runs send orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime

import dagster as dg

from quant_assets.automation import jobs
from quant_assets.automation.refetching import refetch_runs, sessions_due
from quant_assets.partitions import TIMEZONE, Partitions, range_tags
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.store import Store
from quant_resources.tables import Grain, Table

#: After the newest session has been asked for, before anything is computed from it.
REFETCH_CRON = "15 7 * * 1-5"
#: When the newest session is due, and again until the open, so that what came late turns it green.
FRESHNESS_CRON = "30 7-9 * * 1-5"


@dataclass(frozen=True)
class DailyStep:
    """One scheduled step of a trading day.

    Attributes:
        job: Job to run.
        grain: Grain of its partitions.
        cron: When, in New York time, every weekday.
        partition: From the trading session of today to the partition to run, or a reason to skip.
        horizon: Of labels: after how many sessions they are known.
    """

    job: str
    grain: Grain
    cron: str
    partition: Callable[[date], date | str]
    horizon: int = 0


def _previous(today: date) -> date:
    return XNYS.previous(today)


def _labelled(horizon: int) -> Callable[[date], date]:
    return lambda today: XNYS.offset(XNYS.previous(today), -horizon)


def _new_month(today: date) -> date | str:
    session = XNYS.previous(today)
    if XNYS.previous(session).month == session.month:
        return f"the model of {session:%Y-%m} is trained before the month's first signals only"
    return session.replace(day=1)


def _today(today: date) -> date:
    return today


def daily_steps(tables: Iterable[Table]) -> tuple[DailyStep, ...]:
    """The steps of a day in their order, those of labels one per horizon."""
    labels = (
        DailyStep(job, "labelled_session", "30 7 * * 1-5", _labelled(horizon), horizon)
        for job, horizon in jobs.label_jobs(table.horizon for table in tables).items()
    )
    return (
        DailyStep(jobs.INGEST, "session", "0 7 * * 1-5", _previous),
        *labels,
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
    definition = partitions.of_grain(step.grain, step.horizon)
    key = answer.isoformat()
    if definition is None or not definition.has_partition_key(key):
        return f"{key} lies outside the market of this data root; job {step.job} has nothing to do."
    return dg.RunRequest(run_key=f"{step.job}-{key}", partition_key=key)


def refetch_requests(
    store: Store, instance: dg.DagsterInstance, now: datetime
) -> list[dg.RunRequest] | str:
    """What the daily refetch asks for: a run per stretch of sessions, or the reason to skip.

    Args:
        store: The data root.
        instance: Knows when each session was fetched last.
        now: Aware time of the tick.
    """
    today = now.astimezone(NEW_YORK).date()
    if not XNYS.is_session(today):
        return f"{today} is no trading session."
    due = sessions_due(store, instance, XNYS.previous(today))
    if not due:
        return f"{today}: no session has been fetched yet that could have been restated."
    return [
        dg.RunRequest(
            run_key=f"{jobs.REFETCH}-{today}-{keys[0]}",
            partition_key=keys[0] if len(keys) == 1 else None,
            tags=range_tags(keys) if len(keys) > 1 else None,
        )
        for keys in refetch_runs(store, due)
    ]


def freshness_request(now: datetime) -> dg.RunRequest | str:
    """What a tick of the freshness schedule asks for: one run, or the reason to skip.

    Args:
        now: Aware time of the tick.
    """
    local = now.astimezone(NEW_YORK)
    if not XNYS.is_session(local.date()):
        return f"{local:%Y-%m-%d} is no trading session."
    return dg.RunRequest(run_key=f"{jobs.FRESHNESS}-{local:%Y-%m-%dT%H:%M}")


def schedules(
    partitions: Partitions, tables: Iterable[Table], known: Mapping[str, object]
) -> list[dg.ScheduleDefinition]:
    """One schedule per step whose job exists, stopped by default."""
    daily = [_schedule(step, partitions) for step in daily_steps(tables) if step.job in known]
    return [
        *daily,
        *([_daily_refetch()] if jobs.REFETCH in known else []),
        *([_daily_freshness()] if jobs.FRESHNESS in known else []),
    ]


def _daily_refetch() -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"daily_{jobs.REFETCH}",
        job_name=jobs.REFETCH,
        cron_schedule=REFETCH_CRON,
        execution_timezone=TIMEZONE,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=(
            "Fetches the two sessions before the newest again, and older ones with gaps; what they restate is "
            "made again by the sensor `restatements`."
        ),
    )
    def daily_refetch(
        context: dg.ScheduleEvaluationContext, store: dg.ResourceParam[Store]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        answer = refetch_requests(store, context.instance, context.scheduled_execution_time)
        return dg.SkipReason(answer) if isinstance(answer, str) else answer

    return daily_refetch


def _daily_freshness() -> dg.ScheduleDefinition:
    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        answer = freshness_request(context.scheduled_execution_time)
        return dg.SkipReason(answer) if isinstance(answer, str) else answer

    return dg.ScheduleDefinition(
        name=f"daily_{jobs.FRESHNESS}",
        job_name=jobs.FRESHNESS,
        cron_schedule=FRESHNESS_CRON,
        execution_timezone=TIMEZONE,
        execution_fn=evaluate,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Checks that the bars of the session before are stored by 07:30 New York.",
    )


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
