"""A file is a strategy; a wrong declaration is refused by name."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import polars as pl
import pytest

from quant_assets.signals import strategies as package
from quant_assets.signals.discovery import (
    StrategyDeclarationError,
    discover,
    strategies_in,
    validated,
)
from quant_assets.signals.schemas import tables
from quant_assets.signals.strategy import Strategy

NEW = '''"""Hold nothing."""

import polars as pl

from quant_assets.signals.strategies.ml_ranker import MlRanker
from quant_assets.signals.strategy import Strategy


class Nothing(Strategy):
    """Holds nothing."""

    name = "nothing"
    version = "1"

    def signals(self, universe: pl.DataFrame) -> pl.DataFrame:
        return universe
'''


class Silent(Strategy):
    """A strategy to change the declaration of."""

    name = "silent"
    version = "1"

    def signals(self, universe: pl.DataFrame) -> pl.DataFrame:
        """Return what came."""
        return universe


def declared(**attributes: object) -> Strategy:
    return type("Changed", (Silent,), attributes)()


def test_the_built_in_strategies_are_found() -> None:
    assert [strategy.name for strategy in discover()] == ["enhanced_momentum", "ml_ranker"]


def test_a_new_file_is_a_new_strategy_with_a_table(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "nothing.py").write_text(NEW)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    try:
        found = discover()
    finally:
        sys.modules.pop(f"{package.__name__}.nothing", None)
    # The imported ranker is not found a second time.
    assert [strategy.name for strategy in found] == ["enhanced_momentum", "ml_ranker", "nothing"]
    assert [table.path for table in tables(found)][-1] == "signals/nothing"


def test_a_file_without_strategy_is_refused() -> None:
    with pytest.raises(StrategyDeclarationError, match="empty_file defines no complete strategy"):
        strategies_in(ModuleType("empty_file"))


def test_two_strategies_of_one_name_are_refused() -> None:
    with pytest.raises(StrategyDeclarationError, match="both named 'silent': rename one"):
        validated([Silent(), Silent()])


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"name": "Big Name"}, "has the name 'Big Name'; it must match"),
        ({"name": ""}, "has the name ''"),
        ({"name": None}, "has the name None"),
        ({"version": "1/2"}, "has the version '1/2'"),
        ({"features": {"market_data/bars": "close"}}, "write a tuple of names"),
    ],
)
def test_a_wrong_declaration_is_refused(attributes, message) -> None:
    with pytest.raises(StrategyDeclarationError, match=message):
        validated([declared(**attributes)])


class Forgotten(Strategy):
    """A strategy that does not say its version."""

    name = "forgotten"
    features: ClassVar = {}

    def signals(self, universe: pl.DataFrame) -> pl.DataFrame:
        """Return what came."""
        return universe


def test_a_missing_version_is_refused() -> None:
    with pytest.raises(StrategyDeclarationError, match="Forgotten has the version None"):
        validated([Forgotten()])
