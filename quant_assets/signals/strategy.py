"""What a strategy is: one class, one method, one file in `strategies/`.

Belongs here: the contract and the columns of a signal. Does not belong here: strategies themselves
(`strategies/`), finding them (`discovery.py`) and feeding them (`cross_section.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import polars as pl


class Strategy(ABC):
    """Turns one session's cross-section into signals.

    Point in time by construction: `signals` sees the rows of one session and nothing else. History
    reaches a strategy only through features, which know the past and never the future.

    Attributes:
        name: Unique, lower-case with underscores; its signals are the asset `signals/<name>`.
        version: Changes when the rules change; stored with every signal.
        features: Table path to the columns read, for instance
            `{"features/technical": ("rsi_14",), "market_data/bars": ("close",)}`.
        model: Name of the model whose `prediction` (Float64, the model's label units) is added, if any.
        gross_limit: Largest sum of absolute target weights in a session.
        leg_weights: What the long and the short target weights sum to whenever any is set, for
            strategies that promise it.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    features: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    model: ClassVar[str | None] = None
    gross_limit: ClassVar[float] = 1.0
    leg_weights: ClassVar[tuple[float, float] | None] = None

    @abstractmethod
    def signals(self, universe: pl.DataFrame) -> pl.DataFrame:
        """Signals of one session.

        Args:
            universe: `symbol`, `security_id`, the declared columns and, with a model, `prediction`;
                one row per name of the trading universe, ascending by `security_id`. A value that was
                not computed is null.

        Returns:
            One row per name with the columns of `SIGNAL_COLUMNS`. `target_weight` is a fraction of
            the strategy's capital, negative for short; null keeps what the strategy holds, 0 closes.
            `expected_return` is the next session's return as a fraction, `confidence` lies in 0..1,
            `stop_loss` and `take_profit` are USD prices or null.
        """


SIGNAL_COLUMNS: Mapping[str, pl.DataType] = {
    "symbol": pl.String(),
    "security_id": pl.String(),
    "score": pl.Float64(),
    "expected_return": pl.Float64(),
    "confidence": pl.Float64(),
    "side": pl.String(),
    "target_weight": pl.Float64(),
    "stop_loss": pl.Float64(),
    "take_profit": pl.Float64(),
}
