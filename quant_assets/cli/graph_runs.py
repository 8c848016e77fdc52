"""Running jobs of the graph in this process: what is missing is run, what failed is said.

Belongs here: from a job and its partitions to a Dagster run and its outcome. Which jobs make a day is
`trading_day.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from time import perf_counter

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from quant_assets.partitions import range_tags, years
from quant_resources.errors import QuantError

#: Called with what is being done and how much of it is done, 0 to 1.
Progress = Callable[[str, float], None]


class RunFailedError(QuantError):
    """A run of the graph failed; the message names the first failed step and its reason."""


@dataclass
class Tally:
    """What the runs of this process did.

    Attributes:
        runs: How many runs were made.
        checks_passed: Check evaluations that passed.
        checks_failed: Sentences of those that did not.
        failed_steps: Sentences of steps that failed without stopping the work.
        seconds: Wall time by job.
    """

    runs: int = 0
    checks_passed: int = 0
    checks_failed: list[str] = field(default_factory=list)
    failed_steps: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


class GraphRunner:
    """Runs jobs of one Definitions object on one Dagster instance, one after another.

    Args:
        definitions: The graph.
        instance: Where runs and events are recorded.
        progress: Told about every run.
    """

    def __init__(
        self, definitions: dg.Definitions, instance: dg.DagsterInstance, progress: Progress
    ) -> None:
        self.definitions = definitions
        self.instance = instance
        self.tally = Tally()
        self._progress = progress

    def missing(self, job: str, keys: Sequence[str]) -> list[str]:
        """Those of the keys that at least one asset of the job has not materialized, ascending."""
        done: set[str] | None = None
        for asset in self._assets(job):
            stored = self.instance.get_materialized_partitions(asset)
            done = stored if done is None else done & stored
        return [key for key in keys if done is None or key not in done]

    def never_made(self, job: str) -> bool:
        """Whether an asset of the job (of unpartitioned ones) has never been materialized."""
        return any(
            self.instance.get_latest_materialization_event(asset) is None
            for asset in self._assets(job)
        )

    def check_counts(self) -> tuple[int, int]:
        """How many checks of the graph passed and failed when they were last evaluated."""
        keys = sorted(self.definitions.resolve_asset_graph().asset_check_keys)
        newest = self.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
        passed = [
            record.status == AssetCheckExecutionRecordStatus.SUCCEEDED for record in newest.values()
        ]
        return passed.count(True), passed.count(False)

    def ensure(self, job: str, keys: Sequence[str], optional: Iterable[str] = ()) -> None:
        """Run a job for the partitions that are missing, neighbours together, at most a year a run.

        Args:
            job: Job name.
            keys: Partitions wanted, ascending and without gaps.
            optional: Asset paths whose failure is told but does not stop the work (a strategy).

        Raises:
            RunFailedError: A step failed that is not optional, or a blocking check did.
        """
        missing = set(self.missing(job, keys))
        for stretch in stretches(keys, missing):
            for chunk in years(stretch):
                self.run(job, chunk, optional)

    def run(self, job: str, keys: Sequence[str], optional: Iterable[str] = ()) -> None:
        """Run a job for neighbouring partitions (none for unpartitioned assets).

        Raises:
            RunFailedError: See `ensure`.
        """
        started = perf_counter()
        label = f"{job} {_span(keys)}".strip()
        self._progress(label, 0.0)
        tags = dict(range_tags(list(keys))) if len(keys) > 1 else {}
        result = self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=keys[0] if len(keys) == 1 else None,
            tags=tags,
            # The command shows its own progress; the event log in PostgreSQL keeps everything.
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
        self.tally.runs += 1
        self.tally.seconds[job] = self.tally.seconds.get(job, 0.0) + perf_counter() - started
        self._progress(label, 1.0)
        self._judge(label, result, set(optional))

    def _judge(self, label: str, result: dg.ExecuteInProcessResult, optional: set[str]) -> None:
        for evaluation in result.get_asset_check_evaluations():
            if evaluation.passed:
                self.tally.checks_passed += 1
                continue
            path = evaluation.asset_key.to_user_string()
            told = f"{label}: check {path}:{evaluation.check_name}: {evaluation.description}"
            self.tally.checks_failed.append(told)
            if evaluation.blocking and path not in optional:
                remedy = evaluation.metadata.get("what_to_do")
                raise RunFailedError(f"{told} {remedy.value if remedy else ''}".strip())
        failures = [
            (event.step_key or "", _reason(event))
            for event in result.all_events
            if event.is_step_failure
        ]
        for step, reason in failures:
            path = step.replace("__", "/", 1)
            told = f"{label}: {path} failed: {reason}"
            if path not in optional:
                raise RunFailedError(told)
            self.tally.failed_steps.append(told)
        if not result.success and not failures and not self.tally.checks_failed:
            raise RunFailedError(f"{label}: the run failed; look at it in `quant dev`.")

    def _assets(self, job: str) -> list[dg.AssetKey]:
        layer = self.definitions.resolve_job_def(job).asset_layer
        return sorted(layer.executable_asset_keys)


def _reason(event: dg.DagsterEvent) -> str:
    error = event.step_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return "no reason given"
    # "package.module.SomeError: sentence" → "sentence"
    text = error.message.strip()
    head, _, tail = text.partition(": ")
    return tail if tail and " " not in head else text


def stretches(keys: Sequence[str], wanted: set[str]) -> list[list[str]]:
    """The wanted keys, those together that are neighbours in `keys`."""
    grouped = groupby(keys, key=lambda key: key in wanted)
    return [list(neighbours) for is_wanted, neighbours in grouped if is_wanted]


def _span(keys: Sequence[str]) -> str:
    if not keys:
        return ""
    return keys[0] if len(keys) == 1 else f"{keys[0]} … {keys[-1]}"
