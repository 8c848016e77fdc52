"""The gate on two years of real S&P 500 bars; skipped unless QUANT_TEST_DATA names their folder."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import polars as pl
import pytest

from quant_assets.market_data.adjusted_prices import dividend_slope, splits_followed
from quant_assets.market_data.quality_gate import Gated
from quant_assets.market_data.schemas import BARS, QUARANTINE
from quant_resources.calendar import XNYS
from quant_tests.market_data.real_history import BAR_FILE, RealHistory

pytestmark = pytest.mark.skipif(
    not BAR_FILE.exists(), reason="set QUANT_TEST_DATA to the folder of the real bars"
)


@pytest.fixture(scope="module")
def history() -> RealHistory:
    return RealHistory.read()


@pytest.fixture(scope="module")
def gated(history: RealHistory) -> Gated:
    return history.gated


def test_nothing_is_lost_and_little_is_rejected(history: RealHistory, gated: Gated) -> None:
    BARS.conform(gated.bars)
    QUARANTINE.conform(gated.quarantine)
    assert gated.bars.height + gated.quarantine.height == history.raw.height
    assert gated.quarantine.height / history.raw.height < 0.001


@pytest.mark.parametrize(
    ("symbol", "day"),
    [
        ("NEE", date(2016, 6, 9)),  # another instrument for months
        ("NEE", date(2016, 11, 21)),
        ("NEE", date(2016, 11, 29)),  # and, after four right days, again
        ("NEE", date(2017, 1, 30)),
        ("MS", date(2017, 2, 14)),  # another instrument for three days
        ("MS", date(2017, 2, 16)),
        ("VNO", date(2015, 6, 30)),  # another instrument for a day
        ("CF", date(2015, 6, 18)),  # 5:1 split that the table lacks
        ("UA", date(2016, 4, 8)),  # 2:1 split that the table lacks
        ("EVHC", date(2016, 12, 2)),  # exchange of shares that the table lacks
        ("WIN", date(2015, 4, 27)),  # factor that the price did not follow
        ("CB", date(2016, 1, 15)),  # no trade; the ticker goes over to another company
    ],
)
def test_known_defects_are_found(gated: Gated, symbol: str, day: date) -> None:
    assert gated.quarantine.filter(symbol=symbol, session=day).height == 1


def test_every_cluster_has_a_cause_outside_of_the_gate(history: RealHistory) -> None:
    """No real move is rejected: where the price went, and what was traded, names another cause."""
    causes = history.clusters().group_by("cause").agg(pl.col("rows").sum())
    assert dict(causes.rows()) == {
        "rows of another instrument": 160,
        "action missing from the table": 60,
        "factor in the table that the price did not follow": 20,
        "no trade; the ticker goes over to another company": 1,
    }


def test_no_row_is_let_through_that_both_neighbours_contradict(history: RealHistory) -> None:
    assert history.lonely_rows().is_empty()


def test_wrong_instrument_costs_no_right_row(gated: Gated) -> None:
    right = [XNYS.offset(date(2016, 11, 22), step) for step in range(4)] + [date(2017, 1, 31)]
    rows = gated.bars.filter(pl.col("symbol") == "NEE", pl.col("session").is_in(right))
    assert rows["session"].to_list() == right
    assert (rows["close"] > 113).all()


@pytest.mark.parametrize(
    ("symbol", "day"),
    [
        ("FOSL", date(2015, 11, 13)),
        ("GMCR", date(2015, 12, 7)),
        ("KRFT", date(2015, 3, 25)),
        ("CHK", date(2016, 2, 8)),
        ("ENDP", date(2016, 5, 6)),
        ("AMD", date(2016, 4, 22)),
    ],
)
def test_real_news_is_kept_from_its_first_session(gated: Gated, symbol: str, day: date) -> None:
    assert gated.bars.filter(symbol=symbol, session=day).height == 1


def test_moves_beyond_the_bound_are_news_or_the_end_of_a_doubted_level(
    history: RealHistory,
) -> None:
    moves = history.kept_moves()
    accepted_in_the_end = moves.filter(pl.col("symbol").is_in(["CF", "UA"]))
    assert accepted_in_the_end.height == 2
    assert moves.height == 19
    news = moves.filter(~pl.col("symbol").is_in(["CF", "UA"]), pl.col("adjusted") < 1.0)
    assert news.height == 16
    assert (news["times_usual"] > 2).all()


def test_adjusted_returns_follow_the_action_table(history: RealHistory) -> None:
    across = history.actions_against_returns()
    dividends = across.filter(pl.col("kind") == "dividend")
    assert dividends.height > 3200
    # CRSP's definition on every ex-date; the holding return differs by dividend times move.
    assert ((dividends["adjusted"] - dividends["crsp"]).abs() < 1e-12).all()
    assert ((dividends["adjusted"] - dividends["holding"]).abs() < 0.004).all()
    assert (dividends["adjusted"].abs() > 0.10).sum() <= 8
    split = across.filter((pl.col("kind") != "dividend") & pl.col("price_consistent"))
    assert split.height == 25
    assert (split["adjusted"].abs() < 0.15).all()
    assert split["adjusted"].is_between(-0.01, 0.01).sum() > 10


def test_returns_across_dividends_are_holding_returns_in_wikis_convention(
    history: RealHistory,
) -> None:
    across = replace(history, convention="wiki").actions_against_returns()
    dividends = across.filter(pl.col("kind") == "dividend")
    assert dividends.height > 3200
    assert ((dividends["adjusted"] - dividends["holding"]).abs() < 1e-12).all()


def test_real_prices_are_raw_by_their_splits_and_dividends(history: RealHistory) -> None:
    closes = history.raw.with_columns(
        previous_close=pl.col("close").shift(1).over("symbol", order_by="session")
    )
    splits = splits_followed(closes, history.actions)
    assert splits.filter(~pl.col("followed"))["symbol"].to_list() == ["WIN"]
    assert splits.height == 23
    slope = dividend_slope(closes, history.actions)
    assert slope is not None
    assert slope.slope == pytest.approx(0.88, abs=0.01)
    assert slope.error < 0.05
