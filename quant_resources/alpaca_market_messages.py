"""Alpaca's market data JSON and what it means, as pure functions on single answers.

What belongs here: bars by symbol into a frame, corporate actions of every kind into one row each, the asset
list. What does not: the network, chunks and clocks (alpaca_bars.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Final

import polars as pl

from quant_resources.bar_source import RAW_BAR_SCHEMA
from quant_resources.errors import SourceError

_LISTED_SYMBOL: Final = re.compile(r"[A-Z0-9]{1,10}([.\-][A-Z0-9]{1,6}){0,2}")
_BAR_FIELDS: Final = {
    "o": "open",
    "h": "high",
    "l": "low",
    "c": "close",
    "v": "volume",
    "vw": "vwap",
    "n": "trade_count",
}
#: Older bars came without these.
_SOMETIMES_LEFT_OUT: Final = {"vw", "n"}
_ACTION_TYPES: Final = {
    "forward_splits": "forward_split",
    "reverse_splits": "reverse_split",
    "unit_splits": "unit_split",
    "cash_dividends": "cash_dividend",
    "stock_dividends": "stock_dividend",
    "spin_offs": "spin_off",
    "cash_mergers": "merger",
    "stock_mergers": "merger",
    "stock_and_cash_mergers": "merger",
    "redemptions": "redemption",
    "name_changes": "name_change",
    "worthless_removals": "worthless_removal",
    "rights_distributions": "rights_distribution",
}
#: Kinds that Alpaca never sends without an ex-date.
_EX_DATED: Final = {
    "forward_splits",
    "reverse_splits",
    "cash_dividends",
    "stock_dividends",
    "spin_offs",
    "rights_distributions",
}
#: Fields that hold an action's ratio (new over old) and cash, by kind; a missing old field counts as one.
_RATIO_FIELDS: Final = {
    "forward_splits": ("new_rate", "old_rate"),
    "reverse_splits": ("new_rate", "old_rate"),
    "unit_splits": ("new_rate", "old_rate"),
    "stock_dividends": ("rate", None),
    "spin_offs": ("new_rate", "source_rate"),
    "stock_mergers": ("acquirer_rate", "acquiree_rate"),
    "stock_and_cash_mergers": ("acquirer_rate", "acquiree_rate"),
    "rights_distributions": ("rate", None),
}
_CASH_FIELDS: Final = {
    "cash_dividends": "rate",
    "cash_mergers": "rate",
    "redemptions": "rate",
    "stock_and_cash_mergers": "cash_rate",
}


def bar_frame(answer: Mapping[str, list[dict[str, Any]]]) -> pl.DataFrame:
    """Alpaca's bars by symbol as one frame.

    Args:
        answer: Symbol to list of bars (`t`, `o`, `h`, `l`, `c`, `v`, `vw`, `n`).

    Returns:
        ``symbol``, ``bar_time`` (UTC) and the values; one of a wrong type is null, as if not sent.

    Raises:
        SourceError: The bars are no table, or a field is in none of them: the format has changed.
    """
    rows = [row for sent in answer.values() for row in sent]
    _check_fields(rows)
    symbols = [symbol for symbol, sent in answer.items() for _ in sent]
    try:
        columns = [
            pl.Series(name, [row.get(field) for row in rows], RAW_BAR_SCHEMA[name], strict=False)
            for field, name in _BAR_FIELDS.items()
        ]
        times = pl.Series("bar_time", [row.get("t") for row in rows], pl.String, strict=False)
    except (AttributeError, TypeError, pl.exceptions.PolarsError) as error:
        raise SourceError(f"Bars came in a shape that is no table: {error}.") from error
    return pl.DataFrame(
        [
            pl.Series("symbol", symbols, pl.String),
            times.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False),
            *columns,
        ]
    )


def _check_fields(rows: list[Any]) -> None:
    if not rows or not all(isinstance(row, dict) for row in rows):
        return
    sent = set().union(*rows)
    missing = sorted({"t", *_BAR_FIELDS} - _SOMETIMES_LEFT_OUT - sent)
    if missing:
        raise SourceError(
            f"None of {len(rows)} bars has the field(s) {', '.join(missing)}; they have "
            f"{', '.join(sorted(sent))}: the source has changed its format, nothing was taken."
        )


def listed_symbols(answer: Iterable[Mapping[str, Any]]) -> list[str]:
    """The symbols of the broker's asset list, active or not, without over-the-counter and malformed ones.

    Returns:
        Unique symbols, ascending.

    Raises:
        SourceError: The list is empty or lacks a field.
    """
    try:
        symbols = {
            asset["symbol"]
            for asset in answer
            if asset.get("exchange") != "OTC" and _LISTED_SYMBOL.fullmatch(asset["symbol"])
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"The broker's asset list cannot be read: {error!r}.") from error
    if not symbols:
        raise SourceError("The broker's asset list is empty; check the trading address.")
    return sorted(symbols)


def action_rows(answer: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Alpaca's corporate actions by kind as rows of one shape.

    Args:
        answer: Kind ("cash_dividends") to list of actions. An unknown kind becomes type "other".

    Returns:
        Rows with ``ex_date``, ``symbol``, ``action_type``, ``ratio`` (shares after per share before),
        ``cash`` (USD per share held), ``new_symbol`` and ``action_id``.

    Raises:
        SourceError: An action lacks what its kind must have.
    """
    return [_action_row(kind, sent) for kind, actions in answer.items() for sent in actions]


def _action_row(kind: str, sent: dict[str, Any]) -> dict[str, Any]:
    try:
        symbol = _text_of(sent, ("symbol", "source_symbol", "acquiree_symbol", "old_symbol"))
        # Where an ex-date belongs, the day it is processed is weeks off and no substitute.
        dates = ("ex_date",) if kind in _EX_DATED else ("ex_date", "effective_date", "process_date")
        ex_date = date.fromisoformat(_text_of(sent, dates))
        ratio, cash = _terms(kind, sent)
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise SourceError(
            f"A corporate action of kind {kind} cannot be read ({error!r}): {sent!r:.200}."
        ) from error
    action_type = _ACTION_TYPES.get(kind, "other")
    return {
        "ex_date": ex_date,
        "symbol": symbol,
        "action_type": action_type,
        "ratio": ratio,
        "cash": cash,
        "new_symbol": sent.get("new_symbol") or sent.get("acquirer_symbol"),
        "action_id": str(sent.get("id") or f"{action_type}:{symbol}:{ex_date}:{ratio}:{cash}"),
    }


def _text_of(sent: Mapping[str, Any], names: Sequence[str]) -> str:
    for name in names:
        if found := sent.get(name):
            if not isinstance(found, str):
                raise TypeError(f"{name} is {found!r}")
            return found
    raise KeyError(names[0])


def _terms(kind: str, sent: dict[str, Any]) -> tuple[float | None, float | None]:
    ratio = cash = None
    if kind in _RATIO_FIELDS:
        new, old = _RATIO_FIELDS[kind]
        ratio = float(sent[new]) / (float(sent[old]) if old else 1.0)
        # Five per cent more shares are 1.05 shares after per share before.
        ratio += 1.0 if kind == "stock_dividends" else 0.0
    if kind in _CASH_FIELDS:
        cash = float(sent[_CASH_FIELDS[kind]])
    if not all(math.isfinite(value) for value in (ratio, cash) if value is not None):
        raise ValueError("a ratio or an amount that is not finite")
    return ratio, cash
