"""Which object stands behind `bar_source` and `second_bar_source`, made by Dagster as a run makes it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from quant_resources.alpaca_bars import AlpacaBars
from quant_resources.errors import ConfigurationError
from quant_resources.file_bars import FileBars
from quant_resources.resources import platform_resources, refuse_unusable_sources
from quant_resources.settings import Settings, load_settings


def sources(settings: Settings) -> tuple[Any, Any]:
    """Both sources as an asset of a run receives them."""
    with dg.build_resources(
        {
            key: resource
            for key, resource in platform_resources(settings).items()
            if key in ("bar_source", "second_bar_source")
        }
    ) as made:
        return made.bar_source, made.second_bar_source


def layout(folder: Path) -> Path:
    """A folder with one bar of one symbol, and the layout that describes it."""
    folder.mkdir(parents=True)
    bars = pl.DataFrame(
        {
            "symbol": ["AAA"],
            "date": ["2024-03-04"],
            **{name: [10.0] for name in ("open", "high", "low", "close")},
            "volume": [100],
        }
    )
    bars.write_csv(folder / "bars.csv")
    file = folder / "files.toml"
    file.write_text(
        'name = "vendor"\nprices = "raw"\n[bars]\npath = "bars.csv"\nformat = "csv"\n'
        'one_file_per = "market"\n[bars.columns]\nsymbol = "symbol"\n'
    )
    return file


def test_no_second_source_is_none(tmp_path: Path) -> None:
    settings = load_settings(
        data_root=tmp_path, data_url="http://127.0.0.1:9", trading_url="http://127.0.0.1:9"
    )
    first, second = sources(settings)
    assert isinstance(first, AlpacaBars)
    assert first.name == "local exchange"
    assert second is None


def test_alpaca_beside_a_local_exchange_is_asked_at_its_own_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALPACA_API_KEY", "key")
    monkeypatch.setenv("ALPACA_SECRET_KEY", "secret")
    settings = load_settings(
        data_root=tmp_path,
        data_url="http://127.0.0.1:9",
        trading_url="http://127.0.0.1:9",
        second_source="alpaca",
        feed="sip",
    )
    first, second = sources(settings)
    assert (first.name, second.name) == ("local exchange", "alpaca/sip")


def test_files_beside_alpaca(tmp_path: Path) -> None:
    settings = load_settings(
        data_root=tmp_path,
        data_url="http://127.0.0.1:9",
        trading_url="http://127.0.0.1:9",
        bars="files",
        files=layout(tmp_path / "vendor"),
        second_source="exchange",
    )
    first, second = sources(settings)
    assert isinstance(first, FileBars)
    assert first.symbols() == ["AAA"]
    assert isinstance(second, AlpacaBars)


def test_files_without_a_layout_are_one_sentence(tmp_path: Path) -> None:
    settings = load_settings(data_root=tmp_path, bars="files")
    with pytest.raises(ConfigurationError, match=r"files\.toml"):
        refuse_unusable_sources(settings)
    with pytest.raises(dg.DagsterResourceFunctionError) as refused:
        sources(settings)
    assert isinstance(refused.value.__cause__, ConfigurationError)


def test_yfinance_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(data_root=tmp_path, bars="yfinance", symbols=("AAPL",))
    # As on a machine where it was never installed.
    monkeypatch.setitem(sys.modules, "yfinance", None)
    with pytest.raises(ConfigurationError, match="uv sync --extra yfinance"):
        refuse_unusable_sources(settings)
    # What is not chosen need not be there.
    refuse_unusable_sources(load_settings(data_root=tmp_path))


def test_yfinance_where_it_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("yfinance")
    settings = load_settings(data_root=tmp_path, bars="yfinance", symbols=("AAPL", "brk.b"))
    first, second = sources(settings)
    assert first.name == "yahoo"
    assert first.symbols() == ["AAPL", "BRK.B"]
    assert second is None
