"""A materialized small market, and copies of it for what changes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from quant_assets.features.schemas import LABEL_TABLES
from quant_tests.point_in_time import wrong_tables
from quant_tests.point_in_time.small_market import KEYS, SmallMarket, write_files

#: Sessions with members of the universe.
FILLED = KEYS[62:]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("files"))


def on(root: Path, files: Path) -> SmallMarket:
    """The graph with the tables of `wrong_tables` over a data root."""
    return SmallMarket(root, files, wrong_tables.ASSETS, wrong_tables.TABLES)


def copied(market: SmallMarket, root: Path, files: Path) -> SmallMarket:
    """A market of its own, to change."""
    shutil.copytree(str(market.store.root), root, dirs_exist_ok=True)
    return on(root, files)


@pytest.fixture(scope="session")
def yesterday(files: Path, tmp_path_factory: pytest.TempPathFactory) -> SmallMarket:
    """The market as it was one session before its last, learned as one range; do not write."""
    market = on(tmp_path_factory.mktemp("yesterday"), files)
    market.learn(KEYS[:-1])
    return market


@pytest.fixture(scope="session")
def learned(
    yesterday: SmallMarket, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> SmallMarket:
    """The newest day is learned, the tables of `wrong_tables` are of the day before; do not write."""
    market = copied(yesterday, tmp_path_factory.mktemp("learned"), files)
    # What asks for the next day's bars by mapping or name cannot be made before they are there.
    early = ("mapped_ahead", "asks_by_name")
    paths = [table.path for table in wrong_tables.of_grain("session") if table.name not in early]
    assert market.run(paths, FILLED[:-1], checks=False).success
    market.learn(KEYS[-1:])
    return market


@pytest.fixture(scope="session")
def market(
    learned: SmallMarket, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> SmallMarket:
    """The whole market with its labels, backtest and the wrong tables, each as a range; do not write."""
    market = copied(learned, tmp_path_factory.mktemp("market"), files)
    for table in (*LABEL_TABLES, *wrong_tables.of_grain("labelled_session")):
        # One of them asks for two sessions more than it declares.
        known = KEYS[: -table.horizon - 2]
        assert market.run([table.path], [k for k in FILLED if k in known], checks=False).success
    *sessions, asking = [table.path for table in wrong_tables.of_grain("session")]
    for paths, keys in ((sessions, FILLED), ([asking], FILLED[:-1])):
        assert market.run(paths, keys, checks=False).success
    whole = [table.path for table in wrong_tables.of_grain("none")]
    backtest = "performance/backtest_enhanced_momentum"
    assert market.run([backtest, *whole], [], checks=False).success
    return market


@pytest.fixture(scope="session")
def morning(
    learned: SmallMarket, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> SmallMarket:
    """What `learned` holds, for runs of the newest day."""
    return copied(learned, tmp_path_factory.mktemp("morning"), files)
