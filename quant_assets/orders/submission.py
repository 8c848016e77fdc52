"""The submission protocol: every frozen intent is sent exactly once, within its deadline, or not at all.

Belongs here: the pass, which is the only way in which anything is sent, and its numbered steps (`STEPS`).
Does not belong here: deciding what to send (`batches.py`), booking what filled (`booking.py`).

Every start runs the same pass; there is no other start-up path. The numbers are those of `STEPS`.

1. One process at a time passes: an advisory lock of the database, per account. A second one waits for as
   long as it was told, then leaves with a message and without having sent anything.
2. A halt that is in force is carried out first, whatever else goes wrong: open orders are cancelled and the
   broker's switch is set, where the halt asks for it; the switch is taken back when the halt is over.
3. The broker is read, and what it has of ours is adopted and booked (4.) in one transaction.
5. The circuit breakers look at losses, rejections and stale data, and tighten the trading state.
6. Recovery: what an earlier process left as `sending` becomes `ambiguous`, since only a look-up (7.) tells what
   became of it. Found: compared with what was frozen, and adopted (8.). Absent: sent again under the same id.
9. What is past its deadline and never left expires; it is never sent late, also when the book is HALTED.
10. What waited for a leg or for money, and now has it, becomes `pending`.
11. Protective legs of a position that is about to be reduced are cancelled, and their end is awaited.
12. Each pending intent is committed as `sending`, in the transaction that reads the trading state. REDUCING
    leaves what opens pending until its deadline; HALTED ends the pass.
13. The lock is verified and the request leaves, once, with a timeout.
14. What the answer proves is committed before the next intent is touched: accepted, rejected, or ambiguous,
    which is looked up at once (7.).
15. The halt is carried out again, over what this pass has found or sent.

A batch comes about in these steps, between two passes:

16. Ledger and broker are compared, and the comparison is committed; only what agrees is traded.
17. A re-plan withdraws what is unsent, in one transaction, cancels what is open (18.), and waits until its fills
    and its end are booked (3., 4.).
19. Quotes, volumes, open orders and losses are read.
20. Batch, targets, intents (refused ones too) and their links to signals are frozen in one transaction.

A process may end after any step. The next pass finds the ledger as the last commit left it, and goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from quant_assets.orders import breakers
from quant_assets.orders.booking import sync_with_broker
from quant_assets.orders.broker_view import BrokerView
from quant_assets.orders.halting import carry_out
from quant_assets.orders.policy import TradingPolicy
from quant_assets.orders.releasing import clear_the_way, release_waiting
from quant_assets.orders.sending import Pass, expire, intents_in, recover, send
from quant_assets.orders.trading_desk import (
    BrokerTime,
    PassReport,
    TradingDesk,
    check_switches,
    trading_desk,
)
from quant_resources.broker import Broker
from quant_resources.ledger import order_book
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_states import Actor, OrderState

__all__ = [
    "STEPS",
    "PassReport",
    "Step",
    "TradingDesk",
    "check_switches",
    "finish_unfinished",
    "run_pass",
    "trading_desk",
]

S: Final = OrderState


@dataclass(frozen=True)
class Step:
    """A numbered step of the protocol, at which state leaves the process.

    Attributes:
        number: As in the protocol's sentences.
        name: What is done.
        boundary: "request" to the broker, or "commit" to the ledger.
        mark: What tells the step from others: "METHOD path" of the request, where `{}` stands for an id;
            of a commit the table that it writes, with the state where the state tells.
    """

    number: int
    name: str
    boundary: Literal["request", "commit"]
    mark: str


STEPS: Final = (
    Step(2, "carry out a halt: cancel open orders", "request", "DELETE /v2/orders/{}"),
    Step(2, "carry out a halt: note the broker's switch", "commit", "trading_state"),
    Step(
        2,
        "carry out a halt: set the broker's switch",
        "request",
        "PATCH /v2/account/configurations",
    ),
    Step(3, "read the broker", "request", "GET /v2/orders"),
    Step(4, "book what the broker has", "commit", "fills"),
    Step(5, "trip a breaker", "commit", "trading_state"),
    Step(6, "mark what may have left as ambiguous", "commit", "order_events → ambiguous"),
    Step(7, "look an order up by its client id", "request", "GET /v2/orders:by_client_order_id"),
    Step(8, "adopt what was found", "commit", "order_events → accepted"),
    Step(9, "expire what is late", "commit", "order_events → expired_unsent"),
    Step(10, "release what was waiting", "commit", "order_events → pending"),
    Step(11, "cancel protective legs", "request", "DELETE /v2/orders/{}"),
    Step(12, "commit that the request is about to leave", "commit", "order_events → sending"),
    Step(13, "send the order", "request", "POST /v2/orders"),
    Step(14, "record that it was accepted", "commit", "order_events → accepted"),
    Step(14, "record that it was rejected", "commit", "order_events → rejected"),
    Step(14, "record that the answer proves nothing", "commit", "order_events → ambiguous"),
    Step(15, "carry out a halt again", "request", "DELETE /v2/orders/{}"),
    Step(16, "commit the comparison with the broker", "commit", "reconciliations"),
    Step(17, "withdraw what is unsent", "commit", "order_events → withdrawn"),
    Step(18, "cancel what is open", "request", "DELETE /v2/orders/{}"),
    Step(19, "read quotes", "request", "GET /v2/stocks/quotes/latest"),
    Step(20, "freeze the batch", "commit", "order_batches"),
)


def finish_unfinished(desk: TradingDesk) -> PassReport:
    """Run one pass over everything unfinished of the account, of whatever session.

    Returns:
        What was done; `left` counts what the next pass must go on with.

    Raises:
        BrokerError: The broker cannot be read, or did not take back a switch of ours.
        UnauthorizedError: The broker does not accept the keys.
        WrongOrderError: The broker's order is not the one that was frozen.
    """
    report = PassReport()
    cancelled = carry_out(desk).cancelled
    booked = sync_with_broker(desk.ledger, desk.broker)
    report.booked, report.corrections = booked.fills, booked.corrections
    report.changed = booked.changed_orders
    clock = BrokerTime(desk.broker)
    breakers.look(desk, booked.view.account, clock.now)
    work = Pass(desk, clock, report)
    recover(work)
    if not report.stopped:
        _expire_late(work)
        release_waiting(work)
        _send_pending(work, booked.view)
    halted = carry_out(desk)
    report.cancelled = len(cancelled | halted.cancelled)
    report.stopped = "; ".join(told for told in (report.stopped, halted.problem) if told)
    with desk.ledger.begin() as session:
        report.left = len(order_book.unfinished_intents(session, desk.account.account_id))
    return report


def run_pass(
    ledger: Ledger, broker: Broker, policy: TradingPolicy, wait_seconds: float = 0.0
) -> PassReport:
    """Take the account's lock and run one pass: what a sensor or a person starts between the open and close.

    It books what filled, sends second legs and purchases that were waiting, and ends what has expired.

    Raises:
        ConfigurationError: The mode does not fit the account or the address.
        LedgerBusyError: Another process trades this account.
    """
    with trading_desk(ledger, broker, policy, wait_seconds) as desk:
        return finish_unfinished(desk)


def _expire_late(work: Pass) -> None:
    for row in intents_in(work, frozenset({S.PENDING, S.WAITING})):
        if work.clock.now >= row.deadline:
            why = f"waiting for {row.waits_for}" if row.state == S.WAITING else "before it was sent"
            expire(work, row, Actor.SUBMISSION, f"its deadline passed {why}")


def _send_pending(work: Pass, view: BrokerView) -> None:
    """Send what is pending, in order; time passes meanwhile, so every deadline is looked at again."""
    desk = work.desk
    pending = [row for row in intents_in(work, frozenset({S.PENDING})) if desk.may_send(row)]
    for row in clear_the_way(work, pending, view):
        if work.report.stopped:
            return
        if work.clock.now >= row.deadline:
            expire(work, row, Actor.SUBMISSION, "its deadline passed before it was sent")
        else:
            send(work, row, Actor.SUBMISSION, desk.policy.sending.resends)
