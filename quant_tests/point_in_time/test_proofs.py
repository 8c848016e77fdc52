"""A planned table's proof: which findings it has, what several parts give together, and what stops one."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from quant_assets.features.schemas import ALPHA158
from quant_assets.findings import Finding
from quant_assets.market_data.schemas import BARS
from quant_assets.models.assets import ASSETS as MODEL_ASSETS
from quant_assets.models.schemas import ALPHA158_LIGHTGBM
from quant_assets.orders.assets import order_assets
from quant_assets.orders.schemas import TARGET_PORTFOLIO
from quant_assets.partitions import DEFAULT
from quant_assets.point_in_time.plan import Sessions, plan
from quant_assets.point_in_time.proofs import Proof, Prover, merged, whole
from quant_assets.point_in_time.recompute import Step, recompute, steps
from quant_assets.signals.assets import signal_assets
from quant_assets.signals.schemas import signal_table
from quant_assets.signals.strategies.ml_ranker import MlRanker
from quant_resources.ledger.unrecorded import UnrecordedLedger
from quant_resources.store import Store
from quant_tests.models.planted_market import plant
from quant_tests.models.trained_market import MONTHS, Trained, ledger, trained
from quant_tests.performance.sample_evidence import rows_of

__all__ = ["ledger", "trained"]

RANKER = MlRanker(names_per_leg=5)
SIGNALS = signal_table(RANKER)
#: Over the turn of a month, so that two models take part.
KEYS = ("2024-02-28", "2024-02-29", "2024-03-01")
GRAPH = steps([*signal_assets((RANKER,)), *MODEL_ASSETS, *order_assets((SIGNALS,))], DEFAULT)
TABLES = {table.path: table for step in GRAPH for table in step.tables}
FINE, WRONG = Finding(True, "fine"), Finding(False, "wrong", 2, remedy="mend")


@pytest.fixture(scope="module")
def prover(trained: Trained) -> Prover:
    """A market with models, the ranker's signals, and a session that was traded on them."""
    store = trained.market.store
    unrecorded = UnrecordedLedger.over(trained.ledger)
    step = step_of(SIGNALS.path)
    signals = recompute(step, SIGNALS, KEYS, store, {"ledger": unrecorded})
    store.write(SIGNALS, signals, KEYS)
    store.write(TARGET_PORTFOLIO, targets(signals), ["2024-03-01"])
    return Prover(store, unrecorded, TABLES)


def step_of(path: str) -> Step:
    return next(step for step in GRAPH if any(table.path == path for table in step.tables))


def targets(signals: pl.DataFrame) -> pl.DataFrame:
    """What was planned for the first of March from the signals of the day before."""
    rows = signals.filter(session=date(2024, 2, 29)).select(
        "symbol", "security_id", "strategy", "score", "target_weight", "model_version"
    )
    common = {
        "trading_session": date(2024, 3, 1),
        "signal_session": date(2024, 2, 29),
        "changed": True,
        "priced_at": datetime(2024, 3, 1, 14, tzinfo=UTC),
    }
    return rows_of(TARGET_PORTFOLIO, [row | common for row in rows.to_dicts()])


def proof(prover: Prover, store: Store, path: str, *keys: str) -> Proof:
    """The proof of one table, planned as the command plans it."""
    made = plan(GRAPH, [], store, Sessions(), [path])
    (found,) = prover.prove(made.tables, keys)
    return found


def test_signals_are_proved_with_their_models(trained: Trained, prover: Prover) -> None:
    found = proof(prover, trained.market.store, SIGNALS.path, *KEYS)
    assert found.passed, found.findings
    assert (found.sessions, found.rows) == (3, 3 * trained.market.names)
    assert set(found.findings) == {"look-ahead", "parity", "start-up"}
    assert found.seconds > 0


def test_a_version_that_was_not_in_force_is_a_look_ahead(trained: Trained, prover: Prover) -> None:
    """The model of March in signals of February: computed again, they name another one as well."""
    store = trained.market.store
    sound = store.read(SIGNALS, KEYS).collect()
    march = sound.filter(session=date(2024, 3, 1)).item(0, "model_version")
    store.write(SIGNALS, sound.with_columns(model_version=pl.lit(march)), KEYS)
    try:
        found = proof(prover, store, SIGNALS.path, *KEYS)
    finally:
        store.write(SIGNALS, sound, KEYS)
    assert found.look_ahead is not None
    assert not found.look_ahead.passed
    assert found.look_ahead.count == 2
    assert "not in force" in found.look_ahead.message
    assert found.parity is not None
    assert not found.parity.passed


def test_a_month_is_proved_without_a_start_up(trained: Trained, prover: Prover) -> None:
    found = proof(prover, trained.market.store, ALPHA158_LIGHTGBM.path, MONTHS[0])
    assert found.passed, found.findings
    assert set(found.findings) == {"look-ahead", "parity"}
    assert (found.sessions, found.rows) == (1, 1)


def test_evidence_is_held_against_its_signals(trained: Trained, prover: Prover) -> None:
    store, key = trained.market.store, "2024-03-01"
    found = proof(prover, store, TARGET_PORTFOLIO.path, key)
    assert found.passed, found.findings
    assert set(found.findings) == {"look-ahead", "parity"}
    sound = store.read(TARGET_PORTFOLIO, [key]).collect()
    wrong = {
        "look-ahead": sound.with_columns(priced_at=datetime(2024, 3, 4, 14, tzinfo=UTC)),
        "parity": sound.with_columns(pl.col("target_weight") + 0.01),
    }
    for kind, frame in wrong.items():
        store.write(TARGET_PORTFOLIO, frame, [key])
        found = proof(prover, store, TARGET_PORTFOLIO.path, key)
        assert [name for name, made in found.findings.items() if not made.passed] == [kind]
    store.write(TARGET_PORTFOLIO, sound, [key])


def test_evidence_of_signals_that_are_gone_is_found(trained: Trained, tmp_path) -> None:
    store = Store(tmp_path)
    sound = trained.market.store.read(SIGNALS, KEYS).collect()
    store.write(TARGET_PORTFOLIO, targets(sound), ["2024-03-01"])
    unrecorded = UnrecordedLedger.over(trained.ledger)
    for tables in (TABLES, {}):
        found = proof(Prover(store, unrecorded, tables), store, TARGET_PORTFOLIO.path, "2024-03-01")
        assert found.parity is not None
        assert not found.parity.passed


def test_what_cannot_be_computed_is_a_problem_and_no_proof(trained: Trained, tmp_path) -> None:
    """The features of the month are gone."""
    store = plant(Store(tmp_path), last=date(2024, 3, 1), names=4).store
    store.write(ALPHA158_LIGHTGBM, trained_row(trained), [MONTHS[0]])
    for file in (tmp_path / ALPHA158.path).glob("2023-1*.parquet"):
        file.unlink()
    prover = Prover(store, UnrecordedLedger.over(trained.ledger), TABLES)
    found = proof(prover, store, ALPHA158_LIGHTGBM.path, MONTHS[0])
    assert not found.passed
    assert found.findings == {}
    assert "features/alpha158" in found.problem
    assert BARS.path not in found.problem


def trained_row(trained: Trained) -> pl.DataFrame:
    return trained.market.store.read(ALPHA158_LIGHTGBM, [MONTHS[0]]).collect()


def test_several_findings_are_one() -> None:
    assert merged([]) is None
    assert merged([FINE, FINE]) == FINE
    both = merged([FINE, WRONG, Finding(False, "worse", 3)])
    assert both is not None
    assert not both.passed
    assert (both.message, both.count, both.remedy) == (
        "wrong 1 more part(s) failed as well.",
        5,
        "mend",
    )


def test_parts_are_one_proof() -> None:
    """A part that has no finding of a kind, or a problem of its own, does not hide the others'."""
    one = Proof("a/b", 2, 10, FINE, FINE, seconds=1.0)
    other = Proof("a/b", 1, 5, FINE, WRONG, FINE, seconds=0.5)
    stuck = Proof("a/b", 1, 0, problem="not stored")
    together = whole([one, other])
    assert together == Proof("a/b", 3, 15, FINE, WRONG, FINE, seconds=1.5)
    assert not together.passed
    assert whole([one, one]).passed
    assert whole([one, stuck]).problem == "not stored"
    assert not whole([one, stuck]).passed
