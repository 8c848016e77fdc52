"""The kinds of faults that the order path is tried with, each as rules for the exchange's own fault plan.

Belongs here: a name for each kind of fault of issue and design, and what of the outcome it may change. Does
not belong here: what the exchange does with a rule (`quant_resources/exchange/faults.py`).

A fault is aimed at one request. `at_request` counts every request that reaches the exchange since the plan
was posted, whoever sends it; `at_order` counts submissions of orders alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from quant_tests.faults.stage import TIMEOUT

Rules = list[dict[str, Any]]
#: Long enough that every client has given up, short enough that the server's task ends soon.
_HANGS: Final = 3 * TIMEOUT
_HOURS: Final = 3600


@dataclass(frozen=True)
class FaultKind:
    """One kind of fault.

    Attributes:
        name: How the tables call it.
        at_request: Rules that break the request of a number; None where only orders can be broken so.
        at_order: Rules that break the submission of a number; None where it makes no difference to other
            requests, which `at_request` with that request's number covers.
        ends_orders: Whether orders may end otherwise than without the fault (refused, rejected, filled in
            part, too late): then exactly once means once or, for those, not at all.
    """

    name: str
    at_request: Callable[[int], Rules] | None = None
    at_order: Callable[[int], Rules] | None = None
    ends_orders: bool = False

    def __reduce__(self) -> tuple[Callable[[str], FaultKind], tuple[str]]:
        """Between processes a kind travels by its name."""
        return kind_named, (self.name,)


def _one(name: str, **fault: Any) -> FaultKind:
    """A fault that can meet any request."""
    return FaultKind(
        name,
        lambda number: [{"fault": fault, "nth": [number]}],
        lambda number: [{"fault": fault, "nth": [number], **_ORDER}],
    )


def _of_orders(name: str, *, ends_orders: bool = True, **fault: Any) -> FaultKind:
    """A fault that only a submission can have."""
    return FaultKind(
        name,
        at_order=lambda number: [{"fault": fault, "nth": [number], **_ORDER}],
        ends_orders=ends_orders,
    )


def _of_reads(name: str, times: int, **fault: Any) -> FaultKind:
    """A fault of the reads from a request on."""
    return FaultKind(
        name,
        lambda _: [{"fault": fault, "method": "GET", "path": "/v2/*", "times": times}],
    )


_ORDER: Final = {"method": "POST", "path": "/v2/orders"}
_LOST: Final = {"kind": "reset", "after": True}

KINDS: Final[Sequence[FaultKind]] = (
    FaultKind("none", lambda _: []),
    _one("latency", kind="latency", seconds=0.05),
    _one("hang before", kind="hang", seconds=_HANGS),
    _one("hang after", kind="hang", seconds=_HANGS, after=True),
    _one("reset before", kind="reset"),
    _one("reset after", kind="reset", after=True),
    _one("429 before", kind="status", status=429),
    _one("429 after", kind="status", status=429, after=True),
    _one("500 before", kind="status", status=500),
    _one("500 after", kind="status", status=500, after=True),
    _one("502 before", kind="status", status=502),
    _one("502 after", kind="status", status=502, after=True),
    _one("503 before", kind="status", status=503),
    _one("503 after", kind="status", status=503, after=True),
    _one("504 before", kind="status", status=504),
    _one("504 after", kind="status", status=504, after=True),
    _one("html", kind="html"),
    _one("malformed", kind="malformed"),
    _one("empty body", kind="empty_body"),
    _one("truncated", kind="truncated"),
    _one("truncated, length fits", kind="truncated", content_length="matching"),
    _one("delivered twice", kind="duplicate_delivery"),
    _one("delivered twice, 2nd answer", kind="duplicate_delivery", answer="second"),
    _of_reads("reads out of order", 30, kind="reorder", how="shuffled"),
    _of_reads("rows twice", 30, kind="duplicate_rows"),
    _of_reads("stale reads", 3, kind="stale_read", newest=3),
    _of_reads("earlier states", 3, kind="earlier_state", updates=3),
    FaultKind(
        "lost, then stale",
        at_order=lambda number: [
            {"fault": _LOST, "nth": [number], **_ORDER},
            {
                "fault": {"kind": "stale_read", "newest": 1},
                "path": "/v2/orders:by_client_order_id",
                "times": 3,
            },
        ],
    ),
    FaultKind(
        "another order's answer",
        at_order=lambda number: [
            {
                "fault": {
                    "kind": "set_field",
                    "field": "client_order_id",
                    "value": "of-somebody-else",
                },
                "nth": [number],
                **_ORDER,
            }
        ],
    ),
    _of_orders("refused", kind="status", status=422, message="refused on purpose"),
    _of_orders("rejected afterwards", kind="reject"),
    _of_orders("filled in parts", kind="partial_fill", share=0.3),
    FaultKind(
        "clock jumps 5 minutes",
        lambda number: [{"fault": {"kind": "clock_jump", "seconds": 300}, "nth": [number]}],
    ),
    FaultKind(
        "clock jumps 8 hours",
        lambda number: [{"fault": {"kind": "clock_jump", "seconds": 8 * _HOURS}, "nth": [number]}],
        ends_orders=True,
    ),
)


def kind_named(name: str) -> FaultKind:
    """The kind of a name."""
    return next(kind for kind in KINDS if kind.name == name)
