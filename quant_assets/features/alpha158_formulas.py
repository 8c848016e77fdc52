"""The names, the order and the formulas of the 158 columns of Alpha158.

Belongs here: what each column is called and what it means, once, for the computation, the table
declaration and the tests. Does not belong here: any computing (`alpha158.py`).

Source: Microsoft Qlib, `Alpha158DL` in `qlib/contrib/data/loader.py`. Notation of the formulas:
`open`, `high`, `low`, `close`, `vwap` and `volume` are the session's adjusted values, `Ref(x, n)`
is x n sessions earlier, and every rolling operator looks at the last d sessions, the session
itself included.
"""

from typing import Final

WINDOWS: Final = (5, 10, 20, 30, 60)
"""Window lengths in sessions of every rolling group."""

LOOKBACK: Final = 60
"""Sessions before session T that the columns of session T can depend on."""

KBAR_FORMULAS: Final = {
    "KMID": "(close - open) / open",
    "KLEN": "(high - low) / open",
    "KMID2": "(close - open) / (high - low + 1e-12)",
    "KUP": "(high - max(open, close)) / open",
    "KUP2": "(high - max(open, close)) / (high - low + 1e-12)",
    "KLOW": "(min(open, close) - low) / open",
    "KLOW2": "(min(open, close) - low) / (high - low + 1e-12)",
    "KSFT": "(2 close - high - low) / open",
    "KSFT2": "(2 close - high - low) / (high - low + 1e-12)",
}
"""Shape of the session's own bar."""

PRICE_FORMULAS: Final = {
    "OPEN0": "open / close",
    "HIGH0": "high / close",
    "LOW0": "low / close",
    "VWAP0": "vwap / close",
}
"""The session's other prices as multiples of its close."""

ROLLING_FORMULAS: Final = {
    "ROC": "Ref(close, {d}) / close",
    "MA": "Mean(close, {d}) / close",
    "STD": "Std(close, {d}) / close",
    "BETA": "Slope(close, {d}) / close",
    "RSQR": "Rsquare(close, {d}), the fit of a straight line through the closes",
    "RESI": "Resi(close, {d}) / close, the distance of the close from that line",
    "MAX": "Max(high, {d}) / close",
    "MIN": "Min(low, {d}) / close",
    "QTLU": "Quantile(close, {d}, 0.8) / close",
    "QTLD": "Quantile(close, {d}, 0.2) / close",
    "RANK": "Rank(close, {d}), as a share of the observed closes",
    "RSV": "(close - Min(low, {d})) / (Max(high, {d}) - Min(low, {d}) + 1e-12)",
    "IMAX": "IdxMax(high, {d}) / {d}, 1 = the highest high is today's",
    "IMIN": "IdxMin(low, {d}) / {d}, 1 = the lowest low is today's",
    "IMXD": "(IdxMax(high, {d}) - IdxMin(low, {d})) / {d}",
    "CORR": "Corr(close, log(volume + 1), {d})",
    "CORD": "Corr(close / Ref(close, 1), log(volume / Ref(volume, 1) + 1), {d})",
    "CNTP": "Mean(close > Ref(close, 1), {d})",
    "CNTN": "Mean(close < Ref(close, 1), {d})",
    "CNTD": "Mean(close > Ref(close, 1), {d}) - Mean(close < Ref(close, 1), {d})",
    "SUMP": "Sum(gains of close, {d}) / (Sum(|changes of close|, {d}) + 1e-12)",
    "SUMN": "Sum(losses of close, {d}) / (Sum(|changes of close|, {d}) + 1e-12)",
    "SUMD": "SUMP{d} - SUMN{d} over the same denominator",
    "VMA": "Mean(volume, {d}) / (volume + 1e-12)",
    "VSTD": "Std(volume, {d}) / (volume + 1e-12)",
    "WVMA": "Std(w, {d}) / (Mean(w, {d}) + 1e-12) with w = |close / Ref(close, 1) - 1| volume",
    "VSUMP": "Sum(gains of volume, {d}) / (Sum(|changes of volume|, {d}) + 1e-12)",
    "VSUMN": "Sum(losses of volume, {d}) / (Sum(|changes of volume|, {d}) + 1e-12)",
    "VSUMD": "VSUMP{d} - VSUMN{d} over the same denominator",
}
"""Formula of each rolling group; `{d}` stands for the window length."""

FORMULAS: Final[dict[str, str]] = {
    **KBAR_FORMULAS,
    **PRICE_FORMULAS,
    **{
        f"{group}{window}": formula.format(d=window)
        for group, formula in ROLLING_FORMULAS.items()
        for window in WINDOWS
    },
}
"""Formula of every column, in the order in which Qlib delivers them."""

NAMES: Final = tuple(FORMULAS)
"""The 158 column names, KMID … VSUMD60."""
