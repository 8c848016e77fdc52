"""One cell of the crash matrix: a process killed at a numbered step, a fault, and starts until all is done.

Belongs here: which cells there are, and how one is played. Does not belong here: the table and the command
(`crash_matrix.py`), the day (`stage.py`), what must be true at the end (`truth.py`).

1. An undisturbed process of each part of the day leaves its trace: every commit that writes and every request,
   before and after, in order. What writes is a step; killed between two of them, wherever, a process leaves
   the same ledger and the same exchange, so that killed after one is killed before the next.
2. A step that is repeated for every order (`sending`, the request, its answer) is tried for the first and for
   the last.
3. A cell aims its fault at the request of the step. If the step is a commit, it aims at the next submission
   where that is the next thing written, else at the next request: recovery's first.
4. The process is killed with SIGKILL right after the step, and started again until it says that it is done.
   Then the faults are over, the day ends, and the exchange's truth is compared with the ledger.
5. In the cells of a second kind the fault meets the first submission, and the process is killed after each step
   of what it does about it.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from quant_assets.orders.submission import STEPS
from quant_resources.calendar import NEW_YORK
from quant_tests.faults import trader
from quant_tests.faults.named_faults import KINDS, FaultKind
from quant_tests.faults.stage import DAY, TUESDAY, PartName, Stage
from quant_tests.faults.truth import Truth, truth_of
from quant_tests.orders.ground import Ground

_MOST_STARTS: Final = 12
_MOST_PASSES: Final = 6
#: Steps after a broken submission at which its handling is killed.
_HANDLING_STEPS: Final = 6


@dataclass(frozen=True)
class TracedStep:
    """A step of an undisturbed process.

    Attributes:
        number: Its place among everything that the process counts; where it is killed.
        name: What is written: "METHOD path" or "commit tables and states".
        protocol: Number and name of the protocol's step.
        requests: Requests that have left by then, and `posts` submissions among them.
        next_is_order: Whether what is written next is a submission.
    """

    part: PartName
    number: int
    name: str
    protocol: str
    requests: int
    posts: int
    next_is_order: bool

    @property
    def is_request(self) -> bool:
        """Whether a request is what is written."""
        return not self.name.startswith(("commit", "start"))


@dataclass(frozen=True)
class Cell:
    """A step at which the process is killed, and a fault.

    Attributes:
        rules: The fault plan; empty for none.
        handling: Whether the fault came before, and the step is one of its handling.
    """

    step: TracedStep
    kind: FaultKind
    rules: tuple[dict[str, Any], ...]
    handling: bool = False


@dataclass(frozen=True)
class Played:
    """What became of a cell.

    Attributes:
        starts: Processes until one said that it is done, the killed one included.
        killed: Whether the process reached its step.
        truth: What the exchange's log and the ledger hold at the end.
        problems: What is wrong; empty when exactly once held and nobody was needed.
    """

    cell: Cell
    starts: int
    killed: bool
    truth: Truth | None
    problems: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Undisturbed:
    """A part of the day without crash and fault."""

    steps: Sequence[TracedStep]
    truth: Truth


def undisturbed(stage: Stage, part: PartName) -> Undisturbed:
    """Trace a part of the day, and see how the day ends."""
    trace = stage.folder / f"trace_{part}"
    trace.unlink(missing_ok=True)
    with stage.at(part) as ground:
        code = trader.run(stage.work(part, ground, trace=trace))
        assert code == trader.DONE, stage.work(part, ground).outcome
        end_of_day(ground)
        truth = truth_of(ground, TUESDAY, _attempts(part))
    assert not truth.problems, truth.problems
    return Undisturbed(_steps(part, trace.read_text().splitlines()), truth)


def _steps(part: PartName, lines: Sequence[str]) -> list[TracedStep]:
    told = [json.loads(line) for line in lines]
    written = [row for row in told if row["writes"] and row["moment"] == "after"]
    names = [row["name"] for row in written]
    protocol = protocol_steps(names)
    steps = [TracedStep(part, 1, "start", "start", 0, 0, next_is_order=False)]
    steps += [
        TracedStep(
            part,
            row["number"],
            row["name"],
            protocol[place],
            row["requests"],
            row["posts"],
            next_is_order=names[place + 1 : place + 2] == ["POST /v2/orders"],
        )
        for place, row in enumerate(written)
    ]
    first_and_last: dict[str, list[TracedStep]] = {}
    for step in steps:
        first_and_last.setdefault(step.name, []).append(step)
    chosen = {s.number for same in first_and_last.values() for s in (same[0], same[-1])}
    return [step for step in steps if step.number in chosen]


def protocol_steps(names: Sequence[str]) -> list[str]:
    """Number and name of the protocol's step for everything that was written, in order."""
    found: list[str] = []
    last = 0
    for place, name in enumerate(names):
        fitting = [step for step in STEPS if _fits(step.boundary, step.mark, name)]
        if name.startswith("DELETE"):
            following = next((n for n in names[place:] if not n.startswith("DELETE")), "")
            number = 11 if "leg_events" in following else 18
            fitting = [step for step in fitting if step.number == number]
        elif not fitting and "orders" in name:
            fitting = [step for step in STEPS if step.mark == "fills"]
        if not fitting:
            found.append(name)
            continue
        # The same mark stands at several steps: the protocol goes on, or begins again.
        later = [step for step in fitting if step.number >= last]
        step = min(later or fitting, key=lambda it: it.number)
        last = step.number
        found.append(f"{step.number} {step.name}")
    return found


def _fits(boundary: str, mark: str, name: str) -> bool:
    if boundary == "request":
        return name == mark.replace("{}", "<id>")
    return name.startswith("commit ") and mark in re.split(r", ", name.removeprefix("commit "))


def cells(known: Undisturbed, kinds: Sequence[FaultKind] = KINDS) -> Iterator[Cell]:
    """The cells of a part: killed at each of its steps, with each fault that can be aimed there."""
    for step in known.steps:
        for kind in kinds:
            rules = _aimed(step, kind)
            if rules is not None:
                yield Cell(step, kind, tuple(rules))


def _aimed(step: TracedStep, kind: FaultKind) -> list[dict[str, Any]] | None:
    if step.name == "POST /v2/orders" and kind.at_order is not None:
        return kind.at_order(step.posts)
    if step.next_is_order and kind.at_order is not None:
        return kind.at_order(step.posts + 1)
    if kind.at_request is None:
        return None
    return kind.at_request(step.requests if step.is_request else step.requests + 1)


def handling_cells(stage: Stage, part: PartName, kinds: Sequence[FaultKind] = KINDS) -> list[Cell]:
    """Cells in which the first submission is broken, and its handling is killed."""
    found: list[Cell] = []
    for kind in kinds:
        if kind.at_order is None:
            continue
        rules = kind.at_order(1)
        trace = stage.folder / "trace_handling"
        trace.unlink(missing_ok=True)
        with stage.at(part) as ground:
            ground.exchange.inject({"rules": rules})
            trader.run(stage.work(part, ground, trace=trace))
        told = [json.loads(line) for line in trace.read_text().splitlines()]
        sent = next(i for i, row in enumerate(told) if row["posts"] == 1)
        after = [
            row
            for row in told[sent:]
            if (row["writes"] or "by_client" in row["name"]) and row["moment"] == "after"
        ][1 : _HANDLING_STEPS + 1]
        names = protocol_steps(["POST /v2/orders", *(row["name"] for row in after)])[1:]
        for row, name in zip(after, names, strict=True):
            step = TracedStep(
                part, row["number"], row["name"], name, row["requests"], row["posts"], False
            )
            found.append(Cell(step, kind, tuple(rules), handling=True))
    return found


def play(stage: Stage, cell: Cell, known: Truth) -> Played:
    """Play a cell to its end.

    Args:
        stage: The day.
        cell: What is killed and broken.
        known: How the part ends undisturbed.
    """
    began = time.monotonic()
    part = cell.step.part
    problems: list[str] = []
    truth: Truth | None = None
    with stage.at(part) as ground:
        if cell.rules:
            ground.exchange.inject({"rules": list(cell.rules)})
        work = stage.work(part, ground)
        code = trader.run(work, cell.step.number)
        killed, starts = code == -signal.SIGKILL, 1
        while not _is_done(work, code, cell.kind):
            if starts == _MOST_STARTS:
                problems.append(f"not done after {starts} starts ({code}): {_last_words(work)}")
                break
            code = trader.run(work)
            starts += 1
        ground.exchange.clear_faults()
        try:
            end_of_day(ground)
            truth = truth_of(ground, TUESDAY, _attempts(part))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this cell's failure
            problems.append(f"the day did not end: {type(error).__name__}: {error}")
        else:
            problems += _wrong(truth, known, cell.kind)
    return Played(cell, starts, killed, truth, tuple(problems), time.monotonic() - began)


def _is_done(work: trader.Work, code: int, kind: FaultKind) -> bool:
    # Too late to trade is an end as well, where the clock was what jumped.
    late = (
        kind.ends_orders
        and code == trader.FAILED
        and _last_words(work).startswith("WrongSessionError")
    )
    return code == trader.DONE or late


def _last_words(work: trader.Work) -> str:
    return work.outcome.read_text() if work.outcome is not None else ""


def _wrong(truth: Truth, known: Truth, kind: FaultKind) -> Iterator[str]:
    for problem in truth.problems:
        # A batch that was not frozen before the session ended is none, and one whose prices became old
        # by a jump of the clock trips the breaker for that.
        expected = ("batches for", "by breaker: stale_data")
        if not (kind.ends_orders and any(words in problem for words in expected)):
            yield problem
    if not kind.ends_orders:
        yield from truth.differences(known)


def end_of_day(ground: Ground) -> None:
    """Let the session close and book it, in as many passes as it takes."""
    close = ground.exchange.clock().astimezone(NEW_YORK)
    if close.hour < 18 and close.date() == TUESDAY:
        ground.evening(TUESDAY)
    for _ in range(_MOST_PASSES):
        report = ground.finish()
        if report.left == 0 and not report.stopped:
            return


def _attempts(part: PartName) -> int:
    names = [each.name for each in DAY]
    return 2 if names.index(part) >= names.index("replan") else 1
