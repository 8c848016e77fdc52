"""Four laws of every table of features and labels, on markets that Hypothesis makes up.

1. A session computed alone equals the session in a range, to the bit.
2. The order of the rows that came in does not matter.
3. More history than the declared lookback moves nothing.
4. What came after the session (labels: after they were known) moves nothing.

The laws are functions of a target, so that the last test can show that each one catches a target
that breaks it.
"""

from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_assets.features.labels import forward_returns
from quant_assets.features.session_features import (
    ALPHA158_FEATURES,
    ANOMALY_FEATURES,
    TECHNICAL_FEATURES,
)
from quant_resources.calendar import XNYS
from quant_tests.features.conftest import Market, raw_market

COUNT = 330
CALENDAR = XNYS.sessions(date(2023, 1, 3), date(2025, 12, 31))[:COUNT]
KEY = ["session", "security_id"]


class Target(NamedTuple):
    """A pure function of bars, members and calendar, and the sessions its rows may depend on."""

    name: str
    function: Callable[[pl.DataFrame, pl.DataFrame, Sequence[date]], pl.DataFrame]
    lookback: int
    ahead: int = 0


TARGETS = [
    *(
        Target(features.table.name, features.function, features.lookback)
        for features in (ALPHA158_FEATURES, TECHNICAL_FEATURES, ANOMALY_FEATURES)
    ),
    Target("labels", forward_returns, lookback=0, ahead=2),
    Target("labels_5", partial(forward_returns, held=5), lookback=0, ahead=6),
]


def rows(
    target: Target, market: Market, first: int, last: int, *, earlier: int = 0, later: int = 0
) -> pl.DataFrame:
    """The rows of sessions first to last (their numbers), from what they may see and some more."""
    begin = max(0, first - target.lookback - earlier)
    calendar = market.calendar[begin : last + target.ahead + later + 1]
    sessions = market.calendar[first : last + 1]
    return target.function(
        market.bars.filter(pl.col("session").is_between(calendar[0], calendar[-1])),
        market.universe.filter(pl.col("session").is_in(sessions)),
        calendar,
    )


def same(left: pl.DataFrame, right: pl.DataFrame) -> None:
    assert_frame_equal(left, right, check_exact=True)


def alone_as_in_a_range(target: Target, market: Market, first: int, last: int) -> None:
    together = rows(target, market, first, last)
    for number in range(first, last + 1):
        alone = rows(target, market, number, number)
        same(alone, together.filter(pl.col("session") == market.calendar[number]))


def order_does_not_matter(target: Target, market: Market, first: int, last: int) -> None:
    shuffled = market._replace(bars=market.bars.sample(fraction=1.0, shuffle=True, seed=first))
    same(rows(target, shuffled, first, last), rows(target, market, first, last))


def more_history_moves_nothing(target: Target, market: Market, first: int, last: int) -> None:
    same(rows(target, market, first, last, earlier=COUNT), rows(target, market, first, last))


def the_future_moves_nothing(target: Target, market: Market, first: int, last: int) -> None:
    """Later sessions are added, wild ones, with splits and with listings that nobody knew of."""
    known = market.calendar[last + target.ahead]
    after = pl.col("session") > known
    wild = market.bars.with_columns(
        pl.when(after).then(pl.col(name) * factor).otherwise(name).alias(name)
        for name, factor in (
            *((price, 3.7) for price in ("open", "high", "low", "close", "vwap")),
            ("volume", 90.0),
            ("price_factor", 0.3),
            ("volume_factor", 3.0),
        )
    )
    unknown = market.bars.filter(after).with_columns(
        symbol=pl.lit("NEW"),
        security_id=pl.col("security_id") + "_",
        first_session=pl.lit(market.calendar[last + target.ahead + 1]),
    )
    future = market._replace(bars=pl.concat([wild, unknown]))
    same(rows(target, future, first, last, later=COUNT), rows(target, market, first, last))


LAWS = [
    alone_as_in_a_range,
    order_does_not_matter,
    more_history_moves_nothing,
    the_future_moves_nothing,
]


@st.composite
def markets(draw: st.DrawFn) -> Market:
    """Two to four securities that list, halt, split, pay and delist wherever it hurts."""
    # Most of what happens shall happen near the sessions that are computed.
    place = st.one_of(st.integers(COUNT - 45, COUNT - 5), st.integers(1, COUNT - 1))
    frames = []
    for number in range(draw(st.integers(2, 4))):
        listed = draw(st.one_of(st.just(0), place)) if number else 0
        delisted = draw(st.one_of(st.just(COUNT), place)) if number else COUNT
        halts = draw(st.lists(st.tuples(place, st.integers(1, 45)), max_size=2))
        actions = draw(
            st.dictionaries(place, st.sampled_from([0.5, 1 / 3, 0.985, 0.97, 3.0]), max_size=6)
        )
        character = draw(st.sampled_from(["ordinary", "flat", "coarse", "untraded"]))
        rng = np.random.default_rng(draw(st.integers(0, 999)))
        here = np.arange(COUNT)
        traded = (here >= listed) & (here < delisted)
        for begin, length in halts:
            traded &= (here < begin) | (here >= begin + length)
        if not traded.any():
            traded[listed] = True
        factor = np.ones(COUNT)
        factor[list(actions)] = list(actions.values())
        frames.append(
            _bars(number, character, rng, factor)
            .filter(pl.Series(traded))
            .with_columns(first_session=pl.col("session").min())
        )
    bars = pl.concat(frames).sort("session", "symbol")
    return Market(bars, bars.select("session", "symbol", "security_id"), CALENDAR)


def _bars(
    number: int, character: str, rng: np.random.Generator, factor: np.ndarray
) -> pl.DataFrame:
    move = 0.0 if character == "flat" else 0.03
    close = 40 * np.exp(np.cumsum(rng.normal(0, move, COUNT))) * np.cumprod(factor)
    grain = 2.0 if character == "coarse" else 0.01
    close = np.maximum(np.round(close / grain) * grain, grain)
    opening = np.maximum(close + np.round(rng.normal(0, 0.4 * move * close)) * grain, grain)
    high = np.maximum(opening, close) * (1 + np.abs(rng.normal(0, 0.3 * move, COUNT)))
    low = np.minimum(opening, close) * (1 - np.abs(rng.normal(0, 0.3 * move, COUNT)).clip(0, 0.5))
    volume = np.round(np.exp(rng.normal(12, 0.8, COUNT)))
    if character == "untraded":
        volume[rng.random(COUNT) < 0.2] = 0.0
    values: dict[str, Any] = {
        "open": opening,
        "high": high,
        "low": low,
        "close": close,
        "volume": volume,
        "vwap": (high + low + close) / 3,
        "price_factor": factor,
        "volume_factor": np.where(factor < 0.9, 1 / factor, 1.0),
    }
    return pl.DataFrame(
        {
            "session": CALENDAR,
            "symbol": [f"S{number}"] * COUNT,
            "security_id": [f"S{number}@1"] * COUNT,
            **values,
        }
    )


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(market=markets(), last=st.integers(COUNT - 40, COUNT - 9), length=st.integers(1, 12))
def test_law(
    target: Target, law: Callable[..., None], market: Market, last: int, length: int
) -> None:
    law(target, market, last - length + 1, last)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_market_that_stood_still_where_the_lookback_begins(target: Target) -> None:
    """Whether a warm-up is satisfied must not depend on bars before the lookback."""
    market = raw_market(count=COUNT)
    last = COUNT - 10
    for length in (5, 25, 60):
        first = max(0, last - target.lookback)
        still = pl.col("session").is_in(market.calendar[first : first + length])
        more_history_moves_nothing(
            target, market._replace(bars=market.bars.filter(~still)), last, last
        )


def test_the_laws_are_tried_on_values() -> None:
    """Tables that were always empty would keep every law."""
    market = raw_market(count=COUNT)
    for target in TARGETS:
        values = rows(target, market, COUNT - 40, COUNT - 10).select(pl.selectors.float())
        known = values.select(pl.all().fill_nan(None).is_not_null().mean())
        assert min(known.row(0)) > 0.5, target.name


def _closes(
    bars: pl.DataFrame, universe: pl.DataFrame, value: pl.Expr, sort: bool = True
) -> pl.DataFrame:
    ordered = bars.sort("security_id", "session") if sort else bars
    values = ordered.select(*KEY, value=value.over("security_id"))
    return universe.join(values, on=KEY, how="left", maintain_order="left")


CLOSE = pl.col("close")
WRONG: dict[Callable[..., None], dict[str, Target]] = {
    alone_as_in_a_range: {
        "a scaler fitted on all rows of the run": Target(
            "", lambda bars, members, _: _closes(bars, members, CLOSE / CLOSE.mean()), 60
        ),
        "prices adjusted as known at the end of the run": Target(
            "",
            lambda bars, members, _: _closes(
                bars, members, CLOSE * pl.col("price_factor").cum_prod(reverse=True)
            ),
            60,
        ),
    },
    order_does_not_matter: {
        "a shift over unsorted rows": Target(
            "", lambda bars, members, _: _closes(bars, members, CLOSE.shift(), sort=False), 60
        )
    },
    more_history_moves_nothing: {
        "an exponential mean that began with the history": Target(
            "", lambda bars, members, _: _closes(bars, members, CLOSE.ewm_mean(span=100)), 200
        ),
        "a lookback that is one session short": Target(
            "", lambda bars, members, _: _closes(bars, members, CLOSE.shift(20)), 19
        ),
    },
    the_future_moves_nothing: {
        "the next close": Target(
            "", lambda bars, members, _: _closes(bars, members, CLOSE.shift(-1)), 60
        ),
        "securities that survive to the end": Target(
            "",
            lambda bars, members, _: members.filter(
                pl.col("security_id").is_in(
                    bars.filter(pl.col("session") == pl.col("session").max())[
                        "security_id"
                    ].implode()
                )
            ),
            60,
        ),
    },
}


@pytest.mark.parametrize(
    ("law", "wrong"),
    [(law, wrong) for law, cases in WRONG.items() for wrong in cases.items()],
    ids=lambda case: case[0] if isinstance(case, tuple) else case.__name__,
)
def test_each_law_catches_what_breaks_it(
    law: Callable[..., None], wrong: tuple[str, Target]
) -> None:
    market = raw_market(count=COUNT)
    with pytest.raises(AssertionError):
        law(wrong[1], market, COUNT - 45, COUNT - 35)
