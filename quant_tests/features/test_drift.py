"""Drift of features: loud on what is broken, quiet on a market that merely moves."""

from datetime import date

import numpy as np
import polars as pl
import pytest

from quant_assets.features import drift
from quant_assets.features.drift import LIMIT, MEDIAN, MISSING, SAMPLED_SESSIONS, WIDTH, distances
from quant_resources.calendar import XNYS

COLUMNS = ("calm", "market", "level", "holes", "usual")


def cross_sections(
    count: int, names: int = 60, seed: int = 1, first: date = date(2023, 1, 3)
) -> pl.DataFrame:
    """Sessions of a stationary market whose securities move together."""
    rng = np.random.default_rng(seed)
    days = XNYS.sessions(first, XNYS.offset(first, count - 1))
    common, busy = rng.standard_t(5, (count, 1)), np.exp(0.3 * rng.standard_normal((count, 1)))
    own = rng.standard_normal((4, count, names))
    holes = np.where(rng.random((count, names)) < 0.05, np.nan, own[3])
    return pl.DataFrame(
        {
            "session": np.repeat(np.array(days, dtype="datetime64[D]"), names),
            "calm": own[0].ravel(),
            "market": (3 * common + own[1]).ravel(),
            "level": (1 + 0.01 * busy * own[2]).ravel(),
            "holes": holes.ravel(),
            "usual": rng.standard_normal(count * names),
        }
    )


def split(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The last session and those before it."""
    last = pl.col("session") == pl.col("session").max()
    return frame.filter(last), frame.filter(~last)


def drifted(judged: pl.DataFrame, window: pl.DataFrame) -> set[tuple[str, str]]:
    found = distances(judged, window, COLUMNS).filter(pl.col("distance") > LIMIT)
    return set(found.select("column", "aspect").iter_rows())


def test_a_stationary_market_is_quiet() -> None:
    frame = cross_sections(63 + 120)
    days = frame["session"].unique().sort().to_list()
    alarms = 0
    for place in range(63, len(days)):
        window = frame.filter(pl.col("session").is_between(days[place - 63], days[place - 1]))
        alarms += bool(drifted(frame.filter(pl.col("session") == days[place]), window))
    assert alarms <= 5
    # Although a comparison of the values in one pot would be alarmed by the common move of most sessions.
    values = frame["market"].to_numpy()
    deciles = np.searchsorted(np.quantile(values, np.arange(0.1, 0.95, 0.1)), values)
    shares = (
        frame.with_columns(decile=deciles)
        .group_by("session", "decile")
        .len()
        .with_columns(share=(pl.col("len") / 60))
        .group_by("session")
        .agg(index=((pl.col("share") - 0.1) * (pl.col("share") / 0.1).log()).sum())
    )
    assert shares.filter(pl.col("index") > 0.25).height > 0.9 * shares.height


@pytest.mark.parametrize(
    ("column", "broken", "aspect"),
    [
        ("calm", pl.col("calm") + 3, MEDIAN),
        ("calm", pl.col("calm") - 3, MEDIAN),
        ("level", pl.col("level") * 2, MEDIAN),
        ("calm", pl.col("calm") * 4, WIDTH),
        ("calm", pl.col("calm") / 4, WIDTH),
        ("level", pl.lit(1.0), WIDTH),
        ("market", pl.col("market").first(), WIDTH),
        ("holes", pl.when(pl.int_range(pl.len()) % 2 == 0).then("holes"), MISSING),
        ("usual", pl.lit(None, pl.Float64), MISSING),
        ("usual", pl.lit(float("nan")), MISSING),
        ("usual", pl.lit(float("inf")), MISSING),
    ],
)
def test_what_is_broken_is_found_and_nothing_else(
    column: str, broken: pl.Expr, aspect: str
) -> None:
    judged, window = split(cross_sections(100))
    assert not drifted(judged, window)
    found = drifted(judged.with_columns(broken.alias(column)), window)
    assert (column, aspect) in found
    assert {name for name, _ in found} == {column}


def test_the_farthest_comes_first_with_what_was_usual() -> None:
    judged, window = split(cross_sections(100))
    wrong = judged.with_columns(pl.col("calm") + 3, level=pl.lit(7.0))
    found = distances(wrong, window, COLUMNS)
    assert found["distance"].is_sorted(descending=True)
    assert found["column"][0] == "level"
    calm = found.row(
        by_predicate=(pl.col("column") == "calm") & (pl.col("aspect") == MEDIAN), named=True
    )
    medians = window.group_by("session").agg(pl.col("calm").median())["calm"]
    assert calm["session"] == pytest.approx(wrong["calm"].median())
    assert calm["usual"] == pytest.approx(medians.median())
    assert calm["usual_low"] == pytest.approx(medians.quantile(0.01, "linear"))
    assert calm["usual_high"] == pytest.approx(medians.quantile(0.99, "linear"))
    reach = max(calm["usual_high"] - calm["usual"], 0.1 * 2.56)
    assert calm["distance"] == pytest.approx((calm["session"] - calm["usual"]) / reach, rel=0.05)


def test_fewer_holes_than_usual_are_no_drift() -> None:
    judged, window = split(cross_sections(100))
    half = pl.when(pl.int_range(pl.len()) % 2 == 0).then("holes").alias("holes")
    assert not drifted(judged, window.with_columns(half))
    assert not drifted(judged.with_columns(half), window.with_columns(half))


def test_a_column_that_has_just_warmed_up_is_not_judged() -> None:
    judged, window = split(cross_sections(100))
    days = window["session"].unique().sort()
    warm = pl.when(pl.col("session") > days[60]).then("usual").alias("usual")
    found = distances(judged, window.with_columns(warm), COLUMNS)
    assert found.filter(pl.col("column") == "usual")["aspect"].to_list() == [MISSING]
    assert found.filter(pl.col("distance") > LIMIT).is_empty()


def test_a_column_that_never_varied_and_now_does() -> None:
    judged, window = split(cross_sections(100))
    flat = window.with_columns(usual=pl.lit(0.0))
    assert drifted(judged.with_columns(usual=pl.lit(0.5)), flat) == {("usual", MEDIAN)}
    assert not drifted(judged.with_columns(usual=pl.lit(0.0)), flat)


def test_too_few_securities_or_sessions_give_nothing_to_judge() -> None:
    judged, window = split(cross_sections(100, names=drift.FEWEST_VALUES - 1))
    assert set(distances(judged, window, COLUMNS)["aspect"]) == {MISSING}
    assert distances(judged.clear(), window, COLUMNS).is_empty()
    assert distances(judged, window.clear(), COLUMNS).is_empty()


def test_sampled_sessions_are_spread_over_the_window() -> None:
    days = XNYS.sessions(date(2021, 1, 4), date(2023, 12, 29))
    chosen = drift.sampled(days)
    assert (chosen[0], chosen[-1], len(chosen)) == (days[0], days[-1], SAMPLED_SESSIONS)
    places = np.diff([days.index(day) for day in chosen])
    assert places.max() - places.min() <= 1
    assert drift.sampled(days[:5]) == days[:5]
    assert drift.sampled([]) == []
