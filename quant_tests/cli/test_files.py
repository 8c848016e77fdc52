"""`quant data files`: what it prints of good files, of bad ones, and of none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from quant_assets.cli.files import files
from quant_resources.errors import ConfigurationError, SourceError
from quant_resources.file_layout import load_layout
from quant_tests.resources.bar_files import SESSIONS, lines, source, write_text


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANT_DATA_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("QUANT_FILES", str(tmp_path / "files.toml"))
    monkeypatch.setenv("COLUMNS", "160")


def run(*arguments: str) -> Result:
    app = Typer()
    app.command()(files)
    return CliRunner().invoke(app, arguments)


def test_what_is_in_good_files(tmp_path: Path) -> None:
    source(tmp_path)
    text = [line for line in lines() if str(SESSIONS[4]) not in line]
    write_text(tmp_path / "bars.csv", text)
    shown = run()
    assert shown.exit_code == 0, shown.exception
    assert f"Sessions without any bar: {SESSIONS[4]}" in shown.stdout
    assert "Prices are declared raw: no split with bars around it says" in shown.stdout
    assert "BRK.B" in shown.stdout
    told = json.loads(run("--json").stdout)[0]
    assert (told["rows"], told["symbols"], told["sessions"]) == (44, 4, 11)
    assert (told["first_day"], told["last_day"]) == (str(SESSIONS[0]), str(SESSIONS[-1]))
    assert told["newest_closed_session"] == str(SESSIONS[-1])
    assert told["refused"] is None


def test_cells_that_cannot_be_read_are_shown_and_the_refusal_is_the_error(tmp_path: Path) -> None:
    source(tmp_path)
    text = lines()
    text[12] = text[12].replace("22.75", "oops")
    write_text(tmp_path / "bars.csv", text)
    shown = run()
    assert isinstance(shown.exception, SourceError)
    assert "line 13 (AAA, 2024-03-18), column close: 'oops' is no number" in str(shown.exception)
    assert "Cells that cannot be read" in shown.stdout
    assert "oops" in shown.stdout


def test_a_wrong_declaration_shows_the_splits_that_contradict_it(tmp_path: Path) -> None:
    source(
        tmp_path,
        '[actions]\npath = "actions.csv"\nformat = "csv"\n[actions.columns]\nratio = "ratio"',
    )
    write_text(tmp_path / "bars.csv", lines())
    write_text(
        tmp_path / "actions.csv", ["ex_date,symbol,type,ratio", f"{SESSIONS[5]},AAA,split,4"]
    )
    shown = run()
    assert isinstance(shown.exception, SourceError)
    assert "prices are declared raw, which 1 of 1 splits contradict" in str(shown.exception)
    assert "Splits that contradict" in shown.stdout
    assert "0 splits say raw, 1 say adjusted for splits" in shown.stdout


def test_without_a_layout_the_example_is_named_and_is_one(tmp_path: Path) -> None:
    assert isinstance(run().exception, ConfigurationError)
    shown = run("--example")
    (tmp_path / "files.toml").write_text(shown.stdout)
    assert load_layout(tmp_path / "files.toml").name == "vendor"
