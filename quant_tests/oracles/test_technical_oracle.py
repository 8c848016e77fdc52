"""The technical indicators against plain Python written from their definitions, on every irregularity.

Guards against a formula that drifted from its definition: a mean that begins elsewhere, a population
deviation taken for a sample's, a window one bar short, a direction counted on ties.
"""

import math

import polars as pl
import pytest

from quant_assets.features.technical import BARS_NEEDED, technical
from quant_tests.oracles.alpha158_reference import irregular_market, weekdays
from quant_tests.oracles.technical_reference import Bar, reference_indicators

CALENDAR = weekdays(300)
"""Short enough for every bar of a symbol to lie within the lookback."""
BARS = irregular_market(CALENDAR, seed=5)
EVERY = 9
"""Every ninth bar is compared, and each symbol's last: the reference is slow."""


@pytest.fixture(scope="module")
def computed() -> pl.DataFrame:
    return technical(BARS, CALENDAR)


@pytest.mark.parametrize("symbol", BARS["symbol"].unique(maintain_order=True))
def test_every_indicator_is_its_definition(symbol: str, computed: pl.DataFrame) -> None:
    own = BARS.filter(
        pl.col("symbol") == symbol,
        pl.all_horizontal(pl.col("open", "high", "low", "close", "volume").is_finite()),
    )
    bars = [Bar(*row) for row in own.select("open", "high", "low", "close", "volume").rows()]
    rows = computed.filter(pl.col("symbol") == symbol).join(own, on="session", how="semi")
    assert rows.height == len(bars)
    for number in {*range(0, len(bars), EVERY), len(bars) - 1}:
        row = rows.row(number, named=True)
        expected = reference_indicators(bars[: number + 1])
        assert set(expected) == set(BARS_NEEDED)
        for name, value in expected.items():
            place = f"{name} of {symbol} on {row['session']}"
            if value is None:
                assert row[name] is None, place
            else:
                assert row[name] is not None, place
                # Absolute beside values near 1: a difference of prices is exact to their own rounding only.
                assert math.isclose(row[name], value, rel_tol=1e-9, abs_tol=1e-11), place


def test_the_comparison_reaches_every_column(computed: pl.DataFrame) -> None:
    """A column that were always missing would agree with anything."""
    for name in BARS_NEEDED:
        assert computed[name].count() > 300, name
