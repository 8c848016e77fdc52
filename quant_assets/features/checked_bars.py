"""What bars and members must be before anything is computed from them: one set of rules, one refusal each.

Belongs here: checks of frames that a function of this stage was given, whoever gave them. Does not
belong here: judging deliveries (`market_data/validation.py`), and what a feature makes of a missing
value.

A frame is taken as it is or refused with one sentence that names the first offender; nothing is
dropped. In the order of the checks:

1. Columns are there; sessions are dates; owners (symbols, securities) are text, categories or whole
   numbers; values are numbers of any type.
2. Every row has an owner and a session, and no two rows have the same ones.
3. Prices are above zero and volumes are not below it. Null, NaN and infinite mean "not observed".
4. Adjustment factors are there and above zero: a missing one would make every earlier price missing.
5. Sessions are in the calendar, and a bar is not older than its listing.
"""

from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from typing import Final

import polars as pl

from quant_resources.errors import DataError

PRICES: Final = frozenset({"open", "high", "low", "close"})
VOLUMES: Final = frozenset({"volume", "dollar_volume"})
FACTORS: Final = frozenset({"price_factor", "volume_factor"})

_OWNERS: Final = (pl.String, pl.Categorical, pl.Enum)


def checked_bars(
    bars: pl.DataFrame,
    what: str,
    values: Sequence[str],
    owner: str = "symbol",
    dtype: type[pl.DataType] = pl.Float64,
) -> pl.DataFrame:
    """Refuse bars that are none; otherwise return them with their values as floats.

    Args:
        bars: One row per owner and session, in any order.
        what: Who needs them, as the refusal says it: "alpha158".
        values: The columns that are computed with. What a column must be follows from its name
            (`PRICES`, `VOLUMES`, `FACTORS`; any other is a number).
        owner: The column that says whose bar a row is.
        dtype: Float type of the values.

    Returns:
        All columns and rows in their order; `values` as `dtype`, null where not observed;
        `first_session`, if there is one, as Date.

    Raises:
        DataError: One of the module's rules is broken.
    """
    dates = [name for name in ("session", "first_session") if name in bars.columns]
    _check_columns(bars, what, owner, dates, values)
    number = pl.col(values).cast(dtype, strict=False)
    frame = bars.with_columns(
        pl.col(dates).cast(pl.Date), pl.when(number.is_finite()).then(number).name.keep()
    )
    _check_keys(frame, what, owner, dates)
    _check_values(frame, what, owner, values)
    if "first_session" in dates:
        early = frame.filter(pl.col("session") < pl.col("first_session"))
        if early.height:
            raise DataError(
                f"{what} got a bar of {_first(early, owner)}, before its first_session "
                f"{_first_row(early, owner)['first_session']}: give each listing a {owner} of its own or "
                "correct first_session."
            )
    return frame


def checked_history(
    bars: pl.DataFrame,
    universe: pl.DataFrame,
    calendar: Sequence[date],
    what: str,
    values: Sequence[str],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Refuse bars and members of a universe that are none; otherwise return both.

    Args:
        bars: As in `checked_bars`, their owners in `security_id`.
        universe: session, symbol and security_id; one row per member.
        calendar: The market's sessions, covering both, ascending.
        what: As in `checked_bars`.
        values: As in `checked_bars`.

    Returns:
        The bars as `checked_bars` returns them, and the universe as it is.

    Raises:
        DataError: One of the module's rules is broken, by the bars or by the members, or the owners of
            both cannot be compared.
    """
    owner, members = "security_id", f"the universe of {what}"
    bars = checked_bars(bars, what, values, owner)
    _check_columns(universe, members, owner, ["session"], ())
    if not universe.height:
        universe = universe.with_columns(
            pl.col("session").cast(pl.Date), pl.col(owner).cast(bars.schema[owner])
        )
    elif bars.height and universe.schema[owner] != bars.schema[owner]:
        raise DataError(
            f"{what} got {owner} as {bars.schema[owner]} in the bars and as {universe.schema[owner]} in the "
            "universe, which cannot be compared: cast one of them."
        )
    _check_keys(universe, members, owner, ["session"])
    if any(later <= earlier for earlier, later in pairwise(calendar)):
        raise DataError(f"{what} needs a calendar that ascends, each session once: sort it.")
    check_sessions(bars, calendar, what, owner)
    check_sessions(universe, calendar, members, owner)
    return bars, universe


def check_sessions(
    frame: pl.DataFrame, calendar: Sequence[date], what: str, owner: str = "symbol"
) -> None:
    """Refuse rows on days that are no session; arguments and errors as in `checked_bars`.

    Args:
        frame: Checked bars or members.
        calendar: The market's sessions, in any order.
        what: As in `checked_bars`.
        owner: As in `checked_bars`.
    """
    known = pl.Series(calendar, dtype=pl.Date)
    days = frame["session"].unique()
    foreign = days.filter(~days.is_in(known.implode()))
    if len(foreign):
        row = frame.filter(pl.col("session").is_in(foreign.implode()))
        raise DataError(
            f"{what} got a row of {_first(row, owner)}, which is no session of the calendar ({len(foreign)} "
            "such days): correct its date or pass the calendar of its market."
        )


def _check_columns(
    frame: pl.DataFrame, what: str, owner: str, dates: Sequence[str], values: Sequence[str]
) -> None:
    """Rule 1."""
    missing = [name for name in (owner, "session", *values) if name not in frame.columns]
    if missing:
        raise DataError(f"{what} needs columns that are not there: {', '.join(missing)}. Add them.")
    if not frame.height:
        return
    for name in dates:
        if frame.schema[name] not in (pl.Date, pl.Null):
            raise DataError(f"{what} needs {name} as Date, not {frame.schema[name]}: cast it.")
    dtype = frame.schema[owner]
    if not (dtype.is_integer() or dtype in (*_OWNERS, pl.Null)):
        raise DataError(
            f"{what} needs {owner} as text, category or whole number, not {dtype}: cast it."
        )
    if frame.schema.get("wanted", pl.Boolean()) != pl.Boolean or (
        "wanted" in frame.columns and frame["wanted"].null_count()
    ):
        raise DataError(
            f"{what} needs wanted as true or false in every row: fill it, with false where a row is "
            "there for its history only."
        )
    for name in values:
        dtype = frame.schema[name]
        if not dtype.is_numeric() and dtype != pl.Null:
            raise DataError(f"{what} needs {name} as a number, not {dtype}: cast it.")


def _check_keys(frame: pl.DataFrame, what: str, owner: str, dates: Sequence[str]) -> None:
    """Rule 2."""
    keys = [owner, *dates]
    keyless = frame.filter(pl.any_horizontal(pl.col(keys).is_null()))
    if keyless.height:
        raise DataError(
            f"{what} got {keyless.height} rows without {', '.join(keys)}, the first one "
            f"{keyless.select(keys).row(0, named=True)}: repair or drop them."
        )
    owners = pl.col(owner).n_unique()
    if not frame.group_by("session").agg((owners == pl.len()).alias("single"))["single"].all():
        doubled = frame.filter(~pl.struct(owner, "session").is_first_distinct())
        raise DataError(
            f"{what} got {doubled.height} rows twice, the first one of {_first(doubled, owner)}: keep one row "
            f"per {owner} and session."
        )


def _check_values(frame: pl.DataFrame, what: str, owner: str, values: Sequence[str]) -> None:
    """Rules 3 and 4."""
    rules = (
        (
            PRICES,
            lambda value: value <= 0,
            "a price that is not above zero",
            "correct or drop them",
        ),
        (VOLUMES, lambda value: value < 0, "a volume below zero", "correct or drop them"),
        (
            FACTORS,
            lambda value: value.is_null() | (value <= 0),
            "an adjustment factor that is missing or not above zero",
            "set it, to 1 where nothing happened",
        ),
    )
    for names, broken, words, remedy in rules:
        judged = [name for name in values if name in names]
        for name in judged:
            bad = frame.filter(broken(pl.col(name)))
            if bad.height:
                raise DataError(
                    f"{what} got {bad.height} bars with {words}, the first one {name} = "
                    f"{_first_row(bad, owner)[name]} of {_first(bad, owner)}: {remedy}."
                )


def _first_row(frame: pl.DataFrame, owner: str) -> dict[str, object]:
    return frame.sort("session", owner).row(0, named=True)


def _first(frame: pl.DataFrame, owner: str) -> str:
    """Owner and session of the first row; a name that would not be seen as one is quoted."""
    row = _first_row(frame, owner)
    name = str(row[owner])
    shown = name if name.isprintable() and name == name.strip() and name else repr(name)
    return f"{shown} on {row['session']}"
