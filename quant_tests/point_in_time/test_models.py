"""Models: what trains them, what training again gives, and whether who served was known by then."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import dagster as dg
import polars as pl
import pytest

from quant_assets.features.schemas import ALPHA158, LABELS
from quant_assets.models.assets import ASSETS, FEATURES, model_row
from quant_assets.models.monthly_training import TrainingConfig, train_month, training_rows
from quant_assets.models.schemas import ALPHA158_LIGHTGBM
from quant_assets.models.serving import versions_in_force
from quant_assets.models.walk_forward import InsufficientHistoryError
from quant_assets.partitions import DEFAULT
from quant_assets.point_in_time.models import (
    models_behind,
    models_were_known,
    retrained,
    training_rows_are_known,
)
from quant_assets.point_in_time.recompute import Step, steps
from quant_assets.signals.assets import signal_assets
from quant_assets.signals.strategies.enhanced_momentum import EnhancedMomentum
from quant_assets.signals.strategies.ml_ranker import MlRanker
from quant_assets.table_assets import TableInput, TableResult, table_asset
from quant_resources.calendar import XNYS
from quant_resources.ledger import registry
from quant_resources.ledger.unrecorded import UnrecordedLedger
from quant_resources.store import Store
from quant_tests.models.planted_market import plant
from quant_tests.models.trained_market import MONTHS, Trained, ledger, trained
from quant_tests.performance.sample_evidence import rows_of

__all__ = ["ledger", "trained"]

FEBRUARY, MARCH = (date.fromisoformat(month) for month in MONTHS)
MODEL = ALPHA158_LIGHTGBM.name
CONFIG = TrainingConfig()


@pytest.fixture
def unrecorded(trained: Trained):
    ledger = UnrecordedLedger(trained.ledger.engine.url.render_as_string(hide_password=False))
    yield ledger
    ledger.dispose()


def step_of(*assets: dg.AssetsDefinition) -> Step:
    (step,) = steps(assets, DEFAULT)
    return step


def rows(store: Store, known_before: date = MARCH) -> pl.DataFrame:
    return training_rows(
        store.read(ALPHA158), store.read(LABELS), FEATURES[:2], known_before, CONFIG.walk_forward
    )


def whole_mapping() -> dg.TimeWindowPartitionMapping:
    """A month's own sessions beside those of the months before: what no training may read."""
    return dg.TimeWindowPartitionMapping(
        start_offset=-36, allow_nonexistent_upstream_partitions=True
    )


def leaking(
    train: Callable[[pl.LazyFrame, pl.LazyFrame, date], pl.DataFrame],
) -> dg.AssetsDefinition:
    """A model asset that reads its own month, with a training of the caller's."""

    @table_asset(
        ALPHA158_LIGHTGBM,
        ins={
            "features": TableInput(ALPHA158, whole_mapping()),
            "labels": TableInput(LABELS, whole_mapping()),
        },
    )
    def model(
        context: dg.AssetExecutionContext, features: pl.LazyFrame, labels: pl.LazyFrame
    ) -> TableResult:
        return TableResult(train(features, labels, date.fromisoformat(context.partition_key)))

    return model


def test_training_rows_are_what_was_known(trained: Trained) -> None:
    finding = training_rows_are_known(rows, trained.market.store, MARCH)
    assert finding.passed
    # 290 sessions of 24 names.
    assert f"The {rows(trained.market.store).height} training rows of 2024-03" in finding.message


def test_a_label_that_reaches_into_the_month_is_found(trained: Trained) -> None:
    """The label of the month's eve is known in the month: a filter on the session alone lets it through."""

    def overlapping(store: Store) -> pl.DataFrame:
        return rows(store, XNYS.offset(MARCH, 2)).filter(pl.col("session") < MARCH)

    finding = training_rows_are_known(overlapping, trained.market.store, MARCH)
    assert not finding.passed
    assert finding.count == 2 * trained.market.names
    assert finding.sample is not None
    assert finding.sample.get_column("known_session").min() == MARCH
    assert "known_session" in finding.remedy


def test_a_scaler_that_was_fitted_on_all_history_is_found(trained: Trained) -> None:
    first = FEATURES[0]

    def scaled(store: Store) -> pl.DataFrame:
        features = store.read(ALPHA158).with_columns(pl.col(first) / pl.col(first).std())
        return training_rows(features, store.read(LABELS), FEATURES[:1], MARCH, CONFIG.walk_forward)

    finding = training_rows_are_known(scaled, trained.market.store, MARCH)
    assert not finding.passed
    assert finding.count == 2 * scaled(trained.market.store).height
    assert finding.sample is not None
    assert set(finding.sample.get_column("seen")) == {"everything", "known before"}


def test_a_mask_of_names_that_live_to_the_end_is_found(trained: Trained, tmp_path) -> None:
    """A name that is delisted after the month must have trained it."""
    store = plant(Store(tmp_path), last=date(2024, 3, 15), names=6).store
    gone = store.read(ALPHA158, ["2024-03-15"]).collect().filter(pl.col("symbol") != "S003")
    store.write(ALPHA158, gone, ["2024-03-15"])

    def survivors(store: Store) -> pl.DataFrame:
        features = store.read(ALPHA158)
        newest = features.filter(pl.col("session") == pl.col("session").max())
        return training_rows(
            features.join(newest, on="security_id", how="semi"),
            store.read(LABELS),
            (),
            MARCH,
            CONFIG.walk_forward,
        )

    finding = training_rows_are_known(survivors, store, MARCH)
    assert not finding.passed
    assert finding.sample is not None
    assert set(finding.sample.get_column("security_id")) == {"S003@2023-01-03"}


def test_a_label_that_lies_about_when_it_was_known_is_found(trained: Trained, tmp_path) -> None:
    store = plant(Store(tmp_path), last=date(2024, 3, 15), names=4).store
    eve = "2024-02-29"
    lying = store.read(LABELS, [eve]).collect().with_columns(known_session=pl.col("session"))
    store.write(LABELS, lying, [eve])
    finding = training_rows_are_known(rows, store, MARCH)
    assert not finding.passed
    assert finding.count == 4


@pytest.mark.parametrize("month", MONTHS)
def test_a_month_trained_again_is_the_same_and_nothing_is_recorded(
    trained: Trained, unrecorded: UnrecordedLedger, month: str
) -> None:
    with trained.ledger.begin() as transaction:
        before = len(registry.list_models(transaction)), len(registry.activations(transaction))
    again = retrained(
        step_of(*ASSETS),
        ALPHA158_LIGHTGBM,
        month,
        trained.market.store,
        {"ledger": unrecorded},
    )
    assert again.rows == 1
    assert again.look_ahead.passed, again.look_ahead.message
    assert again.parity.passed, again.parity.message
    with trained.ledger.begin() as transaction:
        after = len(registry.list_models(transaction)), len(registry.activations(transaction))
    assert after == before


def test_a_changed_evidence_is_found_and_a_changed_status_is_not(
    trained: Trained, unrecorded: UnrecordedLedger, tmp_path
) -> None:
    store = plant(Store(tmp_path), last=date(2024, 3, 15)).store
    row = trained.market.store.read(ALPHA158_LIGHTGBM, [MONTHS[0]]).collect()
    step, resources = step_of(*ASSETS), {"ledger": unrecorded}
    store.write(ALPHA158_LIGHTGBM, row.with_columns(status=pl.lit("retired")), [MONTHS[0]])
    again = retrained(step, ALPHA158_LIGHTGBM, MONTHS[0], store, resources)
    assert again.parity.passed, again.parity.message
    store.write(ALPHA158_LIGHTGBM, row.with_columns(pl.col("ic_mean") + 0.01), [MONTHS[0]])
    again = retrained(step, ALPHA158_LIGHTGBM, MONTHS[0], store, resources)
    assert again.look_ahead.passed
    assert not again.parity.passed
    assert again.parity.sample is not None
    assert again.parity.sample.get_column("column").to_list() == ["ic_mean"]


def test_a_training_on_labels_of_its_own_month_is_found(trained: Trained, tmp_path) -> None:
    """It asks for what was known a week into the month, so that two labels of its eve take part."""

    def overlapping(features: pl.LazyFrame, labels: pl.LazyFrame, month: date) -> pl.DataFrame:
        later = XNYS.offset(XNYS.at_or_after(month), 5)
        found = training_rows(features, labels, FEATURES, later, CONFIG.walk_forward)
        model = train_month(MODEL, found, FEATURES, later, CONFIG)
        return model_row(model, month, "active")

    assert_found(trained, tmp_path, overlapping)


def test_a_training_on_scaled_features_of_the_future_is_found(trained: Trained, tmp_path) -> None:
    def scaled(features: pl.LazyFrame, labels: pl.LazyFrame, month: date) -> pl.DataFrame:
        first = pl.col(FEATURES[0])
        # Over all that is visible; trees do not care for the scale of a feature, but for its clipping.
        clipped = features.with_columns(first.clip(-first.std(), first.std()))
        found = training_rows(clipped, labels, FEATURES, month, CONFIG.walk_forward)
        return model_row(train_month(MODEL, found, FEATURES, month, CONFIG), month, "active")

    assert_found(trained, tmp_path, scaled)


def assert_found(
    trained: Trained,
    tmp_path,
    train: Callable[[pl.LazyFrame, pl.LazyFrame, date], pl.DataFrame],
) -> None:
    """The wrong training is told from its version, though it is stored as it is trained again."""
    store = plant(Store(tmp_path), last=date(2024, 3, 28)).store
    stored = train(store.read(ALPHA158), store.read(LABELS), MARCH)
    store.write(ALPHA158_LIGHTGBM, stored, [MONTHS[1]])
    again = retrained(step_of(leaking(train)), ALPHA158_LIGHTGBM, MONTHS[1], store, {})
    assert again.parity.passed, again.parity.message
    assert not again.look_ahead.passed
    assert again.look_ahead.sample is not None
    assert "model_version" in set(again.look_ahead.sample.get_column("column"))
    assert "known_session" in again.look_ahead.remedy


def test_a_month_that_only_the_future_can_train_is_found(tmp_path) -> None:
    """Its mapping names the month alone: cut before it, there is nothing to learn from."""

    @table_asset(
        ALPHA158_LIGHTGBM, ins={"labels": TableInput(LABELS, dg.TimeWindowPartitionMapping())}
    )
    def model(context: dg.AssetExecutionContext, labels: pl.LazyFrame) -> TableResult:
        known = labels.collect()
        if known.is_empty():
            raise InsufficientHistoryError(f"There is nothing before {context.partition_key}.")
        return TableResult(row.with_columns(training_rows=pl.lit(known.height, pl.Int64)))

    store = plant(Store(tmp_path), last=date(2024, 3, 28), names=4).store
    row = rows_of(ALPHA158_LIGHTGBM, [{"month": MARCH, "status": "active"} | _DAYS])
    store.write(ALPHA158_LIGHTGBM, row, [MONTHS[1]])
    again = retrained(step_of(model), ALPHA158_LIGHTGBM, MONTHS[1], store, {})
    assert not again.look_ahead.passed
    assert (
        "cannot be trained on what was known at the close of 2024-02-29" in again.look_ahead.message
    )
    assert not again.parity.passed


_DAYS = dict.fromkeys(
    ("effective_session", "training_first_session", "training_last_session"), MARCH
)


def test_a_strategys_models_follow_from_its_asset() -> None:
    ranker, momentum = signal_assets((MlRanker(), EnhancedMomentum()))
    assert models_behind(step_of(ranker)) == [MODEL]
    assert models_behind(step_of(momentum)) == []


def used(trained: Trained, *sessions: date, version_of: date | None = None) -> pl.DataFrame:
    """Signals of some sessions by the version in force at each, or at another session."""
    served = versions_in_force(trained.ledger, MODEL, [*sessions, version_of or sessions[0]])
    versions = [served[version_of or session] for session in sessions]
    return pl.DataFrame({"session": sessions, "model_version": versions})


def test_the_versions_in_force_pass(trained: Trained) -> None:
    signals = used(trained, FEBRUARY, date(2024, 2, 29), MARCH)
    assert models_were_known(trained.ledger, MODEL, signals).passed


def test_a_version_that_was_not_in_force_is_found(trained: Trained) -> None:
    early = used(trained, date(2024, 2, 29), version_of=MARCH)
    before_any = used(trained, date(2024, 1, 31), version_of=FEBRUARY)
    made_up = pl.DataFrame({"session": [MARCH], "model_version": ["nobody"]})
    for signals in (early, before_any, made_up):
        finding = models_were_known(trained.ledger, MODEL, signals)
        assert not finding.passed
        assert finding.count == 1
        assert finding.sample is not None
        assert finding.sample.item(0, "session") == signals.item(0, "session")


@pytest.mark.parametrize(
    ("name", "month", "last_known", "passes"),
    [
        ("sound", FEBRUARY, "2024-01-31", True),
        ("late_label", FEBRUARY, "2024-02-01", False),
        ("later_month", MARCH, "2024-01-31", False),
    ],
)
def test_a_version_that_knew_too_much_is_found(
    trained: Trained, name: str, month: date, last_known: str, passes: bool
) -> None:
    """It was activated all the same, for a session of February."""
    session = date(2024, 2, 15)
    with trained.ledger.begin() as transaction:
        registry.register_model(
            transaction,
            model_name=name,
            model_version=f"{name}-1",
            month=month,
            training_first_session=date(2023, 1, 3),
            training_last_session=date(2024, 1, 29),
            metrics={"last_known_session": last_known},
            config={},
            artefact="tree\n",
        )
        registry.activate_model(
            transaction,
            model_name=name,
            model_version=f"{name}-1",
            effective_session=session,
            activated_by="test",
            reason="test",
        )
    signals = pl.DataFrame({"session": [session], "model_version": [f"{name}-1"]})
    assert models_were_known(trained.ledger, name, signals).passed is passes
