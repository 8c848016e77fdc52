"""How long ten years of 500 symbols take from files to adjusted bars. Run by hand.

    python quant_tests/bench/bench_file_backfill.py [--symbols 500] [--sessions 2520] [--graph]

Writes a generated market as a vendor would (one Parquet file, one CSV, a CSV for each symbol, one for each
session), then in a process each: reads it as a `BarSource`, stores the deliveries, judges them, stores bars
and quarantine, a year at a time as a backfill does, and reads all bars adjusted. Prints seconds, of all
cores' work too (which a busy machine does not stretch), and peak memory. With `--graph` the same comes from Dagster too, checks included, its storage in PostgreSQL: what the
runs take beyond their steps is bookkeeping.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path

FIRST = date(2014, 1, 2)
ARRANGEMENTS = {
    "one Parquet file": ("parquet", "bars.parquet", "market"),
    "one CSV": ("csv", "bars.csv", "market"),
    "a CSV per symbol": ("csv", "by_symbol", "symbol"),
    "a CSV per session": ("csv", "by_session", "session"),
}


def main() -> None:
    """Write the files, then measure in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=2520)
    parser.add_argument("--graph", action="store_true")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        how, layout, root = arguments.measure
        measured = through_the_graph if how == "graph" else our_own_work
        measured(Path(layout), Path(root), arguments.sessions)
        return
    with tempfile.TemporaryDirectory(prefix="bench-files-") as folder:
        write_files(Path(folder), arguments.symbols, arguments.sessions)
        for number, name in enumerate(ARRANGEMENTS):
            measure("own", name, Path(folder), f"own{number}", arguments.sessions)
        if arguments.graph:
            measure("graph", "one Parquet file", Path(folder), "graph", arguments.sessions)


def measure(how: str, name: str, folder: Path, root: str, sessions: int) -> None:
    """Measure one arrangement in a fresh process."""
    print(f"\n{name}{', through the graph' if how == 'graph' else ''}", flush=True)
    layout = folder / f"{name.replace(' ', '_')}.toml"
    measured = ["--measure", how, str(layout), str(folder / root), "--sessions", str(sessions)]
    subprocess.run([sys.executable, __file__, *measured], check=True)


def write_files(folder: Path, symbols: int, sessions: int) -> None:
    """The market in every arrangement, with its actions and a layout for each."""
    import polars as pl

    from quant_resources.calendar import XNYS
    from quant_tests.market_data.generated_market import deliveries

    calendar = [XNYS.offset(FIRST, number) for number in range(sessions)]
    parts = list(deliveries(symbols, calendar, defects=0.0005))
    sent = pl.concat(part.raw_bars for part in parts).select(
        "symbol", pl.col("session").alias("date"), "open", "high", "low", "close", "volume"
    )
    sent = sent.filter(~pl.col("symbol").str.contains("/").fill_null(value=True))
    actions = pl.concat(part.actions for part in parts)
    actions.select("ex_date", "symbol", "action_type", "ratio", "cash", "new_symbol").write_csv(
        folder / "actions.csv"
    )
    sent.write_parquet(folder / "bars.parquet")
    sent.write_csv(folder / "bars.csv")
    for place, column in (("by_symbol", "symbol"), ("by_session", "date")):
        (folder / place).mkdir()
        for (value,), part in sent.partition_by(column, as_dict=True).items():
            part.drop(column).write_csv(folder / place / f"{value}.csv")
    for name, (form, path, per) in ARRANGEMENTS.items():
        (folder / f"{name.replace(' ', '_')}.toml").write_text(
            f'name = "bench"\nprices = "raw"\n'
            f'[bars]\npath = "{path}"\nformat = "{form}"\none_file_per = "{per}"\n'
            '[actions]\npath = "actions.csv"\nformat = "csv"\n[actions.csv]\nscientific = true\n'
            '[actions.columns]\ntype = "action_type"\nratio = "ratio"\ncash = "cash"\n'
            'new_symbol = "new_symbol"\n'
        )
    size = (folder / "bars.csv").stat().st_size / 1e6
    print(f"{sent.height:,} rows, {actions.height:,} actions, {size:.0f} MB as CSV")


def our_own_work(layout: Path, root: Path, sessions: int) -> None:
    """From files to adjusted bars without Dagster, a year at a time."""
    import polars as pl

    from quant_assets.market_data.adjustment import adjust
    from quant_assets.market_data.schemas import BARS, CORPORATE_ACTIONS, QUARANTINE, RAW_BARS
    from quant_assets.market_data.stored_gate import gate_stored
    from quant_assets.partitions import years
    from quant_resources.calendar import XNYS
    from quant_resources.file_bars import FileBars
    from quant_resources.store import Store

    calendar = [XNYS.offset(FIRST, number) for number in range(sessions)]
    store = Store(root)
    spent: dict[str, tuple[float, float]] = {}
    begin = time.perf_counter()
    runs = [list(keys) for keys in years([day.isoformat() for day in calendar])]
    for keys in runs:
        first, last = date.fromisoformat(keys[0]), date.fromisoformat(keys[-1])
        # Every run opens the source anew.
        source = FileBars.from_layout(layout, root / "file_cache")
        with stopwatch(spent, "read the files"):
            assert last <= source.newest_closed_session()
            raw = source.bars(None, first, last)
            actions = source.corporate_actions(first, last)
        with stopwatch(spent, "store deliveries"):
            store.write(RAW_BARS, raw, keys)
            store.write(CORPORATE_ACTIONS, actions, keys)
    for keys in runs:
        with stopwatch(spent, "judge"):
            gated = gate_stored(store, FIRST, [date.fromisoformat(key) for key in keys])
        with stopwatch(spent, "store bars and quarantine"):
            store.write(BARS, gated.bars, keys)
            store.write(QUARANTINE, gated.quarantine, keys)
    with stopwatch(spent, "read all bars adjusted"):
        adjusted = adjust(store.read(BARS)).collect()
    wall = time.perf_counter() - begin
    for what, (seconds, work) in spent.items():
        print(f"  {what:28}{seconds:7.1f} s{work:9.1f} s of work")
    rejected = store.read(QUARANTINE).select(pl.len()).collect().item()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    work = sum(work for _, work in spent.values())
    print(f"  {'together':28}{wall:7.1f} s{work:9.1f} s of work, {peak:,.0f} MB at most")
    print(f"  {adjusted.height:,} bars, {rejected:,} in quarantine, {len(runs)} runs")


def through_the_graph(layout: Path, root: Path, sessions: int) -> None:
    """The same from Dagster, with the checks of these tables."""
    import dagster as dg

    from quant_assets.cli.graph_runs import GraphRunner
    from quant_assets.definitions import build_defs
    from quant_assets.market_data.schemas import BARS, CORPORATE_ACTIONS, QUARANTINE, RAW_BARS
    from quant_assets.market_span import MarketSpan, remember_span
    from quant_resources.calendar import XNYS
    from quant_resources.dagster_storage import dagster_instance
    from quant_resources.databases import used_databases
    from quant_resources.exchange.process import (
        EXCHANGE_FOLDER,
        MarketSpec,
        ensure_exchange,
        stop_exchange,
    )
    from quant_resources.settings import load_settings

    calendar = [XNYS.offset(FIRST, number) for number in range(sessions)]
    last = calendar[-1]
    remember_span(
        root, MarketSpan(first_session=FIRST, last_session=last, first_trading_session=last)
    )
    settings = load_settings(data_root=root, bars="files", files=layout)
    selection = dg.AssetSelection.assets(
        *(table.path for table in (RAW_BARS, CORPORATE_ACTIONS, QUARANTINE, BARS))
    )
    job = dg.define_asset_job("bars", selection=selection)
    with ExitStack() as stack:
        stack.enter_context(used_databases(settings))
        # Bars come from files, but the graph has a broker too, which some checks ask.
        stack.callback(stop_exchange, root / EXCHANGE_FOLDER)
        ensure_exchange(
            root / EXCHANGE_FOLDER, MarketSpec(symbols=5, first_session=FIRST, last_session=last)
        )
        instance = stack.enter_context(dagster_instance(settings))
        graph = dg.Definitions.merge(
            build_defs(settings, strategies=()), dg.Definitions(jobs=[job])
        )
        runner = GraphRunner(graph, instance, lambda _label, _done: None)
        begin = time.perf_counter()
        runner.ensure("bars", [day.isoformat() for day in calendar])
        wall = time.perf_counter() - begin
        steps: dict[str, float] = {}
        for run in instance.get_runs():
            for stats in instance.get_run_step_stats(run.run_id):
                seconds = (stats.end_time or 0.0) - (stats.start_time or 0.0)
                steps[stats.step_key] = steps.get(stats.step_key, 0.0) + seconds
    for step, seconds in sorted(steps.items(), key=lambda item: -item[1]):
        print(f"  {step:50}{seconds:7.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  {'between the steps':50}{wall - sum(steps.values()):7.1f} s")
    print(f"  {'together':50}{wall:7.1f} s, {peak:,.0f} MB at most, {runner.tally.runs} runs")
    for sentence in runner.tally.sentences():
        print(f"  {sentence}")


@contextmanager
def stopwatch(spent: dict[str, tuple[float, float]], what: str) -> Iterator[None]:
    """Add the time of a block: on the clock, and of all cores together."""
    begin, work = time.perf_counter(), time.process_time()
    yield
    before = spent.get(what, (0.0, 0.0))
    spent[what] = (
        before[0] + time.perf_counter() - begin,
        before[1] + time.process_time() - work,
    )


if __name__ == "__main__":
    main()
