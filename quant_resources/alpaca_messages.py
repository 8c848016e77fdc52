"""Alpaca's JSON and what it means: answers into value types, orders into request fields, errors into proof.

Belongs here: pure functions on single messages. Does not belong here: the network
(`alpaca_connection.py`) and the rules of orders (`order_rules.py`); nothing is rounded here. A message
that lacks a field raises KeyError, TypeError or ValueError; the adapter turns those into `AmbiguousError`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, Literal

from alpaca.common.exceptions import APIError

from quant_resources.broker import (
    Account,
    AccountActivity,
    AmbiguousError,
    Asset,
    BrokerClock,
    BrokerOrder,
    BrokerPosition,
    Dividend,
    DuplicateIdError,
    Execution,
    LatestPrice,
    OrderRequest,
    Quote,
    RateLimitedError,
    RejectedError,
    Side,
    Split,
    TradingHours,
    UnauthorizedError,
)
from quant_resources.calendar import NEW_YORK
from quant_resources.errors import BrokerError

# The request was understood and refused for cause.
_REFUSALS: Final = frozenset({400, 403, 404, 422})
_EXECUTION_KINDS: Final[Mapping[str, Literal["fill", "bust", "correct"]]] = {
    "fill": "fill",
    "partial_fill": "fill",
    "trade_bust": "bust",
    "trade_correct": "correct",
}


def meaning(error: APIError, what: str) -> BrokerError:
    """What an error answer to `what` proves about the request."""
    status = error.status_code or 0
    text = str(error)
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if status == 429:
        return RateLimitedError(f"Could not {what}: too many requests.")
    if status == 401:
        return UnauthorizedError(
            f"Could not {what}: the broker refuses the keys; correct ALPACA_API_KEY and "
            "ALPACA_SECRET_KEY."
        )
    if not isinstance(body, dict) or status not in _REFUSALS:
        return AmbiguousError(f"Could not {what}: the broker answered {status} ({text[:200]!r}).")
    reason = str(body.get("message", text))[:500]
    if status == 422 and "client_order_id" in reason and "unique" in reason:
        return DuplicateIdError(f"Could not {what}: the broker knows this id already.")
    return RejectedError(f"Could not {what}: {reason}.", reason, status, body)


def order_fields(request: OrderRequest) -> dict[str, Any]:
    """The order as Alpaca's JSON, every number as the decimal text of exactly what was frozen."""
    fields: dict[str, Any] = {
        "symbol": request.symbol,
        "side": request.side,
        "type": request.order_type,
        "time_in_force": request.time_in_force,
        "client_order_id": request.client_order_id,
    }
    for name, number in (
        ("qty", request.quantity),
        ("notional", request.notional),
        ("limit_price", request.limit_price),
        ("stop_price", request.stop_price),
    ):
        if number is not None:
            fields[name] = _text(number)
    if request.take_profit_price is not None and request.stop_loss_price is not None:
        fields["order_class"] = "bracket"
        fields["take_profit"] = {"limit_price": _text(request.take_profit_price)}
        fields["stop_loss"] = {"stop_price": _text(request.stop_loss_price)}
    return fields


def _text(number: Decimal) -> str:
    return f"{number.normalize():f}"


def parse_decimal(value: Any) -> Decimal:
    """A number of the wire, as text or JSON number, exactly; ValueError when it is not finite."""
    number = Decimal(str(value))
    if not number.is_finite():
        raise ValueError(f"{value!r} is no finite number")
    return number


def _optional(value: Any) -> Decimal | None:
    return None if value in (None, "") else parse_decimal(value)


def parse_time(value: str) -> datetime:
    """An RFC 3339 time as aware UTC; ValueError without a zone."""
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    return moment.astimezone(UTC)


def _side(value: str) -> Side:
    if value == "buy":
        return "buy"
    if value in ("sell", "sell_short"):
        return "sell"
    raise ValueError(f"{value!r} is no side")


def clock(raw: Mapping[str, Any]) -> BrokerClock:
    """The broker's time."""
    return BrokerClock(
        now=parse_time(raw["timestamp"]),
        is_open=bool(raw["is_open"]),
        next_open=parse_time(raw["next_open"]),
        next_close=parse_time(raw["next_close"]),
    )


def trading_hours(row: Mapping[str, Any]) -> TradingHours:
    """A row of the calendar; its hours are New York wall-clock times."""
    session = date.fromisoformat(row["date"])

    def at(text: str) -> datetime:
        local = datetime.strptime(text, "%H:%M").time()  # noqa: DTZ007 - combined with a zone below
        return datetime.combine(session, local, NEW_YORK).astimezone(UTC)

    return TradingHours(session, at(row["open"]), at(row["close"]))


def account(raw: Mapping[str, Any]) -> Account:
    """The account; every kind of block counts as blocked."""
    return Account(
        account_id=str(raw["id"]),
        account_number=str(raw["account_number"]),
        equity=parse_decimal(raw["equity"]),
        cash=parse_decimal(raw["cash"]),
        buying_power=parse_decimal(raw["buying_power"]),
        long_value=parse_decimal(raw["long_market_value"]),
        short_value=parse_decimal(raw["short_market_value"]),
        previous_equity=_optional(raw.get("last_equity")),
        blocked=bool(
            raw.get("trading_blocked")
            or raw.get("account_blocked")
            or raw.get("trade_suspended_by_user")
        ),
        shorting_enabled=bool(raw.get("shorting_enabled", True)),
        raw=raw,
    )


def position(raw: Mapping[str, Any]) -> BrokerPosition:
    """A holding, signed by its side."""
    size = abs(parse_decimal(raw["qty"]))
    quantity = -size if raw["side"] == "short" else size
    price = _optional(raw.get("current_price")) or parse_decimal(raw["avg_entry_price"])
    value = _optional(raw.get("market_value"))
    return BrokerPosition(
        symbol=raw["symbol"],
        quantity=quantity,
        average_price=parse_decimal(raw["avg_entry_price"]),
        market_price=price,
        market_value=quantity * price if value is None else value,
        raw=raw,
    )


def order(raw: Mapping[str, Any], parent_order_id: str | None = None) -> BrokerOrder:
    """An order, without its legs; its average price is None until something has filled.

    Args:
        raw: The message.
        parent_order_id: The order under whose `legs` it came.
    """
    filled = _optional(raw.get("filled_qty")) or Decimal(0)
    average = _optional(raw.get("filled_avg_price"))
    submitted = parse_time(raw["submitted_at"])
    quantity, notional = _optional(raw.get("qty")), _optional(raw.get("notional"))
    if quantity is None and notional is None:
        raise ValueError("an order has neither a quantity nor a notional")
    return BrokerOrder(
        broker_order_id=str(raw["id"]),
        client_order_id=str(raw["client_order_id"]),
        symbol=raw["symbol"],
        side=_side(raw["side"]),
        quantity=quantity,
        order_type=raw["type"],
        filled_quantity=filled,
        average_fill_price=average if filled else None,
        status=str(raw["status"]),
        submitted_at=submitted,
        updated_at=parse_time(raw["updated_at"]) if raw.get("updated_at") else submitted,
        raw=raw,
        notional=notional,
        time_in_force=str(raw.get("time_in_force") or "day"),
        limit_price=_optional(raw.get("limit_price")),
        stop_price=_optional(raw.get("stop_price")),
        order_class=str(raw.get("order_class") or "simple"),
        parent_order_id=parent_order_id,
        replaces=raw.get("replaces") or None,
        replaced_by=raw.get("replaced_by") or None,
    )


def order_with_legs(raw: Mapping[str, Any]) -> list[BrokerOrder]:
    """An order as a nested list shows it: itself first, then its legs, which know their parent."""
    parent = order(raw)
    return [parent, *(order(leg, parent.broker_order_id) for leg in raw.get("legs") or ())]


def execution(raw: Mapping[str, Any]) -> Execution:
    """A FILL activity: a fill, or a bust or correction of an earlier one."""
    kind = _EXECUTION_KINDS.get(str(raw.get("type") or "fill"))
    if kind is None:
        raise ValueError(f"{raw.get('type')!r} is no known kind of execution")
    return Execution(
        execution_id=str(raw["id"]),
        broker_order_id=str(raw["order_id"]),
        symbol=raw["symbol"],
        side=_side(raw["side"]),
        quantity=parse_decimal(raw["qty"]),
        price=parse_decimal(raw["price"]),
        filled_at=parse_time(raw["transaction_time"]),
        raw=raw,
        kind=kind,
        corrects=None if kind == "fill" else str(raw["previous_execution_id"]),
    )


def quote(symbol: str, raw: Mapping[str, Any]) -> Quote:
    """The best bid and offer; a side without an offer is zero."""
    return Quote(symbol, parse_decimal(raw["bp"]), parse_decimal(raw["ap"]), parse_time(raw["t"]))


def activity(raw: Mapping[str, Any]) -> AccountActivity | None:
    """An activity other than a fill; None for a fill, which `execution` reads."""
    if raw["activity_type"] == "FILL":
        return None
    return AccountActivity(
        activity_id=str(raw["id"]),
        activity_type=str(raw["activity_type"]),
        activity_date=date.fromisoformat(str(raw["date"])[:10]),
        symbol=raw.get("symbol") or None,
        quantity=_optional(raw.get("qty")),
        net_amount=_optional(raw.get("net_amount")) or Decimal(0),
        description=str(raw.get("description") or ""),
        raw=raw,
    )


def asset(raw: Mapping[str, Any]) -> Asset:
    """An asset; what is hard to borrow counts as not shortable."""
    return Asset(
        symbol=raw["symbol"],
        tradable=bool(raw["tradable"]) and raw["status"] == "active",
        shortable=bool(raw["shortable"]) and bool(raw.get("easy_to_borrow", True)),
        fractionable=bool(raw["fractionable"]),
        active=raw["status"] == "active",
    )


def latest_price(symbol: str, raw: Mapping[str, Any]) -> LatestPrice:
    """The last trade of a symbol."""
    return LatestPrice(symbol, parse_decimal(raw["p"]), parse_time(raw["t"]))


def closes(raw: Mapping[str, Any]) -> list[LatestPrice]:
    """The close of every bar of a page."""
    return [
        LatestPrice(symbol, parse_decimal(bar["c"]), parse_time(bar["t"]))
        for symbol, bars in raw["bars"].items()
        for bar in bars
    ]


def is_suspended(raw: Mapping[str, Any]) -> bool:
    """Whether the account's switch `suspend_trade` is set."""
    switch = raw["suspend_trade"]
    if not isinstance(switch, bool):
        raise TypeError(f"suspend_trade is {switch!r}, neither true nor false")
    return switch


def splits(raw: Mapping[str, Any]) -> list[Split]:
    """Every split and stock dividend of a page of corporate actions."""
    actions = raw.get("corporate_actions") or {}
    found: list[Split] = []
    for kind in ("forward_splits", "reverse_splits"):
        for row in actions.get(kind) or ():
            ratio = parse_decimal(row["new_rate"]) / parse_decimal(row["old_rate"])
            found.append(Split(row["symbol"], date.fromisoformat(row["ex_date"]), ratio))
    for row in actions.get("stock_dividends") or ():
        ratio = 1 + parse_decimal(row["rate"])
        found.append(Split(row["symbol"], date.fromisoformat(row["ex_date"]), ratio))
    return found


def dividends(raw: Mapping[str, Any]) -> list[Dividend]:
    """Every cash dividend of a page of corporate actions."""
    actions = raw.get("corporate_actions") or {}
    return [
        Dividend(row["symbol"], date.fromisoformat(row["ex_date"]), parse_decimal(row["rate"]))
        for row in actions.get("cash_dividends") or ()
    ]
