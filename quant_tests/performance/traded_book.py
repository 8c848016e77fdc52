"""A data root and a ledger in which two sessions were traded: every row that performance and lineage read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import lightgbm as lgb
import numpy as np
import polars as pl
from sqlalchemy.orm import Session

from quant_assets.features.schemas import ALPHA158, TECHNICAL
from quant_assets.market_data.schemas import BARS, RAW_BARS, UNIVERSE
from quant_assets.orders.schemas import (
    ACCOUNT,
    FILLS,
    ORDER_INTENTS,
    ORDERS,
    POSITIONS,
    TARGET_PORTFOLIO,
)
from quant_assets.partitions import DEFAULT
from quant_assets.signals.discovery import discover
from quant_assets.signals.schemas import signal_table
from quant_resources.broker import BrokerOrder
from quant_resources.ledger import Ledger, order_book, registry
from quant_resources.ledger.account_tables import AccountSnapshot, Activity, Fill, PositionSnapshot
from quant_resources.ledger.order_states import Actor, OrderState
from quant_resources.ledger.order_tables import (
    IntentSignal,
    OrderBatch,
    OrderIntent,
    TargetPosition,
)
from quant_resources.store import Store
from quant_resources.tables import Table
from quant_tests.performance.sample_evidence import rows_of

ACCOUNT_ID = "4dd0c5a6-account"
SYMBOLS = ("AAA", "BBB", "CCC", "DDD")
VERSION = "alpha158_lightgbm-sample-1"
SESSIONS_BEFORE = 140
FEATURES = [name for name, dtype in ALPHA158.schema.items() if dtype == pl.Float32]


@dataclass(frozen=True)
class TradedBook:
    """Where it is, and the two sessions that were traded, with the one before them."""

    store: Store
    ledger: Ledger
    signal_session: date
    first: date
    second: date


def trade(root: Path, ledger: Ledger) -> TradedBook:
    """Write bars, signals and features of half a year, then two traded sessions.

    On the first, ml_ranker buys 10 AAA and enhanced_momentum 20 BBB. On the second, enhanced_momentum sells 5
    BBB, AAA pays a dividend and the account a fee; one order is refused.
    """
    store = Store(root)
    traded = [date.fromisoformat(key) for key in DEFAULT.trading_session.get_partition_keys()]
    sessions = [date.fromisoformat(key) for key in DEFAULT.session.get_partition_keys()]
    days = sessions[sessions.index(traded[1]) - SESSIONS_BEFORE : sessions.index(traded[1]) + 1]
    _market(store, days)
    book = TradedBook(store, ledger, days[-3], days[-2], days[-1])
    _model(ledger)
    with ledger.begin() as transaction:
        transaction.add(_snapshot(book.first, "opening", Decimal(100_000), Decimal(100_000)))
    bought = [("ml_ranker", "AAA", 10, 100), ("enhanced_momentum", "BBB", 20, 50)]
    _plan(book, book.first, 1, bought, [("AAA", "buy", 10, "100.5"), ("BBB", "buy", 20, "49.5")])
    _close(book, book.first, "98005", [("AAA", 10, 101), ("BBB", 20, 51)])
    sold = [("ml_ranker", "AAA", 10, 101), ("enhanced_momentum", "BBB", 15, 51)]
    with ledger.begin() as transaction:
        for name, symbol, amount in (("DIV", "AAA", "2.5"), ("FEE", None, "-0.75")):
            transaction.add(
                Activity(
                    activity_id=f"activity-{name}",
                    account_id=ACCOUNT_ID,
                    activity_type=name,
                    activity_date=book.second,
                    symbol=symbol,
                    quantity=Decimal(10) if symbol else None,
                    net_amount=Decimal(amount),
                    realised_pnl=Decimal(0),
                    description=name,
                    broker_message={},
                )
            )
    _plan(book, book.second, 1, sold, [("BBB", "sell", 5, "52")], refused="CCC")
    _close(book, book.second, "98266.75", [("AAA", 10, 102), ("BBB", 15, 53)])
    return book


def security(symbol: str) -> str:
    """The listing of a symbol."""
    return f"{symbol}@2023-01-03"


def _market(store: Store, days: list[date]) -> None:
    rng = np.random.default_rng(4)
    keys = [day.isoformat() for day in days]
    shape = (len(days), len(SYMBOLS))
    closes = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, shape), axis=0))
    places = [
        {"session": day, "symbol": symbol, "security_id": security(symbol)}
        for day in days
        for symbol in SYMBOLS
    ]

    def write(table: Table, rows: Sequence[Mapping[str, object]]) -> None:
        store.write(table, rows_of(table, rows), keys)

    prices = [
        {"open": close, "high": close, "low": close, "close": close, "volume": 1e7}
        for close in closes.ravel().tolist()
    ]
    first = {"first_session": date(2023, 1, 3), "price_factor": 1.0, "volume_factor": 1.0}
    write(BARS, [place | price | first for place, price in zip(places, prices, strict=True)])
    observed = datetime(2025, 1, 20, tzinfo=UTC)
    write(
        RAW_BARS,
        [
            place | price | {"source": "sample/feed", "observed_at": observed}
            for place, price in zip(places, prices, strict=True)
        ],
    )
    write(UNIVERSE, [place | {"shortable": True} for place in places])
    write(TECHNICAL, [place | {"rsi_14": 61.5} for place in places])
    values = rng.normal(0, 1, (len(places), len(FEATURES))).astype(np.float32)
    features = [
        place | dict(zip(FEATURES, row, strict=True))
        for place, row in zip(places, values.tolist(), strict=True)
    ]
    write(ALPHA158, features)
    for strategy in discover():
        signals = [
            place
            | {
                "strategy": strategy.name,
                "score": float(score),
                "expected_return": 0.01,
                "confidence": 0.4,
                "side": "BUY" if score > 0 else "HOLD",
                "target_weight": 0.2 if score > 0 else 0.0,
                "model_version": _version(strategy.name),
            }
            for place, score in zip(places, rng.normal(0, 1, len(places)), strict=True)
        ]
        write(signal_table(strategy), signals)


def _version(strategy: str) -> str:
    return VERSION if strategy == "ml_ranker" else f"{strategy}-rules-1"


def _model(ledger: Ledger) -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 1, (400, len(FEATURES)))
    data = lgb.Dataset(
        rows, rows[:, 3] - 0.5 * rows[:, 7], feature_name=FEATURES, params={"verbose": -1}
    )
    booster = lgb.train({"objective": "l2", "verbose": -1, "num_threads": 1}, data, 10)
    with ledger.begin() as transaction:
        registry.register_model(
            transaction,
            model_name="alpha158_lightgbm",
            model_version=VERSION,
            month=date(2025, 1, 1),
            training_first_session=date(2023, 6, 1),
            training_last_session=date(2024, 12, 2),
            metrics={"ic_mean": 0.041, "ic_std": 0.1, "sessions": 63},
            config={},
            artefact=booster.model_to_string(),
        )


def _plan(  # noqa: PLR0917
    book: TradedBook,
    day: date,
    attempt: int,
    targets: list[tuple[str, str, int, int]],
    trades: list[tuple[str, str, int, str]],
    refused: str | None = None,
) -> None:
    """Freeze a batch, fill its orders, and write the tables that say so."""
    at = datetime.combine(day, time(14, 30), UTC)
    signal_session = book.signal_session if day == book.first else book.first
    named = [*targets, ("ml_ranker", refused, 7, 30)] if refused else targets
    owner = {symbol: strategy for strategy, symbol, _, _ in named}
    wanted = [*trades, (refused, "buy", 7, "30")] if refused else trades
    with book.ledger.begin() as transaction:
        order_book.freeze_batch(
            transaction,
            OrderBatch(
                book="main",
                trading_session=day,
                attempt=attempt,
                account_id=ACCOUNT_ID,
                mode="paper",
                equity=Decimal(100_000),
                cash=Decimal(100_000),
                buying_power=Decimal(200_000),
                configuration={},
            ),
            [
                TargetPosition(
                    strategy=strategy,
                    symbol=symbol,
                    security_id=security(symbol),
                    signal_session=signal_session,
                    score=Decimal("1.5"),
                    target_weight=Decimal("0.2"),
                    target_quantity=Decimal(quantity),
                    reference_price=Decimal(price),
                    changed=True,
                    reason="wanted [by the sample]",
                    model_version=_version(strategy),
                )
                for strategy, symbol, quantity, price in named
            ],
            [
                OrderIntent(
                    client_order_id=f"main-{day}-{symbol.lower()}",
                    symbol=symbol,
                    security_id=security(symbol),
                    leg=1,
                    side=side,
                    quantity=Decimal(quantity),
                    reduces=side == "sell",
                    order_type="market",
                    time_in_force="day",
                    reference_price=Decimal(price),
                    deadline=at + timedelta(hours=5),
                    state="refused" if symbol == refused else "pending",
                    limit_name="gross_exposure" if symbol == refused else None,
                    reason="over the limit" if symbol == refused else "towards the target",
                )
                for symbol, side, quantity, price in wanted
            ],
            [
                IntentSignal(
                    client_order_id=f"main-{day}-{symbol.lower()}",
                    strategy=owner[symbol],
                    symbol=symbol,
                    signal_session=signal_session,
                    score=Decimal("1.5"),
                    target_weight=Decimal("0.2"),
                    model_version=_version(owner[symbol]),
                )
                for symbol, _, _, _ in wanted
            ],
        )
        for symbol, side, quantity, price in trades:
            _fill(transaction, day, at, (symbol, side, quantity, price))
    _write_plan(book.store, day, at, named, trades, refused)


def _fill(transaction: Session, day: date, at: datetime, trade: tuple[str, str, int, str]) -> None:
    """Send an order and fill it at once."""
    symbol, side, quantity, price = trade
    intent = f"main-{day}-{symbol.lower()}"
    order_book.transition(
        transaction, intent, OrderState.SENDING, Actor.SUBMISSION, detail="sending"
    )
    order = BrokerOrder(
        broker_order_id=f"broker-{intent}",
        client_order_id=intent,
        symbol=symbol,
        side="buy" if side == "buy" else "sell",
        quantity=Decimal(quantity),
        order_type="market",
        filled_quantity=Decimal(quantity),
        average_fill_price=Decimal(price),
        status="filled",
        submitted_at=at,
        updated_at=at,
        raw={},
    )
    order_book.record_order(transaction, order, Actor.SUBMISSION, "accepted")
    transaction.add(
        Fill(
            execution_id=f"execution-{intent}",
            account_id=ACCOUNT_ID,
            trading_session=day,
            client_order_id=intent,
            broker_order_id=order.broker_order_id,
            symbol=symbol,
            side=side,
            quantity=Decimal(quantity),
            price=Decimal(price),
            realised_pnl=Decimal("12.5") if side == "sell" else Decimal(0),
            filled_at=at,
            broker_message={},
        )
    )


def _write_plan(store, day, at, targets, trades, refused) -> None:  # noqa: PLR0917
    key = [day.isoformat()]
    shared = {"trading_session": day, "book": "main"}
    store.write(
        TARGET_PORTFOLIO,
        rows_of(
            TARGET_PORTFOLIO,
            [
                shared
                | {"strategy": strategy, "symbol": symbol, "target_quantity": float(quantity)}
                | {"security_id": security(symbol), "signal_session": day}
                for strategy, symbol, quantity, _ in targets
            ],
        ),
        key,
    )
    orders, fills, intents = [], [], []
    for symbol, side, quantity, price in trades:
        intent = f"main-{day}-{symbol.lower()}"
        row = shared | {"client_order_id": intent, "broker_order_id": f"broker-{intent}"}
        row |= {"symbol": symbol, "side": side, "quantity": float(quantity), "price": float(price)}
        row |= {"filled_quantity": float(quantity), "average_fill_price": float(price)}
        row |= {"submitted_at": at, "updated_at": at, "filled_at": at, "deadline": at}
        row |= {"execution_id": f"execution-{intent}", "status": "filled", "state": "filled"}
        row |= {"role": "entry", "correction": "none"}
        row |= {"realised_pnl": 12.5 if side == "sell" else 0.0}
        orders.append(row)
        fills.append(row)
        intents.append(row)
    if refused:
        stopped = {"client_order_id": f"main-{day}-{refused.lower()}", "symbol": refused}
        stopped |= {"side": "buy", "state": "refused", "limit_name": "gross_exposure"}
        stopped |= {"reason": "over the limit"}
        intents.append(shared | stopped | {"deadline": at})
    for table, rows in ((ORDERS, orders), (FILLS, fills), (ORDER_INTENTS, intents)):
        store.write(table, rows_of(table, rows), key)


def _snapshot(day: date, moment: str, equity: Decimal, cash: Decimal) -> AccountSnapshot:
    return AccountSnapshot(
        account_id=ACCOUNT_ID,
        trading_session=day,
        moment=moment,
        taken_at=datetime.combine(day, time(21), UTC),
        equity=equity,
        cash=cash,
        buying_power=Decimal(200_000),
        long_value=equity - cash,
        short_value=Decimal(0),
        previous_equity=None,
        trading_state="ACTIVE",
        broker_message={},
    )


def _close(book: TradedBook, day: date, cash: str, held: list[tuple[str, int, int]]) -> None:
    """Freeze the end of the day in the ledger and in the tables."""
    value = sum(quantity * mark for _, quantity, mark in held)
    equity = Decimal(cash) + value
    with book.ledger.begin() as transaction:
        snapshot = _snapshot(day, "end_of_day", equity, Decimal(cash))
        transaction.add(snapshot)
        transaction.flush()
        for symbol, quantity, mark in held:
            transaction.add(
                PositionSnapshot(
                    snapshot_id=snapshot.snapshot_id,
                    symbol=symbol,
                    security_id=security(symbol),
                    quantity=Decimal(quantity),
                    average_price=Decimal(mark),
                    market_price=Decimal(mark),
                    market_value=Decimal(quantity * mark),
                    realised_pnl=Decimal(0),
                    unrealised_pnl=Decimal(0),
                )
            )
    key = [day.isoformat()]
    account = {"trading_session": day, "account_id": ACCOUNT_ID, "equity": float(equity)}
    account |= {"cash": float(cash), "short_value": 0.0, "trading_state": "ACTIVE"}
    account |= {"gross_exposure": value / float(equity), "net_exposure": value / float(equity)}
    book.store.write(ACCOUNT, rows_of(ACCOUNT, [account]), key)
    positions = [
        {"trading_session": day, "symbol": symbol, "quantity": float(quantity)}
        | {"market_price": float(mark), "market_value": float(quantity * mark)}
        for symbol, quantity, mark in held
    ]
    book.store.write(POSITIONS, rows_of(POSITIONS, positions), key)
