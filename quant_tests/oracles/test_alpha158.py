"""The fast Alpha158 against the slow one, column by column, on every irregularity that decides equality."""

from datetime import date

import numpy as np
import polars as pl
import pytest

from quant_assets.features.alpha158 import alpha158
from quant_assets.features.alpha158_formulas import NAMES
from quant_tests.oracles.alpha158_reference import irregular_market, reference_alpha158, weekdays

ROUNDING = {
    # Where the exact result is 0, rounding is compared with rounding (relative to a price of 1, a correlation of 1).
    "BETA": 1e-13,
    "RESI": 1e-13,
    "RSQR": 1e-10,
    "CORR": 1e-10,
    "CORD": 1e-10,
    "SUMD": 1e-13,
    "VSUMD": 1e-13,
}


@pytest.fixture(scope="module")
def calendar() -> list[date]:
    return weekdays(150)


@pytest.fixture(scope="module")
def bars(calendar: list[date]) -> pl.DataFrame:
    return irregular_market(calendar)


@pytest.fixture(scope="module")
def both(bars: pl.DataFrame, calendar: list[date]) -> tuple[pl.DataFrame, pl.DataFrame]:
    return alpha158(bars.sample(fraction=1.0, shuffle=True, seed=3), calendar), reference_alpha158(
        bars, calendar
    )


def test_rows_and_columns_are_the_same(both: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    fast, slow = both
    assert fast.columns == ["symbol", "session", *NAMES]
    assert len(NAMES) == 158
    assert set(fast.schema.values()) == {pl.String, pl.Date, pl.Float32}
    assert fast.select("symbol", "session").equals(slow.select("symbol", "session"))


@pytest.mark.parametrize("name", NAMES)
def test_values_and_missing_values_agree(
    name: str, both: tuple[pl.DataFrame, pl.DataFrame]
) -> None:
    """Within 1e-5 relative, and NaN exactly where the reference has it."""
    fast, slow = (frame[name].to_numpy().astype(np.float64) for frame in both)
    symbols = both[0]["symbol"].to_numpy()
    gaps = np.isnan(fast) != np.isnan(slow)
    assert not gaps.any(), (
        f"NaN differs for {sorted(set(symbols[gaps]))}: {fast[gaps]}, {slow[gaps]}"
    )
    group = name.rstrip("0123456789")
    close = np.isclose(fast, slow, rtol=1e-5, atol=ROUNDING.get(group, 0.0), equal_nan=True)
    assert close.all(), (
        f"{sorted(set(symbols[~close]))}: {fast[~close][:5]} is not {slow[~close][:5]}"
    )


def test_listing_date_makes_a_cut_equal_to_the_whole_history(
    bars: pl.DataFrame, calendar: list[date]
) -> None:
    """A symbol whose cut begins with a missing session must not be taken for a new listing."""
    listed = bars.with_columns(first_session=pl.col("session").min().over("symbol"))
    whole = alpha158(listed, calendar)
    for end in (len(calendar) - 1, 101, 96):
        sessions = calendar[max(0, end - 60) : end + 1]
        cut = alpha158(listed.filter(pl.col("session").is_in(sessions)), sessions)
        last = pl.col("session") == sessions[-1]
        assert cut.filter(last).equals(whole.filter(last), null_equal=True)
