"""`quant exchange restate`, `restatements` and `faults`, as a person rehearsing a bad vendor uses them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quant_assets.cli.exchange import app
from quant_resources.errors import ConfigurationError, ExchangeError
from quant_resources.exchange.process import (
    EXCHANGE_FOLDER,
    ExchangeControl,
    MarketSpec,
    ensure_exchange,
    stop_exchange,
)
from quant_tests.exchange.served import WEEK, new_york, write_history


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data root whose exchange stands on Thursday morning."""
    folder = tmp_path_factory.mktemp("rehearsal")
    history = write_history(folder / "history", WEEK)
    state = folder / "root" / EXCHANGE_FOLDER
    try:
        url = ensure_exchange(state, MarketSpec(kind="history", folder=history)).url
        ExchangeControl(url).advance(new_york("2024-03-07 09:00"))
        yield folder / "root"
    finally:
        stop_exchange(state)


@pytest.fixture
def run(root: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("QUANT_DATA_ROOT", str(root))
    monkeypatch.setenv("COLUMNS", "200")

    def command(*words: str) -> str:
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return command


def test_a_bar_is_restated_withdrawn_and_added(run) -> None:  # type: ignore[no-untyped-def]
    assert "is o 102.0 h 104.0 l 101.0 c 12.34" in run(
        "restate", "abc", "2024-03-05", "--close", "12.34"
    )
    assert run("restate", "XYZ", "2024-03-05", "--withdraw").strip().endswith("is nothing.")
    run(
        *("restate", "XYZ", "2024-03-05", "--add", "--open", "1", "--high", "1"),
        *("--low", "1", "--close", "-1", "--volume", "7"),
    )
    listed = json.loads(run("restatements", "--json"))
    assert [(row["what"], row["session"]) for row in listed] == [
        ("ABC", "2024-03-05"),
        ("XYZ", "2024-03-05"),
        ("XYZ", "2024-03-05"),
    ]
    assert "c -1" in listed[-1]["is"]
    assert "Restatements" in run("restatements")


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (("restate", "ABC", "2024-03-05"), ConfigurationError, "--close 12.34"),
        (("restate", "ABC", "yesterday", "--withdraw"), ConfigurationError, "is no day"),
        (
            ("restate", "ABC", "2024-03-05", "--close", "1", "--withdraw"),
            ConfigurationError,
            "or --withdraw",
        ),
        (("restate", "ABC", "2024-03-05", "--close", "nan"), ExchangeError, "cannot be sent"),
        (("restate", "NOPE", "2024-03-05", "--close", "1"), ExchangeError, "no symbol NOPE"),
        (("restate", "ABC", "2024-03-07", "--close", "1"), ExchangeError, "has not closed"),
        (("faults", "/nowhere.json"), ConfigurationError, "cannot be read as a fault plan"),
    ],
)
def test_a_wrong_word_is_one_sentence(run, words, error, says) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=says):
        run(*words)


def test_a_plan_is_posted_shown_and_cleared(run, root: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plan = tmp_path / "plan.json"
    rule = {"path": "/v2/stocks/*", "times": 2, "fault": {"kind": "status", "status": 429}}
    plan.write_text(json.dumps({"rules": [rule]}))
    shown = run("faults", str(plan))
    assert "/v2/stocks/*" in shown
    assert "times=2" in shown
    (row,) = json.loads(run("faults", "--json"))
    assert (row["fault"], row["seen"], row["fired"]) == ("status status=429", 0, 0)
    with pytest.raises(ConfigurationError, match="not both"):
        run("faults", str(plan), "--clear")
    assert json.loads(run("faults", "--clear", "--json")) == []
    plan.write_text("[]")
    with pytest.raises(ConfigurationError, match="is no fault plan"):
        run("faults", str(plan))
    plan.write_text('{"rules": [{"fault": {"kind": "meteor"}}]}')
    with pytest.raises(ExchangeError, match="meteor"):
        run("faults", str(plan))
