"""The gate on two years of real S&P 500 bars; skipped unless QUANT_TEST_DATA names their folder."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from quant_assets.market_data.adjustment import adjust
from quant_assets.market_data.quality_gate import Gated, gate
from quant_assets.market_data.schemas import BARS, CORPORATE_ACTIONS, QUARANTINE, RAW_BARS
from quant_resources.calendar import XNYS, start_of_day

FOLDER = Path(os.environ.get("QUANT_TEST_DATA", "nowhere"))
BAR_FILE = FOLDER / "sp500_pit_raw_2015_2017.parquet"
ACTION_FILE = FOLDER / "sp500_pit_corporate_actions_2015_2017.parquet"

pytestmark = pytest.mark.skipif(
    not BAR_FILE.exists(), reason="set QUANT_TEST_DATA to the folder of the real bars"
)


@pytest.fixture(scope="module")
def raw() -> pl.DataFrame:
    stamps = pl.read_parquet(BAR_FILE).rename({"date": "session"})
    days = stamps["session"].unique().to_list()
    times = pl.DataFrame(
        {"session": days, "bar_time": [start_of_day(day) for day in days]},
        schema={"session": pl.Date, "bar_time": pl.Datetime("us", "UTC")},
    )
    return (
        stamps.join(times, on="session")
        .with_columns(
            pl.col("volume").cast(pl.Float64),
            vwap=pl.lit(None, pl.Float64),
            trade_count=pl.lit(None, pl.Int64),
            source=pl.lit("file"),
            asof=pl.lit(None, pl.Date),
            observed_at=pl.lit(datetime(2024, 1, 1, tzinfo=UTC)).dt.cast_time_unit("us"),
        )
        .select(list(RAW_BARS.schema))
    )


@pytest.fixture(scope="module")
def actions() -> pl.DataFrame:
    dividend = pl.col("kind") == "dividend"
    return (
        pl.read_parquet(ACTION_FILE)
        .with_columns(
            session=pl.col("ex_date"),
            action_type=pl.when(dividend)
            .then(pl.lit("cash_dividend"))
            .when(pl.col("adj_factor") < 1)
            .then(pl.lit("forward_split"))
            .otherwise(pl.lit("reverse_split")),
            ratio=pl.when(~dividend).then(1 / pl.col("adj_factor")),
            cash=pl.when(dividend).then("implied_cash"),
            new_symbol=pl.lit(None, pl.String),
            action_id=pl.format("{}-{}", "symbol", "ex_date"),
            source=pl.lit("file"),
            observed_at=pl.lit(datetime(2024, 1, 1, tzinfo=UTC)).dt.cast_time_unit("us"),
        )
        .select(list(CORPORATE_ACTIONS.schema))
    )


@pytest.fixture(scope="module")
def gated(raw: pl.DataFrame, actions: pl.DataFrame) -> Gated:
    days = raw["session"]
    sessions = XNYS.sessions(days.sort()[0], days.sort()[-1])
    return gate(raw.lazy(), actions.lazy(), sessions, sessions)


def test_nothing_is_lost_and_little_is_rejected(raw: pl.DataFrame, gated: Gated) -> None:
    BARS.conform(gated.bars)
    QUARANTINE.conform(gated.quarantine)
    assert gated.bars.height + gated.quarantine.height == raw.height
    assert gated.quarantine.height / raw.height < 0.001


@pytest.mark.parametrize(
    ("symbol", "day"),
    [
        ("NEE", date(2016, 6, 9)),  # another instrument for months
        ("MS", date(2017, 2, 14)),  # another instrument for three days
        ("MS", date(2017, 2, 16)),
        ("VNO", date(2015, 6, 30)),  # another instrument for a day
        ("CF", date(2015, 6, 18)),  # 5:1 split that the table lacks
        ("UA", date(2016, 4, 8)),  # 2:1 split that the table lacks
        ("WIN", date(2015, 4, 27)),  # factor that the price did not follow
    ],
)
def test_known_defects_are_found(gated: Gated, symbol: str, day: date) -> None:
    assert gated.quarantine.filter(symbol=symbol, session=day).height == 1


@pytest.mark.parametrize(
    ("symbol", "day"),
    [("FOSL", date(2015, 11, 13)), ("GMCR", date(2015, 12, 7)), ("KRFT", date(2015, 3, 25))],
)
def test_real_news_costs_one_session(gated: Gated, symbol: str, day: date) -> None:
    assert gated.quarantine.filter(symbol=symbol, session=day).height == 1
    after = gated.bars.filter(symbol=symbol, session=XNYS.next(day))
    assert after.height == 1


def test_adjusted_returns_follow_the_action_table(gated: Gated) -> None:
    adjusted = adjust(gated.bars).sort("security_id", "session")
    moves = adjusted.with_columns(move=pl.col("close").pct_change().over("security_id")).join(
        gated.bars.filter(pl.col("price_factor") < 0.8).select("security_id", "session"),
        on=["security_id", "session"],
    )
    assert moves.height >= 20
    assert (moves["move"].abs() < 0.2).all()
