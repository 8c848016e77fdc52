"""Freezing: targets become orders, orders meet the limits, and everything is written in one transaction.

Belongs here: gathering what the limits look at, and the writing. Does not belong here: netting
(`intents.py`), the limits (`limits/`), and when a batch is frozen (`batches.py`).

1. The account is synced and compared, so that the orders are netted against what is held and open now, and
   never against half of what the broker knows. Entries of earlier sessions that lead elsewhere than the targets
   are cancelled first. Protective legs of brackets are not netted: they end with the position that they protect.
2. Targets become intents (`intents.py`), each exactly as it would be sent.
3. The limits see the whole batch with what is held, open, quoted, traded per day and lost (`limits/`).
4. Batch, targets, intents (refused ones too) and their links to signals are one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from quant_assets.orders import breakers
from quant_assets.orders.batch_rows import intent_row, signal_links, target_row
from quant_assets.orders.booking import sync_with_broker
from quant_assets.orders.broker_view import BrokerView
from quant_assets.orders.comparison import looked_at
from quant_assets.orders.halting import cancel_and_wait
from quant_assets.orders.intents import BatchKey, net_intents
from quant_assets.orders.limits import Batch, apply_limits
from quant_assets.orders.market_facts import gather
from quant_assets.orders.target_portfolio import Target
from quant_assets.orders.trading_desk import TradingDesk
from quant_assets.orders.trading_sessions import price_age, sending_deadline
from quant_resources.errors import BrokerError
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.order_states import AT_BROKER, OrderState
from quant_resources.ledger.order_tables import Order, OrderBatch, OrderIntent

#: States of an order that has, or may have, reached the broker.
_SENT: Final = AT_BROKER | {OrderState.SENDING, OrderState.AMBIGUOUS, OrderState.REJECTED}
_ZERO: Final = Decimal(0)


def freeze(
    desk: TradingDesk,
    trading_session: date,
    attempt: int,
    targets: Sequence[Target],
    volumes: Mapping[str, Decimal],
) -> None:
    """Decide the session's orders and write them down.

    Args:
        desk: The account under its lock.
        trading_session: The session to trade.
        attempt: The attempt of the session, from 1.
        targets: Targets of all strategies.
        volumes: Average daily shares by symbol.

    Raises:
        BrokerError: The broker gives no usable answer; nothing was written.
        DatabaseUnreachableError: The account's lock was lost; nothing was written.
    """
    broker, policy = desk.broker, desk.policy
    view = _agreed_view(desk, trading_session)
    if _cancel_unwanted(desk, view, targets):
        view = _agreed_view(desk, trading_session)
    account = view.account
    key = BatchKey(account.account_id, policy.book, trading_session, attempt)
    with desk.ledger.begin() as session:
        rows = account_book.positions_of(session, account.account_id)
        status = account_book.trading_status(session, policy.book)
        lost = breakers.measure(session, account, trading_session)
        filled_today = _filled(session, account.account_id, trading_session)
    positions = {symbol: row.quantity for symbol, row in rows.items() if row.quantity}
    prices = _prices(desk, view, targets)
    open_quantities = _open_quantities(view, prices)
    assets = broker.assets()
    now = broker.clock().now
    planned = net_intents(
        targets,
        positions,
        open_quantities,
        key=key,
        deadline=sending_deadline(trading_session, policy.sending.send_until_minutes_before_close),
        smallest_trade=policy.smallest_trade,
        style_of=policy.style_of,
        assets=assets,
    )
    facts = gather(
        broker,
        {intent.symbol: intent.reference_price for intent in planned},
        volumes,
        trading_session=trading_session,
        now=now,
        oldest=timedelta(minutes=policy.limits.quote_age_minutes),
    )
    with desk.ledger.begin() as session:
        used = order_book.used_client_ids(session, [i.client_order_id for i in planned])
        sent_before = _sent_before(session, policy.book, trading_session)
    intents = apply_limits(
        Batch(
            intents=planned,
            positions=positions,
            prices=prices,
            price_ages=_price_ages(targets, now, trading_session),
            equity=account.equity,
            buying_power=account.buying_power,
            assets=assets,
            trading_state=status.state,
            account_blocked=account.blocked,
            shorting_enabled=account.shorting_enabled,
            limits=policy.limits,
            quotes=facts.quotes,
            last_trades=facts.last_trades,
            volumes=facts.volumes,
            open_orders=[order for order in view.orders if order.is_open],
            # An id is used for ever, also by an order that somebody else gave and that has ended.
            used_ids=used | {order.client_order_id for order in view.orders},
            daily_loss=lost.daily,
            drawdown=lost.drawdown,
            now=now,
            sent_before=sent_before,
            filled_today=filled_today,
        )
    )
    desk.lock.verify()
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
            [target_row(target) for target in targets],
            [intent_row(intent, dry=policy.mode == "dry_run") for intent in intents],
            signal_links(intents, targets),
        )


def _agreed_view(desk: TradingDesk, trading_session: date) -> BrokerView:
    """What the broker shows, booked, and in agreement with the ledger.

    A fill that the orders show and the activities do not yet would be bought a second time.
    """
    drifts, view = looked_at(desk.ledger, desk.broker, desk.policy)
    if drifts:
        raise BrokerError(
            f"The broker's answers do not agree with the ledger while {trading_session} is planned, the first: "
            f"{drifts[0]}. Nothing is frozen; start again in a minute."
        )
    return view


def _cancel_unwanted(desk: TradingDesk, view: BrokerView, targets: Sequence[Target]) -> bool:
    """Cancel entries of earlier sessions (GTC) that no longer lead to what is wanted, and await their end.

    That is: nobody wants anything of the symbol any more, or a strategy decides it anew and the order would
    not bring the position there. An order on a symbol that is kept as it is stays.

    Returns:
        Whether anything was cancelled, so that the broker must be read again.

    Raises:
        BrokerError: Some have not ended; nothing was frozen.
    """
    if not desk.sends:
        return False
    account_id = desk.account.account_id
    wanted: dict[str, Decimal] = {}
    for target in targets:
        wanted[target.symbol] = wanted.get(target.symbol, _ZERO) + target.target_quantity
    changed = {target.symbol for target in targets if target.changed}
    with desk.ledger.begin() as session:
        entries = order_book.open_entries(session, account_id)
        rows = account_book.positions_of(session, account_id)
    held = {symbol: row.quantity for symbol, row in rows.items()}
    symbols = {entry.symbol for entry in entries}
    coming = _open_quantities(view, _prices(desk, view, targets)) if symbols else {}
    unwanted = {
        symbol
        for symbol in symbols
        if symbol not in wanted
        or (
            symbol in changed
            and wanted[symbol] != held.get(symbol, _ZERO) + coming.get(symbol, _ZERO)
        )
    }

    def open_now(session: Session) -> Sequence[Order]:
        return order_book.open_entries(session, account_id, unwanted) if unwanted else ()

    left = cancel_and_wait(
        desk,
        [entry for entry in entries if entry.symbol in unwanted],
        lambda: sync_with_broker(desk.ledger, desk.broker),
        open_now,
    )
    if left:
        raise BrokerError(
            f"Order {left[0].client_order_id} ({left[0].symbol}) is not wanted any more and is still open after it "
            "was cancelled; nothing new is planned. Start again in a minute."
        )
    return bool(unwanted)


def _open_quantities(view: BrokerView, prices: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """Signed shares that open orders may still fill, by symbol, without protective legs."""
    quantities: dict[str, Decimal] = {}
    for order in view.orders:
        if not order.is_open or order.protects:
            continue
        price = prices.get(order.symbol)
        if order.notional is None:
            shares = order.remaining
        elif price is not None:
            shares = order.remaining_at(price)
        else:
            raise BrokerError(
                f"Order {order.client_order_id} is open for an amount of {order.symbol}, which has no price: cancel "
                "it at the broker; nothing is planned."
            )
        quantities[order.symbol] = quantities.get(order.symbol, _ZERO) + shares
    return quantities


def _filled(session: Session, account_id: str, trading_session: date) -> dict[str, Decimal]:
    """Shares that the session has filled already, by symbol."""
    filled: dict[str, Decimal] = {}
    for fill in account_book.fills_of(session, account_id, trading_session):
        filled[fill.symbol] = filled.get(fill.symbol, _ZERO) + fill.quantity
    return filled


def _prices(desk: TradingDesk, view: BrokerView, targets: Sequence[Target]) -> dict[str, Decimal]:
    """A price of everything that is held, open or traded: the target's where there is one."""
    prices = {position.symbol: position.market_price for position in view.positions}
    prices |= {target.symbol: target.reference_price for target in targets}
    others = {order.symbol for order in view.orders if order.is_open} - prices.keys()
    if others:
        prices |= {s: p.price for s, p in desk.broker.latest_prices(others).items()}
    return prices


def _sent_before(session: Session, book: str, trading_session: date) -> int:
    """How many orders of the session's earlier attempts may have reached the broker."""
    sent = session.scalar(
        select(func.count())
        .select_from(OrderIntent)
        .join(OrderBatch, OrderBatch.batch_id == OrderIntent.batch_id)
        .where(
            OrderBatch.book == book,
            OrderBatch.trading_session == trading_session,
            OrderIntent.state.in_(sorted(_SENT)),
        )
    )
    return sent or 0


def _price_ages(
    targets: Sequence[Target], now: datetime, trading_session: date
) -> dict[str, timedelta]:
    return {
        target.symbol: price_age(target.priced_at, now, trading_session)
        for target in targets
        if target.changed and target.priced_at is not None
    }
