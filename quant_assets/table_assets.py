"""From a table's declaration to a Dagster asset: the only glue between tables and the graph.

`table_asset` decorates a thin function that receives lazy frames and returns a `TableResult`;
`table_multi_asset` one that computes several tables at once. Key, description, owners, kinds, column
documentation, partitions and backfill policy come from the `Table`; storage is the IO manager's. What a
table holds is declared in the stages' `schemas.py`.
"""

from __future__ import annotations

import base64
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from io import BytesIO
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from quant_assets import partitions
from quant_resources.errors import DataError
from quant_resources.store import Store
from quant_resources.tables import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE_METADATA = "quant/table"
_ROWS_SHOWN = 15
_FUNCTION = "table_function"


@dataclass(frozen=True)
class TableInput:
    """One input of a table asset: another table through a partition mapping."""

    table: Table
    mapping: dg.PartitionMapping | None = None


@dataclass(frozen=True)
class TableResult:
    """What a table asset computed: the rows of its partitions and what a trader would look at.

    Attributes:
        frame: The rows.
        metadata: What the UI shows of them, or a function that makes it. Pictures take longer than most
            tables: made by a function, they are drawn in a run alone and not where only the rows are asked.
    """

    frame: pl.DataFrame
    metadata: Mapping[str, Any] | Callable[[], Mapping[str, Any]] = field(default_factory=dict)

    def shown(self) -> dict[str, Any]:
        """The metadata, made now if it was left to a function."""
        return dict(self.metadata() if callable(self.metadata) else self.metadata)


@dataclass(frozen=True)
class TableFunction:
    """How tables are computed, as their asset was declared: what computing them without a run needs.

    Attributes:
        tables: What is computed, in the order of the results.
        inputs: Parameter name to input.
        resources: Names of the parameters that are resources.
        compute: `(context, <inputs>, <resources>) -> one TableResult per table`.
    """

    tables: tuple[Table, ...]
    inputs: Mapping[str, TableInput]
    resources: tuple[str, ...]
    compute: Callable[..., Sequence[TableResult]]


def table_asset(
    table: Table,
    ins: Mapping[str, TableInput] | None = None,
    deps: Iterable[TableInput] = (),
    backfill: bool = True,
    kinds: Iterable[str] = (),
) -> Callable[[Callable[..., TableResult]], dg.AssetsDefinition]:
    """Declare the asset that computes a table.

    Args:
        table: The table; its grain decides the partitions.
        ins: Parameter name to input; each arrives as one `pl.LazyFrame` over its partitions.
        deps: Lineage without loading: tables that the function reads by itself or not at all.
        backfill: Whether a range of partitions may be computed in one run. Order evidence may not.
        kinds: Further kinds for the UI beside the table's.

    Returns:
        A decorator of `function(context, <inputs>, <resources>) -> TableResult`.
    """
    inputs = dict(ins or {})

    def decorate(function: Callable[..., TableResult]) -> dg.AssetsDefinition:
        def compute(context: dg.AssetExecutionContext, **arguments: Any) -> dg.MaterializeResult:
            result = function(context, **arguments)
            _attach_metadata(context, table, result)
            return dg.MaterializeResult(value=result.frame)

        def alone(context: Any, **arguments: Any) -> tuple[TableResult]:
            return (function(context, **arguments),)

        _wear_signature(compute, function, dg.MaterializeResult)
        _remember(compute, TableFunction((table,), inputs, _resources(function, inputs), alone))
        return dg.asset(
            key=table.path.split("/"),
            ins=_asset_ins(inputs),
            deps=_asset_deps(deps),
            description=table.description,
            owners=list(table.owners),
            kinds={*table.kinds, *kinds},
            tags=dict(table.tags),
            group_name=table.stage,
            metadata=_table_metadata(table),
            partitions_def=partitions.DEFAULT.of(table),
            backfill_policy=_backfill_policy(table, backfill),
            io_manager_key="table_io",
        )(compute)

    return decorate


def table_multi_asset(
    tables: Sequence[Table],
    ins: Mapping[str, TableInput] | None = None,
    deps: Iterable[TableInput] = (),
    backfill: bool = True,
) -> Callable[[Callable[..., Sequence[TableResult]]], dg.AssetsDefinition]:
    """Declare one step that computes several tables of one grain, because their work is the same.

    Every table stays an asset of its own, with its own checks and metadata; they are only ever
    materialized together.

    Args:
        tables: What the step computes, in the order in which the function returns it and in which it
            is stored.
        ins: As in `table_asset`, for all of the tables.
        deps: As in `table_asset`, for all of the tables.
        backfill: As in `table_asset`.

    Returns:
        A decorator of `function(context, <inputs>, <resources>) -> (TableResult, …)`, one result per table.
    """
    inputs = dict(ins or {})
    first = tables[0]

    def decorate(function: Callable[..., Sequence[TableResult]]) -> dg.AssetsDefinition:
        def compute(
            context: dg.AssetExecutionContext, **arguments: Any
        ) -> tuple[dg.MaterializeResult, ...]:
            computed = list(zip(tables, function(context, **arguments), strict=True))
            for table, result in computed:
                _attach_metadata(context, table, result)
            return tuple(
                dg.MaterializeResult(asset_key=table.path.split("/"), value=result.frame)
                for table, result in computed
            )

        _wear_signature(compute, function, tuple[(dg.MaterializeResult,) * len(tables)])
        resources = _resources(function, inputs)
        _remember(compute, TableFunction(tuple(tables), inputs, resources, function))
        return dg.multi_asset(
            # As the op of a single asset is named, so that a failed step is read the same way.
            name=f"{first.stage}__{function.__name__}",
            description=function.__doc__,
            outs={
                table.name: dg.AssetOut(
                    key=table.path.split("/"),
                    description=table.description,
                    owners=list(table.owners),
                    kinds=set(table.kinds),
                    tags=dict(table.tags),
                    group_name=table.stage,
                    metadata=_table_metadata(table),
                    io_manager_key="table_io",
                    dagster_type=pl.DataFrame,
                )
                for table in tables
            },
            ins=_asset_ins(inputs),
            deps=_asset_deps(deps),
            partitions_def=partitions.DEFAULT.of(first),
            backfill_policy=_backfill_policy(first, backfill),
        )(compute)

    return decorate


def table_function(asset: dg.AssetsDefinition) -> TableFunction | None:
    """The function of a table's asset, wherever it was placed; None for other assets."""
    computed = asset.op.compute_fn if asset.is_executable else None
    decorated = getattr(computed, "decorated_fn", None)
    return getattr(decorated, _FUNCTION, None)


def sessions_of(context: dg.AssetExecutionContext) -> list[date]:
    """The partitions of this run as dates, ascending."""
    return [date.fromisoformat(key) for key in context.partition_keys]


def picture(figure: Figure) -> dg.MetadataValue:
    """A matplotlib figure as Markdown metadata; the figure is closed."""
    from matplotlib import pyplot as plt

    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    plt.close(figure)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return dg.MetadataValue.md(f"![picture](data:image/png;base64,{encoded})")


def shown_table(frame: pl.DataFrame, rows: int = _ROWS_SHOWN) -> dg.MetadataValue:
    """The first rows of a frame as a Markdown table; text from data cannot break out of its cell."""
    head = frame.head(rows)
    lines = [
        "| " + " | ".join(head.columns) + " |",
        "|" + "---|" * head.width,
        *("| " + " | ".join(_cell(value) for value in row) + " |" for row in head.iter_rows()),
    ]
    if frame.height > rows:
        lines.append(f"\n{frame.height - rows} more rows.")
    return dg.MetadataValue.md("\n".join(lines))


def column_metadata(table: Table) -> dict[str, Any]:
    """Dagster's column schema of a table, with units, bounds and key in the descriptions."""
    return {
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(
                    name=column.name,
                    type=str(table.schema[column.name]),
                    description=_column_text(column),
                    constraints=dg.TableColumnConstraints(
                        nullable=column.nullable,
                        unique=table.key == (column.name,),
                        other=_bounds(column),
                    ),
                )
                for column in table.columns
            ]
        )
    }


def known_keys(store: Store, table: Table, keys: Iterable[str]) -> list[str]:
    """The partitions of an input that can be known, of those that its mapping names.

    A month's first model is asked for before the newest labels of the month before can be known; what
    reads labels filters on `known_session` besides.
    """
    named = list(keys)
    cut = len(named) - table.horizon
    return named[:cut] + [key for key in named[cut:] if store.exists(table, key)]


class TableIOManager(dg.IOManager):
    """Loads inputs as lazy frames and stores outputs through the `Store`.

    Args:
        store: The data root.
        tables: Every table of the graph.
    """

    def __init__(self, store: Store, tables: Iterable[Table]) -> None:
        self._store = store
        self._tables = {table.path: table for table in tables}

    def handle_output(self, context: dg.OutputContext, obj: pl.DataFrame | None) -> None:
        """Write the frame of the run's partitions, atomically per partition."""
        if obj is None:
            return
        table = self._table(context.asset_key)
        keys = context.asset_partition_keys if context.has_asset_partitions else ()
        self._store.write(table, obj, list(keys))

    def load_input(self, context: dg.InputContext) -> pl.LazyFrame:
        """All partitions that the mapping names, as one lazy frame.

        Raises:
            MissingPartitionError: One of them has not been materialized.
        """
        table = self._table(context.asset_key)
        if not context.has_asset_partitions:
            return self._store.read(table)
        return self._store.read(table, known_keys(self._store, table, context.asset_partition_keys))

    def _table(self, key: dg.AssetKey) -> Table:
        try:
            return self._tables[key.to_user_string()]
        except KeyError:
            raise DataError(
                f"No table is declared for asset {key.to_user_string()}; add it to its stage's "
                "schemas.py and pass it to build_defs."
            ) from None


def _asset_ins(inputs: Mapping[str, TableInput]) -> dict[str, dg.AssetIn]:
    return {
        name: dg.AssetIn(key=given.table.path.split("/"), partition_mapping=given.mapping)
        for name, given in inputs.items()
    }


def _asset_deps(deps: Iterable[TableInput]) -> list[dg.AssetDep]:
    return [
        dg.AssetDep(given.table.path.split("/"), partition_mapping=given.mapping) for given in deps
    ]


def _table_metadata(table: Table) -> dict[str, Any]:
    return {
        **column_metadata(table),
        partitions.GRAIN_METADATA: table.grain,
        partitions.HORIZON_METADATA: table.horizon,
    }


def _backfill_policy(table: Table, backfill: bool) -> dg.BackfillPolicy | None:
    ranged = backfill and table.grain in ("session", "labelled_session")
    return dg.BackfillPolicy.multi_run(partitions.SESSIONS_PER_RUN) if ranged else None


def _wear_signature(
    compute: Callable[..., Any], function: Callable[..., Any], returned: object
) -> None:
    # Dagster reads parameters and annotations to tell inputs from resources.
    hints = typing.get_type_hints(function, include_extras=True)
    parameters: Sequence[inspect.Parameter] = [
        parameter.replace(annotation=hints.get(name, Any))
        for name, parameter in inspect.signature(function).parameters.items()
    ]
    hints = {name: hints.get(name, Any) for name in (p.name for p in parameters)}
    hints["context"] = dg.AssetExecutionContext
    compute.__annotations__ = {**hints, "return": returned}
    compute.__dict__["__signature__"] = inspect.Signature(
        [p.replace(annotation=hints[p.name]) for p in parameters],
        return_annotation=returned,
    )
    compute.__name__ = function.__name__
    compute.__doc__ = function.__doc__
    compute.__module__ = function.__module__


def _resources(function: Callable[..., Any], inputs: Mapping[str, TableInput]) -> tuple[str, ...]:
    _context, *names = inspect.signature(function).parameters
    return tuple(name for name in names if name not in inputs)


def _remember(compute: Callable[..., Any], function: TableFunction) -> None:
    # On the function that Dagster keeps: the asset is copied when it is placed on a market.
    compute.__dict__[_FUNCTION] = function


def _attach_metadata(context: dg.AssetExecutionContext, table: Table, result: TableResult) -> None:
    asset = dg.AssetKey(table.path.split("/"))
    column = table.partition_column
    if column is None:
        counted = {"dagster/row_count": result.frame.height, **result.shown()}
        context.add_asset_metadata(counted, asset_key=asset)
        return
    counts = {
        str(day): count for day, count in result.frame.get_column(column).value_counts().iter_rows()
    }
    keys = context.partition_keys
    for key in keys:
        context.add_asset_metadata(
            {"dagster/row_count": counts.get(key, 0)}, asset_key=asset, partition_key=key
        )
    # A picture weighs tens of kilobytes: only the newest partition of a range carries it.
    context.add_asset_metadata(result.shown(), asset_key=asset, partition_key=keys[-1])


def _column_text(column: Column) -> str:
    return f"{column.description} [{column.unit}]" if column.unit else column.description


def _bounds(column: Column) -> list[str]:
    texts = []
    if column.minimum is not None:
        texts.append(f">= {column.minimum:g}")
    if column.maximum is not None:
        texts.append(f"<= {column.maximum:g}")
    if column.allowed is not None:
        texts.append("one of " + ", ".join(column.allowed))
    return texts


def _cell(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
