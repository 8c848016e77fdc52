"""How long the market data of one more session takes, over HTTP from the local exchange. Run by hand.

    python quant_tests/bench/bench_daily_update.py [--symbols 5000] [--history 260] [--updates 3]
        [--folder FOLDER]

Starts an exchange and a data root, backfills the history through the graph (reported too), then lets a
fresh process bring the next sessions, one after another, as the schedule does: all assets and checks of
the market data stage, Dagster's storage in PostgreSQL. Prints wall seconds by step, and processor seconds
of the process, which a busy machine changes less. With `--folder` the data root is kept, and a second call
brings the sessions after those that are there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median

PROCESS_STARTED = time.perf_counter()

FIRST = date(2022, 1, 3)
#: Sessions of the market after its history, for calls that go on.
SESSIONS_AFTER = 60
STEPS_SHOWN = 15


@dataclass(frozen=True)
class Measured:
    """What the runs for some sessions took, in seconds.

    Attributes:
        wall: From the question what is missing to the last event.
        processor: Of this process, its threads included.
        steps: Wall time by step.
    """

    wall: float
    processor: float
    steps: dict[str, float]


def main() -> None:
    """Prepare, then measure in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=5000)
    parser.add_argument("--history", type=int, default=260)
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--update", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.update:
        update(arguments.folder, arguments.update)
        return
    with ExitStack() as stack:
        folder = arguments.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-daily-"))
        )
        prepare(stack, folder, arguments)


def prepare(stack: ExitStack, folder: Path, arguments: argparse.Namespace) -> None:
    """Serve the market, backfill its history, and call for the updates."""
    from quant_assets.market_data.schemas import RAW_BARS
    from quant_assets.market_span import MarketSpan, remember_span
    from quant_resources.calendar import XNYS
    from quant_resources.databases import used_databases
    from quant_resources.exchange.process import (
        EXCHANGE_FOLDER,
        MarketSpec,
        ensure_exchange,
        stop_exchange,
    )
    from quant_resources.settings import load_settings
    from quant_resources.store import Store

    sessions = [XNYS.offset(FIRST, number) for number in range(arguments.history + SESSIONS_AFTER)]
    folder.mkdir(parents=True, exist_ok=True)
    span = MarketSpan(
        first_session=FIRST, last_session=sessions[-1], first_trading_session=sessions[-1]
    )
    remember_span(folder, span)
    stack.enter_context(used_databases(load_settings(data_root=folder)))
    spec = MarketSpec(symbols=arguments.symbols, first_session=FIRST, last_session=sessions[-1])
    stack.callback(stop_exchange, folder / EXCHANGE_FOLDER)
    begin = time.perf_counter()
    ensure_exchange(folder / EXCHANGE_FOLDER, spec)
    print(f"exchange of {arguments.symbols} symbols: {time.perf_counter() - begin:.1f} s")
    history = [day.isoformat() for day in sessions[: arguments.history]]
    _ready, measured = executed(folder, [history])
    show(f"Backfill of {len(history)} sessions", measured)
    stored = set(Store(folder).partitions(RAW_BARS))
    new = [key for key in map(str, sessions) if key not in stored][: arguments.updates]
    subprocess.run([sys.executable, __file__, "--folder", folder, "--update", *new], check=True)


def update(folder: Path, keys: list[str]) -> None:
    """Bring the sessions, a run each, and print where the time went."""
    ready, measured = executed(folder, [[key] for key in keys])
    show("Daily update, first run of a process", measured[:1])
    show("Daily update, further runs (medians)", measured[1:])
    print(f"imports, graph and storage before the first run: {ready - PROCESS_STARTED:.1f} s")


def executed(folder: Path, batches: list[list[str]]) -> tuple[float, list[Measured]]:
    """Run the market data stage for each batch of sessions that is missing.

    Returns:
        The moment at which the first run could begin, and what each batch took.
    """
    import dagster as dg

    from quant_assets.cli.graph_runs import GraphRunner
    from quant_assets.definitions import build_defs
    from quant_assets.market_data.schemas import STAGE
    from quant_resources.calendar import XNYS, start_of_day
    from quant_resources.dagster_storage import dagster_instance
    from quant_resources.exchange.process import EXCHANGE_FOLDER, ExchangeControl, ensure_exchange
    from quant_resources.settings import load_settings

    settings = load_settings(data_root=folder)
    job = dg.define_asset_job(STAGE, selection=dg.AssetSelection.groups(STAGE))
    graph = dg.Definitions.merge(build_defs(settings, strategies=()), dg.Definitions(jobs=[job]))
    exchange = ExchangeControl(ensure_exchange(folder / EXCHANGE_FOLDER).url)
    measured = []
    with dagster_instance(settings) as instance:
        ready = time.perf_counter()
        runner = GraphRunner(graph, instance, lambda _label, _done: None)
        for batch in batches:
            midnight = start_of_day(XNYS.next(date.fromisoformat(batch[-1])))
            if exchange.clock() < midnight:
                exchange.advance(midnight)
            wall, processor, runs = time.perf_counter(), time.process_time(), runner.tally.runs
            runner.ensure(STAGE, batch)
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            steps: dict[str, float] = defaultdict(float)
            if made := runner.tally.runs - runs:
                for run in instance.get_runs(limit=made):
                    for stats in instance.get_run_step_stats(run.run_id):
                        steps[stats.step_key] += (stats.end_time or 0.0) - (stats.start_time or 0.0)
                measured.append(Measured(wall, processor, dict(steps)))
        for sentence in runner.tally.sentences():
            print(f"  {sentence}")
    return ready, measured


def show(title: str, measured: list[Measured]) -> None:
    """Print the medians of some batches by step."""
    from rich.console import Console
    from rich.table import Table

    if not measured:
        return
    wall = median(one.wall for one in measured)
    processor = median(one.processor for one in measured)
    steps = {
        step: median(one.steps.get(step, 0.0) for one in measured) for step in measured[0].steps
    }
    longest = sorted(steps.items(), key=lambda item: -item[1])
    table = Table(
        "Step", "Seconds", title=f"{title}: {wall:.1f} s ({processor:.1f} s of processor)"
    )
    for step, seconds in longest[:STEPS_SHOWN]:
        table.add_row(step, f"{seconds:.2f}")
    rest = longest[STEPS_SHOWN:]
    table.add_row(f"{len(rest)} more steps", f"{sum(seconds for _, seconds in rest):.2f}")
    table.add_row("between the steps", f"{wall - sum(steps.values()):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
