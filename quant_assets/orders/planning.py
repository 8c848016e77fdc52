"""Planning a trading session: gather what is known, let the pure modules decide what to hold.

Belongs here: reading ledger and broker for the target portfolio. Does not belong here: the decisions
themselves (`target_portfolio.py`), and making orders of them (`batches.py`).

1. The account is synced first, so that sleeves meet what is really held.
2. Splits with an ex-date since a sleeve was frozen, today's included, are read from the broker now. A sleeve of
   what is held is carried over those that the broker has booked since, of the rest over those announced.
3. Every strategy plans on its own capital; one without usable signals, or one that does not exist any
   more, keeps its sleeve.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from quant_assets.orders.booking import sync_with_broker
from quant_assets.orders.order_styles import takes_fractions
from quant_assets.orders.policy import TradingPolicy
from quant_assets.orders.signal_input import StrategySignals
from quant_assets.orders.target_portfolio import (
    Prices,
    Sleeve,
    Target,
    carried_sleeve,
    keep_sleeve,
    plan_strategy,
    reference_prices,
    split_since,
)
from quant_assets.orders.trading_sessions import require_tradable
from quant_resources.broker import Account, Broker, Split
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_tables import (
    TargetPosition,
)

#: Splits are read this far back at most; a sleeve older than that has long been re-planned.
_LONGEST_SPLIT_WINDOW: Final = timedelta(days=90)
_ZERO: Final = Decimal(0)


@dataclass(frozen=True)
class Plan:
    """Targets of all strategies, with what they were made from."""

    targets: Sequence[Target]
    account: Account
    prices: Prices
    problems: Mapping[str, str]
    unmanaged: Sequence[str]


def plan_targets(
    ledger: Ledger,
    broker: Broker,
    policy: TradingPolicy,
    *,
    trading_session: date,
    signals: Sequence[StrategySignals],
    attempt: int,
) -> Plan:
    """Decide what every strategy wants to hold in the session.

    Args:
        ledger: For the sleeves and what is held.
        broker: For equity, prices, assets and splits.
        policy: For allocations.
        trading_session: The session to trade.
        signals: Every strategy, with its usable rows or its problem.
        attempt: The attempt that is being planned.
    """
    clock = broker.clock()
    require_tradable(clock, trading_session)
    view = sync_with_broker(ledger, broker).view
    account_id = view.account.account_id
    with ledger.begin() as session:
        frozen = order_book.last_sleeves(
            session, account_id, policy.book, policy.mode == "dry_run", (trading_session, attempt)
        )
        held = {
            symbol
            for symbol, row in account_book.positions_of(session, account_id).items()
            if row.quantity
        }
        booked = account_book.symbols_split_on(session, account_id, trading_session)
        split_bookings = account_book.splits_booked(
            session, account_id, trading_session - _LONGEST_SPLIT_WINDOW
        )
        times = order_book.frozen_times(session, {rows[0].batch_id for _, rows in frozen.values()})
    splits = _splits_since(broker, [day for day, _ in frozen.values()], trading_session)
    sleeves: dict[str, Sleeve] = {}
    for strategy, (day, rows) in frozen.items():
        since = {(symbol, on) for symbol, on, at in split_bookings if at > times[rows[0].batch_id]}
        happened = [split for split in splits if _came_about(split, day, held, since)]
        sleeves[strategy] = carried_sleeve(_sleeve(day, rows), happened, trading_session)
    symbols = held | {symbol for sleeve in sleeves.values() for symbol in sleeve.targets}
    for given in signals:
        if given.rows is not None:
            symbols |= set(given.rows.get_column("symbol"))
    latest = broker.latest_prices(symbols)
    due = split_since(latest, splits, trading_session)
    prices = reference_prices(
        latest,
        broker.closes_before(due, trading_session) if due else {},
        symbols,
        splits=splits,
        held=held,
        booked=booked,
        trading_session=trading_session,
        oldest=timedelta(days=policy.oldest_price_days),
        now=clock.now,
    )
    assets = broker.assets()
    allocations = policy.allocation_of([given.strategy for given in signals])
    nothing = Sleeve(trading_session, {})
    targets: list[Target] = []
    for given in signals:
        sleeve = sleeves.get(given.strategy, nothing)
        if given.rows is None:
            targets += keep_sleeve(sleeve, prices, held, f"kept: {given.problem}")
            continue
        targets += plan_strategy(
            given.strategy,
            given.rows,
            sleeve,
            capital=view.account.equity * allocations[given.strategy],
            prices=prices,
            assets=assets,
            held=held,
            fractional=_fractional(policy, given.strategy),
            splits=splits,
            trading_session=trading_session,
        )
    active = {given.strategy for given in signals}
    for strategy, sleeve in sleeves.items():
        if strategy not in active:
            targets += keep_sleeve(
                sleeve, prices, held, "kept: the strategy does not exist any more"
            )
    return Plan(
        targets=targets,
        account=view.account,
        prices=prices,
        problems={given.strategy: given.problem for given in signals if given.problem},
        unmanaged=sorted(held - {target.symbol for target in targets}),
    )


def _came_about(
    split: Split,
    frozen_on: date,
    held: Collection[str],
    booked: Collection[tuple[str | None, date]],
) -> bool:
    """Whether a split has changed what a sleeve counts since it was frozen.

    What is held splits when the broker books it, on the day or late: an announcement alone may be wrong, and
    would double what is wanted of it.
    """
    if split.symbol in held:
        return any(symbol == split.symbol and on >= split.ex_date for symbol, on in booked)
    return split.ex_date > frozen_on


def _sleeve(day: date, rows: Sequence[TargetPosition]) -> Sleeve:
    return Sleeve(
        day,
        {
            row.symbol: Target(
                strategy=row.strategy,
                symbol=row.symbol,
                security_id=row.security_id,
                signal_session=row.signal_session,
                score=row.score,
                target_weight=row.target_weight,
                target_quantity=row.target_quantity,
                reference_price=row.reference_price,
                reason=row.reason,
                model_version=row.model_version,
                changed=row.changed,
                priced_at=row.priced_at,
                stop_loss=row.stop_loss,
                take_profit=row.take_profit,
            )
            for row in rows
        },
    )


def _fractional(policy: TradingPolicy, strategy: str) -> bool:
    """Whether a strategy's longs may be fractions: those by dollars always are, where the name allows it."""
    style = policy.style_of([strategy])
    return style.sizing == "notional" or (policy.fractional and takes_fractions(style))


def _splits_since(
    broker: Broker, frozen_on: Sequence[date], trading_session: date
) -> Sequence[Split]:
    # A week back at least: the last price may be older than the last batch.
    week = trading_session - timedelta(days=7)
    first = max(min([week, *frozen_on]), trading_session - _LONGEST_SPLIT_WINDOW)
    return broker.splits(first, trading_session)
