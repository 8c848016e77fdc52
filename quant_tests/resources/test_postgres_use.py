"""The last one to use an embedded server stops it, and nobody stops it under another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from quant_resources.errors import StorageError
from quant_resources.postgres import ensure_postgres, is_running, stop_postgres
from quant_resources.postgres_use import keep_postgres, used_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

USE = """
import pathlib, sys
from quant_resources.postgres_use import used_postgres
with used_postgres(pathlib.Path(sys.argv[1])):
    print("using", flush=True)
    sys.stdin.readline()
"""


class _User:
    """Another process that uses the server until it is told, or killed."""

    def __init__(self, data_root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USE, str(data_root)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "using\n"

    def leave(self) -> None:
        self.process.communicate("\n", timeout=60)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def data_root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "root"
    yield root
    stop_postgres(root)


def test_who_started_first_and_leaves_first_does_not_stop_it_for_the_second(
    data_root: Path,
) -> None:
    first = _User(data_root)
    second = _User(data_root)

    first.leave()
    assert is_running(data_root)

    second.leave()
    assert not is_running(data_root)


def test_a_killed_user_counts_no_longer(data_root: Path) -> None:
    killed = _User(data_root)
    killed.kill()
    assert is_running(data_root)

    with used_postgres(data_root):
        pass
    assert not is_running(data_root)


def test_a_server_that_ran_before_stays(data_root: Path) -> None:
    urls = ensure_postgres(data_root)

    with used_postgres(data_root) as used:
        assert used == urls
    assert is_running(data_root)


def test_a_server_that_is_asked_to_stay_stays(data_root: Path) -> None:
    with used_postgres(data_root):
        keep_postgres(data_root)
    assert is_running(data_root)


def test_it_is_stopped_after_an_error_too(data_root: Path) -> None:
    with pytest.raises(ZeroDivisionError), used_postgres(data_root):
        raise ZeroDivisionError
    assert not is_running(data_root)


def test_a_file_in_place_of_the_root_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StorageError, match="QUANT_DATA_ROOT"), used_postgres(tmp_path / "file"):
        pass
