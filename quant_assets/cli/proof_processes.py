"""Proving a plan in several processes, since sessions do not need each other.

Belongs here: cutting a plan into parts, the processes that prove them, and ending these. Does not belong
here: what a proof is (`point_in_time/proofs.py`), and showing it.

1. The tables of one step are proved together, a stretch of neighbouring sessions at a time: a stretch is
   computed once as a range, and every session of it once alone.
2. Processes are spawned, never forked: Polars and OpenMP keep threads that do not survive a fork. Each
   builds the graph anew, with one thread for Polars and LightGBM, since the processes share the cores
   already.
3. What is interrupted ends at once: nothing was written, so that there is nothing to finish.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import dagster as dg

from quant_assets.definitions import build_defs
from quant_assets.market_span import market_span
from quant_assets.orders.ledger_copies import LEDGER_COPIES
from quant_assets.partitions import partitions_for
from quant_assets.point_in_time import plan as planning
from quant_assets.point_in_time.plan import Plan, PlannedTable, Sessions
from quant_assets.point_in_time.proofs import Proof, Prover, whole
from quant_assets.point_in_time.recompute import Step, steps
from quant_resources.launch import applied
from quant_resources.ledger.unrecorded import UnrecordedLedger
from quant_resources.settings import Settings
from quant_resources.store import Store

#: Sessions of a stretch: long enough that the range around it costs little beside it, and short enough
#: that no process waits long for the last one.
STRETCH = 64
#: Read once by Polars and OpenMP (LightGBM), when a process imports them.
_ONE_THREAD = {"POLARS_MAX_THREADS": "1", "OMP_THREAD_LIMIT": "1"}
#: Called with how many sessions of a table were proved: path, sessions.
Done = Callable[[str, int], None]


@dataclass(frozen=True)
class Graph:
    """The computed tables of a data root.

    Attributes:
        settings: Settings of the data root.
        steps: What computes its tables, in the order in which data flows.
        external: Paths of tables that nothing computes.
    """

    settings: Settings
    steps: tuple[Step, ...]
    external: tuple[str, ...]

    @classmethod
    def of(cls, settings: Settings) -> Graph:
        """The graph of a data root, as its runs have it."""
        span = market_span(settings)
        assets = build_defs(settings, span).assets or ()
        return cls(
            settings,
            steps(
                [asset for asset in assets if isinstance(asset, dg.AssetsDefinition)],
                partitions_for(span),
            ),
            tuple(
                asset.key.to_user_string() for asset in assets if isinstance(asset, dg.AssetSpec)
            ),
        )

    @cached_property
    def store(self) -> Store:
        """The data root."""
        return Store(self.settings.data_root)

    def plan(self, sessions: Sessions, patterns: Sequence[str]) -> Plan:
        """What is proved; see `plan.plan`."""
        return planning.plan(self.steps, self.external, self.store, sessions, patterns)

    def prover(self, ledger_url: str) -> Prover:
        """What proves it, with a ledger that records nothing."""
        tables = {table.path: table for step in self.steps for table in step.tables}
        return Prover(self.store, UnrecordedLedger(ledger_url), tables, LEDGER_COPIES)


@dataclass(frozen=True)
class Part:
    """Sessions of the tables of one step, small enough to be handed to another process.

    Attributes:
        paths: The tables.
        keys: The sessions.
    """

    paths: tuple[str, ...]
    keys: tuple[str, ...]


def proofs(graph: Graph, plan: Plan, ledger_url: str, processes: int, done: Done) -> list[Proof]:
    """Prove a plan.

    Args:
        graph: The graph.
        plan: What is proved.
        ledger_url: The ledger, of which nothing is changed.
        processes: How many processes may work; with one, it is this one.
        done: Told whenever sessions of a table are proved.

    Returns:
        One proof per table, in the order of the plan.
    """
    proved: dict[str, list[Proof]] = {planned.table.path: [] for planned in plan.tables}
    for results in _results(graph, list(parts(plan)), plan, ledger_url, processes):
        for proof in results:
            proved[proof.path].append(proof)
            done(proof.path, proof.sessions)
    return [whole(found) for found in proved.values()]


def parts(plan: Plan) -> Iterator[Part]:
    """The plan in parts: tables of a step with the same sessions together, a stretch at a time."""
    together: dict[tuple[int, tuple[str, ...]], list[PlannedTable]] = {}
    for planned in plan.tables:
        together.setdefault((id(planned.step), planned.keys), []).append(planned)
    for (_, keys), tables in together.items():
        # A month is a whole training.
        stretch = 1 if tables[0].way == "retrained" else STRETCH
        paths = tuple(planned.table.path for planned in tables)
        for start in range(0, len(keys), stretch):
            yield Part(paths, keys[start : start + stretch])


def _results(
    graph: Graph, work: Sequence[Part], plan: Plan, ledger_url: str, processes: int
) -> Iterator[list[Proof]]:
    if min(processes, len(work)) == 1:
        prover = graph.prover(ledger_url)
        for part in work:
            yield prover.prove(_tables(plan.tables, part), part.keys)
        return
    with _pool(processes, graph.settings, ledger_url) as pool:
        futures = [pool.submit(_prove, part) for part in work]
        for future in as_completed(futures):
            yield future.result()


@contextmanager
def _pool(processes: int, settings: Settings, ledger_url: str) -> Iterator[ProcessPoolExecutor]:
    with applied(_ONE_THREAD):
        pool = ProcessPoolExecutor(
            processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(settings, ledger_url),
        )
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise
        pool.shutdown()


def _tables(planned: Iterable[PlannedTable], part: Part) -> list[PlannedTable]:
    return [one for one in planned if one.table.path in part.paths]


class _Worker:
    """What a process proves with, made once."""

    def __init__(self, settings: Settings, ledger_url: str) -> None:
        graph = Graph.of(settings)
        self.prover = graph.prover(ledger_url)
        # Sessions come with every part; here only the ways are asked.
        self.tables = graph.plan(Sessions(sample=1), ()).tables


_worker: list[_Worker] = []


def _begin(settings: Settings, ledger_url: str) -> None:
    # Ctrl-C reaches every process of the terminal; the command ends its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _worker.append(_Worker(settings, ledger_url))


def _prove(part: Part) -> list[Proof]:
    (worker,) = _worker
    return worker.prover.prove(_tables(worker.tables, part), part.keys)
