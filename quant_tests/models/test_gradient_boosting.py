"""The learner: deterministic, exchangeable as text, finds a planted signal, says what is wrong."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.models import evaluation, gradient_boosting
from quant_assets.models.gradient_boosting import (
    GradientBoostingConfig,
    ModelArtefactError,
    TrainingError,
)

LABEL = "forward_return_zscore"
FEATURES = tuple(f"F{number}" for number in range(6))
CONFIG = GradientBoostingConfig(trees=20, minimum_leaf_rows=50)


def test_training_twice_gives_the_same_text(labelled_rows) -> None:
    rows = labelled_rows()
    first = gradient_boosting.train(rows, FEATURES, LABEL, CONFIG)
    assert first == gradient_boosting.train(rows, FEATURES, LABEL, CONFIG)
    assert first != gradient_boosting.train(
        rows, FEATURES, LABEL, CONFIG.model_copy(update={"seed": 1})
    )


def test_the_number_of_threads_does_not_change_the_trees(labelled_rows) -> None:
    rows = labelled_rows()
    one, two = (
        gradient_boosting.train(rows, FEATURES, LABEL, CONFIG.model_copy(update={"threads": n}))
        for n in (1, 2)
    )
    assert one.split("end of trees")[0] == two.split("end of trees")[0]


def test_text_gives_the_same_predictions_after_a_round_trip(labelled_rows) -> None:
    rows = labelled_rows()
    artefact = gradient_boosting.train(rows, FEATURES, LABEL, CONFIG)
    booster = gradient_boosting.load(artefact)
    again = gradient_boosting.load(booster.model_to_string())
    predicted = gradient_boosting.predict(booster, rows)
    assert predicted.equals(gradient_boosting.predict(again, rows))
    # An independent way through LightGBM: a row-major matrix of doubles, one thread.
    matrix = rows.select(FEATURES).to_numpy().astype(np.float64)
    np.testing.assert_array_equal(predicted.to_numpy(), booster.predict(matrix, num_threads=1))


def test_a_planted_signal_is_recovered_out_of_sample(labelled_rows) -> None:
    rows = labelled_rows(sessions=200, signal=0.3)
    days = rows.get_column("session").unique().sort()
    past = rows.filter(pl.col("session") <= days[139])
    future = rows.filter(pl.col("session") > days[139])
    booster = gradient_boosting.load(
        gradient_boosting.train(past, FEATURES, LABEL, GradientBoostingConfig())
    )
    predicted = future.with_columns(gradient_boosting.predict(booster, future))
    evidence = evaluation.summarise(evaluation.daily_ic(predicted, label=LABEL))
    # 60 sessions of 40 names: the standard error of the mean IC is 0.02.
    assert evidence.ic_mean == pytest.approx(0.3, abs=0.07)
    assert evaluation.feature_importance(booster).item(0, "feature") == "F0"


def test_noise_shows_no_skill_out_of_sample(labelled_rows) -> None:
    rows = labelled_rows(sessions=200, signal=0.0)
    days = rows.get_column("session").unique().sort()
    past = rows.filter(pl.col("session") <= days[139])
    future = rows.filter(pl.col("session") > days[139])
    booster = gradient_boosting.load(
        gradient_boosting.train(past, FEATURES, LABEL, GradientBoostingConfig())
    )
    predicted = future.with_columns(gradient_boosting.predict(booster, future))
    evidence = evaluation.summarise(evaluation.daily_ic(predicted, label=LABEL))
    assert evidence.ic_mean == pytest.approx(0.0, abs=0.08)


@given(missing=st.sampled_from([None, float("nan"), float("inf"), float("-inf")]))
@settings(max_examples=4, deadline=None)
def test_every_kind_of_missing_feature_predicts_the_same(missing: float | None) -> None:
    rng = np.random.default_rng(3)
    values = rng.standard_normal((400, 2)).astype(np.float32)
    rows = pl.DataFrame(values, schema=["a", "b"]).with_columns(
        y=pl.col("a").cast(pl.Float64), a=pl.when(pl.int_range(400) % 5 > 0).then("a")
    )
    artefact = gradient_boosting.train(rows, ["a", "b"], "y", CONFIG)
    booster = gradient_boosting.load(artefact)
    reference = gradient_boosting.predict(booster, rows)
    other = rows.with_columns(pl.col("a").fill_null(pl.lit(missing, pl.Float32)))
    assert gradient_boosting.predict(booster, other).equals(reference)
    assert gradient_boosting.train(other, ["a", "b"], "y", CONFIG) == artefact


def test_columns_may_come_in_any_order(labelled_rows) -> None:
    rows = labelled_rows()
    booster = gradient_boosting.load(gradient_boosting.train(rows, FEATURES, LABEL, CONFIG))
    turned = rows.select(reversed(rows.columns))
    assert gradient_boosting.predict(booster, turned).equals(
        gradient_boosting.predict(booster, rows)
    )
    assert gradient_boosting.predict(booster, rows.clear()).len() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop("F3"), "needs the column 'F3'"),
        (lambda rows: rows.head(99), "has 99 rows and needs 100"),
        (lambda rows: rows.with_columns(forward_return_zscore=1.0), "are 1.0: nothing"),
        (
            lambda rows: rows.with_columns(
                forward_return_zscore=pl.when(pl.int_range(pl.len()) > 2).then(LABEL)
            ),
            "3 of 6400 training rows have no finite",
        ),
    ],
)
def test_rows_that_cannot_train_are_refused(labelled_rows, change, message) -> None:
    with pytest.raises(TrainingError, match=message):
        gradient_boosting.train(change(labelled_rows()), FEATURES, LABEL, CONFIG)


def test_a_damaged_model_is_refused(labelled_rows) -> None:
    rows = labelled_rows()
    artefact = gradient_boosting.train(rows, FEATURES, LABEL, CONFIG)
    for damaged in ("", "not a model", artefact[: len(artefact) // 2], artefact[100:]):
        with pytest.raises(ModelArtefactError, match="not a complete LightGBM text"):
            gradient_boosting.load(damaged)


def test_a_model_of_other_features_is_refused(labelled_rows) -> None:
    rows = labelled_rows()
    booster = gradient_boosting.load(gradient_boosting.train(rows, FEATURES, LABEL, CONFIG))
    with pytest.raises(ModelArtefactError, match="1 are not there, first 'F2'"):
        gradient_boosting.predict(booster, rows.drop("F2"))
