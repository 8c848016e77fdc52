"""The fault plan: which requests to the exchange go wrong, and how. Posted as JSON, kept in the state.

1. A plan is a list of rules. A rule says which requests it watches (method, path, query parameters), which
   of those go wrong (`nth`, `first`, `every`, `probability`, `times`) and with which fault. A rule with a
   fault of the stream watches the events that the stream sends instead (method EVENT, path
   `/stream/<event>`); opening the stream is a GET of `/stream`.
2. Every rule counts the requests that it watches, from 1, whether or not another rule breaks them.
3. A request goes wrong by the first rule, in the plan's order, whose turn it is; never by two.
4. Chance is a pure function of the plan's seed, the rule's place and its count: the same plan breaks
   the same requests, whatever else is asked in between.
5. Counts are written before a fault happens, together with an audit entry (`fault`), so that a server
   that is killed goes on counting where it was.
6. The exchange's own API under `/exchange/` is never watched.

What belongs here: the plan, whose turn it is, and the counts. Which faults there are is in `fault_kinds.py`,
what they do in the modules that it names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from random import Random
from typing import Annotated, Any, Final, Self

from pydantic import Field, ValidationError, model_validator

from quant_resources.exchange.fault_kinds import Fault, HandshakeFault, Part, Share, StreamFault
from quant_resources.exchange.refusals import misread
from quant_resources.exchange.state import State

CONTROL_PATH: Final = "/exchange/"
STREAM_PATH: Final = "/stream"
#: The method that an event of the stream has for a rule.
EVENT: Final = "EVENT"
_KEPT: Final = "faults"


class Rule(Part):
    """Which requests go wrong, and how.

    Attributes:
        method: HTTP method, EVENT for an event of the stream, "*" for any.
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
    query: dict[str, str | None] = Field(default_factory=dict)
    nth: tuple[Annotated[int, Field(ge=1)], ...] = ()
    first: Annotated[int, Field(ge=1)] = 1
    every: Annotated[int, Field(ge=1)] = 1
    probability: Share = 1.0
    times: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _can_match(self) -> Self:
        if self.path != "*" and not self.path.startswith(("/", "*")):
            raise ValueError(f"path {self.path!r} begins with no slash and can match nothing")
        if self.path.startswith(CONTROL_PATH):
            raise ValueError(f"{CONTROL_PATH} is the exchange's own API, which never goes wrong")
        return self

    def watches(self, method: str, path: str, query: Mapping[str, str]) -> bool:
        """Whether the rule counts a request, or an event of the stream."""
        return (
            self._can_break(method, path)
            and self.method in {"*", method}
            and fnmatchcase(path, self.path)
            and all(
                (name not in query)
                if glob is None
                else (name in query and fnmatchcase(query[name], glob))
                for name, glob in self.query.items()
            )
        )

    def _can_break(self, method: str, path: str) -> bool:
        """Whether the fault is one for this: counting what it cannot break would only hide it."""
        if method == EVENT or isinstance(self.fault, StreamFault):
            return method == EVENT and isinstance(self.fault, StreamFault)
        return path != STREAM_PATH or isinstance(self.fault, HandshakeFault)

    def is_due(self, seen: int, fired: int, chance: Random) -> bool:
        """Whether the watched request number `seen` goes wrong after `fired` that did."""
        if self.times is not None and fired >= self.times:
            return False
        if self.nth and seen not in self.nth:
            return False
        if seen < self.first or (seen - self.first) % self.every:
            return False
        return chance.random() < self.probability


class FaultPlan(Part):
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
