"""Where two sources tell different things of the same bar.

Belongs here: the comparison alone, of raw bars as both sources sent them. Does not belong here: fetching
them (assets.py), and which of the two is right, which nobody can tell from two.

1. Only sessions for which the second source answered and only symbols that it was asked for are compared;
   a session without an answer gives one row that says so, so that silence is never taken for agreement.
2. A bar that one source has and the other has not differs in its presence. Of a row that came more than
   once the first counts: repetition is the gate's to judge.
3. Open, high, low and close differ when |first - second| / |first| is beyond the tolerance for prices,
   volume when it is beyond its own, wider one: vendors count odd lots, late reports and corrections
   differently. Where the first is zero there is no ratio, and any other value differs.
4. A value that one of them did not send is not compared; holes in the first source are the gate's.
5. Volume is left out where one of the sources counts a single venue: it is no estimate of the market's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from quant_assets.market_data.schemas import SOURCE_DIFFERENCES

PRICES = ("open", "high", "low", "close")
#: Feeds that see the trades of one venue only (IEX has about 2 % of the volume).
SINGLE_VENUES = frozenset({"alpaca/iex"})
#: The symbol of a row that speaks of a whole session.
EVERY_SYMBOL = "*"
_KEYS = ["session", "symbol"]


@dataclass(frozen=True)
class Tolerances:
    """Largest relative differences that are none.

    Attributes:
        price: Of open, high, low and close.
        volume: Of the volume.
    """

    price: float = 0.001
    volume: float = 0.05


def differences(
    first: pl.DataFrame,
    second: pl.DataFrame,
    second_source: str,
    sessions: Sequence[date],
    symbols: Sequence[str],
    *,
    tolerances: Tolerances,
) -> pl.DataFrame:
    """What two sources tell differently.

    Args:
        first: Raw bars of the first source (`schemas.RAW_BARS`).
        second: Raw bars of the second source (`quant_resources.bar_source.RAW_BAR_SCHEMA`).
        second_source: Name of the second source.
        sessions: The sessions for which the second source answered.
        symbols: The symbols that it was asked for.
        tolerances: What is no difference.

    Returns:
        Rows of `schemas.SOURCE_DIFFERENCES`, sorted by key.
    """
    both = _comparable(first, sessions, symbols).join(
        _comparable(second, sessions, symbols),
        on=_KEYS,
        how="full",
        suffix="_of_second",
        coalesce=True,
    )
    names = first.get_column("source").drop_nulls()
    named = pl.col("source").fill_null(names[-1] if names.len() else EVERY_SYMBOL)
    present, second_present = (
        pl.col(name).is_not_null().cast(pl.Float64) for name in ("source", "source_of_second")
    )
    told = [
        both.select(
            *_KEYS,
            field=pl.lit("presence"),
            value=present,
            other_value=second_present,
            tolerance=pl.lit(0.0),
            source=named,
        )
    ]
    single = named.is_in(SINGLE_VENUES) | pl.lit(second_source in SINGLE_VENUES)
    compared = {
        **{name: (tolerances.price, pl.lit(value=True)) for name in PRICES},
        "volume": (tolerances.volume, ~single),
    }
    told += [
        both.filter(
            condition, pl.col(name).is_finite(), pl.col(f"{name}_of_second").is_finite()
        ).select(
            *_KEYS,
            field=pl.lit(name),
            value=pl.col(name),
            other_value=pl.col(f"{name}_of_second"),
            tolerance=pl.lit(tolerance),
            source=named,
        )
        for name, (tolerance, condition) in compared.items()
    ]
    gap = (pl.col("value") - pl.col("other_value")).abs()
    return (
        pl.concat(told)
        .with_columns(
            relative_difference=pl.when(pl.col("value") != 0).then(gap / pl.col("value").abs()),
            other_source=pl.lit(second_source),
        )
        .filter(
            (pl.col("relative_difference") > pl.col("tolerance"))
            | (pl.col("relative_difference").is_null() & (gap > 0))
        )
        .select(list(SOURCE_DIFFERENCES.schema))
        .sort(SOURCE_DIFFERENCES.key)
    )


def unanswered(sessions: Sequence[date], first_source: str, second_source: str) -> pl.DataFrame:
    """One row per session that says that the second source gave no usable answer."""
    return (
        pl.DataFrame({"session": list(sessions)}, schema={"session": pl.Date})
        .with_columns(
            symbol=pl.lit(EVERY_SYMBOL),
            field=pl.lit("answer"),
            value=pl.lit(None, pl.Float64),
            other_value=pl.lit(None, pl.Float64),
            relative_difference=pl.lit(None, pl.Float64),
            tolerance=pl.lit(0.0),
            source=pl.lit(first_source),
            other_source=pl.lit(second_source),
        )
        .select(list(SOURCE_DIFFERENCES.schema))
    )


def _comparable(
    bars: pl.DataFrame, sessions: Sequence[date], symbols: Sequence[str]
) -> pl.DataFrame:
    return (
        bars.select(*_KEYS, *PRICES, "volume", "source")
        .filter(pl.col("session").is_in(list(sessions)), pl.col("symbol").is_in(list(symbols)))
        .unique(_KEYS, keep="first", maintain_order=True)
    )
