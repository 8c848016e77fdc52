"""The trading ground's fixtures, for tests that break it, and the stage of the crash matrix."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quant_tests.faults.stage import Stage, without_waiting_for_the_disk
from quant_tests.orders.conftest import (
    database_template,
    exchange,
    ground,
    ledger_url,
    market_folder,
)

__all__ = ["database_template", "exchange", "ground", "ledger_url", "market_folder", "stage"]


@pytest.fixture(scope="module")
def stage(database_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A trading day that can be begun anew at each of its parts."""
    without_waiting_for_the_disk(database_template)
    stage = Stage(database_template, tmp_path_factory.mktemp("stage"))
    yield stage
    stage.close()
