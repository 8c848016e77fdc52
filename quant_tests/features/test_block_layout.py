"""Where a bar stands in memory must not change a bit of what is computed from it."""

from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.features import block_layout
from quant_assets.features.alpha158 import alpha158
from quant_assets.features.alpha158_formulas import LOOKBACK
from quant_assets.features.block_layout import BlockLayout
from quant_assets.features.session_features import ALPHA158_FEATURES
from quant_tests.features.conftest import raw_market
from quant_tests.oracles.alpha158_reference import irregular_market, weekdays

CALENDAR = weekdays(150)
STACKED, SIDE_BY_SIDE = float("inf"), float("-inf")


def layout(bars: pl.DataFrame, calendar: list[date]) -> BlockLayout:
    frame = bars.sort("symbol", "session")
    if "wanted" not in frame.columns:
        frame = frame.with_columns(wanted=pl.lit(value=True))
    return BlockLayout.of(frame, pl.Series(calendar).to_physical().to_numpy())


def shapes(bars: pl.DataFrame, calendar: list[date]) -> list[tuple[int, ...]]:
    placed = layout(bars, calendar)
    return [placed.block(part).close.shape for part in placed.parts()]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 149), st.sampled_from([0.01, 0.3, 1.0]))
def test_one_behind_the_other_or_side_by_side_is_the_same(
    seed: int, first: int, share: float
) -> None:
    """Over late listings, halts, holes, any choice of rows, and listings before the calendar."""
    rng = np.random.default_rng(seed)
    listed = irregular_market(CALENDAR, seed).with_columns(
        first_session=pl.col("session").min().over("symbol")
    )
    bars = listed.with_columns(wanted=pl.Series(rng.random(listed.height) < share)).filter(
        pl.col("session") >= CALENDAR[first]
    )
    results = []
    for cost in (STACKED, SIDE_BY_SIDE):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(block_layout, "SCATTERED", cost)
            if bars["wanted"].any():
                dimensions = {len(shape) for shape in shapes(bars, CALENDAR[first:])}
                assert dimensions == {1 if cost == STACKED else 2}
            results.append(alpha158(bars, CALENDAR[first:]))
    assert results[0].equals(results[1])


def test_size_of_blocks_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = irregular_market(CALENDAR)
    expected = alpha158(bars, CALENDAR)
    for rows in (1, 400, 10**6):
        monkeypatch.setattr(block_layout, "BLOCK_ROWS", rows)
        assert alpha158(bars, CALENDAR).equals(expected)


def test_blocks_of_which_nothing_is_wanted_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = irregular_market(CALENDAR)
    expected = alpha158(bars, CALENDAR).filter(pl.col("symbol") == "HALTED")
    monkeypatch.setattr(block_layout, "BLOCK_ROWS", 200)
    asked = bars.with_columns(wanted=pl.col("symbol") == "HALTED")
    assert len(layout(asked, CALENDAR).parts()) == 1
    assert alpha158(asked, CALENDAR).equals(expected)


def test_blocks_hold_about_as_many_rows_as_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by the block, however many symbols there are."""
    monkeypatch.setattr(block_layout, "BLOCK_ROWS", 1000)
    bars = irregular_market(CALENDAR)
    placed = layout(bars, CALENDAR)
    parts = placed.parts()
    assert len(parts) > 1
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == bars["symbol"].n_unique()
    longest = LOOKBACK + len(CALENDAR)
    assert all(len(placed.block(part).close) < 2 * (1000 + longest) for part in parts)


def test_short_windows_stand_side_by_side_and_long_histories_do_not() -> None:
    """The layout is chosen by what is cheaper; a session is 61 rows with nothing in between."""
    bars = irregular_market(CALENDAR)
    window = CALENDAR[-LOOKBACK - 1 :]
    assert {len(shape) for shape in shapes(bars, CALENDAR)} == {1}
    today = bars.with_columns(wanted=pl.col("session") == window[-1]).filter(
        pl.col("session").is_in(window)
    )
    (shape,) = shapes(today, window)
    assert shape == (LOOKBACK + 1, today["symbol"].n_unique())


def test_what_lies_before_the_wanted_windows_is_left_out() -> None:
    """Asking a long history for its last session costs as much as asking its last 61 sessions."""
    bars = irregular_market(CALENDAR).with_columns(wanted=pl.col("session") == CALENDAR[-1])
    regular = bars.filter(pl.col("symbol").is_in(["REGULAR", "LATE", "GAPS", "ZEROVOLUME"]))
    (shape,) = shapes(regular, CALENDAR)
    assert shape == (LOOKBACK + 1, 4)


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_one_session_equals_the_bulk_to_the_bit(seed: int) -> None:
    """From stored bars, over listings, delistings, gaps, splits and dividends inside the windows."""
    bars, universe, calendar = raw_market(count=230, symbols=25, seed=seed)
    rng = np.random.default_rng(seed)
    bars = bars.filter(pl.Series(rng.random(bars.height) > 0.01))
    split = pl.Series(rng.random(bars.height) < 0.01)
    bars = bars.with_columns(
        price_factor=pl.when(split).then(0.25).otherwise("price_factor"),
        volume_factor=pl.when(split).then(4.0).otherwise("volume_factor"),
    )
    members = universe.filter(pl.Series(rng.random(universe.height) > 0.1))
    sessions = calendar[60:]
    bulk = ALPHA158_FEATURES.compute(bars.lazy(), members.lazy(), sessions)
    for session in [*sessions[:61:20], *sessions[-61::12]]:
        needed = pl.col("session").is_between(ALPHA158_FEATURES.first_needed(session), session)
        alone = ALPHA158_FEATURES.compute(bars.filter(needed).lazy(), members.lazy(), [session])
        assert alone.height > 10
        assert alone.equals(bulk.filter(pl.col("session") == session))
