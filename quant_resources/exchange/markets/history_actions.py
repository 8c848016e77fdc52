"""Corporate actions of a recorded history, in either of two forms.

Form 1, terms: symbol, ex_date, action_type (or kind) with a name of `ACTION_TYPES`, ratio (new shares
for one old; a stock dividend of 5 % is 1.05; for a spin-off, new shares for one held) and/or cash (USD
a share), new_symbol where there is one.

Form 2, price factors: symbol, ex_date, adj_factor (price after / price before, CRSP convention) and
optionally kind, implied_cash, prev_close_raw, price_consistent. A row of kind "dividend" is a cash
dividend. Any other whose factor is within 0.5 % of a common split (n:1, 3:2, 5:2, 5:4 or 1:n) is that
split. What is left is a distribution in kind of unknown terms; it is served as a special cash dividend
of the same value, prev_close_raw * (1 - adj_factor), which gives the same adjustment and the same
wealth.

Rows are served as they are. Holders get nothing from a row with price_consistent = false, or from a
dividend that is not positive.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from fractions import Fraction
from math import isfinite
from pathlib import Path
from typing import Any

import polars as pl

from quant_resources.errors import DataError
from quant_resources.exchange.markets.market import (
    ACTION_TYPES,
    SYMBOL_PATTERN,
    CorporateAction,
)

ACTION_COLUMNS = frozenset({"symbol", "ex_date"})
_SPLITS = (
    *(Fraction(n) for n in range(2, 31)),
    Fraction(3, 2),
    Fraction(5, 2),
    Fraction(5, 4),
    *(Fraction(1, n) for n in range(2, 51)),
)
_SNAP = 0.005
_NEEDS = {
    "forward_split": "ratio",
    "reverse_split": "ratio",
    "stock_dividend": "ratio",
    "spin_off": "ratio",
    "cash_dividend": "cash",
    "cash_merger": "cash",
    "name_change": "new_symbol",
}
_ALIASES = {"dividend": "cash_dividend", "merger": "cash_merger"}


def read_actions(path: Path) -> tuple[CorporateAction, ...]:
    """Read a file of corporate actions, sorted by ex-date and symbol.

    Raises:
        DataError: The file has neither form, or a row cannot be understood.
    """
    frame = (
        pl.read_parquet(path)
        if path.suffix == ".parquet"
        else pl.read_csv(path, infer_schema_length=None)
    )
    by_terms = {"action_type", "ratio", "cash"} & set(frame.columns)
    if "adj_factor" not in frame.columns and not by_terms:
        raise DataError(
            f"{path} lacks the columns action_type, ratio and cash (or adj_factor); it cannot be read "
            "as corporate actions."
        )
    read = _from_factor if "adj_factor" in frame.columns else _from_terms
    actions = []
    for number, row in enumerate(frame.iter_rows(named=True), start=1):
        place = f"{path}, row {number} ({row['symbol']}, {row['ex_date']})"
        row["ex_date"] = _day(row["ex_date"], place)
        if not SYMBOL_PATTERN.fullmatch(str(row["symbol"])):
            raise DataError(f"{place}: {row['symbol']!r} is no symbol.")
        actions.append(read(row, place))
    return tuple(sorted(actions, key=lambda action: (action.ex_date, action.symbol)))


def _from_terms(row: dict[str, Any], place: str) -> CorporateAction:
    kind = str(row.get("action_type") or row.get("kind") or "")
    kind = _ALIASES.get(kind, kind)
    if kind == "split":
        kind = "forward_split" if (row.get("ratio") or 0) >= 1 else "reverse_split"
    if kind not in ACTION_TYPES:
        raise DataError(
            f"{place}: {kind!r} is no corporate action known here; use one of "
            f"{', '.join(ACTION_TYPES)}."
        )
    needed = _NEEDS[kind]
    if row.get(needed) is None or (kind == "spin_off" and row.get("new_symbol") is None):
        raise DataError(f"{place}: a {kind} needs {needed}.")
    cash = _number(row.get("cash"), place)
    ratio = _number(row.get("ratio"), place)
    if ratio is not None and ratio <= 0:
        raise DataError(f"{place}: the ratio is {ratio}; it must be positive.")
    return CorporateAction(
        kind,
        row["symbol"],
        row["ex_date"],
        ratio=Fraction(ratio).limit_denominator(10_000) if ratio is not None else None,
        cash=_money(cash) if cash is not None else None,
        new_symbol=row.get("new_symbol"),
        special=bool(row.get("special")),
        applies=cash is None or cash > 0,
    )


def _from_factor(row: dict[str, Any], place: str) -> CorporateAction:
    factor = _number(row["adj_factor"], place)
    if factor is None or factor <= 0:
        raise DataError(f"{place}: adj_factor is {factor}; it must be positive.")
    consistent = row.get("price_consistent") is not False
    symbol, ex_date = row["symbol"], row["ex_date"]
    if row.get("kind") not in {"dividend", "cash_dividend"}:
        split = min(_SPLITS, key=lambda ratio: abs(factor * float(ratio) - 1))
        if abs(factor * float(split) - 1) <= _SNAP:
            kind = "forward_split" if split > 1 else "reverse_split"
            return CorporateAction(kind, symbol, ex_date, ratio=split, applies=consistent)
        special = True
    else:
        special = False
    cash, before = (_number(row.get(name), place) for name in ("implied_cash", "prev_close_raw"))
    if cash is None or special:
        if before is None:
            raise DataError(f"{place}: a dividend by factor needs prev_close_raw or implied_cash.")
        cash = before * (1 - factor)
    return CorporateAction(
        "cash_dividend",
        symbol,
        ex_date,
        cash=_money(cash),
        special=special,
        applies=consistent and cash > 0,
    )


def _day(value: object, place: str) -> date:
    if isinstance(value, date):
        return date(value.year, value.month, value.day)
    try:
        return date.fromisoformat(str(value)[:10])
    except ValueError:
        raise DataError(f"{place}: {value!r} is no date; write YYYY-MM-DD.") from None


def _number(value: object, place: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(str(value))
    except ValueError:
        raise DataError(f"{place}: {value!r} is no number.") from None
    return number if isfinite(number) else None


def _money(value: float) -> Decimal:
    return Decimal(repr(round(value, 6)))
