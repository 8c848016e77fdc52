"""Anomaly scores: fitted on the past only, findable shocks found and explained, silent in the warm-up."""

import polars as pl
import pytest

from quant_assets.features.anomaly import (
    FEATURES,
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
