"""Adjusted files made raw: what a vendor's adjustment did is undone, and a wrong declaration is refused."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_resources.bar_source import CORPORATE_ACTION_SCHEMA
from quant_resources.calendar import XNYS
from quant_resources.errors import SourceError
from quant_resources.file_bars import FileBars
from quant_resources.file_inspection import inspect
from quant_tests.resources.bar_files import lines, source, write_text

SESSIONS = XNYS.sessions(date(2023, 1, 3), date(2023, 9, 29))
FIRST, LAST = SESSIONS[0], SESSIONS[-1]
PRICES = ("open", "high", "low", "close")
#: symbol, position of the ex-date, type, ratio, cash
ACTIONS = (
    ("AAA", 40, "forward_split", 4.0, None),
    ("AAA", 40, "cash_dividend", None, 0.8),  # on the day of the split: per share before it
    ("AAA", 90, "cash_dividend", None, 0.3),
    ("AAA", 91, "cash_dividend", None, 5.0),  # a special one, the day after
    ("AAA", 120, "forward_split", 1.5, None),
    ("BBB", 0, "cash_dividend", None, 0.2),  # before the first bar
    ("BBB", 60, "reverse_split", 0.1, None),
    ("BBB", 63, "spin_off", 0.5, 2.5),
    ("BBB", 150, "stock_dividend", 1.05, None),
    ("CCC", 30, "cash_dividend", None, 0.1),
    ("CCC", 100, "name_change", None, None),
)
ADJUSTED = 'prices = "adjusted"\nvolume = "split_adjusted"'
SPLIT_ADJUSTED = 'prices = "split_adjusted"\nvolume = "split_adjusted"'


def raw_bars() -> pl.DataFrame:
    """What traded: prices move by what the actions take from them, in whole cents."""
    rng = np.random.default_rng(3)
    rows = []
    for symbol, start in (("AAA", 400.0), ("BBB", 6.0), ("CCC", 80.0), ("DDD", 30.0)):
        price = start
        for at, session in enumerate(SESSIONS):
            day = [action for action in ACTIONS if action[:2] == (symbol, at)]
            price -= sum(cash or 0.0 for *_, cash in day)
            for _, _, kind, ratio, _ in day:
                price /= ratio if kind.endswith(("split", "dividend")) and ratio else 1.0
            price *= float(np.exp(rng.normal(0, 0.01)))
            close = round(price, 2)
            volume = float(rng.integers(10_000, 99_999) * 60)
            rows.append((symbol, session, close, close + 0.5, close - 0.5, close, volume))
    return pl.DataFrame(rows, schema=["symbol", "date", *PRICES, "volume"], orient="row")


def vendor_adjusted(raw: pl.DataFrame, dividends: bool) -> pl.DataFrame:
    """The recomputation, bar by bar: every factor of a later ex-date, in the CRSP convention."""
    close = {
        (symbol, day): value for symbol, day, value in raw.select("symbol", "date", "close").rows()
    }
    rows = []
    for symbol, day, *prices, volume in raw.rows():
        price_factor = share_factor = 1.0
        for at, session in enumerate(SESSIONS):
            if session <= day:
                continue
            for kind, ratio, cash in [a[2:] for a in ACTIONS if a[:2] == (symbol, at)]:
                if ratio and kind != "spin_off":
                    price_factor /= ratio
                    share_factor *= ratio
                elif cash and dividends:
                    price_factor *= 1 - cash / close[symbol, SESSIONS[at - 1]]
        rows.append(
            (symbol, day, *(price * price_factor for price in prices), volume * share_factor)
        )
    return pl.DataFrame(rows, schema=raw.schema, orient="row")


def action_lines() -> list[str]:
    return [
        "ex_date,symbol,type,ratio,cash",
        *(
            f"{SESSIONS[at]},{s},{kind},{ratio or ''},{cash or ''}"
            for s, at, kind, ratio, cash in ACTIONS
        ),
    ]


def files(
    folder: Path, frame: pl.DataFrame, top: str, actions: list[str] | None = None, keys: str = ""
) -> FileBars:
    write_text(folder / "bars.csv", lines(frame))
    write_text(folder / "actions.csv", actions or action_lines())
    declared = (
        '[bars.csv]\nscientific = true\n[actions]\npath = "actions.csv"\nformat = "csv"\n'
        f'[actions.columns]\nratio = "ratio"\ncash = "cash"\n{keys}'
    )
    return source(folder, declared, top)


def delivered(source: FileBars, first: date = FIRST, last: date = LAST) -> pl.DataFrame:
    frame = source.bars(None, first, last)
    return frame.select("symbol", pl.col("session").alias("date"), *PRICES, "volume").sort(
        "symbol", "date"
    )


@pytest.mark.parametrize("dividends", [False, True])
def test_what_the_vendor_adjusted_is_raw_again(tmp_path: Path, dividends: bool) -> None:
    raw = raw_bars()
    adjusted = vendor_adjusted(raw, dividends)
    assert abs(adjusted["close"][0] / raw["close"][0] - 1) > 0.8
    read = files(tmp_path, adjusted, ADJUSTED if dividends else SPLIT_ADJUSTED)
    assert_frame_equal(delivered(read), raw, check_exact=False, abs_tol=2e-6, rel_tol=0)
    part = delivered(read, SESSIONS[35], SESSIONS[45])
    assert_frame_equal(
        part, delivered(read).filter(pl.col("date").is_between(SESSIONS[35], SESSIONS[45]))
    )


def test_volume_that_is_raw_stays_so(tmp_path: Path) -> None:
    raw = raw_bars()
    adjusted = vendor_adjusted(raw, dividends=False).with_columns(volume=raw["volume"])
    read = files(tmp_path, adjusted, SPLIT_ADJUSTED.replace('e = "split_adjusted"', 'e = "raw"'))
    assert delivered(read)["volume"].to_list() == raw["volume"].to_list()


def test_a_split_to_come_has_adjusted_nothing_yet(tmp_path: Path) -> None:
    raw = raw_bars()
    announced = [*action_lines(), f"{XNYS.next(LAST)},DDD,forward_split,2.0,"]
    read = files(tmp_path, vendor_adjusted(raw, dividends=False), SPLIT_ADJUSTED, announced)
    assert_frame_equal(delivered(read), raw, check_exact=False, abs_tol=2e-6, rel_tol=0)


def test_actions_of_a_later_owner_of_the_ticker_undo_nothing(tmp_path: Path) -> None:
    raw = raw_bars()
    gap = pl.col("date").is_between(SESSIONS[60], SESSIONS[100])
    two_companies = raw.filter(~((pl.col("symbol") == "AAA") & gap))
    first = (pl.col("symbol") == "AAA") & (pl.col("date") < SESSIONS[60])
    later = ("forward_split", 1.5)
    written = vendor_adjusted(two_companies, dividends=False).with_columns(
        pl.when(first).then(pl.col(name) * later[1]).otherwise(name).alias(name) for name in PRICES
    )
    read = files(tmp_path, written, SPLIT_ADJUSTED.replace('e = "split_adjusted"', 'e = "raw"'))
    assert_frame_equal(
        delivered(read).drop("volume"),
        two_companies.drop("volume"),
        check_exact=False,
        abs_tol=2e-6,
        rel_tol=0,
    )


def test_adjusted_prices_declared_raw_are_refused(tmp_path: Path) -> None:
    read = files(tmp_path, vendor_adjusted(raw_bars(), dividends=True), 'prices = "raw"')
    with pytest.raises(SourceError) as caught:
        delivered(read)
    told = str(caught.value)
    assert "prices are declared raw, which 3 of 3 splits contradict: AAA closed at" in told
    assert 'Set prices = "split_adjusted" or "adjusted" in the layout' in told
    assert inspect(read).refusal == told


def test_raw_prices_declared_adjusted_are_refused(tmp_path: Path) -> None:
    read = files(tmp_path, raw_bars(), ADJUSTED)
    with pytest.raises(SourceError, match='declared adjusted, which 3 of 3 .* Set prices = "raw"'):
        delivered(read)
    assert inspect(read).splits["supports"].to_list() == ["raw"] * 3


def test_one_wrong_action_of_many_is_for_the_gate_to_say(tmp_path: Path) -> None:
    wrong = [*action_lines(), f"{SESSIONS[70]},DDD,forward_split,3.0,"]
    read = files(tmp_path, raw_bars(), 'prices = "raw"', wrong)
    assert delivered(read).height == 4 * len(SESSIONS)
    assert read.corporate_actions(FIRST, LAST).filter(symbol="DDD")["ratio"].to_list() == [3.0]


@pytest.mark.parametrize(
    ("line", "top", "told"),
    [
        (
            f"{SESSIONS[70]},DDD,forward_split,,",
            SPLIT_ADJUSTED,
            "forward_split of DDD on 2023-04-14 has no ratio",
        ),
        (
            f"{SESSIONS[70]},DDD,spin_off,0.5,",
            ADJUSTED,
            "spin_off of DDD on 2023-04-14 has no amount",
        ),
    ],
)
def test_actions_without_terms_cannot_be_undone(
    tmp_path: Path, line: str, top: str, told: str
) -> None:
    frame = vendor_adjusted(raw_bars(), dividends=top == ADJUSTED)
    with pytest.raises(SourceError) as caught:
        delivered(files(tmp_path, frame, top, [*action_lines(), line]))
    assert told in str(caught.value)


def test_prices_adjusted_for_dividends_need_the_dividends(tmp_path: Path) -> None:
    splits = [line for line in action_lines() if "cash_dividend" not in line and "spin" not in line]
    frame = vendor_adjusted(raw_bars(), dividends=True)
    with pytest.raises(SourceError, match="the actions file names no dividend"):
        delivered(files(tmp_path, frame, ADJUSTED, splits))


def test_actions_are_delivered_by_session(tmp_path: Path) -> None:
    read = files(tmp_path, raw_bars(), 'prices = "raw"')
    actions = read.corporate_actions(SESSIONS[40], SESSIONS[91])
    assert dict(actions.schema) == CORPORATE_ACTION_SCHEMA
    assert actions.select("session", "symbol", "action_type", "ratio", "cash").rows() == sorted(
        (SESSIONS[at], s, kind, ratio, cash)
        for s, at, kind, ratio, cash in ACTIONS
        if 40 <= at <= 91
    )
    assert actions["action_id"].is_unique().all()


def test_an_action_between_sessions_comes_with_the_next(tmp_path: Path) -> None:
    saturday = date(2023, 3, 4)
    text = ["ex_date,symbol,type,ratio,cash", f"{saturday},DDD,cash_dividend,,0.5"]
    read = files(tmp_path, raw_bars(), 'prices = "raw"', text)
    monday = XNYS.next(saturday)
    assert read.corporate_actions(monday, monday)["ex_date"].to_list() == [saturday]
    assert read.corporate_actions(FIRST, XNYS.previous(saturday)).is_empty()


def test_words_ratios_and_repetitions_of_a_vendor(tmp_path: Path) -> None:
    text = [
        "ex_date,symbol,type,ratio,cash",
        f"{SESSIONS[40]},AAA,SPLIT,4:1,",
        f"{SESSIONS[40]},AAA,SPLIT,4:1,",
        f"{SESSIONS[60]},BBB,SPLIT,1/10,",
        f"{SESSIONS[30]},CCC,DIV,,0.1",
        f"{SESSIONS[30]},CCC,DIV,,0.2",
    ]
    keys = '[actions.types]\nDIV = "dividend"'
    read = files(tmp_path, raw_bars(), 'prices = "raw"', text, keys)
    told = read.corporate_actions(FIRST, LAST).select("symbol", "action_type", "ratio", "cash")
    assert told.rows() == [
        ("CCC", "cash_dividend", None, 0.1),
        ("CCC", "cash_dividend", None, 0.2),
        ("AAA", "forward_split", 4.0, None),
        ("BBB", "reverse_split", 0.1, None),
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "2023-04-14,DDD,forward_splt,2,",
            "'forward_splt' is no type of corporate action (did you mean forward_split?)",
        ),
        ("2023-04-14,DDD,forward_split,two,", "row 13 (DDD), column ratio: 'two' is no number"),
        (
            "14.04.2023,DDD,forward_split,2,",
            "row 13 (DDD), column ex_date: '14.04.2023' is no date",
        ),
        ("2023-04-14,,forward_split,2,", "row 13: no symbol"),
        ("2023-04-14,DDD,forward_split", "line 13: 3 field(s) where the header has 5"),
    ],
)
def test_actions_that_mean_nothing_are_refused(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(SourceError) as caught:
        files(tmp_path, raw_bars(), 'prices = "raw"', [*action_lines(), line]).symbols()
    assert told in str(caught.value)
    assert "actions.csv" in str(caught.value)


def test_actions_as_price_factors(tmp_path: Path) -> None:
    before = raw_bars().filter(symbol="CCC")["close"][29]
    pl.DataFrame(
        {
            "symbol": ["AAA", "CCC"],
            "ex_date": [SESSIONS[120], SESSIONS[30]],
            "adj_factor": [1 / 1.5, 1 - 0.1 / before],
            "kind": ["split", "dividend"],
            "implied_cash": [None, 0.1],
            "prev_close_raw": [None, before],
        }
    ).write_parquet(tmp_path / "actions.parquet")
    write_text(tmp_path / "bars.csv", lines(raw_bars()))
    keys = '[actions]\npath = "actions.parquet"\nformat = "parquet"\nform = "price_factors"'
    actions = source(tmp_path, keys).corporate_actions(FIRST, LAST)
    assert actions.select("symbol", "action_type", "ratio", "cash").rows() == [
        ("CCC", "cash_dividend", None, 0.1),
        ("AAA", "forward_split", 1.5, None),
    ]
