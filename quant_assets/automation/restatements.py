"""The plan after a restatement: exactly the stored sessions and tables that no longer follow, in their order.

Belongs here: from changed deliveries to a plan. Does not belong here: how frames are compared
(market_data/restatements.py), the file (restatement_journal.py), running (restatement_runs.py for the sensor,
cli/refetch.py for the command line).

1. A session has changed when its newest vintage of raw bars or corporate actions is another one than the last
   plan saw, or when a row of it has been released since.
2. Of the changed sessions, and of those after them that can depend on them, the gate judges the newest
   deliveries again. Where its answer differs in content from the stored bars or quarantined rows, the session
   is stale. A change that the gate does not care about stops here.
3. What reads a stale partition is stale, through the partition mappings of the graph itself, as far as it has
   been materialized: tables by session and whole backtests.
4. Models are not trained again, and order evidence is never rewritten: both are what was known at the time.
   The models that have read stale rows are named.
5. A plan that is not finished is part of the next one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import Final

import dagster as dg
import polars as pl
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from quant_assets.automation.jobs import REPEATED_GRAINS, job_of_asset
from quant_assets.automation.restatement_journal import (
    Journal,
    PlannedRun,
    Restatement,
    Seen,
    Step,
)
from quant_assets.market_data.schemas import (
    BARS,
    CORPORATE_ACTIONS,
    QUARANTINE,
    RAW_BARS,
    RELEASES,
)
from quant_assets.market_data.stored_gate import gate_stored
from quant_assets.market_data.stored_restatements import (
    newest_differences,
    restated_symbols,
    stale_in_store,
)
from quant_assets.partitions import GRAIN_METADATA, HORIZON_METADATA, stretches, years
from quant_resources.errors import ConfigurationError
from quant_resources.settings import load_settings
from quant_resources.store import Store

_DELIVERIES: Final = (RAW_BARS, CORPORATE_ACTIONS)
_JUDGED: Final = (BARS, QUARANTINE)
_KEPT_GRAINS: Final = ("month",)
_NAMED: Final = 3
#: Asset to its stale partitions, ascending; none for unpartitioned ones.
Stale = dict[dg.AssetKey, list[str]]


@dataclass(frozen=True)
class Changes:
    """What is new since the last plan.

    Attributes:
        seen: What a plan over these changes has taken into account.
        delivered: Table path to the sessions that have a vintage which no plan has seen.
        released: Sessions of which rows were released.
    """

    seen: Seen
    delivered: Mapping[str, list[str]] = field(default_factory=dict)
    released: tuple[date, ...] = ()

    @property
    def sessions(self) -> set[date]:
        """All changed sessions."""
        days = {date.fromisoformat(key) for keys in self.delivered.values() for key in keys}
        return days | set(self.released)


def changes(store: Store, seen: Seen) -> Changes:
    """What has been delivered again or released since a plan; nothing is compared yet."""
    newest = {
        table.path: {key: stems[-1] for key, stems in store.restated(table).items()}
        for table in _DELIVERIES
    }
    delivered = {
        path: [key for key, stem in stems.items() if seen.vintages.get(path, {}).get(key) != stem]
        for path, stems in newest.items()
    }
    released = (
        store.read(RELEASES, columns=["session"]).collect().get_column("session")
        if store.exists(RELEASES)
        else pl.Series([], dtype=pl.Date)
    )
    return Changes(
        Seen(vintages=newest, releases=released.len()),
        delivered,
        tuple(released.slice(seen.releases).unique().sort()),
    )


def renewed(
    journal: Journal, store: Store, graph: AssetGraph, instance: dg.DagsterInstance
) -> Journal:
    """The journal with a plan for everything that has changed; nothing is written or run.

    Args:
        journal: The journal so far; what it left undone is part of the new plan.
        store: The data root.
        graph: The asset graph of the data root's market.
        instance: Knows what has been materialized.

    Raises:
        DataError: Stored deliveries cannot be judged.
    """
    new = changes(store, journal.seen)
    if not new.sessions:
        return journal
    first = _first_session(graph)
    convention = load_settings().dividend_convention
    gate_of = partial(gate_stored, store, first, convention=convention)
    stale = stale_in_store(store, first, new.sessions, gate_of)
    keys = [day.isoformat() for day in stale]
    roots: dict[str, set[str]] = {
        **{path: set(delivered) for path, delivered in new.delivered.items()},
        **{table.path: set(keys) for table in _JUDGED},
    }
    for path, left in _left_over(journal.current).items():
        roots.setdefault(path, set()).update(left)
    affected = downstream(graph, instance, roots)
    steps = _steps(graph, affected)
    if not steps:
        return Journal(seen=new.seen, current=journal.current)
    earlier = [journal.current.reason] if journal.current is not None else []
    return Journal(
        seen=new.seen,
        current=Restatement(
            name=secrets.token_hex(4),
            reason=" ".join([*earlier, _reason(store, new)]),
            steps=steps,
            kept={
                key.to_user_string(): found
                for key, found in affected.items()
                if _grain(graph, key) in _KEPT_GRAINS
            },
        ),
    )


def downstream(
    graph: AssetGraph, instance: dg.DagsterInstance, roots: Mapping[str, Iterable[str]]
) -> Stale:
    """Every materialized partition that reads what is stale, by the graph's own partition mappings.

    Args:
        graph: The asset graph.
        instance: Knows what has been materialized.
        roots: Asset path to partitions known to be stale. For deliveries, bars and quarantined rows it
            is the whole truth, for other tables these are added to what reads the stale ones.

    Returns:
        In the order in which data flows; deliveries are left out, months are in it but reach nothing.
    """
    known = {dg.AssetKey(path.split("/")): set(keys) for path, keys in roots.items()}
    exact = {dg.AssetKey(table.path.split("/")) for table in (*_DELIVERIES, *_JUDGED)}
    found: Stale = {}
    for key in graph.toposorted_asset_keys:
        grain = _grain(graph, key)
        if grain not in (*REPEATED_GRAINS, *_KEPT_GRAINS):
            continue
        definition = graph.get(key).partitions_def
        wanted = set(known.get(key, ()))
        if definition is None:
            parents = graph.get(key).parent_keys & set(found)
            if (parents or key in known) and _made_once(instance, key):
                found[key] = []
            continue
        if key not in exact:
            for parent in sorted(graph.get(key).parent_keys & set(found)):
                if _grain(graph, parent) in REPEATED_GRAINS:
                    wanted |= _readers(graph, parent, found[parent], key)
        made = wanted & set(instance.get_materialized_partitions(key)) if wanted else set()
        if made:
            found[key] = [name for name in definition.get_partition_keys() if name in made]
    delivered = {dg.AssetKey(table.path.split("/")) for table in _DELIVERIES}
    return {key: keys for key, keys in found.items() if key not in delivered}


def _readers(
    graph: AssetGraph, parent: dg.AssetKey, keys: list[str], child: dg.AssetKey
) -> set[str]:
    above, below = graph.get(parent).partitions_def, graph.get(child).partitions_def
    if above is None or below is None:
        return set()
    mapping = graph.get_partition_mapping(child, parent)
    subset = above.empty_subset().with_partition_keys(keys)
    reached = mapping.get_downstream_partitions_for_partitions(subset, above, below)
    return set(reached.get_partition_keys())


def _made_once(instance: dg.DagsterInstance, key: dg.AssetKey) -> bool:
    return instance.get_latest_materialization_event(key) is not None


def _steps(graph: AssetGraph, affected: Stale) -> list[Step]:
    """One step per table (tables of one computation together), in the order of the data."""
    steps: list[Step] = []
    placed: set[dg.AssetKey] = set()
    for key in affected:
        grain = _grain(graph, key)
        if key in placed or grain not in REPEATED_GRAINS:
            continue
        together = sorted(graph.get(key).execution_set_asset_keys)
        placed.update(together)
        definition = graph.get(key).partitions_def
        wanted = {name for other in together for name in affected.get(other, ())}
        runs = (
            [PlannedRun(keys=[])]
            if definition is None
            else [
                PlannedRun(keys=run)
                for stretch in stretches(definition.get_partition_keys(), wanted)
                for run in years(stretch)
            ]
        )
        path = key.to_user_string()
        steps.append(
            Step(
                tables=[other.to_user_string() for other in together],
                job=job_of_asset(path, grain, _horizon(graph, key)),
                runs=runs,
            )
        )
    return steps


def _left_over(current: Restatement | None) -> dict[str, set[str]]:
    if current is None:
        return {}
    return {
        table: {key for run in step.runs if not run.done for key in run.keys}
        for step in current.steps
        if not step.done
        for table in step.tables
    }


def _reason(store: Store, new: Changes) -> str:
    lines = pl.concat(
        [newest_differences(store, table, new.delivered[table.path]) for table in _DELIVERIES]
    )
    told = restated_symbols(lines)
    sentences = []
    if told.height:
        shown = "; ".join(
            f"{row['symbol']} {row['session']} {row['what']}"
            for row in told.head(_NAMED).iter_rows(named=True)
        )
        more = f" and {told.height - _NAMED} more" if told.height > _NAMED else ""
        sentences.append(f"Restated: {shown}{more}.")
    if new.released:
        days = ", ".join(str(day) for day in new.released[:_NAMED])
        sentences.append(f"Released: rows of {days}{' …' if len(new.released) > _NAMED else ''}.")
    return " ".join(sentences)


def _first_session(graph: AssetGraph) -> date:
    definition = graph.get(dg.AssetKey(RAW_BARS.path.split("/"))).partitions_def
    first = None if definition is None else definition.get_partition_keys()[:1]
    if not first:
        raise ConfigurationError("The market of this data root has no session; see market.json.")
    return date.fromisoformat(first[0])


def _grain(graph: AssetGraph, key: dg.AssetKey) -> str:
    return str(graph.get(key).metadata.get(GRAIN_METADATA, ""))


def _horizon(graph: AssetGraph, key: dg.AssetKey) -> int:
    return int(graph.get(key).metadata.get(HORIZON_METADATA, 0))
