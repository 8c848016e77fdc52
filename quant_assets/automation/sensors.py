"""The order-update sensor: what happened to our orders reaches the ledger without anyone asking.

Off by default. Each look is one pass of the order protocol: fills are booked, second legs and purchases
that waited for them are sent, what is past its deadline ends. Once the session has closed its evidence
is asked for, once. Schedules are in `schedules.py`.
"""

import dagster as dg

from quant_assets.automation import jobs
from quant_assets.orders.policy import TradingPolicy
from quant_assets.orders.submission import run_pass
from quant_assets.orders.trading_sessions import has_closed, session_to_settle
from quant_assets.partitions import Partitions
from quant_resources.broker import Broker
from quant_resources.ledger.ledger import Ledger

_SECONDS_BETWEEN_LOOKS = 60


def sensors(partitions: Partitions) -> list[dg.SensorDefinition]:
    """All sensors of the graph, stopped by default."""
    return [_order_updates(partitions)]


def _order_updates(partitions: Partitions) -> dg.SensorDefinition:
    @dg.sensor(
        name="order_updates",
        job_name=jobs.SETTLE,
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=(
            "Books fills, sends what was waiting for them, ends what has expired; settles the "
            "session once it has closed."
        ),
    )
    def order_updates(
        context: dg.SensorEvaluationContext,
        ledger: dg.ResourceParam[Ledger],
        broker: dg.ResourceParam[Broker],
        trading_policy: dg.ResourceParam[TradingPolicy],
    ) -> dg.SensorResult | dg.SkipReason:
        done = run_pass(ledger, broker, trading_policy)
        clock = broker.clock()
        session = session_to_settle(clock)
        key = session.isoformat()
        told = f"{done.sent} sent, {done.adopted} adopted, {done.expired} expired, {done.left} left"
        if not has_closed(clock, session):
            return dg.SkipReason(f"{told}; session {key} is open, evidence is frozen after it.")
        if context.cursor == key:
            return dg.SkipReason(f"{told}; session {key} was settled already.")
        if not partitions.trading_session.has_partition_key(key):
            return dg.SkipReason(f"{told}; {key} lies outside the market of this data root.")
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_key=f"{jobs.SETTLE}-{key}", partition_key=key)],
            cursor=key,
        )

    return order_updates
