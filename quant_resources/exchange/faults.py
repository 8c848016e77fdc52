"""The fault plan: which requests to the exchange go wrong, and how. Posted as JSON, kept in the state.

1. A plan is a list of rules. A rule says which requests it watches (method, path, query parameters), which
   of those go wrong (`nth`, `first`, `every`, `probability`, `times`) and with which fault.
2. Every rule counts the requests that it watches, from 1, whether or not another rule breaks them.
3. A request goes wrong by the first rule, in the plan's order, whose turn it is; never by two.
4. Chance is a pure function of the plan's seed, the rule's place and its count: the same plan breaks
   the same requests, whatever else is asked in between.
5. Counts are written before a fault happens, together with an audit entry (`fault`), so that a server
   that is killed goes on counting where it was.
6. The exchange's own API under `/exchange/` is never watched.

What belongs here: the plan, whose turn it is, and the counts. What a fault does to the connection is in
`faulty_wire.py`, what it does to an answer in `faulty_answers.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from random import Random
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from quant_resources.exchange.refusals import misread
from quant_resources.exchange.state import State

CONTROL_PATH = "/exchange/"
_KEPT = "faults"

_Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# Faults of the connection. With `after` the exchange acts first and its answer is lost.


class Latency(_Part):
    """The answer is right and late."""

    kind: Literal["latency"]
    seconds: _Seconds
    after: bool = False


class Hang(_Part):
    """No answer; after `seconds` the connection is reset."""

    kind: Literal["hang"]
    seconds: _Seconds = 3600.0
    after: bool = False


class Reset(_Part):
    """The connection is reset without an answer."""

    kind: Literal["reset"]
    after: bool = False


class Status(_Part):
    """An error status; 422 or 403 before the exchange acts is a rejection for cause."""

    kind: Literal["status"]
    status: Annotated[int, Field(ge=400, le=599)]
    after: bool = False
    retry_after: _Seconds | None = None
    code: int | None = None
    message: str = "broken on purpose"


class Nonsense(_Part):
    """Status 200 with a body that is no answer: `html`, `malformed`, none (`empty_body`), or `body`."""

    kind: Literal["html", "malformed", "empty_body"]
    after: bool = True
    body: str | None = None


class Truncated(_Part):
    """The body ends early: after `bytes`, or after a share of it.

    With its original Content-Length the connection ends in the middle of the body; with a matching one
    the answer looks whole to HTTP and is not.
    """

    kind: Literal["truncated"]
    share: _Share = 0.5
    bytes: Annotated[int, Field(ge=0)] | None = None
    content_length: Literal["original", "matching"] = "original"


class Drip(_Part):
    """The body comes in small pieces with a pause after each: never silent for long, never done."""

    kind: Literal["drip"]
    bytes: Annotated[int, Field(ge=1)] = 16
    seconds: _Seconds = 0.1


class DuplicateDelivery(_Part):
    """The exchange gets the request twice, the client the first answer."""

    kind: Literal["duplicate_delivery"]


class ClockJump(_Part):
    """The exchange's clock jumps forward before it acts; what happens on the way happens."""

    kind: Literal["clock_jump"]
    seconds: _Seconds


# Faults of an answer's content. Rows are the objects inside the answer's lists, else the answer itself.


class EmptyToken(_Part):
    """`next_page_token` is "": a client that only looks for null asks for ever."""

    kind: Literal["empty_token"]


class TokenLoop(_Part):
    """`next_page_token` is the one that was asked with."""

    kind: Literal["token_loop"]


class LostPage(_Part):
    """A share of a page is missing at its end; its token leads on, or is null as if nothing followed."""

    kind: Literal["lost_page"]
    share: _Share = 1.0
    leads_on: bool = True


class RenameField(_Part):
    """A field has another name, in the rows and in the answer itself."""

    kind: Literal["rename_field"]
    field: str
    to: str


class SetField(_Part):
    """A field that is there has another value, in the first `rows` rows or all (`null_field`: null)."""

    kind: Literal["set_field", "null_field"]
    field: str
    value: Any = None
    rows: Annotated[int, Field(ge=1)] | None = None


class WrongSymbol(_Part):
    """What is about one symbol is said to be about another, beside what that one has."""

    kind: Literal["wrong_symbol"]
    symbol: str
    to: str


class DuplicateRows(_Part):
    """The first `rows` rows of every list (or all) come twice."""

    kind: Literal["duplicate_rows"]
    rows: Annotated[int, Field(ge=1)] | None = None


class Reorder(_Part):
    """Lists come in another order."""

    kind: Literal["reorder"]
    how: Literal["reversed", "shuffled"] = "reversed"


class StaleRead(_Part):
    """A read that does not yet see the newest orders, nor their fills."""

    kind: Literal["stale_read"]
    newest: Annotated[int, Field(ge=1)] = 1


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
)
Fault = Annotated[
    Latency
    | Hang
    | Reset
    | Status
    | Nonsense
    | Truncated
    | Drip
    | DuplicateDelivery
    | ClockJump
    | ContentFault,
    Field(discriminator="kind"),
]


class Rule(_Part):
    """Which requests go wrong, and how.

    Attributes:
        method: HTTP method, "*" for any.
        path: Glob of the path with its version, such as "/v2/stocks/*"; "*" crosses slashes.
        query: Parameter to glob of its value; null where the parameter must be absent.
        nth: Numbers of the watched requests that go wrong; empty for all that follow.
        first: The first watched request that may go wrong.
        every: Only each so-manieth from there on.
        probability: Chance of each of them.
        times: At most so often.
    """

    fault: Fault
    method: str = "*"
    path: str = "*"
    query: dict[str, str | None] = {}
    nth: tuple[Annotated[int, Field(ge=1)], ...] = ()
    first: Annotated[int, Field(ge=1)] = 1
    every: Annotated[int, Field(ge=1)] = 1
    probability: _Share = 1.0
    times: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _can_match(self) -> Self:
        if self.path != "*" and not self.path.startswith(("/", "*")):
            raise ValueError(f"path {self.path!r} begins with no slash and can match nothing")
        if self.path.startswith(CONTROL_PATH):
            raise ValueError(f"{CONTROL_PATH} is the exchange's own API, which never goes wrong")
        return self

    def watches(self, method: str, path: str, query: Mapping[str, str]) -> bool:
        """Whether the rule counts a request."""
        return (
            self.method in {"*", method}
            and fnmatchcase(path, self.path)
            and all(
                (name not in query)
                if glob is None
                else (name in query and fnmatchcase(query[name], glob))
                for name, glob in self.query.items()
            )
        )

    def is_due(self, seen: int, fired: int, chance: Random) -> bool:
        """Whether the watched request number `seen` goes wrong after `fired` that did."""
        if self.times is not None and fired >= self.times:
            return False
        if self.nth and seen not in self.nth:
            return False
        if seen < self.first or (seen - self.first) % self.every:
            return False
        return chance.random() < self.probability


class FaultPlan(_Part):
    """What shall go wrong; the same seed, the same requests."""

    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=1000)]
    seed: int = 0

    @classmethod
    def read(cls, body: object) -> FaultPlan:
        """A plan from JSON.

        Raises:
            RefusalError: It is none; every wrong field is named.
        """
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise misread(error, "fault plan") from None


class FaultDesk:
    """The plan in force and its counts, kept in the exchange's state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._plan: FaultPlan | None = None
        self._seen: list[int] = []
        self._fired: list[int] = []
        kept = state.find(_KEPT)
        if kept:
            document = json.loads(kept)
            self._plan = FaultPlan.read(document["plan"])
            self._seen, self._fired = document["seen"], document["fired"]

    def post(self, body: object) -> None:
        """Put a plan in force, with counts at zero.

        Raises:
            RefusalError: It is no plan; the one in force stays.
        """
        plan = FaultPlan.read(body)
        self._set(plan, [0] * len(plan.rules), [0] * len(plan.rules))

    def clear(self) -> None:
        """Let everything go right again."""
        self._set(None, [], [])

    def shown(self) -> dict[str, Any]:
        """The plan in force, each rule with how many requests it has seen and broken."""
        if self._plan is None:
            return {"seed": 0, "rules": []}
        rules = [
            rule.model_dump(mode="json", exclude_unset=True) | {"seen": seen, "fired": fired}
            for rule, seen, fired in zip(self._plan.rules, self._seen, self._fired, strict=True)
        ]
        return {"seed": self._plan.seed, "rules": rules}

    @property
    def idle(self) -> bool:
        """Whether there is no plan."""
        return self._plan is None

    def next_fault(self, method: str, path: str, query: Mapping[str, str]) -> Fault | None:
        """Count a request, and say what shall go wrong with it."""
        if self._plan is None or path.startswith(CONTROL_PATH):
            return None
        seen, fired = list(self._seen), list(self._fired)
        found: int | None = None
        for number, rule in enumerate(self._plan.rules):
            if not rule.watches(method, path, query):
                continue
            seen[number] += 1
            chance = Random(f"{self._plan.seed}:{number}:{seen[number]}")  # noqa: S311 - no secret
            if found is None and rule.is_due(seen[number], fired[number], chance):
                found = number
                fired[number] += 1
        if seen == self._seen:
            return None
        fault = None if found is None else self._plan.rules[found].fault
        entry = {"rule": found, "request": f"{method} {path}", "query": dict(query)}
        self._set(
            self._plan,
            seen,
            fired,
            None if fault is None else {**entry, "fault": fault.model_dump(mode="json")},
        )
        return fault

    def _set(
        self,
        plan: FaultPlan | None,
        seen: list[int],
        fired: list[int],
        entry: dict[str, Any] | None = None,
    ) -> None:
        kept = ""
        if plan is not None:
            document = {"plan": plan.model_dump(mode="json", exclude_unset=True)}
            kept = json.dumps({**document, "seen": seen, "fired": fired})
        with self._state.transaction():
            self._state.put(_KEPT, kept)
            if entry is not None:
                self._state.record("fault", entry)
        self._plan, self._seen, self._fired = plan, seen, fired
