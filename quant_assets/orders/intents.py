"""From target quantities to orders: netted over strategies, split into legs, with deterministic ids.

Pure. Does not belong here: refusing orders (`risk_limits.py`), writing and sending them.

1. Targets of all strategies are summed per symbol; a symbol that no strategy changed is not traded.
2. What is held and what open orders may still fill is taken off.
3. A change smaller than the smallest trade is dropped, unless it closes the position.
4. A change through zero is two legs: the first closes, the second opens once the first has filled,
   since brokers refuse an order that would flip a position.
5. Legs that reduce come first, then the largest notional: sales free buying power only when filled.
6. The id is a digest of the decision itself, so that the same decision has the same id, and a broker
   that sees it twice refuses the second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import ROUND_DOWN, Decimal
from typing import Final, Literal

from quant_assets.orders.target_portfolio import Target
from quant_resources.broker import Side
from quant_resources.ledger.order_states import OrderState

DIGEST_CHARACTERS: Final = 24
_ZERO: Final = Decimal(0)
_WHOLE: Final = Decimal(1)


@dataclass(frozen=True)
class Intent:
    """An order as it is decided: everything that is frozen before it is sent.

    Attributes:
        reduces: Whether it makes the position smaller.
        waits_for: "leg" (the order `depends_on` must fill first), "buying_power", or nothing.
        limit_name: The limit that refused it, with the measured `limit_value` and its `limit_bound`.
    """

    client_order_id: str
    symbol: str
    security_id: str
    leg: int
    side: Side
    quantity: Decimal
    reduces: bool
    reference_price: Decimal
    deadline: datetime
    reason: str
    order_type: str = "market"
    time_in_force: str = "day"
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    waits_for: Literal["", "leg", "buying_power"] = ""
    depends_on: str | None = None
    state: OrderState = OrderState.PENDING
    limit_name: str | None = None
    limit_value: Decimal | None = None
    limit_bound: Decimal | None = None

    @property
    def notional(self) -> Decimal:
        """Quantity x reference price, USD."""
        return self.quantity * self.reference_price

    @property
    def change(self) -> Decimal:
        """Signed shares: positive buys."""
        return self.quantity if self.side == "buy" else -self.quantity

    @property
    def is_refused(self) -> bool:
        """Whether a limit refused it."""
        return self.state == OrderState.REFUSED


@dataclass(frozen=True)
class BatchKey:
    """What identifies a batch: a book of an account decides once per session and attempt."""

    account_id: str
    book: str
    trading_session: date
    attempt: int


def net_intents(
    targets: Sequence[Target],
    positions: Mapping[str, Decimal],
    open_quantities: Mapping[str, Decimal],
    *,
    key: BatchKey,
    deadline: datetime,
    smallest_trade: Decimal,
) -> list[Intent]:
    """Orders that move the book from what it holds to what its strategies want.

    Args:
        targets: Targets of all strategies.
        positions: Shares held by symbol, at the share count of the session.
        open_quantities: Signed shares that open orders may still fill, by symbol.
        key: Batch that the orders belong to.
        deadline: Until when they may be sent.
        smallest_trade: USD below which a position is not adjusted.

    Returns:
        Intents in the order in which they are sent.
    """
    by_symbol: dict[str, list[Target]] = {}
    for target in targets:
        by_symbol.setdefault(target.symbol, []).append(target)
    intents: list[Intent] = []
    for symbol, wanting in by_symbol.items():
        if not any(target.changed for target in wanting):
            continue
        wanted = sum((target.target_quantity for target in wanting), _ZERO)
        if wanted < 0:
            # Brokers lend whole shares only.
            wanted = wanted.quantize(_WHOLE, rounding=ROUND_DOWN)
        held = positions.get(symbol, _ZERO) + open_quantities.get(symbol, _ZERO)
        price = wanting[0].reference_price
        if abs(wanted - held) * price < smallest_trade and wanted != 0:
            continue
        why = "; ".join(
            f"{target.strategy}: {target.reason}" for target in wanting if target.changed
        )
        intents += _legs(
            symbol=symbol,
            security_id=wanting[0].security_id,
            held=held,
            wanted=wanted,
            price=price,
            key=key,
            deadline=deadline,
            why=why,
        )
    return sorted(intents, key=lambda intent: (not intent.reduces, -intent.notional, intent.symbol))


def client_order_id(
    key: BatchKey,
    *,
    symbol: str,
    leg: int,
    side: str,
    quantity: Decimal,
    order_type: str,
    time_in_force: str,
    prices: Sequence[Decimal | None],
) -> str:
    """`<book>-<trading_session>-<digest>`: the same decision always has the same id.

    The digest covers account, attempt, symbol, leg, side, quantity, order type and prices; numbers are
    written without exponent or trailing zeros, so that 10 and 10.000 are the same decision.
    """
    decision = "|".join(
        [
            key.account_id,
            key.book,
            key.trading_session.isoformat(),
            str(key.attempt),
            symbol,
            str(leg),
            side,
            _plain(quantity),
            order_type,
            time_in_force,
            *("" if price is None else _plain(price) for price in prices),
        ]
    )
    digest = hashlib.sha256(decision.encode()).hexdigest()[:DIGEST_CHARACTERS]
    return f"{key.book}-{key.trading_session.isoformat()}-{digest}"


def _legs(
    *,
    symbol: str,
    security_id: str,
    held: Decimal,
    wanted: Decimal,
    price: Decimal,
    key: BatchKey,
    deadline: datetime,
    why: str,
) -> list[Intent]:
    flips = held * wanted < 0
    changes = [-held, wanted] if flips else [wanted - held]
    legs: list[Intent] = []
    for number, change in enumerate((c for c in changes if c != 0), start=1):
        side: Side = "buy" if change > 0 else "sell"
        quantity = abs(change)
        legs.append(
            Intent(
                client_order_id=client_order_id(
                    key,
                    symbol=symbol,
                    leg=number,
                    side=side,
                    quantity=quantity,
                    order_type="market",
                    time_in_force="day",
                    prices=(None, None),
                ),
                symbol=symbol,
                security_id=security_id,
                leg=number,
                side=side,
                quantity=quantity,
                reduces=(flips and number == 1) or (not flips and abs(wanted) < abs(held)),
                reference_price=price,
                deadline=deadline,
                reason=why,
            )
        )
    if len(legs) == 2:
        legs[1] = replace(
            legs[1],
            waits_for="leg",
            depends_on=legs[0].client_order_id,
            state=OrderState.WAITING,
        )
    return legs


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"
