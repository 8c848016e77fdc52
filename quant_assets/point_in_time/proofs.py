"""From planned tables to what was proved of them, and of several parts one whole.

Belongs here: which detectors and rules a planned table is put through. Does not belong here: the
detectors and rules themselves, choosing tables and sessions (`plan.py`), and showing the result.

A table is proved in up to three ways, each with a finding of its own:

1. *Look-ahead*: its rows are the same whatever comes later. Trading evidence, which is never computed again,
   names nothing later. Rows that a model predicted name the version that was in force.
2. *Parity*: what is stored is what the session gives when it is computed alone. Evidence that is a copy of the
   ledger is what the ledger says.
3. *Start-up*: more history moves nothing. A model is trained on a window of its own choice and has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from time import process_time
from typing import Any, TypeAlias

import polars as pl

from quant_assets.findings import Finding
from quant_assets.point_in_time import detectors, evidence, models
from quant_assets.point_in_time.plan import PlannedTable
from quant_assets.point_in_time.session_recomputations import Recomputations
from quant_resources.errors import QuantError
from quant_resources.ledger import Ledger
from quant_resources.store import Store
from quant_resources.tables import Table

#: Rows of a session by the ledger, beside the store's other evidence of it.
Copy: TypeAlias = Callable[[Ledger, Store, str], pl.DataFrame | None]


@dataclass(frozen=True)
class Proof:
    """What was proved of a table.

    Attributes:
        path: The table.
        sessions: Partitions that were looked at.
        rows: Rows that were compared.
        look_ahead: See the module; None where it cannot be asked.
        parity: See the module.
        start_up: See the module.
        problem: Why it could not be proved, if it could not: an input is not stored, for example.
        seconds: Processor time that it took; of tables that are computed together, the first bears it all.
    """

    path: str
    sessions: int
    rows: int
    look_ahead: Finding | None = None
    parity: Finding | None = None
    start_up: Finding | None = None
    problem: str = ""
    seconds: float = 0.0

    @property
    def findings(self) -> Mapping[str, Finding]:
        """The findings there are, by what they are about."""
        named = {"look-ahead": self.look_ahead, "parity": self.parity, "start-up": self.start_up}
        return {name: finding for name, finding in named.items() if finding is not None}

    @property
    def passed(self) -> bool:
        """Whether everything could be looked at, and nothing was found."""
        return not self.problem and all(finding.passed for finding in self.findings.values())


class Prover:
    """Proves planned tables on one data root.

    Args:
        store: The data root.
        ledger: A ledger that records nothing of what is computed with it (`UnrecordedLedger`).
        tables: Every table of the graph by path: what evidence names is looked up there.
        copies: Path of a table that is a copy of the ledger to what makes its rows of a session anew; None for
            a session that is not frozen yet.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        tables: Mapping[str, Table],
        copies: Mapping[str, Copy] | None = None,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._tables = tables
        self._copies = copies or {}

    def prove(self, planned: Sequence[PlannedTable], keys: Sequence[str]) -> list[Proof]:
        """Prove some tables of one step.

        Args:
            planned: Tables of the same step: what is computed for one is used for the others.
            keys: Partitions to look at, ascending.

        Returns:
            One proof per table; what keeps a table from being computed again is its problem, and the
            others are proved all the same.
        """
        resources = {"ledger": self._ledger}
        started = process_time()
        again = Recomputations(planned[0].step, self._store, resources)
        proofs = []
        for one in planned:
            try:
                proof = self._proved(one, again, resources, keys)
            except QuantError as error:
                proof = Proof(one.table.path, len(keys), 0, problem=str(error))
            proofs.append(replace(proof, seconds=process_time() - started))
            started = process_time()
        return proofs

    def _proved(
        self,
        planned: PlannedTable,
        again: Recomputations,
        resources: Mapping[str, Any],
        keys: Sequence[str],
    ) -> Proof:
        if planned.way == "recomputed":
            return self._recomputed(planned, again, keys)
        if planned.way == "retrained":
            return self._retrained(planned, resources, keys)
        return self._evidence(planned.table, keys)

    def _recomputed(
        self, planned: PlannedTable, again: Recomputations, keys: Sequence[str]
    ) -> Proof:
        table = planned.table
        ahead = [
            detectors.look_ahead(again, table, keys),
            *models.known_models(planned.step, table, self._store, self._ledger, keys),
        ]
        return Proof(
            table.path,
            len(keys),
            # A session that cannot be computed alone has no rows, and a finding that says so.
            sum(again.alone(key).frames.get(table.path, table.empty()).height for key in keys),
            merged(ahead),
            detectors.day_equals_range(again, table, keys),
            None if again.is_whole else detectors.start_up(again, table, keys),
        )

    def _retrained(
        self, planned: PlannedTable, resources: Mapping[str, Any], keys: Sequence[str]
    ) -> Proof:
        trained = [
            models.retrained(planned.step, planned.table, key, self._store, resources)
            for key in keys
        ]
        return Proof(
            planned.table.path,
            len(keys),
            sum(found.rows for found in trained),
            merged([found.look_ahead for found in trained]),
            merged([found.parity for found in trained]),
        )

    def _evidence(self, table: Table, keys: Sequence[str]) -> Proof:
        rows = self._store.read(table, keys).collect()
        ahead = [evidence.nothing_lies_later(table, rows)]
        parity = None
        if evidence.comes_from_signals(table):
            ahead.append(evidence.signals_are_of_the_session_before(rows))
            parity = evidence.targets_follow_their_signals(rows, self._signals_of(rows))
        copy = self._copies.get(table.path)
        if copy is not None:
            parity = self._copied(table, copy, keys)
        return Proof(table.path, len(keys), rows.height, merged(ahead), parity)

    def _copied(self, table: Table, copy: Copy, keys: Sequence[str]) -> Finding:
        """Whether the frozen sessions among some are stored as the ledger has them."""
        frozen = {
            key: rows for key in keys if (rows := copy(self._ledger, self._store, key)) is not None
        }
        if not frozen:
            return Finding(True, f"{table.path}: none of these sessions is frozen yet.")
        stored = self._store.read(table, list(frozen)).collect()
        return evidence.rows_are_the_ledgers(table, stored, pl.concat(frozen.values()))

    def _signals_of(self, targets: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """The stored signals of the strategies and sessions that changed targets name."""
        named = targets.filter("changed").select("strategy", "signal_session").unique()
        found: dict[str, pl.DataFrame] = {}
        for (strategy,), sessions in named.partition_by("strategy", as_dict=True).items():
            table = self._tables.get(f"signals/{strategy}")
            if table is None:
                continue
            days: list[date] = sessions.get_column("signal_session").to_list()
            keys = sorted(day.isoformat() for day in days)
            stored = [key for key in keys if self._store.exists(table, key)]
            found[str(strategy)] = self._store.read(table, stored).collect()
        return found


def merged(findings: Iterable[Finding]) -> Finding | None:
    """Several findings of one kind as one: the first that did not pass speaks for those like it."""
    found = list(findings)
    failed = [finding for finding in found if not finding.passed]
    if not failed:
        return found[0] if found else None
    first = failed[0]
    more = len(failed) - 1
    return replace(
        first,
        message=first.message + (f" {more} more part(s) failed as well." if more else ""),
        count=sum(finding.count for finding in failed),
    )


def whole(parts: Sequence[Proof]) -> Proof:
    """The proofs of parts of a table's sessions as one."""
    return Proof(
        parts[0].path,
        sum(part.sessions for part in parts),
        sum(part.rows for part in parts),
        *(
            merged([finding for part in parts if (finding := getattr(part, name)) is not None])
            for name in ("look_ahead", "parity", "start_up")
        ),
        problem=next((part.problem for part in parts if part.problem), ""),
        seconds=sum(part.seconds for part in parts),
    )
