"""The environment in which Dagster's processes run.

Belongs here: the variables that `dagster.yaml`, the definitions and Dagster itself read, made from
the settings. Does not belong here: starting processes (`quant_assets/cli/dev.py`) and the settings
themselves (`settings.py`).

`dagster.yaml` can read variables but gives them no defaults, and its paths would be relative to
whatever folder a process has; so every variable is set, and every path is absolute.
"""

from __future__ import annotations

import ipaddress
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from quant_resources.databases import ensure_databases
from quant_resources.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from quant_resources.postgres import ServerUrls
    from quant_resources.settings import Settings

#: Materializations of a range that Dagster writes in one statement (it writes singly by default).
EVENT_BATCH_SIZE: Final = 256
#: What the local exchange is shown for a key; it trades no money and asks for no secret.
LOCAL_KEY: Final = "local-exchange"


def launch_environment(settings: Settings, databases: ServerUrls | None = None) -> dict[str, str]:
    """Return every variable that a Dagster process of this installation needs.

    The embedded server's ledger URL is not among them: whoever needs the ledger asks for it by the
    data root, and so starts the server again when it was stopped.

    Args:
        settings: The settings in force, whether they came from the environment, from `.env` or
            from the command line.
        databases: Both databases when they are known; they are made sure of otherwise.

    Returns:
        Variables and their values. Among them are secrets that the settings hold.

    Raises:
        ConfigurationError: `dagster.yaml` is not found.
        QuantError: A database does not answer or cannot be started.
    """
    urls = databases or ensure_databases(settings)
    # Absolute but not resolved, so that a data root behind a link keeps the name it was given.
    data_root = settings.data_root.expanduser().absolute()
    artifacts = data_root / "dagster"
    logs = artifacts / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    return {
        **_chosen(settings),
        **_local_keys(settings),
        "DAGSTER_HOME": str(dagster_home()),
        "DAGSTER_EVENT_BATCH_SIZE": os.environ.get(
            "DAGSTER_EVENT_BATCH_SIZE", str(EVENT_BATCH_SIZE)
        ),
        "QUANT_DATA_ROOT": str(data_root),
        "QUANT_DAGSTER_DATABASE_URL": urls.dagster_url,
        "QUANT_DAGSTER_ARTIFACTS": str(artifacts),
        "QUANT_DAGSTER_LOGS": str(logs),
    }


def dagster_home() -> Path:
    """Find the folder with `dagster.yaml` and `workspace.yaml`: the repository, or where we are.

    Raises:
        ConfigurationError: Neither holds one.
    """
    for folder in (Path(__file__).absolute().parents[1], Path.cwd()):
        if (folder / "dagster.yaml").is_file() and (folder / "workspace.yaml").is_file():
            return folder
    raise ConfigurationError(
        f"There is no dagster.yaml with a workspace.yaml in {Path.cwd()}: start the command in the "
        "folder of the repository."
    )


@contextmanager
def applied(environment: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Give this process the variables while the block runs, and its own ones back afterwards."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield environment
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def is_local(url: str) -> bool:
    """Say whether an address is on this machine, as the local exchange's always is."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _chosen(settings: Settings) -> dict[str, str]:
    """Return the settings that somebody has chosen, under the names that settings are read from."""
    variables: dict[str, str] = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if value is None:
            continue
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        elif isinstance(value, tuple | list | dict):
            value = json.dumps(value)
        alias = type(settings).model_fields[name].alias
        variables[alias or f"QUANT_{name.upper()}"] = str(value)
    return variables


def _local_keys(settings: Settings) -> dict[str, str]:
    """Return keys for the local exchange; none when anything could reach a real broker."""
    if settings.needs_alpaca:
        return {}
    if not all(is_local(url) for url in (settings.data_url, settings.trading_url) if url):
        return {}
    return {
        name: LOCAL_KEY
        for name, given in (
            ("ALPACA_API_KEY", settings.alpaca_api_key),
            ("ALPACA_SECRET_KEY", settings.alpaca_secret_key),
        )
        if given is None
    }
