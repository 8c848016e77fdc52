"""The life of an order: its states, the legal transitions, and who may cause each of them.

Belongs here: the one transition table. The code that moves an intent (`intent_book.py`) asks it, and what
the database refuses is generated from it: the CHECK on `order_events` (from, to and actor), the one on
`leg_events`, and the trigger on `order_intents`. So neither side can know a transition that the other
does not. Does not belong here: anything that talks to a broker or database.

The path of an order that meets no trouble: `pending` (frozen in the ledger) → `sending` (committed
before the request leaves) → `accepted` (the broker's id is recorded) → `filled`. Whoever finds an
intent in `sending` or `ambiguous` does not know whether the broker has it, and must look it up before
doing anything else: those two states never lead back to `pending`.

| Actor | Is | May cause |
|---|---|---|
| planning | freezing a batch, or replacing it by a new attempt | birth in an initial state; unsent → withdrawn |
| submission | the pass that sends | waiting → pending → sending; pending → refused; unsent → expired_unsent; what an answer proves |
| recovery | the same pass, over what an earlier process left | the same |
| booking | reading the broker's record | what the broker has and what became of it; nothing unsent ends by it |
| operator | a person | unsent → withdrawn |

Everyone who reads the broker (submission, recovery, booking) may record what it says: an order that it has
is adopted from every state in which it can have been sent, also where the ledger was restored from a
backup that is older than the order; never from `refused` and `dry_run`, which nobody here ever sends.

An intent follows its entry order and, where that was replaced at the broker, the replacement. The
protective legs of a bracket have a life of their own in the same states (`LEG_TRANSITIONS`), which never
moves the intent. A bust takes a fill back: it alone leads out of `filled`, and from `partially_filled`
back to `accepted`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
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
_PLANNERS: Final = frozenset({Actor.PLANNING})

#: States in which an intent may be born.
INITIAL: Final = frozenset({S.PENDING, S.WAITING, S.REFUSED, S.DRY_RUN})

_LEFT_BROKER: Final = (S.FILLED, S.CANCELED, S.EXPIRED, S.REJECTED)

#: What becomes of an order that the broker has, entry or leg: the broker says it, whoever reads it.
_AT_THE_BROKER: Final[dict[tuple[OrderState, OrderState], frozenset[Actor]]] = {
    (S.ACCEPTED, S.PARTIALLY_FILLED): _READERS,
    **{(S.ACCEPTED, end): _READERS for end in _LEFT_BROKER},
    **{(S.PARTIALLY_FILLED, end): _READERS for end in _LEFT_BROKER},
    # A bust took the fill away, or a part of it: the order is open again, or ended without it.
    (S.PARTIALLY_FILLED, S.ACCEPTED): _READERS,
    (S.FILLED, S.ACCEPTED): _READERS,
    (S.FILLED, S.PARTIALLY_FILLED): _READERS,
    (S.FILLED, S.CANCELED): _READERS,
    (S.FILLED, S.EXPIRED): _READERS,
    # A fill that crossed the cancellation, or the end of the day, and was reported after it.
    (S.CANCELED, S.FILLED): _READERS,
    (S.EXPIRED, S.FILLED): _READERS,
}

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
    # The same where a restored backup says that nothing was sent, or an answer said so wrongly.
    (S.PENDING, S.ACCEPTED): _READERS,
    (S.WAITING, S.ACCEPTED): _READERS,
    (S.WITHDRAWN, S.ACCEPTED): _READERS,
    (S.REJECTED, S.ACCEPTED): _READERS,
    **_AT_THE_BROKER,
}

#: The same for the protective legs of a bracket, which are born when the broker first shows them.
LEG_INITIAL: Final = frozenset({S.ACCEPTED})
LEG_TRANSITIONS: Final = _AT_THE_BROKER

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
#: The broker has, or has had, the order: exactly one entry in `orders`.
AT_BROKER: Final = OPEN | {S.FILLED, S.CANCELED, S.EXPIRED}
#: From these an order that the broker turns out to have is adopted.
ADOPTED_FROM: Final = frozenset(old for old, new in TRANSITIONS if new == S.ACCEPTED) - AT_BROKER

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
    # The order that took its place goes on under the same intent.
    "replaced": S.ACCEPTED,
    "expired": S.EXPIRED,
    "rejected": S.REJECTED,
}


def state_at_broker(
    order_id: str, status: str, filled_quantity: Decimal, quantity: Decimal | None
) -> OrderState:
    """The state that the broker's status means for an order of so many shares, of which so many have filled.

    A status such as "pending_cancel" says nothing about fills, so the filled shares do. And "filled" stays
    the broker's status when a bust has taken shares back: the order has ended without them, so whatever
    waits for it to be filled must not go on.

    Args:
        order_id: For the message.
        status: The broker's word.
        filled_quantity: Shares that have filled and count.
        quantity: Shares of the order; None for an order for an amount of money.

    Raises:
        LedgerError: The status is not known.
    """
    state = BROKER_STATUS.get(status)
    if state is None:
        raise LedgerError(
            f"The broker says {status!r} of order {order_id}, which this version does not know; add it "
            "to BROKER_STATUS."
        )
    if state == S.FILLED and quantity is not None and filled_quantity < quantity:
        return S.CANCELED
    return S.PARTIALLY_FILLED if state == S.ACCEPTED and filled_quantity > 0 else state


def leg_state(
    order_id: str, status: str, filled_quantity: Decimal, quantity: Decimal | None
) -> OrderState:
    """The same for a protective leg, whose life ends when another order takes its place."""
    if status == "replaced":
        return S.CANCELED
    return state_at_broker(order_id, status, filled_quantity, quantity)


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
    if old is None:
        allowed = _PLANNERS if new in INITIAL else frozenset[Actor]()
    else:
        allowed = TRANSITIONS.get((old, new), frozenset[Actor]())
    if actor not in allowed:
        raise IllegalTransitionError(
            f"Order {client_order_id} cannot go from {old or 'nothing'} to {new} by {actor}; "
            "the legal transitions are in quant_resources/ledger/order_states.py."
        )


def states_sql(column: str) -> str:
    """The CHECK that `column` holds a known state."""
    return f"{column} IN ({_quoted(OrderState)})"


def events_sql(old: str, new: str, actor: str) -> str:
    """The CHECK that three columns hold a legal transition of an intent (`old` NULL = newly written)."""
    return _triples_sql(
        old, new, actor, initial=INITIAL, creators=_PLANNERS, transitions=TRANSITIONS
    )


def leg_events_sql(old: str, new: str, actor: str) -> str:
    """The same for a protective leg."""
    return _triples_sql(
        old, new, actor, initial=LEG_INITIAL, creators=_READERS, transitions=LEG_TRANSITIONS
    )


def trigger_sql() -> str:
    """The body of the trigger function that holds `order_intents.state` to the table.

    The trigger knows no actor: that one is held by the CHECK of the event, without which no state can be
    committed.
    """
    return f"""
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state NOT IN ({_quoted(INITIAL)}) THEN
            RAISE EXCEPTION 'Order % cannot begin in state %.', NEW.client_order_id, NEW.state
                USING ERRCODE = 'check_violation', CONSTRAINT = 'legal_state';
        END IF;
    ELSIF NEW.state <> OLD.state AND NOT (
        {_pairs_sql("OLD.state", "NEW.state")}
    ) THEN
        RAISE EXCEPTION 'Order % cannot go from % to %.', NEW.client_order_id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'legal_state';
    END IF;
    RETURN NEW;
END
"""


def _pairs_sql(old: str, new: str) -> str:
    starts = sorted({start for start, _ in TRANSITIONS})
    return "\n        OR ".join(
        f"({old} = '{start}' AND {new} IN ({_quoted(e for s, e in TRANSITIONS if s == start)}))"
        for start in starts
    )


def _triples_sql(
    old: str,
    new: str,
    actor: str,
    *,
    initial: Iterable[OrderState],
    creators: Iterable[Actor],
    transitions: Mapping[tuple[OrderState, OrderState], frozenset[Actor]],
) -> str:
    # Pairs that the same actors may cause are one clause.
    by_actors: dict[tuple[str, str], list[OrderState]] = {}
    for (start, end), actors in transitions.items():
        by_actors.setdefault((start, _quoted(actors)), []).append(end)
    clauses = " OR ".join(
        f"({old} = '{start}' AND {new} IN ({_quoted(ends)}) AND {actor} IN ({actors}))"
        for (start, actors), ends in sorted(by_actors.items())
    )
    born = f"{old} IS NULL AND {new} IN ({_quoted(initial)}) AND {actor} IN ({_quoted(creators)})"
    # Without the second IS NOT NULL the CHECK would be unknown for NULL, which passes.
    return f"({born}) OR ({old} IS NOT NULL AND ({clauses}))"


def _quoted(values: Iterable[StrEnum]) -> str:
    return ", ".join(f"'{value}'" for value in sorted(values))
