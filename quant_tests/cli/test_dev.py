"""`quant dev` and `quant db` start what the UI needs and leave nothing behind, however they end.

They run in a small repository: its own workspace, with this one's packages and `dagster.yaml`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from quant_resources.postgres import ensure_postgres, is_running, stop_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]
COMMANDS = """
import sys, typer
from quant_assets.cli import db, dev
from quant_resources.errors import QuantError

app = typer.Typer(pretty_exceptions_enable=False)
app.command("dev")(dev.dev)
app.add_typer(db.app, name="db")
try:
    app()
except QuantError as error:
    sys.exit(f"Error: {error}")
"""
WORKSPACE = """
load_from:
  - python_module: {module_name: small_definitions, attribute: defs, location_name: small}
"""
DEFINITIONS = """
import dagster as dg

@dg.asset
def answer() -> int:
    return 42

defs = dg.Definitions([answer])
"""


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "repository"
    folder.mkdir()
    for package in ("quant_assets", "quant_resources"):
        (folder / package).symlink_to(REPOSITORY / package)
    shutil.copy(REPOSITORY / "dagster.yaml", folder)
    (folder / "workspace.yaml").write_text(WORKSPACE)
    (folder / "small_definitions.py").write_text(DEFINITIONS)
    (folder / "commands.py").write_text(COMMANDS)
    yield folder
    for process in _processes_in(folder):
        process.kill()
    stop_postgres(folder / "root")


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUANT_")}
    # No exchange is started for an address that is given; nothing asks it here.
    address = {"QUANT_DATA_URL": "http://127.0.0.1:1", "QUANT_TRADING_URL": "http://127.0.0.1:1"}
    return {**kept, **address, "QUANT_DATA_ROOT": str(folder / "root")}


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "commands.py", *arguments],
        cwd=folder,
        env=_environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _run(folder: Path, *arguments: str) -> tuple[int, str]:
    process = _start(folder, *arguments)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _ask(port: int, query: str) -> dict[str, Any]:
    answer = httpx.post(f"http://127.0.0.1:{port}/graphql", json={"query": query}, timeout=10)
    return answer.raise_for_status().json()["data"]


def _until_it_serves(port: int, process: subprocess.Popen[str], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        try:
            if [node["id"] for node in _ask(port, "{assetNodes{id}}")["assetNodes"]]:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError("The UI did not open in time.")


def _processes_in(folder: Path) -> list[psutil.Process]:
    """Return the living Python processes that work on the repository's data root."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                root = process.environ().get("QUANT_DATA_ROOT")
                if root == str(folder / "root") and "postgres" not in process.name():
                    found.append(process)
        except psutil.Error:
            continue
    return found


def _leader(folder: Path) -> psutil.Process:
    return psutil.Process(json.loads((folder / "root/dev.json").read_text())["session"])


def test_the_ui_opens_survives_a_killed_server_and_ends_with_everything_it_started(
    repository: Path,
) -> None:
    port = _free_port()
    process = _start(repository, "dev", "--port", str(port))
    _until_it_serves(port, process)
    storage = _ask(port, "{instance{info}}")["instance"]["info"]
    assert "BatchedEventLogStorage" in storage

    status, output = _run(repository, "dev", "--port", str(_free_port()))
    assert (status, "Another `quant dev` works on" in output) == (1, True), output

    pid = int((repository / "root/postgres/postmaster.pid").read_text().splitlines()[0])
    psutil.Process(pid).kill()
    deadline = time.monotonic() + 30
    while not is_running(repository / "root") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert _ask(port, "{runsOrError{... on Runs{results{id}}}}")["runsOrError"] == {"results": []}

    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "superseded" not in output
    assert _processes_in(repository) == []
    assert not is_running(repository / "root")


@pytest.mark.long
def test_what_a_kill_leaves_behind_is_ended_by_the_next_start_or_at_once(
    repository: Path,
) -> None:
    """`dagster dev` killed with -9 leaves web server, daemon and code server alive."""
    ensure_postgres(repository / "root")
    port = _free_port()
    killed = _start(repository, "dev", "--port", str(port))
    _until_it_serves(port, killed)
    killed.kill()
    # Its output stays open in the processes that it leaves behind, so there is no end to read to.
    killed.wait(10)
    assert killed.stdout is not None
    killed.stdout.close()
    left = _processes_in(repository)
    assert len(left) >= 3

    process = _start(repository, "dev", "--port", str(port))
    # Until then it would be the old one that answers.
    deadline = time.monotonic() + 60
    while set(left) & set(_processes_in(repository)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    _until_it_serves(port, process)
    _leader(repository).kill()
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "Error: Dagster ended by itself" in output
    assert _processes_in(repository) == []
    # It ran before, so it is not theirs to stop.
    assert is_running(repository / "root")


def test_a_taken_port_is_one_sentence_and_starts_nothing(repository: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, output = _run(repository, "dev", "--port", str(port))

    assert status == 1
    assert output.startswith(f"Error: Port {port} on 127.0.0.1 cannot be used")
    assert "--port" in output
    assert not (repository / "root/postgres").exists()


def test_the_printed_variables_are_all_that_plain_dagster_needs(repository: Path) -> None:
    """The README's `eval "$(uv run quant db url)"`, with a real shell and dagster's own command."""
    script = (
        f'eval "$({sys.executable} commands.py db url)" && '
        f"{sys.executable} -W ignore -m dagster asset materialize --select answer "
        "-m small_definitions && "
        f"{sys.executable} -c 'import dagster as dg; "
        'print("runs", dg.DagsterInstance.get().get_runs_count())\''
    )
    outcome = subprocess.run(
        ["bash", "-euc", script],
        cwd=repository,
        env=_environment(repository),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )

    assert outcome.returncode == 0, outcome.stderr
    assert "runs 1" in outcome.stdout
    assert is_running(repository / "root")


def test_databases_are_migrated_shown_and_stopped(repository: Path) -> None:
    assert _run(repository, "db", "migrate") == (0, "The ledger was migrated.\n")
    assert not is_running(repository / "root")
    assert _run(repository, "db", "migrate") == (0, "The ledger is up to date.\n")

    status, output = _run(repository, "db", "url", "--ledger")
    assert (status, output.startswith("postgresql://postgres@/quant?host=")) == (0, True)
    assert _run(repository, "db", "stop") == (0, "PostgreSQL was stopped.\n")
    assert _run(repository, "db", "stop") == (0, "PostgreSQL was not running.\n")
