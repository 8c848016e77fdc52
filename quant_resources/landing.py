"""Answered requests for bars, kept until the run that asked for them has stored them.

What belongs here: which answers are kept, for how long, and who may be served from them. What does not:
how a vendor is asked (`alpaca_bars.py`).

A backfill of a year and 5,000 symbols is more than a hundred requests, and the table is written when all
of them have been answered. So that a process that is killed in between goes on where it was:

1. Every answered request is one Parquet file, written under another name and then renamed: it is whole or
   it is not there. A file that cannot be read (the machine lost power) counts as not there.
2. Its name is the days it covers and a digest of the exact request, address and symbols included.
3. It serves the same request only while it is younger than six hours and while nothing is stored of any
   of its sessions. A session that is stored is therefore always asked for again, by whoever asks.
4. Files that cannot serve any more are removed when a run ends and when the next one begins.

To have everything asked for again, remove the folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Final

import polars as pl

from quant_resources.calendar import XNYS
from quant_resources.errors import StorageError

#: Seconds for which an answer may serve.
LIFETIME_SECONDS: Final = 6 * 3600.0
FOLDER: Final = "landing"
#: The table in which the runs of a data root store what they fetched.
STORED_TABLE: Final = "market_data/raw_bars"

_FILE: Final = re.compile(r"(\d{4}-\d{2}-\d{2})_(\d{4}-\d{2}-\d{2})_[0-9a-f]{32}\.parquet")
_BEING_WRITTEN: Final = re.compile(r"\.[0-9_a-f.\-]+\.parquet\.[0-9a-f]{8}")


@dataclass(frozen=True)
class LandedRequest:
    """One request for daily bars, with everything that decides its answer.

    Attributes:
        source: Name of the source.
        address: Base address.
        feed: Feed as chosen.
        adjustment: Adjustment asked for.
        asof: Day of the symbol mapping, or "-".
        symbols: Symbols in the order asked for.
        first: First session.
        last: Last session.
    """

    source: str
    address: str
    feed: str
    adjustment: str
    asof: str
    symbols: tuple[str, ...]
    first: date
    last: date

    @property
    def file_name(self) -> str:
        """The days covered and a digest of all fields."""
        content = json.dumps(asdict(self), default=str, sort_keys=True).encode()
        return f"{self.first}_{self.last}_{hashlib.sha256(content).hexdigest()[:32]}.parquet"


class Landing:
    """The answers kept under one data root.

    Args:
        data_root: The data root; answers lie in its folder `landing`.
        lifetime: Seconds for which an answer may serve.
    """

    def __init__(self, data_root: Path, lifetime: float = LIFETIME_SECONDS) -> None:
        self.folder = data_root / FOLDER
        self._stored = data_root / STORED_TABLE
        self._lifetime = lifetime

    def load(self, request: LandedRequest) -> pl.DataFrame | None:
        """The answer to the same request, if it may still serve."""
        file = self.folder / request.file_name
        if not self._may_serve(file, request.first, request.last):
            return None
        try:
            return pl.read_parquet(file)
        except (OSError, pl.exceptions.PolarsError):
            _remove(file)
            return None

    def keep(self, request: LandedRequest, answer: pl.DataFrame) -> None:
        """Keep the whole answer to a request.

        Raises:
            StorageError: The folder cannot be written.
        """
        file = self.folder / request.file_name
        temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            answer.write_parquet(temporary, compression="lz4")
            temporary.replace(file)
        except OSError as error:
            _remove(temporary)
            raise StorageError(
                f"Cannot write {file} ({error.strerror}); free some space or check the folder's "
                "permissions, and run again: what has been answered is kept."
            ) from error

    def forget(self, requests: Iterable[LandedRequest]) -> None:
        """Remove the answers to some requests, so that the next run asks anew.

        Raises:
            StorageError: One cannot be removed, and would be served again.
        """
        for request in requests:
            file = self.folder / request.file_name
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise StorageError(
                    f"Cannot remove {file} ({error.strerror}), which holds an incomplete answer; "
                    "remove it by hand and run again."
                ) from error

    def tidy(self) -> None:
        """Remove the files that cannot serve any more, whoever wrote them."""
        if not self.folder.is_dir():
            return
        for file in self.folder.iterdir():
            named = _FILE.fullmatch(file.name)
            if named is not None:
                first, last = (date.fromisoformat(day) for day in named.groups())
                if not self._may_serve(file, first, last):
                    _remove(file)
            elif _BEING_WRITTEN.fullmatch(file.name) and not self._is_young(file):
                _remove(file)

    def _may_serve(self, file: Path, first: date, last: date) -> bool:
        return self._is_young(file) and not self._is_any_stored(XNYS.sessions(first, last))

    def _is_young(self, file: Path) -> bool:
        try:
            age = time.time() - file.stat().st_mtime
        except FileNotFoundError:
            return False
        # A file of the future was written before the clock was set back: its age is unknown.
        return -1.0 <= age < self._lifetime

    def _is_any_stored(self, sessions: list[date]) -> bool:
        try:
            names = {entry.name for entry in self._stored.iterdir()}
        except FileNotFoundError:
            return False
        keys = [session.isoformat() for session in sessions]
        # A process that was killed while it wrote may leave a folder without a delivery.
        return any(
            f"{key}.parquet" in names
            or (key in names and any((self._stored / key).glob("*.parquet")))
            for key in keys
        )


def _remove(file: Path) -> None:
    # What cannot be removed is not served either: stored, too old, not whole, or never renamed.
    with suppress(OSError):
        file.unlink()
