"""The embedded PostgreSQL ends up working whatever was killed, copied or named before."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg2
import pytest

from quant_resources.errors import StorageError
from quant_resources.postgres import PostgresError, ensure_postgres, is_running, stop_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]
START = (
    "import sys, pathlib; from quant_resources.postgres import ensure_postgres; "
    "print(ensure_postgres(pathlib.Path(sys.argv[1])).ledger_url)"
)


def _query(url: str, statement: str) -> list[tuple]:
    connection = psycopg2.connect(url.replace("+psycopg2", ""))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def _postmaster(data_root: Path) -> psutil.Process:
    return psutil.Process(int((data_root / "postgres/postmaster.pid").read_text().splitlines()[0]))


def _has_ended(process: psutil.Process) -> bool:
    # In a container whose first process reaps nobody, an orphan stays as a zombie.
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def _start_in_subprocess(data_root: Path, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", START, str(data_root)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # pyright: ignore[reportArgumentType, reportCallIssue]
    )


@pytest.fixture(scope="module")
def cluster_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped data root with one row in it, to be copied by each test."""
    data_root = tmp_path_factory.mktemp("template") / "root"
    url = ensure_postgres(data_root).ledger_url
    _query(url, "CREATE TABLE kept AS SELECT 42 AS value")
    stop_postgres(data_root)
    return data_root


@pytest.fixture
def data_root(cluster_template: Path, tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "root"
    _copy(cluster_template, root)
    yield root
    stop_postgres(root)


def _copy(source: Path, target: Path) -> None:
    # `cp -a` keeps the owner, which for root is the server's system user.
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def _assert_working(data_root: Path) -> None:
    urls = ensure_postgres(data_root)
    assert _query(urls.ledger_url, "SELECT value FROM kept") == [(42,)]
    assert _query(urls.dagster_url, "SELECT current_database()") == [("dagster",)]


def test_commits_of_the_ledger_wait_for_the_disk_and_those_of_dagster_do_not(
    data_root: Path,
) -> None:
    urls = ensure_postgres(data_root)

    assert _query(urls.ledger_url, "SHOW fsync") == [("on",)]
    assert _query(urls.ledger_url, "SHOW synchronous_commit") == [("on",)]
    assert _query(urls.dagster_url, "SHOW synchronous_commit") == [("off",)]


def test_only_the_servers_account_may_open_the_socket(data_root: Path) -> None:
    """Logins are trusted, so on a shared machine the socket must not be open to others."""
    ensure_postgres(data_root)

    assert (data_root / "postgres/.s.PGSQL.5432").stat().st_mode & 0o777 == 0o700


def test_the_server_outlives_the_process_that_started_it_and_is_found_by_the_next(
    data_root: Path,
) -> None:
    starter = _start_in_subprocess(data_root)
    url, errors = starter.communicate(timeout=60)
    assert starter.returncode == 0, errors
    first = _postmaster(data_root).pid

    assert ensure_postgres(data_root).ledger_url == url.strip()
    assert _postmaster(data_root).pid == first


def test_processes_that_start_a_new_root_at_once_share_one_server(tmp_path: Path) -> None:
    root = tmp_path / "new root"
    starters = [_start_in_subprocess(root) for _ in range(4)]
    outcomes = [(starter.communicate(timeout=60), starter.returncode) for starter in starters]
    try:
        assert [code for _, code in outcomes] == [0] * 4, outcomes
        assert len({output for (output, _), _ in outcomes}) == 1
    finally:
        assert stop_postgres(root)


def test_a_killed_server_is_started_again_with_its_data(data_root: Path) -> None:
    ensure_postgres(data_root)
    _postmaster(data_root).kill()

    _assert_working(data_root)


def test_a_server_killed_under_a_running_statement_is_started_again(data_root: Path) -> None:
    """The orphaned backend still writes; a second server beside it would destroy the data."""
    url = ensure_postgres(data_root).ledger_url
    client = psycopg2.connect(url.replace("+psycopg2", ""))
    backend = psutil.Process(client.info.backend_pid)
    busy = ThreadPoolExecutor(1).submit(client.cursor().execute, "SELECT pg_sleep(1.5)")
    time.sleep(0.2)
    postmaster = _postmaster(data_root)
    # Stopped, the backend cannot notice that its server is gone.
    backend.suspend()
    postmaster.kill()
    resumed = ThreadPoolExecutor(1).submit(lambda: (time.sleep(1.0), backend.resume()))

    _assert_working(data_root)

    resumed.result()
    assert _has_ended(backend)
    with pytest.raises(psycopg2.OperationalError):
        busy.result()
    client.close()


def test_a_pid_that_now_belongs_to_another_process_is_not_taken_for_the_server(
    data_root: Path,
) -> None:
    ensure_postgres(data_root)
    postmaster = _postmaster(data_root)
    pid_file = data_root / "postgres/postmaster.pid"
    text = pid_file.read_text()
    postmaster.kill()
    postmaster.wait(10)
    bystander = subprocess.Popen(["sleep", "60"])
    pid_file.write_text(text.replace(text.splitlines()[0], str(bystander.pid), 1))
    try:
        assert not is_running(data_root)
        assert not stop_postgres(data_root)
        assert bystander.poll() is None
        _assert_working(data_root)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_start_killed_while_initialising_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for delay in (0.45, 0.6, 0.8):
        starter = _start_in_subprocess(root, start_new_session=True)
        time.sleep(delay)
        starter.kill()
        starter.communicate()
    try:
        assert _query(ensure_postgres(root).ledger_url, "SELECT 1") == [(1,)]
    finally:
        stop_postgres(root)


def test_a_copy_of_a_running_root_gets_its_own_server(data_root: Path, tmp_path: Path) -> None:
    """The copied pid file names the original's socket: writing there would mix two ledgers."""
    original = ensure_postgres(data_root).ledger_url
    _query(original, "CHECKPOINT")
    copy = tmp_path / "copy"
    _copy(data_root, copy)
    try:
        url = ensure_postgres(copy).ledger_url
        assert _query(url, "SHOW data_directory") == [(str(copy / "postgres"),)]
    finally:
        assert stop_postgres(copy)
    assert _query(original, "SELECT value FROM kept") == [(42,)]


@pytest.mark.parametrize(
    "name",
    [
        "with spaces, a comma and an 'apostrophe'",
        'quo"te $HOME `id` \\ back',
        "ünïcode",
        "/".join(["a-deep-folder-of-clones"] * 6),
    ],
)
def test_any_folder_name_and_depth_works_and_keeps_its_url(
    cluster_template: Path, tmp_path: Path, name: str
) -> None:
    """A Unix socket's path holds some 100 bytes; the rest is quoting."""
    root = tmp_path / name
    root.parent.mkdir(parents=True, exist_ok=True)
    _copy(cluster_template, root)
    try:
        first = ensure_postgres(root)
        _assert_working(root)
        stop_postgres(root)
        assert ensure_postgres(root) == first
        _assert_working(root)
    finally:
        stop_postgres(root)


def test_variables_meant_for_other_servers_change_nothing(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGPORT": "6543",
        "PGHOST": "db.invalid",
        "PGDATABASE": "elsewhere",
        "PGUSER": "nobody",
        "LC_ALL": "xx_XX.UTF-8",
    }.items():
        monkeypatch.setenv(name, value)

    _assert_working(data_root)


def _start_as_nobody(data_root: Path) -> None:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    ensure_postgres(data_root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_runs_the_server_as_himself(tmp_path: Path) -> None:
    """The other tests run as whoever runs pytest; in CI that is root."""
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(folder.stat().st_mode | 0o011)
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    root = home / "root"
    # Forked, because root's Python may lie where others cannot execute it.
    starter = multiprocessing.get_context("fork").Process(target=_start_as_nobody, args=(root,))
    starter.start()
    starter.join(60)
    try:
        assert starter.exitcode == 0
        assert _postmaster(root).uids().effective == 65534
        assert _query(ensure_postgres(root).ledger_url, "SELECT 1") == [(1,)]
        # A restart by root keeps the owner, who could not open the files of another account.
        stop_postgres(root)
        ensure_postgres(root)
        assert _postmaster(root).uids().effective == 65534
    finally:
        stop_postgres(root)


def test_stopping_twice_says_so_and_starting_again_works(data_root: Path) -> None:
    ensure_postgres(data_root)

    assert stop_postgres(data_root)
    assert not stop_postgres(data_root)
    assert not is_running(data_root)
    _assert_working(data_root)


def test_a_file_in_place_of_the_root_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StorageError, match="QUANT_DATA_ROOT"):
        ensure_postgres(tmp_path / "file")


def test_a_broken_configuration_is_reported_with_its_reason(data_root: Path) -> None:
    with (data_root / "postgres/postgresql.conf").open("a") as file:
        file.write("\nno_such_setting = 1\n")

    with pytest.raises(PostgresError, match=r"does not start.*server\.log"):
        ensure_postgres(data_root)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=80m,mode=755", "tmpfs", str(disk)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk is not permitted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_made(
    cluster_template: Path, small_disk: Path
) -> None:
    with pytest.raises(StorageError, match="full"):
        ensure_postgres(small_disk / "new")
    assert not (small_disk / "new/postgres").exists()

    _copy(cluster_template, small_disk / "old")
    (small_disk / "ballast").write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 2**20))
    with pytest.raises(StorageError, match="full"):
        ensure_postgres(small_disk / "old")
    assert not is_running(small_disk / "old")


def test_an_interrupted_starter_does_not_take_the_server_with_it(data_root: Path) -> None:
    """Ctrl-C reaches the whole foreground group; the server must not be in it."""
    starter = subprocess.Popen(
        [sys.executable, "-c", START + "; import time; time.sleep(60)", str(data_root)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert starter.stdout is not None
    starter.stdout.readline()
    os.killpg(starter.pid, signal.SIGINT)
    starter.communicate(timeout=10)

    assert is_running(data_root)
