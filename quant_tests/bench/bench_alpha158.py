"""How fast Alpha158 is, beside plain Polars expressions and beside Qlib itself. Run by hand.

    python quant_tests/bench/bench_alpha158.py [--symbols 500] [--sessions 2520] [--rounds 3]
        [--qlib PYTHON] [--without-encodings]

PYTHON is an interpreter of an environment with pyqlib (`oracles/qlib_process.py`); without it everything
else is measured. Prints

1. bulk: all sessions from a frame (Qlib: from its own files), warm and as the first call of a process, and
   the memory above the inputs in times the output block (float32, rows x 158);
2. one new session from stored daily partitions, its read included, through the graph's own functions;
3. a run of a year as the graph makes it: reading, computing, storing and reading back;
4. what other file formats would cost (`bench_storage.py`);
5. with Qlib: how far the values are apart.

Warm times are medians of rounds in which the methods take turns; first calls and memory come from a process
each, imports not counted. Qlib's caches are emptied before each load, as a new session would find them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from quant_assets.features.alpha158 import alpha158
from quant_assets.features.alpha158_formulas import LOOKBACK, NAMES
from quant_assets.features.schemas import ALPHA158
from quant_assets.features.session_features import ALPHA158_FEATURES
from quant_assets.market_data.schemas import BARS, UNIVERSE
from quant_resources.calendar import XNYS
from quant_resources.store import Store
from quant_tests.bench.bench_storage import SHOWN_COLUMNS, encodings_table
from quant_tests.bench.generated_history import generated_bars, store_history
from quant_tests.bench.polars_alpha158 import polars_expressions
from quant_tests.bench.rounds import Taken, interleaved
from quant_tests.oracles.parity import RELATIVE, column_differences
from quant_tests.oracles.qlib_process import QlibProcess, write_qlib_data

YEAR = 252
FRESH_PROCESSES = 3
LATTICE, ONE_CORE, EXPRESSIONS = "window lattice", "window lattice, one core", "Polars expressions"
SESSION = "stored bars to rows of the table"
QLIB = {1: "Qlib, one process", 2: "Qlib, two processes"}


def main() -> None:
    """Generate the market, measure, show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=2520)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--qlib", type=Path, help="interpreter of an environment with pyqlib")
    parser.add_argument("--without-encodings", action="store_true")
    parser.add_argument("--first-call", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.first_call:
        task, folder = chosen.first_call
        print(json.dumps(first_call(task, Path(folder))))
        return
    console = Console(width=None if Console().is_terminal else 150)
    with tempfile.TemporaryDirectory(prefix="bench-alpha158-") as name:
        bars = generated_bars(chosen.symbols, chosen.sessions)
        bars.write_parquet(Path(name) / "bars.parquet")
        store = Store(Path(name) / "root")
        sessions = store_history(store, bars, YEAR + LOOKBACK)
        qlib = None
        if chosen.qlib:
            qlib = BesideQlib(chosen.qlib, Path(name) / "qlib")
            write_qlib_data(qlib.folder, bars, bars["session"].unique().sort().to_list())
        console.print(bulk(bars, Path(name), chosen.rounds, qlib))
        console.print(one_session(store, sessions, Path(name), chosen.rounds, qlib))
        year = sessions[-YEAR:]
        features = ALPHA158_FEATURES.compute(*stored_inputs(store, year), year)
        console.print(year_run(store, year, features, chosen.rounds))
        if not chosen.without_encodings:
            console.print(encodings_table(features, chosen.rounds))
        if qlib is not None:
            console.print(agreement(bars, qlib))


@dataclass(frozen=True)
class BesideQlib:
    """Qlib's interpreter and its data files of the same bars."""

    python: Path
    folder: Path

    def started(self) -> QlibProcess:
        """Qlib in a new process."""
        return QlibProcess(self.python, self.folder)


def bulk(bars: pl.DataFrame, folder: Path, rounds: int, qlib: BesideQlib | None) -> Table:
    """All sessions at once: seconds, first call, memory, and ratios."""
    firsts = {name: fresh(name, folder) for name in (LATTICE, EXPRESSIONS)}
    tasks: dict[str, Callable[[], object]] = {LATTICE: lambda: alpha158(bars)}
    if hasattr(os, "sched_setaffinity"):
        tasks[ONE_CORE] = lambda: on_one_core(lambda: alpha158(bars))
    tasks[EXPRESSIONS] = lambda: polars_expressions(bars)
    if qlib is None:
        taken = interleaved(tasks, rounds)
    else:
        first, last = span(bars)
        with qlib.started() as process:
            firsts[QLIB[1]] = (process.seconds(first, last)[0], process.memory())
            tasks[QLIB[1]] = lambda: Taken(*process.seconds(first, last))
            tasks[QLIB[2]] = lambda: Taken(*process.seconds(first, last, processes=2))
            taken = interleaved(tasks, rounds)
    block = bars.height * len(NAMES) * 4
    table = Table(
        "method",
        title=f"Bulk: {bars['symbol'].n_unique()} symbols x {bars['session'].n_unique()} sessions",
        caption=f"Polars: 143 of the 158 columns, without regard to gaps; {conditions(rounds)}",
    )
    for head in ("warm s", "processor s", "first call s", "memory x block", "x lattice"):
        table.add_column(head, justify="right")
    if qlib is not None:
        table.add_column("x as fast as Qlib on 2", justify="right")
        table.add_column("by processor", justify="right")
    rival = taken.get(QLIB[2], ())
    for name, (wall, processor) in taken.items():
        seconds, memory = firsts.get(name, (None, None))
        table.add_row(
            name,
            f"{wall:.3f}",
            f"{processor:.3f}",
            "" if seconds is None else f"{seconds:.2f}",
            "" if memory is None else f"{memory / block:.2f}",
            f"{wall / taken[LATTICE].wall:.1f}",
            *(f"{theirs / own:.1f}" for theirs, own in zip(rival, taken[name], strict=False)),
        )
    return table


def one_session(
    store: Store, sessions: list[date], folder: Path, rounds: int, qlib: BesideQlib | None
) -> Table:
    """The newest session from stored partitions, reading included: first call and warm."""
    last = sessions[-1]
    firsts = {SESSION: fresh(SESSION, folder)[0]}
    taken = interleaved(
        {
            SESSION: lambda: compute_session(store, sessions),
            "  of which reading": lambda: [
                frame.collect() for frame in stored_inputs(store, [last])
            ],
        },
        10 * rounds,
    )
    if qlib is not None:
        with qlib.started() as one, qlib.started() as two:
            firsts[QLIB[1]], _ = one.seconds(last, last)
            firsts[QLIB[2]], _ = two.seconds(last, last, 2)
            taken |= interleaved(
                {
                    QLIB[1]: lambda: Taken(*one.seconds(last, last)),
                    QLIB[2]: lambda: Taken(*two.seconds(last, last, 2)),
                },
                rounds,
            )
    table = Table(
        "method",
        title=f"One new session from {LOOKBACK + 1} stored ones, the read included",
        caption=conditions(rounds),
    )
    for head in ("first call ms", "warm ms", "processor ms", "x ours"):
        table.add_column(head, justify="right")
    for name, (wall, processor) in taken.items():
        table.add_row(
            name,
            f"{1000 * firsts[name]:.0f}" if name in firsts else "",
            f"{1000 * wall:.1f}",
            f"{1000 * processor:.1f}",
            f"{wall / taken[SESSION].wall:.1f}",
        )
    return table


def year_run(store: Store, sessions: list[date], features: pl.DataFrame, rounds: int) -> Table:
    """A run of 252 sessions as the graph makes it: what computing and what storing takes."""
    keys = [session.isoformat() for session in sessions]
    bars, members = (frame.collect().lazy() for frame in stored_inputs(store, sessions))
    store.write(ALPHA158, features, keys)
    taken = interleaved(
        {
            "read bars and universe": lambda: [
                frame.collect() for frame in stored_inputs(store, sessions)
            ],
            "compute (adjusted as known at each session)": lambda: ALPHA158_FEATURES.compute(
                bars, members, sessions
            ),
            "write": lambda: store.write(ALPHA158, features, keys),
            "read all columns": lambda: store.read(ALPHA158, keys).collect(),
            "read four columns": lambda: store.read(ALPHA158, keys, SHOWN_COLUMNS).collect(),
        },
        rounds,
    )
    folder = store.root / ALPHA158.path
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    table = Table(
        "step",
        "seconds",
        "processor s",
        "ms per session",
        title=f"A run of {len(keys)} sessions: {features.height} rows, {size:.0f} MB as daily partitions",
        caption=conditions(rounds),
    )
    for name, (wall, processor) in taken.items():
        table.add_row(name, f"{wall:.3f}", f"{processor:.3f}", f"{1000 * wall / len(keys):.2f}")
    return table


def agreement(bars: pl.DataFrame, qlib: BesideQlib) -> str:
    """How far all values are from Qlib's, in one sentence."""
    with qlib.started() as process:
        found = column_differences(alpha158(bars), process.features(*span(bars)))
    beyond = found.filter(pl.col("beyond") > 0)
    return (
        f"Against Qlib: {found['values'].sum()} values, NaN in other places: "
        f"{found['nan_differs'].sum()}; {beyond['beyond'].sum()} values in {beyond.height} columns "
        f"({', '.join(beyond['name']) or 'none'}) are beyond {RELATIVE:g} relative, there by "
        f"{found['beyond_absolute'].max():.1e} at most; {(found['absolute'] == 0).sum()} columns are equal to the bit."
    )


def stored_inputs(store: Store, sessions: list[date]) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """What the asset of the features reads for some sessions: bars with their lookback, and members."""
    first = ALPHA158_FEATURES.first_needed(sessions[0]).isoformat()
    last = sessions[-1].isoformat()
    keys = [key for key in store.partitions(BARS) if first <= key <= last]
    members = [session.isoformat() for session in sessions]
    return store.read(BARS, keys), store.read(UNIVERSE, members)


def compute_session(store: Store, sessions: list[date]) -> pl.DataFrame:
    """Alpha158 of the newest session, from the files."""
    return ALPHA158_FEATURES.compute(*stored_inputs(store, sessions[-1:]), sessions[-1:])


def fresh(task: str, folder: Path) -> tuple[float, int | None]:
    """Seconds and memory of a task as the first of its process: the median of some processes."""
    command = [sys.executable, __file__, "--first-call", task, str(folder)]
    found = [json.loads(subprocess.check_output(command)) for _ in range(FRESH_PROCESSES)]
    seconds, memory = sorted(found)[FRESH_PROCESSES // 2]
    return seconds, memory


def first_call(task: str, folder: Path) -> tuple[float, int | None]:
    """Run a task in this new process; its seconds, and the bytes it took above what was held before."""
    if task == SESSION:
        store = Store(folder / "root")
        # Every process of the platform has the calendar: its partitions are built from it.
        keys = store.partitions(BARS)
        sessions = XNYS.sessions(date.fromisoformat(keys[0]), date.fromisoformat(keys[-1]))
        tasks: dict[str, Callable[[], object]] = {SESSION: lambda: compute_session(store, sessions)}
    else:
        bars = pl.read_parquet(folder / "bars.parquet")
        tasks = {
            LATTICE: lambda: alpha158(bars),
            EXPRESSIONS: lambda: polars_expressions(bars),
        }
    held = memory_from_here()
    begin = time.perf_counter()
    tasks[task]()
    seconds = time.perf_counter() - begin
    return seconds, None if held is None else status_bytes("VmHWM") - held


def memory_from_here() -> int | None:
    """Let the kernel take the memory of now, which is returned, as the highest so far; None without Linux."""
    forget = Path("/proc/self/clear_refs")
    if not forget.exists():
        return None
    forget.write_text("5")
    return status_bytes("VmRSS")


def status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def span(bars: pl.DataFrame) -> tuple[date, date]:
    sessions = bars["session"].unique().sort()
    return sessions[0], sessions[-1]


def on_one_core(task: Callable[[], object]) -> None:
    """Run a task with its new threads on one core."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        task()
    finally:
        os.sched_setaffinity(0, allowed)


def conditions(rounds: int) -> str:
    return f"{rounds} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    main()
