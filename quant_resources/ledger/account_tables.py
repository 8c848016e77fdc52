"""The tables of the account: what filled, what was held, compared and decided.

Belongs here: table declarations with their constraints, fills to trading state. Does not belong here:
what was planned and sent (`order_tables.py`), and the functions on these tables (`account_book.py`).

History (`APPEND_ONLY`) is never updated: a fill that the broker takes back stays, with a correction; what
a person confirmed is an adjustment of its own. What changes is the position, in the transaction that
appends the reason.
"""

from __future__ import annotations

from datetime import date
from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from quant_resources.ledger.base import (
    APPEND_ONLY,
    Base,
    JsonObject,
    LongText,
    Money,
    Price,
    Quantity,
    SequenceId,
    ShortText,
    Utc,
)

SIDES: Final = "side IN ('buy', 'sell')"


class Fill(Base):
    """One execution, booked once by the broker's execution id."""

    __tablename__ = "fills"
    __table_args__ = (
        ForeignKeyConstraint(
            ["broker_order_id", "client_order_id"],
            ["orders.broker_order_id", "orders.client_order_id"],
            name="fk_fills_order",
        ),
        CheckConstraint(SIDES, name="side"),
        CheckConstraint("quantity > 0", name="quantity"),
        CheckConstraint("price > 0", name="price"),
        Index("ix_fills_trading_session", "account_id", "trading_session"),
        Index("ix_fills_client_order_id", "client_order_id"),
        # A position is played again from its symbol's history when an older fill turns up.
        Index("ix_fills_symbol", "symbol"),
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


class FillCorrection(Base):
    """The broker's later word on a fill: a bust takes it back, a correction changes it.

    `quantity` and `price` are what is true now (a bust leaves zero shares); `realised_pnl` and `cash` are
    the changes that the correction makes, in USD.
    """

    __tablename__ = "fill_corrections"
    __table_args__ = (
        CheckConstraint(
            "(kind = 'bust' AND quantity = 0 AND price >= 0)"
            " OR (kind = 'correct' AND quantity > 0 AND price > 0)",
            name="kind",
        ),
        Index("ix_fill_corrections_session", "account_id", "trading_session"),
        Index("ix_fill_corrections_execution_id", "execution_id"),
        {"info": APPEND_ONLY},
    )

    correction_id: Mapped[ShortText] = mapped_column(primary_key=True)
    account_id: Mapped[ShortText]
    execution_id: Mapped[ShortText] = mapped_column(ForeignKey("fills.execution_id"))
    kind: Mapped[ShortText]
    trading_session: Mapped[date]
    quantity: Mapped[Quantity]
    price: Mapped[Price]
    realised_pnl: Mapped[Money]
    cash: Mapped[Money]
    corrected_at: Mapped[Utc]
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


class Adjustment(Base):
    """A difference to the broker that was explained, and that a person has confirmed.

    `quantity`, `cash` and `realised_pnl` are changes (shares, USD); `key` names the finding, so that it is
    booked once, whoever confirms it again.
    """

    __tablename__ = "adjustments"
    __table_args__ = (
        UniqueConstraint("key"),
        CheckConstraint("kind IN ('split', 'dividend', 'manual_trade', 'other')", name="kind"),
        CheckConstraint("symbol IS NOT NULL OR quantity = 0", name="symbol"),
        CheckConstraint("price IS NULL OR price >= 0", name="price"),
        CheckConstraint("reason <> '' AND confirmed_by <> '' AND key <> ''", name="who_and_why"),
        Index("ix_adjustments_session", "account_id", "trading_session"),
        {"info": APPEND_ONLY},
    )

    adjustment_id: Mapped[SequenceId]
    account_id: Mapped[ShortText]
    book: Mapped[ShortText]
    trading_session: Mapped[date]
    kind: Mapped[ShortText]
    symbol: Mapped[ShortText | None]
    quantity: Mapped[Quantity]
    price: Mapped[Price | None]
    cash: Mapped[Money]
    realised_pnl: Mapped[Money]
    explanation: Mapped[JsonObject]
    reason: Mapped[LongText]
    confirmed_by: Mapped[ShortText]
    key: Mapped[ShortText]
    confirmed_at: Mapped[Utc] = mapped_column(server_default=func.clock_timestamp())


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
