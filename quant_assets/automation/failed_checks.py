"""Halting on failed checks: a blocking check that fails on a trading day stops the book, in every run after it.

A blocking check stops what is downstream in its own run; money is moved by other runs, so the book's
trading state has to know. Off by default, like the other sensors.

Belongs here: which failures halt, and the sensor that looks for them. Does not belong here: the trading
state (`orders/halting.py`) and the checks.

1. Looked at are the runs that make a trading day: market data, features and signals of the session before,
   the batch, and the evidence. A backfill of older sessions moves no money and halts nothing.
2. A blocking check with severity ERROR that failed halts. One of a single strategy's signals does not: that
   strategy keeps what it holds, and the others go on.
3. The reason names check, partition and run. Only a person resumes.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of a sensor itself.
from collections.abc import Iterable

import dagster as dg
from dagster._core.storage.tags import WILL_RETRY_TAG

from quant_assets.automation import jobs
from quant_assets.orders.halting import tighten
from quant_assets.orders.policy import TradingPolicy
from quant_assets.orders.trading_sessions import session_to_settle, session_to_trade
from quant_resources.broker import Broker
from quant_resources.calendar import XNYS
from quant_resources.errors import BrokerError
from quant_resources.ledger.ledger import Ledger

_JOBS_OF_A_DAY = frozenset({jobs.INGEST, jobs.SIGNAL, jobs.TRADE, jobs.SETTLE})
_WHO = "failed checks"
_PARTITION = "dagster/partition"
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def halt_on_failed_checks(
    instance: dg.DagsterInstance, run_id: str, ledger: Ledger, book: str
) -> list[str]:
    """Halt the book if blocking checks failed in a run; a book that is HALTED already stays as it is.

    Args:
        instance: Where the run is recorded.
        run_id: The run; one of a job that is no part of a trading day is not looked at.
        ledger: The ledger.
        book: The book.

    Returns:
        A sentence per failed check, whether or not the state was changed by it.
    """
    run = instance.get_run_by_id(run_id)
    if run is None or run.job_name not in _JOBS_OF_A_DAY:
        return []
    where = run.tags.get(_PARTITION) or " to ".join(
        dict.fromkeys(run.tags[tag] for tag in _RANGE if tag in run.tags)
    )
    found = [
        f"{where or 'without a partition'}: blocking check {_named(evaluation)} failed in run "
        f"{run_id} ({run.job_name}): {evaluation.description or 'no description'}"
        for evaluation in _evaluations(instance, run_id)
        if evaluation.blocking
        and not evaluation.passed
        and evaluation.severity == dg.AssetCheckSeverity.ERROR
        and evaluation.asset_key.path[0] != "signals"
    ]
    if found:
        told = found[0] if len(found) == 1 else f"{found[0]} (and {len(found) - 1} more)"
        with ledger.begin() as session:
            tighten(session, book, "HALTED", told, _WHO)
    return found


def halt_on_failed_trading_day(
    instance: dg.DagsterInstance, run_id: str, ledger: Ledger, broker: Broker, book: str
) -> list[str]:
    """The same, where the run made a partition that the broker's current trading day rests on.

    Returns:
        A sentence per failed check; none where the run is of older sessions, which move no money.
    """
    run = instance.get_run_by_id(run_id)
    if run is None or not _of_this_trading_day(run, broker):
        return []
    return halt_on_failed_checks(instance, run_id, ledger, book)


def failed_checks_sensor() -> dg.SensorDefinition:
    """The sensor that looks at every failed run, stopped by default."""

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.FAILURE,
        name="failed_checks",
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Halts the book when a blocking check fails in a run of the trading day.",
    )
    def failed_checks(
        context: dg.RunStatusSensorContext,
        ledger: dg.ResourceParam[Ledger],
        broker: dg.ResourceParam[Broker],
        trading_policy: dg.ResourceParam[TradingPolicy],
    ) -> dg.SkipReason:
        run = context.dagster_run
        if run.tags.get(WILL_RETRY_TAG) == "true":
            return dg.SkipReason("The run will be made again.")
        found = halt_on_failed_trading_day(
            context.instance, run.run_id, ledger, broker, trading_policy.book
        )
        return dg.SkipReason(
            f"Book {trading_policy.book} is HALTED: {found[0]}"
            if found
            else "No blocking check of the current trading day has failed."
        )

    return failed_checks


def _of_this_trading_day(run: dg.DagsterRun, broker: Broker) -> bool:
    """Whether the run made a partition that the current trading day rests on."""
    try:
        clock = broker.clock()
    except BrokerError:
        # Whoever cannot know whether it matters treats it as if it did.
        return True
    current = session_to_trade(clock)
    days = {day.isoformat() for day in (XNYS.previous(current), current, session_to_settle(clock))}
    if _PARTITION in run.tags:
        return run.tags[_PARTITION] in days
    first, last = (run.tags.get(tag) for tag in _RANGE)
    if first is None or last is None:
        return True
    return any(first <= day <= last for day in days)


def _evaluations(instance: dg.DagsterInstance, run_id: str) -> Iterable[dg.AssetCheckEvaluation]:
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        event = entry.dagster_event
        if event is not None and isinstance(event.event_specific_data, dg.AssetCheckEvaluation):
            yield event.event_specific_data


def _named(evaluation: dg.AssetCheckEvaluation) -> str:
    return f"{evaluation.asset_key.to_user_string()}:{evaluation.check_name}"
