"""Runs in an interpreter that has pyqlib: loads Alpha158 as Qlib computes it, on request.

    PYTHON quant_tests/oracles/qlib_answers.py FOLDER

Belongs here: what needs Qlib, and nothing of the project, whose environment does not have it. Does not
belong here: Qlib's data files and the reading of the answers (`qlib_process.py`).

Requests come as lines of JSON on standard input (first, last, processes, save), answers leave as lines of
JSON on standard output. Every load starts with empty caches, as a new session would.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import qlib  # pyright: ignore[reportMissingImports]
from qlib.config import C  # pyright: ignore[reportMissingImports]
from qlib.contrib.data.loader import Alpha158DL  # pyright: ignore[reportMissingImports]
from qlib.data.cache import H  # pyright: ignore[reportMissingImports]


def main() -> None:
    """Answer until the input ends."""
    qlib.init(provider_uri=sys.argv[1], region="us", kernels=1, logging_level=30)
    print(json.dumps({"version": qlib.__version__, "peak_bytes": peak_bytes()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)


def answer(first: str, last: str, processes: int, save: str | None) -> dict[str, float]:
    """Load the sessions first … last; rows and columns go to a file if one is named.

    Returns:
        Seconds of the load by the clock and of all processes, its rows, and the highest memory of this
        process so far in bytes.
    """
    C["kernels"] = processes
    H.clear()
    begin, processor = time.perf_counter(), processor_seconds()
    loaded = Alpha158DL().load(instruments="all", start_time=first, end_time=last)["feature"]
    answered = {
        "seconds": time.perf_counter() - begin,
        "processor": processor_seconds() - processor,
        "peak_bytes": peak_bytes(),
        "rows": len(loaded),
    }
    if save:
        np.savez(
            Path(save),
            names=np.array(loaded.columns, dtype=str),
            symbol=np.array(loaded.index.get_level_values("instrument"), dtype=str),
            session=loaded.index.get_level_values("datetime").to_numpy("datetime64[D]"),
            values=loaded.to_numpy(dtype=np.float32),
        )
    return answered


def processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
