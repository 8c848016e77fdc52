"""The life of an order: its states, the legal transitions, and who may cause each of them.

Belongs here: the one transition table. The code that moves an intent (`order_book.py`) asks it, and
the database's CHECK constraints (`order_tables.py`) are generated from it, so that neither can know a
transition that the other does not. Does not belong here: anything that talks to a broker or database.

The path of an order that meets no trouble: `pending` (frozen in the ledger) → `sending` (committed
before the request leaves) → `accepted` (the broker's id is recorded) → `filled`. Whoever finds an
intent in `sending` or `ambiguous` does not know whether the broker has it, and must look it up before
doing anything else: those two states never lead back to `pending`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from quant_resources.errors import LedgerError


class OrderState(StrEnum):
    """Where an intent stands."""

    PENDING = "pending"  # frozen, nothing was sent
    WAITING = "waiting"  # frozen, sent when the leg or the money it waits for is there
    SENDING = "sending"  # the request may have left
    AMBIGUOUS = "ambiguous"  # the request left, the answer proves nothing
    ACCEPTED = "accepted"  # the broker has it
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"  # the broker ended it (end of day)
    REJECTED = "rejected"  # the broker refused it for cause
    REFUSED = "refused"  # a limit of ours refused it
    EXPIRED_UNSENT = "expired_unsent"  # its deadline passed, it was never sent
    DRY_RUN = "dry_run"  # recorded, never to be sent
    WITHDRAWN = "withdrawn"  # unsent when a new attempt replaced its batch


class Actor(StrEnum):
    """Who causes a transition."""

    PLANNING = "planning"
    SUBMISSION = "submission"
    RECOVERY = "recovery"
    BOOKING = "booking"
    OPERATOR = "operator"


S: Final = OrderState
_SENDERS: Final = frozenset({Actor.SUBMISSION, Actor.RECOVERY})
_READERS: Final = frozenset({Actor.SUBMISSION, Actor.RECOVERY, Actor.BOOKING})
_WITHDRAWERS: Final = frozenset({Actor.PLANNING, Actor.OPERATOR})

#: States in which an intent may be born.
INITIAL: Final = frozenset({S.PENDING, S.WAITING, S.REFUSED, S.DRY_RUN})

_LEFT_BROKER: Final = (S.FILLED, S.CANCELED, S.EXPIRED, S.REJECTED)

#: (from, to) → who may cause it. Nothing else is legal.
TRANSITIONS: Final[dict[tuple[OrderState, OrderState], frozenset[Actor]]] = {
    (S.PENDING, S.SENDING): _SENDERS,
    (S.PENDING, S.EXPIRED_UNSENT): _SENDERS,
    (S.PENDING, S.WITHDRAWN): _WITHDRAWERS,
    (S.PENDING, S.REFUSED): _SENDERS,
    (S.WAITING, S.PENDING): _SENDERS,
    (S.WAITING, S.EXPIRED_UNSENT): _SENDERS,
    (S.WAITING, S.WITHDRAWN): _WITHDRAWERS,
    (S.SENDING, S.ACCEPTED): _READERS,
    (S.SENDING, S.REJECTED): _SENDERS,
    (S.SENDING, S.AMBIGUOUS): _SENDERS,
    (S.AMBIGUOUS, S.SENDING): _SENDERS,
    (S.AMBIGUOUS, S.ACCEPTED): _READERS,
    (S.AMBIGUOUS, S.EXPIRED_UNSENT): _SENDERS,
    # An order that no look-up saw may still turn up: what the broker has is adopted, never denied.
    (S.EXPIRED_UNSENT, S.ACCEPTED): _READERS,
    (S.ACCEPTED, S.PARTIALLY_FILLED): _READERS,
    **{(S.ACCEPTED, end): _READERS for end in _LEFT_BROKER},
    **{(S.PARTIALLY_FILLED, end): _READERS for end in _LEFT_BROKER},
}

#: Nothing is left to do for these without news from the broker.
FINAL: Final = frozenset(
    {
        S.FILLED,
        S.CANCELED,
        S.EXPIRED,
        S.REJECTED,
        S.REFUSED,
        S.EXPIRED_UNSENT,
        S.DRY_RUN,
        S.WITHDRAWN,
    }
)
#: What recovery must finish before anything new is planned.
UNFINISHED: Final = frozenset({S.PENDING, S.WAITING, S.SENDING, S.AMBIGUOUS})
#: The broker holds the order and may still fill it.
OPEN: Final = frozenset({S.ACCEPTED, S.PARTIALLY_FILLED})
#: The broker has, or has had, the order: exactly one row in `orders`.
AT_BROKER: Final = OPEN | {S.FILLED, S.CANCELED, S.EXPIRED}

#: Alpaca's order status → the state it means for an order that the broker has.
BROKER_STATUS: Final[dict[str, OrderState]] = {
    "new": S.ACCEPTED,
    "accepted": S.ACCEPTED,
    "pending_new": S.ACCEPTED,
    "accepted_for_bidding": S.ACCEPTED,
    "pending_review": S.ACCEPTED,
    "held": S.ACCEPTED,
    "stopped": S.ACCEPTED,
    "suspended": S.ACCEPTED,
    "calculated": S.ACCEPTED,
    "pending_cancel": S.ACCEPTED,
    "pending_replace": S.ACCEPTED,
    "done_for_day": S.ACCEPTED,
    "partially_filled": S.PARTIALLY_FILLED,
    "filled": S.FILLED,
    "canceled": S.CANCELED,
    "replaced": S.CANCELED,
    "expired": S.EXPIRED,
    "rejected": S.REJECTED,
}


class IllegalTransitionError(LedgerError):
    """A transition that the table does not know, or not for this actor."""


def assert_legal(
    client_order_id: str, old: OrderState | None, new: OrderState, actor: Actor
) -> None:
    """Refuse a transition that the table does not hold.

    Args:
        client_order_id: The intent, for the message.
        old: State it is in; None when it is being written for the first time.
        new: State it shall get.
        actor: Who causes it.

    Raises:
        IllegalTransitionError: The table knows no such transition, or not by this actor.
    """
    legal = new in INITIAL if old is None else actor in TRANSITIONS.get((old, new), frozenset())
    if not legal:
        raise IllegalTransitionError(
            f"Order {client_order_id} cannot go from {old or 'nothing'} to {new} by {actor}; "
            "the legal transitions are in quant_resources/ledger/order_states.py."
        )


def states_sql(column: str) -> str:
    """The CHECK that `column` holds a known state."""
    return f"{column} IN ({_quoted(sorted(OrderState))})"


def transitions_sql(old: str, new: str) -> str:
    """The CHECK that the columns `old` and `new` hold a legal transition (NULL = newly written)."""
    pairs = " OR ".join(
        f"({old} = '{start}' AND {new} IN ({_quoted(sorted(e for s, e in TRANSITIONS if s == start))}))"
        for start in sorted({start for start, _ in TRANSITIONS})
    )
    born = f"{old} IS NULL AND {new} IN ({_quoted(sorted(INITIAL))})"
    # Without the second IS NOT NULL the CHECK would be unknown for NULL, which passes.
    return f"({born}) OR ({old} IS NOT NULL AND ({pairs}))"


def _quoted(values: list[OrderState]) -> str:
    return ", ".join(f"'{value}'" for value in values)
