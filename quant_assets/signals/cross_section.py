"""From stored tables to a strategy's cross-sections, and from its answers to the signal table.

Belongs here: checking what a strategy asks for, joining it, running it session by session, checking what
it answers. Pure: tables come as frames. Does not belong here: predictions (`prediction.py`), Dagster.

1. The declared columns are looked up in the declared tables; what does not exist is refused by name.
2. The universe of every session is the left side; declared columns are joined on session and security.
3. Predictions, where the strategy has a model, are joined the same way.
4. The strategy sees one session at a time, without the session column.
5. Its answer must have the signal columns and only names of that session's universe.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from datetime import date

import polars as pl

from quant_assets.features import schemas as features
from quant_assets.market_data import schemas as market_data
from quant_assets.models.schemas import MODEL_FEATURES
from quant_assets.signals.strategy import SIGNAL_COLUMNS, Strategy
from quant_resources.errors import ConfigurationError, DataError
from quant_resources.tables import Table

IDENTITY = ("session", "symbol", "security_id")
#: Tables of earlier stages with one row per session and security: what a strategy may read.
READABLE: Mapping[str, Table] = {
    table.path: table
    for table in (*market_data.TABLES, *features.TABLES)
    if table.grain == "session" and set(IDENTITY) <= set(table.schema)
}


class StrategyInputError(ConfigurationError):
    """A strategy asks for a table or column that does not exist, or that it may not read."""


class StrategyOutputError(DataError):
    """A strategy answered something that is no set of signals."""


def check_inputs(strategy: Strategy, readable: Mapping[str, Table] = READABLE) -> None:
    """Check that every table, column and model that the strategy declares exists and may be read.

    Raises:
        StrategyInputError: Naming strategy, table, column and the nearest existing name.
    """
    taken: dict[str, str] = dict.fromkeys((*IDENTITY, "prediction"), "every cross-section")
    for path, columns in strategy.features.items():
        if path not in readable:
            raise StrategyInputError(
                f"Strategy {strategy.name} reads the table {path!r}, which does not exist or has no "
                f"row per session and security{_nearest(path, readable)}; it may read "
                f"{', '.join(sorted(readable))}."
            )
        for column in columns:
            if column not in readable[path].schema:
                raise StrategyInputError(
                    f"Strategy {strategy.name} reads the column {column!r} of {path}, which does not "
                    f"exist{_nearest(column, readable[path].schema)}: correct its `features`."
                )
            if column in taken:
                raise StrategyInputError(
                    f"Strategy {strategy.name} reads the column {column!r} of {path}, which "
                    f"{taken[column]} already has: leave one out of its `features`."
                )
            taken[column] = path
    if strategy.model is not None and strategy.model not in MODEL_FEATURES:
        raise StrategyInputError(
            f"Strategy {strategy.name} uses the model {strategy.model!r}, which does not exist"
            f"{_nearest(strategy.model, MODEL_FEATURES)}; there are {', '.join(MODEL_FEATURES)}."
        )


def cross_sections(
    strategy: Strategy,
    universe: pl.LazyFrame,
    inputs: Mapping[str, pl.LazyFrame],
    predictions: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Join what the strategy declares to the universe.

    Args:
        strategy: The strategy.
        universe: `market_data/universe` of any number of sessions.
        inputs: Table path to its rows of the same sessions, for every table of `strategy.features`.
        predictions: `session`, `security_id`, `prediction`, for strategies with a model.

    Returns:
        `session`, `symbol`, `security_id`, the declared columns and, with a model, `prediction`; as
        many rows as the universe, ascending by session and security_id; null where there is no row.

    Raises:
        StrategyInputError: See `check_inputs`.
    """
    check_inputs(strategy)
    frame = universe.select(IDENTITY)
    for path, columns in strategy.features.items():
        declared = inputs[path].select("session", "security_id", *columns)
        frame = frame.join(declared, on=["session", "security_id"], how="left", validate="m:1")
    if strategy.model is not None:
        if predictions is None:
            raise StrategyInputError(
                f"Strategy {strategy.name} uses the model {strategy.model}, but no predictions came."
            )
        frame = frame.join(predictions.lazy(), on=["session", "security_id"], how="left")
    return frame.sort("session", "security_id").collect()


def run_strategy(
    strategy: Strategy, sections: pl.DataFrame, model_versions: Mapping[date, str]
) -> pl.DataFrame:
    """Run the strategy on every session for which there is a model version.

    Args:
        strategy: The strategy.
        sections: The result of `cross_sections`.
        model_versions: Session to the version stored with its signals; sessions that are not in it
            get no signals (no model was in force).

    Returns:
        Rows of the strategy's signal table, ascending by session and security_id.

    Raises:
        StrategyInputError: The method uses a column that the class does not declare.
        StrategyOutputError: The answer of a session is no set of signals.
    """
    answers = []
    for section in sections.partition_by("session", maintain_order=True):
        session = section.item(0, "session")
        if session not in model_versions:
            continue
        seen = section.drop("session")
        try:
            answer = strategy.signals(seen)
        except pl.exceptions.ColumnNotFoundError as error:
            column = str(error).split("\n")[0].split('"')[1::2] or [str(error).split("\n")[0]]
            raise StrategyInputError(
                f"Strategy {strategy.name} uses the column {column[0]!r} in its signals method, which "
                f"its cross-section does not have{_nearest(column[0], seen.columns)}: declare it in "
                "`features`, with the table it comes from."
            ) from error
        answers.append(
            _checked(strategy, session, answer, seen).with_columns(
                session=pl.lit(session, pl.Date), model_version=pl.lit(model_versions[session])
            )
        )
    columns = ["session", "symbol", "security_id", "strategy", *list(SIGNAL_COLUMNS)[2:]]
    if not answers:
        return pl.DataFrame(
            schema={"session": pl.Date, "strategy": pl.String, **SIGNAL_COLUMNS}
            | {"model_version": pl.String}
        ).select(*columns, "model_version")
    return (
        pl.concat(answers)
        .with_columns(strategy=pl.lit(strategy.name))
        .select(*columns, "model_version")
        .sort("session", "security_id")
    )


def rules_version(strategy: Strategy) -> str:
    """What stands as model version in the signals of a strategy without a model."""
    return f"{strategy.name}-rules-{strategy.version}"


def _checked(strategy: Strategy, session: date, answer: object, seen: pl.DataFrame) -> pl.DataFrame:
    where = f"Strategy {strategy.name}, session {session}"
    if not isinstance(answer, pl.DataFrame):
        raise StrategyOutputError(
            f"{where}: signals() returned {type(answer).__name__}, not a Polars DataFrame."
        )
    missing = [name for name in SIGNAL_COLUMNS if name not in answer.columns]
    unknown = [name for name in answer.columns if name not in SIGNAL_COLUMNS]
    if missing or unknown:
        raise StrategyOutputError(
            f"{where}: signals() must return the columns {', '.join(SIGNAL_COLUMNS)}; missing: "
            f"{missing or 'none'}, unknown: {unknown or 'none'}."
        )
    try:
        typed = answer.select(pl.col(name).cast(dtype) for name, dtype in SIGNAL_COLUMNS.items())
    except pl.exceptions.InvalidOperationError as error:
        raise StrategyOutputError(
            f"{where}: signals() returned a column of the wrong type ({error})."
        ) from error
    strangers = typed.join(seen, on=["symbol", "security_id"], how="anti", nulls_equal=True)
    if strangers.height:
        raise StrategyOutputError(
            f"{where}: signals for {strangers.height} names outside the session's universe, for "
            f"example {strangers.item(0, 'symbol')!r}: return names of the given frame only."
        )
    repeated = typed.filter(pl.col("security_id").is_duplicated())
    if repeated.height:
        raise StrategyOutputError(
            f"{where}: {repeated.item(0, 'symbol')!r} has more than one signal."
        )
    return typed


def _nearest(name: str, existing: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(existing), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
