"""Anomaly scores: how unlike the recent past of the whole market a security's session was.

Belongs here: the features, the monthly refitted Isolation Forest, its scores and their
explanation. Does not belong here: validation of bars (a broken bar is quarantined, an unusual one
is scored).

1. Six features are computed from each bar and the security's previous 20, all order statistics or
   one-step ratios, so that a value has the same bits whatever range is computed (`FEATURES`).
2. For each month one Isolation Forest (Liu, Ting, Zhou 2008; scikit-learn, fixed seed) is fitted
   on all securities of the `TRAINING_SESSIONS` sessions before the month. A session of the month
   is never among them. A fit is a function of its training rows, seed included: rows that were
   fitted before, to the bit, are not fitted again.
3. The score of a security and session is the forest's, 0 to 1: about 0.5 is ordinary, towards 1
   easily isolated.
4. It is explained by the two features that lie farthest from the training window's median, in
   robust standard deviations (1.4826 times the median absolute deviation).

A bar with a missing value has no features, nor have the 21 bars after it, which compare with it.

Warm-up: the score is missing, and its explanation empty, unless the market traded on the session
`HISTORY_SESSIONS` before the training window, and for a security without 20 earlier bars.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from quant_assets.features.checked_bars import check_sessions, checked_bars, checked_history

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
_FITS_KEPT: Final = 36  # three years of months, under 1 MB each
_VALUES: Final = ("open", "high", "low", "close", "volume", "price_factor")


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

    Raises:
        DataError: The bars or the members are none (`checked_bars.py`).
    """
    bars, universe = checked_history(bars, universe, calendar, "anomaly", _VALUES)
    features = _features(bars, calendar)
    names = list(FEATURES)
    members = universe.select("session", "symbol", "security_id").join(
        features, on=["session", "security_id"], how="left", maintain_order="left"
    )
    values = members.select(names).to_numpy()
    scores = np.full(members.height, np.nan)
    explained = np.full(members.height, "", dtype=object)
    complete = ~np.isnan(values).any(axis=1)
    months = members["session"].dt.truncate("1mo").to_numpy()
    traded = set(bars["session"].unique())
    for month in np.unique(months):
        before = [session for session in calendar if session < month.astype(object)]
        needed = TRAINING_SESSIONS + HISTORY_SESSIONS
        # Asked of this one session: what lies before it depends on how much history is loaded.
        if len(before) < needed or before[-needed] not in traded:
            continue
        window = pl.col("session").is_between(before[-TRAINING_SESSIONS], before[-1])
        training = features.filter(window).select(names).drop_nulls().to_numpy()
        rows = np.flatnonzero((months == month) & complete)
        if len(training) and len(rows):
            usual = _usual(training)
            scores[rows] = usual.forest.score_samples(values[rows]) * -1.0
            explained[rows] = _explanations(values[rows], usual)
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

    Raises:
        DataError: As in `anomaly_scores`.
    """
    bars = checked_bars(bars, "anomaly", _VALUES, "security_id")
    check_sessions(bars, calendar, "anomaly", "security_id")
    return _features(bars, calendar)


def _features(bars: pl.DataFrame, calendar: Sequence[date]) -> pl.DataFrame:
    positions = pl.DataFrame(
        {"session": calendar, "_position": range(len(calendar))},
        schema={"session": pl.Date, "_position": pl.Int32},
    )
    security, position = pl.col("security_id"), pl.col("_position")
    reach = position - position.shift(HISTORY_BARS + 1)
    # Shifts and windows may run into the security before: those rows are not `compared`.
    compared = (security == security.shift(HISTORY_BARS + 1)) & (reach <= HISTORY_SESSIONS)
    previous = pl.when(security == security.shift()).then(pl.col("close").shift())
    previous = previous * pl.col("price_factor")

    def usual(name: str) -> pl.Expr:
        return pl.col(name).shift().rolling_median(HISTORY_BARS)

    known = pl.col("_compared") & pl.all_horizontal(pl.col(*FEATURES).is_finite())
    return (
        bars.select("session", "security_id", *_VALUES)
        .join(positions, on="session")
        .sort("security_id", "session")
        .with_columns(
            (pl.col("close") / previous).log().alias("return"),
            (pl.col("open") / previous).log().alias("gap"),
            _range=(pl.col("high") / pl.col("low")).log(),
            _dollars=pl.col("close") * pl.col("volume"),
            _compared=compared,
        )
        .with_columns(
            relative_return=pl.col("return") - pl.col("return").median().over("session"),
            _move=pl.col("return").abs(),
        )
        .with_columns(
            range=pl.col("_range") / usual("_range"),
            volume=(pl.col("_dollars") / usual("_dollars")).log(),
            move=pl.col("_move") / usual("_move"),
        )
        .select("session", "security_id", pl.when(known).then(pl.col(*FEATURES)))
        .sort("session", "security_id")
    )


@dataclass(frozen=True)
class _Usual:
    """What is usual in a training window.

    Attributes:
        forest: Fitted on its rows.
        median: Of each feature.
        scale: Robust standard deviation of each feature.
    """

    forest: "IsolationForest"
    median: NDArray[np.float64]
    scale: NDArray[np.float64]


_fitted: dict[bytes, _Usual] = {}


def _usual(training: NDArray[np.float64]) -> _Usual:
    """Fit training rows, or find the fit of the same ones."""
    content = sha256(training.tobytes()).digest()
    if content not in _fitted:
        if len(_fitted) >= _FITS_KEPT:
            _fitted.pop(next(iter(_fitted)), None)
        median = np.median(training, axis=0)
        scale = _NORMAL_MAD * np.median(np.abs(training - median), axis=0)
        _fitted[content] = _Usual(_forest(training), median, scale)
    return _fitted[content]


def _forest(training: NDArray[np.float64]) -> "IsolationForest":
    # A second of importing that the graph should not pay for at every start.
    from sklearn.ensemble import IsolationForest

    return IsolationForest(n_estimators=TREES, random_state=SEED).fit(training)


def _explanations(values: NDArray[np.float64], usual: _Usual) -> pl.Series:
    """The two features farthest from the training median, with their distance."""
    distance = np.divide(
        values - usual.median, usual.scale, out=np.zeros_like(values), where=usual.scale > 0
    )
    farthest = np.argsort(-np.abs(distance), axis=1, kind="stable")[:, :2]
    names = pl.Series(list(FEATURES))
    parts = []
    for place in range(2):
        column = farthest[:, place]
        far = pl.Series(distance[np.arange(len(column)), column])
        sign = pl.select(pl.when(far >= 0).then(pl.lit("+")).otherwise(pl.lit(""))).to_series()
        text = far.round(1, mode="half_to_even").cast(pl.String)
        parts.append(names.gather(column) + " " + sign + text)
    return parts[0] + ", " + parts[1]
