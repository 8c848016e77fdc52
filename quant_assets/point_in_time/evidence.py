"""What can be proved of trading evidence, which is frozen and never computed again.

Belongs here: rules on rows that were written once, from ledger and broker. Pure. Does not belong here:
recomputing (`detectors.py`), reading the ledger, and whether it agrees with the broker (`quant_assets/orders`).

1. No date in a row lies after its trading session, and no time after that day has ended in New York,
   so that nothing in it can have been learned later. Which columns are dates and times is the table's
   own declaration; one that is meant to lie ahead, such as an expiry, declares it.
2. A target that was changed comes from signals of the session before, and from no other.
3. It carries the score, the weight and the model version that are stored for that signal.
4. Rows that are a copy of the ledger's are what the ledger says: the copy was altered by nobody, and nothing is
   missing in it.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from quant_assets.findings import Finding
from quant_assets.point_in_time.comparisons import differences, differing_rows
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.tables import Table

#: The ledger keeps nine decimals of what signals hold as Float64.
_LEDGER_ROUNDING = 1e-8
_ROWS_SHOWN = 10


def times_of(table: Table) -> list[str]:
    """Columns of a table that tell when, beside its partition and what is agreed ahead."""
    return [
        column.name
        for column in table.columns
        if isinstance(table.schema[column.name], pl.Date | pl.Datetime)
        and column.name != table.partition_column
        and not column.lies_ahead
    ]


def nothing_lies_later(table: Table, frame: pl.DataFrame) -> Finding:
    """Rule 1: no date or time of a row lies after its trading session.

    Args:
        table: A table of grain trading_session.
        frame: Some of its rows.
    """
    temporal = times_of(table)
    late = [_later(table, frame, name) for name in temporal]
    breaches = pl.concat(late).sort("trading_session") if late else pl.DataFrame()
    return Finding.of(
        breaches,
        f"No {', '.join(temporal) or 'date'} of {frame.height} rows lies after its session.",
        f"{breaches.height} values of {table.path} lie after their trading session.",
        "Find what wrote the row before it could know this; a column that is agreed ahead, such as an expiry, "
        "is declared so (lies_ahead) in its table.",
    )


def comes_from_signals(table: Table) -> bool:
    """Whether a table's rows name the strategy and the session of the signal that they come from."""
    return {"strategy", "signal_session", "changed"} <= set(table.schema)


def signals_are_of_the_session_before(targets: pl.DataFrame) -> Finding:
    """Rule 2: changed targets name the session before, kept ones one that lies no later.

    Args:
        targets: Rows of `orders/target_portfolio`.
    """
    sessions = targets.get_column("trading_session").unique()
    before = pl.DataFrame(
        {
            "trading_session": sessions,
            "session_before": [XNYS.previous(session) for session in sessions],
        },
        schema={"trading_session": pl.Date, "session_before": pl.Date},
    )
    dated = targets.join(before, on="trading_session")
    changed = pl.col("changed")
    breaches = dated.filter(
        (changed & (pl.col("signal_session") != pl.col("session_before")))
        | (~changed & (pl.col("signal_session") > pl.col("session_before")))
    ).select("trading_session", "strategy", "symbol", "signal_session", "session_before", "changed")
    return Finding.of(
        breaches,
        f"{targets.height} targets come from signals of the session before or kept ones.",
        f"{breaches.height} of {targets.height} targets name a session of their signal that is not the one "
        "before they were traded.",
        "Frozen targets are never written again; look at what planned them before trading goes on (`quant halt`).",
    )


def targets_follow_their_signals(
    targets: pl.DataFrame, signals: Mapping[str, pl.DataFrame]
) -> Finding:
    """Rule 3: changed targets are the stored signals of the session that they name.

    Args:
        targets: Rows of `orders/target_portfolio`.
        signals: Strategy to the rows of its signal table of those sessions; a target of a strategy
            that is not among them is in breach.
    """
    changed = targets.filter("changed")
    stored = pl.concat(
        [
            rows.select(
                strategy=pl.lit(name),
                signal_session="session",
                security_id="security_id",
                signal_score="score",
                signal_weight="target_weight",
                signal_model="model_version",
            )
            for name, rows in signals.items()
        ]
        or [_NO_SIGNALS]
    )
    both = changed.join(stored, on=["strategy", "signal_session", "security_id"], how="left")
    # A name without a signal is closed: weight 0 and no score.
    unsigned = pl.col("signal_model").is_null()
    closed = (pl.col("target_weight") == 0) & pl.col("score").is_null()
    followed = (
        _near("score", "signal_score")
        & _near("target_weight", "signal_weight")
        & (pl.col("model_version") == pl.col("signal_model"))
    )
    known = pl.struct("strategy", "signal_session").is_in(
        stored.select(pl.struct("strategy", "signal_session").unique()).to_series().implode()
    )
    breaches = both.filter(
        ~pl.when(unsigned).then(closed & known).otherwise(followed).fill_null(False)
    ).select(
        "trading_session",
        "strategy",
        "symbol",
        "target_weight",
        "signal_weight",
        "model_version",
        "signal_model",
    )
    return Finding.of(
        breaches,
        f"{changed.height} changed targets are the stored signals of their session.",
        f"{breaches.height} of {changed.height} changed targets are not what is stored as the signal of their "
        "session.",
        "The signals were made again after they were traded (a restatement, a changed strategy, an activation for "
        "an earlier session): the target is what was known then.",
    )


def rows_are_the_ledgers(table: Table, stored: pl.DataFrame, ledger: pl.DataFrame) -> Finding:
    """Rule 4: stored rows are those of the ledger, by their key and in every column.

    Args:
        table: A table that is a copy of the ledger.
        stored: Its stored rows of some sessions.
        ledger: The same rows as the ledger gives them.
    """
    # A partition that was stored before a column was declared has none of it.
    later = [
        column.name
        for column in table.columns
        if stored.height
        and not column.nullable
        and stored[column.name].null_count() == stored.height
    ]
    blank = [pl.lit(None, table.schema[name]).alias(name) for name in later]
    found = differences(table, stored, ledger.with_columns(blank), ("stored", "ledger"))
    rows = differing_rows(table, found)
    return Finding(
        passed=found.is_empty(),
        message=f"{stored.height} rows are the ledger's."
        if found.is_empty()
        else f"{rows} rows of {table.path} are not what the ledger says.",
        count=rows,
        sample=None if found.is_empty() else found.head(_ROWS_SHOWN),
        remedy="The ledger is the record: materialize the session's partition again, which copies it anew, and find "
        "out who changed the stored file. If the ledger was changed, restore it.",
    )


_NO_SIGNALS = pl.DataFrame(
    schema={
        "strategy": pl.String,
        "signal_session": pl.Date,
        "security_id": pl.String,
        "signal_score": pl.Float64,
        "signal_weight": pl.Float64,
        "signal_model": pl.String,
    }
)


def _later(table: Table, frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Session, key, column and value of the values that lie after their session."""
    value = pl.col(name)
    is_time = isinstance(table.schema[name], pl.Datetime)
    day = value.dt.convert_time_zone(NEW_YORK.key).dt.date() if is_time else value
    key = [column for column in table.key if column != "trading_session"]
    named = pl.concat_str([pl.col(column).cast(pl.String) for column in key], separator=" ")
    return frame.filter(day > pl.col("trading_session")).select(
        "trading_session",
        row=named if key else pl.lit(""),
        column=pl.lit(name),
        value=value.cast(pl.String),
    )


def _near(name: str, other: str) -> pl.Expr:
    """Equal at the ledger's precision, or both missing."""
    one, two = pl.col(name), pl.col(other)
    both_missing = one.is_null() & two.is_null()
    return both_missing | ((one - two).abs() <= _LEDGER_ROUNDING).fill_null(False)
