"""Alpha158 as plain Polars expressions: what one would write without the window lattice, to compare with.

Belongs here: the columns that rolling expressions can say. Does not belong here: gaps in the calendar and
the missing values that decide equality with Qlib (`quant_assets/features/alpha158.py`).
"""

import polars as pl

from quant_assets.features.alpha158_formulas import WINDOWS


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
