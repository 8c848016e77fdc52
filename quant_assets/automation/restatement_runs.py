"""Which runs a restatement plan needs next: what the sensor asks for at each look.

Belongs here: from the journal and the runs so far to run requests. Does not belong here: the plan
(restatements.py) and its file (restatement_journal.py).

1. The runs of one step are asked for together; the next step waits until all of them have succeeded, because
   it reads what they store.
2. The journal counts an attempt before its run is asked for. Where no run of the attempt is found, the tick
   was lost before Dagster heard of it, and the same request (and run key) is made again.
3. A run that failed is asked for `MAXIMUM_ATTEMPTS` times in all; then the plan stands still and says so,
   until someone has mended the cause and runs `quant data refetch`, or the source restates again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import dagster as dg

from quant_assets.automation.restatement_journal import Journal, PlannedRun, Restatement, Step
from quant_assets.partitions import range_tags

MAXIMUM_ATTEMPTS: Final = 3
#: Run tags: the plan, which of its runs, and which attempt.
PLAN_TAG: Final = "quant/restatement"
RUN_TAG: Final = "quant/restatement_run"
ATTEMPT_TAG: Final = "quant/restatement_attempt"


@dataclass(frozen=True)
class Look:
    """What one look at a plan found.

    Attributes:
        journal: The journal to write before anything is asked for.
        requests: Runs to ask for, all of one step.
        told: One or two sentences for the person who reads the ticks.
    """

    journal: Journal
    told: str
    requests: list[dg.RunRequest] = field(default_factory=list)


def look(journal: Journal, instance: dg.DagsterInstance) -> Look:
    """Go on with the current plan by what has become of its runs.

    Args:
        journal: The journal; it is not changed.
        instance: Where the runs are recorded.
    """
    updated = journal.model_copy(deep=True)
    plan = updated.current
    if plan is None:
        return Look(updated, "No session has been restated or released since the last plan.")
    for place, step in enumerate(plan.steps):
        answer = _go_on(plan, place, instance)
        if answer.requests:
            return Look(updated, f"{plan.reason} {answer.told}", answer.requests)
        if not step.done:
            return Look(updated, answer.told)
    updated.current = None
    return Look(updated, f"{plan.reason} {finished(plan)}")


def finished(plan: Restatement) -> str:
    """What a plan that has been carried out did, and what it left as it was."""
    made = ", ".join(f"{table} ({_counted(step)})" for step in plan.steps for table in step.tables)
    kept = "".join(
        f" {table} of {len(months)} month(s) from {months[0]} was trained on what was known then, and stays."
        for table, months in plan.kept.items()
    )
    return f"Made again: {made}.{kept}"


def running(plan: Restatement, instance: dg.DagsterInstance) -> dg.DagsterRun | None:
    """A run that the sensor asked for and that has not ended, if there is one."""
    runs = instance.get_runs(dg.RunsFilter(tags={PLAN_TAG: plan.name}))
    return next((run for run in runs if not run.is_finished), None)


def mark_done(plan: Restatement, instance: dg.DagsterInstance) -> None:
    """Mark what the sensor has asked for and what has succeeded since its last look."""
    for place, step in enumerate(plan.steps):
        for number, run in enumerate(step.runs):
            last = None if run.done else _newest(plan, _label(place, number), run, instance)
            run.done |= last is not None and last.is_success


def _label(step: int, run: int) -> str:
    return f"{step + 1}.{run + 1}"


@dataclass(frozen=True)
class _Answer:
    told: str
    requests: list[dg.RunRequest] = field(default_factory=list)


def _go_on(plan: Restatement, place: int, instance: dg.DagsterInstance) -> _Answer:
    """Mark what is done of a step, and ask for what is not."""
    step = plan.steps[place]
    requests: list[dg.RunRequest] = []
    failed: list[PlannedRun] = []
    for number, run in enumerate(step.runs):
        if run.done:
            continue
        label = _label(place, number)
        last = _newest(plan, label, run, instance)
        if last is not None and last.is_success:
            run.done = True
        elif last is not None and not last.is_finished:
            continue
        elif last is not None and run.attempts >= MAXIMUM_ATTEMPTS:
            failed.append(run)
        else:
            run.attempts += 1 if run.attempts == 0 or last is not None else 0
            requests.append(_request(plan, step, run, label))
    tables = " and ".join(step.tables)
    if requests:
        return _Answer(f"Step {place + 1} of {len(plan.steps)}: {tables}.", requests)
    if failed:
        return _Answer(
            f"{tables} failed {MAXIMUM_ATTEMPTS} times for {_span(failed[0].keys)}, the plan stands still: mend "
            "the cause (see the failed run), then `quant data refetch` goes on with it."
        )
    return _Answer(
        f"Step {place + 1} of {len(plan.steps)}: {tables} is running ({plan.reason})"
        if not step.done
        else ""
    )


def _newest(
    plan: Restatement, label: str, run: PlannedRun, instance: dg.DagsterInstance
) -> dg.DagsterRun | None:
    if run.attempts == 0:
        return None
    tags = {PLAN_TAG: plan.name, RUN_TAG: label, ATTEMPT_TAG: str(run.attempts)}
    return next(iter(instance.get_runs(dg.RunsFilter(tags=tags), limit=1)), None)


def _request(plan: Restatement, step: Step, run: PlannedRun, label: str) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"restatement-{plan.name}-{label}-{run.attempts}",
        job_name=step.job,
        partition_key=run.keys[0] if len(run.keys) == 1 else None,
        asset_selection=[dg.AssetKey(path.split("/")) for path in step.tables],
        tags={
            PLAN_TAG: plan.name,
            RUN_TAG: label,
            ATTEMPT_TAG: str(run.attempts),
            **(range_tags(run.keys) if len(run.keys) > 1 else {}),
        },
    )


def _counted(step: Step) -> str:
    count = sum(len(run.keys) for run in step.runs)
    return f"{count} session(s)" if count else "all of it"


def _span(keys: list[str]) -> str:
    if not keys:
        return "all of it"
    return keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]}"
