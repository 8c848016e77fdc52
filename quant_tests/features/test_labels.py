"""Forward returns over splits, dividends, halts, delistings and reused tickers."""

import math
from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl
import pytest

from quant_assets.features.labels import forward_returns
from quant_assets.features.schemas import LABEL_TABLES, LABELS, label_tables
from quant_resources.calendar import XNYS
from quant_resources.errors import DataError, SchemaError
from quant_resources.tables import Table
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
    label = forward_returns(prices, members("A"), T, held=3)
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


@pytest.mark.parametrize("table", LABEL_TABLES, ids=lambda table: table.name)
def test_day_by_day_equals_the_range_to_the_bit(table: Table, market: Market) -> None:
    """Read in pieces too, as from a store, and in any order."""
    wanted = market.universe.filter(pl.col("session") < market.calendar[-table.horizon])
    whole = forward_returns(market.bars, wanted, market.calendar, table.horizon - 1)
    assert whole["forward_return"].null_count() > 0
    for place in range(60, len(market.calendar) - table.horizon, 13):
        session = market.calendar[place]
        window = market.calendar[place : place + table.horizon + 1]
        own = wanted.filter(pl.col("session") == session)
        needed = market.bars.filter(pl.col("session").is_in(window))
        pieces = pl.concat(
            [needed.filter(pl.col("session") == day) for day in reversed(window)], rechunk=False
        )
        expected = whole.filter(pl.col("session") == session)
        for given in (needed, pieces, needed.sample(fraction=1.0, shuffle=True, seed=place)):
            assert forward_returns(given, own, window, table.horizon - 1).equals(expected)


def test_many_names_of_one_day_are_those_of_the_range_to_the_bit() -> None:
    """Sums of hundreds of names have an order, which must not depend on how many days there are."""
    rng = np.random.default_rng(5)
    calendar, names = T[:12], [f"N{number:03}" for number in range(500)]
    moves = rng.normal(0, 0.02, (len(calendar), len(names)))
    many = pl.DataFrame(
        {
            "session": [day for day in calendar for _ in names],
            "security_id": names * len(calendar),
            "symbol": names * len(calendar),
            "close": (50 * np.exp(np.cumsum(moves, axis=0))).ravel(),
            "price_factor": 1.0,
        }
    ).filter(pl.Series(rng.random(moves.size) > 0.05))
    wanted = many.filter(pl.col("session") <= calendar[-7]).select(
        "session", "symbol", "security_id"
    )
    whole = forward_returns(many, wanted, calendar, held=5)
    for session in calendar[:6]:
        alone = forward_returns(many, wanted.filter(pl.col("session") == session), calendar, held=5)
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
        forward_returns(bars([]), members("A"), T, held=0)


@pytest.mark.parametrize("close", [None, math.nan])
def test_a_missing_close_is_no_bar_but_its_factor_counts(close: float) -> None:
    prices = bars([("A", 1, 100, 1), ("A", 2, close, 0.5), ("A", 3, 51, 1)])
    assert forward_returns(prices, members("A"), T)["forward_return"][0] is None
    longer = forward_returns(prices, members("A"), T, held=2)
    assert longer["forward_return"][0] == pytest.approx(0.02)


def test_bars_outside_of_the_label_change_nothing() -> None:
    """Neither what lies before the purchase, nor after the sale, nor of others."""
    needed = bars([("A", 1, 10, 1), ("A", 2, 11, 1)])
    more = bars([("A", 0, 3, 0.1), ("A", 3, 99, 0.2), ("B", 1, 5, 0.5), ("B", 2, 5, 0.5)])
    expected = forward_returns(needed, members("A"), T)
    assert forward_returns(pl.concat([more, needed]), members("A"), T).equals(expected)


def test_empty_universe() -> None:
    assert LABELS.conform(forward_returns(bars([]), members(), T)).is_empty()


def test_a_holding_period_keeps_its_table_wherever_it_stands() -> None:
    named = {table.name: table.horizon for table in label_tables((5, 1, 60))}
    assert named == {"labels_5": 6, "labels": 2, "labels_60": 61}


@pytest.mark.parametrize("holding", [(), (5, 20), (1, 0), (1, 5, 5), (1, -3), (1, 1_000_000)])
def test_holding_periods_that_make_no_sense_are_refused(holding: tuple[int, ...]) -> None:
    with pytest.raises(SchemaError, match="HOLDING_SESSIONS"):
        label_tables(holding)
