"""Replayed history: what can be read, what cannot and in which words, and what the exchange trades."""

from __future__ import annotations

import os
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from quant_resources.errors import DataError
from quant_resources.exchange.markets.history import HistoryMarket
from quant_tests.exchange.served import WEEK, write_history

_COLUMNS = ["symbol", "date", "open", "high", "low", "close", "volume"]
_REAL = Path(os.environ.get("QUANT_TEST_DATA", "nowhere"))


def week_frame() -> pl.DataFrame:
    return pl.DataFrame(WEEK, schema=_COLUMNS, orient="row")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_bars_are_found_by_their_columns_among_other_files(tmp_path: Path, suffix: str) -> None:
    frame = week_frame().with_columns(pl.col("date").str.to_date())
    path = tmp_path / f"whatever.{suffix}"
    _ = frame.write_csv(path) if suffix == "csv" else frame.write_parquet(path)
    pl.DataFrame({"date": ["2024-03-04"], "vix": [13.2]}).write_csv(tmp_path / "vix.csv")
    (tmp_path / "README.md").write_text("not a table")
    data = HistoryMarket(tmp_path).load()
    assert data.bars.height == 10
    assert data.sessions[0] == date(2024, 3, 4)
    assert HistoryMarket(path).load().digest() == data.digest()
    part = HistoryMarket(tmp_path, date(2024, 3, 6), date(2024, 3, 7)).load()
    assert part.sessions == (date(2024, 3, 6), date(2024, 3, 7))


def test_a_folder_without_bars_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file or folder"):
        HistoryMarket(tmp_path / "nothing").load()
    with pytest.raises(DataError, match="no Parquet or CSV file of bars"):
        HistoryMarket(tmp_path).load()
    week_frame().drop("volume").write_csv(tmp_path / "prices.csv")
    with pytest.raises(DataError, match=r"prices\.csv lacks the column volume"):
        HistoryMarket(tmp_path).load()
    week_frame().write_csv(tmp_path / "a.csv")
    week_frame().write_csv(tmp_path / "b.csv")
    with pytest.raises(DataError, match=r"more than one file of bars \(a\.csv, b\.csv\)"):
        HistoryMarket(tmp_path).load()


@pytest.mark.parametrize(
    ("column", "wrong", "words"),
    [
        ("date", "yesterday", "date of row 3 is 'yesterday', which is no date"),
        ("close", "abc", "close of row 3 is 'abc', which is no number"),
        ("symbol", "A/B", "symbol 'A/B'"),
        ("symbol", None, "no symbol in row 3"),
    ],
)
def test_a_value_that_cannot_be_read_is_named(
    tmp_path: Path, column: str, wrong: str | None, words: str
) -> None:
    frame = week_frame().with_columns(pl.col(column).cast(pl.String))
    values = frame[column].to_list()
    values[2] = wrong
    frame.with_columns(pl.Series(column, values)).write_csv(tmp_path / "bars.csv")
    with pytest.raises(DataError, match=words):
        HistoryMarket(tmp_path).load()


def test_files_that_are_no_tables_or_empty_are_named(tmp_path: Path) -> None:
    week_frame().head(0).write_csv(tmp_path / "bars.csv")
    with pytest.raises(DataError, match="not one row"):
        HistoryMarket(tmp_path).load()
    (tmp_path / "bad.parquet").write_bytes(b"this is not parquet")
    with pytest.raises(DataError, match=r"bad\.parquet cannot be read as parquet"):
        HistoryMarket(tmp_path).load()


def actions_of(tmp_path: Path, rows: list[dict[str, Any]]) -> tuple[Any, ...]:
    return HistoryMarket(write_history(tmp_path, WEEK, rows)).load().actions


def test_price_factors_become_splits_dividends_and_special_dividends(tmp_path: Path) -> None:
    base = {"symbol": "ABC", "prev_close_raw": 100.0, "price_consistent": True}
    found = actions_of(
        tmp_path,
        [
            {
                **base,
                "ex_date": "2024-03-04",
                "kind": "dividend",
                "adj_factor": 0.99,
                "implied_cash": 1.0,
            },
            {
                **base,
                "ex_date": "2024-03-05",
                "kind": "split",
                "adj_factor": 0.50005,
                "implied_cash": 49.995,
            },
            {
                **base,
                "ex_date": "2024-03-06",
                "kind": "split",
                "adj_factor": 0.72,
                "implied_cash": 28.0,
            },
            {
                **base,
                "ex_date": "2024-03-07",
                "kind": "split",
                "adj_factor": 10.0,
                "implied_cash": -900.0,
            },
            {
                **base,
                "ex_date": "2024-03-08",
                "kind": "dividend",
                "adj_factor": 1.05,
                "implied_cash": -5.0,
            },
        ],
    )
    terms = [
        (a.action_type, a.ratio, a.cash and float(a.cash), a.special, a.applies) for a in found
    ]
    assert terms == [
        ("cash_dividend", None, 1.0, False, True),
        ("forward_split", Fraction(2), None, False, True),
        ("cash_dividend", None, 28.0, True, True),
        ("reverse_split", Fraction(1, 10), None, False, True),
        ("cash_dividend", None, -5.0, False, False),
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"action_type": "gift", "cash": 1.0}, "'gift' is no corporate action"),
        ({"action_type": "forward_split", "cash": 1.0}, "needs ratio"),
        ({"action_type": "cash_dividend", "ratio": 2.0}, "needs cash"),
        ({"action_type": "forward_split", "ratio": -2.0}, "must be positive"),
        ({"note": "x"}, "lacks the columns action_type"),
    ],
)
def test_an_action_that_makes_no_sense_is_named(
    tmp_path: Path, row: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        actions_of(tmp_path, [{"symbol": "ABC", "ex_date": "2024-03-06", **row}])


def test_another_instrument_under_the_ticker_halts_trading_but_is_served(tmp_path: Path) -> None:
    rows = list(WEEK)
    rows[2] = ("ABC", "2024-03-06", 20.0, 21.0, 19.0, 20.5, 900)
    data = HistoryMarket(write_history(tmp_path, rows)).load()
    mine = data.bars.filter(symbol="ABC")
    assert mine["close"].to_list() == [100.0, 103.0, 20.5, 106.5, 107.5]
    assert mine["trades"].to_list() == [True, True, False, True, True]


@pytest.mark.skipif(not _REAL.exists(), reason="set QUANT_TEST_DATA to the folder of the real bars")
def test_a_real_history_with_all_its_defects_loads() -> None:
    data = HistoryMarket(_REAL).load()
    assert data.bars.height == 270_121
    assert len(data.listings) == 549
    assert sum(listing.delisted is not None for listing in data.listings.values()) == 32
    kinds = [action.action_type for action in data.actions]
    assert kinds.count("forward_split") == 17
    halted = data.bars.filter(~pl.col("trades"))
    assert 10 < halted.height < 300
