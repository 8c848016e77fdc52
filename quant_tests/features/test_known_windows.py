"""A range must see each session through the prices known at that session, as the session alone does."""

from datetime import timedelta

import polars as pl
import pytest

from quant_assets.features.known_windows import known_windows
from quant_assets.features.session_features import (
    ALPHA158_FEATURES,
    ANOMALY_FEATURES,
    TECHNICAL_FEATURES,
    SessionFeatures,
)
from quant_assets.market_data.adjustment import adjust
from quant_tests.features.conftest import Market


def test_every_wanted_row_sees_the_prices_known_at_its_session(market: Market) -> None:
    bars, universe, calendar = market
    wanted = universe.filter(pl.col("session") >= calendar[-60])
    windows = known_windows(bars, wanted, calendar, lookback=20)
    assert windows.filter("wanted").height == wanted.height
    for place in range(len(calendar) - 60, len(calendar), 7):
        session, span = calendar[place], calendar[place - 20 : place + 1]
        members = wanted.filter(pl.col("session") == session)
        known = adjust(bars.filter(pl.col("session").is_in(span))).join(
            members, on="security_id", how="semi"
        )
        seen = (
            windows.filter(pl.col("wanted") & (pl.col("session") == session))
            .select("window")
            .join(windows.filter(pl.col("session").is_in(span)), on="window")
        )
        for name in ("open", "high", "low", "close", "volume", "vwap"):
            key = ["security_id", "session"]
            assert seen.sort(key).select(*key, name).equals(known.sort(key).select(*key, name))


def test_dollar_volume_is_what_was_traded(market: Market) -> None:
    bars, universe, calendar = market
    rows = known_windows(bars, universe, calendar, lookback=60).filter("wanted")
    traded = rows.join(bars, on=["session", "security_id"], suffix="_raw")
    expected = traded["close_raw"] * traded["volume_raw"]
    assert (traded["dollar_volume"] == expected).all()


every_table = pytest.mark.parametrize(
    "features",
    [ALPHA158_FEATURES, TECHNICAL_FEATURES, ANOMALY_FEATURES],
    ids=lambda features: features.table.name,
)


@every_table
def test_day_by_day_equals_the_range(features: SessionFeatures, market: Market) -> None:
    bars, universe, calendar = market
    sessions = calendar[-45:]
    whole = features.table.conform(features.compute(bars.lazy(), universe.lazy(), sessions))
    for session in sessions[::6]:
        needed = pl.col("session").is_between(features.first_needed(session), session)
        alone = features.compute(bars.filter(needed).lazy(), universe.lazy(), [session])
        assert alone.height > 0
        assert alone.equals(whole.filter(pl.col("session") == session))


@every_table
def test_the_future_changes_nothing(features: SessionFeatures, market: Market) -> None:
    bars, universe, calendar = market
    past = pl.col("session") <= calendar[-20]
    sessions = calendar[-50:-19]
    shaken = bars.with_columns(
        pl.when(past).then(pl.col(name)).otherwise(pl.col(name) * 3.7).alias(name)
        for name in ("open", "high", "low", "close", "volume", "price_factor", "volume_factor")
    )
    expected = features.compute(bars.filter(past).lazy(), universe.filter(past).lazy(), sessions)
    assert features.compute(shaken.lazy(), universe.lazy(), sessions).equals(expected)


@every_table
def test_more_history_moves_nothing(features: SessionFeatures, market: Market) -> None:
    bars, universe, calendar = market
    session = calendar[-1]
    needed = pl.col("session") >= features.first_needed(session)
    assert features.compute(bars.lazy(), universe.lazy(), [session]).equals(
        features.compute(bars.filter(needed).lazy(), universe.lazy(), [session])
    )


@every_table
def test_no_members_is_an_empty_table(features: SessionFeatures, market: Market) -> None:
    bars, universe, calendar = market
    result = features.compute(bars.lazy(), universe.lazy(), calendar[:3])
    assert result.equals(features.table.empty())


@every_table
def test_first_needed_is_the_lookback(features: SessionFeatures, market: Market) -> None:
    sessions = market.calendar
    first = features.first_needed(sessions[-1])
    if first >= sessions[0]:
        assert len(sessions) - 1 - sessions.index(first) == features.lookback
    assert first > sessions[-1] - timedelta(days=2 * features.lookback + 7)
