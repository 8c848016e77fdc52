"""A ledger with a long past: thousands of finished orders with their targets, events, fills and activities."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

SESSIONS: Final = 100

#: One statement per table and per step of an order's life: the database checks every row as it always does.
_HISTORY: Final = (
    """
    INSERT INTO order_batches (book, trading_session, attempt, account_id, mode, equity, cash, buying_power,
            configuration)
        SELECT 'main', date '2020-01-01' + day, 1, 'account', 'paper', 1, 1, 1, '{}'
        FROM generate_series(1, :sessions) AS day
    """,
    """
    INSERT INTO target_positions (batch_id, strategy, symbol, security_id, signal_session, target_weight,
            target_quantity, reference_price, changed, reason, model_version)
        SELECT batch_id, strategy, 'S' || number, 'S' || number, trading_session - 1, 0.01, 10, 100, true, '',
            'rules-1'
        FROM order_batches, generate_series(1, :each) AS number, unnest(ARRAY['one', 'two']) AS strategy
    """,
    """
    INSERT INTO order_intents (client_order_id, batch_id, symbol, security_id, leg, side, quantity, reduces,
            order_type, time_in_force, reference_price, waits_for, deadline, state, reason)
        SELECT 'main-' || batch_id || '-' || number, batch_id, 'S' || number, 'S' || number, 1,
            CASE batch_id % 2 WHEN 0 THEN 'buy' ELSE 'sell' END, 10, false, 'market', 'day', 100, '',
            trading_session + time '20:00' AT TIME ZONE 'UTC', 'pending', ''
        FROM order_batches, generate_series(1, :each) AS number
    """,
    """
    INSERT INTO intent_signals (client_order_id, strategy, batch_id, symbol, signal_session, target_weight,
            model_version)
        SELECT client_order_id, strategy, batch_id, symbol, signal_session, target_weight, model_version
        FROM order_intents JOIN target_positions USING (batch_id, symbol)
    """,
    *(
        statement
        for old, new, actor in (
            ("NULL", "pending", "planning"),
            ("'pending'", "sending", "submission"),
            ("'sending'", "accepted", "submission"),
            ("'accepted'", "filled", "booking"),
        )
        for statement in (
            f"UPDATE order_intents SET state = '{new}'" if old != "NULL" else "SELECT 1",  # noqa: S608 - our own names
            f"""
            INSERT INTO order_events (client_order_id, from_state, to_state, actor, detail, broker_message)
                SELECT client_order_id, {old}, '{new}', '{actor}', '', '{{}}' FROM order_intents
            """,  # noqa: S608 - our own names
        )
    ),
    """
    INSERT INTO orders (broker_order_id, client_order_id, broker_client_order_id, symbol, side, quantity,
            order_type, time_in_force, filled_quantity, average_fill_price, status, submitted_at, updated_at)
        SELECT 'broker-' || client_order_id, client_order_id, client_order_id, symbol, side, quantity,
            order_type, time_in_force, quantity, 100, 'filled', deadline - interval '5 hours',
            deadline - interval '4 hours'
        FROM order_intents
    """,
    """
    INSERT INTO fills (execution_id, account_id, trading_session, client_order_id, broker_order_id, symbol, side,
            quantity, price, realised_pnl, filled_at, broker_message)
        SELECT 'execution-' || client_order_id, 'account', updated_at::date, client_order_id, broker_order_id,
            symbol, side, quantity, 100, 0, updated_at, '{}'
        FROM orders
    """,
    """
    INSERT INTO activities (activity_id, account_id, activity_type, activity_date, symbol, quantity, net_amount,
            realised_pnl, description, broker_message)
        SELECT 'dividend-' || batch_id, 'account', 'DIV', trading_session, 'S1', NULL, 1, 0, '', '{}'
        FROM order_batches
    """,
    """
    INSERT INTO account_snapshots (account_id, trading_session, moment, taken_at, equity, cash, buying_power,
            long_value, short_value, trading_state, broker_message)
        SELECT 'account', trading_session, moment, trading_session, 1000, 1000, 1000, 0, 0, 'ACTIVE', '{}'
        FROM order_batches, unnest(ARRAY['opening', 'end_of_day']) AS moment
        WHERE moment = 'end_of_day' OR batch_id = 1
    """,
    """
    INSERT INTO reconciliations (account_id, trading_session, moment, passed, compared, findings)
        SELECT 'account', trading_session, 'after_trading', true, '{}', '{}' FROM order_batches
    """,
)


def write_history(session: Session, orders: int) -> None:
    """Write finished orders of one account, over a hundred sessions, into an empty ledger.

    Args:
        session: The transaction.
        orders: How many, a multiple of a hundred.
    """
    for statement in _HISTORY:
        session.execute(text(statement), {"sessions": SESSIONS, "each": orders // SESSIONS})
