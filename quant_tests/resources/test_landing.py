"""Which answers survive a kill, and whom they may serve."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from quant_assets.market_data.schemas import RAW_BARS
from quant_resources import landing as landing_module
from quant_resources.alpaca_bars import AlpacaBars
from quant_resources.bar_source import RAW_BAR_SCHEMA
from quant_resources.calendar import XNYS, start_of_day
from quant_resources.errors import SourceError, StorageError
from quant_resources.landing import LandedRequest, Landing
from quant_resources.store import Store
from quant_tests.resources.test_alpaca_bars import Reply, bar_json, serving

SESSIONS = XNYS.sessions(date(2023, 1, 3), date(2023, 1, 13))
SYMBOLS = ["AAA", "BBB"]
REQUEST = LandedRequest(
    source="alpaca/iex",
    address="http://somewhere",
    feed="iex",
    adjustment="raw",
    asof="-",
    symbols=("AAA", "BBB"),
    first=SESSIONS[0],
    last=SESSIONS[2],
)


def rows(sessions: list[date], close: float = 1.0) -> pl.DataFrame:
    values: dict[str, Any] = {name: [None] * len(sessions) for name in RAW_BAR_SCHEMA}
    now = datetime.now(UTC)
    values |= {
        "session": sessions,
        "symbol": ["AAA"] * len(sessions),
        "close": [close] * len(sessions),
        "source": ["alpaca/iex"] * len(sessions),
        "observed_at": [now] * len(sessions),
    }
    return pl.DataFrame(values, schema=RAW_BAR_SCHEMA)


class Vendor:
    """Serves one bar per symbol and day asked for, and counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.close = 1.0
        self.fails_at: set[int] = set()
        self.without: set[date] = set()

    def answer(self, _path: str, query: dict[str, str]) -> Reply:
        """Answer one request for bars."""
        self.asked.append(query)
        if len(self.asked) in self.fails_at:
            return 400, b'{"message": "no"}'
        start, end = (datetime.fromisoformat(query[name]) for name in ("start", "end"))
        days = [day for day in SESSIONS if start <= start_of_day(day) <= end]
        days = [day for day in days if day not in self.without]
        stamps = [start_of_day(day).strftime("%Y-%m-%dT%H:%M:%SZ") for day in days]
        bars = {
            symbol: [bar_json(t=stamp, c=self.close, v=5) for stamp in stamps]
            for symbol in query["symbols"].split(",")
        }
        return 200, json.dumps({"bars": bars, "next_page_token": None}).encode()


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def source(vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AlpacaBars]:
    """A source in requests of one symbol and two sessions, one after another."""
    monkeypatch.setattr("quant_resources.alpaca_bars.SYMBOLS_PER_REQUEST", 1)
    monkeypatch.setattr("quant_resources.alpaca_bars.BARS_PER_REQUEST", 2)
    monkeypatch.setattr("quant_resources.alpaca_bars.REQUESTS_AT_ONCE", 1)
    with serving(vendor.answer) as url:
        yield AlpacaBars(
            url,
            url,
            "key",
            "secret",
            requests_per_minute=None,
            backoff=(),
            landing=Landing(tmp_path),
        )


def files(root: Path) -> list[Path]:
    return sorted((root / "landing").iterdir())


def test_the_table_is_that_of_the_raw_bars() -> None:
    assert RAW_BARS.path == landing_module.STORED_TABLE


def test_an_answer_serves_the_very_same_request_only(tmp_path: Path) -> None:
    kept = rows(SESSIONS[:3])
    Landing(tmp_path).keep(REQUEST, kept)
    found = Landing(tmp_path).load(REQUEST)
    assert found is not None
    assert found.equals(kept, null_equal=True)
    others = {
        "source": "alpaca/sip",
        "address": "http://elsewhere",
        "feed": "sip",
        "adjustment": "all",
        "asof": "2023-01-05",
        "symbols": ("BBB", "AAA"),
        "first": SESSIONS[1],
        "last": SESSIONS[3],
    }
    for name, value in others.items():
        assert Landing(tmp_path).load(replace(REQUEST, **{name: value})) is None, name


def test_an_empty_answer_is_an_answer(tmp_path: Path) -> None:
    Landing(tmp_path).keep(REQUEST, rows([]))
    found = Landing(tmp_path).load(REQUEST)
    assert found is not None
    assert found.schema == pl.Schema(RAW_BAR_SCHEMA)


@pytest.mark.parametrize("session", SESSIONS[:3])
def test_a_stored_session_is_never_served_from_here(tmp_path: Path, session: date) -> None:
    """A deliberate refetch once got back what the backfill before it had landed."""
    landing = Landing(tmp_path)
    landing.keep(REQUEST, rows(SESSIONS[:3]))
    # What a killed write leaves is no stored session.
    folder = tmp_path / RAW_BARS.path / session.isoformat()
    folder.mkdir(parents=True)
    (folder / ".x.parquet.0a1b2c3d").touch()
    assert landing.load(REQUEST) is not None
    Store(tmp_path).write(RAW_BARS, rows([session]), [session.isoformat()])
    assert landing.load(REQUEST) is None
    landing.tidy()
    assert files(tmp_path) == []


def test_a_neighbours_stored_session_changes_nothing(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    landing.keep(REQUEST, rows(SESSIONS[:3]))
    Store(tmp_path).write(RAW_BARS, rows([SESSIONS[3]]), [SESSIONS[3].isoformat()])
    landing.tidy()
    assert landing.load(REQUEST) is not None


@pytest.mark.parametrize(("age", "serves"), [(-3600, False), (0, True), (5.9, True), (6.1, False)])
def test_an_answer_serves_for_six_hours(tmp_path: Path, age: float, serves: bool) -> None:
    landing = Landing(tmp_path)
    landing.keep(REQUEST, rows(SESSIONS[:3]))
    moment = time.time() - age * 3600
    os.utime(files(tmp_path)[0], (moment, moment))
    assert (landing.load(REQUEST) is not None) == serves
    landing.tidy()
    assert len(files(tmp_path)) == int(serves)


def test_a_damaged_answer_is_asked_for_again(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    landing.keep(REQUEST, rows(SESSIONS[:3]))
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    assert landing.load(REQUEST) is None
    assert files(tmp_path) == []


def test_tidying_leaves_what_is_being_written_and_what_is_not_ours(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    landing.keep(REQUEST, rows(SESSIONS[:3]))
    name = files(tmp_path)[0].name
    young, old, stranger = (
        landing.folder / f".{name}.0a1b2c3d",
        landing.folder / f".{name}.ffffffff",
        landing.folder / "notes.txt",
    )
    for file in (young, old, stranger):
        file.touch()
    os.utime(old, (0, 0))
    os.utime(stranger, (0, 0))
    landing.tidy()
    assert {file.name for file in files(tmp_path)} == {name, young.name, stranger.name}


def test_no_space_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "landing").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="run again"):
        Landing(tmp_path).keep(REQUEST, rows(SESSIONS[:3]))


def test_a_run_that_failed_in_the_middle_asks_only_for_the_rest(
    vendor: Vendor, source: AlpacaBars
) -> None:
    vendor.fails_at = {4}
    with pytest.raises(SourceError, match="refused the request"):
        source.bars(SYMBOLS, SESSIONS[0], SESSIONS[4])
    before = datetime.now(UTC)
    frame = source.bars(SYMBOLS, SESSIONS[0], SESSIONS[4])
    # Each of the six requests was answered once; the one that failed was sent twice.
    assert len(vendor.asked) == 6 + 1
    assert frame.height == 10
    # The time of observation is the time of the answer, whoever asked.
    assert frame.filter(pl.col("observed_at") < before).height >= 2 + 2 + 2
    assert frame["session"].is_sorted()


def test_requests_cover_every_symbol_and_session_once(vendor: Vendor, source: AlpacaBars) -> None:
    whole = source.bars(SYMBOLS, SESSIONS[0], SESSIONS[4])
    assert whole.select("session", "symbol").rows() == [
        (day, symbol) for day in SESSIONS[:5] for symbol in SYMBOLS
    ]
    assert [query["symbols"] for query in vendor.asked] == SYMBOLS * 3
    starts = [query["start"][:10] for query in vendor.asked[::2]]
    # The first starts on the day after the session before; so do the others.
    assert starts == ["2022-12-31", "2023-01-05", "2023-01-07"]


def test_a_refetch_of_stored_sessions_asks_the_vendor_again(
    vendor: Vendor, source: AlpacaBars, tmp_path: Path
) -> None:
    keys = [day.isoformat() for day in SESSIONS[:5]]
    store = Store(tmp_path)
    store.write(RAW_BARS, source.bars(SYMBOLS, SESSIONS[0], SESSIONS[4]), keys)
    asked, vendor.close = len(vendor.asked), 2.0
    again = source.bars(SYMBOLS, SESSIONS[0], SESSIONS[4])
    assert len(vendor.asked) == 2 * asked
    assert again["close"].unique().to_list() == [2.0]
    store.write(RAW_BARS, again, keys)
    Landing(tmp_path).tidy()
    assert files(tmp_path) == []


def test_a_refetch_that_was_killed_is_not_resumed(
    vendor: Vendor, source: AlpacaBars, tmp_path: Path
) -> None:
    """Its answers may be hours old, and the sessions are there already."""
    keys = [day.isoformat() for day in SESSIONS[:5]]
    Store(tmp_path).write(RAW_BARS, source.bars(SYMBOLS, SESSIONS[0], SESSIONS[4]), keys)
    vendor.fails_at = {len(vendor.asked) + 3}
    with pytest.raises(SourceError, match="refused the request"):
        source.bars(SYMBOLS, SESSIONS[0], SESSIONS[4])
    asked, vendor.close = len(vendor.asked), 3.0
    again = source.bars(SYMBOLS, SESSIONS[0], SESSIONS[4])
    assert len(vendor.asked) == asked + 6
    assert again["close"].unique().to_list() == [3.0]


def test_an_answer_without_a_session_is_forgotten(
    vendor: Vendor, source: AlpacaBars, tmp_path: Path
) -> None:
    """The vendor was not ready: a later run would have failed on the same answer for six hours."""
    vendor.without = {SESSIONS[3]}
    with pytest.raises(SourceError, match="no bar for 1 session"):
        source.bars(SYMBOLS, SESSIONS[0], SESSIONS[4])
    assert files(tmp_path) == []
    vendor.without = set()
    assert source.bars(SYMBOLS, SESSIONS[0], SESSIONS[4]).height == 10
