"""Anomaly scores: how unlike the recent past of the whole market a security's session was.

Belongs here: the features, the monthly refitted Isolation Forest, its scores and their
explanation. Does not belong here: validation of bars (a broken bar is quarantined, an unusual one
is scored).

1. Six features are computed from each bar and the security's previous 20, all order statistics or
   one-step ratios, so that a value has the same bits whatever range is computed (`FEATURES`).
2. For each month one Isolation Forest (Liu, Ting, Zhou 2008; scikit-learn, fixed seed) is fitted
   on all securities of the `TRAINING_SESSIONS` sessions before the month. A session of the month
   is never among them.
3. The score of a security and session is the forest's, 0 to 1: about 0.5 is ordinary, towards 1
   easily isolated.
4. It is explained by the two features that lie farthest from the training window's median, in
   robust standard deviations (1.4826 times the median absolute deviation).

Warm-up: the score is missing, and its explanation empty, until the training window and the 20
bars before its first session are there, and for a security without 20 earlier bars.
"""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sklearn.ensemble import IsolationForest

TRAINING_SESSIONS: Final = 126
"""Sessions of the training window: half a year."""

HISTORY_BARS: Final = 20
"""Earlier bars of the security that a feature compares with."""

HISTORY_SESSIONS: Final = 30
"""Sessions within which these bars must lie; an older comparison is none."""

LONGEST_MONTH: Final = 23
"""Sessions that a calendar month can have."""

LOOKBACK: Final = TRAINING_SESSIONS + HISTORY_SESSIONS + LONGEST_MONTH
"""Sessions before session T that the score of session T can depend on."""

FEATURES: Final = {
    "return": "log of close over previous close",
    "relative_return": "return minus the session's median return",
    "gap": "log of open over previous close",
    "range": "log of high over low, over its median in the previous 20 bars",
    "volume": "log of dollar volume over its median in the previous 20 bars",
    "move": "absolute return over its median in the previous 20 bars",
}
"""What the forest looks at; prices adjusted for the session's corporate actions."""

TREES: Final = 100
SEED: Final = 158
_NORMAL_MAD: Final = 1.4826


def anomaly_scores(
    bars: pl.DataFrame, universe: pl.DataFrame, calendar: Sequence[date]
) -> pl.DataFrame:
    """Score the members of a universe.

    Args:
        bars: Raw bars with security_id, session, open, high, low, close, volume and price_factor:
            the universe's sessions and `LOOKBACK` sessions before the first.
        universe: session, symbol, security_id; one row is one score.
        calendar: The market's sessions over the span of the bars.

    Returns:
        The universe's rows in their order with `anomaly_score` (0 to 1, null in the warm-up) and
        `explained_by`, such as "volume +8.3, gap -4.1" (robust standard deviations), empty where
        there is no score.
    """
    features = anomaly_features(bars, calendar)
    names = list(FEATURES)
    members = universe.select("session", "symbol", "security_id").join(
        features, on=["session", "security_id"], how="left", maintain_order="left"
    )
    values = members.select(names).to_numpy()
    scores = np.full(members.height, np.nan)
    explained = np.full(members.height, "", dtype=object)
    complete = ~np.isnan(values).any(axis=1)
    months = members["session"].dt.truncate("1mo").to_numpy()
    first_bar = bars["session"].min()
    for month in np.unique(months):
        before = [session for session in calendar if session < month.astype(object)]
        needed = TRAINING_SESSIONS + HISTORY_SESSIONS
        if len(before) < needed or not isinstance(first_bar, date) or first_bar > before[-needed]:
            continue
        window = pl.col("session").is_between(before[-TRAINING_SESSIONS], before[-1])
        training = features.filter(window).select(names).drop_nulls().to_numpy()
        rows = np.flatnonzero((months == month) & complete)
        if len(training) and len(rows):
            scores[rows] = _forest(training).score_samples(values[rows]) * -1.0
            explained[rows] = _explanations(values[rows], training)
    return members.select(
        "session",
        "symbol",
        "security_id",
        anomaly_score=pl.Series(scores, nan_to_null=True),
        explained_by=pl.Series(explained.tolist(), dtype=pl.String),
    )


def anomaly_features(bars: pl.DataFrame, calendar: Sequence[date]) -> pl.DataFrame:
    """Compute the `FEATURES` of every bar.

    Args:
        bars: As in `anomaly_scores`.
        calendar: As in `anomaly_scores`.

    Returns:
        session, security_id and the features (Float64), sorted by session and security_id; a
        row's features are null together, where its history is too short or the session had no
        range or volume to compare.
    """
    numbered = pl.DataFrame(
        {"session": calendar, "_position": range(len(calendar))},
        schema={"session": pl.Date, "_position": pl.Int32},
    )
    previous = pl.col("close").shift() * pl.col("price_factor")
    ordered = (
        bars.join(numbered, on="session")
        .sort("security_id", "session")
        .with_columns(
            (pl.col("close") / previous).log().over("security_id").alias("return"),
            (pl.col("open") / previous).log().over("security_id").alias("gap"),
            _range=(pl.col("high") / pl.col("low")).log(),
            _dollars=pl.col("close") * pl.col("volume"),
            _span=(pl.col("_position") - pl.col("_position").shift(HISTORY_BARS + 1)).over(
                "security_id"
            ),
        )
        .with_columns(
            relative_return=pl.col("return") - pl.col("return").median().over("session"),
            _move=pl.col("return").abs(),
        )
    )

    def usual(name: str) -> pl.Expr:
        return pl.col(name).shift().rolling_median(HISTORY_BARS).over("security_id")

    compared = ordered.with_columns(
        range=pl.col("_range") / usual("_range"),
        volume=(pl.col("_dollars") / usual("_dollars")).log(),
        move=pl.col("_move") / usual("_move"),
    )
    known = pl.all_horizontal(pl.col(*FEATURES).is_finite()) & (pl.col("_span") <= HISTORY_SESSIONS)
    return compared.select("session", "security_id", pl.when(known).then(pl.col(*FEATURES))).sort(
        "session", "security_id"
    )


def _forest(training: NDArray[np.float64]) -> "IsolationForest":
    # A second of importing that the graph should not pay for at every start.
    from sklearn.ensemble import IsolationForest

    return IsolationForest(n_estimators=TREES, random_state=SEED).fit(training)


def _explanations(values: NDArray[np.float64], training: NDArray[np.float64]) -> list[str]:
    """The two features farthest from the training median, with their distance."""
    median = np.median(training, axis=0)
    scale = _NORMAL_MAD * np.median(np.abs(training - median), axis=0)
    distance = np.divide(values - median, scale, out=np.zeros_like(values), where=scale > 0)
    farthest = np.argsort(-np.abs(distance), axis=1, kind="stable")[:, :2]
    names = list(FEATURES)
    return [
        ", ".join(f"{names[column]} {row[column]:+.1f}" for column in columns)
        for row, columns in zip(distance, farthest, strict=True)
    ]
