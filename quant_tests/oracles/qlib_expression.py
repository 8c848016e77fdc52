"""A slow, obvious reader of Qlib's formulas, for one security without missing values.

So that a documented formula can be computed and compared with what the platform computes. Every
operator is written from its definition over one plain window; the last session's value is given.
"""

import ast
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]


def last_value(formula: str, bars: Mapping[str, Series]) -> float:
    """The value of a formula at the last session.

    Args:
        formula: Such as `Std($close, 20)/$close`.
        bars: open, high, low, close, volume and vwap, oldest first.
    """
    tree = ast.parse(formula.replace("$", ""), mode="eval").body
    return float(np.atleast_1d(_value(tree, bars))[-1])


def _value(node: ast.expr, bars: Mapping[str, Series]) -> Series | float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return bars[name]
        case ast.BinOp(left=left, op=operator, right=right):
            return _ARITHMETIC[type(operator)](_value(left, bars), _value(right, bars))
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            first, second = _value(left, bars), _value(right, bars)
            larger = first > second if isinstance(operator, ast.Gt) else first < second
            return np.asarray(larger, dtype=float)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _OPERATORS[name](*(_value(argument, bars) for argument in arguments))
    raise ValueError(f"{ast.dump(node)} is not part of Qlib's formulas.")


_ARITHMETIC: dict[type[ast.operator], Callable] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
}


def _earlier(series: Series, count: float) -> Series:
    shifted = np.full(len(series), np.nan)
    shifted[int(count) :] = series[: -int(count)]
    return shifted


def _line(series: Series, days: float) -> tuple[float, float, Series]:
    closes = series[-int(days) :]
    places = np.arange(1, len(closes) + 1)
    slope, intercept = np.polyfit(places, closes, 1)
    return slope, np.corrcoef(places, closes)[0, 1] ** 2, closes - slope * places - intercept


def _rank(series: Series, days: float) -> float:
    window = series[-int(days) :]
    return float((np.sum(window < window[-1]) + np.sum(window <= window[-1]) + 1) / 2 / len(window))


_OPERATORS: dict[str, Callable] = {
    "Ref": _earlier,
    "Greater": np.maximum,
    "Less": np.minimum,
    "Abs": np.abs,
    "Log": np.log,
    "Mean": lambda x, d: np.mean(x[-int(d) :]),
    "Sum": lambda x, d: np.sum(x[-int(d) :]),
    "Std": lambda x, d: np.std(x[-int(d) :], ddof=1),
    "Max": lambda x, d: np.max(x[-int(d) :]),
    "Min": lambda x, d: np.min(x[-int(d) :]),
    "Quantile": lambda x, d, level: np.quantile(x[-int(d) :], level),
    "Rank": _rank,
    "IdxMax": lambda x, d: np.argmax(x[-int(d) :]) + 1,
    "IdxMin": lambda x, d: np.argmin(x[-int(d) :]) + 1,
    "Slope": lambda x, d: _line(x, d)[0],
    "Rsquare": lambda x, d: _line(x, d)[1],
    "Resi": lambda x, d: _line(x, d)[2][-1],
    "Corr": lambda x, y, d: np.corrcoef(x[-int(d) :], y[-int(d) :])[0, 1],
}
