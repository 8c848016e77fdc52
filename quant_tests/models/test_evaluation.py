"""Information coefficients against SciPy, and their edges."""

from __future__ import annotations

import math
from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from quant_assets.models import evaluation, plots

DAY = date(2024, 1, 2)
# Values on a grid, so that ties happen and no pair is constant only to rounding.
values = st.one_of(st.none(), st.just(math.nan), st.integers(-8, 8).map(lambda n: n / 4))


@given(st.lists(st.lists(st.tuples(values, values), max_size=12), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_daily_ic_equals_scipy(sessions: list[list[tuple[float | None, float | None]]]) -> None:
    frame = pl.DataFrame(
        [
            (DAY + timedelta(days=number), x, y)
            for number, pairs in enumerate(sessions)
            for x, y in pairs
        ],
        schema={"session": pl.Date, "prediction": pl.Float64, "label": pl.Float64},
        orient="row",
    )
    daily = evaluation.daily_ic(frame, label="label")
    shown = [number for number, pairs in enumerate(sessions) if pairs]
    assert daily.get_column("session").to_list() == [DAY + timedelta(days=n) for n in shown]
    for number, ic, rank_ic, names in zip(
        shown, daily["ic"], daily["rank_ic"], daily["names"], strict=True
    ):
        pairs = [
            (x, y)
            for x, y in sessions[number]
            if x is not None and y is not None and not math.isnan(x) and not math.isnan(y)
        ]
        assert names == len(pairs)
        xs, ys = [x for x, _ in pairs], [y for _, y in pairs]
        if len(pairs) < 3 or len(set(xs)) == 1 or len(set(ys)) == 1:
            assert ic is None
            assert rank_ic is None
        else:
            assert ic == pytest.approx(stats.pearsonr(xs, ys)[0], abs=1e-12)
            assert rank_ic == pytest.approx(stats.spearmanr(xs, ys)[0], abs=1e-12)


def test_summary_leaves_out_sessions_without_coefficient() -> None:
    daily = pl.DataFrame(
        {
            "session": [DAY + timedelta(days=n) for n in range(4)],
            "ic": [0.1, None, 0.3, 0.2],
            "rank_ic": [0.0, None, 0.2, 0.1],
        }
    )
    evidence = evaluation.summarise(daily)
    assert evidence.sessions == 3
    assert evidence.ic_mean == pytest.approx(0.2)
    assert evidence.ic_std == pytest.approx(0.1)
    assert evidence.rank_ic_mean == pytest.approx(0.1)
    assert evidence.information_ratio == pytest.approx(2.0)
    assert evidence.ic_standard_error == pytest.approx(0.1 / math.sqrt(3))


def test_summary_of_nothing_is_none_and_not_zero() -> None:
    empty = pl.DataFrame(schema={"session": pl.Date, "ic": pl.Float64, "rank_ic": pl.Float64})
    evidence = evaluation.summarise(empty)
    assert evidence.as_dict() == {
        "sessions": 0,
        "ic_mean": None,
        "ic_std": None,
        "rank_ic_mean": None,
        "rank_ic_std": None,
        "information_ratio": None,
    }
    # The picture of no evidence is drawn, not refused.
    assert plots.daily_ic_plot(empty, "nothing").axes


def test_a_huge_constant_prediction_has_no_ic() -> None:
    frame = pl.DataFrame(
        {"session": [DAY] * 4, "prediction": [1e9 / 3] * 4, "label": [1.0, 2.0, 3.0, 5.0]}
    )
    assert evaluation.daily_ic(frame, label="label").row(0) == (DAY, None, None, 4)
