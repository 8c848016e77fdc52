"""The model asset on the real graph: it trains, registers, promotes, and does it only once."""

from __future__ import annotations

from datetime import date

import dagster as dg
import polars as pl
import pytest

from quant_assets.features.schemas import ALPHA158, LABELS
from quant_assets.models import checks, serving
from quant_assets.models.assets import FEATURES, model_assets
from quant_assets.models.monthly_training import TrainingConfig, train_month, training_rows
from quant_assets.models.schemas import ALPHA158_LIGHTGBM, TABLES
from quant_assets.models.walk_forward import InsufficientHistoryError, WalkForwardConfig
from quant_assets.table_checks import CheckScope
from quant_resources.calendar import XNYS
from quant_resources.ledger import registry
from quant_resources.store import Store
from quant_tests.models import trained_market
from quant_tests.models.planted_market import FIRST, SIGNAL, plant, upstream

FEBRUARY, MARCH = (date.fromisoformat(month) for month in trained_market.MONTHS)


def stored(trained, month: str) -> pl.DataFrame:
    return trained.market.store.read(ALPHA158_LIGHTGBM, [month]).collect()


def scope(trained, month: str) -> CheckScope:
    return CheckScope([month], trained.market.store, trained.ledger, None)  # pyright: ignore[reportArgumentType]


def test_alpha158_has_its_158_features() -> None:
    assert len(FEATURES) == 158
    assert (FEATURES[0], FEATURES[-1]) == ("KMID", "VSUMD60")


def test_the_planted_signal_is_found_out_of_sample_and_the_model_serves(trained) -> None:
    assert all(run.success for run in trained.runs)
    row = stored(trained, "2024-02-01").row(0, named=True)
    assert row["status"] == "active"
    assert row["effective_session"] == date(2024, 2, 1)
    # The label of the session before last is known on the last session of January at the latest.
    assert row["training_last_session"] == date(2024, 1, 29)
    assert row["validation_sessions"] == 63
    # 63 sessions of 24 names: the standard error of the mean IC is 0.026.
    assert SIGNAL - 0.12 < row["ic_mean"] < SIGNAL + 0.08
    served = serving.versions_in_force(
        trained.ledger, "alpha158_lightgbm", [date(2024, 1, 31), FEBRUARY, date(2024, 2, 29), MARCH]
    )
    assert date(2024, 1, 31) not in served
    assert served[FEBRUARY] == served[date(2024, 2, 29)] == row["model_version"]
    assert served[MARCH] == stored(trained, "2024-03-01").item(0, "model_version")
    assert served[MARCH] != served[FEBRUARY]


def test_evidence_and_pictures_are_in_the_metadata(trained) -> None:
    (event,) = trained.runs[1].asset_materializations_for_node("models__alpha158_lightgbm")
    metadata = event.metadata
    assert metadata["status"].value == "active"
    assert "mean IC" in str(metadata["promotion"].value)
    assert "unseen by both" in str(metadata["promotion"].value)
    for name in ("daily_ic", "feature_importance"):
        assert "data:image/png;base64," in str(metadata[name].value)
    assert "| KMID |" in str(metadata["feature_importance_table"].value)


def test_the_registry_holds_evidence_and_settings(trained) -> None:
    version = stored(trained, "2024-03-01").item(0, "model_version")
    with trained.ledger.begin() as transaction:
        model = registry.model(transaction, version)
    assert model.month == MARCH
    assert model.metrics["last_known_session"] < "2024-03-01"
    assert model.metrics["held_out_last_session"] == "2024-02-27"
    assert TrainingConfig.model_validate(model.config) == TrainingConfig()


def test_training_a_month_again_changes_nothing(trained) -> None:
    before = stored(trained, "2024-02-01")
    with trained.ledger.begin() as transaction:
        made = len(registry.activations(transaction))
    run = trained_market.train(trained.market, trained.ledger, "2024-02-01")
    assert run.success
    assert stored(trained, "2024-02-01").equals(before)
    with trained.ledger.begin() as transaction:
        assert len(registry.activations(transaction)) == made
        assert len(registry.list_models(transaction)) == 2


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.name)
def test_checks_pass_on_a_sound_model(trained, check) -> None:
    for month in trained_market.MONTHS:
        finding = check.function(stored(trained, month), scope(trained, month))
        assert finding.passed, finding.message


def test_checks_catch_what_they_are_for(trained) -> None:
    row, where = stored(trained, "2024-03-01"), scope(trained, "2024-03-01")
    blind = row.with_columns(ic_mean=pl.lit(None, pl.Float64))
    assert not checks.evidence_is_present(blind, where).passed
    # The label of the month's eve is known in the month.
    late = row.with_columns(training_last_session=pl.lit(date(2024, 2, 28)))
    finding = checks.no_label_was_known_too_late(late, where)
    assert not finding.passed
    assert finding.sample is not None
    assert finding.sample.item(0, "known_session") == MARCH
    unknown = row.with_columns(model_version=pl.lit("alpha158_lightgbm-2024-03-00000000"))
    assert not checks.model_is_registered(unknown, where).passed
    assert not checks.skill_is_positive(row.with_columns(ic_mean=-0.01), where).passed


def test_a_label_that_claims_to_be_known_too_early_is_caught(trained, tmp_path) -> None:
    """It would train the month after it; the store as it was before the month does not have it."""
    store = plant(Store(tmp_path), last=date(2024, 3, 15), names=4).store
    eve = XNYS.previous(MARCH).isoformat()
    lying = store.read(LABELS, [eve]).collect().with_columns(known_session=pl.col("session"))
    store.write(LABELS, lying, [eve])
    where = CheckScope(["2024-03-01"], store, trained.ledger, None)  # pyright: ignore[reportArgumentType]
    finding = checks.no_look_ahead(stored(trained, "2024-03-01"), where)
    assert not finding.passed
    assert finding.count == 4
    assert checks.no_look_ahead(stored(trained, "2024-02-01"), where).passed


def test_the_future_changes_nothing(trained) -> None:
    store = trained.market.store
    config = TrainingConfig()
    cut = XNYS.previous(MARCH)

    def version(features: pl.LazyFrame, labels: pl.LazyFrame) -> str:
        rows = training_rows(features, labels, FEATURES, MARCH, config.walk_forward)
        return train_month("alpha158_lightgbm", rows, FEATURES, MARCH, config).version

    features, labels = store.read(ALPHA158), store.read(LABELS)
    truncated = version(
        features.filter(pl.col("session") <= cut), labels.filter(pl.col("known_session") <= cut)
    )
    assert truncated == stored(trained, "2024-03-01").item(0, "model_version")
    assert version(features, labels) == truncated


def test_a_month_without_history_says_how_much_is_missing(trained, tmp_path) -> None:
    market = plant(Store(tmp_path), last=date(2024, 1, 31), names=4)
    assets = model_assets(
        TrainingConfig(
            walk_forward=WalkForwardConfig(minimum_fit_sessions=400, training_sessions=700)
        )
    )
    with pytest.raises(
        InsufficientHistoryError, match=r"2024-02 needs 470 sessions .* has 269 .*backfill 201"
    ):
        dg.materialize(
            [*assets, *upstream()],
            selection=list(assets),
            partition_key="2024-02-01",
            resources=market.resources(trained.ledger, TABLES),
        )
    assert len(XNYS.sessions(FIRST, date(2024, 1, 29))) == 269


def test_a_model_without_skill_stays_a_candidate(trained) -> None:
    store = trained.market.store
    config = TrainingConfig()
    # Labels turned around on the held-out sessions: what was learned is wrong there.
    rows = training_rows(
        store.read(ALPHA158), store.read(LABELS), FEATURES, MARCH, config.walk_forward
    ).with_columns(
        forward_return_zscore=pl.col("forward_return_zscore")
        * pl.when(pl.col("session") >= date(2023, 11, 28)).then(-1.0).otherwise(1.0)
    )
    model = train_month("alpha158_lightgbm", rows, FEATURES, MARCH, config)
    before = serving.versions_in_force(trained.ledger, model.name, [MARCH])
    outcome = serving.register_and_promote(trained.ledger, model, rows)
    assert outcome.status == "candidate"
    assert "is not above 0" in outcome.reason
    assert serving.versions_in_force(trained.ledger, model.name, [MARCH]) == before


def test_a_rollback_by_a_person_stands(trained) -> None:
    february = stored(trained, "2024-02-01").item(0, "model_version")
    march = stored(trained, "2024-03-01").item(0, "model_version")
    session = date(2024, 3, 11)
    with trained.ledger.begin() as transaction:
        registry.activate_model(
            transaction,
            model_name="alpha158_lightgbm",
            model_version=february,
            effective_session=session,
            activated_by="a person",
            reason="a test",
        )
    assert trained_market.train(trained.market, trained.ledger, "2024-03-01").success
    served = serving.versions_in_force(
        trained.ledger, "alpha158_lightgbm", [XNYS.previous(session), session]
    )
    assert list(served.values()) == [march, february]
