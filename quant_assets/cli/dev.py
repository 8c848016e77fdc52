"""`quant dev`: Dagster's UI and daemon, with everything they need.

Belongs here: what is started for them, watched, and ended with them. Does not belong here: the
environment that they get (`quant_resources/launch.py`).

1. What an earlier `quant dev` of this data root left behind, because it was killed, is ended.
2. The databases are made sure of and the ledger is migrated; the local exchange is started.
3. `dagster dev` runs in a process session of its own, which every process it starts inherits.
4. While it runs, a server that was killed is started again.
5. However it ends, what is left of its session is ended, and then the servers that were started.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Final

import psutil
import typer
from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape

from quant_assets.cli.data_root import make_data_root
from quant_resources.errors import ConfigurationError, QuantError
from quant_resources.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

_HOST: Final = "127.0.0.1"
#: The advice to use another tool, which would look for another layout of the project.
_NOT_OUR_CHOICE: Final = "ignore:Function `dev_command` is superseded"
_WATCH_SECONDS: Final = 5.0
_END_SECONDS: Final = 15.0
_KILL_SECONDS: Final = 5.0


class DagsterEndedError(QuantError):
    """Dagster's processes ended without having been asked to."""


def dev(
    port: Annotated[int, typer.Option(help="Port of the UI on this machine.")] = 3000,
) -> None:
    """Open the graph in Dagster's UI, with its daemon for schedules and sensors."""
    from quant_resources.databases import used_databases
    from quant_resources.launch import dagster_home, launch_environment
    from quant_resources.ledger.migrate import migrate

    settings, console = load_settings(), Console(stderr=True)
    with _alone(settings.data_root), _hang_up_is_interrupt(), ExitStack() as stack:
        _end_session(_remembered_session(settings.data_root))
        _assert_free(port)
        databases = stack.enter_context(used_databases(settings))
        migrate(databases.ledger_url)
        exchange_state = _start_exchange(settings, stack)
        environment = {**os.environ, **launch_environment(settings, databases)}
        console.print(f"The UI opens on http://{_HOST}:{port} (Ctrl-C ends it).", highlight=False)
        home = dagster_home()
        command = [sys.executable, "-W", _NOT_OUR_CHOICE, "-m", "dagster", "dev"]
        dagster = subprocess.Popen(  # noqa: S603 - our own interpreter
            [*command, "-w", str(home / "workspace.yaml"), "-h", _HOST, "-p", str(port)],
            cwd=home,
            env=environment,
            start_new_session=True,
        )
        try:
            _remember_session(settings.data_root, dagster.pid)
            _watch(dagster, lambda: _restart(settings, exchange_state), console)
        except KeyboardInterrupt:
            # Once: Dagster ends its own processes in order, and a second signal would stop that.
            with suppress(ProcessLookupError):
                dagster.send_signal(signal.SIGINT)
            _wait(dagster, _END_SECONDS)
            return
        finally:
            _end_session(dagster.pid)
            dagster.wait()
            _session_file(settings.data_root).unlink(missing_ok=True)
    raise DagsterEndedError(
        f"Dagster ended by itself with status {dagster.returncode}: the reason is in the lines "
        "above; everything that it had started was ended."
    )


def _start_exchange(settings: Settings, stack: ExitStack) -> Path | None:
    """Start the local exchange when it is the broker; return its state folder."""
    if settings.source != "exchange" or (settings.data_url and settings.trading_url):
        return None
    from quant_resources.exchange.process import EXCHANGE_FOLDER, ensure_exchange, stop_exchange
    from quant_resources.exchange.state import State

    state = settings.data_root / EXCHANGE_FOLDER
    market = None
    if State.peek(state) is None:
        from quant_assets.cli.platform import default_market
        from quant_assets.market_span import default_span, remembered_span

        market = default_market(remembered_span(settings.data_root) or default_span())
    if ensure_exchange(state, market).started:
        stack.callback(stop_exchange, state)
    return state


def _restart(settings: Settings, exchange_state: Path | None) -> None:
    """Start again what was killed; costs milliseconds when everything runs."""
    from quant_resources.exchange.process import ensure_exchange
    from quant_resources.postgres import ensure_postgres

    if settings.database_url is None:
        ensure_postgres(settings.data_root)
    if exchange_state is not None:
        ensure_exchange(exchange_state, None)


def _watch(dagster: subprocess.Popen[bytes], restart: Callable[[], None], console: Console) -> None:
    """Wait until Dagster ends, restarting killed servers meanwhile."""
    complaint = ""
    while not _wait(dagster, _WATCH_SECONDS):
        try:
            restart()
            complaint = ""
        except QuantError as error:
            if str(error) != complaint:
                complaint = str(error)
                console.print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for a process; say whether it has ended."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _assert_free(port: int) -> None:
    with socket.socket() as probe:
        # As the web server does it, so that connections that are closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except (OSError, OverflowError) as error:
            raise ConfigurationError(
                f"Port {port} on {_HOST} cannot be used ({getattr(error, 'strerror', error)}): end "
                "what listens there, or choose another one with `quant dev --port`."
            ) from error


@contextmanager
def _alone(data_root: Path) -> Iterator[None]:
    """Let one `quant dev` at a time work on a data root: two daemons would run schedules twice."""
    make_data_root(data_root)
    lock = FileLock(data_root / "dev.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigurationError(
            f"Another `quant dev` works on {data_root}: use it, end it, or choose another data "
            "root with QUANT_DATA_ROOT."
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _hang_up_is_interrupt() -> Iterator[None]:
    """End in order when the terminal is closed or the process is asked to end."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _session_file(data_root: Path) -> Path:
    return data_root / "dev.json"


def _remember_session(data_root: Path, leader: int) -> None:
    """Write down which processes are ours, for a start after this process was killed."""
    started = psutil.Process(leader).create_time()
    _session_file(data_root).write_text(json.dumps({"session": leader, "started": started}))


def _remembered_session(data_root: Path) -> int | None:
    """Return the session that an earlier `quant dev` left behind, or None."""
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        remembered = json.loads(_session_file(data_root).read_text())
        session, started = int(remembered["session"]), float(remembered["started"])
        # After a restart of the machine the number may be anybody's; nothing of ours can be older
        # than its leader, and every process of ours carries the data root in its environment.
        ours = [process for process in _members(session) if process.create_time() >= started - 1]
        if ours and all(_works_on(process, data_root) for process in ours):
            return session
    return None


def _works_on(process: psutil.Process, data_root: Path) -> bool:
    try:
        return process.environ().get("QUANT_DATA_ROOT") == str(data_root.expanduser().absolute())
    except psutil.Error:
        return False


def _members(session: int) -> list[psutil.Process]:
    """Return the living processes of a session, also those whose parents were killed."""
    members: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


def _end_session(session: int | None) -> None:
    """End every process of a session: politely first, then surely."""
    if session is None:
        return
    for end, seconds in ((psutil.Process.terminate, _KILL_SECONDS), (psutil.Process.kill, 1.0)):
        deadline = time.monotonic() + seconds
        while members := _members(session):
            for process in members:
                with suppress(psutil.NoSuchProcess):
                    end(process)
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
