"""Rows with a planted signal, as the models stage gets them, and a trained market."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import numpy as np
import polars as pl
import pytest

from quant_resources.calendar import XNYS
from quant_tests.models.trained_market import ledger, trained

__all__ = ["labelled_rows", "ledger", "trained"]

LabelledRows = Callable[..., pl.DataFrame]


@pytest.fixture
def labelled_rows() -> LabelledRows:
    """Makes `names` rows for each of `sessions`; `signal` is the correlation of the first feature with the label."""

    def make(
        *,
        sessions: int = 160,
        names: int = 40,
        features: int = 6,
        signal: float = 0.3,
        first: date = date(2023, 1, 3),
        horizon: int = 2,
        seed: int = 1,
    ) -> pl.DataFrame:
        rng = np.random.default_rng(seed)
        days = XNYS.sessions(first, XNYS.offset(first, sessions + horizon - 1))
        values = rng.standard_normal((sessions * names, features)).astype(np.float32)
        noise = rng.standard_normal(sessions * names)
        label = signal * values[:, 0] + np.sqrt(1 - signal**2) * noise
        index = np.repeat(np.arange(sessions), names)
        symbols = [f"S{number:03d}" for number in range(names)] * sessions
        return pl.DataFrame(
            {
                "session": [days[i] for i in index],
                "symbol": symbols,
                "security_id": [f"{symbol}@{first}" for symbol in symbols],
                "known_session": [days[i + horizon] for i in index],
                "forward_return_zscore": label,
                **{f"F{number}": values[:, number] for number in range(features)},
            }
        )

    return make
