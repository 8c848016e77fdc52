"""How long validated, adjusted bars take from stored deliveries. Run by hand.

    python quant_tests/bench/bench_market_data.py [--symbols 500] [--sessions 2520] [--daily 5000]

Writes a generated market into two data roots, then measures in a process each: the whole history of the
first in runs of a year, as a backfill makes it, and all of it adjusted; the newest session of the second,
as a daily update makes it with the whole history behind it. Prints seconds, processor seconds (both cores
count), how many times a plain read of the same deliveries that is, and peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

FIRST = date(2014, 1, 2)
PLAIN_READ = "plain read of the deliveries"


def main() -> None:
    """Write the markets, measure in processes of their own, show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=2520)
    parser.add_argument("--daily", type=int, default=5000, help="symbols of the daily update")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, root = arguments.measure
        {"history": whole_history, "day": newest_session}[what](Path(root), arguments.sessions)
        return
    length = ("--sessions", str(arguments.sessions))
    with tempfile.TemporaryDirectory(prefix="bench-market-data-") as folder:
        for what, symbols in (("history", arguments.symbols), ("day", arguments.daily)):
            root = Path(folder) / what
            write_market(root, symbols, arguments.sessions)
            measured = subprocess.run(
                [sys.executable, __file__, "--measure", what, str(root), *length],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            show(f"{what}: {symbols} symbols x {arguments.sessions}", json.loads(measured.stdout))


def write_market(root: Path, symbols: int, sessions: int) -> None:
    """Deliveries and actions of a generated market, stored as the graph stores them."""
    from quant_assets.market_data.schemas import CORPORATE_ACTIONS, RAW_BARS
    from quant_resources.store import Store
    from quant_tests.market_data.generated_market import deliveries

    store = Store(root)
    for part, keys in zip(
        deliveries(symbols, calendar(sessions), defects=0.0002),
        runs(sessions),
        strict=True,
    ):
        store.write(RAW_BARS, part.raw_bars, keys)
        store.write(CORPORATE_ACTIONS, part.actions, keys)


def whole_history(root: Path, sessions: int) -> None:
    """A backfill: every year judged and stored, then all bars read adjusted."""
    from quant_assets.market_data.adjustment import adjust
    from quant_assets.market_data.schemas import BARS, QUARANTINE, RAW_BARS
    from quant_assets.market_data.stored_gate import gate_stored
    from quant_resources.store import Store

    store, watch = Store(root), Stopwatch()
    with watch.measuring(PLAIN_READ):
        for keys in runs(sessions):
            store.read(RAW_BARS, keys).collect()
    for keys in runs(sessions):
        with watch.measuring("read and judge"):
            gated = gate_stored(store, FIRST, [date.fromisoformat(key) for key in keys])
        with watch.measuring("store bars and quarantine"):
            store.write(BARS, gated.bars, keys)
            store.write(QUARANTINE, gated.quarantine, keys)
    with watch.measuring("read all bars adjusted"):
        adjust(store.read(BARS)).collect()
    watch.report()


def newest_session(root: Path, sessions: int) -> None:
    """A daily update: one session judged with the whole history behind it."""
    from quant_assets.market_data.schemas import BARS, QUARANTINE, RAW_BARS
    from quant_assets.market_data.stored_gate import gate_stored
    from quant_resources.store import Store

    store, watch = Store(root), Stopwatch()
    keys = [day.isoformat() for day in calendar(sessions)]
    with watch.measuring(PLAIN_READ):
        store.read(RAW_BARS, keys, ["symbol", "session"]).collect()
    with watch.measuring("read and judge"):
        gated = gate_stored(store, FIRST, [date.fromisoformat(keys[-1])])
    with watch.measuring("store bars and quarantine"):
        store.write(BARS, gated.bars, keys[-1:])
        store.write(QUARANTINE, gated.quarantine, keys[-1:])
    watch.report()


def calendar(sessions: int) -> list[date]:
    """The sessions of the market."""
    from quant_resources.calendar import XNYS

    return XNYS.sessions(FIRST, XNYS.offset(FIRST, sessions - 1))


def runs(sessions: int) -> list[list[str]]:
    """Its partitions, a year a run."""
    from quant_assets.partitions import years

    return [list(keys) for keys in years([day.isoformat() for day in calendar(sessions)])]


class Stopwatch:
    """Wall and processor seconds by what they were spent on."""

    def __init__(self) -> None:
        self._spent: dict[str, tuple[float, float]] = {}

    @contextmanager
    def measuring(self, what: str) -> Iterator[None]:
        """Add the time of a block."""
        wall, processor = time.perf_counter(), time.process_time()
        yield
        before = self._spent.get(what, (0.0, 0.0))
        self._spent[what] = (
            before[0] + time.perf_counter() - wall,
            before[1] + time.process_time() - processor,
        )

    def report(self) -> None:
        """Tell the process that shows it."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"spent": self._spent, "peak": peak}))


def show(title: str, measured: dict) -> None:
    """Print one measurement."""
    from rich.console import Console
    from rich.table import Table

    spent: dict[str, tuple[float, float]] = measured["spent"]
    plain = spent[PLAIN_READ][0]
    table = Table("", "seconds", "processor s", "plain reads", title=title)
    work = [times for what, times in spent.items() if what != PLAIN_READ]
    together = (sum(wall for wall, _ in work), sum(processor for _, processor in work))
    for what, (wall, processor) in {**spent, "together": together}.items():
        table.add_row(what, f"{wall:.2f}", f"{processor:.2f}", f"{wall / plain:.1f}")
    console = Console()
    console.print(table)
    console.print(f"peak memory {measured['peak']:,.0f} MB\n")


if __name__ == "__main__":
    main()
