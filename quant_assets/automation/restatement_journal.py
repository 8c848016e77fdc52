"""What has been made of restatements so far: `<data root>/restatement.json`, written before anything runs.

Belongs here: the file and its shape. Does not belong here: how a plan is made (restatements.py) and who runs
it (restatement_runs.py, cli/refetch.py).

The journal is all that the sensor and the command line know of each other, so that either goes on where the
other was killed. Losing it loses nothing: without one, every session that has more than one vintage is
compared with what is stored again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from pydantic import BaseModel, Field, ValidationError

from quant_resources.errors import ConfigurationError
from quant_resources.store import Store, write_text_atomically

_FILE: Final = "restatement.json"
_LOCK: Final = "restatement.lock"


class PlannedRun(BaseModel):
    """One Dagster run of a step.

    Attributes:
        keys: Neighbouring partitions, ascending; empty for unpartitioned tables.
        attempts: How often the sensor has asked for it.
        done: Whether it has been made.
    """

    keys: list[str]
    attempts: int = 0
    done: bool = False


class Step(BaseModel):
    """Tables that are materialized together, after everything that they read.

    Attributes:
        tables: Asset paths, such as "market_data/bars".
        job: Job that materializes them.
        runs: Their partitions, cut into runs.
    """

    tables: list[str]
    job: str
    runs: list[PlannedRun]

    @property
    def done(self) -> bool:
        """Whether all of its runs have been made."""
        return all(run.done for run in self.runs)


class Restatement(BaseModel):
    """What is made again because deliveries or releases changed.

    Attributes:
        name: Names the plan in the tags of its runs.
        reason: What changed, for people.
        steps: In the order in which they are made.
        kept: Tables that read what changed and stay as they were (models) to their partitions.
    """

    name: str
    reason: str
    steps: list[Step]
    kept: dict[str, list[str]] = Field(default_factory=dict)


class Seen(BaseModel):
    """What the plans so far have taken into account.

    Attributes:
        vintages: Table to partition to its newest vintage, of partitions with more than one.
        releases: How many rows of the releases.
    """

    vintages: dict[str, dict[str, str]] = Field(default_factory=dict)
    releases: int = 0


class Journal(BaseModel):
    """The whole file.

    Attributes:
        seen: What has been taken into account.
        current: The plan that is not finished yet, if any.
    """

    seen: Seen = Field(default_factory=Seen)
    current: Restatement | None = None


def read_journal(store: Store) -> Journal:
    """The journal of a data root; a fresh one where there is none.

    Raises:
        ConfigurationError: The file is damaged.
    """
    file = store.root / _FILE
    if not file.exists():
        return Journal()
    try:
        return Journal.model_validate(json.loads(file.read_text()))
    except (ValidationError, ValueError) as error:
        raise ConfigurationError(
            f"{file} is damaged ({error}); delete it: everything that was ever restated is then compared with "
            "what is stored again."
        ) from error


def write_journal(store: Store, journal: Journal) -> None:
    """Write the journal, atomically."""
    write_text_atomically(store.root / _FILE, journal.model_dump_json(indent=1) + "\n")


@contextmanager
def held_journal(store: Store, seconds: float) -> Iterator[bool]:
    """Hold the journal for one process; False where another one holds it for longer than some seconds.

    A data root in an object store has no locks; there, run one scheduler.
    """
    with ExitStack() as stack:
        if store.root.protocol in ("", "file", "local"):
            root = Path(store.root.path)
            root.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(FileLock(root / _LOCK, timeout=seconds))
            except Timeout:
                yield False
                return
        yield True
