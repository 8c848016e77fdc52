"""The ledger as it begins: model registry, orders, positions and accounts.

There is no way back: a ledger loses no history by a downgrade, it is restored from a backup.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from quant_resources.ledger.migrations.append_only import create_refusal, protect

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the revision."""
    op.create_table(
        "account_snapshots",
        sa.Column("snapshot_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("trading_session", sa.Date(), nullable=False),
        sa.Column("moment", sa.String(length=128), nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("equity", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("cash", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("buying_power", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("long_value", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("short_value", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("previous_equity", sa.Numeric(precision=28, scale=9), nullable=True),
        sa.Column("trading_state", sa.String(length=128), nullable=False),
        sa.Column("broker_message", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint(
            "moment IN ('opening', 'before_trading', 'after_trading', 'end_of_day')",
            name=op.f("ck_account_snapshots_moment"),
        ),
        sa.PrimaryKeyConstraint("snapshot_id", name=op.f("pk_account_snapshots")),
    )
    op.create_index(
        "uq_account_snapshots_end_of_day",
        "account_snapshots",
        ["account_id", "trading_session"],
        unique=True,
        postgresql_where=sa.text("moment = 'end_of_day'"),
    )
    op.create_index(
        "uq_account_snapshots_opening",
        "account_snapshots",
        ["account_id"],
        unique=True,
        postgresql_where=sa.text("moment = 'opening'"),
    )
    op.create_table(
        "activities",
        sa.Column("activity_id", sa.String(length=128), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("activity_type", sa.String(length=128), nullable=False),
        sa.Column("activity_date", sa.Date(), nullable=False),
        sa.Column("symbol", sa.String(length=128), nullable=True),
        sa.Column("quantity", sa.Numeric(precision=28, scale=9), nullable=True),
        sa.Column("net_amount", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("realised_pnl", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("broker_message", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "booked_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("activity_id", name=op.f("pk_activities")),
    )
    op.create_index(
        "ix_activities_account", "activities", ["account_id", "activity_date"], unique=False
    )
    op.create_table(
        "models",
        sa.Column("model_version", sa.String(length=128), nullable=False),
        sa.Column("model_name", sa.String(length=128), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("training_first_session", sa.Date(), nullable=False),
        sa.Column("training_last_session", sa.Date(), nullable=False),
        sa.Column("metrics", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("config", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("artefact", sa.Text(), nullable=False),
        sa.Column("artefact_sha256", sa.String(length=128), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("length(artefact_sha256) = 64", name=op.f("ck_models_artefact_sha256")),
        sa.CheckConstraint(
            "training_first_session <= training_last_session",
            name=op.f("ck_models_training_window"),
        ),
        sa.PrimaryKeyConstraint("model_version", name=op.f("pk_models")),
        sa.UniqueConstraint(
            "model_name", "model_version", name=op.f("uq_models_model_name_model_version")
        ),
    )
    op.create_index("ix_models_model_name_month", "models", ["model_name", "month"], unique=False)
    op.create_table(
        "order_batches",
        sa.Column("batch_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("book", sa.String(length=128), nullable=False),
        sa.Column("trading_session", sa.Date(), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("mode", sa.String(length=128), nullable=False),
        sa.Column("equity", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("cash", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("buying_power", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("configuration", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "frozen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "mode IN ('dry_run', 'paper', 'live')", name=op.f("ck_order_batches_mode")
        ),
        sa.CheckConstraint("attempt >= 1", name=op.f("ck_order_batches_attempt")),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_order_batches")),
        sa.UniqueConstraint(
            "book",
            "trading_session",
            "attempt",
            name=op.f("uq_order_batches_book_trading_session_attempt"),
        ),
    )
    op.create_index(
        "ix_order_batches_account",
        "order_batches",
        ["account_id", "mode", "trading_session"],
        unique=False,
    )
    op.create_table(
        "positions",
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("symbol", sa.String(length=128), nullable=False),
        sa.Column("security_id", sa.String(length=128), nullable=True),
        sa.Column("quantity", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("average_price", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("realised_pnl", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("average_price >= 0", name=op.f("ck_positions_average_price")),
        sa.PrimaryKeyConstraint("account_id", "symbol", name=op.f("pk_positions")),
    )
    op.create_table(
        "reconciliations",
        sa.Column("reconciliation_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("trading_session", sa.Date(), nullable=False),
        sa.Column("moment", sa.String(length=128), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("compared", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("findings", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "reconciled_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "moment IN ('before_trading', 'after_trading')", name=op.f("ck_reconciliations_moment")
        ),
        sa.PrimaryKeyConstraint("reconciliation_id", name=op.f("pk_reconciliations")),
    )
    op.create_index(
        "ix_reconciliations_session",
        "reconciliations",
        ["account_id", "trading_session"],
        unique=False,
    )
    op.create_table(
        "trading_state",
        sa.Column("state_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("book", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("changed_by", sa.String(length=128), nullable=False),
        sa.Column(
            "changed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "reason <> '' AND changed_by <> ''", name=op.f("ck_trading_state_who_and_why")
        ),
        sa.CheckConstraint(
            "state IN ('ACTIVE', 'REDUCING', 'HALTED')", name=op.f("ck_trading_state_state")
        ),
        sa.PrimaryKeyConstraint("state_id", name=op.f("pk_trading_state")),
    )
    op.create_index("ix_trading_state_book", "trading_state", ["book", "state_id"], unique=False)
    op.create_table(
        "model_activations",
        sa.Column("activation_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("model_name", sa.String(length=128), nullable=False),
        sa.Column("model_version", sa.String(length=128), nullable=False),
        sa.Column("effective_session", sa.Date(), nullable=False),
        sa.Column(
            "activated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("activated_by", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_name", "model_version"],
            ["models.model_name", "models.model_version"],
            name=op.f("fk_model_activations_model_name_model_version"),
        ),
        sa.PrimaryKeyConstraint("activation_id", name=op.f("pk_model_activations")),
    )
    op.create_index(
        "ix_model_activations_in_force",
        "model_activations",
        ["model_name", "effective_session", "activation_id"],
        unique=False,
    )
    op.create_table(
        "order_intents",
        sa.Column("client_order_id", sa.String(length=128), nullable=False),
        sa.Column("batch_id", sa.BigInteger(), nullable=False),
        sa.Column("symbol", sa.String(length=128), nullable=False),
        sa.Column("security_id", sa.String(length=128), nullable=False),
        sa.Column("leg", sa.SmallInteger(), nullable=False),
        sa.Column("side", sa.String(length=128), nullable=False),
        sa.Column("quantity", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("reduces", sa.Boolean(), nullable=False),
        sa.Column("order_type", sa.String(length=128), nullable=False),
        sa.Column("time_in_force", sa.String(length=128), nullable=False),
        sa.Column("limit_price", sa.Numeric(precision=28, scale=9), nullable=True),
        sa.Column("stop_price", sa.Numeric(precision=28, scale=9), nullable=True),
        sa.Column("reference_price", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("waits_for", sa.String(length=128), nullable=False),
        sa.Column("depends_on", sa.String(length=128), nullable=True),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=128), nullable=False),
        sa.Column("limit_name", sa.String(length=128), nullable=True),
        sa.Column("limit_value", sa.Numeric(precision=28, scale=9), nullable=True),
        sa.Column("limit_bound", sa.Numeric(precision=28, scale=9), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(waits_for = 'leg') = (depends_on IS NOT NULL)",
            name=op.f("ck_order_intents_depends_on"),
        ),
        sa.CheckConstraint("side IN ('buy', 'sell')", name=op.f("ck_order_intents_side")),
        sa.CheckConstraint(
            "state <> 'refused' OR limit_name IS NOT NULL", name=op.f("ck_order_intents_refused")
        ),
        sa.CheckConstraint(
            "state IN ('accepted', 'ambiguous', 'canceled', 'dry_run', 'expired', 'expired_unsent', 'filled', 'partially_filled', 'pending', 'refused', 'rejected', 'sending', 'waiting', 'withdrawn')",
            name=op.f("ck_order_intents_state"),
        ),
        sa.CheckConstraint(
            "waits_for IN ('', 'leg', 'buying_power')", name=op.f("ck_order_intents_waits_for")
        ),
        sa.CheckConstraint("leg >= 1", name=op.f("ck_order_intents_leg")),
        sa.CheckConstraint(
            "length(client_order_id) BETWEEN 1 AND 128",
            name=op.f("ck_order_intents_client_order_id"),
        ),
        sa.CheckConstraint(
            "limit_price IS NULL OR limit_price > 0", name=op.f("ck_order_intents_limit_price")
        ),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_order_intents_quantity")),
        sa.CheckConstraint("reference_price > 0", name=op.f("ck_order_intents_reference_price")),
        sa.CheckConstraint(
            "stop_price IS NULL OR stop_price > 0", name=op.f("ck_order_intents_stop_price")
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["order_batches.batch_id"], name=op.f("fk_order_intents_batch_id")
        ),
        sa.ForeignKeyConstraint(
            ["depends_on"],
            ["order_intents.client_order_id"],
            name=op.f("fk_order_intents_depends_on"),
        ),
        sa.PrimaryKeyConstraint("client_order_id", name=op.f("pk_order_intents")),
        sa.UniqueConstraint(
            "batch_id", "symbol", "leg", name=op.f("uq_order_intents_batch_id_symbol_leg")
        ),
        sa.UniqueConstraint(
            "client_order_id",
            "batch_id",
            "symbol",
            name=op.f("uq_order_intents_client_order_id_batch_id_symbol"),
        ),
    )
    op.create_index(
        "ix_order_intents_unfinished",
        "order_intents",
        ["batch_id"],
        unique=False,
        postgresql_where=sa.text("state IN ('ambiguous', 'pending', 'sending', 'waiting')"),
    )
    op.create_table(
        "position_snapshots",
        sa.Column("snapshot_id", sa.BigInteger(), nullable=False),
        sa.Column("symbol", sa.String(length=128), nullable=False),
        sa.Column("security_id", sa.String(length=128), nullable=True),
        sa.Column("quantity", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("average_price", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("market_price", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("market_value", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("realised_pnl", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("unrealised_pnl", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.ForeignKeyConstraint(
            ["snapshot_id"],
            ["account_snapshots.snapshot_id"],
            name=op.f("fk_position_snapshots_snapshot_id"),
        ),
        sa.PrimaryKeyConstraint("snapshot_id", "symbol", name=op.f("pk_position_snapshots")),
    )
    op.create_table(
        "target_positions",
        sa.Column("batch_id", sa.BigInteger(), nullable=False),
        sa.Column("strategy", sa.String(length=128), nullable=False),
        sa.Column("symbol", sa.String(length=128), nullable=False),
        sa.Column("security_id", sa.String(length=128), nullable=False),
        sa.Column("signal_session", sa.Date(), nullable=False),
        sa.Column("score", sa.Numeric(precision=28, scale=9), nullable=True),
        sa.Column("target_weight", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("target_quantity", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("reference_price", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("changed", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("model_version", sa.String(length=128), nullable=False),
        sa.CheckConstraint("model_version <> ''", name=op.f("ck_target_positions_model_version")),
        sa.CheckConstraint("reference_price > 0", name=op.f("ck_target_positions_reference_price")),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["order_batches.batch_id"], name=op.f("fk_target_positions_batch_id")
        ),
        sa.PrimaryKeyConstraint("batch_id", "strategy", "symbol", name=op.f("pk_target_positions")),
    )
    op.create_table(
        "intent_signals",
        sa.Column("client_order_id", sa.String(length=128), nullable=False),
        sa.Column("strategy", sa.String(length=128), nullable=False),
        sa.Column("batch_id", sa.BigInteger(), nullable=False),
        sa.Column("symbol", sa.String(length=128), nullable=False),
        sa.Column("signal_session", sa.Date(), nullable=False),
        sa.Column("score", sa.Numeric(precision=28, scale=9), nullable=True),
        sa.Column("target_weight", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("model_version", sa.String(length=128), nullable=False),
        sa.CheckConstraint("model_version <> ''", name=op.f("ck_intent_signals_model_version")),
        sa.ForeignKeyConstraint(
            ["batch_id", "strategy", "symbol"],
            ["target_positions.batch_id", "target_positions.strategy", "target_positions.symbol"],
            name="fk_intent_signals_target",
        ),
        sa.ForeignKeyConstraint(
            ["client_order_id", "batch_id", "symbol"],
            ["order_intents.client_order_id", "order_intents.batch_id", "order_intents.symbol"],
            name="fk_intent_signals_intent",
        ),
        sa.PrimaryKeyConstraint("client_order_id", "strategy", name=op.f("pk_intent_signals")),
    )
    op.create_table(
        "order_events",
        sa.Column("event_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("client_order_id", sa.String(length=128), nullable=False),
        sa.Column("from_state", sa.String(length=128), nullable=True),
        sa.Column("to_state", sa.String(length=128), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("broker_message", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "happened_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(from_state IS NULL AND to_state IN ('dry_run', 'pending', 'refused', 'waiting')) OR (from_state IS NOT NULL AND ((from_state = 'accepted' AND to_state IN ('canceled', 'expired', 'filled', 'partially_filled', 'rejected')) OR (from_state = 'ambiguous' AND to_state IN ('accepted', 'expired_unsent', 'sending')) OR (from_state = 'expired_unsent' AND to_state IN ('accepted')) OR (from_state = 'partially_filled' AND to_state IN ('canceled', 'expired', 'filled', 'rejected')) OR (from_state = 'pending' AND to_state IN ('expired_unsent', 'refused', 'sending', 'withdrawn')) OR (from_state = 'sending' AND to_state IN ('accepted', 'ambiguous', 'rejected')) OR (from_state = 'waiting' AND to_state IN ('expired_unsent', 'pending', 'withdrawn'))))",
            name=op.f("ck_order_events_transition"),
        ),
        sa.ForeignKeyConstraint(
            ["client_order_id"],
            ["order_intents.client_order_id"],
            name=op.f("fk_order_events_client_order_id"),
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_order_events")),
    )
    op.create_index(
        "ix_order_events_client_order_id", "order_events", ["client_order_id"], unique=False
    )
    op.create_table(
        "orders",
        sa.Column("broker_order_id", sa.String(length=128), nullable=False),
        sa.Column("client_order_id", sa.String(length=128), nullable=False),
        sa.Column("symbol", sa.String(length=128), nullable=False),
        sa.Column("side", sa.String(length=128), nullable=False),
        sa.Column("quantity", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("filled_quantity", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("average_fill_price", sa.Numeric(precision=28, scale=9), nullable=True),
        sa.Column("status", sa.String(length=128), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("side IN ('buy', 'sell')", name=op.f("ck_orders_side")),
        sa.CheckConstraint(
            "filled_quantity BETWEEN 0 AND quantity", name=op.f("ck_orders_filled_quantity")
        ),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_orders_quantity")),
        sa.ForeignKeyConstraint(
            ["client_order_id"],
            ["order_intents.client_order_id"],
            name=op.f("fk_orders_client_order_id"),
        ),
        sa.PrimaryKeyConstraint("broker_order_id", name=op.f("pk_orders")),
        sa.UniqueConstraint(
            "broker_order_id",
            "client_order_id",
            name=op.f("uq_orders_broker_order_id_client_order_id"),
        ),
        sa.UniqueConstraint("client_order_id", name=op.f("uq_orders_client_order_id")),
    )
    op.create_table(
        "fills",
        sa.Column("execution_id", sa.String(length=128), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("trading_session", sa.Date(), nullable=False),
        sa.Column("client_order_id", sa.String(length=128), nullable=False),
        sa.Column("broker_order_id", sa.String(length=128), nullable=False),
        sa.Column("symbol", sa.String(length=128), nullable=False),
        sa.Column("side", sa.String(length=128), nullable=False),
        sa.Column("quantity", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("price", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("realised_pnl", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("filled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("broker_message", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "booked_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("side IN ('buy', 'sell')", name=op.f("ck_fills_side")),
        sa.CheckConstraint("price > 0", name=op.f("ck_fills_price")),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_fills_quantity")),
        sa.ForeignKeyConstraint(
            ["broker_order_id", "client_order_id"],
            ["orders.broker_order_id", "orders.client_order_id"],
            name="fk_fills_order",
        ),
        sa.PrimaryKeyConstraint("execution_id", name=op.f("pk_fills")),
    )
    op.create_index("ix_fills_client_order_id", "fills", ["client_order_id"], unique=False)
    op.create_index(
        "ix_fills_trading_session", "fills", ["account_id", "trading_session"], unique=False
    )
    create_refusal()
    protect(
        "account_snapshots",
        "activities",
        "fills",
        "intent_signals",
        "model_activations",
        "models",
        "order_batches",
        "order_events",
        "position_snapshots",
        "reconciliations",
        "target_positions",
        "trading_state",
    )
