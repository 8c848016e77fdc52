"""Batches: the frozen decision of a trading session, from its targets to its finished orders.

Belongs here: the order in which a session is recovered, frozen and sent, and the re-plan. Does not belong
here: what to hold (`planning.py`), what is frozen (`freezing.py`), and the sending itself (`submission.py`).

1. Unfinished intents of whatever session are finished first, by a pass.
2. A frozen batch is the plan, whatever prices or equity have become since.
3. Before anything is frozen, earlier orders are clear, ledger and broker agree, and the book is not HALTED.
   A difference that is explained and waits for confirmation stops the planning, not the book.
4. The batch is frozen in one transaction, then a pass sends it.
5. A re-plan is the next attempt, and so is what follows a dry run: what is unsent is withdrawn, what is open is cancelled, of whatever session, and
   its end awaited; what filled is booked. Only then is anything planned, on what is held by then. Protective
   legs stay: the positions that they protect stay too.
6. A re-plan that ended half-way leaves orders withdrawn and nothing in their place. That is said until a
   person asks for the re-plan again: with which targets is theirs to decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal

import polars as pl

from quant_assets.orders.batch_rows import target_of
from quant_assets.orders.booking import sync_with_broker
from quant_assets.orders.drift import require_confirmed, unexplained
from quant_assets.orders.evidence import reconcile_with_broker
from quant_assets.orders.freezing import freeze
from quant_assets.orders.halting import cancel_and_wait
from quant_assets.orders.policy import TradingPolicy
from quant_assets.orders.sending import UNCLEAR
from quant_assets.orders.submission import finish_unfinished
from quant_assets.orders.trading_desk import PassReport, TradingDesk
from quant_assets.orders.trading_sessions import require_tradable
from quant_resources.errors import BrokerError, ConfigurationError, DataError
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_states import Actor, OrderState
from quant_resources.ledger.order_tables import OrderBatch


class TradingHaltedError(DataError):
    """The book is HALTED: nothing is planned and nothing is sent."""


def frozen_batch(ledger: Ledger, policy: TradingPolicy, trading_session: date) -> OrderBatch | None:
    """The batch of the session's newest attempt, if one was frozen."""
    with ledger.begin() as session:
        return order_book.newest_batch(session, policy.book, trading_session)


def trade_session(
    desk: TradingDesk,
    trading_session: date,
    targets: pl.DataFrame,
    volumes: Mapping[str, Decimal],
    replan: bool = False,
) -> tuple[OrderBatch, PassReport]:
    """Recover, then freeze the session's batch if there is none, then send what is unsent.

    Args:
        desk: The account under its lock.
        trading_session: The session to trade.
        targets: Rows of `orders/target_portfolio`, already checked.
        volumes: Average daily shares by symbol; what it does not name has no known volume.
        replan: Whether a frozen batch is replaced by a new attempt.

    Returns:
        The batch and what the last pass did.

    Raises:
        TradingHaltedError: The book is HALTED, or ledger and broker do not agree.
        UnconfirmedDriftError: They differ, and what explains it waits to be confirmed.
        WrongSessionError: The session cannot be traded now and no batch of it was frozen.
        BrokerError: Earlier orders are not clear, or cancelled ones have not ended.
    """
    report = finish_unfinished(desk)
    batch = frozen_batch(desk.ledger, desk.policy, trading_session)
    if batch is not None:
        _require_own_account(desk, batch)
    if batch is not None and not (replan or was_rehearsed(batch, desk.policy)):
        _tell_of_half_a_replan(desk, batch, report)
        if batch.mode != desk.policy.mode:
            told = f"the batch of {trading_session} was frozen in mode {batch.mode} and is not sent in mode {desk.policy.mode}"
            report.stopped = "; ".join(sentence for sentence in (report.stopped, told) if sentence)
        return batch, report
    _require_plannable(desk, trading_session, report)
    if batch is not None:
        _clear(desk, trading_session, batch.attempt + 1)
        _require_agreement(desk, trading_session)
    attempt = 1 if batch is None else batch.attempt + 1
    freeze(
        desk,
        trading_session,
        attempt,
        [target_of(row) for row in targets.iter_rows(named=True)],
        volumes,
    )
    new = frozen_batch(desk.ledger, desk.policy, trading_session)
    if new is None:
        raise DataError(f"The batch of {trading_session} was not written.")
    return new, finish_unfinished(desk)


def was_rehearsed(batch: OrderBatch, policy: TradingPolicy) -> bool:
    """Whether a batch was a dry run, of which nothing can be sent, and orders are to be sent now.

    It is planned anew as the next attempt: a dry run decides nothing.
    """
    return batch.mode == "dry_run" and policy.mode != "dry_run"


def clear_for_replan(desk: TradingDesk, trading_session: date) -> None:
    """The first half of a re-plan, before its targets are planned: after it nothing is open any more.

    A second call has nothing left to do.

    Args:
        desk: The account under its lock.
        trading_session: The session to trade again; one without a batch has nothing to be cleared.

    Raises:
        The same as `trade_session`.
    """
    report = finish_unfinished(desk)
    _require_plannable(desk, trading_session, report)
    batch = frozen_batch(desk.ledger, desk.policy, trading_session)
    if batch is not None:
        _clear(desk, trading_session, batch.attempt + 1)


def _require_own_account(desk: TradingDesk, batch: OrderBatch) -> None:
    if batch.account_id != desk.account.account_id:
        raise ConfigurationError(
            f"Book {batch.book} has decided {batch.trading_session} for another account than "
            f"{desk.account.account_number}: give each account a book of its own (QUANT_BOOK)."
        )


def _tell_of_half_a_replan(desk: TradingDesk, batch: OrderBatch, report: PassReport) -> None:
    with desk.ledger.begin() as session:
        withdrawn = [
            row
            for row in order_book.intents_of(session, batch.batch_id)
            if OrderState(row.state) == OrderState.WITHDRAWN
        ]
    if withdrawn:
        told = (
            f"a re-plan of {batch.trading_session} ended half-way, {len(withdrawn)} order(s) of attempt "
            f"{batch.attempt} are withdrawn and nothing took their place; ask for the re-plan again"
        )
        report.stopped = "; ".join(sentence for sentence in (report.stopped, told) if sentence)


def _require_plannable(desk: TradingDesk, trading_session: date, report: PassReport) -> None:
    require_tradable(desk.broker.clock(), trading_session)
    _require_not_halted(desk)
    if report.stopped:
        raise BrokerError(
            f"Nothing new is planned for {trading_session}, since earlier orders are not finished: "
            f"{report.stopped}; start again."
        )
    _require_agreement(desk, trading_session)
    _require_not_halted(desk)


def _require_not_halted(desk: TradingDesk) -> None:
    with desk.ledger.begin() as session:
        status = account_book.trading_status(session, desk.policy.book)
    if status.state == "HALTED":
        raise TradingHaltedError(
            f"Trading of {desk.policy.book} is HALTED by {status.changed_by}: {status.reason}. Look into "
            "it, then use `quant resume --reason WHY`."
        )


def _require_agreement(desk: TradingDesk, trading_session: date) -> None:
    drifts = reconcile_with_broker(
        desk.ledger, desk.broker, desk.policy, trading_session, "before_trading"
    )
    without = unexplained(drifts)
    if without:
        raise TradingHaltedError(
            f"Ledger and broker differ in {len(without)} point(s) before trading {trading_session}, the "
            f"first: {without[0]}. Trading is HALTED; explain the difference, then use `quant resume "
            "--reason WHY`."
        )
    require_confirmed(drifts, f"planned for {trading_session}")


def _clear(desk: TradingDesk, trading_session: date, attempt: int) -> None:
    """Withdraw what is unsent, cancel what is open, and wait until nothing more can fill."""
    account_id = desk.account.account_id
    with desk.ledger.begin() as session:
        rows = order_book.unfinished_intents(session, account_id)
        unclear = [row for row in rows if OrderState(row.state) in UNCLEAR]
        if unclear:
            raise BrokerError(
                f"Whether the broker has order {unclear[0].client_order_id} ({unclear[0].symbol}) is not "
                "known yet, so nothing new is planned; start again in a minute."
            )
        entries = order_book.open_entries(session, account_id)
        if entries and not desk.sends:
            raise ConfigurationError(
                f"{len(entries)} order(s) are open at the broker, and in mode dry_run nothing is "
                f"cancelled: re-plan {trading_session} in the mode in which they were sent."
            )
        for row in rows:
            order_book.transition(
                session,
                row.client_order_id,
                OrderState.WITHDRAWN,
                Actor.PLANNING,
                detail=f"replaced by attempt {attempt} of {trading_session}",
            )
    left = cancel_and_wait(
        desk,
        entries,
        lambda: sync_with_broker(desk.ledger, desk.broker),
        lambda session: order_book.open_entries(session, account_id),
    )
    if left:
        raise BrokerError(
            f"{len(left)} order(s) are still open after they were cancelled, the first: {left[0].symbol} "
            f"{left[0].client_order_id}; nothing new is planned for {trading_session}. Start again in a "
            "minute."
        )
