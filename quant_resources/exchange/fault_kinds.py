"""The kinds of faults: what can go wrong with a request to the exchange, its answer, or an event of its stream.

What belongs here: the kinds, each with what it is told. Which request or event has which is decided in
`faults.py`; what a fault does to the connection is in `faulty_wire.py`, to an answer in `faulty_answers.py`,
to the stream in `faulty_stream.py`.

| What goes wrong | Kinds |
|---|---|
| the connection | `latency`, `hang`, `reset`, `drip` |
| the answer's status or body | `status`, `html`, `malformed`, `empty_body`, `truncated` |
| what the exchange does | `duplicate_delivery`, `reject`, `partial_fill`, `clock_jump` |
| what an answer says | `stale_read`, `earlier_state`, `clock_skew`, `reorder`, `duplicate_rows`, `wrong_symbol`, `lost_page`, `empty_token`, `token_loop`, `rename_field`, `set_field`, `null_field` |
| events of the stream | `lost_event`, `doubled_event`, `overtaken_event`, `late_event`, `malformed_event`, `disconnect`, `silence` |
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """A part of a plan: immutable, and nothing in it is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# Faults of the connection. With `after` the exchange acts first and its answer is lost.


class Latency(Part):
    """The answer is right and late."""

    kind: Literal["latency"]
    seconds: Seconds
    after: bool = False


class Hang(Part):
    """No answer; after `seconds` the connection is reset."""

    kind: Literal["hang"]
    seconds: Seconds = 3600.0
    after: bool = False


class Reset(Part):
    """The connection is reset without an answer."""

    kind: Literal["reset"]
    after: bool = False


class Status(Part):
    """An error status; 422 or 403 before the exchange acts is a rejection for cause."""

    kind: Literal["status"]
    status: Annotated[int, Field(ge=400, le=599)]
    after: bool = False
    retry_after: Seconds | None = None
    code: int | None = None
    message: str = "broken on purpose"


class Nonsense(Part):
    """Status 200 with a body that is no answer: `html`, `malformed`, none (`empty_body`), or `body`."""

    kind: Literal["html", "malformed", "empty_body"]
    after: bool = True
    body: str | None = None


class Truncated(Part):
    """The body ends early: after `bytes`, or after a share of it.

    With its original Content-Length the connection ends in the middle of the body; with a matching one
    the answer looks whole to HTTP and is not.
    """

    kind: Literal["truncated"]
    share: Share = 0.5
    bytes: Annotated[int, Field(ge=0)] | None = None
    content_length: Literal["original", "matching"] = "original"


class Drip(Part):
    """The body comes in small pieces with a pause after each: never silent for long, never done."""

    kind: Literal["drip"]
    bytes: Annotated[int, Field(ge=1)] = 16
    seconds: Seconds = 0.1


# Faults of what the exchange does.


class DuplicateDelivery(Part):
    """The exchange gets the request twice, the client one of the two answers."""

    kind: Literal["duplicate_delivery"]
    answer: Literal["first", "second"] = "first"


class Reject(Part):
    """An order is taken, and rejected right after its answer: the client holds an id that never trades."""

    kind: Literal["reject"]
    reason: str = "rejected on purpose"


class PartialFill(Part):
    """An order fills in parts: each time it trades it gets at most a share of its quantity.

    An order for whole shares gets at least one each time.
    """

    kind: Literal["partial_fill"]
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5


class ClockJump(Part):
    """The exchange's clock jumps forward before it acts; what happens on the way happens."""

    kind: Literal["clock_jump"]
    seconds: Seconds


# Faults of an answer's content. Rows are the objects inside the answer's lists, else the answer itself.


class EmptyToken(Part):
    """`next_page_token` is "": a client that only looks for null asks for ever."""

    kind: Literal["empty_token"]


class TokenLoop(Part):
    """`next_page_token` is the one that was asked with."""

    kind: Literal["token_loop"]


class LostPage(Part):
    """A share of a page is missing at its end; its token leads on, or is null as if nothing followed."""

    kind: Literal["lost_page"]
    share: Share = 1.0
    leads_on: bool = True


class RenameField(Part):
    """A field has another name, in the rows and in the answer itself."""

    kind: Literal["rename_field"]
    field: str
    to: str


class SetField(Part):
    """A field that is there has another value, in the first `rows` rows or all (`null_field`: null)."""

    kind: Literal["set_field", "null_field"]
    field: str
    value: Any = None
    rows: Annotated[int, Field(ge=1)] | None = None


class WrongSymbol(Part):
    """What is about one symbol is said to be about another, beside what that one has."""

    kind: Literal["wrong_symbol"]
    symbol: str
    to: str


class DuplicateRows(Part):
    """The first `rows` rows of every list (or all) come twice."""

    kind: Literal["duplicate_rows"]
    rows: Annotated[int, Field(ge=1)] | None = None


class Reorder(Part):
    """Lists come in another order."""

    kind: Literal["reorder"]
    how: Literal["reversed", "shuffled"] = "reversed"


class StaleRead(Part):
    """A read that does not yet see the newest orders: look-ups by either id, lists, fills, positions.

    The account's money is as it is.
    """

    kind: Literal["stale_read"]
    newest: Annotated[int, Field(ge=1)] = 1


class EarlierState(Part):
    """A read that sees orders, fills and positions as they were before the last `updates` of any order.

    Updates are fills and what is said of them later, released legs, cancellations, expiries,
    replacements and rejections. After a read that saw them this one comes out of order. The account's
    money is as it is.
    """

    kind: Literal["earlier_state"]
    updates: Annotated[int, Field(ge=1)] = 1


class ClockSkew(Part):
    """The clock's answer is off: `seconds` too late, or too early when negative; nothing happens."""

    kind: Literal["clock_skew"]
    seconds: Annotated[float, Field(ge=-86_400, le=86_400, allow_inf_nan=False)]


ContentFault = (
    EmptyToken
    | TokenLoop
    | LostPage
    | RenameField
    | SetField
    | WrongSymbol
    | DuplicateRows
    | Reorder
    | StaleRead
    | EarlierState
    | ClockSkew
)

# Faults of the stream. A rule with one of them counts the events that are sent, not requests: an event has
# the method EVENT, the path /stream/<event>, and `symbol` and `client_order_id` as its query.


class LostEvent(Part):
    """The event is never sent."""

    kind: Literal["lost_event"]


class DoubledEvent(Part):
    """The event comes `copies` times."""

    kind: Literal["doubled_event"]
    copies: Annotated[int, Field(ge=2, le=100)] = 2


class OvertakenEvent(Part):
    """The event is sent after the next `by` events; until they come it is held back."""

    kind: Literal["overtaken_event"]
    by: Annotated[int, Field(ge=1)] = 1


class LateEvent(Part):
    """The event is stale: it comes `seconds` of real time later, whatever has been sent since."""

    kind: Literal["late_event"]
    seconds: Seconds


class MalformedEvent(Part):
    """In the place of the event comes a message that is none."""

    kind: Literal["malformed_event"]
    body: str = '{"stream": "trade_updates", "data": {"event": '


class Disconnect(Part):
    """The connection ends: before the event, or after it; orderly with a close code, or reset."""

    kind: Literal["disconnect"]
    after: bool = False
    code: Annotated[int, Field(ge=1000, le=4999)] | None = None


class Silence(Part):
    """The connection stays and says nothing, not even this event, for `seconds`; then it goes on."""

    kind: Literal["silence"]
    seconds: Seconds = 3600.0


StreamFault = (
    LostEvent | DoubledEvent | OvertakenEvent | LateEvent | MalformedEvent | Disconnect | Silence
)
#: What can go wrong when the stream is opened.
HandshakeFault = Latency | Hang | Reset | Status | ClockJump
RequestFault = (
    Latency
    | Hang
    | Reset
    | Status
    | Nonsense
    | Truncated
    | Drip
    | DuplicateDelivery
    | Reject
    | PartialFill
    | ClockJump
    | ContentFault
)
Fault = Annotated[RequestFault | StreamFault, Field(discriminator="kind")]
