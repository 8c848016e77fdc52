"""The tables of the order path: what was planned, sent and accepted, and every transition of it.

Belongs here: table declarations with their constraints, batches to orders. Does not belong here: what an
account holds (`account_tables.py`, whose tables can be imported from here too), the functions on the
tables (`order_book.py`) and the states with their transitions (`order_states.py`).

Foreign keys make the audit trail a fact of the database: every fill has an order, every order an
intent, every intent at least one target of a strategy with its signal session and model version.
History (`APPEND_ONLY`) is never updated; what changes is the intent's state and the broker's view of an
order, each in the transaction that appends the reason: a trigger of the database holds the state to the
transition table, and a second one lets no transaction commit a state without its event.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Final, Literal, get_args

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

from quant_resources.ledger.account_tables import (
    SIDES,
    AccountSnapshot,
    Activity,
    Adjustment,
    Fill,
    FillCorrection,
    Position,
    PositionSnapshot,
    Reconciliation,
    TradingState,
)
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
from quant_resources.ledger.order_states import (
    OPEN,
    UNFINISHED,
    OrderState,
    events_sql,
    leg_events_sql,
    states_sql,
)

_MODES: Final = "mode IN ('dry_run', 'paper', 'live')"
__all__ = [
    "ENDED_STATUSES",
    "LEG_ROLES",
    "AccountSnapshot",
    "Activity",
    "Adjustment",
    "Fill",
    "FillCorrection",
    "IntentSignal",
    "LegEvent",
    "Order",
    "OrderBatch",
    "OrderEvent",
    "OrderIntent",
    "Position",
    "PositionSnapshot",
    "Reconciliation",
    "Role",
    "TargetPosition",
    "TradingState",
]

#: Statuses of the broker after which nothing of an order can fill.
ENDED_STATUSES: Final = ("canceled", "expired", "filled", "rejected", "replaced")
#: What an order is to its intent.
Role = Literal["entry", "take_profit", "stop_loss", "replacement"]
LEG_ROLES: Final = ("stop_loss", "take_profit")


def _in(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


def _in_states(states: frozenset[OrderState]) -> str:
    return _in("state", sorted(states))


def positive(column: str) -> CheckConstraint:
    """The CHECK that a column, where it says anything, is above zero."""
    return CheckConstraint(f"{column} IS NULL OR {column} > 0", name=column)


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
        positive("stop_loss"),
        positive("take_profit"),
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
    stop_loss: Mapped[Price | None]
    take_profit: Mapped[Price | None]


class OrderIntent(Base):
    """An order that shall be sent, or the one that a limit refused."""

    __tablename__ = "order_intents"
    __table_args__ = (
        UniqueConstraint("batch_id", "symbol", "leg"),
        UniqueConstraint("client_order_id", "batch_id", "symbol"),
        CheckConstraint("length(client_order_id) BETWEEN 1 AND 128", name="client_order_id"),
        CheckConstraint(states_sql("state"), name="state"),
        CheckConstraint(SIDES, name="side"),
        CheckConstraint("quantity > 0", name="quantity"),
        CheckConstraint("leg >= 1", name="leg"),
        CheckConstraint("reference_price > 0", name="reference_price"),
        positive("limit_price"),
        positive("stop_price"),
        positive("notional"),
        CheckConstraint(
            "(take_profit_price IS NULL) = (stop_loss_price IS NULL) "
            "AND (take_profit_price IS NULL OR take_profit_price > 0) "
            "AND (stop_loss_price IS NULL OR stop_loss_price > 0)",
            name="bracket",
        ),
        CheckConstraint("waits_for IN ('', 'leg', 'buying_power')", name="waits_for"),
        CheckConstraint("(waits_for = 'leg') = (depends_on IS NOT NULL)", name="depends_on"),
        CheckConstraint("state <> 'refused' OR limit_name IS NOT NULL", name="refused"),
        # Recovery and booking read these two alone, however long the history is.
        Index(
            "ix_order_intents_unfinished",
            "batch_id",
            postgresql_where=text(_in_states(UNFINISHED)),
        ),
        Index("ix_order_intents_open", "batch_id", postgresql_where=text(_in_states(OPEN))),
    )

    client_order_id: Mapped[ShortText] = mapped_column(primary_key=True)
    batch_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("order_batches.batch_id"))
    symbol: Mapped[ShortText]
    security_id: Mapped[ShortText]
    leg: Mapped[int] = mapped_column(SmallInteger)
    side: Mapped[ShortText]
    quantity: Mapped[Quantity]  # with a notional: the shares that it buys at the reference price
    notional: Mapped[Money | None]
    reduces: Mapped[bool]  # makes the position smaller: what REDUCING still allows
    order_type: Mapped[ShortText]
    time_in_force: Mapped[ShortText]
    limit_price: Mapped[Price | None]
    stop_price: Mapped[Price | None]
    take_profit_price: Mapped[Price | None]  # both or neither: the order is a bracket
    stop_loss_price: Mapped[Price | None]
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
    """An order at the broker, as last seen: an intent's entry, its protective legs, what replaced them.

    `client_order_id` is the intent's, whatever the role, so that a fill is always explained by what was
    planned; `broker_client_order_id` is the one that the broker knows.
    """

    __tablename__ = "orders"
    __table_args__ = (
        # Exactly one entry per accepted intent.
        Index(
            "uq_orders_entry",
            "client_order_id",
            unique=True,
            postgresql_where=text("role = 'entry'"),
        ),
        Index("ix_orders_client_order_id", "client_order_id"),
        Index("ix_orders_submitted_at", "submitted_at"),
        Index(
            "ix_orders_open",
            "symbol",
            postgresql_where=text(_in("status", ENDED_STATUSES).replace(" IN ", " NOT IN ")),
        ),
        UniqueConstraint("broker_order_id", "client_order_id"),
        CheckConstraint(SIDES, name="side"),
        CheckConstraint(_in("role", get_args(Role)), name="role"),
        CheckConstraint("(role = 'entry') = (parent_order_id IS NULL)", name="parent_order_id"),
        CheckConstraint("quantity IS NOT NULL OR notional IS NOT NULL", name="size"),
        positive("quantity"),
        positive("notional"),
        positive("limit_price"),
        positive("stop_price"),
        CheckConstraint(
            "filled_quantity >= 0 AND (quantity IS NULL OR filled_quantity <= quantity)",
            name="filled_quantity",
        ),
    )

    broker_order_id: Mapped[ShortText] = mapped_column(primary_key=True)
    client_order_id: Mapped[ShortText] = mapped_column(ForeignKey("order_intents.client_order_id"))
    role: Mapped[ShortText] = mapped_column(default="entry", server_default="entry")
    # The entry that a leg protects, or the order that a replacement took the place of.
    parent_order_id: Mapped[ShortText | None] = mapped_column(ForeignKey("orders.broker_order_id"))
    broker_client_order_id: Mapped[ShortText]
    symbol: Mapped[ShortText]
    side: Mapped[ShortText]
    quantity: Mapped[Quantity | None]
    notional: Mapped[Money | None]
    order_type: Mapped[ShortText]
    time_in_force: Mapped[ShortText]
    limit_price: Mapped[Price | None]
    stop_price: Mapped[Price | None]
    filled_quantity: Mapped[Quantity]
    average_fill_price: Mapped[Price | None]
    status: Mapped[ShortText]
    submitted_at: Mapped[Utc]
    updated_at: Mapped[Utc]


class OrderEvent(Base):
    """One transition of an intent, with who caused it and the broker's own words."""

    __tablename__ = "order_events"
    __table_args__ = (
        CheckConstraint(events_sql("from_state", "to_state", "actor"), name="transition"),
        Index("ix_order_events_client_order_id", "client_order_id"),
        # Repeated rejections stop trading: they are counted before every batch.
        Index(
            "ix_order_events_rejected",
            "happened_at",
            postgresql_where=text("to_state = 'rejected'"),
        ),
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


class LegEvent(Base):
    """One transition of a protective leg, which has no intent of its own."""

    __tablename__ = "leg_events"
    __table_args__ = (
        CheckConstraint(leg_events_sql("from_state", "to_state", "actor"), name="transition"),
        Index("ix_leg_events_broker_order_id", "broker_order_id"),
        {"info": APPEND_ONLY},
    )

    event_id: Mapped[SequenceId]
    broker_order_id: Mapped[ShortText] = mapped_column(ForeignKey("orders.broker_order_id"))
    from_state: Mapped[ShortText | None]
    to_state: Mapped[ShortText]
    actor: Mapped[ShortText]
    detail: Mapped[LongText]
    broker_message: Mapped[JsonObject]
    happened_at: Mapped[Utc] = mapped_column(server_default=func.clock_timestamp())
