"""Corporate actions from a user's file, in terms or as price factors.

What belongs here: the file and what its words mean. What does not: which action changes a price by how much
(market_data/adjustment.py), or undoing adjusted bars (file_prices.py).

Terms are read by the mapping of the layout. Price factors are read by `history_actions.py`, which states how
a factor becomes a split or a dividend. The same fact written twice is one fact; two different ones of a day
are two.
"""

from __future__ import annotations

import polars as pl

from quant_resources.bar_source import ACTION_TYPES, CORPORATE_ACTION_SCHEMA
from quant_resources.errors import DataError, SourceError
from quant_resources.exchange.markets.history_actions import read_actions
from quant_resources.file_cells import (
    Cell,
    day_cell,
    number_cell,
    read_cells,
    symbol_cell,
    why_unreadable,
)
from quant_resources.file_layout import ActionFile, CsvForm, FileLayout, nearest
from quant_resources.file_text import FILE, LINE, SourceFile, assert_columns, text_blocks

#: Words that mean one of the types, or for a split what its ratio says.
_WORDS = {"dividend": "cash_dividend", "cash_merger": "merger", "split": "split"}
_RATIO = r"^\s*(\d+(?:\.\d+)?)\s*[:/]\s*(\d+(?:\.\d+)?)\s*$"
_TERMS = {
    name: CORPORATE_ACTION_SCHEMA[name]
    for name in ("ex_date", "symbol", "action_type", "ratio", "cash", "new_symbol", "action_id")
}


def file_actions(layout: FileLayout) -> pl.DataFrame:
    """All corporate actions of the layout's file.

    Returns:
        ``ex_date``, ``symbol``, ``action_type``, ``ratio``, ``cash``, ``new_symbol``, ``action_id``,
        unique by ``action_id``, sorted by ex-date and symbol; no rows without an actions file.

    Raises:
        SourceError: The file cannot be read, a cell means nothing, or a type is not known; naming
            file, line and column.
    """
    if layout.actions is None:
        return pl.DataFrame(schema=_TERMS)
    file = SourceFile.at(layout.located(layout.actions.path))
    read = _factors if layout.actions.form == "price_factors" else _terms
    frame = read(file, layout, layout.actions)
    file.assert_unchanged()
    again = frame.unique(maintain_order=True)
    repeated = again.filter(pl.col("action_id").is_duplicated())
    if repeated.height:
        raise SourceError(
            f"{file.path} gives the id {repeated['action_id'][0]!r} to {repeated.height} different "
            "actions; leave the id column out of the layout, or correct the file."
        )
    return again.sort("ex_date", "symbol", "action_id")


def _factors(file: SourceFile, layout: FileLayout, actions: ActionFile) -> pl.DataFrame:  # noqa: ARG001
    try:
        read = read_actions(file.path)
    except DataError as error:
        raise SourceError(str(error)) from error
    except pl.exceptions.PolarsError as error:
        raise SourceError(
            f"{file.path} cannot be read as {actions.format}: {str(error).splitlines()[0]}."
        ) from error
    rows = [
        {
            "ex_date": action.ex_date,
            "symbol": action.symbol,
            "action_type": "merger" if action.action_type == "cash_merger" else action.action_type,
            "ratio": None if action.ratio is None else float(action.ratio),
            "cash": None if action.cash is None else float(action.cash),
            "new_symbol": action.new_symbol,
            "action_id": action.action_id,
        }
        for action in read
    ]
    return pl.DataFrame(rows, schema=_TERMS, orient="row")


def _terms(file: SourceFile, layout: FileLayout, actions: ActionFile) -> pl.DataFrame:
    named = {name: text for name, text in actions.columns if text is not None}
    text = _text(file, actions, list(named.values()))
    schema = text.schema
    try:
        cells = {
            "day": day_cell(named["ex_date"], schema[named["ex_date"]], actions),
            "symbol": symbol_cell(
                named["symbol"], schema[named["symbol"]], layout.symbols == "upper"
            ),
            "type": symbol_cell(named["type"], schema[named["type"]], upper=False),
        }
        for name in ("ratio", "cash"):
            if name in named:
                reader = _ratio_cell if name == "ratio" else number_cell
                cells[name] = reader(named[name], schema[named[name]], actions.csv)
        for name in ("new_symbol", "id"):
            if name in named:
                cells[name] = symbol_cell(named[name], schema[named[name]], upper=False)
    except SourceError as error:
        raise SourceError(f"{file.path}: {error}") from error
    rows = text.select(*read_cells(cells), LINE)
    bad = rows.filter(
        pl.col("bad_column").is_not_null() | pl.any_horizontal(pl.col("symbol", "type").is_null())
    )
    if bad.height:
        row = bad.row(0, named=True)
        if row["bad_column"] is None:
            missing = "symbol" if row["symbol"] is None else "type"
            raise SourceError(
                f"{file.path}, row {row[LINE]}: no {missing}; correct the row or remove it."
            )
        why = why_unreadable(row["bad_column"], row["bad_cell"], actions)
        column = named["ex_date" if row["bad_column"] == "day" else row["bad_column"]]
        raise SourceError(
            f"{file.path}, row {row[LINE]} ({row['symbol']}), column {column}: {why}."
        )
    absent = [
        pl.lit(None, kind).alias(name)
        for name, kind in (("ratio", pl.Float64), ("cash", pl.Float64), ("new_symbol", pl.String))
        if name not in cells
    ]
    typed = rows.with_columns(*absent)
    typed = typed.with_columns(action_type=_types(typed, file, actions)).rename({"day": "ex_date"})
    own_id = pl.concat_str(
        ["symbol", "ex_date", "action_type", "ratio", "cash", "new_symbol"],
        separator="-",
        ignore_nulls=True,
    )
    given = pl.coalesce("id", own_id) if "id" in cells else own_id
    return typed.with_columns(action_id=given).select(list(_TERMS))


def _text(file: SourceFile, actions: ActionFile, wanted: list[str]) -> pl.DataFrame:
    if actions.format == "csv":
        return pl.concat(text_blocks([file], actions.csv, wanted))
    try:
        frame = pl.read_parquet(file.path, row_index_name=LINE, row_index_offset=1)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SourceError(
            f"{file.path} cannot be read as Parquet: {str(error).splitlines()[0]}."
        ) from error
    assert_columns(file.path, [name for name in frame.columns if name != LINE], wanted)
    return frame.with_columns(pl.lit(str(file.path)).alias(FILE))


def _ratio_cell(name: str, dtype: pl.DataType, form: CsvForm) -> Cell:
    """A number, or two as in 4:1 and 1/10."""
    cell = number_cell(name, dtype, form)
    if dtype != pl.String:
        return cell
    parts = pl.col(name).str.extract_groups(_RATIO)
    after, before = (parts.struct.field(part).cast(pl.Float64) for part in ("1", "2"))
    is_pair = after.is_not_null()
    return Cell(
        pl.when(is_pair).then(after / before).otherwise(cell.value), cell.bad & ~is_pair, cell.text
    )


def _types(rows: pl.DataFrame, file: SourceFile, actions: ActionFile) -> pl.Series:
    known: dict[str, str] = {}
    for word in rows["type"].unique().to_list():
        meant = actions.types.get(str(word), str(word)).lower()
        known[str(word)] = _WORDS.get(meant, meant)
    unknown = sorted(word for word, kind in known.items() if kind not in (*ACTION_TYPES, "split"))
    if unknown:
        guess = nearest(unknown[0], [*ACTION_TYPES, "split"])
        at = rows.filter(type=unknown[0])[LINE][0]
        raise SourceError(
            f"{file.path}, row {at}: {unknown[0]!r} is no type of corporate action"
            + (f" (did you mean {guess}?)" if guess else "")
            + "; say which it is under [actions.types]: "
            f"{', '.join(ACTION_TYPES)}, or split."
        )
    kinds = rows["type"].replace_strict(known, return_dtype=pl.String)
    return rows.select(
        pl.when(kinds != "split")
        .then(kinds)
        .when((pl.col("ratio") < 1).fill_null(value=False))
        .then(pl.lit("reverse_split"))
        .otherwise(pl.lit("forward_split"))
    ).to_series()
