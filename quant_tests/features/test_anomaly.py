"""Anomaly scores: fitted on the past only, findable shocks found and explained, silent in the warm-up."""

import math
from itertools import pairwise
from statistics import median

import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import IsolationForest

from quant_assets.features import anomaly
from quant_assets.features.anomaly import (
    FEATURES,
    HISTORY_BARS,
    HISTORY_SESSIONS,
    TRAINING_SESSIONS,
    anomaly_features,
    anomaly_scores,
)
from quant_assets.features.schemas import ANOMALY
from quant_tests.features.conftest import Market


@pytest.fixture(scope="module")
def scores(market: Market) -> pl.DataFrame:
    return anomaly_scores(market.bars, market.universe, market.calendar)


def test_rows_are_the_members_and_the_table_is_kept(market: Market, scores: pl.DataFrame) -> None:
    assert ANOMALY.conform(scores).height == market.universe.height
    assert scores["anomaly_score"].drop_nulls().is_between(0, 1).all()


def test_warm_up_is_silent_and_ends(market: Market, scores: pl.DataFrame) -> None:
    needed = market.calendar[TRAINING_SESSIONS + HISTORY_SESSIONS]
    begun = scores.filter(pl.col("anomaly_score").is_not_null())["session"].to_list()[0]
    assert begun >= needed
    assert begun.month != market.calendar[market.calendar.index(begun) - 1].month
    early = scores.filter(pl.col("session") < begun)
    assert early["anomaly_score"].null_count() == early.height
    assert (early["explained_by"] == "").all()
    explained = scores.filter(pl.col("anomaly_score").is_not_null())["explained_by"]
    assert explained.str.contains(r"^\w+ [+-]\d+\.\d, \w+ [+-]\d+\.\d$").all()


def test_a_shock_is_found_and_explained(market: Market, scores: pl.DataFrame) -> None:
    session, security = market.calendar[-5], market.universe["security_id"][0]
    here = (pl.col("session") == session) & (pl.col("security_id") == security)
    shocked = market.bars.with_columns(
        volume=pl.when(here).then(pl.col("volume") * 60).otherwise("volume")
    )
    day = anomaly_scores(
        shocked, market.universe.filter(pl.col("session") == session), market.calendar
    )
    row = day.filter(pl.col("security_id") == security).row(0, named=True)
    assert row["anomaly_score"] > scores.filter(here)["anomaly_score"][0] + 0.05
    assert row["explained_by"].startswith("volume +")


def test_a_split_is_no_anomaly(market: Market) -> None:
    """The price halves and the volume doubles: neither is unusual."""
    split = market.bars.filter(pl.col("volume_factor") != 1.0)
    assert split.height
    rows = anomaly_features(market.bars, market.calendar).join(
        split, on=["session", "security_id"], how="semi"
    )
    assert rows.select(pl.col("return", "gap").abs().max()).row(0) < (0.15, 0.15)
    assert rows["volume"].abs().max() < 3  # type: ignore[operator]


def test_the_month_itself_is_not_trained_on(market: Market, scores: pl.DataFrame) -> None:
    """The others' sessions of the same month may be as wild as they like; those before it may not."""
    last = market.calendar[-1]
    scored = (pl.col("session") == last) & (pl.col("symbol") == "S0")
    member = market.universe.filter(scored)
    others = (pl.col("session") < last) & (pl.col("symbol") != "S0")

    def score_with_wild(sessions: pl.Expr) -> float:
        wild = pl.when(others & sessions).then(pl.col("volume") * 900).otherwise("volume")
        shaken = market.bars.with_columns(volume=wild)
        return anomaly_scores(shaken, member, market.calendar)["anomaly_score"][0]

    same_month = pl.col("session") >= last.replace(day=1)
    stored = scores.filter(scored)["anomaly_score"][0]
    assert score_with_wild(same_month) == stored
    every_other = pl.col("session").rank("dense") % 2 == 0
    assert score_with_wild(~same_month & every_other) != stored


def test_features_are_documented_and_complete_or_absent(market: Market) -> None:
    features = anomaly_features(market.bars, market.calendar)
    assert features.columns == ["session", "security_id", *FEATURES]
    nulls = features.select(pl.sum_horizontal(pl.col(*FEATURES).is_null().cast(pl.Int32)))
    assert set(nulls.to_series()) == {0, len(FEATURES)}


def _reference_features(market: Market) -> dict[tuple[str, object], dict[str, float]]:
    """The features from their descriptions, bar by bar; only where all six are defined."""
    number = {session: place for place, session in enumerate(market.calendar)}
    by_security = market.bars.sort("session").partition_by("security_id", as_dict=True)
    bars = {key[0]: frame.rows(named=True) for key, frame in by_security.items()}
    moves = {
        (security, bar["session"]): math.log(bar["close"] / (before["close"] * bar["price_factor"]))
        for security, own in bars.items()
        for before, bar in pairwise(own)
    }
    usual = {
        session: median(move for (_, day), move in moves.items() if day == session)
        for session in {day for _, day in moves}
    }
    features = {}
    for security, own in bars.items():
        for place in range(HISTORY_BARS + 1, len(own)):
            bar, before = own[place], own[place - HISTORY_BARS : place]
            first = own[place - HISTORY_BARS - 1]
            if number[bar["session"]] - number[first["session"]] > HISTORY_SESSIONS:
                continue
            session = bar["session"]
            move = moves[security, session]
            span = math.log(bar["high"] / bar["low"])
            dollars = bar["close"] * bar["volume"]
            features[security, session] = {
                "return": move,
                "relative_return": move - usual[session],
                "gap": math.log(bar["open"] / (before[-1]["close"] * bar["price_factor"])),
                "range": span / median(math.log(old["high"] / old["low"]) for old in before),
                "volume": math.log(
                    dollars / median(old["close"] * old["volume"] for old in before)
                ),
                "move": abs(move) / median(abs(moves[security, old["session"]]) for old in before),
            }
    return features


def test_features_are_their_definitions(market: Market) -> None:
    expected = _reference_features(market)
    computed = anomaly_features(market.bars, market.calendar).drop_nulls("return")
    assert computed.height == len(expected) > 1000
    for row in computed.rows(named=True):
        values = expected[row["security_id"], row["session"]]
        assert {name: row[name] for name in FEATURES} == pytest.approx(values, rel=1e-9, abs=1e-12)


def test_a_score_is_the_forests_and_is_explained_by_what_lies_farthest(
    market: Market, scores: pl.DataFrame
) -> None:
    """A forest fitted here on the sessions before the month, and medians taken feature by feature."""
    last = market.calendar[-1]
    before = [session for session in market.calendar if session < last.replace(day=1)]
    names = list(FEATURES)
    features = anomaly_features(market.bars, market.calendar).drop_nulls("return")
    training = (
        features.filter(pl.col("session").is_in(before[-TRAINING_SESSIONS:]))
        .select(names)
        .to_numpy()
    )
    forest = IsolationForest(n_estimators=100, random_state=158).fit(training)
    usual = [median(column) for column in training.T]
    scale = [
        1.4826 * median(abs(value - middle) for value in column)
        for column, middle in zip(training.T, usual, strict=True)
    ]
    today = features.filter(pl.col("session") == last).join(scores, on=["session", "security_id"])
    assert today.height > 5
    expected = -forest.score_samples(today.select(names).to_numpy())
    np.testing.assert_allclose(today["anomaly_score"].to_numpy(), expected, rtol=1e-12)
    for row in today.rows(named=True):
        far = {
            name: (row[name] - middle) / spread
            for name, middle, spread in zip(names, usual, scale, strict=True)
        }
        first, second = sorted(names, key=lambda name: -abs(far[name]))[:2]
        assert row["explained_by"] == f"{first} {far[first]:+.1f}, {second} {far[second]:+.1f}"


def test_a_month_is_fitted_once_however_its_sessions_are_asked_for(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = []
    fit = anomaly._forest

    def counted(training: np.ndarray) -> IsolationForest:
        fits.append(len(training))
        return fit(training)

    monkeypatch.setattr(anomaly, "_forest", counted)
    monkeypatch.setattr(anomaly, "_fitted", {})
    last = market.calendar[-1]
    month = market.universe.filter(pl.col("session") >= last.replace(day=1))
    together = anomaly_scores(market.bars, month, market.calendar)
    assert len(fits) == 1
    for session in month["session"].unique(maintain_order=True):
        own = pl.col("session") == session
        alone = anomaly_scores(market.bars, month.filter(own), market.calendar)
        assert alone.equals(together.filter(own))
    assert len(fits) == 1
    other = market.bars.with_columns(pl.col("volume") + 1)
    anomaly_scores(other, month, market.calendar)
    assert len(fits) == 2
