"""The made-up market: the same seed, the same market; consistent bars; the signal as declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime

import numpy as np
import polars as pl
import pytest
from alpaca.data.requests import StockBarsRequest
from alpaca.data.timeframe import TimeFrame

from quant_resources.exchange.markets.stochastic import SIGNAL_WEIGHTS, StochasticMarket
from quant_resources.exchange.spec import MarketSpec
from quant_tests.exchange.served import Served

_MARKET = StochasticMarket(7, 100, date(2022, 1, 3), date(2023, 12, 29))
_DATA = _MARKET.load()


def test_the_same_seed_gives_the_same_market_and_another_seed_another() -> None:
    assert _MARKET.load().digest() == _DATA.digest()
    assert replace(_MARKET, seed=8).load().digest() != _DATA.digest()


def test_a_longer_market_begins_with_the_shorter() -> None:
    longer = replace(_MARKET, last_session=date(2024, 6, 28)).load()
    last = _DATA.sessions[-1]
    assert longer.bars.filter(pl.col("session") <= last).equals(_DATA.bars)
    assert tuple(a for a in longer.actions if a.ex_date <= last) == _DATA.actions


def test_bars_are_consistent_and_positive() -> None:
    wrong = _DATA.bars.filter(
        ~(
            (pl.col("low") > 0)
            & (pl.col("low") <= pl.min_horizontal("open", "close", "vwap"))
            & (pl.col("high") >= pl.max_horizontal("open", "close", "vwap"))
            & (pl.col("volume") >= 100)
            & (pl.col("trade_count") >= 1)
        )
    )
    assert wrong.is_empty()
    prices = _DATA.bars.select("open", "high", "low", "close").to_numpy()
    assert np.abs(prices * 100 - np.round(prices * 100)).max() < 1e-6


def test_it_has_splits_dividends_a_delisting_and_a_late_listing() -> None:
    kinds = {action.action_type for action in _DATA.actions}
    assert kinds >= {"forward_split", "cash_dividend", "cash_merger"}
    assert sum(listing.delisted is not None for listing in _DATA.listings.values()) == 1
    late = [x for x in _DATA.listings.values() if x.first_session > _DATA.sessions[0]]
    assert len(late) == 1
    closes = {(s, d): c for s, d, c in _DATA.bars.select("symbol", "session", "close").iter_rows()}
    sessions = list(_DATA.sessions)
    for action in _DATA.actions:
        if action.action_type == "forward_split" and action.ratio is not None:
            before = closes[action.symbol, sessions[sessions.index(action.ex_date) - 1]]
            after = closes[action.symbol, action.ex_date]
            assert after * float(action.ratio) == pytest.approx(before, rel=0.25)


def test_returns_are_fat_tailed_and_volatility_clusters() -> None:
    returns = _total_returns(_DATA.bars, *_adjustments(_DATA)).drop_nulls("total")
    market = returns.group_by("session").agg(pl.col("total").mean()).sort("session")["total"]
    values = returns["total"].to_numpy()
    assert ((values - values.mean()) ** 4).mean() / values.var() ** 2 > 4
    size = np.abs(market.to_numpy())
    assert np.corrcoef(size[1:], size[:-1])[0, 1] > 0.05
    assert 0.08 < float(market.std()) * 252**0.5 < 0.45  # pyright: ignore[reportArgumentType]
    joined = returns.join(
        _DATA.bars.select("symbol", "session", "volume"), on=["symbol", "session"]
    )
    within = pl.col("volume").log() - pl.col("volume").log().mean().over("symbol")
    assert joined.select(pl.corr(within, pl.col("total").abs())).item() > 0.2


def test_the_planted_information_coefficient_is_what_the_published_bars_show(
    serve: Callable[..., Served],
) -> None:
    """Recomputes the signal by another route, from what alpaca-py's client receives."""
    spec = MarketSpec(seed=7, first_session=date(2022, 1, 3), last_session=date(2023, 12, 29))
    served = serve(spec)
    served.at("2024-01-20 12:00")
    declared = served.control.status()["planted_information_coefficient"]
    assert 0.08 <= declared <= 0.13
    symbols = sorted(served.exchange.view.data.listings)
    start = datetime(2022, 1, 1)  # noqa: DTZ001 - alpaca-py takes naive as UTC
    request = StockBarsRequest(symbol_or_symbols=symbols, timeframe=TimeFrame.Day, start=start)  # pyright: ignore
    raw = served.bars.get_stock_bars(request)
    bars = pl.concat(
        pl.DataFrame(rows).select(
            symbol=pl.lit(symbol),
            session=pl.col("t").str.slice(0, 10).str.to_date(),
            close=pl.col("c").cast(pl.Float64),
            volume=pl.col("v").cast(pl.Float64),
        )
        for symbol, rows in raw.items()
    )
    wire = served.get("/v1/corporate-actions", start="2022-01-01", end="2024-12-31", limit=1000)
    assert wire["next_page_token"] is None
    actions = wire["corporate_actions"]
    splits = [
        (row["symbol"], date.fromisoformat(row["ex_date"]), row["new_rate"] / row["old_rate"])
        for kind in ("forward_splits", "reverse_splits")
        for row in actions.get(kind, [])
    ]
    dividends = [
        (row["symbol"], date.fromisoformat(row["ex_date"]), row["rate"])
        for row in actions["cash_dividends"]
    ]
    frame = _total_returns(bars, splits, dividends)
    assert _measured(frame) == pytest.approx(declared, abs=0.015)


def _adjustments(
    data: object,
) -> tuple[list[tuple[str, date, float]], list[tuple[str, date, float]]]:
    splits = [(a.symbol, a.ex_date, float(a.ratio)) for a in data.actions if a.ratio]  # pyright: ignore
    paid = [
        (a.symbol, a.ex_date, float(a.cash))
        for a in data.actions  # pyright: ignore
        if a.action_type == "cash_dividend"
    ]
    return splits, paid


def _total_returns(
    bars: pl.DataFrame,
    splits: list[tuple[str, date, float]],
    dividends: list[tuple[str, date, float]],
) -> pl.DataFrame:
    """Bars with `total`, the simple total return, and `ratio`, new shares for one old."""
    keys = ["symbol", "session"]
    split = pl.DataFrame(splits, schema=[*keys, "ratio"], orient="row")
    paid = pl.DataFrame(dividends, schema=[*keys, "cash"], orient="row")
    joined = bars.select("symbol", "session", "close", "volume")
    joined = joined.join(split, on=keys, how="left").join(paid, on=keys, how="left")
    joined = joined.with_columns(
        pl.col("ratio").cast(pl.Float64).fill_null(1.0), pl.col("cash").fill_null(0.0)
    )
    before = pl.col("close").shift(1).over("symbol")
    gained = pl.col("close") * pl.col("ratio") + pl.col("cash") - before
    return joined.sort(keys).with_columns(total=gained / before)


def _measured(frame: pl.DataFrame) -> float:
    """Mean daily correlation of the signal at t with the return t+1 → t+2, by Polars windows."""
    log_total = pl.col("total").log1p()
    adjusted = pl.col("volume") / pl.col("ratio").cum_prod().over("symbol")

    def standardised(expression: pl.Expr) -> pl.Expr:
        return (expression - expression.mean().over("session")) / expression.std().over("session")

    frame = frame.with_columns(volume=adjusted).with_columns(
        reversal_20=log_total.rolling_sum(20).over("symbol"),
        momentum_60_20=log_total.rolling_sum(40).shift(20).over("symbol"),
        volume_trend_5_60=(
            pl.col("volume").rolling_mean(5).over("symbol")
            / pl.col("volume").rolling_mean(60).over("symbol")
        ).log(),
        forward=pl.col("total").shift(-2).over("symbol"),
    )
    frame = frame.drop_nulls([*SIGNAL_WEIGHTS, "forward"])
    signal = sum(weight * standardised(pl.col(name)) for name, weight in SIGNAL_WEIGHTS.items())
    daily = (
        frame.with_columns(signal=signal).group_by("session").agg(ic=pl.corr("signal", "forward"))
    )
    return float(daily["ic"].mean())  # pyright: ignore[reportArgumentType]
