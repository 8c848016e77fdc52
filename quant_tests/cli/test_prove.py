"""`quant prove` on a real data root: what holds, what fails, what is refused, and how it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psutil
import pytest
import typer
from typer.testing import CliRunner, Result

from quant_assets.cli import prove as command
from quant_assets.features.assets import ASSETS
from quant_assets.features.schemas import LABELS, TECHNICAL
from quant_assets.market_data.schemas import BARS, UNIVERSE
from quant_assets.market_span import MarketSpan, remember_span
from quant_assets.partitions import partitions_for
from quant_assets.point_in_time.recompute import recompute, steps
from quant_resources.errors import ConfigurationError
from quant_resources.postgres import stop_postgres
from quant_resources.store import Store
from quant_tests.features.conftest import Market, raw_market

SESSIONS = 330
#: Bars of Alpha158's look-back lie before it.
DAY = "2024-03-15"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data root of bars, their universe, labels and technical indicators; its ledger is embedded."""
    root = tmp_path_factory.mktemp("proved")
    market = raw_market(SESSIONS, symbols=7)
    span = MarketSpan.counted(market.calendar[0], SESSIONS, 10)
    remember_span(root, span)
    store = Store(root)
    _write(store, market, span)
    yield root
    stop_postgres(root)


def _write(store: Store, market: Market, span: MarketSpan) -> None:
    keys = [day.isoformat() for day in market.calendar]
    store.write(BARS, market.bars.select(list(BARS.schema)), keys)
    store.write(UNIVERSE, market.universe.select(list(UNIVERSE.schema)), keys)
    placed = partitions_for(span)
    assets = [placed.place(asset) for asset in ASSETS]
    for step in steps(assets, placed):
        (table,) = step.tables
        if table in (LABELS, TECHNICAL):
            late = keys[-80 : len(keys) - table.horizon]
            store.write(table, recompute(step, table, late, store, {}), late)


@pytest.fixture
def root(made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("QUANT_DATA_ROOT", str(made))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    return made


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.command("prove")(command.prove)
    return CliRunner().invoke(app, [*arguments, "--processes", "1"])


def lines(result: Result) -> dict[str, list[str]]:
    """Table to the cells after it: numbers and verdicts of a proof, or why there is none."""
    lines = result.stdout.splitlines()
    framed = [line.strip("│ ").split("│") for line in lines if "│" in line]
    plain = [line.split() for line in lines if "/" in line.split(" ")[0]]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in [*framed, *plain]}


def test_sound_tables_are_proved(root: Path) -> None:
    result = run("--table", "labels", "--table", "technical", "--sessions", "3")
    assert result.exit_code == 0, result.stdout
    found = lines(result)
    for table in (LABELS, TECHNICAL):
        sessions, rows, *verdicts, _seconds = found[table.path]
        assert sessions == "3"
        assert int(rows) >= 3 * 4
        assert verdicts == ["holds", "holds", "holds"]
    assert "2 tables are proved" in result.stdout
    assert "nothing depends on the future" in result.stdout


def test_what_cannot_be_recomputed_is_listed_with_its_reason(root: Path) -> None:
    found = lines(run("--table", "raw_bars", "--table", "labels", "--sessions", DAY))
    assert "bar_source" in found["market_data/raw_bars"][0]
    assert found[LABELS.path][0] == "1"


def test_a_stored_value_that_is_another_fails_with_sentence_sample_and_remedy(root: Path) -> None:
    store = Store(root)
    sound = store.read(TECHNICAL, [DAY]).collect()
    symbol = sound.item(1, "symbol")
    wrong = sound.with_columns(
        rsi_14=pl.when(pl.col("symbol") == symbol).then(pl.col("rsi_14") + 1).otherwise("rsi_14")
    )
    store.write(TECHNICAL, wrong, [DAY])
    try:
        result = run("--table", "features", "--sessions", DAY)
    finally:
        store.write(TECHNICAL, sound, [DAY])
    assert isinstance(result.exception, command.ProofFailedError)
    assert "1 of 2 tables are not proved" in str(result.exception)
    assert TECHNICAL.path in str(result.exception)
    assert lines(result)[TECHNICAL.path][2:5] == ["holds", "FAILS", "holds"]
    assert "parity: features/technical: 1 rows" in result.stdout
    assert symbol in result.stdout.split("parity:")[1]
    assert "What to do:" in result.stdout


def test_a_table_whose_inputs_are_not_stored_is_not_known_and_stops_no_other(root: Path) -> None:
    """Raw bars were never stored here: the bars that came of them cannot be computed again."""
    result = run("--table", "bars", "--table", "labels", "--sessions", DAY)
    assert isinstance(result.exception, command.ProofFailedError)
    assert lines(result)[BARS.path][2:5] == ["unknown", "unknown", "unknown"]
    assert lines(result)[LABELS.path][2:5] == ["holds", "holds", "holds"]
    told = " ".join(result.stdout.split())
    assert "market_data/bars cannot be computed again: Table market_data/raw_bars" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--table", "technicla"], "did you mean .*technical"),
        (["--sessions", "yesterday"], "'yesterday' names no sessions"),
        (["--table", "labels", "--sessions", "2030-01-02"], "stored are"),
    ],
)
def test_what_is_unknown_is_one_sentence(root: Path, arguments: list[str], told: str) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, ConfigurationError)
    with pytest.raises(ConfigurationError, match=told):
        raise result.exception


def test_a_data_root_that_does_not_exist_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANT_DATA_ROOT", str(tmp_path / "nowhere"))
    result = run()
    assert isinstance(result.exception, ConfigurationError)
    assert "There is no data root" in str(result.exception)
    assert not (tmp_path / "nowhere").exists()


def test_deliveries_alone_leave_nothing_to_prove(root: Path) -> None:
    result = run("--table", "raw_bars")
    assert result.exit_code == 0
    assert "bar_source" in lines(result)["market_data/raw_bars"][0]
    assert "Nothing of this can be proved." in result.stdout


def test_nothing_of_the_data_root_is_changed(root: Path) -> None:
    def stored() -> dict[Path, float]:
        places = [root / stage for stage in ("features", "market_data")]
        return {f: f.stat().st_mtime for place in places for f in place.rglob("*.parquet")}

    before = stored()
    run("--table", "labels", "--sessions", "2")
    assert stored() == before
    assert not (root / "models").exists()


@pytest.mark.long
def test_several_processes_say_the_same_and_end_at_once_when_interrupted(root: Path) -> None:
    """Their own processes are ended with the command, in the midst of their work."""
    chosen = ["--table", "technical", "--table", "labels", "--processes", "2"]
    arguments = [sys.executable, "-c", "from quant_assets.cli.main import main; main()", "prove"]
    proved = subprocess.run(
        [*arguments, *chosen, "--sessions", "4"], capture_output=True, text=True, check=False
    )
    assert proved.returncode == 0, proved.stderr
    assert "2 tables are proved" in proved.stdout
    running = subprocess.Popen(
        [*arguments, *chosen, "--sessions", "all"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    children = _spawned(running)
    interrupted = time.monotonic()
    os.kill(running.pid, signal.SIGTERM)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert errors.strip().endswith("Interrupted; the same command goes on where it was.")
    assert "Traceback" not in errors
    assert time.monotonic() - interrupted < 10
    assert psutil.wait_procs(children, timeout=5)[1] == []


def _spawned(running: subprocess.Popen[str]) -> list[psutil.Process]:
    """The two processes that a command works with, as soon as there are two."""
    parent = psutil.Process(running.pid)
    for _ in range(600):
        workers = [
            child
            for child in parent.children()
            if any("multiprocessing.spawn" in part for part in child.cmdline())
        ]
        if len(workers) == 2:
            # Until they are in the midst of something.
            time.sleep(1)
            return workers
        time.sleep(0.1)
    raise AssertionError("The command never began with two processes.")
