"""Defects planted into real bars: how many are found, and what finding them costs the right rows.

Real prices and volumes are what the rules have to tell defects from; constructed series are too tame. Each
defect is planted into 60 symbols at random places; the bounds are a little below what was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

from quant_tests.market_data.real_history import BAR_FILE, RealHistory

pytestmark = pytest.mark.skipif(
    not BAR_FILE.exists(), reason="set QUANT_TEST_DATA to the folder of the real bars"
)

PRICES = ["open", "high", "low", "close"]
SYMBOLS_PER_DEFECT = 60
#: Sessions after a defect in which right rows must survive.
AFTERWARDS = 30


@dataclass(frozen=True)
class Planted:
    """A symbol's rows with a defect, and the places of its wrong and of its right rows."""

    rows: pl.DataFrame
    wrong: range
    right: range


Plant = Callable[[pl.DataFrame, int, np.random.Generator, "Bars"], Planted | None]


class Bars:
    """The real rows by symbol, of symbols that are there all the time and have no defect of their own."""

    def __init__(self, history: RealHistory) -> None:
        self.history = history
        rejected = history.gated.quarantine["symbol"].unique().to_list()
        parts = history.raw.sort("symbol", "session").partition_by("symbol", as_dict=True)
        self.of = {
            str(symbol): rows
            for (symbol, *_), rows in parts.items()
            if rows.height > 480 and symbol not in rejected
        }
        self.symbols = sorted(self.of)

    def shares(self, plant: Plant) -> tuple[float, float]:
        """Share of the wrong rows that is rejected, and of the right rows."""
        random = np.random.default_rng(7)
        planted: list[pl.DataFrame] = []
        marks: list[pl.DataFrame] = []
        for symbol in random.choice(self.symbols, SYMBOLS_PER_DEFECT, replace=False):
            rows = self.of[symbol]
            found = plant(rows, int(random.integers(100, rows.height - 150)), random, self)
            if found is None:
                continue
            planted.append(found.rows)
            for places, wrong in ((found.wrong, True), (found.right, False)):
                day = found.rows["session"].gather(list(places))
                marks.append(
                    pl.DataFrame({"session": day}).with_columns(symbol=pl.lit(symbol), wrong=wrong)
                )
        raw = pl.concat(planted)
        others = self.history.raw.join(raw.select("symbol").unique(), on="symbol", how="anti")
        judged = RealHistory(pl.concat([others, raw]), self.history.actions, self.history.table)
        rejected = judged.gated.quarantine.select("symbol", "session", rejected=pl.lit(value=True))
        marked = pl.concat(marks).join(rejected, on=["symbol", "session"], how="left")
        share = {
            wrong: part["rejected"].fill_null(value=False).mean()
            for (wrong, *_), part in marked.partition_by("wrong", as_dict=True).items()
        }
        return float(share.get(True, 1.0)), float(share.get(False, 0.0))  # type: ignore[arg-type]


def scaled(rows: pl.DataFrame, places: range, prices: float, volume: float = 1.0) -> pl.DataFrame:
    there = pl.int_range(pl.len()).is_between(places.start, places.stop - 1)
    factors = dict.fromkeys(PRICES, prices) | {"volume": volume}
    return rows.with_columns(
        pl.when(there).then(pl.col(name) * factor).otherwise(name).alias(name)
        for name, factor in factors.items()
    )


def after(wrong: range) -> range:
    return range(wrong.stop, wrong.stop + AFTERWARDS)


def wrong_scale(prices: float, volume: float = 1.0, sessions: int = 1) -> Plant:
    def plant(rows: pl.DataFrame, at: int, _random: np.random.Generator, _bars: Bars) -> Planted:
        wrong = range(at, at + sessions)
        return Planted(scaled(rows, wrong, prices, volume), wrong, after(wrong))

    return plant


def missed_split(ratio: float, volume: bool = True) -> Plant:
    def plant(rows: pl.DataFrame, at: int, _random: np.random.Generator, _bars: Bars) -> Planted:
        later = range(at, rows.height)
        split = scaled(rows, later, 1 / ratio, ratio if volume else 1.0)
        return Planted(split, range(at, at + 20), after(range(at, at + 20)))

    return plant


def crash(factor: float, volume: float) -> Plant:
    def plant(rows: pl.DataFrame, at: int, _random: np.random.Generator, _bars: Bars) -> Planted:
        fallen = scaled(rows, range(at, rows.height), factor)
        news = scaled(fallen, range(at, at + 1), 1.0, volume)
        return Planted(news, range(0), range(at, at + AFTERWARDS))

    return plant


def preferred_share(sessions: int) -> Plant:
    """A price near 25 USD that trades a twentieth of the company's shares."""

    def plant(
        rows: pl.DataFrame, at: int, random: np.random.Generator, _bars: Bars
    ) -> Planted | None:
        factor = 25.0 * random.uniform(0.9, 1.1) / rows["close"][at - 1]
        if 0.65 < factor < 2.5:
            return None
        wrong = range(at, at + sessions)
        return Planted(
            scaled(rows, wrong, factor, 0.05 * random.uniform(0.3, 2)), wrong, after(wrong)
        )

    return plant


def another_symbols_rows(sessions: int, delivered: bool) -> Plant:
    """Rows of another company, which itself is in the delivery or is not."""

    def plant(
        rows: pl.DataFrame, at: int, random: np.random.Generator, bars: Bars
    ) -> Planted | None:
        days = rows["session"][at : at + sessions].implode()
        for symbol in random.choice(bars.symbols, 50):
            other = bars.of[symbol].filter(pl.col("session").is_in(days))
            if (
                other.height == sessions
                and abs(other["close"][0] / rows["close"][at - 1] - 1) > 0.35
            ):
                moved = other.with_columns(
                    pl.lit(rows["symbol"][0]).alias("symbol"),
                    *(pl.col(name) * (1.0 if delivered else 1.003) for name in PRICES),
                )
                wrong = range(at, at + sessions)
                parts = [rows[:at], moved, rows[at + sessions :]]
                return Planted(pl.concat(parts), wrong, after(wrong))
        return None

    return plant


def repeated(sessions: int) -> Plant:
    def plant(rows: pl.DataFrame, at: int, _random: np.random.Generator, _bars: Bars) -> Planted:
        wrong = range(at, at + sessions)
        days = rows[at : at + sessions].select("session", "bar_time")
        stale = pl.concat([rows[at - 1 : at]] * sessions).drop("session", "bar_time").hstack(days)
        parts = [rows[:at], stale.select(rows.columns), rows[at + sessions :]]
        return Planted(pl.concat(parts), wrong, after(wrong))

    return plant


@pytest.fixture(scope="module")
def bars() -> Bars:
    return Bars(RealHistory.read())


@pytest.mark.parametrize(
    ("plant", "found", "lost"),
    [
        pytest.param(another_symbols_rows(1, True), 1.0, 0.0, id="copy of another symbol"),
        pytest.param(another_symbols_rows(3, True), 1.0, 0.0, id="copies for three days"),
        pytest.param(another_symbols_rows(1, False), 0.7, 0.005, id="row of an unknown company"),
        pytest.param(
            another_symbols_rows(10, False), 0.6, 0.005, id="unknown company for ten days"
        ),
        pytest.param(preferred_share(1), 1.0, 0.005, id="preferred share"),
        pytest.param(preferred_share(5), 1.0, 0.005, id="preferred share for a week"),
        pytest.param(preferred_share(60), 0.9, 0.01, id="preferred share for a quarter"),
        pytest.param(missed_split(2), 0.97, 0.0, id="missed 2:1"),
        pytest.param(missed_split(2, volume=False), 0.97, 0.0, id="missed 2:1, volume adjusted"),
        pytest.param(missed_split(3), 0.97, 0.0, id="missed 3:1"),
        pytest.param(missed_split(1 / 2), 0.97, 0.0, id="missed 1:2"),
        pytest.param(missed_split(1 / 10), 0.97, 0.0, id="missed 1:10"),
        pytest.param(wrong_scale(100.0), 1.0, 0.005, id="times 100"),
        pytest.param(wrong_scale(0.01, sessions=5), 0.98, 0.005, id="hundredth for a week"),
        pytest.param(wrong_scale(10.0), 1.0, 0.005, id="times 10"),
        pytest.param(wrong_scale(1.0, volume=1000.0), 0.95, 0.0, id="volume times 1000"),
        pytest.param(repeated(1), 1.0, 0.0, id="stale row"),
        pytest.param(repeated(3), 1.0, 0.0, id="stale for three days"),
        pytest.param(crash(0.6, 6.0), 1.0, 0.0, id="crash on six times the volume"),
        pytest.param(crash(0.6, 5.0), 1.0, 0.01, id="crash on five times the volume"),
        pytest.param(crash(1.6, 10.0), 1.0, 0.0, id="takeover"),
    ],
)
def test_planted_defect_is_found_and_right_rows_survive(
    bars: Bars, plant: Plant, found: float, lost: float
) -> None:
    wrong, right = bars.shares(plant)
    assert wrong >= found
    assert right <= lost
