"""From target quantities to orders: netted over strategies, split into legs, with deterministic ids.

Pure. Does not belong here: refusing orders (`limits/`), writing and sending them.

1. Targets of all strategies are summed per symbol; a symbol that no strategy changed is not traded.
2. What is held and what open orders may still fill is taken off.
3. A change smaller than the smallest trade is dropped, unless it closes the position.
4. A change through zero is two legs: the first closes, the second opens once the first has filled,
   since brokers refuse an order that would flip a position.
5. Every leg gets its terms from the style of the strategies that ask for it (`order_styles.py`), with
   prices and dollars rounded to what the broker takes: what is frozen is exactly what is sent.
6. Legs that reduce come first, then the most dollars: sales free buying power only when filled.
7. The id is a digest of the decision itself, all its prices included, so that the same decision has the
   same id, and a broker that sees it twice refuses the second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import ROUND_DOWN, Decimal
from typing import Final, Literal

from quant_assets.orders.order_styles import Terms, sized, terms_of
from quant_assets.orders.policy import OrderStyle
from quant_assets.orders.target_portfolio import Target
from quant_resources.broker import Asset, OrderType, Side, TimeInForce
from quant_resources.ledger.order_states import OrderState
from quant_resources.order_rules import auction_cutoff

DIGEST_CHARACTERS: Final = 24
_ZERO: Final = Decimal(0)
_WHOLE: Final = Decimal(1)


@dataclass(frozen=True)
class Intent:
    """An order as it is decided: everything that is frozen before it is sent.

    Attributes:
        quantity: Shares; those that `notional` buys at the reference price where the order is by dollars.
        reduces: Whether it makes the position smaller.
        notional: USD to buy for, instead of a number of shares; None for an order by shares.
        take_profit_price: With `stop_loss_price` the legs of a bracket; both or none.
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
    order_type: OrderType = "market"
    time_in_force: TimeInForce = "day"
    notional: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    take_profit_price: Decimal | None = None
    stop_loss_price: Decimal | None = None
    waits_for: Literal["", "leg", "buying_power"] = ""
    depends_on: str | None = None
    state: OrderState = OrderState.PENDING
    limit_name: str | None = None
    limit_value: Decimal | None = None
    limit_bound: Decimal | None = None

    @property
    def value(self) -> Decimal:
        """USD at the reference price; of an order by dollars exactly those."""
        return self.quantity * self.reference_price if self.notional is None else self.notional

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
    style_of: Callable[[Collection[str]], OrderStyle],
    assets: Mapping[str, Asset],
) -> list[Intent]:
    """Orders that move the book from what it holds to what its strategies want.

    Args:
        targets: Targets of all strategies.
        positions: Shares held by symbol, at the share count of the session.
        open_quantities: Signed shares that open orders may still fill, by symbol; protective legs of
            brackets do not count, since they end with the position that they protect.
        key: Batch that the orders belong to.
        deadline: Until when they may be sent; an auction's own end comes first.
        smallest_trade: USD below which a position is not adjusted.
        style_of: The style of an order that these strategies ask for (`TradingPolicy.style_of`).
        assets: What the broker lets one do with a symbol.

    Returns:
        Intents in the order in which they are sent.
    """
    by_symbol: dict[str, list[Target]] = {}
    for target in targets:
        by_symbol.setdefault(target.symbol, []).append(target)
    intents: list[Intent] = []
    for symbol, wanting in by_symbol.items():
        asking = [target for target in wanting if target.changed]
        if not asking:
            continue
        wanted = sum((target.target_quantity for target in wanting), _ZERO)
        if wanted < 0:
            # Brokers lend whole shares only.
            wanted = wanted.quantize(_WHOLE, rounding=ROUND_DOWN)
        held = positions.get(symbol, _ZERO) + open_quantities.get(symbol, _ZERO)
        price = wanting[0].reference_price
        if abs(wanted - held) * price < smallest_trade and wanted != 0:
            continue
        intents += _legs(
            asking,
            held=held,
            wanted=wanted,
            key=key,
            deadline=deadline,
            style=style_of({target.strategy for target in asking}),
            fractionable=symbol in assets and assets[symbol].fractionable,
        )
    return sorted(intents, key=lambda intent: (not intent.reduces, -intent.value, intent.symbol))


def client_order_id(
    key: BatchKey, *, symbol: str, leg: int, side: str, quantity: Decimal, terms: Terms
) -> str:
    """`<book>-<trading_session>-<digest>`: the same decision always has the same id.

    The digest covers account, attempt, symbol, leg, side, quantity, order type, time in force, dollars
    and every price; numbers are written without exponent or trailing zeros, so that 10 and 10.000 are
    the same decision.
    """
    numbers = (
        terms.limit_price,
        terms.stop_price,
        terms.take_profit_price,
        terms.stop_loss_price,
        terms.notional,
    )
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
            terms.order_type,
            terms.time_in_force,
            *("" if number is None else _plain(number) for number in numbers),
        ]
    )
    digest = hashlib.sha256(decision.encode()).hexdigest()[:DIGEST_CHARACTERS]
    return f"{key.book}-{key.trading_session.isoformat()}-{digest}"


def _legs(
    asking: Sequence[Target],
    *,
    held: Decimal,
    wanted: Decimal,
    key: BatchKey,
    deadline: datetime,
    style: OrderStyle,
    fractionable: bool,
) -> list[Intent]:
    """One order, or two that turn a position round; none where less than a share would be opened."""
    symbol, price = asking[0].symbol, asking[0].reference_price
    flips = held * wanted < 0
    changes = [-held, wanted] if flips else [wanted - held]
    legs: list[Intent] = []
    for number, change in enumerate(changes, start=1):
        side: Side = "buy" if change > 0 else "sell"
        reduces = (flips and number == 1) or (not flips and abs(wanted) < abs(held))
        quantity = sized(abs(change), style, opens=not reduces)
        if quantity == 0:
            continue
        terms = terms_of(
            style,
            side=side,
            quantity=quantity,
            reference_price=price,
            opens=not reduces,
            second_leg=number == 2,
            fractionable=fractionable,
            wanting=asking,
        )
        cutoff = auction_cutoff(terms.time_in_force, key.trading_session)
        legs.append(
            Intent(
                client_order_id=client_order_id(
                    key, symbol=symbol, leg=number, side=side, quantity=quantity, terms=terms
                ),
                symbol=symbol,
                security_id=asking[0].security_id,
                leg=number,
                side=side,
                quantity=quantity,
                reduces=reduces,
                reference_price=price,
                deadline=deadline if cutoff is None else min(deadline, cutoff),
                reason="; ".join(f"{target.strategy}: {target.reason}" for target in asking),
                **vars(terms),
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
