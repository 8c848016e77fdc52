"""Batches: the frozen decision of a trading session, from its targets to its finished orders.

Belongs here: the order in which a session is recovered, frozen and sent. Does not belong here: what to hold
(`planning.py`), netting (`intents.py`), limits (`risk_limits.py`) and the sending itself (`submission.py`).

1. Unfinished intents of whatever session are finished first.
2. A frozen batch is the plan, whatever prices or equity have become since.
3. Before anything is frozen, ledger and broker must agree, and the book must not be HALTED.
4. Batch, targets, intents (refused ones too) and their links to signals are one transaction.
5. A re-plan is the next attempt: what is unsent is withdrawn, what is open is cancelled and its end
   awaited, what filled is booked, and only then is anything planned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

import polars as pl

from quant_assets.orders.booking import sync_with_broker
from quant_assets.orders.evidence import reconcile_with_broker
from quant_assets.orders.intents import BatchKey, Intent, net_intents
from quant_assets.orders.policy import TradingPolicy
from quant_assets.orders.risk_limits import Batch, apply_limits
from quant_assets.orders.signal_input import as_decimal
from quant_assets.orders.submission import PassReport, TradingDesk, finish_unfinished
from quant_assets.orders.target_portfolio import (
    Target,
)
from quant_assets.orders.trading_sessions import price_age, require_tradable, sending_deadline
from quant_resources.errors import BrokerError, DataError
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_states import OPEN, Actor, OrderState
from quant_resources.ledger.order_tables import (
    IntentSignal,
    OrderBatch,
    OrderIntent,
    TargetPosition,
)

_CANCEL_LOOKS: Final = 10
_ZERO: Final = Decimal(0)


class TradingHaltedError(DataError):
    """The book is HALTED: nothing is planned and nothing is sent."""


def frozen_batch(ledger: Ledger, policy: TradingPolicy, trading_session: date) -> OrderBatch | None:
    """The batch of the session's newest attempt, if one was frozen."""
    with ledger.begin() as session:
        return order_book.newest_batch(session, policy.book, trading_session)


def trade_session(
    desk: TradingDesk, trading_session: date, targets: pl.DataFrame, replan: bool = False
) -> tuple[OrderBatch, PassReport]:
    """Recover, then freeze the session's batch if there is none, then send what is unsent.

    Args:
        desk: The account under its lock.
        trading_session: The session to trade.
        targets: Rows of `orders/target_portfolio`, already checked.
        replan: Whether a frozen batch is replaced by a new attempt.

    Returns:
        The batch and what the last pass did.

    Raises:
        TradingHaltedError: The book is HALTED, or ledger and broker do not agree.
        WrongSessionError: The session cannot be traded now and no batch of it was frozen.
    """
    report = finish_unfinished(desk)
    batch = frozen_batch(desk.ledger, desk.policy, trading_session)
    if batch is not None and not replan:
        return batch, report
    require_tradable(desk.broker.clock(), trading_session)
    _require_clean(desk, trading_session, report)
    if batch is not None:
        _clear_attempt(desk, batch)
        _require_agreement(desk, trading_session)
    attempt = 1 if batch is None else batch.attempt + 1
    _freeze(desk, trading_session, attempt, [_target(row) for row in targets.iter_rows(named=True)])
    new = frozen_batch(desk.ledger, desk.policy, trading_session)
    if new is None:
        raise DataError(f"The batch of {trading_session} was not written.")
    return new, finish_unfinished(desk)


def _require_clean(desk: TradingDesk, trading_session: date, report: PassReport) -> None:
    if report.stopped:
        raise BrokerError(
            f"Nothing new is planned for {trading_session}, since earlier orders are not finished: "
            f"{report.stopped}; start again."
        )
    _require_agreement(desk, trading_session)
    with desk.ledger.begin() as session:
        status = account_book.trading_status(session, desk.policy.book)
    if status.state == "HALTED":
        raise TradingHaltedError(
            f"Trading of {desk.policy.book} is HALTED by {status.changed_by}: {status.reason}. Look at the "
            "reconciliation, then use `quant resume`."
        )


def _require_agreement(desk: TradingDesk, trading_session: date) -> None:
    drifts = reconcile_with_broker(
        desk.ledger, desk.broker, desk.policy, trading_session, "before_trading"
    )
    if drifts:
        raise TradingHaltedError(
            f"Ledger and broker differ in {len(drifts)} point(s) before trading {trading_session}, the "
            f"first: {drifts[0]}. Trading is HALTED; explain the difference, then use `quant resume`."
        )


def _clear_attempt(desk: TradingDesk, batch: OrderBatch) -> None:
    """Withdraw what is unsent, cancel what is open, and wait until nothing more can fill."""
    with desk.ledger.begin() as session:
        rows = order_book.intents_of(session, batch.batch_id)
        unclear = [r for r in rows if r.state in (OrderState.SENDING, OrderState.AMBIGUOUS)]
        if unclear:
            raise BrokerError(
                f"Whether the broker has order {unclear[0].client_order_id} ({unclear[0].symbol}) is not "
                "known yet, so nothing new is planned; start again in a minute."
            )
        for row in rows:
            if OrderState(row.state) in (OrderState.PENDING, OrderState.WAITING):
                order_book.transition(
                    session,
                    row.client_order_id,
                    OrderState.WITHDRAWN,
                    Actor.PLANNING,
                    detail=f"replaced by attempt {batch.attempt + 1}",
                )
        waiting = [row.client_order_id for row in rows if OrderState(row.state) in OPEN]
        orders = {
            order.client_order_id: order.broker_order_id
            for order in order_book.orders_of(session, batch.account_id, batch.trading_session)
        }
    for client_order_id in waiting:
        desk.broker.cancel(orders[client_order_id])
    for look in range(_CANCEL_LOOKS):
        if look:
            desk.sleep(desk.policy.sending.look_up_wait_seconds)
        sync_with_broker(desk.ledger, desk.broker)
        with desk.ledger.begin() as session:
            states = order_book.states_of(session, waiting)
        if not any(state in OPEN for state in states.values()):
            return
    raise BrokerError(
        f"Orders of {batch.trading_session} are still open after they were cancelled; nothing new is "
        "planned. Start again in a minute."
    )


def _freeze(
    desk: TradingDesk, trading_session: date, attempt: int, targets: Sequence[Target]
) -> None:
    broker, policy = desk.broker, desk.policy
    view = sync_with_broker(desk.ledger, broker).view
    account = view.account
    key = BatchKey(account.account_id, policy.book, trading_session, attempt)
    with desk.ledger.begin() as session:
        rows = account_book.positions_of(session, account.account_id)
        status = account_book.trading_status(session, policy.book)
    positions = {symbol: row.quantity for symbol, row in rows.items() if row.quantity}
    open_quantities: dict[str, Decimal] = {}
    for order in view.orders:
        if order.is_open:
            open_quantities[order.symbol] = (
                open_quantities.get(order.symbol, _ZERO) + order.remaining
            )
    deadline = sending_deadline(trading_session, policy.sending.send_until_minutes_before_close)
    planned = net_intents(
        targets,
        positions,
        open_quantities,
        key=key,
        deadline=deadline,
        smallest_trade=policy.smallest_trade,
    )
    prices = {position.symbol: position.market_price for position in view.positions}
    prices |= {target.symbol: target.reference_price for target in targets}
    for order in view.orders:
        if order.is_open and order.symbol not in prices:
            prices |= {s: p.price for s, p in broker.latest_prices([order.symbol]).items()}
    batch = Batch(
        intents=planned,
        positions=positions,
        open_quantities=open_quantities,
        prices=prices,
        price_ages=_price_ages(targets, broker.clock().now, trading_session),
        equity=account.equity,
        buying_power=account.buying_power,
        assets=broker.assets(),
        trading_state=status.state,
        account_blocked=account.blocked,
        shorting_enabled=account.shorting_enabled,
        limits=policy.limits,
    )
    intents = apply_limits(batch)
    links = _links(intents, targets)
    with desk.ledger.begin() as session:
        order_book.freeze_batch(
            session,
            OrderBatch(
                book=policy.book,
                trading_session=trading_session,
                attempt=attempt,
                account_id=account.account_id,
                mode=policy.mode,
                equity=account.equity,
                cash=account.cash,
                buying_power=account.buying_power,
                configuration=policy.model_dump(mode="json", exclude={"live_account"}),
            ),
            [_target_row(target) for target in targets],
            [_intent_row(intent, policy.mode == "dry_run") for intent in intents],
            links,
        )


def _price_ages(
    targets: Sequence[Target], now: datetime, trading_session: date
) -> dict[str, timedelta]:
    return {
        target.symbol: price_age(target.priced_at, now, trading_session)
        for target in targets
        if target.changed and target.priced_at is not None
    }


def _links(intents: Sequence[Intent], targets: Sequence[Target]) -> list[IntentSignal]:
    by_symbol: dict[str, list[Target]] = {}
    for target in targets:
        by_symbol.setdefault(target.symbol, []).append(target)
    return [
        IntentSignal(
            client_order_id=intent.client_order_id,
            strategy=target.strategy,
            symbol=intent.symbol,
            signal_session=target.signal_session,
            score=target.score,
            target_weight=target.target_weight,
            model_version=target.model_version,
        )
        for intent in intents
        for target in by_symbol[intent.symbol]
    ]


def _intent_row(intent: Intent, dry: bool) -> OrderIntent:
    state = OrderState.DRY_RUN if dry and not intent.is_refused else intent.state
    return OrderIntent(
        client_order_id=intent.client_order_id,
        symbol=intent.symbol,
        security_id=intent.security_id,
        leg=intent.leg,
        side=intent.side,
        quantity=intent.quantity,
        reduces=intent.reduces,
        order_type=intent.order_type,
        time_in_force=intent.time_in_force,
        limit_price=intent.limit_price,
        stop_price=intent.stop_price,
        reference_price=intent.reference_price,
        waits_for=intent.waits_for,
        depends_on=intent.depends_on,
        deadline=intent.deadline,
        state=str(state),
        limit_name=intent.limit_name,
        limit_value=intent.limit_value,
        limit_bound=intent.limit_bound,
        reason=intent.reason,
    )


def _target_row(target: Target) -> TargetPosition:
    return TargetPosition(
        strategy=target.strategy,
        symbol=target.symbol,
        security_id=target.security_id,
        signal_session=target.signal_session,
        score=target.score,
        target_weight=target.target_weight,
        target_quantity=target.target_quantity,
        reference_price=target.reference_price,
        changed=target.changed,
        reason=target.reason,
        model_version=target.model_version,
        priced_at=target.priced_at,
    )


def _target(row: Mapping[str, object]) -> Target:
    """A stored row of `orders/target_portfolio` as the decision that it is."""

    def number(name: str) -> Decimal:
        value = row[name]
        if not isinstance(value, float):
            raise DataError(f"{name} of {row['symbol']} is {value!r}, not a number.")
        return as_decimal(value)

    signal_session, priced_at = row["signal_session"], row["priced_at"]
    if not isinstance(signal_session, date):
        raise DataError(f"The target of {row['symbol']} has no signal session.")
    if row["changed"] and not isinstance(priced_at, datetime):
        raise DataError(
            f"When the price of {row['symbol']} was made is not known, so nothing is ordered; "
            "materialize orders/target_portfolio again."
        )
    return Target(
        strategy=str(row["strategy"]),
        symbol=str(row["symbol"]),
        security_id=str(row["security_id"]),
        signal_session=signal_session,
        score=None if row["score"] is None else number("score"),
        target_weight=number("target_weight"),
        target_quantity=number("target_quantity"),
        reference_price=number("reference_price"),
        reason=str(row["reason"]),
        model_version=str(row["model_version"]),
        changed=bool(row["changed"]),
        priced_at=priced_at if isinstance(priced_at, datetime) else None,
    )
