"""PostgreSQL is stopped, really, while a session is traded: nothing is lost, nothing is doubled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from quant_resources.postgres import ensure_postgres
from quant_tests.faults import trader
from quant_tests.faults.crash_cells import Undisturbed, end_of_day, undisturbed
from quant_tests.faults.crash_matrix import template_ledger
from quant_tests.faults.stage import TUESDAY, Stage
from quant_tests.faults.truth import truth_of

#: What is written at the step, and whether the server stops right before it or right after.
OUTAGES = (
    ("order_batches", "before"),
    ("order_batches", "after"),
    ("→ sending", "after"),
    ("POST", "before"),
    ("POST", "after"),
    ("→ accepted", "before"),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server lies that these tests stop."""
    return tmp_path_factory.mktemp("own_server")


@pytest.fixture(scope="module")
def own_stage(server: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The day on a database server of its own."""
    with template_ledger(server) as template:
        stage = Stage(template, tmp_path_factory.mktemp("stage"))
        yield stage
        stage.close()


@pytest.fixture(scope="module")
def known(own_stage: Stage) -> Undisturbed:
    """The morning without any trouble."""
    return undisturbed(own_stage, "morning")


@pytest.mark.parametrize(("written", "moment"), OUTAGES)
def test_the_database_stops(
    own_stage: Stage, known: Undisturbed, server: Path, written: str, moment: str
) -> None:
    """Between intent and submission, and between acceptance and recording."""
    step = next(s.number for s in known.steps if written in s.name)
    with own_stage.at("morning") as ground:
        work = own_stage.work("morning", ground)
        before = len(ground.submissions())
        stopping = own_stage.work("morning", ground, database=server)
        try:
            code = trader.run(stopping, step - 1 if moment == "before" else step)
            sent = len(ground.submissions()) - before
        finally:
            ensure_postgres(server)
        assert code == trader.FAILED
        # Without the ledger nothing leaves: at most the order whose request was on its way.
        assert sent == (written in {"POST", "→ accepted"})
        assert trader.run(work) == trader.DONE
        end_of_day(ground)
        truth = truth_of(ground, TUESDAY, 1)
        assert truth.problems == ()
        assert list(truth.differences(known.truth)) == []
