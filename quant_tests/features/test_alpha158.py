"""Alpha158 as a function of frames: bad input, and laws that no cut of the data may break."""

import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.features.alpha158 import alpha158
from quant_assets.features.alpha158_formulas import LOOKBACK, NAMES
from quant_resources.errors import DataError
from quant_tests.oracles.alpha158_reference import irregular_market, weekdays

CALENDAR = weekdays(130)
BARS = irregular_market(CALENDAR)


def test_empty_frame_gives_the_columns() -> None:
    result = alpha158(BARS.clear())
    assert result.columns == ["symbol", "session", *NAMES]
    assert result.is_empty()


def test_order_of_rows_does_not_matter() -> None:
    expected = alpha158(BARS, CALENDAR)
    by_session = BARS.sort("session", "symbol", descending=[False, True])
    assert alpha158(by_session, CALENDAR).equals(expected)


def test_blocks_do_not_touch_each_other() -> None:
    """Symbols stand one behind the other in memory: what one computes must not depend on its neighbours."""
    together = alpha158(BARS, CALENDAR)
    for symbol in BARS["symbol"].unique():
        own = pl.col("symbol") == symbol
        assert alpha158(BARS.filter(own), CALENDAR).equals(together.filter(own))


def test_calendar_defaults_to_the_sessions_of_the_frame() -> None:
    assert alpha158(BARS).equals(alpha158(BARS, CALENDAR))


def test_only_wanted_rows_are_returned() -> None:
    some = (pl.col("session").dt.day() % 3 == 0) & (pl.col("symbol") != "GAPS")
    asked = alpha158(BARS.with_columns(wanted=some), CALENDAR)
    assert asked.equals(alpha158(BARS, CALENDAR).filter(some))
    assert alpha158(BARS.with_columns(wanted=False), CALENDAR).is_empty()


def test_integers_are_numbers() -> None:
    whole = BARS.filter(pl.col("symbol") == "TIES")
    integers = whole.with_columns(pl.col("open", "high", "low", "close", "volume").cast(pl.Int32))
    assert alpha158(integers).equals(alpha158(whole))


@pytest.mark.parametrize("missing", [None, float("inf"), float("-inf")])
def test_null_and_infinite_values_are_missing_like_nan(missing: float | None) -> None:
    every_seventh = pl.int_range(pl.len()) % 7 == 3
    values = ["open", "high", "low", "close", "volume", "vwap"]
    nan = BARS.with_columns(
        pl.when(every_seventh).then(float("nan")).otherwise(pl.col(values)).name.keep()
    )
    other = BARS.with_columns(
        pl.when(~every_seventh).then(pl.col(values)).otherwise(missing).name.keep()
    )
    assert alpha158(other, CALENDAR).equals(alpha158(nan, CALENDAR))


def test_all_values_missing_is_no_error() -> None:
    nothing = BARS.with_columns(pl.lit(None).alias(name) for name in ("open", "close", "vwap"))
    result = alpha158(nothing, CALENDAR)
    assert result["MA5"].is_nan().all()
    assert result["MAX5"].is_nan().all()
    assert not result["IMAX5"].is_nan().all()


def test_one_row_symbol_has_what_one_row_can_have() -> None:
    row = alpha158(BARS, CALENDAR).filter(pl.col("symbol") == "ONE").row(0, named=True)
    assert row["MA60"] == row["RANK5"] == row["QTLU10"] == 1.0
    assert row["IMAX5"] == np.float32(1 / 5)
    assert row["CNTP5"] == 0.0
    assert np.isnan([row["STD5"], row["ROC5"], row["BETA20"], row["CORR60"], row["SUMP5"]]).all()


@pytest.mark.parametrize(
    ("bars", "message"),
    [
        (BARS.drop("vwap", "high"), "high, vwap"),
        (BARS.with_columns(pl.col("close").cast(pl.String)), "close as a number, not String"),
        (BARS.with_columns(pl.col("session").cast(pl.Datetime)), "session as Date"),
        (pl.concat([BARS, BARS.head(1)]), "REGULAR on 2020-01-01"),
        (BARS.with_columns(symbol=pl.lit(None, pl.String)), "without symbol, session"),
        (BARS.with_columns(pl.col("session").dt.offset_by("4d")), "no session of the calendar"),
        (BARS.with_columns(first_session=date(2020, 1, 7)), "before its first_session 2020-01-07"),
    ],
)
def test_bad_input_is_named(bars: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        alpha158(bars, CALENDAR)


MEASURE = """
import sys
import numpy, psutil, polars
from quant_assets.features.alpha158 import alpha158
bars = polars.read_parquet(sys.argv[1])
alpha158(bars.head(70))
resident = psutil.Process().memory_info().rss
features = alpha158(bars)
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
print((peak - resident) / (features.height * 158 * 4))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_memory_is_the_output_and_a_few_blocks(tmp_path: Path) -> None:
    """Above its input a wide frame takes less than 1.6 times its output, in a fresh process."""
    rng = np.random.default_rng(0)
    sessions, symbols = weekdays(1250), 200
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, (symbols, len(sessions))), axis=1)).ravel()
    bars = pl.DataFrame(
        {
            "symbol": np.repeat([f"S{number:03}" for number in range(symbols)], len(sessions)),
            "session": pl.Series(sessions * symbols, dtype=pl.Date),
            **dict.fromkeys(("open", "high", "low", "close", "vwap"), close),
            "volume": rng.integers(1, 10**6, len(close)).astype(np.float64),
        }
    )
    bars.write_parquet(tmp_path / "bars.parquet")
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "bars.parquet"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0.5 < float(ran.stdout) < 1.6


def test_the_columns_share_one_array() -> None:
    """The result is handed over without a copy: each column begins where the one before it ends."""
    features = alpha158(BARS, CALENDAR)
    starts = [features[name].to_numpy(allow_copy=False).ctypes.data for name in NAMES]
    assert np.diff(starts).tolist() == [4 * features.height] * (len(NAMES) - 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 129))
def test_the_future_changes_nothing(seed: int, last: int) -> None:
    """Truncating after any session leaves every earlier row as it was, to the bit."""
    bars = irregular_market(CALENDAR, seed)
    past = pl.col("session") <= CALENDAR[last]
    assert alpha158(bars.filter(past), CALENDAR).equals(alpha158(bars, CALENDAR).filter(past))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 129))
def test_a_day_alone_equals_the_day_in_bulk(seed: int, last: int) -> None:
    bars = irregular_market(CALENDAR, seed).with_columns(
        first_session=pl.col("session").min().over("symbol")
    )
    cut = CALENDAR[max(0, last - LOOKBACK) : last + 1]
    today = pl.col("session") == CALENDAR[last]
    alone = alpha158(bars.filter(pl.col("session").is_in(cut)), cut).filter(today)
    assert alone.equals(alpha158(bars, CALENDAR).filter(today))
