"""The crash matrix: the trading process killed at every step of the protocol, with every kind of fault.

    python -m quant_tests.faults.crash_matrix [--quick] [--minutes N] [--workers 2] [--csv FILE] [--only TEXT]

Prints a row for each step and a column for each kind of fault. A cell says how many starts were needed until a
process said that it was done, and how many orders the exchange's audit log then holds as accepted: "2:5" is two
starts and five orders. Everything that is wrong in a cell is printed below the table, and the exit code is 1.
`--quick` plays every seventh cell.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from sqlalchemy import create_engine, make_url, text

from quant_resources.ledger.migrate import migrate
from quant_resources.postgres import ensure_postgres, stop_postgres
from quant_tests.faults.crash_cells import (
    Cell,
    Played,
    Undisturbed,
    cells,
    handling_cells,
    play,
    undisturbed,
)
from quant_tests.faults.named_faults import KINDS
from quant_tests.faults.stage import DAY, PartName, Stage, without_waiting_for_the_disk

_QUICK_EVERY: Final = 7


@contextmanager
def template_ledger(folder: Path) -> Iterator[str]:
    """A PostgreSQL server of its own with a migrated, empty ledger; yields its URL."""
    url = make_url(ensure_postgres(folder).ledger_url)
    try:
        without_waiting_for_the_disk(url.render_as_string(hide_password=False))
        engine = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("CREATE DATABASE template_ledger"))
        engine.dispose()
        template = url.set(database="template_ledger").render_as_string(hide_password=False)
        migrate(template)
        yield template
    finally:
        stop_postgres(folder)


class _Worker:
    """One of the processes that play cells, with a stage of its own."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._known: dict[PartName, Undisturbed] = {}

    def known(self, part: PartName) -> Undisturbed:
        """A part without any trouble; looked at once."""
        if part not in self._known:
            self._known[part] = undisturbed(self._stage, part)
        return self._known[part]

    def handling(self) -> list[Cell]:
        """The cells in which a broken submission is dealt with."""
        return handling_cells(self._stage, "morning")

    def played(self, cell: Cell) -> Played:
        """Play one cell."""
        return play(self._stage, cell, self.known(cell.step.part).truth)


_here: list[_Worker] = []


def _begin_worker(template: str, folder: Path) -> None:
    own = folder / f"worker_{os.getpid()}"
    own.mkdir()
    _here.append(_Worker(Stage(template, own)))


def _cells_of(part: PartName) -> list[Cell]:
    return list(cells(_here[0].known(part)))


def _handling_cells() -> list[Cell]:
    return _here[0].handling()


def _played(cell: Cell) -> Played:
    return _here[0].played(cell)


def table(played: Sequence[Played]) -> Iterator[str]:
    """The lines of the table: a row for each step, a column for each kind."""
    for number, kind in enumerate(KINDS, 1):
        yield f"  {number:2} {kind.name}"
    heads = "".join(f"{number:>6}" for number in range(1, len(KINDS) + 1))
    for handling, title in (
        (False, "KILLED AT A STEP, with a fault of its request or the next"),
        (True, "KILLED WHILE A BROKEN SUBMISSION IS DEALT WITH"),
    ):
        rows: dict[tuple[str, int, str], dict[str, str]] = {}
        for each in (p for p in played if p.cell.handling == handling):
            step = each.cell.step
            rows.setdefault((step.part, step.number, step.protocol), {})[each.cell.kind.name] = (
                _shown(each)
            )
        if not rows:
            continue
        yield ""
        yield f"{title}{'':<{max(0, 62 - len(title))}}{heads}"
        for (part, number, name), row in rows.items():
            shown = "".join(f"{row.get(kind.name, '·'):>6}" for kind in KINDS)
            yield f"{part:<8}{number:>4} {name[:48]:<49}{shown}"


def _shown(each: Played) -> str:
    held = sum(each.truth.accepted.values()) if each.truth else 0
    return f"{each.starts}:{held}" + ("!" if each.problems else "")


def figures(played: Sequence[Played], seconds: float) -> Iterator[str]:
    """What the table says in numbers."""
    failed = [each for each in played if each.problems]
    starts: dict[int, int] = {}
    for each in played:
        starts[each.starts] = starts.get(each.starts, 0) + 1
    killed = sum(each.killed for each in played)
    yield (
        f"{len(played)} cells, {killed} of them killed at their step; {len(failed)} failed; "
        f"starts: {', '.join(f'{n} in {count}' for n, count in sorted(starts.items()))}; "
        f"{seconds:.0f} s, {sum(each.seconds for each in played) / max(1, len(played)):.2f} s a cell"
    )
    for each in failed:
        step = each.cell.step
        yield f"FAILED {step.part} {step.number} {step.protocol} x {each.cell.kind.name}"
        yield from (f"    {problem}" for problem in each.problems)


def write_csv(file: Path, played: Iterable[Played]) -> None:
    """Every cell with its starts and the exchange's accepted orders, for a program."""
    with file.open("w", newline="") as output:
        rows = csv.writer(output)
        rows.writerow(
            [
                "part",
                "step",
                "protocol",
                "written",
                "fault",
                "while_handling",
                "killed",
                "starts",
                "accepted",
                "most_of_one_intent",
                "seconds",
                "problems",
            ]
        )
        for each in played:
            step, truth = each.cell.step, each.truth
            counts = list(truth.accepted.values()) if truth else []
            rows.writerow(
                [
                    step.part,
                    step.number,
                    step.protocol,
                    step.name,
                    each.cell.kind.name,
                    each.cell.handling,
                    each.killed,
                    each.starts,
                    sum(counts),
                    max(counts, default=0),
                    f"{each.seconds:.2f}",
                    " | ".join(each.problems),
                ]
            )


def _spread(count: int) -> list[int]:
    """Numbers in an order in which any beginning is spread over the whole table."""
    return [n for start in range(_QUICK_EVERY) for n in range(start, count, _QUICK_EVERY)]


def _all_cells(pool: ProcessPoolExecutor) -> list[Cell]:
    listed = [pool.submit(_cells_of, part.name) for part in DAY]
    handling = pool.submit(_handling_cells)
    return [cell for each in (*listed, handling) for cell in each.result()]


def main() -> None:
    """Play the matrix and show it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every seventh cell")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long")
    parser.add_argument("--csv", type=Path, help="write every cell here")
    parser.add_argument("--only", default="", help="cells whose fault or part has this in its name")
    arguments = parser.parse_args()
    began = time.monotonic()
    played: dict[int, Played] = {}
    with (
        tempfile.TemporaryDirectory(prefix="crash-matrix-") as folder,
        template_ledger(Path(folder) / "ledger") as template,
        ProcessPoolExecutor(
            arguments.workers, get_context("spawn"), _begin_worker, (template, Path(folder))
        ) as pool,
    ):
        chosen = [
            cell
            for cell in _all_cells(pool)
            if arguments.only in f"{cell.step.part} {cell.kind.name}"
        ][:: _QUICK_EVERY if arguments.quick else 1]
        futures = {pool.submit(_played, chosen[n]): n for n in _spread(len(chosen))}
        for done in as_completed(futures):
            each = played[futures[done]] = done.result()
            if each.problems:
                print(*figures([each], each.seconds), sep="\n", flush=True)
            if sys.stderr.isatty() or len(played) % 50 == 0:
                print(f"\r{len(played)} of {len(chosen)} cells", end="", file=sys.stderr)
            if time.monotonic() - began > 60 * arguments.minutes:
                pool.shutdown(cancel_futures=True)
                break
    print(file=sys.stderr)
    in_order = [played[n] for n in sorted(played)]
    for line in (*table(in_order), "", *figures(in_order, time.monotonic() - began)):
        print(line)
    if arguments.csv:
        write_csv(arguments.csv, in_order)
    if len(in_order) < len(chosen):
        print(f"Stopped after {arguments.minutes} minutes: {len(in_order)} of {len(chosen)} cells.")
    sys.exit(any(each.problems for each in in_order))


if __name__ == "__main__":
    main()
