"""Bars and signals: some small enough to check by hand, some with everything that real ones have."""

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import polars as pl

from quant_resources.calendar import XNYS

FIRST = date(2024, 3, 1)


def sessions(count: int) -> list[date]:
    """The first `count` sessions of the tiny market."""
    return XNYS.sessions(FIRST, XNYS.offset(FIRST, count - 1)) if count > 1 else [FIRST]


def tiny_bars(
    prices: Mapping[str, Sequence[tuple[float, float] | None]],
    factors: Mapping[tuple[str, int], tuple[float, float]] | None = None,
    volume: float = 1e9,
) -> pl.DataFrame:
    """Raw bars from (open, close) per session; None is a session without a bar.

    `factors` maps (security, index of the session) to (price_factor, volume_factor).
    """
    days = sessions(max(len(series) for series in prices.values()))
    rows = [
        {
            "session": days[i],
            "security_id": name,
            "open": float(bar[0]),
            "close": float(bar[1]),
            "volume": volume,
            "price_factor": (factors or {}).get((name, i), (1.0, 1.0))[0],
            "volume_factor": (factors or {}).get((name, i), (1.0, 1.0))[1],
        }
        for name, series in prices.items()
        for i, bar in enumerate(series)
        if bar is not None
    ]
    return pl.DataFrame(rows).sort("session", "security_id")


def tiny_signals(weights: Mapping[int, Mapping[str, float | None]]) -> pl.DataFrame:
    """Signals from {index of the session: {security: weight, None keeps}}."""
    days = sessions(max(weights) + 1)
    return pl.DataFrame(
        [
            {"session": days[i], "security_id": name, "target_weight": weight}
            for i, named in weights.items()
            for name, weight in named.items()
        ],
        schema={"session": pl.Date, "security_id": pl.String, "target_weight": pl.Float64},
    )


def any_market(seed: int, session_count: int, securities: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Signals (with holds, silent sessions and names that are halted) and raw bars with factors."""
    rng = np.random.default_rng(seed)
    days = XNYS.sessions(*(XNYS.offset(XNYS.all_sessions[100], n) for n in (0, session_count - 1)))
    grid = pl.DataFrame({"session": days}).join(
        pl.DataFrame({"security_id": [f"S{i:03d}" for i in range(securities)]}), how="cross"
    )
    shape = (session_count, securities)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.03, shape), axis=0))
    listed = rng.integers(session_count // 2, session_count * 2, securities)
    present = (rng.random(shape) > 0.05) & (np.arange(session_count)[:, None] < listed)
    present[:, 0] = True
    factor = np.where(rng.random(shape) < 0.02, 0.5, np.where(rng.random(shape) < 0.02, 0.99, 1.0))
    bars = grid.with_columns(
        open=(close * np.exp(rng.normal(0, 0.01, shape))).ravel(),
        close=close.ravel(),
        volume=(rng.random(shape) * 1e6).ravel(),
        price_factor=factor.ravel(),
        volume_factor=np.where(factor == 0.5, 2.0, 1.0).ravel(),
    ).filter(present.ravel())
    weight = np.where(rng.random(shape) < 0.3, np.nan, rng.normal(0, 1 / securities, shape))
    spoke = np.repeat(rng.random(session_count) < 0.9, securities)
    signals = grid.with_columns(
        target_weight=pl.Series(weight.ravel()).fill_nan(None),
        score=rng.normal(0, 1, shape).ravel(),
    ).filter((rng.random(shape) < 0.8).ravel() & spoke)
    return signals, bars
