"""Forward returns over splits, dividends, halts, delistings and reused tickers."""

from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl
import pytest

from quant_assets.features.labels import forward_returns
from quant_assets.features.schemas import LABELS
from quant_resources.calendar import XNYS
from quant_resources.errors import DataError
from quant_tests.features.conftest import Market

T = XNYS.sessions(date(2024, 7, 1), date(2024, 7, 31))


def bars(rows: Sequence[tuple[str, int, float, float]]) -> pl.DataFrame:
    """Rows of security, number of the session, raw close and price factor."""
    return pl.DataFrame(
        [(security, T[number], close, factor) for security, number, close, factor in rows],
        schema={
            "security_id": pl.String,
            "session": pl.Date,
            "close": pl.Float64,
            "price_factor": pl.Float64,
        },
        orient="row",
    )


def members(*securities: str, session: int = 0) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "session": [T[session]] * len(securities),
            "symbol": [name.split("@")[0] for name in securities],
            "security_id": list(securities),
        },
        schema={"session": pl.Date, "symbol": pl.String, "security_id": pl.String},
    )


def test_return_runs_from_the_next_close_to_the_one_after() -> None:
    label = forward_returns(
        bars([("A", 0, 1, 1), ("A", 1, 10, 1), ("A", 2, 11, 1)]), members("A"), T
    )
    row = LABELS.conform(label).row(0, named=True)
    assert row["forward_return"] == pytest.approx(0.1)
    assert row["known_session"] == T[2]
    # 4 July is no session: the label of the 2nd is known on the 5th.
    assert forward_returns(bars([]), members("A", session=1), T)["known_session"][0] == date(
        2024, 7, 5
    )


def test_split_and_dividend_on_the_last_session_are_no_loss() -> None:
    split = bars([("A", 1, 100, 1), ("A", 2, 51, 0.5), ("B", 1, 100, 1), ("B", 2, 99, 0.99)])
    returns = forward_returns(split, members("A", "B"), T)["forward_return"]
    assert returns.to_list() == pytest.approx([0.02, 0.0])


def test_split_on_the_first_session_is_before_the_purchase() -> None:
    split = bars([("A", 0, 100, 1), ("A", 1, 50, 0.5), ("A", 2, 55, 1)])
    assert forward_returns(split, members("A"), T)["forward_return"][0] == pytest.approx(0.1)


def test_halts_and_delistings_are_not_bridged() -> None:
    prices = bars(
        [
            *(("HALT", 0, 9, 1), ("HALT", 1, 9, 1), ("HALT", 3, 5, 1)),
            *(("LATE", 0, 9, 1), ("LATE", 2, 9, 1), ("GONE", 0, 9, 1)),
            *(("FINE", 1, 10, 1), ("FINE", 2, 12, 1)),
        ]
    )
    label = forward_returns(prices, members("HALT", "LATE", "GONE", "FINE"), T)
    assert label["forward_return"].to_list()[:3] == [None] * 3
    assert label["forward_return_zscore"].to_list() == [None] * 4
    assert label["forward_return_rank"].to_list() == [None, None, None, 0.5]
    assert (label["known_session"] == T[2]).all()


def test_a_new_owner_of_the_ticker_is_another_security() -> None:
    prices = bars([("X@old", 1, 10, 1), ("X@new", 2, 90, 1)])
    assert forward_returns(prices, members("X@old"), T)["forward_return"][0] is None


def test_longer_horizon_multiplies_the_factors_between_even_over_a_missing_day() -> None:
    prices = bars([("A", 1, 100, 1), ("A", 2, 50, 0.5), ("A", 4, 22, 0.5)])
    label = forward_returns(prices, members("A"), T, horizon=3)
    assert label["forward_return"][0] == pytest.approx(22 / 25 - 1)
    assert label["known_session"][0] == T[4]


def test_cross_section_is_standardised_and_ranked_by_session() -> None:
    names = [f"S{i}" for i in range(5)]
    closes = [10.0, 11.0, 12.0, 12.0, 9.0]
    prices = bars(
        [(name, 1, 10.0, 1) for name in names]
        + [(n, 2, c, 1) for n, c in zip(names, closes, strict=True)]
    )
    label = forward_returns(prices, members(*names), T)
    assert label["forward_return_rank"].to_list() == [0.25, 0.5, 0.875, 0.875, 0.0]
    z = label["forward_return_zscore"].to_numpy()
    assert z.mean() == pytest.approx(0, abs=1e-12)
    assert z.std(ddof=1) == pytest.approx(1)
    equal = prices.with_columns(close=10.0)
    assert (
        forward_returns(equal, members(*names), T)["forward_return_zscore"].to_list() == [0.0] * 5
    )


def test_day_by_day_equals_the_range(market: Market) -> None:
    wanted = market.universe.filter(pl.col("session") <= market.calendar[-3])
    whole = forward_returns(market.bars, wanted, market.calendar)
    assert whole["forward_return"].null_count() > 0
    for place in range(60, len(market.calendar) - 2, 13):
        session = market.calendar[place]
        window = market.calendar[place : place + 3]
        alone = forward_returns(
            market.bars.filter(pl.col("session").is_in(window)),
            wanted.filter(pl.col("session") == session),
            window,
        )
        assert alone.equals(whole.filter(pl.col("session") == session))


def test_returns_are_those_of_adjusted_prices(market: Market) -> None:
    """The adjusted series of the whole history, which knows nothing of horizons, gives the same returns."""
    wanted = market.universe.filter(pl.col("session") <= market.calendar[-3])
    label = forward_returns(market.bars, wanted, market.calendar)
    for security in wanted["security_id"].unique():
        own = market.bars.filter(pl.col("security_id") == security).sort("session")
        later = np.append(np.cumprod(own["price_factor"].to_numpy()[::-1])[::-1][1:], 1.0)
        adjusted = dict(zip(own["session"], own["close"].to_numpy() * later, strict=True))
        for session, value in (
            label.filter(pl.col("security_id") == security)
            .select("session", "forward_return")
            .rows()
        ):
            place = market.calendar.index(session)
            buy, sell = (adjusted.get(market.calendar[place + step]) for step in (1, 2))
            if buy is None or sell is None:
                assert value is None
            else:
                assert value == pytest.approx(sell / buy - 1, abs=1e-12)


def test_too_near_to_the_end_and_bad_horizons_are_refused() -> None:
    with pytest.raises(DataError, match="needs 2 later sessions"):
        forward_returns(bars([]), members("A", session=len(T) - 2), T)
    with pytest.raises(DataError, match="at least one session"):
        forward_returns(bars([]), members("A"), T, horizon=0)


def test_empty_universe() -> None:
    assert LABELS.conform(forward_returns(bars([]), members(), T)).is_empty()
