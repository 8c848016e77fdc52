"""The names, the order, the formulas and the meaning of the 158 columns of Alpha158.

Belongs here: what each column is called and what it says, once, for the computation, the table
declaration and the tests. Does not belong here: any computing (`alpha158.py`).

Source: Microsoft Qlib, `Alpha158DL` in `qlib/contrib/data/loader.py`, whose text the formulas are.
`$open`, `$high`, `$low`, `$close`, `$vwap` and `$volume` are the session's adjusted values,
`Ref(x, n)` is x n sessions earlier, `Greater` and `Less` are the larger and the smaller of two
values, and every operator with a window d looks at the last d sessions, the session itself
included, and passes over missing ones.
"""

from dataclasses import dataclass
from typing import Final

WINDOWS: Final = (5, 10, 20, 30, 60)
"""Window lengths in sessions of every rolling group."""

LOOKBACK: Final = 60
"""Sessions before session T that the columns of session T can depend on."""


@dataclass(frozen=True)
class Feature:
    """One column of Alpha158.

    Attributes:
        formula: Qlib's expression.
        meaning: The same in plain words.
        unit: Unit of the value.
        sessions: Sessions that the value depends on, its own included.
    """

    formula: str
    meaning: str
    unit: str
    sessions: int


KBAR: Final = {
    "KMID": (
        "($close-$open)/$open",
        "body of the bar: return from open to close",
        "fraction of open",
    ),
    "KLEN": ("($high-$low)/$open", "range of the bar", "fraction of open"),
    "KMID2": (
        "($close-$open)/($high-$low+1e-12)",
        "body as a share of the range: 1 = opened at the low and closed at the high",
        "fraction of range",
    ),
    "KUP": (
        "($high-Greater($open, $close))/$open",
        "upper shadow: what was given back from the high",
        "fraction of open",
    ),
    "KUP2": (
        "($high-Greater($open, $close))/($high-$low+1e-12)",
        "upper shadow as a share of the range",
        "fraction of range",
    ),
    "KLOW": (
        "(Less($open, $close)-$low)/$open",
        "lower shadow: what was recovered from the low",
        "fraction of open",
    ),
    "KLOW2": (
        "(Less($open, $close)-$low)/($high-$low+1e-12)",
        "lower shadow as a share of the range",
        "fraction of range",
    ),
    "KSFT": (
        "(2*$close-$high-$low)/$open",
        "twice the distance of the close above the middle of the range",
        "fraction of open",
    ),
    "KSFT2": (
        "(2*$close-$high-$low)/($high-$low+1e-12)",
        "place of the close in the range: 1 = at the high, 0 = in the middle, -1 = at the low",
        "fraction of range",
    ),
}
"""Shape of the session's own bar: name to formula, meaning and unit."""

PRICES: Final = {
    "OPEN0": ("$open/$close", "open against the close", "multiple of close"),
    "HIGH0": ("$high/$close", "high against the close", "multiple of close"),
    "LOW0": ("$low/$close", "low against the close", "multiple of close"),
    "VWAP0": ("$vwap/$close", "average traded price against the close", "multiple of close"),
}
"""The session's other prices: name to formula, meaning and unit."""

ROLLING: Final = {
    "ROC": (
        "Ref($close, {d})/$close",
        "close {d} sessions ago against today's: below 1 = the price has risen",
        "multiple of close",
    ),
    "MA": (
        "Mean($close, {d})/$close",
        "moving average of the close: below 1 = the price is above it",
        "multiple of close",
    ),
    "STD": (
        "Std($close, {d})/$close",
        "standard deviation of the closes, a trend included",
        "fraction of close",
    ),
    "BETA": (
        "Slope($close, {d})/$close",
        "slope of the straight line through the closes",
        "fraction of close per session",
    ),
    "RSQR": (
        "Rsquare($close, {d})",
        "how well that straight line fits: 1 = a perfect trend, 0 = none; missing if the closes are all equal",
        "fraction",
    ),
    "RESI": (
        "Resi($close, {d})/$close",
        "distance of the close above that straight line",
        "fraction of close",
    ),
    "MAX": ("Max($high, {d})/$close", "highest high against the close", "multiple of close"),
    "MIN": ("Min($low, {d})/$close", "lowest low against the close", "multiple of close"),
    "QTLU": (
        "Quantile($close, {d}, 0.8)/$close",
        "close that 80 % of the closes lie below, against the close",
        "multiple of close",
    ),
    "QTLD": (
        "Quantile($close, {d}, 0.2)/$close",
        "close that 20 % of the closes lie below, against the close",
        "multiple of close",
    ),
    "RANK": (
        "Rank($close, {d})",
        "rank of the close among the closes: 1 = the highest",
        "fraction",
    ),
    "RSV": (
        "($close-Min($low, {d}))/(Max($high, {d})-Min($low, {d})+1e-12)",
        "place of the close between lowest low and highest high: 0 = at the low, 1 = at the high",
        "fraction of range",
    ),
    "IMAX": (
        "IdxMax($high, {d})/{d}",
        "when the highest high was: 1 = today, 1/{d} = at the window's start",
        "fraction of window",
    ),
    "IMIN": (
        "IdxMin($low, {d})/{d}",
        "when the lowest low was: 1 = today, 1/{d} = at the window's start",
        "fraction of window",
    ),
    "IMXD": (
        "(IdxMax($high, {d})-IdxMin($low, {d}))/{d}",
        "time from the lowest low to the highest high: above 0 = the low came first",
        "fraction of window",
    ),
    "CORR": (
        "Corr($close, Log($volume+1), {d})",
        "correlation of the close with the logarithm of volume; missing if one of them is constant",
        "correlation",
    ),
    "CORD": (
        "Corr($close/Ref($close,1), Log($volume/Ref($volume, 1)+1), {d})",
        "correlation of daily changes of price and of volume; missing if one of them is constant",
        "correlation",
    ),
    "CNTP": (
        "Mean($close>Ref($close, 1), {d})",
        "share of sessions that closed higher",
        "fraction of sessions",
    ),
    "CNTN": (
        "Mean($close<Ref($close, 1), {d})",
        "share of sessions that closed lower",
        "fraction of sessions",
    ),
    "CNTD": (
        "Mean($close>Ref($close, 1), {d})-Mean($close<Ref($close, 1), {d})",
        "share of sessions that closed higher less those that closed lower",
        "fraction of sessions",
    ),
    "SUMP": (
        "Sum(Greater($close-Ref($close, 1), 0), {d})/(Sum(Abs($close-Ref($close, 1)), {d})+1e-12)",
        "gains as a share of all moves of the close, as an RSI",
        "fraction of moves",
    ),
    "SUMN": (
        "Sum(Greater(Ref($close, 1)-$close, 0), {d})/(Sum(Abs($close-Ref($close, 1)), {d})+1e-12)",
        "losses as a share of all moves of the close: 1 - SUMP{d}",
        "fraction of moves",
    ),
    "SUMD": (
        "(Sum(Greater($close-Ref($close, 1), 0), {d})-Sum(Greater(Ref($close, 1)-$close, 0), {d}))"
        "/(Sum(Abs($close-Ref($close, 1)), {d})+1e-12)",
        "gains less losses as a share of all moves of the close",
        "fraction of moves",
    ),
    "VMA": (
        "Mean($volume, {d})/($volume+1e-12)",
        "average volume against today's: above 1 = a quiet session",
        "multiple of volume",
    ),
    "VSTD": (
        "Std($volume, {d})/($volume+1e-12)",
        "standard deviation of volume against today's volume",
        "multiple of volume",
    ),
    "WVMA": (
        "Std(Abs($close/Ref($close, 1)-1)*$volume, {d})/(Mean(Abs($close/Ref($close, 1)-1)*$volume, {d})+1e-12)",
        "how uneven volume times move was: standard deviation over mean",
        "multiple of mean",
    ),
    "VSUMP": (
        "Sum(Greater($volume-Ref($volume, 1), 0), {d})/(Sum(Abs($volume-Ref($volume, 1)), {d})+1e-12)",
        "increases as a share of all changes of volume",
        "fraction of changes",
    ),
    "VSUMN": (
        "Sum(Greater(Ref($volume, 1)-$volume, 0), {d})/(Sum(Abs($volume-Ref($volume, 1)), {d})+1e-12)",
        "decreases as a share of all changes of volume: 1 - VSUMP{d}",
        "fraction of changes",
    ),
    "VSUMD": (
        "(Sum(Greater($volume-Ref($volume, 1), 0), {d})-Sum(Greater(Ref($volume, 1)-$volume, 0), {d}))"
        "/(Sum(Abs($volume-Ref($volume, 1)), {d})+1e-12)",
        "increases less decreases as a share of all changes of volume",
        "fraction of changes",
    ),
}
"""The rolling groups: name to formula, meaning and unit; `{d}` stands for the window length."""


def _features() -> dict[str, Feature]:
    single = {
        name: Feature(*texts, sessions=1)
        for group in (KBAR, PRICES)
        for name, texts in group.items()
    }
    rolling = {
        f"{group}{window}": Feature(
            formula.format(d=window),
            meaning.format(d=window),
            unit,
            # A change needs the session before the window's first, and ROC the one d sessions ago.
            sessions=window + ("Ref(" in formula),
        )
        for group, (formula, meaning, unit) in ROLLING.items()
        for window in WINDOWS
    }
    return single | rolling


FEATURES: Final = _features()
"""Every column, in the order in which Qlib delivers them."""

NAMES: Final = tuple(FEATURES)
"""The 158 column names, KMID … VSUMD60."""
