"""The feature tables as computations: from bars and members to rows, with the lookback each needs.

Belongs here: one declaration per table that its asset, its parity check and any recomputation
share, so that there is one implementation for research, backtest and live. Does not belong here:
the formulas.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, TypeAlias

import polars as pl

from quant_assets.features import alpha158_formulas, anomaly, technical
from quant_assets.features.schemas import ALPHA158, ANOMALY, TECHNICAL
from quant_assets.features.universe_features import universe_alpha158, universe_technical
from quant_resources.calendar import XNYS
from quant_resources.tables import Table

Compute: TypeAlias = Callable[[pl.DataFrame, pl.DataFrame, Sequence[date]], pl.DataFrame]

BAR_COLUMNS: Final = (
    "session",
    "security_id",
    "first_session",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "vwap",
    "price_factor",
    "volume_factor",
)
"""What features read of a bar."""

MEMBER_COLUMNS: Final = ("session", "symbol", "security_id")
"""What features read of a member of the universe."""


@dataclass(frozen=True)
class SessionFeatures:
    """A feature table and how it is computed.

    Attributes:
        table: The table.
        lookback: Sessions before a session that its rows depend on.
        function: `(raw bars, universe, calendar) -> rows`, pure; the calendar covers the bars.
    """

    table: Table
    lookback: int
    function: Compute

    def compute(
        self, bars: pl.LazyFrame, universe: pl.LazyFrame, sessions: Sequence[date]
    ) -> pl.DataFrame:
        """Compute the rows of some sessions.

        Args:
            bars: Raw bars of the sessions and the `lookback` sessions before the first, as far as
                they exist; later ones are not looked at.
            universe: Members of the sessions.
            sessions: The sessions, ascending.
        """
        members = (
            universe.filter(pl.col("session").is_in(list(sessions)))
            .select(MEMBER_COLUMNS)
            .collect()
        )
        if members.is_empty():
            return self.table.empty()
        # Twice as many days as sessions reach back far enough over weekends and holidays.
        calendar = XNYS.sessions(sessions[0] - timedelta(days=2 * self.lookback + 7), sessions[-1])
        known = bars.filter(
            pl.col("session").is_between(self.first_needed(sessions[0]), sessions[-1])
        )
        # One file per session is one chunk per session, which every later step would pay for.
        return self.function(known.select(BAR_COLUMNS).collect().rechunk(), members, calendar)

    def first_needed(self, session: date) -> date:
        """The first session whose bars the rows of `session` depend on."""
        return XNYS.sessions(session - timedelta(days=2 * self.lookback + 7), session)[
            -1 - self.lookback
        ]


ALPHA158_FEATURES: Final = SessionFeatures(ALPHA158, alpha158_formulas.LOOKBACK, universe_alpha158)
TECHNICAL_FEATURES: Final = SessionFeatures(TECHNICAL, technical.LOOKBACK, universe_technical)
ANOMALY_FEATURES: Final = SessionFeatures(ANOMALY, anomaly.LOOKBACK, anomaly.anomaly_scores)
