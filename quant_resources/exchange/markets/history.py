"""Replay of recorded history: a folder (or one file) of Parquet or CSV.

The bars file is the one with the columns symbol, date, open, high, low, close and volume (vwap and
trade_count if there). Its rows are served as they are, the broken ones too, as a vendor would deliver
them; only a file that cannot be read as bars is an error. A missing vwap is estimated as
(high + low + close) / 3.

The exchange itself does not trade on nonsense. A row without positive, ordered prices is a session
without trading in the symbol, and so is an open beyond a factor of 1.6 from the last traded close
that no corporate action explains: another instrument under the ticker, or a split that the vendor
missed. Such a halt ends when the price comes back, or after ten sessions.

A symbol whose bars end more than five sessions before the history does is delisted on the session
after its last bar. Corporate actions are read by `history_actions.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from quant_resources.calendar import XNYS
from quant_resources.errors import DataError
from quant_resources.exchange.markets.history_actions import ACTION_COLUMNS, read_actions
from quant_resources.exchange.markets.market import (
    BAR_SCHEMA,
    SYMBOL_PATTERN,
    CorporateAction,
    Listing,
    MarketData,
)

BAR_COLUMNS = ("symbol", "date", "open", "high", "low", "close", "volume")
_RECOGNISABLE = 5
_PRICES = ("open", "high", "low", "close")
_HALT_FACTOR = 1.6
_HALT_SESSIONS = 10
_DELISTED_AFTER = 5


@dataclass(frozen=True)
class HistoryMarket:
    """A market replayed from files.

    Attributes:
        folder: Folder to look through, or the bars file itself.
        first_session, last_session: The part to replay; None for the file's own ends.
    """

    folder: Path
    first_session: date | None = None
    last_session: date | None = None

    def load(self) -> MarketData:
        """Read bars and corporate actions.

        Raises:
            DataError: No bars file, a missing column, dates or prices that cannot be read, no row.
        """
        bars_file, action_file = choose_files(self.folder)
        bars = _read_bars(bars_file)
        first = self.first_session or bars["session"].min()
        last = self.last_session or bars["session"].max()
        assert isinstance(first, date)  # noqa: S101 - the frame has rows
        assert isinstance(last, date)  # noqa: S101
        bars = bars.filter(pl.col("session").is_between(first, last))
        sessions = tuple(XNYS.sessions(first, last))
        if bars.is_empty() or not sessions:
            raise DataError(
                f"{bars_file} holds no bar of a session from {first} to {last}; choose another range."
            )
        actions = read_actions(action_file) if action_file else ()
        actions = tuple(a for a in actions if first <= a.ex_date <= last)
        bars = bars.with_columns(trades=_trades(bars, sessions, actions)).select(*BAR_SCHEMA)
        return MarketData(bars, actions, _listings(bars, sessions), sessions)


def choose_files(folder: Path) -> tuple[Path, Path | None]:
    """The bars file and the corporate-actions file (if any), chosen by their columns.

    Raises:
        DataError: There is no such folder, no bars file in it, or more than one.
    """
    if not folder.exists():
        raise DataError(f"There is no file or folder {folder}; give the folder of the bars.")
    candidates = (
        [folder]
        if folder.is_file()
        else sorted(p for p in folder.iterdir() if p.suffix in {".parquet", ".csv"})
    )
    columns = {path: set(_columns(path)) for path in candidates}
    bars = [path for path, names in columns.items() if names >= set(BAR_COLUMNS)]
    actions = [path for path, names in columns.items() if names >= ACTION_COLUMNS]
    if len(bars) > 1:
        raise DataError(
            f"{folder} holds more than one file of bars ({', '.join(p.name for p in bars)}); "
            "give the one to replay."
        )
    if not bars:
        _raise_no_bars(folder, columns)
    if len(actions) > 1:
        raise DataError(
            f"{folder} holds more than one file of corporate actions "
            f"({', '.join(p.name for p in actions)}); leave one."
        )
    return bars[0], actions[0] if actions else None


def _raise_no_bars(folder: Path, columns: dict[Path, set[str]]) -> None:
    """Name the file that looks most like bars and what it lacks."""
    nearest = max(columns, key=lambda path: len(columns[path] & set(BAR_COLUMNS)), default=None)
    if nearest is not None and len(columns[nearest] & set(BAR_COLUMNS)) >= _RECOGNISABLE:
        missing = [name for name in BAR_COLUMNS if name not in columns[nearest]]
        raise DataError(
            f"{nearest} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; "
            f"bars need {', '.join(BAR_COLUMNS)}."
        )
    raise DataError(
        f"{folder} holds no Parquet or CSV file of bars; one needs the columns "
        f"{', '.join(BAR_COLUMNS)}."
    )


def _columns(path: Path) -> list[str]:
    try:
        if path.suffix == ".parquet":
            return pl.scan_parquet(path).collect_schema().names()
        return pl.scan_csv(path, infer_schema=False).collect_schema().names()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as {path.suffix[1:]}: {str(error).splitlines()[0]}."
        ) from error


def _read_bars(path: Path) -> pl.DataFrame:
    """Bars in `BAR_SCHEMA` (without `trades`), sorted by symbol and date, as the file has them."""
    frame = (
        pl.read_parquet(path)
        if path.suffix == ".parquet"
        else pl.read_csv(path, infer_schema=False, null_values=["", "NaN", "nan", "NA", "null"])
    )
    if frame.is_empty():
        raise DataError(f"{path} holds not one row of bars.")
    bars = frame.select(
        symbol=text_column(frame, "symbol", path),
        session=date_column(frame, "date", path),
        **{
            name: number_column(frame, name, path)
            for name in (*_PRICES, "volume", "vwap", "trade_count")
            if name in frame.columns
        },
    )
    wrong = bars.filter(~pl.col("symbol").str.contains(rf"^{SYMBOL_PATTERN.pattern}$"))
    if wrong.height:
        raise DataError(
            f"{path} holds the symbol {wrong['symbol'][0]!r}; a symbol is up to 16 letters, digits, "
            "dots and dashes."
        )
    if "vwap" not in bars.columns:
        bars = bars.with_columns(vwap=(pl.col("high") + pl.col("low") + pl.col("close")) / 3)
        bars = bars.with_columns(pl.col("vwap").round(6))
    if "trade_count" not in bars.columns:
        bars = bars.with_columns(trade_count=pl.lit(None, pl.Int64))
    return bars.with_columns(
        pl.col("trade_count").fill_nan(None).cast(pl.Int64)
        if bars.schema["trade_count"].is_float()
        else pl.col("trade_count").cast(pl.Int64)
    ).sort("symbol", "session", maintain_order=True)


def text_column(frame: pl.DataFrame, name: str, path: Path) -> pl.Series:
    """A column of text without nulls.

    Raises:
        DataError: It holds something else.
    """
    column = frame[name].cast(pl.String, strict=False).str.strip_chars()
    if column.null_count():
        row = int(column.is_null().arg_max() or 0) + 1
        raise DataError(f"{path} has no {name} in row {row}.")
    return column.rename("symbol")


def date_column(frame: pl.DataFrame, name: str, path: Path) -> pl.Series:
    """A column of dates: dates, timestamps, or text that begins with YYYY-MM-DD.

    Raises:
        DataError: A value cannot be read as a date.
    """
    column = frame[name]
    if column.dtype == pl.String:
        parsed = column.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
    elif column.dtype.is_temporal():
        parsed = column.cast(pl.Date, strict=False)
    else:
        raise DataError(
            f"{path}: the column {name} holds {column.dtype}, not dates; write YYYY-MM-DD."
        )
    if parsed.null_count():
        row = int(parsed.is_null().arg_max() or 0)
        raise DataError(
            f"{path}: {name} of row {row + 1} is {column[row]!r}, which is no date; write YYYY-MM-DD."
        )
    return parsed


def number_column(frame: pl.DataFrame, name: str, path: Path) -> pl.Series:
    """A column of numbers as Float64; nulls and NaN stay.

    Raises:
        DataError: A value is text that is no number.
    """
    column = frame[name]
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count() > column.null_count():
        row = int((numbers.is_null() & column.is_not_null()).arg_max() or 0)
        raise DataError(f"{path}: {name} of row {row + 1} is {column[row]!r}, which is no number.")
    return numbers


def _trades(
    bars: pl.DataFrame, sessions: tuple[date, ...], actions: tuple[CorporateAction, ...]
) -> np.ndarray:
    """Whether the exchange trades on each row: a well-formed first row of a session, not halted."""
    low, high = pl.col("low"), pl.col("high")
    formed = bars.select(
        pl.all_horizontal(pl.col(name).is_finite() & (pl.col(name) > 0) for name in _PRICES)
        & (low <= pl.min_horizontal("open", "close"))
        & (high >= pl.max_horizontal("open", "close"))
        & pl.col("volume").is_finite()
        & (pl.col("volume") > 0)
        & pl.col("session").is_in(sessions)
        & pl.struct("symbol", "session").is_first_distinct()
    ).to_series()
    trades = formed.fill_null(value=False).to_numpy().copy()

    good = bars.with_row_index("row").filter(pl.Series(trades))
    gap = (pl.col("open") / pl.col("close").shift(1).over("symbol")).log().abs()
    suspects = good.filter(gap > np.log(_HALT_FACTOR))["symbol"].unique(maintain_order=True)
    terms = _terms_by_day(actions)
    for (symbol,), rows in good.filter(pl.col("symbol").is_in(suspects.implode())).group_by(
        "symbol", maintain_order=True
    ):
        halted = _halts(rows, terms.get(str(symbol), {}))
        trades[rows["row"].to_numpy()[halted]] = False
    return trades


def _terms_by_day(
    actions: tuple[CorporateAction, ...],
) -> dict[str, dict[date, tuple[float, float]]]:
    """New shares for one old and USD a share, by symbol and ex-date."""
    terms: dict[str, dict[date, tuple[float, float]]] = {}
    for action in actions:
        if action.applies:
            by_day = terms.setdefault(action.symbol, {})
            ratio, cash = by_day.get(action.ex_date, (1.0, 0.0))
            ratio *= float(action.share_ratio or 1)
            cash += float(action.cash or 0) if action.action_type == "cash_dividend" else 0.0
            by_day[action.ex_date] = (ratio, cash)
    return terms


def _halts(rows: pl.DataFrame, terms: dict[date, tuple[float, float]]) -> np.ndarray:
    """Which of one symbol's rows are halted, walking forward from the last traded close."""
    halted = np.zeros(rows.height, dtype=bool)
    reference, waiting = float(rows["close"][0]), 0
    days = sorted(terms)
    previous = rows["session"][0]
    for index, (session, opened, closed) in enumerate(
        rows.select("session", "open", "close").iter_rows()
    ):
        for day in days:
            if previous < day <= session:
                ratio, cash = terms[day]
                reference = max(reference - cash, 0.01) / ratio
        previous = session
        if abs(np.log(opened / reference)) > np.log(_HALT_FACTOR) and waiting < _HALT_SESSIONS:
            halted[index] = True
            waiting += 1
            continue
        reference, waiting = closed, 0
    return halted


def _listings(bars: pl.DataFrame, sessions: tuple[date, ...]) -> dict[str, Listing]:
    spans = bars.group_by("symbol", maintain_order=True).agg(
        first=pl.col("session").min(), last=pl.col("session").max()
    )
    position = {session: index for index, session in enumerate(sessions)}
    found: dict[str, Listing] = {}
    for symbol, first, last in spans.iter_rows():
        final = XNYS.at_or_before(last)
        left = len(sessions) - 1 - position.get(final, len(sessions) - 1)
        delisted = XNYS.next(last) if left > _DELISTED_AFTER else None
        found[symbol] = Listing(symbol, symbol, first, last, delisted)
    return found
