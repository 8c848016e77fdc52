"""Starting, finding and stopping the exchange's server process.

1. A state folder has at most one server, whoever asks: starting is done under a file lock.
2. `endpoint.json` says where the server should be; only an answer with the state's own id counts, so
   a stale file, a reused process number or a stranger on the port are all found out.
3. A process is ended only when its number and its start time are those in the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from quant_resources.calendar import XNYS, start_of_day
from quant_resources.errors import ExchangeError
from quant_resources.exchange.control import ExchangeControl
from quant_resources.exchange.spec import MarketSpec
from quant_resources.exchange.state import State

__all__ = [
    "EXCHANGE_FOLDER",
    "Endpoint",
    "ExchangeControl",
    "MarketSpec",
    "ensure_exchange",
    "stop_exchange",
]

#: The local exchange's state, below the data root.
EXCHANGE_FOLDER = "exchange"
ENDPOINT_FILE = "endpoint.json"
LOG_FILE = "exchange.log"
SERVER_LOCK = "server.lock"
_START_LOCK = "start.lock"
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_ANSWER_SECONDS = 3.0
_children: dict[int, subprocess.Popen[bytes]] = {}
"""Servers started by this process, so that they can be waited for when they end."""


@dataclass(frozen=True)
class Endpoint:
    """A running exchange.

    Attributes:
        url: Base address of data, trading and control.
        pid: The server's process number.
        started: Whether this call started it.
    """

    url: str
    pid: int
    started: bool


def ensure_exchange(state_dir: Path, spec: MarketSpec | None = None, port: int = 0) -> Endpoint:
    """Find the exchange of a state folder, or start it; the server goes on when this process ends.

    Args:
        state_dir: The state folder; created from `spec` when it is new.
        spec: The market; None takes the one the folder was created with.
        port: Port to listen on when it has to be started; 0 for the last one used or a free one.

    Raises:
        ExchangeError: The folder was made for another market, or the server cannot be started; the
            message says why.
    """
    folder = Path(state_dir).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExchangeError(f"The state folder {folder} cannot be made: {error}.") from error
    try:
        with FileLock(folder / _START_LOCK, timeout=2 * _START_SECONDS):
            state_id = create_state(folder, spec)
            running = _running(folder, state_id)
            return running or _start(folder, state_id, port)
    except Timeout:
        raise ExchangeError(
            f"Another process has been starting the exchange in {folder} for too long; look at "
            f"{folder / LOG_FILE}."
        ) from None
    except OSError as error:
        raise ExchangeError(f"The state folder {folder} cannot be used: {error}.") from error


def running_exchange(state_dir: Path) -> Endpoint | None:
    """The exchange of a state folder if it runs and answers; nothing is started, stopped or written."""
    folder = Path(state_dir).absolute()
    endpoint, known = _read_endpoint(folder), State.peek(folder)
    if not endpoint or known is None or _process(endpoint) is None:
        return None
    answers = _answers(endpoint["url"], known[0])
    return Endpoint(endpoint["url"], endpoint["pid"], started=False) if answers else None


def stop_exchange(state_dir: Path) -> bool:
    """End the server of a state folder; its state stays. Returns whether one was running."""
    folder = Path(state_dir).absolute()
    if not folder.exists():
        return False
    with FileLock(folder / _START_LOCK, timeout=2 * _START_SECONDS):
        process = _process(_read_endpoint(folder))
        if process is not None:
            _end(process)
    return process is not None


def create_state(folder: Path, spec: MarketSpec | None) -> str:
    """Create the state of a new folder, or check that an existing one is for the same market.

    Returns:
        The state's id.

    Raises:
        ExchangeError: There is neither state nor specification, or they differ.
    """
    existing = State.peek(folder)
    if existing is None:
        if spec is None:
            raise ExchangeError(
                f"There is no exchange in {folder} yet; run `quant demo` or `quant exchange start` to create one."
            )
        State.create(folder, spec, start_of_day(_first_session(spec)))
        existing = State.peek(folder)
        assert existing is not None  # noqa: S101 - created above
    elif spec is not None and (different := existing[1].differences(spec)):
        raise ExchangeError(
            f"The exchange in {folder} was created for another market ({'; '.join(different)}); "
            "start over with `quant demo --fresh`, or choose another QUANT_DATA_ROOT."
        )
    return existing[0]


def last_port(folder: Path) -> int:
    """The port the folder's server used last, 0 if there was none."""
    port = _read_endpoint(folder).get("port", 0)
    return port if isinstance(port, int) else 0


def _first_session(spec: MarketSpec) -> date:
    if spec.kind == "stochastic":
        assert spec.first_session is not None  # noqa: S101 - the specification validates it
        return XNYS.at_or_after(spec.first_session)
    from quant_resources.exchange.exchange import market_of

    return market_of(spec).load().sessions[0]


def _running(folder: Path, state_id: str) -> Endpoint | None:
    """The server that answers for the state; one that is ours but does not answer is ended."""
    endpoint = _read_endpoint(folder)
    if not endpoint:
        return None
    process = _process(endpoint)
    if process is None:
        return None
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline:
        if _answers(endpoint["url"], state_id):
            return Endpoint(endpoint["url"], endpoint["pid"], started=False)
        time.sleep(0.1)
    _end(process)
    return None


def _start(folder: Path, state_id: str, port: int) -> Endpoint:
    log = folder / LOG_FILE
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    with log.open("a") as output:
        mark = output.tell()
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [
                *(sys.executable, "-m", "quant_resources.exchange"),
                *("--state", str(folder), "--port", str(port)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    _children[child.pid] = child
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        endpoint = _read_endpoint(folder)
        if endpoint.get("pid") == child.pid and _answers(endpoint["url"], state_id):
            return Endpoint(endpoint["url"], child.pid, started=True)
        if child.poll() is not None:
            raise ExchangeError(
                f"The local exchange did not start: {_last_words(log, mark)} (whole log: {log})"
            )
        time.sleep(0.02)
    child.kill()
    child.wait()
    raise ExchangeError(
        f"The local exchange did not answer within {_START_SECONDS:.0f} s; look at {log}."
    )


def _last_words(log: Path, mark: int) -> str:
    """The last line the server wrote since it was started."""
    with log.open() as text:
        text.seek(mark)
        lines = [line.strip() for line in text if line.strip()]
    return lines[-1] if lines else "it ended without a word"


def _answers(url: str, state_id: str) -> bool:
    try:
        return ExchangeControl(url).status(_ANSWER_SECONDS).get("state_id") == state_id
    except ExchangeError:
        return False


def _read_endpoint(folder: Path) -> dict[str, Any]:
    """The endpoint file; empty if there is none or it cannot be understood."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / ENDPOINT_FILE).read_text())
        if isinstance(found, dict) and found.keys() >= {"url", "pid", "process_started"}:
            return found
    return {}


def _process(endpoint: dict[str, Any]) -> psutil.Process | None:
    """The process the endpoint file means, if it is alive."""
    if not endpoint:
        return None
    try:
        process = psutil.Process(endpoint["pid"])
        same = abs(process.create_time() - endpoint["process_started"]) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _ended(process: psutil.Process) -> bool:
    """Wait for a process to end; one that its parent has not reaped yet has ended."""
    try:
        process.wait(_STOP_SECONDS)
    except psutil.TimeoutExpired:
        return process.status() == psutil.STATUS_ZOMBIE
    return True


def _end(process: psutil.Process) -> None:
    child = _children.pop(process.pid, None)
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
        if not _ended(process):
            process.kill()
            _ended(process)
    if child is not None:
        child.wait()
