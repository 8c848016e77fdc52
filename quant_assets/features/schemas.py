"""The tables of the features stage: columns, types, units, bounds and keys, each written once.

Formulas and windows come from the modules that compute them (through `documentation.py`), so that the
column documentation in the UI cannot differ from the computation.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from quant_assets.features import alpha158_formulas, anomaly, technical
from quant_assets.features.documentation import ALPHA158_TEXTS, ANOMALY_TEXTS, TECHNICAL_TEXTS
from quant_resources.errors import SchemaError
from quant_resources.tables import Column, Table

STAGE = "features"

MEMBER = (
    Column("session", pl.Date, "Session at whose close the row is known"),
    Column("symbol", pl.String, "Ticker at the session"),
    Column("security_id", pl.String, "Listing: its first symbol @ its first session"),
)

_BOUNDS: dict[str, tuple[float | None, float | None]] = {
    "rsi_14": (0.0, 100.0),
    "bollinger_bandwidth": (0.0, None),
    "atr_14": (0.0, None),
    "adx_14": (0.0, 100.0),
    "stochastic_k": (0.0, 100.0),
    "stochastic_d": (0.0, 100.0),
    "obv_trend_20": (-1.0, 1.0),
    "momentum_20": (-1.0, None),
    "momentum_60": (-1.0, None),
    "momentum_252": (-1.0, None),
    "realised_volatility_20": (0.0, None),
    "dollar_volume_20": (0.0, None),
    "gap": (-1.0, None),
    "distance_52w_high": (-1.0, 0.0),
    "distance_52w_low": (0.0, None),
}


def _alpha158_columns() -> tuple[Column, ...]:
    # Nullable and without bounds: a column may be NaN for a member, and the rules that need thought are in checks.py.
    return tuple(
        Column(name, pl.Float32, text.description, text.unit, nullable=True)
        for name, text in ALPHA158_TEXTS.items()
    )


def _technical_columns() -> tuple[Column, ...]:
    unbounded = (None, None)
    return tuple(
        Column(
            name,
            pl.Float64,
            text.description,
            text.unit,
            nullable=True,
            minimum=_BOUNDS.get(name, unbounded)[0],
            maximum=_BOUNDS.get(name, unbounded)[1],
        )
        for name, text in TECHNICAL_TEXTS.items()
    )


ALPHA158 = Table(
    stage=STAGE,
    name="alpha158",
    grain="session",
    description=(
        "The 158 price and volume features of Microsoft Qlib for every member of the universe, equal to Qlib's values, "
        f"from bars of the session and the {alpha158_formulas.LOOKBACK} before it, adjusted as known at the session. "
        "NaN where a feature is undefined. Read by the models."
    ),
    columns=(*MEMBER, *_alpha158_columns()),
    key=("session", "symbol"),
)

TECHNICAL = Table(
    stage=STAGE,
    name="technical",
    grain="session",
    description=(
        "The usual technical indicators for every member of the universe, each from exactly the bars of its warm-up "
        f"(within the session and the {technical.LOOKBACK} before it), empty without them. Read by the rule strategies."
    ),
    columns=(*MEMBER, *_technical_columns()),
    key=("session", "symbol"),
)

ANOMALY = Table(
    stage=STAGE,
    name="anomaly",
    grain="session",
    description=(
        "How unlike the recent past of the whole market each member's session was: the score of an Isolation Forest "
        f"fitted on the {anomaly.TRAINING_SESSIONS} sessions before the month. For people and for risk; an anomaly is "
        "no error."
    ),
    columns=(
        *MEMBER,
        Column(
            "anomaly_score",
            pl.Float64,
            ANOMALY_TEXTS["anomaly_score"].description,
            nullable=True,
            minimum=0.0,
            maximum=1.0,
        ),
        Column("explained_by", pl.String, ANOMALY_TEXTS["explained_by"].description),
    ),
    key=("session", "symbol"),
)


def label_table(held: int) -> Table:
    """The labels of one horizon: bought at the next close, sold `held` sessions later."""
    horizon = held + 1
    return Table(
        stage=STAGE,
        name="labels" if held == LEARNED_SESSIONS else f"labels_{held}",
        grain="labelled_session",
        horizon=horizon,
        description=(
            f"What a decision at the session's close would have earned: close t+1 to close t+{horizon}, adjusted. "
            "Empty where the security was not traded at either end. Not known before known_session; read by "
            "the models alone."
        ),
        columns=(
            *MEMBER,
            Column(
                "forward_return",
                pl.Float64,
                f"close t+{horizon} / close t+1 - 1, adjusted as known at t+{horizon}",
                "fraction",
                nullable=True,
                minimum=-1.0,
            ),
            Column(
                "forward_return_zscore",
                pl.Float64,
                "forward_return less the session's mean, over its standard deviation",
                nullable=True,
            ),
            Column(
                "forward_return_rank",
                pl.Float64,
                "Rank of forward_return in its session, 0 = lowest, 1 = highest",
                nullable=True,
                minimum=0.0,
                maximum=1.0,
            ),
            Column(
                "known_session",
                pl.Date,
                f"First session at whose close the label is known (t+{horizon})",
            ),
        ),
        key=("session", "symbol"),
    )


def label_tables(holding: Sequence[int]) -> tuple[Table, ...]:
    """The labels of some holding periods.

    Raises:
        SchemaError: A period is no whole number of sessions up to a year, comes twice, or the one that the
            models learn is not among them.
    """
    wrong = [held for held in holding if not isinstance(held, int) or not 1 <= held <= LONGEST_HELD]
    if wrong or len(set(holding)) < len(holding) or LEARNED_SESSIONS not in holding:
        raise SchemaError(
            f"HOLDING_SESSIONS is {tuple(holding)}: it must hold {LEARNED_SESSIONS}, which the models learn, and "
            f"otherwise whole numbers of sessions from 1 to {LONGEST_HELD}, each once."
        )
    return tuple(label_table(held) for held in holding)


LONGEST_HELD = 252
"""Sessions that a labelled position may be held at most: a year."""

LEARNED_SESSIONS = 1
"""Sessions that the position of `features/labels` is held, which is what the models learn: Qlib's label."""

HOLDING_SESSIONS = (LEARNED_SESSIONS, 5, 20)
"""Sessions that the labelled positions are held, one table each; a further number is a further table with its
asset, partitions, checks, job and schedule."""

LABEL_TABLES = label_tables(HOLDING_SESSIONS)
LABELS = next(table for table in LABEL_TABLES if table.name == "labels")

TABLES: tuple[Table, ...] = (ALPHA158, TECHNICAL, ANOMALY, *LABEL_TABLES)
