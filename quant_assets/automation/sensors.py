"""The sensors: what happened to our orders, and what a vendor restated, without anyone asking.

Both are off by default. Schedules are in `schedules.py`.

Each look of ``order_updates`` is one pass of the order protocol: fills and corrections are booked, second
legs and purchases that waited for them are sent, what is past its deadline ends. What changes is shown as
a preview of the session's evidence, and after the close it is asked for for good (evidence_requests.py).

Each look of ``restatements`` goes on with one plan: the tables that no longer follow from the newest
deliveries are asked for, one after another, and nothing else (restatements.py).
"""

from collections.abc import Iterable, Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import PARTITION_NAME_TAG

from quant_assets.automation import jobs
from quant_assets.automation.evidence_requests import Asked, decide
from quant_assets.automation.failed_checks import failed_checks_sensor
from quant_assets.automation.restatement_journal import (
    held_journal,
    read_journal,
    write_journal,
)
from quant_assets.automation.restatement_runs import look, mark_done, running
from quant_assets.automation.restatements import renewed
from quant_assets.orders.policy import TradingPolicy
from quant_assets.orders.submission import run_pass
from quant_assets.orders.trading_desk import PassReport
from quant_assets.orders.trading_sessions import session_to_settle
from quant_assets.partitions import Partitions
from quant_resources.broker import Broker
from quant_resources.ledger.ledger import Ledger, LedgerBusyError
from quant_resources.store import Store
from quant_resources.tables import Table

_SECONDS_BETWEEN_LOOKS = 60
_SECONDS_BETWEEN_STEPS = 30


def sensors(
    partitions: Partitions,
    tables: Iterable[Table],
    known: Sequence[UnresolvedAssetJobDefinition],
) -> list[dg.SensorDefinition]:
    """All sensors of the graph, stopped by default.

    Args:
        partitions: Partition definitions of the market.
        tables: Every table of the graph.
        known: The jobs of the graph.
    """
    repeated = jobs.repeated_jobs(tables)
    return [
        _order_updates(partitions),
        failed_checks_sensor(),
        _restatements([job for job in known if job.name in repeated]),
    ]


def _restatements(repeated: Sequence[UnresolvedAssetJobDefinition]) -> dg.SensorDefinition:
    @dg.sensor(
        name="restatements",
        jobs=repeated,
        minimum_interval_seconds=_SECONDS_BETWEEN_STEPS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=(
            "Makes again what no longer follows from the newest deliveries and releases: exactly the "
            "affected sessions, one table after another."
        ),
    )
    def restatements(
        context: dg.SensorEvaluationContext, store: dg.ResourceParam[Store]
    ) -> dg.SensorResult | dg.SkipReason:
        definitions = context.repository_def
        if definitions is None:
            return dg.SkipReason("The graph is not loaded; look again.")
        with held_journal(store, seconds=0) as held:
            if not held:
                return dg.SkipReason("A command works on the plan.")
            written = read_journal(store)
            journal = written.model_copy(deep=True)
            plan = journal.current
            if plan is not None:
                mark_done(plan, context.instance)
            if plan is None or running(plan, context.instance) is None:
                # What is running must end first: a new plan could ask for the same partitions.
                journal = renewed(journal, store, definitions.asset_graph, context.instance)
            found = look(journal, context.instance)
            if found.journal != written:
                write_journal(store, found.journal)
        if not found.requests:
            return dg.SkipReason(found.told)
        context.log.info(found.told)
        return dg.SensorResult(run_requests=found.requests)

    return restatements


def _order_updates(partitions: Partitions) -> dg.SensorDefinition:
    @dg.sensor(
        name="order_updates",
        job_name=jobs.SETTLE,
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=(
            "Books fills and corrections, sends what was waiting for them, ends what has expired; shows "
            "the session's evidence as it changes, and settles it once it has closed."
        ),
    )
    def order_updates(
        context: dg.SensorEvaluationContext,
        ledger: dg.ResourceParam[Ledger],
        broker: dg.ResourceParam[Broker],
        trading_policy: dg.ResourceParam[TradingPolicy],
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            done = run_pass(ledger, broker, trading_policy)
        except LedgerBusyError as error:
            return dg.SkipReason(str(error))
        clock = broker.clock()
        key = session_to_settle(clock).isoformat()
        told = (
            f"{done.booked} fills and {done.corrections} corrections booked, {done.sent} sent, "
            f"{done.adopted} adopted, {done.expired} expired, {done.left} left"
        )
        if not partitions.trading_session.has_partition_key(key):
            return dg.SkipReason(f"{told}; {key} lies outside the market of this data root.")
        decision = decide(
            Asked.read(context.cursor),
            key,
            clock.now,
            changed=_has_news(done),
            running=_is_made(context.instance, key),
        )
        cursor = decision.asked.model_dump_json()
        if decision.run_name is None:
            return dg.SensorResult(
                skip_reason=dg.SkipReason(f"{told}; {decision.reason}."), cursor=cursor
            )
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(run_key=f"{jobs.SETTLE}-{decision.run_name}", partition_key=key)
            ],
            cursor=cursor,
        )

    return order_updates


def _has_news(done: PassReport) -> bool:
    """Whether the session's evidence would show something else than before."""
    return any((done.booked, done.corrections, done.changed, done.adopted, done.sent))


def _is_made(instance: dg.DagsterInstance, key: str) -> bool:
    """Whether a run that makes the session's evidence has been started and not ended."""
    unfinished = dg.RunsFilter(
        job_name=jobs.SETTLE,
        statuses=list(NOT_FINISHED_STATUSES),
        tags={PARTITION_NAME_TAG: key},
    )
    return bool(instance.get_run_ids(unfinished, limit=1))
