"""The request budget of one pair of API keys: so many requests in any 60 seconds.

What belongs here: when the next request may go out, over all threads and processes that share a budget.
What does not: what is sent (`alpaca_transport.py`) and what a refusal for too many requests means.

1. A request takes the earliest moment that leaves no more than the budget in any 60 seconds, notes it
   for the others, and sleeps until then.
2. With a folder, the moments are kept in a small file under a file lock, so that every process of this
   user on this machine draws on the same budget. Machines do not know of each other.
3. Moments are those of the monotonic clock, which all processes of a machine share and which nobody
   sets. What is left of a time before a restart lies in the future and is dropped, as is a damaged file.
4. A process that dies after step 1 has wasted one request of the budget and nothing else.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO, Final

from filelock import FileLock, Timeout

from quant_resources.errors import StorageError

WINDOW_SECONDS: Final = 60.0
#: A noted moment further ahead is not of this clock: a budget's queue is never this long.
_HORIZON_SECONDS: Final = 2 * WINDOW_SECONDS
_LOCK_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.0005
_ONLY_THE_USER: Final = 0o600
_NUMBER_BYTES: Final = 8


class RequestPace:
    """At most so many requests in any 60 seconds, over all threads (and processes) that share it.

    Args:
        requests_per_minute: The budget.
        file: Where the moments of the requests are kept for other processes; None for this one alone.
    """

    def __init__(self, requests_per_minute: int, file: Path | None = None) -> None:
        self._budget = requests_per_minute
        self._file = file
        self._lock = threading.Lock()
        self._noted: list[float] = []

    def wait(self) -> None:
        """Block until one more request fits.

        Raises:
            StorageError: The shared file cannot be used.
        """
        with self._lock:
            if self._file is None:
                self._noted, mine = reserved(self._noted, time.monotonic(), self._budget)
            else:
                with _shared(self._file) as stream:
                    now = time.monotonic()
                    noted, mine = reserved(_read(stream), now, self._budget)
                    _write(stream, noted)
        ahead = mine - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)


@cache
def shared_pace(api_key: str, requests_per_minute: int, folder: Path | None = None) -> RequestPace:
    """The pace of one pair of keys: Alpaca counts requests per account, not per client.

    Args:
        api_key: Key id; files are named after a digest of it.
        requests_per_minute: The budget.
        folder: Where processes meet (`meeting_place`); None for this process alone.
    """
    if folder is None:
        return RequestPace(requests_per_minute)
    name = hashlib.sha256(b"request pace of " + api_key.encode()).hexdigest()[:24]
    return RequestPace(requests_per_minute, folder / name)


def meeting_place() -> Path:
    """The folder in which this user's processes share their budgets, whatever their data root.

    Raises:
        StorageError: It belongs to another user, or cannot be made.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"quant-pace-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.lstat().st_uid
    except OSError as error:
        raise StorageError(
            f"The request budget cannot be shared in {folder} ({error.strerror}); set TMPDIR to a "
            "folder that can be written."
        ) from error
    if folder.is_symlink() or (hasattr(os, "getuid") and owner != user):
        raise StorageError(
            f"{folder} belongs to somebody else; set TMPDIR to a folder of your own."
        )
    return folder


def reserved(noted: list[float], now: float, budget: int) -> tuple[list[float], float]:
    """The moment that the next request may take, and the moments to remember.

    Args:
        noted: Moments of earlier requests, some perhaps still ahead; any order.
        now: The monotonic clock.
        budget: Requests allowed in any 60 seconds.

    Returns:
        The moments of the last 60 seconds, the new one among them, ascending; and the new one.
    """
    kept = sorted(
        moment for moment in noted if now - WINDOW_SECONDS < moment <= now + _HORIZON_SECONDS
    )
    mine = max(now, kept[-budget] + WINDOW_SECONDS) if len(kept) >= budget else now
    return [*kept, mine], mine


@contextmanager
def _shared(file: Path) -> Iterator[BinaryIO]:
    lock = FileLock(
        file.with_suffix(".lock"), timeout=_LOCK_SECONDS, mode=_ONLY_THE_USER, thread_local=False
    )
    try:
        with (
            lock.acquire(poll_interval=_POLL_SECONDS),
            os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, _ONLY_THE_USER), "r+b") as stream,
        ):
            yield stream
    except Timeout:
        raise StorageError(
            f"Another process has held the request budget {lock.lock_file} for {_LOCK_SECONDS:.0f} s; "
            "stop what hangs and run again."
        ) from None
    except OSError as error:
        raise StorageError(
            f"The request budget in {file.parent} cannot be used ({error.strerror}); set TMPDIR to a "
            "folder that can be written."
        ) from error


def _read(stream: BinaryIO) -> list[float]:
    content = stream.read()
    # A part of a number at the end is what a kill has left.
    count = len(content) // _NUMBER_BYTES
    moments = struct.unpack(f"<{count}d", content[: count * _NUMBER_BYTES])
    return [moment for moment in moments if math.isfinite(moment)]


def _write(stream: BinaryIO, moments: list[float]) -> None:
    stream.seek(0)
    stream.write(struct.pack(f"<{len(moments)}d", *moments))
    stream.truncate()
