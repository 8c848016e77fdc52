"""What a fault makes of an answer's content: pure functions on decoded JSON.

Rows are the objects inside an answer's lists (bars by symbol, actions by type, orders, fills), or the answer
itself where it has no list. Connections and statuses are in `faulty_wire.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import singledispatch
from random import Random
from typing import Any, Final

from quant_resources.exchange.fault_kinds import (
    ClockSkew,
    ContentFault,
    DuplicateRows,
    EmptyToken,
    LostPage,
    RenameField,
    Reorder,
    SetField,
    WrongSymbol,
)

_TOKEN: Final = "next_page_token"  # noqa: S105 - the name of a field
_SHUFFLE_SEED: Final = 1


@singledispatch
def broken(fault: ContentFault, content: Any) -> Any:
    """An answer with a fault in it; the answer may be changed in place.

    Args:
        fault: What is wrong with it; for `token_loop` see `looping`, for `stale_read` `unseen`, for
            `earlier_state` `earlier_answers.py`.
        content: The decoded JSON.
    """
    raise TypeError(f"{fault.kind} does not change an answer such as {content!r:.40}")


@broken.register
def _empty_token(_: EmptyToken, content: Any) -> Any:
    return _with_token(content, "")


@broken.register
def _lost_page(fault: LostPage, content: Any) -> Any:
    rows = sum(len(found) for found in _lists(content))
    left = _each_list(content, _Head(rows - round(rows * fault.share)))
    return left if fault.leads_on else _with_token(left, None)


@broken.register
def _rename_field(fault: RenameField, content: Any) -> Any:
    for row in [*_rows(content), *_itself(content)]:
        if fault.field in row:
            row[fault.to] = row.pop(fault.field)
    return content


@broken.register
def _set_field(fault: SetField, content: Any) -> Any:
    for row in list(_rows(content))[: fault.rows] + _itself(content):
        if fault.field in row:
            row[fault.field] = fault.value
    return content


@broken.register
def _wrong_symbol(fault: WrongSymbol, content: Any) -> Any:
    return _renamed(content, fault.symbol, fault.to)


@broken.register
def _duplicate_rows(fault: DuplicateRows, content: Any) -> Any:
    def twice(rows: list[Any]) -> list[Any]:
        count = len(rows) if fault.rows is None else fault.rows
        return [row for row in rows[:count] for _ in range(2)] + rows[count:]

    return _each_list(content, twice)


@broken.register
def _reorder(fault: Reorder, content: Any) -> Any:
    if fault.how == "reversed":
        return _each_list(content, lambda rows: rows[::-1])
    return _each_list(content, lambda rows: Random(_SHUFFLE_SEED).sample(rows, len(rows)))  # noqa: S311 - no secret


@broken.register
def _clock_skew(fault: ClockSkew, content: Any) -> Any:
    for answer in _itself(content):
        if "timestamp" in answer:
            told = datetime.fromisoformat(answer["timestamp"])
            answer["timestamp"] = (told + timedelta(seconds=fault.seconds)).isoformat()
    return content


def looping(content: Any, asked_token: str | None) -> Any:
    """An answer whose page token is the one that was asked with."""
    own = content.get(_TOKEN) if isinstance(content, dict) else None
    return _with_token(content, asked_token or own or "again")


def unseen(content: Any, hidden: set[str]) -> Any:
    """An answer from before the orders with these ids (either id); None if it is about one of them."""
    if isinstance(content, list):
        return [row for row in content if unseen(row, hidden) is not None]
    if isinstance(content, dict):
        # An activity's own id is no order's; its order is named beside it.
        names = ("order_id",) if "order_id" in content else ("id", "client_order_id")
        return None if hidden & {content.get(name) for name in names} else content
    return content


class _Head:
    """Keeps the first rows over all lists that it is called with."""

    def __init__(self, count: int) -> None:
        self._left = count

    def __call__(self, rows: list[Any]) -> list[Any]:
        kept = rows[: self._left]
        self._left -= len(kept)
        return kept


def _lists(content: Any) -> Iterator[list[Any]]:
    if isinstance(content, list):
        yield content
    elif isinstance(content, dict):
        for value in content.values():
            yield from _lists(value)


def _rows(content: Any) -> Iterator[dict[str, Any]]:
    lists = list(_lists(content))
    for rows in lists:
        yield from (row for row in rows if isinstance(row, dict))
    if not lists:
        yield from _itself(content)


def _itself(content: Any) -> list[dict[str, Any]]:
    return [content] if isinstance(content, dict) else []


def _each_list(content: Any, change: Callable[[list[Any]], list[Any]]) -> Any:
    """The answer with its lists changed; a name whose list has become empty goes with it."""
    if isinstance(content, list):
        return change(content)
    if isinstance(content, dict):
        changed = {name: _each_list(value, change) for name, value in content.items()}
        return {name: value for name, value in changed.items() if value != [] or not content[name]}
    return content


def _renamed(content: Any, symbol: str, to: str) -> Any:
    if isinstance(content, list):
        return [_renamed(value, symbol, to) for value in content]
    if isinstance(content, dict):
        changed: dict[str, Any] = {}
        for name, value in content.items():
            new, inside = to if name == symbol else name, _renamed(value, symbol, to)
            both = isinstance(changed.get(new), list) and isinstance(inside, list)
            changed[new] = changed[new] + inside if both else inside
        return changed
    return to if content == symbol else content


def _with_token(content: Any, token: str | None) -> Any:
    return {**content, _TOKEN: token} if isinstance(content, dict) else content
