"""A user's own files as a `BarSource`.

What belongs here: sessions, closes and the promises of `BarSource`. What does not: the layout of the files
(file_layout.py), reading them (file_rows.py), adjusted prices (file_prices.py).

Rows come as the files write them, whatever is wrong with them; that is for the quality gate to say. Refused
is what would hide something: a cell that cannot be read in a session that is asked for, a date that cannot
be read or lies in the future (its row is missing somewhere), a session without any bar, files that change
while they are read, prices that contradict their declaration at most splits, and a bar of the day on which
its file was last written before the close, which is a part of the day.

A day is a day: ``bar_time`` is the midnight in New York at which it began. Files know no earlier owner of a
ticker and no broker's permissions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Self

import polars as pl

from quant_resources.bar_source import (
    CORPORATE_ACTION_SCHEMA,
    RAW_BAR_SCHEMA,
    assert_every_session,
    chosen_symbols,
    session_at_or_after,
)
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.errors import ConfigurationError, SourceError
from quant_resources.file_actions import file_actions
from quant_resources.file_cells import NUMBERS, day_cell, why_unreadable
from quant_resources.file_layout import FileLayout, load_layout
from quant_resources.file_prices import (
    DISTRIBUTING,
    SHARE_CHANGING,
    assert_declared,
    made_raw,
    split_evidence,
    undoing,
)
from quant_resources.file_rows import BarFile, FileRows, find_files

_NAMED = 5


@dataclass(frozen=True)
class _Survey:
    """What all files together hold.

    Attributes:
        files: The files, as they were when they were surveyed.
        days: Every day of a row, ascending.
        newest: By file, its newest day.
        actions: Corporate actions.
        undo: Multipliers that make adjusted prices raw; None for raw ones.
    """

    files: tuple[BarFile, ...]
    days: tuple[date, ...]
    newest: dict[str, date]
    actions: pl.DataFrame
    undo: pl.DataFrame | None


class FileBars:
    """Files of bars as a `BarSource`.

    Args:
        layout: What the files look like.
        cache: Folder for what was read from CSV; None to keep it in memory.
        symbols: The symbols to deliver; empty for everything in the files.
        clock: The time now, aware; decides which sessions have closed.
    """

    def __init__(
        self,
        layout: FileLayout,
        cache: Path | None = None,
        symbols: Sequence[str] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.layout = layout
        self._rows = FileRows(layout, cache)
        self._symbols = tuple(sorted(set(symbols)))
        self._clock = clock
        self._surveyed: _Survey | None = None

    @classmethod
    def from_layout(
        cls, path: Path, cache: Path | None = None, symbols: Sequence[str] = ()
    ) -> Self:
        """The files that a layout file describes.

        Raises:
            ConfigurationError: The layout is not there or wrong.
        """
        return cls(load_layout(path), cache, symbols)

    @property
    def name(self) -> str:
        """Source as written into every row, such as "files/vendor"."""
        return f"files/{self.layout.name}"

    def newest_closed_session(self) -> date:
        """The newest session in the files that had closed when its files were written."""
        survey = self._survey()
        now = self._clock()
        unfinished = {session for session, _ in _parts_of_days(survey)}
        for day in reversed(survey.days):
            if XNYS.is_session(day) and day not in unfinished and XNYS.close(day) <= now:
                return day
        raise SourceError(
            f"{self.name} holds no bar of a session that has closed; its days go from "
            f"{survey.days[0]} to {survey.days[-1]}."
        )

    def symbols(self) -> list[str]:
        """The configured symbols, each in the files, or every one in the files."""
        return chosen_symbols(self.name, self._symbols, self._held())

    def bars(
        self, symbols: Sequence[str] | None, first: date, last: date, asof: date | None = None
    ) -> pl.DataFrame:
        """Raw daily bars; see `BarSource.bars`."""
        wanted = XNYS.sessions(first, last)
        if not wanted:
            raise SourceError(f"There is no session between {first} and {last}.")
        if asof is not None:
            raise ConfigurationError(
                f"{self.name} cannot tell who owned a ticker on {asof}; files hold rows as they traded "
                "under it."
            )
        if XNYS.close(wanted[-1]) > self._clock():
            raise SourceError(f"Session {wanted[-1]} has not closed; ask for it after its close.")
        survey = self._survey()
        after = XNYS.previous(wanted[0])
        files = [f for f in survey.files if f.day is None or after < f.day <= wanted[-1]]
        lazy = self._rows.scan(files, survey.files).filter(
            pl.col("day") > after, pl.col("day") <= wanted[-1]
        )
        chosen = list(symbols) if symbols is not None else self.symbols() if self._symbols else None
        if chosen is not None:
            lazy = lazy.filter(pl.col("symbol").is_in(chosen))
        observed_at = datetime.now(UTC)
        with readable():
            rows = lazy.collect()
        self._assert_readable(rows)
        self._assert_whole(survey, wanted)
        for file in survey.files:
            file.source.assert_unchanged()
        if survey.undo is not None:
            rows = made_raw(rows, survey.undo, self.layout)
        frame = rows.with_columns(
            session=session_at_or_after(pl.col("day"), wanted),
            bar_time=pl.col("day")
            .cast(pl.Datetime("us"))
            .dt.replace_time_zone(NEW_YORK.key)
            .dt.convert_time_zone("UTC"),
            source=pl.lit(self.name),
            asof=pl.lit(None, pl.Date),
            observed_at=pl.lit(observed_at).dt.cast_time_unit("us"),
        ).select(list(RAW_BAR_SCHEMA))
        where = self.layout.located(self.layout.bars.path)
        assert_every_session(
            self.name, frame, wanted, f"look for what was not delivered in {where}"
        )
        # By the values too: a vendor that shuffles its rows has restated nothing.
        return frame.sort("session", "symbol", "bar_time", *NUMBERS, nulls_last=True)

    def corporate_actions(self, first: date, last: date) -> pl.DataFrame:
        """Corporate actions by session; see `BarSource.corporate_actions`."""
        wanted = XNYS.sessions(first, last)
        if not wanted:
            raise SourceError(f"There is no session between {first} and {last}.")
        observed_at = datetime.now(UTC)
        actions = self._survey().actions.filter(
            pl.col("ex_date") > XNYS.previous(wanted[0]), pl.col("ex_date") <= wanted[-1]
        )
        if self._symbols:
            actions = actions.filter(pl.col("symbol").is_in(list(self._symbols)))
        return (
            actions.with_columns(
                session=session_at_or_after(pl.col("ex_date"), wanted),
                source=pl.lit(self.name),
                observed_at=pl.lit(observed_at).dt.cast_time_unit("us"),
            )
            .select(list(CORPORATE_ACTION_SCHEMA))
            .sort("session", "symbol", "action_id")
        )

    def rows(self) -> tuple[list[BarFile], pl.LazyFrame]:
        """All files and all rows as they are (`file_rows.ROW_SCHEMA`), judged by nobody."""
        files = find_files(self.layout)
        return files, self._rows.scan(files, files)

    def _held(self) -> list[str]:
        with readable():
            told = self._scan(self._survey()).select(pl.col("symbol").unique()).collect()
        return told.get_column("symbol").drop_nulls().sort().to_list()

    def _scan(self, survey: _Survey) -> pl.LazyFrame:
        return self._rows.scan(survey.files, survey.files)

    def _survey(self) -> _Survey:
        """Look over all files; once, unless a file has come, gone or changed since."""
        files = tuple(find_files(self.layout))
        if self._surveyed is not None and self._surveyed.files == files:
            return self._surveyed
        rows = self._rows.scan(files, files)
        with readable():
            by_file, days = pl.collect_all(
                [
                    rows.group_by("file").agg(
                        newest=pl.col("day").max(), undated=pl.col("day").null_count()
                    ),
                    rows.select(pl.col("day").unique().sort()),
                ],
                engine="streaming",
            )
        known = days.get_column("day").drop_nulls().to_list()
        if by_file.get_column("undated").sum():
            named = by_file.filter(pl.col("undated") > 0).get_column("file").min()
            self._raise_unreadable(str(named), pl.col("day").is_null())
        self._assert_none_in_future(rows, known)
        actions = file_actions(self.layout)
        survey = _Survey(
            files=files,
            days=tuple(known),
            newest=dict(by_file.select("file", "newest").iter_rows()),
            actions=actions,
            undo=self._checked_declaration(rows, actions, known[-1]),
        )
        for file in files:
            file.source.assert_unchanged()
        self._surveyed = survey
        return survey

    def _checked_declaration(
        self, rows: pl.LazyFrame, actions: pl.DataFrame, newest: date
    ) -> pl.DataFrame | None:
        prices = self.layout.prices
        adjusting = SHARE_CHANGING + (DISTRIBUTING if prices == "adjusted" else ())
        concerned = actions.filter(pl.col("action_type").is_in(adjusting))["symbol"].unique()
        with readable():
            closes = (
                rows.filter(pl.col("symbol").is_in(concerned.to_list()))
                .select("symbol", "day", "close")
                .collect()
            )
        assert_declared(split_evidence(closes, actions), prices, self.name)
        if prices == "adjusted" and actions.filter(action_type="cash_dividend").is_empty():
            raise SourceError(
                f'{self.name}: prices are declared "adjusted" for dividends, but the actions file names '
                'no dividend; complete it, or declare the prices "split_adjusted" if that is what they '
                "are."
            )
        return None if prices == "raw" else undoing(actions, closes, newest, prices)

    def _assert_none_in_future(self, rows: pl.LazyFrame, known: Sequence[date]) -> None:
        today = self._clock().astimezone(NEW_YORK).date()
        if known[-1] <= today:
            return
        with readable():
            paths = rows.filter(pl.col("day") > today).select(pl.col("file").min()).collect()
        row = self._first_row(str(paths.item()), pl.col("day") > today)
        raise SourceError(
            f"{_place(row)}: the date {row['day']} lies in the future, so that its row is missing "
            "elsewhere; correct the file, or date_format in the layout."
        )

    def _assert_readable(self, rows: pl.DataFrame) -> None:
        bad = rows.filter(pl.col("bad_column").is_not_null())
        if bad.height:
            low = bad.get_column("file").min()
            days = bad.filter(file=low).get_column("day")
            self._raise_unreadable(
                str(low),
                pl.col("bad_column").is_not_null() & pl.col("day").is_in(days.unique().to_list()),
                bad.height,
            )

    def _raise_unreadable(self, path: str, chosen: pl.Expr, count: int = 0) -> None:
        row = self._first_row(path, chosen)
        column = row["bad_column"]
        written = self.layout.bars.mapping.get("date" if column == "day" else column, column)
        per = self.layout.bars.one_file_per
        if (column == "symbol" and per == "symbol") or (
            column == "day" and per == "session" and self._reads_as_day(row["bad_cell"])
        ):
            why = (
                f"{row['bad_cell']!r} is not what the name of the file says; correct the file, or leave "
                f"{written} out of bars.columns"
            )
        else:
            why = why_unreadable(column, row["bad_cell"], self.layout.bars)
        more = f" ({count} cells like this in the sessions asked for.)" if count > 1 else ""
        raise SourceError(f"{_place(row)}, column {written}: {why}.{more}")

    def _reads_as_day(self, text: str | None) -> bool:
        frame = pl.DataFrame({"text": [text]}, schema={"text": pl.String})
        return not frame.select(day_cell("text", pl.String(), self.layout.bars).bad).item()

    def _first_row(self, path: str, chosen: pl.Expr) -> dict[str, Any]:
        file = next(f for f in find_files(self.layout) if str(f.source.path) == path)
        with readable():
            found = self._rows.numbered(file).filter(chosen).sort("line").head(1).collect()
        if found.is_empty():
            raise SourceError(f"{path} changed while it was being read; run again.")
        return found.row(0, named=True)

    def _assert_whole(self, survey: _Survey, wanted: Sequence[date]) -> None:
        for session, path in _parts_of_days(survey):
            if session in wanted:
                raise SourceError(
                    f"{path} was last written before session {session} closed, so that its bars are a "
                    "part of the day; deliver it again after the close (or touch it, if its time is "
                    "wrong)."
                )


def _parts_of_days(survey: _Survey) -> Iterator[tuple[date, str]]:
    """Sessions of which a file holds a part: its newest day, on which it was written before the close."""
    for file in survey.files:
        written = datetime.fromtimestamp(file.source.modified_ns / 1e9, UTC)
        day = written.astimezone(NEW_YORK).date()
        path = str(file.source.path)
        if survey.newest.get(path) == day and XNYS.is_session(day) and written < XNYS.close(day):
            yield day, path


def _place(row: dict[str, Any]) -> str:
    what = ", ".join(str(row[name]) for name in ("symbol", "day") if row[name] is not None)
    return f"{row['file']}, line {row['line']}" + (f" ({what})" if what else "")


@contextmanager
def readable() -> Iterator[None]:
    """Reading lazily fails late: whatever is wrong with a file then is one sentence."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SourceError(
            f"The files of bars cannot be read ({str(error).splitlines()[0]}); they may have changed "
            "meanwhile, or are damaged: run again, and deliver the file again if it stays so."
        ) from error
