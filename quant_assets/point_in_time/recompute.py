"""Any table of the graph computed again by its own asset's function, from a store of the caller's choice.

Belongs here: which tables can be computed again, and doing it outside of a run. Does not belong here: what
the result is compared with (`detectors.py`) and which partitions are worth it (`checks.py`, `plan.py`).

1. A `Step` is what one asset computes: its function, its inputs and the partitions of the market. It is
   read from the asset, so that a table that is added tomorrow needs no declaration for this.
2. The partitions of every input are those that the asset's own mapping names, by Dagster's mapping API.
   Those that do not exist yet in a store that is cut are left out; any other that is missing is an error,
   as in a run.
3. The function gets them as lazy frames from the given store, which also takes the place of its `store`
   resource. Its ledger is one that records nothing. The settings name no data root meanwhile, so that a
   function which looks for one by itself finds nothing. What it would show in the UI is not made.
4. The rows are held against the table's declaration, as if they were stored.

Dagster's own contexts for direct invocation take 0.1 s each, more than most tables: the function gets
a small one instead, which knows partitions, log and asset.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg
import polars as pl

from quant_assets.partitions import Partitions
from quant_assets.point_in_time.cut_store import CutStore
from quant_assets.table_assets import TableFunction, TableInput, known_keys, table_function
from quant_resources.errors import DataError
from quant_resources.store import Store
from quant_resources.tables import Table

#: Resources that a function may use and still be computed again: what is stored, and the registry of models.
REPRODUCIBLE: Final = frozenset({"store", "ledger"})
#: The column by which rows of a table without partitions are cut.
WHOLE_TABLE_COLUMN: Final = "session"

_DATA_ROOT: Final = "QUANT_DATA_ROOT"
_NOWHERE: Final = "/nonexistent/hidden-while-computed-again"


@dataclass(frozen=True)
class Step:
    """What one asset computes: one table, or several that are computed together.

    Attributes:
        asset: The asset, placed on the market.
        function: Its function, inputs and resources.
        partitions: The market's partition definitions.
    """

    asset: dg.AssetsDefinition
    function: TableFunction
    partitions: Partitions

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables that are computed."""
        return self.function.tables

    def input_keys(self, given: TableInput, keys: Sequence[str]) -> list[str] | None:
        """The partitions that an input's mapping names for some partitions; None if it has none."""
        upstream = self.partitions.of(given.table)
        if upstream is None:
            return None
        own = self.partitions.of(self.tables[0])
        mapping = self.asset.infer_partition_mapping(
            _asset_key(self.tables[0]), _asset_key(given.table), upstream
        )
        wanted = None if own is None else own.empty_subset().with_partition_keys(list(keys))
        named = mapping.get_upstream_mapped_partitions_result_for_partitions(wanted, own, upstream)
        return sorted(named.partitions_subset.get_partition_keys())


def steps(assets: Iterable[dg.AssetsDefinition], partitions: Partitions) -> tuple[Step, ...]:
    """The steps of all assets that were declared as tables, in their order.

    Args:
        assets: Assets of the graph, placed on the market.
        partitions: The market's partition definitions.
    """
    found = ((asset, table_function(asset)) for asset in assets)
    return tuple(
        Step(asset, function, partitions) for asset, function in found if function is not None
    )


def reason_not_recomputed(step: Step) -> str | None:
    """Why a step's tables cannot be computed again from what is stored; None if they can."""
    table = step.tables[0]
    outside = [name for name in step.function.resources if name not in REPRODUCIBLE]
    if table.grain == "trading_session":
        return "evidence of trading: frozen from ledger and broker on the day, not computed from tables"
    if outside:
        return (
            f"a delivery: it comes from {' and '.join(outside)}, which cannot be asked for the past"
        )
    if table.grain == "month":
        return "a training: it writes to the registry of models; its rows and its model are proved by themselves"
    if table.grain == "none" and WHOLE_TABLE_COLUMN not in table.schema:
        return f"one table without a column {WHOLE_TABLE_COLUMN!r}: nothing says which rows belong to which session"
    return None


def recompute_step(
    step: Step, keys: Sequence[str], store: Store, resources: Mapping[str, Any]
) -> dict[str, pl.DataFrame]:
    """Compute all tables of a step again, for some partitions.

    Args:
        step: The step.
        keys: Partition keys, ascending; empty for tables without partitions.
        store: Where its inputs are read: the data root, or one that is cut.
        resources: Resources that the function names, beside the store; of a ledger an `UnrecordedLedger`.

    Returns:
        Table path to its rows of those partitions, in the table's declared columns.

    Raises:
        MissingPartitionError: An input was not materialized, or is asked for by name before it exists.
        SchemaError: The rows are not the table's.
        DataError: The function reads files that it was not given.
    """
    inputs = {
        name: _read(store, given.table, step.input_keys(given, keys))
        for name, given in step.function.inputs.items()
    }
    given = {
        name: store if name == "store" else resources[name] for name in step.function.resources
    }
    with _nothing_behind_the_store(step):
        results = step.function.compute(_Context(step.asset, keys), **inputs, **given)
    return {
        table.path: table.conform(result.frame)
        for table, result in zip(step.tables, results, strict=True)
    }


def recompute(
    step: Step, table: Table, keys: Sequence[str], store: Store, resources: Mapping[str, Any]
) -> pl.DataFrame:
    """Compute one table of a step again, for some partitions; see `recompute_step`."""
    return recompute_step(step, keys, store, resources)[table.path]


class _Context:
    """What a table's function may ask of its run: partitions, log and asset."""

    def __init__(self, asset: dg.AssetsDefinition, keys: Sequence[str]) -> None:
        self.assets_def = asset
        self.partition_keys = list(keys)
        self.has_partition_key = len(keys) == 1
        self.log = logging.getLogger(__name__)

    @property
    def partition_key(self) -> str:
        """The only partition."""
        (key,) = self.partition_keys
        return key

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"context.{name} is not there when a table is computed again: the rows may depend on the "
            "partitions, the inputs and the store alone."
        )


@contextmanager
def _nothing_behind_the_store(step: Step) -> Iterator[None]:
    """Let the settings name no data root: what a function reads by itself would not be cut."""
    before = os.environ.get(_DATA_ROOT)
    os.environ[_DATA_ROOT] = _NOWHERE
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        if _NOWHERE not in str(error):
            raise
        raise DataError(
            f"{step.tables[0].path} reads a file that it was not given, so that nothing says what it may know: "
            f"take data from inputs and the `store` resource alone ({error})."
        ) from error
    finally:
        os.environ.pop(_DATA_ROOT)
        if before is not None:
            os.environ[_DATA_ROOT] = before


def _read(store: Store, table: Table, keys: list[str] | None) -> pl.LazyFrame:
    if keys is None:
        return store.read(table)
    existing = store.existing(table, keys) if isinstance(store, CutStore) else keys
    return store.read(table, known_keys(store, table, existing))


def _asset_key(table: Table) -> dg.AssetKey:
    return dg.AssetKey(table.path.split("/"))
