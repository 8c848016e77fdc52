"""The real Qlib, beside the project: in an environment of its own, asked over pipes.

Belongs here: Qlib's binary data files, starting its interpreter, and its answers as frames. Does not belong
here: what runs inside that interpreter (`qlib_answers.py`). pyqlib is no dependency of the project:

    uv venv qlib && uv pip install --python qlib/bin/python pyqlib==0.9.7
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import polars as pl

_SCRIPT = Path(__file__).with_name("qlib_answers.py")
_FIELDS = ("open", "high", "low", "close", "volume", "vwap")


class QlibProcess:
    """Qlib with its own data of some bars, ready to load Alpha158 from them.

    Args:
        python: Interpreter of an environment that has pyqlib.
        folder: Qlib's data files (`write_qlib_data`).

    Attributes:
        version: Qlib's version.

    Raises:
        RuntimeError: The interpreter cannot run Qlib; the message holds what it said.
    """

    def __init__(self, python: Path, folder: Path) -> None:
        self._folder = folder
        self._said = (folder / "said.txt").open("w+")
        self._process = subprocess.Popen(
            [python, _SCRIPT, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            cwd=folder,
        )
        started = self._answer()
        self.version = str(started["version"])
        self._held_at_start = self._peak = int(started["peak_bytes"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def seconds(self, first: date, last: date, processes: int = 1) -> tuple[float, float]:
        """How long Qlib takes to load the sessions first … last, its files read included.

        Returns:
            Seconds by the clock, and processor seconds of all its processes.
        """
        answer = self._ask(first, last, processes)
        self._peak = int(answer["peak_bytes"])
        return float(answer["seconds"]), float(answer["processor"])

    def memory(self) -> int:
        """The bytes that Qlib's process took at most, above what it held before its first load."""
        return self._peak - self._held_at_start

    def features(self, first: date, last: date) -> pl.DataFrame:
        """Load the sessions first … last.

        Returns:
            symbol, session and Qlib's columns, Float32, sorted; a row for every session between a
            symbol's first and last bar, with a bar or without.
        """
        file = self._folder / "answer.npz"
        self._ask(first, last, 1, file)
        with np.load(file) as saved:
            values = pl.DataFrame(saved["values"], schema=list(saved["names"]), orient="row")
            keys = pl.DataFrame({"symbol": saved["symbol"], "session": saved["session"]})
        return keys.hstack(values).sort("symbol", "session")

    def _ask(
        self, first: date, last: date, processes: int, save: Path | None = None
    ) -> dict[str, Any]:
        request = {
            "first": first.isoformat(),
            "last": last.isoformat(),
            "processes": processes,
            "save": None if save is None else str(save),
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._said.seek(0)
        raise RuntimeError(
            f"{self._process.args[0]} could not run Qlib (is pyqlib installed there?):\n"  # pyright: ignore
            + self._said.read()[-2000:]
        )


def write_qlib_data(folder: Path, bars: pl.DataFrame, calendar: Sequence[date]) -> None:
    """Write Qlib's data files: the calendar, each symbol's span, a float32 file per symbol and field.

    Such a file holds the calendar position of its first value, then one value per session from there on.

    Args:
        folder: Where they go; must not exist.
        bars: symbol (upper case, as Qlib names instruments), session and the six values.
        calendar: Every session of the market.
    """
    days = np.array(calendar, dtype="datetime64[D]")
    folder.mkdir(parents=True)
    (folder / "calendars").mkdir()
    (folder / "calendars/day.txt").write_text("".join(f"{day}\n" for day in days))
    spans = []
    for (symbol,), own in bars.group_by("symbol", maintain_order=True):
        place = np.searchsorted(days, own["session"].to_numpy().astype("datetime64[D]"))
        first, last = int(place.min()), int(place.max())
        spans.append(f"{symbol}\t{days[first]}\t{days[last]}\n")
        home = folder / "features" / str(symbol).lower()
        home.mkdir(parents=True)
        for field in _FIELDS:
            stored = np.full(2 + last - first, np.nan, dtype="<f4")
            stored[0] = first
            stored[1 + place - first] = own[field].fill_null(np.nan).to_numpy()
            stored.tofile(home / f"{field}.day.bin")
    (folder / "instruments").mkdir()
    (folder / "instruments/all.txt").write_text("".join(sorted(spans)))
