"""How fast Alpha158 is, beside the same features as plain Polars expressions. Run by hand.

    python quant_tests/bench/bench_alpha158.py [--symbols 100] [--sessions 504] [--rounds 3]

Prints medians of interleaved rounds, memory above the inputs, the cost of one new session, and
the cost of storing the table as daily partitions. Also beside Qlib where `qlib_seconds` of an own
measurement on this machine is given.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from quant_assets.features.alpha158 import alpha158
from quant_assets.features.alpha158_formulas import LOOKBACK, NAMES, WINDOWS
from quant_tests.oracles.alpha158_reference import weekdays


def generated_bars(symbols: int, sessions: int) -> pl.DataFrame:
    """Regular bars of a market, sorted by symbol and session."""
    rng = np.random.default_rng(0)
    shape = (symbols, sessions)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, shape), axis=1))
    opening = close * np.exp(rng.normal(0, 0.005, shape))
    high = np.maximum(opening, close) * np.exp(np.abs(rng.normal(0, 0.005, shape)))
    low = np.minimum(opening, close) * np.exp(-np.abs(rng.normal(0, 0.005, shape)))
    calendar = weekdays(sessions)
    return pl.DataFrame(
        {
            "symbol": np.repeat([f"S{number:04d}" for number in range(symbols)], sessions),
            "session": pl.Series(calendar * symbols, dtype=pl.Date),
            "open": opening.round(2).ravel(),
            "high": high.round(2).ravel(),
            "low": low.round(2).ravel(),
            "close": close.round(2).ravel(),
            "volume": np.exp(rng.normal(13, 1, shape)).round().ravel(),
            "vwap": ((high + low + close) / 3).ravel(),
        }
    )


def polars_expressions(bars: pl.DataFrame) -> pl.DataFrame:
    """The columns that rolling expressions can say, without regard to gaps (no IMAX, IMIN, IMXD)."""
    o, h, low, c, v = (pl.col(name) for name in ("open", "high", "low", "close", "volume"))
    small = 1e-12
    length = h - low + small
    top, bottom = pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close")
    features = {
        "KMID": (c - o) / o,
        "KLEN": (h - low) / o,
        "KMID2": (c - o) / length,
        "KUP": (h - top) / o,
        "KUP2": (h - top) / length,
        "KLOW": (bottom - low) / o,
        "KLOW2": (bottom - low) / length,
        "KSFT": (2 * c - h - low) / o,
        "KSFT2": (2 * c - h - low) / length,
        "OPEN0": o / c,
        "HIGH0": h / c,
        "LOW0": low / c,
        "VWAP0": pl.col("vwap") / c,
    }
    step, volume_step = c - c.shift(), v - v.shift()
    move = (c / c.shift() - 1).abs() * v
    place = pl.int_range(pl.len()).cast(pl.Float64)
    for d in WINDOWS:

        def total(x: pl.Expr, d: int = d) -> pl.Expr:
            return x.rolling_sum(d, min_samples=1)

        def mean(x: pl.Expr, d: int = d) -> pl.Expr:
            return x.rolling_mean(d, min_samples=1)

        def std(x: pl.Expr, d: int = d) -> pl.Expr:
            return x.rolling_std(d, min_samples=2)

        def correlation(x: pl.Expr, y: pl.Expr, d: int = d) -> pl.Expr:
            return pl.rolling_corr(x, y, window_size=d, min_samples=2)

        slope = pl.rolling_cov(c, place, window_size=d, min_samples=2) / std(place) ** 2
        highest, lowest = h.rolling_max(d, min_samples=1), low.rolling_min(d, min_samples=1)
        up, down = (
            mean((c > c.shift()).fill_null(value=False).cast(pl.Float64)),
            mean((c < c.shift()).fill_null(value=False).cast(pl.Float64)),
        )
        features |= {
            f"ROC{d}": c.shift(d) / c,
            f"MA{d}": mean(c) / c,
            f"STD{d}": std(c) / c,
            f"BETA{d}": slope / c,
            f"RSQR{d}": correlation(c, place) ** 2,
            f"RESI{d}": (c - mean(c) - slope * (place - mean(place))) / c,
            f"MAX{d}": highest / c,
            f"MIN{d}": lowest / c,
            f"QTLU{d}": c.rolling_quantile(0.8, "linear", d, min_samples=1) / c,
            f"QTLD{d}": c.rolling_quantile(0.2, "linear", d, min_samples=1) / c,
            f"RANK{d}": c.rolling_rank(d, min_samples=1) / place.clip(0, d - 1).add(1),
            f"RSV{d}": (c - lowest) / (highest - lowest + small),
            f"CORR{d}": correlation(c, (v + 1).log()),
            f"CORD{d}": correlation(c / c.shift(), (v / v.shift() + 1).log()),
            f"CNTP{d}": up,
            f"CNTN{d}": down,
            f"CNTD{d}": up - down,
            f"VMA{d}": mean(v) / (v + small),
            f"VSTD{d}": std(v) / (v + small),
            f"WVMA{d}": std(move) / (mean(move) + small),
        }
        for prefix, change in (("SUM", step), ("VSUM", volume_step)):
            all_changes = total(change.abs()) + small
            features |= {
                f"{prefix}P{d}": total(change.clip(0)) / all_changes,
                f"{prefix}N{d}": total((-change).clip(0)) / all_changes,
                f"{prefix}D{d}": (total(change.clip(0)) - total((-change).clip(0))) / all_changes,
            }
    return bars.select(
        "symbol",
        "session",
        *(e.over("symbol").cast(pl.Float32).alias(name) for name, e in features.items()),
    )


def interleaved(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each task, the tasks taking turns so that a busy machine is fair to all."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            begin = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def storing(features: pl.DataFrame, rounds: int) -> dict[str, tuple[float, float, float]]:
    """Seconds to write and to read the table as one file per session, and its megabytes."""
    days = features.partition_by("session")
    results = {}
    for compression in ("lz4", "zstd", "uncompressed"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)

            def write(folder: Path = folder, compression: str = compression) -> None:
                for number, day in enumerate(days):
                    day.write_parquet(folder / f"{number:05d}.parquet", compression=compression)  # type: ignore[arg-type]

            def read(folder: Path = folder) -> None:
                pl.scan_parquet(folder / "*.parquet").collect()

            seconds = interleaved({"write": write, "read": read}, rounds)
            size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
            results[compression] = (seconds["write"], seconds["read"], size)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=100)
    parser.add_argument("--sessions", type=int, default=504)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--qlib-seconds", type=float, help="Qlib's time for the same, measured here"
    )
    chosen = parser.parse_args()
    bars = generated_bars(chosen.symbols, chosen.sessions)
    calendar = bars["session"].unique().sort().to_list()
    last = bars.filter(pl.col("session") >= calendar[-LOOKBACK - 1]).with_columns(
        first_session=pl.lit(calendar[0]), wanted=pl.col("session") == calendar[-1]
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    features = alpha158(bars)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    block = features.height * len(NAMES) * 4
    seconds = interleaved(
        {
            "window lattice": lambda: alpha158(bars),
            "Polars expressions (143 columns)": lambda: polars_expressions(bars),
        },
        chosen.rounds,
    )
    one = interleaved({"one session": lambda: alpha158(last, calendar)}, 10 * chosen.rounds)[
        "one session"
    ]
    if chosen.qlib_seconds:
        seconds["Qlib (as given)"] = chosen.qlib_seconds
    console = Console()
    table = Table(
        "method", "seconds", "ratio", title=f"{chosen.symbols} symbols x {chosen.sessions} sessions"
    )
    fastest = seconds["window lattice"]
    for name, value in seconds.items():
        table.add_row(name, f"{value:.3f}", f"{value / fastest:.1f}")
    console.print(table)
    console.print(
        f"peak memory {peak / 1e6:.0f} MB above the bars, {peak / block:.2f} times the output"
    )
    console.print(f"one new session from {LOOKBACK + 1} trailing ones: {1000 * one:.1f} ms")
    stored = Table("compression", "write s", "read s", "MB", title="one file per session")
    for name, (write, read, size) in storing(features, 1).items():
        stored.add_row(name, f"{write:.2f}", f"{read:.2f}", f"{size:.0f}")
    console.print(stored)
    plain = polars_expressions(bars)
    shared = [name for name in NAMES if name in plain.columns]
    apart = [
        (float(np.nanmax(np.abs(features[name].to_numpy() - plain[name].to_numpy()))), name)
        for name in shared
    ]
    largest, column = max(apart)
    console.print(
        f"{len(shared)} shared columns, largest absolute difference {largest:.1e} in {column}"
    )


if __name__ == "__main__":
    main()
