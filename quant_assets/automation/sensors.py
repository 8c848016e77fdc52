"""The order-update sensor: what happened to our orders reaches the ledger without anyone asking.

Off by default. It books fills and order states as often as it looks, and asks for the evidence of the
session only when the session has closed and something new was booked. Schedules are in `schedules.py`.
"""

import dagster as dg

from quant_assets.automation import jobs
from quant_assets.orders.booking import sync_with_broker
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
        description="Books fills and order states; settles the session once it has closed.",
    )
    def order_updates(
        context: dg.SensorEvaluationContext,
        ledger: dg.ResourceParam[Ledger],
        broker: dg.ResourceParam[Broker],
    ) -> dg.SensorResult | dg.SkipReason:
        booked = sync_with_broker(ledger, broker)
        clock = broker.clock()
        session = session_to_settle(clock)
        key = session.isoformat()
        told = f"{booked.fills} fills and {booked.activities} activities booked"
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
