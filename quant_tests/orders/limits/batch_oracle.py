"""An independent judge of what the limits let through: rules restated, every way of filling enumerated.

It shares no code with `quant_assets.orders.limits`: numbers are fractions, whether an order opens is found
by trying every order in which the orders of a symbol can fill, and where a position can end by trying
every subset of them. It looks at the accepted part of a batch as a whole, never at one order after another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import combinations

from quant_assets.orders.intents import Intent
from quant_assets.orders.limits import LIMITS, Batch
from quant_resources.broker import BrokerOrder

_TICKER = re.compile(r"\A[A-Z0-9]{1,10}(?:[.-][A-Z0-9]{1,6}){0,2}\Z")
_NAMES = {limit.name for limit in LIMITS}


def exact(number: Decimal | None) -> Fraction | None:
    """The number as a fraction; None where it is none, or absurd."""
    if number is None or number.is_nan() or number.is_infinite() or number.adjusted() >= 15:
        return None
    return Fraction(number)


def price_of(number: Decimal | None) -> Fraction | None:
    """The same for what must be positive."""
    value = exact(number)
    return value if value is not None and value > 0 else None


@dataclass(frozen=True)
class Move:
    """One order that may fill: signed shares, what must have filled before, whether it is sure to fill."""

    name: str
    shares: Fraction
    intent: Intent | None = None
    after: str | None = None
    sure: bool = False


class Oracle:
    """Everything that is wrong with the outcome of a batch; nothing, if the limits do their work."""

    def __init__(self, batch: Batch, outcome: Sequence[Intent]) -> None:
        """Sort the outcome by symbol and find out which of the accepted orders open."""
        self.batch = batch
        self.outcome = outcome
        self.limits = batch.limits
        self.accepted = [row for row in outcome if str(row.state) != "refused"]
        self.entries = [
            order
            for order in batch.open_orders
            if order.status not in ("filled", "canceled", "expired", "rejected", "replaced")
            and order.parent_order_id is None
        ]
        self.equity = exact(batch.equity)

    def complaints(self) -> list[str]:
        """One sentence per broken limit."""
        found = list(self._refusals())
        malformed = list(self._form())
        if malformed:
            # What cannot be measured need not be measured.
            return found + malformed
        self.unknown: set[str] = set()
        self.moves = self._moves()
        self.opening = [row for row in self.accepted if self._opens(row)]
        for check in (
            self._permissions,
            self._broker_rules,
            self._meetings,
            self._prices,
            self._sizes,
            self._losses,
            self._names,
            self._book,
            self._money,
        ):
            found += check()
        return found

    def _refusals(self) -> Iterator[str]:
        if len(self.outcome) != len(self.batch.intents):
            yield "intents were lost"
        for row in self.outcome:
            if str(row.state) != "refused":
                continue
            numbers = (row.limit_value, row.limit_bound)
            if row.limit_name not in _NAMES or not row.reason:
                yield f"{row.symbol}: refused without limit or reason"
            if any(n is None or not n.is_finite() or abs(n) > Decimal("1e18") for n in numbers):
                yield f"{row.symbol}: {row.limit_name} keeps {numbers}, which no ledger can hold"

    def _form(self) -> Iterator[str]:
        for row in self.accepted:
            quantity = exact(row.quantity)
            if quantity is None or not 0 < quantity < 10**9:
                yield f"quantity: {row.quantity}"
            for price in (
                row.reference_price,
                row.limit_price,
                row.stop_price,
                row.take_profit_price,
                row.stop_loss_price,
            ):
                if price is not None and not 0 < (exact(price) or 0) < 10**7:
                    yield f"quantity: a price of {price}"
            if row.notional is not None:
                dollars = exact(row.notional) or Fraction(0)
                price = exact(row.reference_price)
                if not 0 < dollars < 10**9:
                    yield f"quantity: dollars of {row.notional}"
                elif quantity and price and abs(quantity * price - dollars) > max(dollars, 1) / 100:
                    yield f"quantity: {row.quantity} shares are not {row.notional} USD"
            if not 0 < len(row.client_order_id) < 129 or not _TICKER.match(row.symbol):
                yield f"quantity: {row.client_order_id!r} on {row.symbol!r}"

    def _moves(self) -> dict[str, list[Move]]:
        """Symbol → everything that may fill in it."""
        moves: dict[str, list[Move]] = {}
        for number, order in enumerate(self.entries):
            shares = self._open_shares(order)
            if shares is None:
                self.unknown.add(order.symbol)
            elif shares:
                moves.setdefault(order.symbol, []).append(Move(f"open {number}", shares))
        for row in self.accepted:
            sign = 1 if row.side == "buy" else -1
            moves.setdefault(row.symbol, []).append(
                Move(
                    row.client_order_id,
                    sign * Fraction(row.quantity),
                    row,
                    row.depends_on,
                    sure=False,
                )
            )
        return moves

    def _open_shares(self, order: BrokerOrder) -> Fraction | None:
        sign = 1 if order.side == "buy" else -1
        filled = exact(order.filled_quantity)
        if filled is None:
            return None
        if order.notional is None:
            whole = exact(order.quantity)
            return None if whole is None else sign * (whole - filled)
        dollars, price = exact(order.notional), self._mark(order.symbol)
        average = (
            Fraction(0) if order.average_fill_price is None else exact(order.average_fill_price)
        )
        if dollars is None or price is None or average is None:
            return None
        return sign * max(dollars - filled * average, Fraction(0)) / price

    def _mark(self, symbol: str) -> Fraction | None:
        """The highest price by which a symbol can be valued."""
        prices = [price_of(self.batch.prices.get(symbol))]
        for row in self.accepted:
            if row.symbol == symbol:
                prices += [price_of(row.reference_price), price_of(row.limit_price)]
        return max((price for price in prices if price is not None), default=None)

    def _held(self, symbol: str) -> Fraction:
        return exact(self.batch.positions.get(symbol, Decimal(0))) or Fraction(0)

    def _subsets(self, symbol: str, *, sure: bool) -> Iterator[list[Move]]:
        """Every set of a symbol's orders that can have filled; `sure` ones are in each if so wanted."""
        moves = self.moves.get(symbol, [])
        there = {move.name for move in moves}
        for count in range(len(moves) + 1):
            for chosen in combinations(moves, count):
                names = {move.name for move in chosen}
                if any(m.after in there and m.after not in names for m in chosen):
                    continue
                if sure and any(self._is_sure(m) and m.name not in names for m in moves):
                    continue
                yield list(chosen)

    def _is_sure(self, move: Move) -> bool:
        row = move.intent
        return row is not None and row.order_type == "market" and not self._opens(row)

    def _opens(self, row: Intent) -> bool:
        """Whether there is a way of filling in which this order enlarges the position, or turns it."""
        change = Fraction(row.quantity) * (1 if row.side == "buy" else -1)
        for before in self._subsets(row.symbol, sure=False):
            if any(row.client_order_id in (move.name, move.after) for move in before):
                continue
            held = self._held(row.symbol) + sum(move.shares for move in before)
            if abs(held + change) > abs(held) or (held + change) * held < 0:
                return True
        return False

    def _permissions(self) -> Iterator[str]:
        state = self.batch.trading_state
        if self.accepted and state not in ("ACTIVE", "REDUCING"):
            yield f"trading_state: something is sent while trading is {state}"
        if self.opening and state != "ACTIVE":
            yield f"trading_state: something opens while trading is {state}"
        for row in self.opening:
            if row.reduces:
                yield f"quantity: {row.symbol} says that it reduces, and opens"
        if self.accepted and self.batch.account_blocked:
            yield "account: it is blocked"
        if self.opening and (self.equity is None or self.equity <= 0):
            yield f"account: equity of {self.batch.equity}"
        for row in self.accepted:
            asset = self.batch.assets.get(row.symbol)
            if row.symbol in self.limits.restricted:
                yield f"restricted: {row.symbol}"
            if asset is None or not asset.tradable or not asset.active:
                yield f"tradable: {row.symbol}"
                continue
            lent = asset.shortable and self.batch.shorting_enabled
            if row in self.opening and row.side == "sell" and not lent:
                yield f"shortable: {row.symbol}"

    def _broker_rules(self) -> Iterator[str]:
        for row in self.accepted:
            fraction = row.notional is not None or Fraction(row.quantity).denominator != 1
            bracket = row.take_profit_price is not None
            asset = self.batch.assets.get(row.symbol)
            if row.side not in ("buy", "sell"):
                yield f"order_rules: side {row.side}"
            if (row.take_profit_price is None) != (row.stop_loss_price is None):
                yield "order_rules: half a bracket"
            if fraction and (bracket or row.time_in_force != "day"):
                yield "order_rules: a fraction in a bracket or for more than the day"
            splits = asset is not None and asset.fractionable and row.side == "buy"
            if fraction and row in self.opening and not splits:
                yield f"order_rules: a fraction of {row.symbol}"
            if (row.limit_price is not None) != (row.order_type in ("limit", "stop_limit")):
                yield "order_rules: limit price"
            if (row.stop_price is not None) != (row.order_type in ("stop", "stop_limit")):
                yield "order_rules: stop price"
            if bracket and row.time_in_force not in ("day", "gtc"):
                yield "order_rules: bracket in an auction"

    def _meetings(self) -> Iterator[str]:
        ids = [row.client_order_id for row in self.accepted]
        legs = [(row.symbol, row.leg) for row in self.accepted]
        if len(set(ids)) < len(ids) or len(set(legs)) < len(legs):
            yield "duplicate: an id or leg is there twice"
        taken = self.batch.used_ids | {order.client_order_id for order in self.batch.open_orders}
        if taken & set(ids):
            yield "duplicate: an id has been used before"
        for row in self.accepted:
            others: list[Intent | BrokerOrder] = [
                *(order for order in self.batch.open_orders if order.is_open),
                *self.accepted,
            ]
            for other in others:
                if other.symbol != row.symbol or {other.side, row.side} != {"buy", "sell"}:
                    continue
                if isinstance(other, BrokerOrder):
                    if other.status == "held":
                        continue
                    if other.parent_order_id is not None and row.take_profit_price is not None:
                        continue
                buy, sell = (row, other) if row.side == "buy" else (other, row)
                bid, offer = price_of(buy.limit_price), price_of(sell.limit_price)
                apart = bid is not None and offer is not None and bid < offer
                if not (apart and row.order_type == other.order_type == "limit"):
                    yield f"self_cross: {row.symbol}"

    def _market(self, symbol: str) -> Fraction | None:
        quote = self.batch.quotes.get(symbol)
        if quote is not None:
            bid, ask = price_of(quote.bid), price_of(quote.ask)
            widest = Fraction(self.limits.price_collar)
            if bid and ask and 0 <= ask - bid <= widest * (bid + ask):
                return (bid + ask) / 2
        return price_of(self.batch.last_trades.get(symbol))

    def _prices(self) -> Iterator[str]:
        collar = Fraction(self.limits.price_collar)
        for row in self.accepted:
            age = self.batch.price_ages.get(row.symbol)
            if age is None or age > timedelta(minutes=self.limits.quote_age_minutes):
                yield f"stale_quote: {row.symbol}"
            market = self._market(row.symbol)
            opens = row in self.opening
            if market is None:
                if opens:
                    yield f"price_collar: {row.symbol} has no market"
                continue
            given = [row.limit_price, row.reference_price if opens else None]
            for price in given:
                if price is not None and abs(Fraction(price) / market - 1) > collar:
                    yield f"price_collar: {row.symbol} at {price}"
            if row.take_profit_price is not None and row.stop_loss_price is not None:
                legs = sorted([Fraction(row.take_profit_price), Fraction(row.stop_loss_price)])
                if not legs[0] < market < legs[1]:
                    yield f"price_collar: a leg of {row.symbol} is passed"

    def _sizes(self) -> Iterator[str]:
        if len(self.accepted) and (
            len(self.accepted) + self.batch.sent_before > self.limits.orders_per_session
        ):
            yield "orders_per_session"
        for row in self.accepted:
            shares = Fraction(row.quantity)
            dollars = [shares * Fraction(row.reference_price)]
            dollars += [shares * Fraction(row.limit_price)] if row.limit_price else []
            dollars += [Fraction(row.notional)] if row.notional else []
            if max(dollars) > Fraction(self.limits.order_notional):
                yield f"order_notional: {row.symbol}"
        for symbol in {row.symbol for row in self.opening}:
            volume = price_of(self.batch.volumes.get(symbol))
            traded = sum(abs(move.shares) for move in self.moves[symbol])
            if volume is None or symbol in self.unknown:
                yield f"volume_share: of {symbol} is not known"
            elif traded > volume * Fraction(self.limits.volume_share):
                yield f"volume_share: {symbol}"

    def _losses(self) -> Iterator[str]:
        for name, loss, bound in (
            ("daily_loss", self.batch.daily_loss, self.limits.daily_loss),
            ("drawdown", self.batch.drawdown, self.limits.drawdown),
        ):
            lost = exact(loss)
            if self.opening and (lost is None or lost >= Fraction(bound)):
                yield f"{name}: {loss}"

    def _end(self, symbol: str, moves: Sequence[Move]) -> Fraction:
        return self._held(symbol) + sum(move.shares for move in moves)

    def _names(self) -> Iterator[str]:
        """By name, whatever fills: also if only the opening orders do and not one closing order."""
        if self.equity is None:
            return
        for symbol in {row.symbol for row in self.opening}:
            mark = self._mark(symbol)
            if mark is None:
                yield f"position_size: {symbol} has no price"
                continue
            for chosen in self._subsets(symbol, sure=False):
                opening = [move for move in chosen if move.intent in self.opening]
                if not opening:
                    continue
                end = abs(self._end(symbol, chosen))
                without = abs(self._end(symbol, [m for m in chosen if m not in opening]))
                # An order may not lift above the bound what was below it, nor lift it further.
                if end > without or end * mark <= Fraction(self.limits.position_notional):
                    if end * mark > Fraction(self.limits.position_notional):
                        yield f"position_size: {symbol} {float(end * mark):,.2f}"
                    if end * mark > Fraction(self.limits.name_weight) * self.equity:
                        yield f"name_weight: {symbol} {float(end * mark):,.2f}"

    def _book(self) -> Iterator[str]:
        """As a whole: with everything filled, with only what opens filled, and at the worst between."""
        if not self.opening or self.equity is None:
            return
        symbols = {
            *(s for s, n in self.batch.positions.items() if n != 0),
            *self.moves,
        }
        unpriced = {s for s in symbols if self._mark(s) is None} | {
            s for s, n in self.batch.positions.items() if exact(n) is None
        }
        if unpriced | self.unknown:
            yield f"gross_exposure: what is held of {sorted(unpriced | self.unknown)} is not known"
            return
        ends: dict[str, list[Fraction]] = {}
        before: dict[str, list[Fraction]] = {}
        named: dict[str, dict[str, Fraction]] = {"all": {}, "opening": {}}
        for symbol in symbols:
            mark = self._mark(symbol)
            assert mark is not None
            sets = list(self._subsets(symbol, sure=True))
            ends[symbol] = [self._end(symbol, chosen) * mark for chosen in sets]
            before[symbol] = [
                self._end(symbol, chosen) * mark
                for chosen in sets
                if not any(move.intent in self.opening for move in chosen)
            ]
            moves = self.moves.get(symbol, [])
            named["all"][symbol] = self._end(symbol, moves) * mark
            named["opening"][symbol] = mark * self._end(
                symbol, [m for m in moves if m.intent in self.opening or self._is_sure(m)]
            )
        bound = Fraction(self.limits.gross_exposure) * self.equity
        worst = sum(max(abs(end) for end in found) for found in ends.values())
        if worst > bound:
            yield f"gross_exposure: {float(worst):,.2f} of {float(bound):,.2f}"
        top = _five(max(abs(end) for end in found) for found in ends.values())
        was = _five(max(abs(end) for end in found) for found in before.values())
        if top > Fraction(self.limits.concentration) * self.equity and top > was:
            yield f"concentration: {float(top):,.2f}"
        limit = Fraction(self.limits.net_exposure) * self.equity
        buys = any(row.side == "buy" for row in self.opening)
        sells = any(row.side == "sell" for row in self.opening)
        nets = [sum(named[name].values()) for name in named]
        high = max(*nets, sum(max(found) for found in ends.values()))
        low = min(*nets, sum(min(found) for found in ends.values()))
        if buys and high > limit:
            yield f"net_exposure: {float(high):,.2f} of {float(limit):,.2f}"
        if sells and -low > limit:
            yield f"net_exposure: {float(low):,.2f} of -{float(limit):,.2f}"
        for scenario, values in named.items():
            if sum(abs(value) for value in values.values()) > bound:
                yield f"gross_exposure: if {scenario} fills"

    def _money(self) -> Iterator[str]:
        power = exact(self.batch.buying_power) or Fraction(0)
        share = 1 - Fraction(self.limits.buying_power_reserve)
        freed, needed, at_once = Fraction(0), Fraction(0), Fraction(0)
        for row in self.accepted:
            shares, limit = Fraction(row.quantity), price_of(row.limit_price)
            reference = Fraction(row.reference_price)
            dollars = Fraction(row.notional) if row.notional else shares * reference
            if row not in self.opening:
                freed += min(dollars, shares * (limit or reference))
                continue
            cost = max(dollars, shares * reference, shares * (limit or 0))
            cost *= Fraction(103, 100) if row.side == "sell" else 1
            needed += cost
            at_once += 0 if str(row.state) == "waiting" else cost
        unknown = exact(self.batch.buying_power) is None
        if needed and (unknown or needed > (power + freed) * share):
            yield f"buying_power: {float(needed):,.2f}"
        if at_once and at_once > power * share:
            yield f"buying_power: {float(at_once):,.2f} at once"
        accepted = {row.client_order_id for row in self.accepted}
        given = {row.client_order_id for row in self.batch.intents}
        for row in self.accepted:
            if row.depends_on in given and row.depends_on not in accepted:
                yield f"{row.symbol}: the leg that it waits for is refused"


def _five(values: Iterator[Fraction]) -> Fraction:
    return sum(sorted(values, reverse=True)[:5], Fraction(0))
