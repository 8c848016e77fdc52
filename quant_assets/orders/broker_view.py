"""What the broker says of an account at one moment: everything that a sync books from.

Belongs here: which answers are asked for, in which order. Does not belong here: booking them (`booking.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from quant_resources.broker import (
    Account,
    AccountActivity,
    Broker,
    BrokerOrder,
    BrokerPosition,
    Execution,
)
from quant_resources.calendar import start_of_day
from quant_resources.errors import BrokerError


@dataclass(frozen=True)
class BrokerView:
    """What the broker said in one sync."""

    account: Account
    positions: Sequence[BrokerPosition]
    orders: Sequence[BrokerOrder]
    executions: Sequence[Execution]
    activities: Sequence[AccountActivity]
    since: date


def read_view(broker: Broker, account: Account, since: date, waiting: Sequence[str]) -> BrokerView:
    """Ask the broker for everything that happened on or after a day, and for what is still open.

    Args:
        broker: The broker.
        account: The account, as it answered at the beginning of the sync.
        since: First day (New York).
        waiting: The broker's client ids of orders that the ledger believes to be open.

    Raises:
        BrokerError: No usable answer, or answers about different accounts.
    """
    # Positions and account come last: what was filled meanwhile then shows as a difference that the
    # second look explains, and never as agreement by chance.
    found = [*broker.orders_since(start_of_day(since) - timedelta(microseconds=1))]
    # Open orders may be older than anything else that is read again: protective legs live for weeks.
    found += broker.open_orders()
    orders = {order.broker_order_id: order for order in found}
    seen = {order.client_order_id for order in orders.values()}
    for client_order_id in waiting:
        if client_order_id not in seen:
            ended = broker.order_by_client_id(client_order_id)
            if ended is not None:
                orders[ended.broker_order_id] = ended
    # Pages may overlap, and an answer may hold a row twice: what happened once is booked once.
    executions = {one.execution_id: one for one in broker.executions(since)}
    activities = {one.activity_id: one for one in broker.activities(since)}
    positions = broker.positions()
    fresh = broker.account()
    if fresh.account_id != account.account_id:
        raise BrokerError(
            f"The broker answered for account {fresh.account_number} after {account.account_number}; "
            "nothing was booked."
        )
    return BrokerView(
        fresh,
        positions,
        list(orders.values()),
        list(executions.values()),
        list(activities.values()),
        since,
    )
