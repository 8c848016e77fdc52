"""great-expectations suites generated from table declarations, and their findings in plain words.

Bounds, missing values, closed lists and keys come from the `Table`; rules that need thought are the
stages' `checks.py`. The import costs seconds and 270 MB, so it happens on first use, once per process.
"""

# great-expectations re-exports its public classes without saying so to type checkers.
# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

import polars as pl

from quant_assets.findings import Finding
from quant_resources.tables import Table

if TYPE_CHECKING:
    import great_expectations as gx

_SAMPLE = 5


def value_finding(table: Table, frame: pl.DataFrame) -> Finding:
    """Validate a frame against the suite of its table.

    Cost: 0.05 s for 10,000 rows after the first use in a process.
    """
    if frame.is_empty():
        return Finding(True, f"{table.path}: no rows, nothing to break a rule.")
    columns = _checked_columns(table)
    pandas_frame = frame.select(columns).to_pandas(use_pyarrow_extension_array=True)
    result = _batch_definition().get_batch({"dataframe": pandas_frame}).validate(_suite(table))
    broken: list[str] = []
    count = 0
    sample: pl.DataFrame | None = None
    for item in result.results:
        if item.success:
            continue
        config = item.expectation_config
        arguments = {} if config is None else config.kwargs
        unexpected = int(item.result.get("unexpected_count", 0))
        count += unexpected
        broken.append(_sentence("" if config is None else config.type, arguments, unexpected))
        rows = item.result.get("partial_unexpected_index_list") or []
        if sample is None and rows:
            sample = frame[[int(row) for row in rows[:_SAMPLE]]].select(columns[:12])
    if not broken:
        return Finding(True, f"{table.path}: {frame.height} rows keep {len(result.results)} rules.")
    return Finding(
        False,
        f"{table.path}: " + "; ".join(broken),
        count,
        sample,
        "Look at the sample: repair the input and materialize again, or mend the declaration.",
    )


def rule_count(table: Table) -> int:
    """How many expectations the table's declaration yields."""
    return len(_expectations(table))


def _checked_columns(table: Table) -> list[str]:
    # Only what a rule looks at is converted: 158 unbounded features would be copied for nothing.
    named = [
        column.name
        for column in table.columns
        if not column.nullable
        or column.minimum is not None
        or column.maximum is not None
        or column.allowed is not None
    ]
    return [name for name in table.schema if name in {*table.key, *named}]


def _expectations(table: Table) -> list[Any]:
    import great_expectations.expectations as gxe

    rules: list[Any] = []
    for column in table.columns:
        if not column.nullable:
            rules.append(gxe.ExpectColumnValuesToNotBeNull(column=column.name))
        if column.minimum is not None or column.maximum is not None:
            rules.append(
                gxe.ExpectColumnValuesToBeBetween(
                    column=column.name, min_value=column.minimum, max_value=column.maximum
                )
            )
        if column.allowed is not None:
            rules.append(
                gxe.ExpectColumnValuesToBeInSet(column=column.name, value_set=list(column.allowed))
            )
    if len(table.key) > 1:
        rules.append(gxe.ExpectCompoundColumnsToBeUnique(column_list=list(table.key)))
    elif table.key:
        rules.append(gxe.ExpectColumnValuesToBeUnique(column=table.key[0]))
    return rules


def _suite(table: Table) -> gx.ExpectationSuite:
    import great_expectations as gx

    _context()
    return gx.ExpectationSuite(name=table.path, expectations=_expectations(table))


@cache
def _context() -> Any:
    # Its usage statistics would call home.
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # pyright: ignore[reportAttributeAccessIssue]
    return context


@cache
def _batch_definition() -> Any:
    source = _context().data_sources.add_pandas("frames")
    return source.add_dataframe_asset("table").add_batch_definition_whole_dataframe("rows")


def _sentence(kind: str, arguments: dict[str, Any], count: int) -> str:
    column = arguments.get("column")
    if kind == "expect_column_values_to_not_be_null":
        return f"{column} is missing in {count} rows"
    if kind == "expect_column_values_to_be_between":
        return (
            f"{column} leaves [{arguments.get('min_value')}, {arguments.get('max_value')}] "
            f"in {count} rows"
        )
    if kind == "expect_column_values_to_be_in_set":
        return f"{column} is none of {arguments.get('value_set')} in {count} rows"
    keys = arguments.get("column_list") or [column]
    return f"{', '.join(map(str, keys))} repeats in {count} rows"
