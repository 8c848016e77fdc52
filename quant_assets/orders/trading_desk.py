"""The trading desk: an account under its lock, the mode's switches, and what a pass reports.

Belongs here: what every step of the submission protocol works with. Does not belong here: the protocol
(`submission.py`) and its steps (`sending.py`, `releasing.py`, `halting.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from quant_assets.orders.policy import TradingPolicy
from quant_resources.broker import Account, Broker
from quant_resources.errors import ConfigurationError
from quant_resources.ledger import order_book
from quant_resources.ledger.ledger import HeldLock, Ledger, LedgerBusyError
from quant_resources.ledger.order_tables import OrderIntent


@dataclass
class PassReport:
    """What a pass did, by count; `stopped` says why it ended early.

    Attributes:
        booked: Fills booked, and `corrections` the broker's later words on fills.
        changed: Orders of which the broker had news.
        adopted: Orders found at the broker whose answer had been lost.
        sent: Orders that the broker took.
        rejected: Orders that it refused for cause; `rejections` has its words.
        expired: Intents that were never sent and whose deadline has passed.
        cancelled: Orders whose cancellation a halt asked for.
        left: Intents that the next pass must go on with.
    """

    booked: int = 0
    corrections: int = 0
    changed: int = 0
    adopted: int = 0
    sent: int = 0
    rejected: int = 0
    expired: int = 0
    cancelled: int = 0
    left: int = 0
    stopped: str = ""
    rejections: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TradingDesk:
    """What a pass works with, under the account's lock.

    Attributes:
        sleep: How waits are spent; tests of the protocol shorten them.
        modes: Batch id to the mode in which it was frozen, as far as it was asked for.
    """

    ledger: Ledger
    broker: Broker
    policy: TradingPolicy
    account: Account
    lock: HeldLock
    sleep: Callable[[float], Any] = time.sleep
    modes: dict[int, str] = field(default_factory=dict)

    @property
    def sends(self) -> bool:
        """Whether anything at the broker may be changed at all."""
        return self.policy.mode != "dry_run"

    def may_send(self, row: OrderIntent) -> bool:
        """A batch is sent in the mode in which it was frozen, or not at all."""
        if row.batch_id not in self.modes:
            with self.ledger.begin() as session:
                self.modes.update(order_book.batch_modes(session, [row.batch_id]))
        return self.sends and self.modes[row.batch_id] == self.policy.mode


class BrokerTime:
    """The broker's time between two looks at its clock: deadlines are never measured with our own."""

    def __init__(self, broker: Broker) -> None:
        self._now = broker.clock().now
        self._mark = time.monotonic()

    @property
    def now(self) -> datetime:
        """The broker's time, as far as it is known."""
        return self._now + timedelta(seconds=time.monotonic() - self._mark)

    def learn(self, moment: datetime) -> None:
        """Every answer tells the time: a machine that slept, or a clock that jumped, is noticed."""
        if moment > self.now:
            self._now, self._mark = moment, time.monotonic()


@contextmanager
def trading_desk(
    ledger: Ledger,
    broker: Broker,
    policy: TradingPolicy,
    wait_seconds: float = 0.0,
    sleep: Callable[[float], Any] = time.sleep,
) -> Iterator[TradingDesk]:
    """Check the mode's switches and take the account's lock.

    Args:
        ledger: The ledger.
        broker: The broker.
        policy: The trading policy.
        wait_seconds: How long to wait for another process that trades the account.
        sleep: How waits are spent.

    Raises:
        ConfigurationError: The mode does not fit the account or the address.
        LedgerBusyError: Another process trades this account.
    """
    account = broker.account()
    check_switches(policy, broker, account)
    try:
        with ledger.exclusive(f"orders:{account.account_id}", wait_seconds) as lock:
            yield TradingDesk(ledger, broker, policy, account, lock, sleep)
    except LedgerBusyError as error:
        raise LedgerBusyError(
            f"Another process is trading account {account.account_number}: this one leaves without "
            "having sent anything; when the other has ended, start again to see that all is finished."
        ) from error


def check_switches(policy: TradingPolicy, broker: Broker, account: Account) -> None:
    """Refuse a mode that does not fit where orders would go.

    Raises:
        ConfigurationError: Paper trading at an address that moves real money; live trading without the
            account's number as the second switch.
    """
    if policy.mode == "paper" and broker.moves_real_money:
        raise ConfigurationError(
            "QUANT_TRADING_MODE is paper, but the trading address is Alpaca's live one: nothing is sent; "
            "correct QUANT_TRADING_URL."
        )
    if policy.mode == "live" and policy.live_account != account.account_number:
        raise ConfigurationError(
            "Live trading needs QUANT_LIVE_ACCOUNT to be the number of the account that the keys open; "
            f"it is {policy.live_account or 'not set'}, so nothing is sent."
        )
