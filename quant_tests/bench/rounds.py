"""Timing that is fair on a busy machine: tasks take turns, and the median of the rounds counts.

Belongs here: how benchmarks measure. Does not belong here: what they measure.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Taken(NamedTuple):
    """Seconds of a task: by the clock, and of all its threads and processes."""

    wall: float
    processor: float


def interleaved(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Taken]:
    """Run every task once per round, in turn, and take the medians of what each took.

    A task that measures itself (in another process) returns what it took as `Taken`.
    """
    taken: dict[str, list[Taken]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            wall, processor = time.perf_counter(), time.process_time()
            own = task()
            here = Taken(time.perf_counter() - wall, time.process_time() - processor)
            taken[name].append(own if isinstance(own, Taken) else here)
    return {
        name: Taken(*(statistics.median(values) for values in zip(*rounds_of, strict=True)))
        for name, rounds_of in taken.items()
    }
