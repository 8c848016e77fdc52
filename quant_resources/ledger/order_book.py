"""The order path in the ledger, through one door: what was planned, and what the broker made of it.

Belongs here: nothing but the names that the order path calls. Batches, intents and their states are in
`intent_book.py`, the broker's orders under them in `broker_orders.py`, what the account holds in
`account_book.py`. Every function works inside the caller's transaction.
"""

from quant_resources.ledger.broker_orders import (
    open_client_ids,
    open_entries,
    open_legs,
    orders_by_broker_id,
    orders_of,
    orders_submitted_since,
    record_leg,
    record_order,
    record_replacement,
    recorded_orders,
)
from quant_resources.ledger.frozen_terms import WrongOrderError
from quant_resources.ledger.intent_book import (
    batch_modes,
    freeze_batch,
    frozen_times,
    has_event,
    intents_of,
    known_client_ids,
    last_sleeves,
    newest_batch,
    rejections_since,
    security_ids,
    states_of,
    targets_of,
    transition,
    unfinished_intents,
    used_client_ids,
)

__all__ = [
    "WrongOrderError",
    "batch_modes",
    "freeze_batch",
    "frozen_times",
    "has_event",
    "intents_of",
    "known_client_ids",
    "last_sleeves",
    "newest_batch",
    "open_client_ids",
    "open_entries",
    "open_legs",
    "orders_by_broker_id",
    "orders_of",
    "orders_submitted_since",
    "record_leg",
    "record_order",
    "record_replacement",
    "recorded_orders",
    "rejections_since",
    "security_ids",
    "states_of",
    "targets_of",
    "transition",
    "unfinished_intents",
    "used_client_ids",
]
