"""Running jobs of the graph in this process: what is missing is run, what failed is said.

Belongs here: from a job and its partitions to a Dagster run and its outcome. Which jobs make a day is
`trading_day.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from quant_assets.automation.jobs import label_jobs
from quant_assets.partitions import HORIZON_METADATA, range_tags, stretches, years
from quant_assets.table_checks import FIRST_PARTITION, LAST_PARTITION
from quant_resources.errors import QuantError

#: Evaluations of a check that are looked through for what it last said of a partition.
_HISTORY = 1000
#: A run of more tables than this is named after its job alone.
_TABLES_NAMED = 3
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
        checks_failed: Asset and check to the sentences of its failures, oldest first.
        failed_steps: Sentences of steps that failed without stopping the work.
        seconds: Wall time by job.
    """

    runs: int = 0
    checks_passed: int = 0
    checks_failed: dict[str, list[str]] = field(default_factory=dict)
    failed_steps: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def sentences(self) -> list[str]:
        """What did not pass, a line per check with its newest failure and how often it failed."""
        checks = [
            told[-1] if len(told) == 1 else f"{told[-1]} ({len(told)} times, this is the newest)"
            for told in self.checks_failed.values()
        ]
        return [*checks, *self.failed_steps]


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
        self.last_run_id = ""
        self._progress = progress

    def done(self, job: str, key: str) -> bool:
        """Whether every asset of a job has made a partition that no check refuses."""
        return not self.missing(self._assets(job), [key])

    def missing(self, assets: Sequence[dg.AssetKey], keys: Sequence[str]) -> list[str]:
        """Those of the keys for which there is work left, ascending.

        That is: an asset has not materialized them, or its newest blocking check has refused them.
        """
        done: set[str] | None = None
        for asset in assets:
            stored = self.instance.get_materialized_partitions(asset)
            done = stored if done is None else done & stored
        refused = self._refused(assets, keys)
        return [key for key in keys if (done is not None and key not in done) or key in refused]

    def never_made(self, job: str) -> bool:
        """Whether an asset of the job (of unpartitioned ones) has never been materialized."""
        return any(
            self.instance.get_latest_materialization_event(asset) is None
            for asset in self._assets(job)
        )

    def label_horizons(self) -> dict[str, int]:
        """The graph's jobs of labels and after how many sessions theirs are known, the shortest first."""
        nodes = self.definitions.resolve_asset_graph().asset_nodes
        return label_jobs(int(node.metadata.get(HORIZON_METADATA, 0)) for node in nodes)

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
        forgiven = set(optional)
        work: dict[tuple[str, ...], list[dg.AssetKey]] = {}
        required = [a for a in self._assets(job) if a.to_user_string() not in forgiven]
        if required:
            work[tuple(self.missing(required, keys))] = required
        # What may fail has its own account of what is missing, so that one that fails always does
        # not make the others again.
        for asset in self._assets(job):
            if asset not in required:
                work.setdefault(tuple(self.missing([asset], keys)), []).append(asset)
        for missing, selected in work.items():
            for stretch in stretches(keys, set(missing)):
                for chunk in years(stretch):
                    self.run(job, chunk, forgiven, selected)

    def run(
        self,
        job: str,
        keys: Sequence[str],
        optional: Iterable[str] = (),
        selected: Sequence[dg.AssetKey] | None = None,
        config: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Run a job for neighbouring partitions (none for unpartitioned assets).

        Args:
            job: Job name.
            keys: Partitions to make.
            optional: Asset paths whose failure does not stop the work.
            selected: Assets of the job; all by default.
            config: Asset path to its configuration; the defaults where it names none.

        Raises:
            RunFailedError: See `ensure`.
        """
        started = perf_counter()
        label = f"{self._named(job, selected)} {_span(keys)}".strip()
        self._progress(label, 0.0)
        tags = dict(range_tags(list(keys))) if len(keys) > 1 else {}
        result = self._job(job, selected).execute_in_process(
            instance=self.instance,
            partition_key=keys[0] if len(keys) == 1 else None,
            tags=tags,
            # The command shows its own progress; the event log in PostgreSQL keeps everything.
            run_config={
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                "ops": {
                    path.replace("/", "__"): {"config": dict(values)}
                    for path, values in (config or {}).items()
                },
            },
            raise_on_error=False,
        )
        self.last_run_id = result.run_id
        self.tally.runs += 1
        self.tally.seconds[job] = self.tally.seconds.get(job, 0.0) + perf_counter() - started
        self._progress(label, 1.0)
        self._judge(label, result, set(optional))

    def _refused(self, assets: Sequence[dg.AssetKey], keys: Sequence[str]) -> set[str]:
        """Those of the keys whose newest evaluation of a blocking check did not pass.

        An evaluation that was only planned, because its run died, says nothing.
        """
        graph = self.definitions.resolve_asset_graph()
        storage = self.instance.event_log_storage
        refused: set[str] = set()
        for check in sorted(graph.get_check_keys_for_assets(set(assets))):
            if not graph.get(check).blocking:
                continue
            failed = storage.get_asset_check_execution_history(
                check, _HISTORY, status={AssetCheckExecutionRecordStatus.FAILED}
            )
            if not failed:
                continue
            passed = storage.get_asset_check_execution_history(
                check, _HISTORY, status={AssetCheckExecutionRecordStatus.SUCCEEDED}
            )
            decided: set[str] = set()
            for record in sorted([*failed, *passed], key=lambda record: record.id, reverse=True):
                if not isinstance(record.evaluation, dg.AssetCheckEvaluation):
                    continue
                seen = set(_looked_at(record.evaluation, keys)) - decided
                decided |= seen
                if not record.evaluation.passed:
                    refused |= seen
        return refused

    def _judge(self, label: str, result: dg.ExecuteInProcessResult, optional: set[str]) -> None:
        if any(event.is_step_failure and _is_interruption(event) for event in result.all_events):
            # Dagster turns Ctrl-C into a failed step; it is nobody's failure.
            raise KeyboardInterrupt
        for evaluation in result.get_asset_check_evaluations():
            if evaluation.passed:
                self.tally.checks_passed += 1
                continue
            path = evaluation.asset_key.to_user_string()
            check = f"{path}:{evaluation.check_name}"
            told = f"{label}: check {check}: {evaluation.description}"
            self.tally.checks_failed.setdefault(check, []).append(told)
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

    def _job(self, job: str, selected: Sequence[dg.AssetKey] | None) -> dg.JobDefinition:
        whole = self.definitions.resolve_job_def(job)
        if selected is None:
            return whole
        # Named, since Dagster would take every check of the assets, those that the job leaves out too.
        checks = whole.asset_layer.asset_graph.asset_check_keys
        return whole.get_subset(
            asset_selection=set(selected),
            asset_check_selection={key for key in checks if key.asset_key in selected},
        )

    def _named(self, job: str, selected: Sequence[dg.AssetKey] | None) -> str:
        """The job, or the few of its tables that are made."""
        if selected is None or len(selected) > _TABLES_NAMED:
            return job
        if set(selected) == set(self._assets(job)):
            return job
        return f"{job} ({', '.join(key.path[-1] for key in selected)})"

    def _assets(self, job: str) -> list[dg.AssetKey]:
        layer = self.definitions.resolve_job_def(job).asset_layer
        return sorted(layer.executable_asset_keys)


def _is_interruption(event: dg.DagsterEvent) -> bool:
    error = event.step_failure_data.error
    while error is not None:
        if error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt"):
            return True
        error = error.cause
    return False


def _looked_at(evaluation: dg.AssetCheckEvaluation, keys: Sequence[str]) -> list[str]:
    ends = [evaluation.metadata.get(name) for name in (FIRST_PARTITION, LAST_PARTITION)]
    first, last = (str(end.value) if end is not None else "" for end in ends)
    return [key for key in keys if first <= key <= last]


def _reason(event: dg.DagsterEvent) -> str:
    error = event.step_failure_data.error
    # Ours says what to do; what lies under it is the words of a parser or a driver.
    while (
        error is not None
        and error.cause is not None
        and (error.cls_name or "").startswith("Dagster")
    ):
        error = error.cause
    if error is None:
        return "no reason given"
    # "package.module.SomeError: sentence" → "sentence"
    text = error.message.strip()
    head, _, tail = text.partition(": ")
    return tail if tail and " " not in head else text


def _span(keys: Sequence[str]) -> str:
    if not keys:
        return ""
    return keys[0] if len(keys) == 1 else f"{keys[0]} … {keys[-1]}"
