"""Alpha158 written out as Qlib defines it: one symbol, one pandas operator after the other, slow and obvious.

Belongs here: the reference that the fast implementation is compared with, and the irregular
market on which they are compared. Shares no code with the fast implementation; each operator
below is a line of Qlib's definition (`qlib/data/ops.py`) in its own words, on float32 series as
Qlib stores them.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import polars as pl

# pandas' types cannot say what an operator gives.
Series: TypeAlias = Any
WINDOWS = (5, 10, 20, 30, 60)
TINY = 1e-12


def reference_alpha158(bars: pl.DataFrame, calendar: Sequence[date]) -> pl.DataFrame:
    """Compute symbol, session and the 158 columns for every bar, symbol by symbol."""
    results = []
    for _, own in bars.group_by("symbol", maintain_order=True):
        sessions = own["session"].to_list()
        listing = own["first_session"].to_list()[0] if "first_session" in own else min(sessions)
        days = [day for day in calendar if listing <= day <= max(sessions)]
        values = own.select("open", "high", "low", "close", "volume", "vwap").to_numpy()
        stored = pd.DataFrame(
            values.astype(np.float32),
            index=pd.Index(own["session"].to_list()),
            columns=["open", "high", "low", "close", "volume", "vwap"],
        ).reindex(days)
        with np.errstate(all="ignore"):
            features = _one_symbol(stored).loc[own["session"].to_list()]
        frame = pl.DataFrame({name: features[name].to_numpy() for name in features.columns})
        results.append(own.select("symbol", "session").hstack(frame))
    return pl.concat(results).sort("symbol", "session")


def _one_symbol(stored: pd.DataFrame) -> pd.DataFrame:
    o, h, low, c = stored["open"], stored["high"], stored["low"], stored["close"]
    v, vwap = stored["volume"], stored["vwap"]
    c1, v1 = ref(c, 1), ref(v, 1)
    f = {
        "KMID": (c - o) / o,
        "KLEN": (h - low) / o,
        "KMID2": (c - o) / (h - low + TINY),
        "KUP": (h - greater(o, c)) / o,
        "KUP2": (h - greater(o, c)) / (h - low + TINY),
        "KLOW": (less(o, c) - low) / o,
        "KLOW2": (less(o, c) - low) / (h - low + TINY),
        "KSFT": (2 * c - h - low) / o,
        "KSFT2": (2 * c - h - low) / (h - low + TINY),
        "OPEN0": o / c,
        "HIGH0": h / c,
        "LOW0": low / c,
        "VWAP0": vwap / c,
    }
    move = np.abs(c / c1 - 1) * v
    for group, formula in {
        "ROC": lambda d: ref(c, d) / c,
        "MA": lambda d: mean(c, d) / c,
        "STD": lambda d: std(c, d) / c,
        "BETA": lambda d: line(c, d)["slope"] / c,
        "RSQR": lambda d: line(c, d)["rsquare"].mask(flat(c, d)),
        "RESI": lambda d: line(c, d)["resi"] / c,
        "MAX": lambda d: highest(h, d) / c,
        "MIN": lambda d: lowest(low, d) / c,
        "QTLU": lambda d: quantile(c, d, 0.8) / c,
        "QTLD": lambda d: quantile(c, d, 0.2) / c,
        "RANK": lambda d: c.rolling(d, min_periods=1).rank(pct=True),
        "RSV": lambda d: (c - lowest(low, d)) / (highest(h, d) - lowest(low, d) + TINY),
        "IMAX": lambda d: index_of_max(h, d) / d,
        "IMIN": lambda d: index_of_min(low, d) / d,
        "IMXD": lambda d: (index_of_max(h, d) - index_of_min(low, d)) / d,
        "CORR": lambda d: correlation(c, np.log(v + 1), d),
        "CORD": lambda d: correlation(c / c1, np.log(v / v1 + 1), d),
        "CNTP": lambda d: mean(c > c1, d),
        "CNTN": lambda d: mean(c < c1, d),
        "CNTD": lambda d: mean(c > c1, d) - mean(c < c1, d),
        "SUMP": lambda d: total(greater(c - c1, 0), d) / (total(np.abs(c - c1), d) + TINY),
        "SUMN": lambda d: total(greater(c1 - c, 0), d) / (total(np.abs(c - c1), d) + TINY),
        "SUMD": lambda d: (
            (total(greater(c - c1, 0), d) - total(greater(c1 - c, 0), d))
            / (total(np.abs(c - c1), d) + TINY)
        ),
        "VMA": lambda d: mean(v, d) / (v + TINY),
        "VSTD": lambda d: std(v, d) / (v + TINY),
        "WVMA": lambda d: std(move, d) / (mean(move, d) + TINY),
        "VSUMP": lambda d: total(greater(v - v1, 0), d) / (total(np.abs(v - v1), d) + TINY),
        "VSUMN": lambda d: total(greater(v1 - v, 0), d) / (total(np.abs(v - v1), d) + TINY),
        "VSUMD": lambda d: (
            (total(greater(v - v1, 0), d) - total(greater(v1 - v, 0), d))
            / (total(np.abs(v - v1), d) + TINY)
        ),
    }.items():
        for d in WINDOWS:
            f[f"{group}{d}"] = formula(d)
    return pd.DataFrame(f).astype(np.float32)


def ref(x: Series, n: int) -> Series:
    return x.shift(n)


def greater(x: Any, y: Any) -> Series:
    return np.maximum(x, y)


def less(x: Any, y: Any) -> Series:
    return np.minimum(x, y)


def mean(x: Series, d: int) -> Series:
    return x.rolling(d, min_periods=1).mean()


def total(x: Series, d: int) -> Series:
    return x.rolling(d, min_periods=1).sum()


def std(x: Series, d: int) -> Series:
    """Window by window: pandas' running variance keeps a residue (1e-4 from ten zeros after large values)."""
    return x.astype(np.float64).rolling(d, min_periods=1).apply(two_pass_deviation, raw=True)


def two_pass_deviation(window: np.ndarray) -> float:
    valid = window[~np.isnan(window)]
    if len(valid) < 2 or (valid == valid[0]).all():
        return 0.0 if len(valid) >= 2 else np.nan
    return valid.std(ddof=1)


def highest(x: Series, d: int) -> Series:
    return x.rolling(d, min_periods=1).max()


def lowest(x: Series, d: int) -> Series:
    return x.rolling(d, min_periods=1).min()


def quantile(x: Series, d: int, share: float) -> Series:
    return x.rolling(d, min_periods=1).quantile(share)


def index_of_max(x: Series, d: int) -> Series:
    return x.rolling(d, min_periods=1).apply(lambda window: window.argmax() + 1, raw=True)


def index_of_min(x: Series, d: int) -> Series:
    return x.rolling(d, min_periods=1).apply(lambda window: window.argmin() + 1, raw=True)


def flat(x: Series, d: int) -> np.ndarray:
    return np.isclose(std(x, d), 0, atol=2e-05)


def correlation(x: Series, y: Series, d: int) -> Series:
    return x.rolling(d, min_periods=1).corr(y).mask(flat(x, d) | flat(y, d))


def line(x: Series, d: int) -> pd.DataFrame:
    """Least squares through the valid values of each window at their positions 1 … d."""
    rows = []
    for end in range(len(x)):
        window = x.to_numpy(dtype=np.float64)[max(0, end - d + 1) : end + 1]
        place = np.arange(d - len(window) + 1, d + 1, dtype=np.float64)
        valid = ~np.isnan(window)
        place, value = place[valid], window[valid]
        if len(value) < 2:
            rows.append((np.nan, np.nan, np.nan))
            continue
        px, py = place - place.mean(), value - value.mean()
        slope = (px * py).sum() / (px * px).sum()
        intercept = value.mean() - slope * place.mean()
        spread = (px * px).sum() * (py * py).sum()
        rsquare = (px * py).sum() ** 2 / spread if spread else np.nan
        rows.append((slope, rsquare, window[-1] - (slope * d + intercept)))
    return pd.DataFrame(rows, columns=["slope", "rsquare", "resi"], index=x.index)


def weekdays(count: int, first: date = date(2020, 1, 1)) -> list[date]:
    """Return a calendar of `count` weekdays."""
    days, day = [], first
    while len(days) < count:
        if day.weekday() < 5:
            days.append(day)
        day += timedelta(days=1)
    return days


def irregular_market(calendar: Sequence[date], seed: int = 7) -> pl.DataFrame:
    """Generate bars with every irregularity that decides equality with Qlib, one or more per symbol."""
    rng = np.random.default_rng(seed)
    n = len(calendar)
    frames = []

    def ordinary() -> dict[str, np.ndarray]:
        close = np.round(40 * np.exp(np.cumsum(rng.normal(0, 0.02, n))), 2)
        opening = np.round(close * np.exp(rng.normal(0, 0.006, n)), 2)
        high = np.round(np.maximum(opening, close) * (1 + np.abs(rng.normal(0, 0.005, n))), 2)
        low = np.round(np.minimum(opening, close) * (1 - np.abs(rng.normal(0, 0.005, n))), 2)
        volume = np.round(np.exp(rng.normal(12, 0.8, n)))
        vwap = (high + low + close) / 3
        return {
            "open": opening,
            "high": high,
            "low": low,
            "close": close,
            "volume": volume,
            "vwap": vwap,
        }

    def add(symbol: str, values: dict[str, np.ndarray], keep: np.ndarray | None = None) -> None:
        frame = pl.DataFrame({"symbol": [symbol] * n, "session": list(calendar), **values})
        frames.append(frame if keep is None else frame.filter(pl.Series(keep)))

    add("REGULAR", ordinary())
    add("LATE", ordinary(), np.arange(n) >= n // 2)
    add("ENDS", ordinary(), np.arange(n) < n // 2)
    add("GAPS", ordinary(), rng.random(n) > 0.15)
    add("HALTED", ordinary(), (np.arange(n) < 30) | (np.arange(n) > 95))
    add("SPARSE", ordinary(), rng.random(n) < 0.06)
    add("ONE", ordinary(), np.arange(n) == n - 3)
    add("TWO", ordinary(), (np.arange(n) == 4) | (np.arange(n) == 40))
    quiet = ordinary()
    quiet["volume"] = np.where(rng.random(n) < 0.3, 0.0, quiet["volume"])
    quiet["volume"][50:64] = 0.0
    add("ZEROVOLUME", quiet)
    add("NEVERTRADED", ordinary() | {"volume": np.zeros(n)})
    add(
        "CONSTANT",
        ordinary() | {k: np.full(n, 10.1) for k in ("open", "high", "low", "close", "vwap")},
    )
    steps = ordinary()
    level = np.repeat(np.round(rng.uniform(20, 30, n // 9 + 1), 2), 9)[:n]
    add("STEPS", steps | dict.fromkeys(("open", "high", "low", "close", "vwap"), level))
    coarse = ordinary()
    add("TIES", {k: np.maximum(np.round(x / 2) * 2, 2.0) for k, x in coarse.items()})
    holes = ordinary()
    for name in ("open", "high", "low", "close", "volume", "vwap"):
        holes[name] = np.where(rng.random(n) < 0.1, np.nan, holes[name])
    add("HOLES", holes)
    no_vwap = ordinary()
    add("NOVWAP", no_vwap | {"vwap": np.full(n, np.nan)})
    add("PENNY", {k: x if k == "volume" else np.round(x / 4000, 4) for k, x in ordinary().items()})
    large = ordinary()
    add("LARGE", {k: x * (1e5 if k == "volume" else 1e4) for k, x in large.items()})
    return pl.concat(frames)
