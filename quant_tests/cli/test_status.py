"""`quant status` and `quant data coverage` on data roots as they are: nothing is started to look at them."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer
from typer.testing import CliRunner, Result

from quant_assets.cli import coverage as coverage_command
from quant_assets.cli import status as status_command
from quant_assets.features.schemas import LABEL_TABLES, TABLES
from quant_assets.market_data import coverage
from quant_assets.market_data.schemas import BARS, COVERAGE
from quant_assets.market_span import MarketSpan, remember_span
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.errors import ConfigurationError
from quant_resources.exchange.process import (
    EXCHANGE_FOLDER,
    ExchangeControl,
    ensure_exchange,
    stop_exchange,
)
from quant_resources.exchange.spec import MarketSpec
from quant_resources.store import Store
from quant_tests.exchange.served import WEEK, write_history
from quant_tests.market_data.deliveries import action_frame, bar, gated

FIRST, LAST = date(2024, 3, 4), date(2024, 3, 8)
SESSIONS = XNYS.sessions(FIRST, LAST)


def run(*arguments: str) -> Result:
    """One of the two commands, in this process; its errors come out."""
    app = typer.Typer()
    app.command("status")(status_command.status)
    app.command("coverage")(coverage_command.coverage)
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def document(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A week of three symbols: HOLE lacks Wednesday, its Thursday is quarantined."""
    folder = tmp_path / "root"
    monkeypatch.setenv("QUANT_DATA_ROOT", str(folder))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    span = MarketSpan(first_session=FIRST, last_session=LAST, first_trading_session=SESSIONS[1])
    store = Store(folder)
    folder.mkdir()
    remember_span(folder, span)
    rows = [
        bar(symbol, day, 10.0 + at % 2, **({"volume": -1.0} if (symbol, at) == ("HOLE", 3) else {}))
        for at, day in enumerate(SESSIONS[:4])
        for symbol in ("ABC", "HOLE", "XYZ")
        if (symbol, at) != ("HOLE", 2)
    ]
    sent = pl.DataFrame(rows, infer_schema_length=None).select("session", "symbol")
    bars = gated(rows, wanted=SESSIONS[:4]).bars
    keys = [str(day) for day in SESSIONS[:4]]
    store.write(BARS, bars, keys)
    found = coverage.coverage(sent, bars, action_frame(), SESSIONS, SESSIONS[:4])
    store.write(COVERAGE, found, keys)
    return folder


@pytest.fixture
def exchange(root: Path) -> str:
    """The exchange of the data root, standing on Friday morning; whoever starts it stops it."""
    spec = MarketSpec(kind="history", folder=write_history(root.parent / "history", WEEK))
    try:
        url = ensure_exchange(root / EXCHANGE_FOLDER, spec).url
        ExchangeControl(url).advance(datetime(2024, 3, 8, 7, 31, tzinfo=NEW_YORK))
    finally:
        stop_exchange(root / EXCHANGE_FOLDER)
    return url


def test_freshness_and_coverage_are_in_the_json(root: Path) -> None:
    told = document("status")
    assert told["freshness"]["is_fresh"] is False
    assert (told["freshness"]["due"], told["freshness"]["stored"]) == ("2024-03-08", "2024-03-07")
    assert (told["freshness"]["sessions_behind"], told["freshness"]["clock"]) == (
        1,
        "the wall clock",
    )
    assert told["freshness"]["age_hours"] > 24
    counts = [
        tuple(row[name] for name in ("expected", "present", "quarantined", "missing"))
        for row in told["coverage"]["sessions"]
    ]
    assert counts == [(3, 3, 0, 0), (3, 3, 0, 0), (3, 2, 0, 1), (3, 2, 1, 0)]
    (hole,) = told["coverage"]["symbols"]
    assert (hole["symbol"], hole["missing"], hole["quarantined"]) == ("HOLE", 1, 1)
    stored = {row["table"]: row for row in told["tables"]}
    assert stored["market_data/bars"]["newest"] == "2024-03-07"


def test_a_person_reads_the_same(root: Path) -> None:
    shown = run("status").stdout
    assert (
        "Stale: 2024-03-08 is due, the newest stored session is 2024-03-07, 1 session(s)" in shown
    )
    assert "by the wall clock" in shown
    assert "Coverage of the newest 4 sessions" in shown
    assert "Symbols with gaps, 1 of 1" in shown


def test_tables_that_a_data_root_does_not_have_yet_are_named(root: Path) -> None:
    """A data root of a time before a table existed: one sentence says what fills it."""
    store, keys = Store(root), [str(day) for day in SESSIONS[:4]]
    for table in TABLES:
        if table not in LABEL_TABLES[1:]:
            store.write(table, table.empty(), keys[: len(keys) - table.horizon])
    assert "Sessions whose bars" not in run("status").stdout
    missing = {row["table"]: row["missing"] for row in document("status")["tables"]}
    # No label of five sessions can be known yet, and nothing else decides about other tables.
    assert (missing["features/labels"], missing["features/labels_5"]) == (0, 0)
    assert missing["market_data/bars"] is None
    later = XNYS.sessions(FIRST, XNYS.offset(FIRST, 7))
    store.write(BARS, BARS.empty(), [str(day) for day in later[4:]])
    sentence = " ".join(run("status").stdout.split()).rpartition("Sessions whose bars")[2]
    assert sentence == (
        " are stored are missing in features/alpha158 (4), features/technical (4), features/anomaly (4), "
        "features/labels (4), features/labels_5 (2): `quant backfill` makes them."
    )


def test_nothing_is_started_to_look(root: Path) -> None:
    before = sorted(path.relative_to(root) for path in root.rglob("*"))
    run("status")
    run("coverage")
    assert sorted(path.relative_to(root) for path in root.rglob("*")) == before


def test_the_exchanges_clock_judges_whether_it_runs_or_stands(root: Path, exchange: str) -> None:
    """A year later on the wall, the market of the exchange still stands on Friday morning."""
    standing = document("status")["freshness"]
    assert (standing["is_fresh"], standing["due"]) == (True, "2024-03-07")
    assert standing["clock"] == "the clock of the local exchange, which does not run"
    state = root / EXCHANGE_FOLDER
    endpoint = ensure_exchange(state)
    try:
        ExchangeControl(endpoint.url).advance(datetime(2024, 3, 11, 7, 30, tzinfo=NEW_YORK))
        running = document("status")["freshness"]
    finally:
        stop_exchange(state)
    assert running["clock"] == "the clock of the local exchange"
    assert (running["is_fresh"], running["due"]) == (False, "2024-03-08")


def test_coverage_draws_the_holes(root: Path) -> None:
    shown = run("coverage").stdout
    assert "10 of 12 expected bars are there, 1 are quarantined, 1 missing" in " ".join(
        shown.split()
    )
    assert "HOLE ··█q" in shown
    assert "2024-03-06" in shown


def test_coverage_of_a_symbol_and_of_days(root: Path) -> None:
    told = document("coverage", "--symbol", "hole")
    assert told == {
        "symbol": "HOLE",
        "sessions": 4,
        "gaps": [
            {"session": "2024-03-06", "state": "missing", "absent_sessions": 1},
            {"session": "2024-03-07", "state": "quarantined", "absent_sessions": 0},
        ],
    }
    cut = document("coverage", "--from", "2024-03-07")
    assert [row["session"] for row in cut["sessions"]] == ["2024-03-07"]
    assert document("coverage", "--to", "2024-03-05")["symbols"] == []
    with pytest.raises(ConfigurationError, match="NEVER was neither expected nor delivered"):
        run("coverage", "--symbol", "NEVER")
    with pytest.raises(ConfigurationError, match="No coverage is stored in .* between 2025-01-01"):
        run("coverage", "--from", "2025-01-01")
