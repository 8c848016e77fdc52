"""The tables of the order path: what was planned, sent, accepted, filled, held and compared.

Belongs here: table declarations with their constraints. Does not belong here: the functions on them
(`order_book.py`) and the states with their transitions (`order_states.py`).

Foreign keys make the audit trail a fact of the database: every fill has an order, every order an
intent, every intent at least one target of a strategy with its signal session and model version.
History (`APPEND_ONLY`) is never updated; what changes is the intent's state, the broker's view of an
order and the position, each in the transaction that appends the reason.
"""

from __future__ import annotations

from datetime import date

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    SmallInteger,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from quant_resources.ledger.base import (
    APPEND_ONLY,
    Base,
    Fraction,
    JsonObject,
    LongText,
    Money,
    Price,
    Quantity,
    SequenceId,
    ShortText,
    Utc,
)
from quant_resources.ledger.order_states import UNFINISHED, states_sql, transitions_sql

_SIDES = "side IN ('buy', 'sell')"
_MODES = "mode IN ('dry_run', 'paper', 'live')"
_UNFINISHED_SQL = f"state IN ({', '.join(repr(str(state)) for state in sorted(UNFINISHED))})"


class OrderBatch(Base):
    """The frozen decision of a book for one trading session; a re-plan is the next attempt."""

    __tablename__ = "order_batches"
    __table_args__ = (
        UniqueConstraint("book", "trading_session", "attempt"),
        CheckConstraint("attempt >= 1", name="attempt"),
        CheckConstraint(_MODES, name="mode"),
        Index("ix_order_batches_account", "account_id", "mode", "trading_session"),
        {"info": APPEND_ONLY},
    )

    batch_id: Mapped[SequenceId]
    book: Mapped[ShortText]
    trading_session: Mapped[date]
    attempt: Mapped[int] = mapped_column(SmallInteger)
    account_id: Mapped[ShortText]
    mode: Mapped[ShortText]
    equity: Mapped[Money]
    cash: Mapped[Money]
    buying_power: Mapped[Money]
    configuration: Mapped[JsonObject]  # the limits and allocations that were in force
    frozen_at: Mapped[Utc] = mapped_column(server_default=func.clock_timestamp())


class TargetPosition(Base):
    """What one strategy wants to hold of one symbol: its sleeve, explicit zeros included."""

    __tablename__ = "target_positions"
    __table_args__ = (
        CheckConstraint("reference_price > 0", name="reference_price"),
        CheckConstraint("model_version <> ''", name="model_version"),
        {"info": APPEND_ONLY},
    )

    batch_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("order_batches.batch_id"), primary_key=True
    )
    strategy: Mapped[ShortText] = mapped_column(primary_key=True)
    symbol: Mapped[ShortText] = mapped_column(primary_key=True)
    security_id: Mapped[ShortText]
    signal_session: Mapped[date]
    score: Mapped[Fraction | None]
    target_weight: Mapped[Fraction]
    target_quantity: Mapped[Quantity]
    reference_price: Mapped[Price]
    changed: Mapped[bool]  # false: the sleeve was kept, nothing is traded for it
    reason: Mapped[LongText]
    model_version: Mapped[ShortText]
    priced_at: Mapped[Utc | None]  # when the reference price was made


class OrderIntent(Base):
    """An order that shall be sent, or the one that a limit refused."""

    __tablename__ = "order_intents"
    __table_args__ = (
        UniqueConstraint("batch_id", "symbol", "leg"),
        UniqueConstraint("client_order_id", "batch_id", "symbol"),
        CheckConstraint("length(client_order_id) BETWEEN 1 AND 128", name="client_order_id"),
        CheckConstraint(states_sql("state"), name="state"),
        CheckConstraint(_SIDES, name="side"),
        CheckConstraint("quantity > 0", name="quantity"),
        CheckConstraint("leg >= 1", name="leg"),
        CheckConstraint("reference_price > 0", name="reference_price"),
        CheckConstraint("limit_price IS NULL OR limit_price > 0", name="limit_price"),
        CheckConstraint("stop_price IS NULL OR stop_price > 0", name="stop_price"),
        CheckConstraint("waits_for IN ('', 'leg', 'buying_power')", name="waits_for"),
        CheckConstraint("(waits_for = 'leg') = (depends_on IS NOT NULL)", name="depends_on"),
        CheckConstraint("state <> 'refused' OR limit_name IS NOT NULL", name="refused"),
        # Recovery reads this index alone, however long the history is.
        Index("ix_order_intents_unfinished", "batch_id", postgresql_where=text(_UNFINISHED_SQL)),
    )

    client_order_id: Mapped[ShortText] = mapped_column(primary_key=True)
    batch_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("order_batches.batch_id"))
    symbol: Mapped[ShortText]
    security_id: Mapped[ShortText]
    leg: Mapped[int] = mapped_column(SmallInteger)
    side: Mapped[ShortText]
    quantity: Mapped[Quantity]
    reduces: Mapped[bool]  # makes the position smaller: what REDUCING still allows
    order_type: Mapped[ShortText]
    time_in_force: Mapped[ShortText]
    limit_price: Mapped[Price | None]
    stop_price: Mapped[Price | None]
    reference_price: Mapped[Price]
    waits_for: Mapped[ShortText] = mapped_column(default="")
    depends_on: Mapped[ShortText | None] = mapped_column(
        ForeignKey("order_intents.client_order_id")
    )
    deadline: Mapped[Utc]
    state: Mapped[ShortText]
    limit_name: Mapped[ShortText | None]
    limit_value: Mapped[Fraction | None]
    limit_bound: Mapped[Fraction | None]
    reason: Mapped[LongText]
    updated_at: Mapped[Utc] = mapped_column(
        server_default=func.clock_timestamp(), onupdate=func.clock_timestamp()
    )


class IntentSignal(Base):
    """Which strategy's signal an intent comes from; an intent netted over strategies has several."""

    __tablename__ = "intent_signals"
    __table_args__ = (
        # Both keys, so that an intent cannot be explained by a target of another symbol or batch.
        ForeignKeyConstraint(
            ["client_order_id", "batch_id", "symbol"],
            ["order_intents.client_order_id", "order_intents.batch_id", "order_intents.symbol"],
            name="fk_intent_signals_intent",
        ),
        ForeignKeyConstraint(
            ["batch_id", "strategy", "symbol"],
            ["target_positions.batch_id", "target_positions.strategy", "target_positions.symbol"],
            name="fk_intent_signals_target",
        ),
        CheckConstraint("model_version <> ''", name="model_version"),
        {"info": APPEND_ONLY},
    )

    client_order_id: Mapped[ShortText] = mapped_column(primary_key=True)
    strategy: Mapped[ShortText] = mapped_column(primary_key=True)
    batch_id: Mapped[int] = mapped_column(BigInteger)
    symbol: Mapped[ShortText]
    signal_session: Mapped[date]
    score: Mapped[Fraction | None]
    target_weight: Mapped[Fraction]
    model_version: Mapped[ShortText]


class Order(Base):
    """The broker's order of an intent, as last seen; exactly one per accepted intent."""

    __tablename__ = "orders"
    __table_args__ = (
        UniqueConstraint("client_order_id"),
        UniqueConstraint("broker_order_id", "client_order_id"),
        CheckConstraint(_SIDES, name="side"),
        CheckConstraint("quantity > 0", name="quantity"),
        CheckConstraint("filled_quantity BETWEEN 0 AND quantity", name="filled_quantity"),
    )

    broker_order_id: Mapped[ShortText] = mapped_column(primary_key=True)
    client_order_id: Mapped[ShortText] = mapped_column(ForeignKey("order_intents.client_order_id"))
    symbol: Mapped[ShortText]
    side: Mapped[ShortText]
    quantity: Mapped[Quantity]
    filled_quantity: Mapped[Quantity]
    average_fill_price: Mapped[Price | None]
    status: Mapped[ShortText]
    submitted_at: Mapped[Utc]
    updated_at: Mapped[Utc]


class OrderEvent(Base):
    """One transition of an intent, with who caused it and the broker's own words."""

    __tablename__ = "order_events"
    __table_args__ = (
        CheckConstraint(transitions_sql("from_state", "to_state"), name="transition"),
        Index("ix_order_events_client_order_id", "client_order_id"),
        {"info": APPEND_ONLY},
    )

    event_id: Mapped[SequenceId]
    client_order_id: Mapped[ShortText] = mapped_column(ForeignKey("order_intents.client_order_id"))
    from_state: Mapped[ShortText | None]
    to_state: Mapped[ShortText]
    actor: Mapped[ShortText]
    detail: Mapped[LongText]
    broker_message: Mapped[JsonObject | None]
    happened_at: Mapped[Utc] = mapped_column(server_default=func.clock_timestamp())


class Fill(Base):
    """One execution, booked once by the broker's execution id."""

    __tablename__ = "fills"
    __table_args__ = (
        ForeignKeyConstraint(
            ["broker_order_id", "client_order_id"],
            ["orders.broker_order_id", "orders.client_order_id"],
            name="fk_fills_order",
        ),
        CheckConstraint(_SIDES, name="side"),
        CheckConstraint("quantity > 0", name="quantity"),
        CheckConstraint("price > 0", name="price"),
        Index("ix_fills_trading_session", "account_id", "trading_session"),
        Index("ix_fills_client_order_id", "client_order_id"),
        {"info": APPEND_ONLY},
    )

    execution_id: Mapped[ShortText] = mapped_column(primary_key=True)
    account_id: Mapped[ShortText]
    trading_session: Mapped[date]
    client_order_id: Mapped[ShortText]
    broker_order_id: Mapped[ShortText]
    symbol: Mapped[ShortText]
    side: Mapped[ShortText]
    quantity: Mapped[Quantity]
    price: Mapped[Price]
    realised_pnl: Mapped[Money]
    filled_at: Mapped[Utc]
    broker_message: Mapped[JsonObject]
    booked_at: Mapped[Utc] = mapped_column(server_default=func.clock_timestamp())


class Activity(Base):
    """What changed cash or shares without an order of ours: dividends, splits, fees, transfers."""

    __tablename__ = "activities"
    __table_args__ = (
        Index("ix_activities_account", "account_id", "activity_date"),
        {"info": APPEND_ONLY},
    )

    activity_id: Mapped[ShortText] = mapped_column(primary_key=True)
    account_id: Mapped[ShortText]
    activity_type: Mapped[ShortText]
    activity_date: Mapped[date]
    symbol: Mapped[ShortText | None]
    quantity: Mapped[Quantity | None]
    net_amount: Mapped[Money]
    realised_pnl: Mapped[Money]
    description: Mapped[LongText]
    broker_message: Mapped[JsonObject]
    booked_at: Mapped[Utc] = mapped_column(server_default=func.clock_timestamp())


class Position(Base):
    """What the ledger believes the account holds, from its opening balance, fills and activities."""

    __tablename__ = "positions"
    __table_args__ = (CheckConstraint("average_price >= 0", name="average_price"),)

    account_id: Mapped[ShortText] = mapped_column(primary_key=True)
    symbol: Mapped[ShortText] = mapped_column(primary_key=True)
    security_id: Mapped[ShortText | None]
    quantity: Mapped[Quantity]
    average_price: Mapped[Price]
    realised_pnl: Mapped[Money]
    updated_at: Mapped[Utc] = mapped_column(
        server_default=func.clock_timestamp(), onupdate=func.clock_timestamp()
    )


class AccountSnapshot(Base):
    """The account as the broker showed it at one moment of a trading session."""

    __tablename__ = "account_snapshots"
    __table_args__ = (
        CheckConstraint(
            "moment IN ('opening', 'before_trading', 'after_trading', 'end_of_day')", name="moment"
        ),
        # The ledger starts once with an account, and the evidence of a day is frozen once.
        Index(
            "uq_account_snapshots_opening",
            "account_id",
            unique=True,
            postgresql_where=text("moment = 'opening'"),
        ),
        Index(
            "uq_account_snapshots_end_of_day",
            "account_id",
            "trading_session",
            unique=True,
            postgresql_where=text("moment = 'end_of_day'"),
        ),
        {"info": APPEND_ONLY},
    )

    snapshot_id: Mapped[SequenceId]
    account_id: Mapped[ShortText]
    trading_session: Mapped[date]
    moment: Mapped[ShortText]
    taken_at: Mapped[Utc]
    equity: Mapped[Money]
    cash: Mapped[Money]
    buying_power: Mapped[Money]
    long_value: Mapped[Money]
    short_value: Mapped[Money]
    previous_equity: Mapped[Money | None]
    trading_state: Mapped[ShortText]
    broker_message: Mapped[JsonObject]


class PositionSnapshot(Base):
    """A position with its mark at the moment of an account snapshot."""

    __tablename__ = "position_snapshots"
    __table_args__ = ({"info": APPEND_ONLY},)

    snapshot_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("account_snapshots.snapshot_id"), primary_key=True
    )
    symbol: Mapped[ShortText] = mapped_column(primary_key=True)
    security_id: Mapped[ShortText | None]
    quantity: Mapped[Quantity]
    average_price: Mapped[Price]
    market_price: Mapped[Price]
    market_value: Mapped[Money]
    realised_pnl: Mapped[Money]
    unrealised_pnl: Mapped[Money]


class Reconciliation(Base):
    """One comparison of the ledger with the broker, with everything that differed."""

    __tablename__ = "reconciliations"
    __table_args__ = (
        CheckConstraint("moment IN ('before_trading', 'after_trading')", name="moment"),
        Index("ix_reconciliations_session", "account_id", "trading_session"),
        {"info": APPEND_ONLY},
    )

    reconciliation_id: Mapped[SequenceId]
    account_id: Mapped[ShortText]
    trading_session: Mapped[date]
    moment: Mapped[ShortText]
    passed: Mapped[bool]
    compared: Mapped[JsonObject]  # how many orders, fills, positions were compared
    findings: Mapped[JsonObject]
    reconciled_at: Mapped[Utc] = mapped_column(server_default=func.clock_timestamp())


class TradingState(Base):
    """Whether a book may trade; the newest row is in force, no row means ACTIVE."""

    __tablename__ = "trading_state"
    __table_args__ = (
        CheckConstraint("state IN ('ACTIVE', 'REDUCING', 'HALTED')", name="state"),
        CheckConstraint("reason <> '' AND changed_by <> ''", name="who_and_why"),
        Index("ix_trading_state_book", "book", "state_id"),
        {"info": APPEND_ONLY},
    )

    state_id: Mapped[SequenceId]
    book: Mapped[ShortText]
    state: Mapped[ShortText]
    reason: Mapped[LongText]
    changed_by: Mapped[ShortText]
    changed_at: Mapped[Utc] = mapped_column(server_default=func.clock_timestamp())
