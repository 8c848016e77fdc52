"""Settings of sources: what is taken from the environment, what contradicts itself, what is never said."""

from __future__ import annotations

from pathlib import Path

import pytest

from quant_resources.errors import ConfigurationError
from quant_resources.launch import launch_environment
from quant_resources.postgres import ServerUrls
from quant_resources.settings import load_settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ALPACA_API_KEY", "ALPACA_SECRET_KEY", "QUANT_SOURCE", "QUANT_DATA_ROOT"):
        monkeypatch.delenv(name, raising=False)


def test_bars_come_from_where_orders_go_unless_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fresh = load_settings()
    assert (fresh.bars_from, fresh.second_source, fresh.needs_alpaca) == ("exchange", "", False)
    assert fresh.files_layout == tmp_path / ".quant" / "files.toml"
    assert fresh.universe_membership is None
    assert fresh.dividend_convention == "crsp"
    monkeypatch.setenv("QUANT_BARS", "files")
    monkeypatch.setenv("QUANT_FILES", "my/layout.toml")
    monkeypatch.setenv("QUANT_SECOND_SOURCE", "alpaca")
    monkeypatch.setenv("QUANT_UNIVERSE_MEMBERSHIP", "members.csv")
    chosen = load_settings()
    assert (chosen.bars_from, chosen.source, chosen.needs_alpaca) == ("files", "exchange", True)
    assert chosen.files_layout == tmp_path / "my" / "layout.toml"
    assert chosen.universe_membership == tmp_path / "members.csv"
    monkeypatch.setenv("QUANT_FILES", "")
    assert load_settings().files_layout == tmp_path / ".quant" / "files.toml"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"QUANT_SECOND_SOURCE": "exchange"}, "exchange like the first"),
        ({"QUANT_BARS": "files", "QUANT_SECOND_SOURCE": "files"}, "files like the first"),
        ({"QUANT_BARS": "yfinance"}, "name the symbols in QUANT_SYMBOLS"),
        ({"QUANT_SECOND_SOURCE": "yfinance"}, "name the symbols in QUANT_SYMBOLS"),
        ({"QUANT_BARS": "yahoo"}, "bars: Input should be"),
        ({"QUANT_DIVIDEND_CONVENTION": "yahoo"}, "dividend_convention: Input should be"),
        ({"QUANT_SECOND_SOURCE_TOLERANCE": "-0.1"}, "second_source_tolerance: Input should be"),
        ({"QUANT_SECOND_SOURCE_TOLERANCE": "nan"}, "second_source_tolerance"),
        ({"QUANT_SECOND_SOURCE_VOLUME_TOLERANCE": "x"}, "second_source_volume_tolerance"),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_processes_get_the_choices_and_no_made_up_keys_where_alpaca_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A local key sent to Alpaca's data API would be refused, far from its cause."""
    databases = ServerUrls("postgresql+psycopg2:///ledger", "postgresql+psycopg2:///dagster")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    local = launch_environment(
        load_settings(bars="files", symbols=("A", "B"), second_source_tolerance=0.01), databases
    )
    assert local["QUANT_BARS"] == "files"
    assert local["QUANT_SECOND_SOURCE_TOLERANCE"] == "0.01"
    assert "ALPACA_API_KEY" in local
    assert "ALPACA_API_KEY" not in launch_environment(load_settings(bars="alpaca"), databases)
    for name, value in local.items():
        monkeypatch.setenv(name, value)
    assert load_settings().symbols == ("A", "B")
