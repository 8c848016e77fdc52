"""The crash matrix as tests: a fixed sample by default, every cell with `-m long`.

The table of all cells: `python -m quant_tests.faults.crash_matrix`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quant_assets.orders.submission import STEPS
from quant_tests.faults import trader
from quant_tests.faults.crash_cells import (
    Cell,
    Undisturbed,
    cells,
    end_of_day,
    handling_cells,
    play,
    undisturbed,
)
from quant_tests.faults.stage import DAY, TUESDAY, PartName, Stage
from quant_tests.faults.truth import truth_of

#: Part, written at the step (its last occurrence), fault.
SAMPLE: tuple[tuple[PartName, str, str], ...] = (
    ("morning", "order_batches", "none"),
    ("morning", "DELETE", "reset after"),
    ("morning", "→ sending", "lost, then stale"),
    ("morning", "POST", "504 after"),
    ("morning", "→ accepted", "stale reads"),
    ("midday", "fills", "delivered twice"),
    ("replan", "DELETE", "503 before"),
    ("replan", "POST", "truncated"),
    ("evening", "fills", "reads out of order"),
)
#: Steps that a day without a halt, a loss or an error of ours does not come to.
ELSEWHERE = {2, 5, 6, 7, 8, 9, 15, 17}


@pytest.fixture(scope="module")
def known(stage: Stage) -> dict[PartName, Undisturbed]:
    """Every part of the day without crash and fault."""
    return {part.name: undisturbed(stage, part.name) for part in DAY}


def assert_played(stage: Stage, cell: Cell, known: Undisturbed) -> None:
    played = play(stage, cell, known.truth)
    assert played.problems == (), (cell.step.protocol, cell.kind.name, played.problems)


@pytest.mark.parametrize(("part", "written", "fault"), SAMPLE)
def test_a_sample_of_the_matrix(
    stage: Stage,
    known: dict[PartName, Undisturbed],
    part: PartName,
    written: str,
    fault: str,
) -> None:
    fitting = [
        cell for cell in cells(known[part]) if written in cell.step.name and cell.kind.name == fault
    ]
    assert_played(stage, fitting[-1], known[part])


def test_the_day_comes_to_every_numbered_step(known: dict[PartName, Undisturbed]) -> None:
    """A step of the protocol that no cell kills at would be untested without anybody noticing."""
    reached = {
        int(step.protocol.split()[0])
        for part in known.values()
        for step in part.steps
        if step.protocol != "start"
    }
    writing = {
        step.number
        for step in STEPS
        if step.boundary == "commit" or not step.mark.startswith("GET")
    }
    assert writing - ELSEWHERE <= reached


@pytest.mark.long
@pytest.mark.parametrize("part", [part.name for part in DAY])
def test_every_cell(stage: Stage, known: dict[PartName, Undisturbed], part: PartName) -> None:
    wrong = _all_wrong(stage, cells(known[part]), known[part])
    assert not wrong, "\n".join(wrong)


@pytest.mark.long
def test_every_cell_of_the_handling_of_a_fault(
    stage: Stage, known: dict[PartName, Undisturbed]
) -> None:
    wrong = _all_wrong(stage, iter(handling_cells(stage, "morning")), known["morning"])
    assert not wrong, "\n".join(wrong)


def _all_wrong(stage: Stage, every: Iterator[Cell], known: Undisturbed) -> list[str]:
    return [
        f"{cell.step.number} {cell.step.protocol} x {cell.kind.name}: {played.problems}"
        for cell in every
        if (played := play(stage, cell, known.truth)).problems
    ]


@pytest.mark.parametrize("round_number", range(2))
def test_two_processes_at_once(stage: Stage, round_number: int) -> None:
    """One trades, the other leaves with a clear message or finds all done; one order per intent."""
    _two_at_once(stage)


@pytest.mark.long
@pytest.mark.parametrize("round_number", range(50))
def test_two_processes_at_once_many_times(stage: Stage, round_number: int) -> None:
    """Whatever the interleaving."""
    _two_at_once(stage)


def _two_at_once(stage: Stage) -> None:
    with stage.at("morning") as ground:
        work = stage.work("morning", ground, wait_seconds=0.0)
        processes = [trader.start(work) for _ in range(2)]
        for process in processes:
            process.join(60)
        codes = sorted(process.exitcode for process in processes)
        assert codes in ([trader.DONE, trader.LEFT], [trader.DONE, trader.DONE])
        end_of_day(ground)
        assert truth_of(ground, TUESDAY, 1).problems == ()
