"""Who was a member of an index at a session, and which bar is that member's.

Belongs here: the membership file and its rules, and the match of its names with the tickers of bars. Does
not belong here: what else a security needs to be in the universe (universe.py).

1. The file names spans: a symbol was a member from ``start_date`` until the day before ``end_date``; an
   empty ``end_date`` means still. A file that contradicts itself is refused as a whole.
2. Such files often carry a company under a later name: FB's years stand under META. So each ticker that
   has a bar at session T is followed through the renames after T to the names that it bore later. A
   merger or a removal ends the ticker: whoever takes it afterwards is somebody else.
3. A bar is a member's when one of its names was a member at T. Where several bars could be the same
   member, the one whose last name it is counts (META of 2016 was FB, not the fund that was called META
   until 2022), then the one that was renamed least often.
4. A member at T without such a bar is reported, never replaced.

Renames after T are no look into the future: they only say which line of the user's file speaks of a
company. Whether it was a member at T is decided by the file's spans at T alone, and a company is neither
added nor dropped because it was renamed later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl

from quant_resources.errors import DataError

_SPANS: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "start_date": pl.Date(),
    "end_date": pl.Date(),
}
_ENDINGS = ("merger", "worthless_removal")


@dataclass(frozen=True)
class Membership:
    """The members of an index at some sessions.

    Attributes:
        bars: ``session`` and ``symbol`` of the bars that are members', with the ``member`` as the
            file names it; unique by session and symbol, and by session and member.
        without_bar: ``session`` and ``member`` of members that have no bar, sorted.
    """

    bars: pl.DataFrame
    without_bar: pl.DataFrame


def read_membership(file: Path) -> pl.DataFrame:
    """The spans of a membership file.

    Args:
        file: CSV (UTF-8, comma, header; dates as 2024-03-15) or Parquet with the columns ``symbol``,
            ``start_date`` and ``end_date``; further columns are ignored.

    Returns:
        ``symbol``, ``start_date`` and ``end_date`` (exclusive; null: still a member), sorted.

    Raises:
        DataError: The file is missing, is neither, lacks a column, or contradicts itself.
    """
    readers = {".csv": _read_csv, ".parquet": pl.read_parquet}
    if file.suffix.lower() not in readers:
        raise DataError(f"{_named(file)} is neither .csv nor .parquet; name one that is.")
    try:
        sent = readers[file.suffix.lower()](file)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{_named(file)} cannot be read: {error}.") from error
    missing = [name for name in _SPANS if name not in sent.columns]
    if missing:
        raise DataError(
            f"{_named(file)} has no column {missing[0]!r} but {', '.join(sent.columns)[:200]}; it "
            "needs symbol, start_date and end_date, separated by commas."
        )
    spans = _typed(sent.select(list(_SPANS)).with_row_index("row", offset=1), file)
    if spans.is_empty():
        raise DataError(f"{_named(file)} names no member.")
    return _consistent(spans, file).drop("row")


def membership(
    spans: pl.DataFrame, bars: pl.DataFrame, actions: pl.DataFrame, sessions: Sequence[date]
) -> Membership:
    """The members at some sessions and the bars that are theirs.

    Args:
        spans: What `read_membership` returned.
        bars: ``session`` and ``symbol`` of the bars of the sessions.
        actions: All corporate actions that are known (`schemas.CORPORATE_ACTIONS`); renames and ends
            of tickers are read.
        sessions: The sessions of interest.
    """
    wanted = pl.DataFrame({"session": list(sessions)}, schema={"session": pl.Date})
    members = wanted.join_where(
        spans,
        pl.col("start_date") <= pl.col("session"),
        (pl.col("end_date") > pl.col("session")) | pl.col("end_date").is_null(),
    ).select("session", member="symbol")
    tickers = bars.select("session", "symbol").unique().join(wanted, on="session", how="semi")
    matched = (
        _names(tickers, actions)
        .join(members, left_on=["session", "name"], right_on=["session", "member"])
        .sort("session", "name", "is_last", "renames", descending=[False, False, True, False])
        .unique(["session", "name"], keep="first", maintain_order=True)
        .sort("session", "symbol", "is_last", "renames", descending=[False, False, True, False])
        .unique(["session", "symbol"], keep="first", maintain_order=True)
        .select("session", "symbol", member="name")
    )
    without = members.join(matched, on=["session", "member"], how="anti").sort("session", "member")
    return Membership(matched, without)


def _names(tickers: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """Each ticker at its session with every name that it bears then or later, and which is the last."""
    links = _links(actions)
    # How a ticker goes on from a day depends on neither the bar nor the session: few have any link.
    found = [tickers.with_columns(name="symbol", renames=0)]
    walking = tickers.join(links, on="symbol", how="semi").with_columns(
        name="symbol", day="session"
    )
    while walking.height:
        walking = (
            walking.sort("day")
            .join_asof(
                links.select(name="symbol", linked="session", to="new_symbol").sort("linked"),
                left_on="day",
                right_on="linked",
                by="name",
                strategy="forward",
                allow_exact_matches=False,
                # Sorted on the line above; Polars cannot see it within the groups.
                check_sortedness=False,
            )
            .filter(pl.col("to").is_not_null())
            .select("session", "symbol", name="to", day="linked")
        )
        found.append(
            walking.select("session", "symbol", "name", renames=pl.lit(len(found), pl.Int32))
        )
    return pl.concat(found).with_columns(
        is_last=pl.col("renames") == pl.col("renames").max().over("session", "symbol")
    )


def _links(actions: pl.DataFrame) -> pl.DataFrame:
    """What became of a ticker: another name, or null where it ended."""
    renamed = (pl.col("action_type") == "name_change") & pl.col("new_symbol").is_not_null()
    return (
        actions.filter(renamed | pl.col("action_type").is_in(_ENDINGS))
        .select("session", "symbol", new_symbol=pl.when(renamed).then("new_symbol"))
        .filter(pl.col("new_symbol").is_null() | (pl.col("new_symbol") != pl.col("symbol")))
        .sort("session", "symbol", "new_symbol", nulls_last=True)
        .unique(["session", "symbol"], keep="first", maintain_order=True)
    )


def _read_csv(file: Path) -> pl.DataFrame:
    # Everything as text first: a guessed type would turn the ticker TRUE into a truth value. Excel's
    # byte order mark is read over.
    return pl.read_csv(file, infer_schema=False)


def _typed(sent: pl.DataFrame, file: Path) -> pl.DataFrame:
    columns = [pl.col("symbol").cast(pl.String).str.strip_chars().str.to_uppercase()]
    for name in ("start_date", "end_date"):
        dtype = sent.schema[name]
        if dtype == pl.String:
            text = pl.col(name).str.strip_chars()
            blank = text.is_null() | (text == "")
            day = text.str.to_date("%Y-%m-%d", strict=False)
            wrong = sent.filter(~blank & day.is_null())
            if wrong.height:
                raise DataError(
                    f"{_named(file)}: {name} {wrong.item(0, name)!r} of {wrong.item(0, 'symbol')} "
                    f"(row {wrong.item(0, 'row')}) is no date; write dates as 2024-03-15."
                )
            columns.append(day.alias(name))
        elif dtype in (pl.Date, pl.Null) or isinstance(dtype, pl.Datetime):
            columns.append(pl.col(name).cast(pl.Date))
        else:
            raise DataError(f"{_named(file)}: {name} is {dtype}, not dates.")
    return sent.select("row", *columns)


def _consistent(spans: pl.DataFrame, file: Path) -> pl.DataFrame:
    nameless = spans.filter(
        pl.col("symbol").is_null() | (pl.col("symbol") == "") | pl.col("start_date").is_null()
    )
    if nameless.height:
        raise DataError(
            f"{_named(file)}: row {nameless.item(0, 'row')} lacks its symbol or start_date."
        )
    reversed_spans = spans.filter(pl.col("end_date") <= pl.col("start_date"))
    if reversed_spans.height:
        wrong = reversed_spans.row(0, named=True)
        raise DataError(
            f"{_named(file)}: {wrong['symbol']} ends on {wrong['end_date']}, not after its start on "
            f"{wrong['start_date']} (row {wrong['row']}); end_date is the first day outside."
        )
    ordered = spans.sort("symbol", "start_date")
    end_before = pl.col("end_date").shift(1).over("symbol")
    follows = pl.col("symbol").shift(1) == pl.col("symbol")
    overlapping = ordered.filter(
        follows & (end_before.is_null() | (pl.col("start_date") < end_before))
    )
    if overlapping.height:
        wrong = overlapping.row(0, named=True)
        raise DataError(
            f"{_named(file)}: {wrong['symbol']} starts on {wrong['start_date']} (row {wrong['row']}) "
            "while an earlier span of it still runs; end that one first."
        )
    return ordered


def _named(file: Path) -> str:
    return f"The membership file {file} (QUANT_UNIVERSE_MEMBERSHIP)"
