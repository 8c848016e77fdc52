"""The broker's rules for an order, checked before it is frozen and once more before it is sent. Pure.

Belongs here: what can be seen of an order (and its asset) alone, with the increments of prices, quantities
and dollars. Does not belong here: rules of ours (limits), and what depends on the account.

Sources: Alpaca, "Orders at Alpaca", "Fractional trading" and the answers of its orders API; SEC rule 612
for the increments of prices. What Alpaca would only refuse is refused here, so that a wrong order never
leaves; what Alpaca would silently change (rounding) is refused as well, because then what is sent would
not be what was frozen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from typing import Final

from quant_resources.broker import Asset, OrderRequest
from quant_resources.calendar import NEW_YORK, XNYS

LONGEST_ID: Final = 128
QUANTITY_INCREMENT: Final = Decimal("1e-9")
NOTIONAL_INCREMENT: Final = Decimal("0.01")
#: More shares than any order has: a number beyond it is a mistake (or does not fit the ledger).
LARGEST_QUANTITY: Final = Decimal(1_000_000_000)
LARGEST_NOTIONAL: Final = Decimal(1_000_000_000)
LARGEST_PRICE: Final = Decimal(10_000_000)
#: Distance that the legs of a bracket must keep from the entry's limit and from each other, USD.
LEG_DISTANCE: Final = Decimal("0.01")
#: A ticker as exchanges write it: BRK.B, BF-A; nothing that a path or a query would read differently.
SYMBOL_PATTERN: Final = re.compile(r"[A-Z0-9]{1,10}([.\-][A-Z0-9]{1,6}){0,2}", re.ASCII)

_AUCTIONS: Final = ("opg", "cls")
#: Orders for an auction are taken until so long before it, and again from the evening on.
_BEFORE_OPEN: Final = timedelta(minutes=2)
_BEFORE_CLOSE: Final = timedelta(minutes=10)
_EVENING: Final = time(19)


def is_symbol(text: str) -> bool:
    """Whether a text can be a ticker at all."""
    return SYMBOL_PATTERN.fullmatch(text) is not None


def price_increment(price: Decimal) -> Decimal:
    """Cents from one dollar on, hundredths of a cent below."""
    return Decimal("0.01") if price >= 1 else Decimal("0.0001")


def round_price(price: Decimal) -> Decimal:
    """Price at its increment, never zero; halves go to the even neighbour."""
    increment = price_increment(price)
    return max(price.quantize(increment, rounding=ROUND_HALF_EVEN), increment)


def round_quantity(quantity: Decimal) -> Decimal:
    """Quantity at the nine decimals that Alpaca keeps, towards zero: never more than was decided."""
    return quantity.quantize(QUANTITY_INCREMENT, rounding=ROUND_DOWN)


def round_notional(notional: Decimal) -> Decimal:
    """Dollars in whole cents, towards zero."""
    return notional.quantize(NOTIONAL_INCREMENT, rounding=ROUND_DOWN)


def auction_cutoff(time_in_force: str, session: date) -> datetime | None:
    """Until when orders for an auction of a session are taken, UTC; None for other times in force."""
    if time_in_force not in _AUCTIONS or not XNYS.is_session(session):
        return None
    if time_in_force == "opg":
        return XNYS.open(session) - _BEFORE_OPEN
    return XNYS.close(session) - _BEFORE_CLOSE


def breaches(
    request: OrderRequest,
    asset: Asset | None = None,
    *,
    opens: bool | None = None,
    price: Decimal | None = None,
    now: datetime | None = None,
) -> list[str]:
    """Every rule of the broker that an order breaks.

    Args:
        request: The order.
        asset: What the broker lets one do with its symbol; None where that is not known here.
        opens: Whether it opens or enlarges a position; None where that is not known here.
        price: What the symbol costs, USD, for stops and for brackets that enter at the market; None where
            that is not known here.
        now: The broker's time, for the hours of auctions; None where it is not known here.

    Returns:
        One sentence per broken rule, without the symbol; empty when the order may be sent.
    """
    return [
        *_identity(request),
        *_amount(request, asset, opens),
        *_prices(request),
        *_reached(request, price),
        *_bracket(request, price),
        *_auction(request, now),
    ]


def _identity(request: OrderRequest) -> Iterator[str]:
    if not 1 <= len(request.client_order_id) <= LONGEST_ID:
        yield (
            f"a client order id has 1 to {LONGEST_ID} characters, this one "
            f"{len(request.client_order_id)}"
        )
    if not (request.client_order_id.isascii() and request.client_order_id.isprintable()):
        yield "a client order id has printable ASCII characters only"
    if not is_symbol(request.symbol):
        yield f"{request.symbol[:40]!r} is no symbol"
    for what, value, known in (
        ("side", request.side, ("buy", "sell")),
        ("order type", request.order_type, ("market", "limit", "stop", "stop_limit")),
        ("time in force", request.time_in_force, ("day", "gtc", "opg", "cls")),
    ):
        if value not in known:
            yield f"the {what} {value!r:.40} is not offered ({', '.join(known)} are)"


def _amount(request: OrderRequest, asset: Asset | None, opens: bool | None) -> Iterator[str]:
    quantity, notional = request.quantity, request.notional
    if (quantity is None) == (notional is None):
        yield "exactly one of quantity and notional is given"
        return
    if quantity is not None:
        yield from _number("quantity", quantity, QUANTITY_INCREMENT, LARGEST_QUANTITY)
        if not quantity.is_finite() or quantity == quantity.to_integral_value():
            return
    if notional is not None:
        yield from _number("notional", notional, NOTIONAL_INCREMENT, LARGEST_NOTIONAL)
        if notional.is_finite() and 0 < notional < 1:
            yield "a notional order is for one dollar at least"
        if request.order_type not in ("market", "limit"):
            yield "notional orders are market or limit orders"
    # From here on it is for a fraction of a share, or may come to one.
    if request.time_in_force != "day":
        yield "fractional and notional orders are for the day"
    if request.is_bracket:
        yield "brackets are for whole shares"
    if request.side == "sell" and opens:
        yield "short sales are for whole shares"
    # What a corporate action left as a fraction may always be closed.
    if asset is not None and not asset.fractionable and opens is not False:
        yield "it trades in whole shares only"


def _number(what: str, value: Decimal, increment: Decimal, largest: Decimal) -> Iterator[str]:
    if not value.is_finite():
        yield f"the {what} {value} is no finite number"
    elif value <= 0:
        yield f"the {what} {_plain(value)} is not positive"
    elif value >= largest:
        yield f"the {what} {value:.6g} is absurd (below {largest:,} is taken)"
    elif value % increment:
        yield f"the {what} {_plain(value)} has more decimals than {increment:f}"


def _prices(request: OrderRequest) -> Iterator[str]:
    needs_limit = request.order_type in ("limit", "stop_limit")
    needs_stop = request.order_type in ("stop", "stop_limit")
    for what, price, needed in (
        ("limit price", request.limit_price, needs_limit),
        ("stop price", request.stop_price, needs_stop),
        ("take profit price", request.take_profit_price, None),
        ("stop loss price", request.stop_loss_price, None),
    ):
        if price is not None:
            increment = price_increment(price) if price.is_finite() else NOTIONAL_INCREMENT
            yield from _number(what, price, increment, LARGEST_PRICE)
        if needed is not None and needed != (price is not None):
            has = "needs a" if needed else "has no"
            yield f"a {request.order_type} order {has} {what}"


def _reached(request: OrderRequest, price: Decimal | None) -> Iterator[str]:
    stop = request.stop_price
    if price is None or stop is None or not stop.is_finite():
        return
    if request.side == "buy" and stop <= price:
        yield f"the stop {_plain(stop)} of a buy is not above the price {_plain(price)}"
    if request.side == "sell" and stop >= price:
        yield f"the stop {_plain(stop)} of a sell is not below the price {_plain(price)}"


def _bracket(request: OrderRequest, price: Decimal | None) -> Iterator[str]:
    profit, loss = request.take_profit_price, request.stop_loss_price
    if profit is None and loss is None:
        return
    if profit is None or loss is None:
        yield "a bracket has a take profit and a stop loss price"
        return
    if request.time_in_force not in ("day", "gtc"):
        yield "brackets are day or gtc orders"
    if request.order_type not in ("market", "limit"):
        yield "the entry of a bracket is a market or a limit order"
    entry = price if request.limit_price is None else request.limit_price
    if not (profit.is_finite() and loss.is_finite() and (entry is None or entry.is_finite())):
        return
    sign, higher, lower = (1, "above", "below") if request.side == "buy" else (-1, "below", "above")
    if entry is None:
        if (profit - loss) * sign < LEG_DISTANCE:
            yield f"the take profit {profit} is not {LEG_DISTANCE} {higher} the stop loss {loss}"
        return
    if (profit - entry) * sign < LEG_DISTANCE:
        yield f"the take profit {profit} is not {LEG_DISTANCE} {higher} the entry at {entry}"
    if (entry - loss) * sign < LEG_DISTANCE:
        yield f"the stop loss {loss} is not {LEG_DISTANCE} {lower} the entry at {entry}"


def _auction(request: OrderRequest, now: datetime | None) -> Iterator[str]:
    if request.time_in_force not in _AUCTIONS:
        return
    if request.order_type not in ("market", "limit"):
        yield f"an auction ({request.time_in_force}) takes market and limit orders only"
    if now is None:
        return
    local = now.astimezone(NEW_YORK)
    cutoff = auction_cutoff(request.time_in_force, local.date())
    if cutoff is not None and now >= cutoff and local.time() < _EVENING:
        yield (
            f"orders for the {'opening' if request.time_in_force == 'opg' else 'closing'} auction are "
            f"taken until {cutoff.astimezone(NEW_YORK):%H:%M} New York and again from {_EVENING:%H:%M}"
        )


def _plain(number: Decimal) -> str:
    """A finite number without exponent or trailing zeros; the ledger's have nine decimals."""
    return f"{number.normalize():f}"
