"""Alpaca's JSON and what it means: answers into value types, orders into request fields, errors into proof.

Belongs here: pure functions on single messages, with Alpaca's rounding rules. Does not belong here: the
network (`alpaca_broker.py`). A message that lacks a field raises KeyError, TypeError or ValueError; the
adapter turns those into `AmbiguousError`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

from alpaca.common.exceptions import APIError

from quant_resources.broker import (
    Account,
    AccountActivity,
    AmbiguousError,
    Asset,
    BrokerOrder,
    BrokerPosition,
    DuplicateIdError,
    Execution,
    OrderRequest,
    RateLimitedError,
    RejectedError,
    Side,
    Split,
    TradingHours,
    UnauthorizedError,
)
from quant_resources.calendar import NEW_YORK
from quant_resources.errors import BrokerError

_QUANTITY_DECIMALS: Final = Decimal("1e-9")
# The request was understood and refused for cause.
_REFUSALS: Final = frozenset({400, 403, 404, 422})


def round_quantity(quantity: Decimal) -> Decimal:
    """Quantity at the nine decimals that Alpaca keeps, towards zero: never more than was decided."""
    return quantity.quantize(_QUANTITY_DECIMALS, rounding="ROUND_DOWN")


def round_price(price: Decimal) -> Decimal:
    """Price at Alpaca's increment: cents from one dollar on, hundredths of a cent below.

    Source: Alpaca, "Sub-penny increments for limit orders" (SEC rule 612).
    """
    increment = Decimal("0.01") if price >= 1 else Decimal("0.0001")
    return price.quantize(increment, rounding=ROUND_HALF_EVEN)


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
    """The order as Alpaca's JSON, every number as a decimal string."""
    if not 1 <= len(request.client_order_id) <= 128:
        raise BrokerError(
            f"A client_order_id has 1 to 128 characters, this one {len(request.client_order_id)}."
        )
    quantity = round_quantity(request.quantity)
    if not quantity.is_finite() or quantity <= 0:
        raise BrokerError(
            f"Order {request.client_order_id} ({request.symbol}) has the quantity "
            f"{request.quantity}; only positive quantities are sent."
        )
    fields: dict[str, Any] = {
        "symbol": request.symbol,
        "qty": _text(quantity),
        "side": request.side,
        "type": request.order_type,
        "time_in_force": request.time_in_force,
        "client_order_id": request.client_order_id,
    }
    for name, price in (("limit_price", request.limit_price), ("stop_price", request.stop_price)):
        if price is not None:
            fields[name] = _text(round_price(price))
    if request.take_profit_price is not None and request.stop_loss_price is not None:
        fields["order_class"] = "bracket"
        fields["take_profit"] = {"limit_price": _text(round_price(request.take_profit_price))}
        fields["stop_loss"] = {"stop_price": _text(round_price(request.stop_loss_price))}
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


def order(raw: Mapping[str, Any]) -> BrokerOrder:
    """An order; its average price is None until something has filled."""
    filled = _optional(raw.get("filled_qty")) or Decimal(0)
    average = _optional(raw.get("filled_avg_price"))
    submitted = parse_time(raw["submitted_at"])
    return BrokerOrder(
        broker_order_id=str(raw["id"]),
        client_order_id=str(raw["client_order_id"]),
        symbol=raw["symbol"],
        side=_side(raw["side"]),
        quantity=parse_decimal(raw["qty"]),
        order_type=raw["type"],
        filled_quantity=filled,
        average_fill_price=average if filled else None,
        status=str(raw["status"]),
        submitted_at=submitted,
        updated_at=parse_time(raw["updated_at"]) if raw.get("updated_at") else submitted,
        raw=raw,
    )


def execution(raw: Mapping[str, Any]) -> Execution:
    """A FILL activity."""
    return Execution(
        execution_id=str(raw["id"]),
        broker_order_id=str(raw["order_id"]),
        symbol=raw["symbol"],
        side=_side(raw["side"]),
        quantity=parse_decimal(raw["qty"]),
        price=parse_decimal(raw["price"]),
        filled_at=parse_time(raw["transaction_time"]),
        raw=raw,
    )


def activity(raw: Mapping[str, Any]) -> AccountActivity:
    """A non-trade activity."""
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


def splits(raw: Mapping[str, Any]) -> Iterator[Split]:
    """Every split and stock dividend of a page of corporate actions."""
    actions = raw.get("corporate_actions") or {}
    for kind in ("forward_splits", "reverse_splits"):
        for row in actions.get(kind) or ():
            ratio = parse_decimal(row["new_rate"]) / parse_decimal(row["old_rate"])
            yield Split(row["symbol"], date.fromisoformat(row["ex_date"]), ratio)
    for row in actions.get("stock_dividends") or ():
        yield Split(
            row["symbol"], date.fromisoformat(row["ex_date"]), 1 + parse_decimal(row["rate"])
        )
