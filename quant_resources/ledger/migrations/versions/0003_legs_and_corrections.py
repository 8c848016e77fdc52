"""Legs, replacements, corrections and confirmed adjustments; transitions with their actor, held by triggers.

The database refuses an intent that begins in a state or changes to one that the transition table does not
know, and a transaction that ends with a state of which no event tells.

The way back exists while the ledger holds nothing that only this revision can hold; a ledger loses no
history by a downgrade, it is restored from a backup.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from quant_resources.ledger.migrations.append_only import protect

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TRANSITIONS = "(from_state IS NULL AND to_state IN ('dry_run', 'pending', 'refused', 'waiting') AND actor IN ('planning')) OR (from_state IS NOT NULL AND ((from_state = 'accepted' AND to_state IN ('canceled', 'expired', 'filled', 'partially_filled', 'rejected') AND actor IN ('booking', 'recovery', 'submission')) OR (from_state = 'ambiguous' AND to_state IN ('accepted') AND actor IN ('booking', 'recovery', 'submission')) OR (from_state = 'ambiguous' AND to_state IN ('expired_unsent', 'sending') AND actor IN ('recovery', 'submission')) OR (from_state = 'canceled' AND to_state IN ('filled') AND actor IN ('booking', 'recovery', 'submission')) OR (from_state = 'expired' AND to_state IN ('filled') AND actor IN ('booking', 'recovery', 'submission')) OR (from_state = 'expired_unsent' AND to_state IN ('accepted') AND actor IN ('booking', 'recovery', 'submission')) OR (from_state = 'filled' AND to_state IN ('accepted', 'canceled', 'expired', 'partially_filled') AND actor IN ('booking', 'recovery', 'submission')) OR (from_state = 'partially_filled' AND to_state IN ('accepted', 'canceled', 'expired', 'filled', 'rejected') AND actor IN ('booking', 'recovery', 'submission')) OR (from_state = 'pending' AND to_state IN ('accepted') AND actor IN ('booking', 'recovery', 'submission')) OR (from_state = 'pending' AND to_state IN ('withdrawn') AND actor IN ('operator', 'planning')) OR (from_state = 'pending' AND to_state IN ('expired_unsent', 'refused', 'sending') AND actor IN ('recovery', 'submission')) OR (from_state = 'rejected' AND to_state IN ('accepted') AND actor IN ('booking', 'recovery', 'submission')) OR (from_state = 'sending' AND to_state IN ('accepted') AND actor IN ('booking', 'recovery', 'submission')) OR (from_state = 'sending' AND to_state IN ('ambiguous', 'rejected') AND actor IN ('recovery', 'submission')) OR (from_state = 'waiting' AND to_state IN ('accepted') AND actor IN ('booking', 'recovery', 'submission')) OR (from_state = 'waiting' AND to_state IN ('withdrawn') AND actor IN ('operator', 'planning')) OR (from_state = 'waiting' AND to_state IN ('expired_unsent', 'pending') AND actor IN ('recovery', 'submission')) OR (from_state = 'withdrawn' AND to_state IN ('accepted') AND actor IN ('booking', 'recovery', 'submission'))))"

_TRANSITIONS_BEFORE = "(from_state IS NULL AND to_state IN ('dry_run', 'pending', 'refused', 'waiting')) OR (from_state IS NOT NULL AND ((from_state = 'accepted' AND to_state IN ('canceled', 'expired', 'filled', 'partially_filled', 'rejected')) OR (from_state = 'ambiguous' AND to_state IN ('accepted', 'expired_unsent', 'sending')) OR (from_state = 'expired_unsent' AND to_state IN ('accepted')) OR (from_state = 'partially_filled' AND to_state IN ('canceled', 'expired', 'filled', 'rejected')) OR (from_state = 'pending' AND to_state IN ('expired_unsent', 'refused', 'sending', 'withdrawn')) OR (from_state = 'sending' AND to_state IN ('accepted', 'ambiguous', 'rejected')) OR (from_state = 'waiting' AND to_state IN ('expired_unsent', 'pending', 'withdrawn'))))"

_LEGAL_STATE = """
CREATE FUNCTION refuse_illegal_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state NOT IN ('dry_run', 'pending', 'refused', 'waiting') THEN
            RAISE EXCEPTION 'Order % cannot begin in state %.', NEW.client_order_id, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'legal_state';
        END IF;
    ELSIF NEW.state <> OLD.state AND NOT (
        (OLD.state = 'accepted' AND NEW.state IN ('canceled', 'expired', 'filled', 'partially_filled', 'rejected'))
        OR (OLD.state = 'ambiguous' AND NEW.state IN ('accepted', 'expired_unsent', 'sending'))
        OR (OLD.state = 'canceled' AND NEW.state IN ('filled'))
        OR (OLD.state = 'expired' AND NEW.state IN ('filled'))
        OR (OLD.state = 'expired_unsent' AND NEW.state IN ('accepted'))
        OR (OLD.state = 'filled' AND NEW.state IN ('accepted', 'canceled', 'expired', 'partially_filled'))
        OR (OLD.state = 'partially_filled' AND NEW.state IN ('accepted', 'canceled', 'expired', 'filled', 'rejected'))
        OR (OLD.state = 'pending' AND NEW.state IN ('accepted', 'expired_unsent', 'refused', 'sending', 'withdrawn'))
        OR (OLD.state = 'rejected' AND NEW.state IN ('accepted'))
        OR (OLD.state = 'sending' AND NEW.state IN ('accepted', 'ambiguous', 'rejected'))
        OR (OLD.state = 'waiting' AND NEW.state IN ('accepted', 'expired_unsent', 'pending', 'withdrawn'))
        OR (OLD.state = 'withdrawn' AND NEW.state IN ('accepted'))
    ) THEN
        RAISE EXCEPTION 'Order % cannot go from % to %.', NEW.client_order_id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'legal_state';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER legal_state BEFORE INSERT OR UPDATE OF state ON order_intents
    FOR EACH ROW EXECUTE FUNCTION refuse_illegal_state();
ALTER TABLE order_intents ENABLE ALWAYS TRIGGER legal_state
"""

# Deferred, because a state and its event are two statements of one transaction.
_EVENT_OF_STATE = """
CREATE FUNCTION require_event_of_state() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    told varchar;
    found varchar;
BEGIN
    SELECT state INTO found FROM order_intents WHERE client_order_id = NEW.client_order_id;
    SELECT to_state INTO told FROM order_events WHERE client_order_id = NEW.client_order_id
        ORDER BY event_id DESC LIMIT 1;
    IF found IS DISTINCT FROM told THEN
        RAISE EXCEPTION 'Order % is %, but its last event says %: a state is written with its event.',
            NEW.client_order_id, found, coalesce(told, 'nothing')
            USING ERRCODE = 'check_violation', CONSTRAINT = 'event_of_state';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER event_of_state AFTER INSERT OR UPDATE OF state ON order_intents
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION require_event_of_state();
ALTER TABLE order_intents ENABLE ALWAYS TRIGGER event_of_state
"""

_TERMS_OF_OLDER_ORDERS = """
UPDATE orders SET broker_client_order_id = intents.client_order_id,
    order_type = intents.order_type, time_in_force = intents.time_in_force,
    limit_price = intents.limit_price, stop_price = intents.stop_price
FROM order_intents AS intents WHERE intents.client_order_id = orders.client_order_id
"""

# What a ledger of the revision before cannot hold.
_NEW_CONTENT = {
    "adjustments": "TRUE",
    "fill_corrections": "TRUE",
    "leg_events": "TRUE",
    "orders": "role <> 'entry' OR quantity IS NULL OR notional IS NOT NULL",
    "order_intents": "notional IS NOT NULL OR take_profit_price IS NOT NULL",
    "target_positions": "stop_loss IS NOT NULL OR take_profit IS NOT NULL",
}

_NEW_COLUMNS = {
    "orders": (
        "role",
        "parent_order_id",
        "broker_client_order_id",
        "notional",
        "order_type",
        "time_in_force",
        "limit_price",
        "stop_price",
    ),
    "order_intents": ("notional", "take_profit_price", "stop_loss_price"),
    "target_positions": ("stop_loss", "take_profit"),
}


def upgrade() -> None:
    """Apply the revision."""
    op.create_table(
        "adjustments",
        sa.Column("adjustment_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("book", sa.String(length=128), nullable=False),
        sa.Column("trading_session", sa.Date(), nullable=False),
        sa.Column("kind", sa.String(length=128), nullable=False),
        sa.Column("symbol", sa.String(length=128), nullable=True),
        sa.Column("quantity", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("price", sa.Numeric(precision=28, scale=9), nullable=True),
        sa.Column("cash", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("realised_pnl", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("explanation", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("confirmed_by", sa.String(length=128), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column(
            "confirmed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "kind IN ('split', 'dividend', 'manual_trade', 'other')",
            name=op.f("ck_adjustments_kind"),
        ),
        sa.CheckConstraint(
            "reason <> '' AND confirmed_by <> '' AND key <> ''",
            name=op.f("ck_adjustments_who_and_why"),
        ),
        sa.CheckConstraint("price IS NULL OR price >= 0", name=op.f("ck_adjustments_price")),
        sa.CheckConstraint(
            "symbol IS NOT NULL OR quantity = 0", name=op.f("ck_adjustments_symbol")
        ),
        sa.PrimaryKeyConstraint("adjustment_id", name=op.f("pk_adjustments")),
        sa.UniqueConstraint("key", name=op.f("uq_adjustments_key")),
    )
    op.create_index(
        "ix_adjustments_session", "adjustments", ["account_id", "trading_session"], unique=False
    )
    op.create_table(
        "leg_events",
        sa.Column("event_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("broker_order_id", sa.String(length=128), nullable=False),
        sa.Column("from_state", sa.String(length=128), nullable=True),
        sa.Column("to_state", sa.String(length=128), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("broker_message", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "happened_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(from_state IS NULL AND to_state IN ('accepted') AND actor IN ('booking', 'recovery', 'submission')) OR (from_state IS NOT NULL AND ((from_state = 'accepted' AND to_state IN ('canceled', 'expired', 'filled', 'partially_filled', 'rejected') AND actor IN ('booking', 'recovery', 'submission')) OR (from_state = 'canceled' AND to_state IN ('filled') AND actor IN ('booking', 'recovery', 'submission')) OR (from_state = 'expired' AND to_state IN ('filled') AND actor IN ('booking', 'recovery', 'submission')) OR (from_state = 'filled' AND to_state IN ('accepted', 'canceled', 'expired', 'partially_filled') AND actor IN ('booking', 'recovery', 'submission')) OR (from_state = 'partially_filled' AND to_state IN ('accepted', 'canceled', 'expired', 'filled', 'rejected') AND actor IN ('booking', 'recovery', 'submission'))))",
            name=op.f("ck_leg_events_transition"),
        ),
        sa.ForeignKeyConstraint(
            ["broker_order_id"],
            ["orders.broker_order_id"],
            name=op.f("fk_leg_events_broker_order_id"),
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_leg_events")),
    )
    op.create_index(
        "ix_leg_events_broker_order_id", "leg_events", ["broker_order_id"], unique=False
    )
    op.create_table(
        "fill_corrections",
        sa.Column("correction_id", sa.String(length=128), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("execution_id", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=128), nullable=False),
        sa.Column("trading_session", sa.Date(), nullable=False),
        sa.Column("quantity", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("price", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("realised_pnl", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("cash", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("corrected_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("broker_message", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "booked_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(kind = 'bust' AND quantity = 0 AND price >= 0) OR (kind = 'correct' AND quantity > 0 AND price > 0)",
            name=op.f("ck_fill_corrections_kind"),
        ),
        sa.ForeignKeyConstraint(
            ["execution_id"], ["fills.execution_id"], name=op.f("fk_fill_corrections_execution_id")
        ),
        sa.PrimaryKeyConstraint("correction_id", name=op.f("pk_fill_corrections")),
    )
    op.create_index(
        "ix_fill_corrections_execution_id", "fill_corrections", ["execution_id"], unique=False
    )
    op.create_index(
        "ix_fill_corrections_session",
        "fill_corrections",
        ["account_id", "trading_session"],
        unique=False,
    )
    op.create_index("ix_fills_symbol", "fills", ["symbol"], unique=False)
    op.create_index(
        "ix_order_events_rejected",
        "order_events",
        ["happened_at"],
        unique=False,
        postgresql_where=sa.text("to_state = 'rejected'"),
    )
    op.add_column(
        "order_intents", sa.Column("notional", sa.Numeric(precision=28, scale=9), nullable=True)
    )
    op.add_column(
        "order_intents",
        sa.Column("take_profit_price", sa.Numeric(precision=28, scale=9), nullable=True),
    )
    op.add_column(
        "order_intents",
        sa.Column("stop_loss_price", sa.Numeric(precision=28, scale=9), nullable=True),
    )
    _check(
        "order_intents",
        notional="notional IS NULL OR notional > 0",
        bracket="(take_profit_price IS NULL) = (stop_loss_price IS NULL) AND (take_profit_price IS NULL OR take_profit_price > 0) AND (stop_loss_price IS NULL OR stop_loss_price > 0)",
    )
    op.create_index(
        "ix_order_intents_open",
        "order_intents",
        ["batch_id"],
        unique=False,
        postgresql_where=sa.text("state IN ('accepted', 'partially_filled')"),
    )
    op.add_column(
        "orders", sa.Column("role", sa.String(length=128), server_default="entry", nullable=False)
    )
    op.add_column("orders", sa.Column("parent_order_id", sa.String(length=128), nullable=True))
    op.add_column(
        "orders", sa.Column("broker_client_order_id", sa.String(length=128), nullable=True)
    )
    op.add_column("orders", sa.Column("notional", sa.Numeric(precision=28, scale=9), nullable=True))
    op.add_column("orders", sa.Column("order_type", sa.String(length=128), nullable=True))
    op.add_column("orders", sa.Column("time_in_force", sa.String(length=128), nullable=True))
    op.add_column(
        "orders", sa.Column("limit_price", sa.Numeric(precision=28, scale=9), nullable=True)
    )
    op.add_column(
        "orders", sa.Column("stop_price", sa.Numeric(precision=28, scale=9), nullable=True)
    )
    # Until now every order was exactly the one that its intent froze.
    op.execute(_TERMS_OF_OLDER_ORDERS)
    for column in ("broker_client_order_id", "order_type", "time_in_force"):
        op.alter_column("orders", column, nullable=False)
    op.alter_column("orders", "quantity", nullable=True)
    op.drop_constraint(op.f("ck_orders_quantity"), "orders")
    op.drop_constraint(op.f("ck_orders_filled_quantity"), "orders")
    _check(
        "orders",
        quantity="quantity IS NULL OR quantity > 0",
        notional="notional IS NULL OR notional > 0",
        limit_price="limit_price IS NULL OR limit_price > 0",
        stop_price="stop_price IS NULL OR stop_price > 0",
        size="quantity IS NOT NULL OR notional IS NOT NULL",
        filled_quantity="filled_quantity >= 0 AND (quantity IS NULL OR filled_quantity <= quantity)",
        role="role IN ('entry', 'take_profit', 'stop_loss', 'replacement')",
        parent_order_id="(role = 'entry') = (parent_order_id IS NULL)",
    )
    op.drop_constraint(op.f("uq_orders_client_order_id"), "orders", type_="unique")
    op.create_index("ix_orders_client_order_id", "orders", ["client_order_id"], unique=False)
    op.create_index(
        "ix_orders_open",
        "orders",
        ["symbol"],
        unique=False,
        postgresql_where=sa.text(
            "status NOT IN ('canceled', 'expired', 'filled', 'rejected', 'replaced')"
        ),
    )
    op.create_index("ix_orders_submitted_at", "orders", ["submitted_at"], unique=False)
    op.create_index(
        "uq_orders_entry",
        "orders",
        ["client_order_id"],
        unique=True,
        postgresql_where=sa.text("role = 'entry'"),
    )
    op.create_foreign_key(
        op.f("fk_orders_parent_order_id"),
        "orders",
        "orders",
        ["parent_order_id"],
        ["broker_order_id"],
    )
    op.add_column(
        "target_positions", sa.Column("stop_loss", sa.Numeric(precision=28, scale=9), nullable=True)
    )
    op.add_column(
        "target_positions",
        sa.Column("take_profit", sa.Numeric(precision=28, scale=9), nullable=True),
    )
    _check(
        "target_positions",
        stop_loss="stop_loss IS NULL OR stop_loss > 0",
        take_profit="take_profit IS NULL OR take_profit > 0",
    )
    op.drop_constraint(op.f("ck_order_events_transition"), "order_events")
    _check("order_events", transition=_TRANSITIONS)
    op.execute(_LEGAL_STATE)
    op.execute(_EVENT_OF_STATE)
    protect("adjustments", "fill_corrections", "leg_events")


def downgrade() -> None:
    """Take the revision back, from a ledger that holds nothing of it.

    Raises:
        RuntimeError: The ledger holds what would be lost.
    """
    for table, condition in _NEW_CONTENT.items():
        query = f'SELECT EXISTS (SELECT FROM "{table}" WHERE {condition})'  # noqa: S608 - our own names
        if op.get_bind().scalar(sa.text(query)):
            raise RuntimeError(
                f"Table {table} holds what schema revision 0002 cannot: a downgrade would lose it, so "
                "nothing was changed; restore a backup instead."
            )
    op.execute("DROP TRIGGER event_of_state ON order_intents")
    op.execute("DROP TRIGGER legal_state ON order_intents")
    op.execute("DROP FUNCTION require_event_of_state")
    op.execute("DROP FUNCTION refuse_illegal_state")
    for table in ("adjustments", "fill_corrections", "leg_events"):
        op.drop_table(table)
    # Their constraints and indexes go with the columns.
    for table, columns in _NEW_COLUMNS.items():
        for column in columns:
            op.drop_column(table, column)
    for name in ("filled_quantity", "quantity"):
        op.drop_constraint(op.f(f"ck_orders_{name}"), "orders")
    op.alter_column("orders", "quantity", nullable=False)
    _check(
        "orders", quantity="quantity > 0", filled_quantity="filled_quantity BETWEEN 0 AND quantity"
    )
    for index in (
        "ix_orders_client_order_id",
        "ix_orders_open",
        "ix_orders_submitted_at",
        "ix_order_intents_open",
        "ix_order_events_rejected",
        "ix_fills_symbol",
    ):
        op.drop_index(index)
    op.create_unique_constraint(op.f("uq_orders_client_order_id"), "orders", ["client_order_id"])
    # Fails, and so leaves everything as it is, where an event tells what could not happen before.
    op.drop_constraint(op.f("ck_order_events_transition"), "order_events")
    _check("order_events", transition=_TRANSITIONS_BEFORE)


def _check(table: str, **conditions: str) -> None:
    for name, condition in conditions.items():
        op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)
