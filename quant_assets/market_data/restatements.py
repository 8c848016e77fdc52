"""What changed between two vintages of a session, and what of the stored tables no longer follows. Pure.

Belongs here: comparing frames. Does not belong here: reading vintages (stored_restatements.py), what is done
about a change (automation/restatements.py).

Two vintages are compared so:

1. Rows that both have are cancelled, one for one: of a row that came twice and now comes once, one is left.
2. What is left is paired by session and identity (a bar's symbol, an action's id); where several rows of one
   identity are left, in the order of their values.
3. A pair gives one line per field that differs (``changed``); a row without a partner gives one line with all
   of its values (``withdrawn`` or ``added``).

Observation times are never compared: a delivery that says the same later has not changed anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Final

import polars as pl

from quant_assets.market_data.quality_gate import Gated
from quant_assets.market_data.schemas import BARS, QUARANTINE, UTC_TIME

DIFFERENCES: Final[dict[str, pl.DataType]] = {
    "session": pl.Date(),
    "symbol": pl.String(),
    "field": pl.String(),
    "old_value": pl.String(),
    "new_value": pl.String(),
    "observed_before": UTC_TIME,
    "observed_after": UTC_TIME,
    "kind": pl.String(),
}
#: The field of a line that stands for a whole row.
WHOLE_ROW: Final = "row"
#: A delivery again that lacks more symbols than both of what was stored is a part, not a restatement.
MAXIMUM_LOST_SHARE: Final = 0.10
MAXIMUM_LOST_SYMBOLS: Final = 4
#: Factors are products whose order may differ from run to run; prices are stored as sent.
_RELATIVE_TOLERANCE: Final = 1e-12
_SAMPLE: Final = 5


def differences(
    before: pl.DataFrame,
    after: pl.DataFrame,
    identity: str,
    observed: pl.DataFrame,
) -> pl.DataFrame:
    """The differences between two vintages of some sessions, one line per field.

    Args:
        before: Rows of the earlier vintages (`schemas.RAW_BARS` or `schemas.CORPORATE_ACTIONS`).
        after: Rows of the later vintages of the same sessions, of the same columns.
        identity: Column that names a row within its session: ``symbol`` or ``action_id``.
        observed: ``session``, ``observed_before`` and ``observed_after`` of each session's vintages.

    Returns:
        `DIFFERENCES`: values as text, empty where there was none; ``kind`` is changed, added or
        withdrawn. Sorted by session, symbol and field.
    """
    names = [name for name in before.columns if name != "observed_at"]
    pairs = _paired(
        _left_over(before, after, names),
        _left_over(after, before, names),
        ["session", identity],
        names,
    )
    both = pl.col("old").is_not_null() & pl.col("new").is_not_null()
    symbol = pl.coalesce("new:symbol", "old:symbol")
    changed = [
        pairs.filter(both, pl.col(f"old:{name}").ne_missing(pl.col(f"new:{name}"))).select(
            "session",
            symbol=symbol,
            field=pl.lit(name),
            old_value=pl.col(f"old:{name}").cast(pl.String),
            new_value=pl.col(f"new:{name}").cast(pl.String),
            kind=pl.lit("changed"),
        )
        for name in names
        if name not in ("session", identity)
    ]
    values = [name for name in names if name not in ("session", "symbol")]
    whole = pairs.filter(~both).select(
        "session",
        symbol=symbol,
        field=pl.lit(WHOLE_ROW),
        old_value=pl.when(pl.col("old").is_not_null()).then(_row_text("old", values)),
        new_value=pl.when(pl.col("new").is_not_null()).then(_row_text("new", values)),
        kind=pl.when(pl.col("old").is_null()).then(pl.lit("added")).otherwise(pl.lit("withdrawn")),
    )
    return (
        pl.concat([*changed, whole])
        .join(observed, on="session", how="left")
        .select(list(DIFFERENCES))
        .cast(pl.Schema(DIFFERENCES))
        .sort("session", "symbol", "field", nulls_last=True)
    )


def stale_sessions(gated: Gated, bars: pl.DataFrame, quarantine: pl.DataFrame) -> list[date]:
    """The sessions whose stored tables are not what the gate says of them now.

    Args:
        gated: What the gate makes of the newest deliveries, of exactly the sessions compared.
        bars: The stored `schemas.BARS` of these sessions.
        quarantine: The stored `schemas.QUARANTINE` of these sessions.

    Returns:
        Sessions, ascending. Prices are compared exactly, factors to 1e-12; when a row was observed
        does not count.
    """
    found = [
        *_differing_sessions(bars, gated.bars, ["session", "symbol"], list(BARS.schema)),
        *_differing_sessions(
            quarantine,
            gated.quarantine,
            ["session", "symbol", "rule"],
            [name for name in QUARANTINE.schema if name != "observed_at"],
        ),
    ]
    return sorted(set(found))


def cut_short(stored: pl.DataFrame, delivered: pl.DataFrame) -> pl.DataFrame:
    """The sessions of which a delivery lost more symbols than a restatement could.

    Args:
        stored: ``session`` and ``symbol`` of the newest vintages.
        delivered: ``session`` and ``symbol`` of the delivery that would become the next ones.

    Returns:
        ``session``, ``stored`` and ``lost`` symbols, and ``sample`` (names of some), by session: where
        more than `MAXIMUM_LOST_SYMBOLS` and more than `MAXIMUM_LOST_SHARE` of the stored ones are lost.
    """
    had = stored.select("session", "symbol").drop_nulls().unique()
    lost = (
        had.join(
            delivered.select("session", "symbol").unique(), on=["session", "symbol"], how="anti"
        )
        .sort("session", "symbol")
        .group_by("session", maintain_order=True)
        .agg(lost=pl.len(), sample=pl.col("symbol").head(_SAMPLE).str.join(", "))
    )
    counted = had.group_by("session").agg(stored=pl.len())
    return (
        lost.join(counted, on="session")
        .filter(
            pl.col("lost") > MAXIMUM_LOST_SYMBOLS,
            pl.col("lost") > MAXIMUM_LOST_SHARE * pl.col("stored"),
        )
        .select("session", "stored", "lost", "sample")
        .sort("session")
    )


def _left_over(frame: pl.DataFrame, other: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The rows of a frame that the other does not have, one for one."""
    copy = pl.int_range(pl.len()).over(names)
    return (
        frame.select(names)
        .with_columns(copy=copy)
        .join(
            other.select(names).with_columns(copy=copy),
            on=[*names, "copy"],
            how="anti",
            nulls_equal=True,
        )
        .drop("copy")
    )


def _paired(
    old: pl.DataFrame, new: pl.DataFrame, identity: Sequence[str], names: Sequence[str]
) -> pl.DataFrame:
    """Rows side by side: the identity, `old:` and `new:` values, and which side is there."""

    def side(frame: pl.DataFrame, label: str) -> pl.DataFrame:
        return (
            frame.select(names)
            .sort(names)
            .with_columns(place=pl.int_range(pl.len()).over(identity))
            .select(
                *identity,
                "place",
                pl.lit(value=True).alias(label),
                pl.all().exclude("place").name.prefix(f"{label}:"),
            )
        )

    return side(old, "old").join(
        side(new, "new"), on=[*identity, "place"], how="full", nulls_equal=True, coalesce=True
    )


def _row_text(side: str, names: Sequence[str]) -> pl.Expr:
    texts = [pl.format(f"{name} {{}}", pl.col(f"{side}:{name}").cast(pl.String)) for name in names]
    return pl.concat_str(texts, separator=", ", ignore_nulls=True)


def _differing_sessions(
    old: pl.DataFrame, new: pl.DataFrame, identity: Sequence[str], names: Sequence[str]
) -> list[date]:
    pairs = _paired(old.select(names), new.select(names), identity, names)
    one_sided = pl.col("old").is_null() | pl.col("new").is_null()
    differs = [
        _values_differ(old.schema[name], pl.col(f"old:{name}"), pl.col(f"new:{name}"))
        for name in names
        if name not in identity
    ]
    return (
        pairs.filter(pl.any_horizontal(one_sided, *differs))
        .get_column("session")
        .unique()
        .to_list()
    )


def _values_differ(dtype: pl.DataType, old: pl.Expr, new: pl.Expr) -> pl.Expr:
    unequal = old.ne_missing(new)
    if not dtype.is_float():
        return unequal
    near = (old - new).abs() <= _RELATIVE_TOLERANCE * pl.max_horizontal(old.abs(), new.abs())
    return unequal & ~near.fill_null(value=False)
