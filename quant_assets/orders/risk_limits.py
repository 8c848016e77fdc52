"""Pre-trade limits: each a small class with one method that names what it refuses, and why.

Pure. A limit sees the whole batch, what is held and what is open, and refuses single intents; a refused
intent is kept with the limit, the measured number and the bound. Limits run in the order of `LIMITS`,
each on what the ones before it left. Intents that reduce a position pass the limits on exposure: a book
above its bounds must be able to come down. Does not belong here: the bounds themselves (`policy.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import ClassVar, Final

from quant_assets.orders.intents import Intent
from quant_assets.orders.policy import Limits
from quant_resources.broker import Asset
from quant_resources.ledger.order_states import OrderState

_ZERO: Final = Decimal(0)
_MINUTE_STEP: Final = Decimal("0.01")
#: A short sale is held against 3 % more than its last price (Alpaca, "Margin and Short Selling").
SHORT_SALE_CUSHION: Final = Decimal("1.03")


@dataclass(frozen=True)
class Batch:
    """What the limits look at.

    Attributes:
        intents: The intents that earlier limits left, in the order of sending.
        positions: Signed shares held by symbol.
        open_quantities: Signed shares that open orders may still fill.
        prices: Reference price by symbol, for everything held or traded, USD.
        price_ages: How old the reference price is, by traded symbol (`trading_sessions.price_age`).
        equity: USD.
        buying_power: USD, after what open orders hold.
        assets: What the broker allows, by symbol.
        trading_state: ACTIVE, REDUCING or HALTED.
        account_blocked: The broker lets the account not trade.
        shorting_enabled: The broker lets the account sell short.
        limits: The bounds.
    """

    intents: Sequence[Intent]
    positions: Mapping[str, Decimal]
    open_quantities: Mapping[str, Decimal]
    prices: Mapping[str, Decimal]
    price_ages: Mapping[str, timedelta]
    equity: Decimal
    buying_power: Decimal
    assets: Mapping[str, Asset]
    trading_state: str
    account_blocked: bool
    shorting_enabled: bool
    limits: Limits

    def held(self, symbol: str) -> Decimal:
        """Shares held, open orders counted as filled."""
        return self.positions.get(symbol, _ZERO) + self.open_quantities.get(symbol, _ZERO)


@dataclass(frozen=True)
class Refusal:
    """An intent that a limit refuses, with the number that was measured and the bound it broke."""

    intent: Intent
    value: Decimal
    bound: Decimal
    reason: str


class RiskLimit(ABC):
    """One limit."""

    name: ClassVar[str]

    @abstractmethod
    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """The intents of the batch that must not be sent."""


class TradingStateLimit(RiskLimit):
    """HALTED sends nothing, REDUCING only what makes a position smaller."""

    name = "trading_state"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Everything, or everything that opens."""
        for intent in batch.intents:
            if batch.trading_state == "HALTED" or (
                batch.trading_state != "ACTIVE" and not intent.reduces
            ):
                yield Refusal(intent, intent.notional, _ZERO, f"trading is {batch.trading_state}")


class AccountLimit(RiskLimit):
    """The broker has blocked the account, or its equity is not positive."""

    name = "account"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Everything."""
        if batch.account_blocked:
            for intent in batch.intents:
                yield Refusal(intent, Decimal(1), _ZERO, "the broker has blocked the account")
        elif batch.equity <= 0:
            for intent in batch.intents:
                if not intent.reduces:
                    yield Refusal(intent, batch.equity, _ZERO, "the account has no equity")


class RestrictedLimit(RiskLimit):
    """Symbols that the user never trades."""

    name = "restricted"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Intents on restricted symbols."""
        for intent in batch.intents:
            if intent.symbol in batch.limits.restricted:
                yield Refusal(
                    intent, intent.quantity, _ZERO, f"{intent.symbol} is on the restricted list"
                )


class TradableLimit(RiskLimit):
    """What the broker does not trade, lend or split into fractions."""

    name = "tradable"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Intents that the broker would refuse."""
        for intent in batch.intents:
            asset = batch.assets.get(intent.symbol)
            opens_short = intent.side == "sell" and not intent.reduces
            fraction = intent.quantity % 1
            why = None
            if asset is None or not asset.tradable:
                why = f"the broker does not trade {intent.symbol}"
            elif opens_short and not (asset.shortable and batch.shorting_enabled):
                why = f"the broker does not lend {intent.symbol}"
            elif fraction and not asset.fractionable and not intent.reduces:
                why = f"{intent.symbol} trades in whole shares only"
            elif fraction and opens_short:
                why = "short sales are whole shares only"
            if why:
                yield Refusal(intent, intent.quantity, _ZERO, why)


class StaleQuoteLimit(RiskLimit):
    """A price that is too old to decide by."""

    name = "stale_quote"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Intents on stale prices, reducing ones included: what the position is worth is not known."""
        bound = batch.limits.quote_age_minutes
        for intent in batch.intents:
            age = batch.price_ages[intent.symbol]
            if age > timedelta(minutes=bound):
                minutes = Decimal(round(age.total_seconds())) / 60
                yield Refusal(
                    intent,
                    minutes.quantize(_MINUTE_STEP),
                    Decimal(bound),
                    f"the last price of {intent.symbol} is {minutes:,.0f} minutes old, at most {bound}",
                )


class OrderNotionalLimit(RiskLimit):
    """A single order larger than anything that was meant."""

    name = "order_notional"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Intents above the bound, reducing ones included: a wrong close hurts as much."""
        bound = batch.limits.order_notional
        for intent in batch.intents:
            if not 0 < intent.notional <= bound:
                yield Refusal(
                    intent,
                    intent.notional,
                    bound,
                    f"{intent.notional:,.2f} USD in one order, at most {bound:,.2f}",
                )


class OrderCountLimit(RiskLimit):
    """A batch with more orders than anything that was meant."""

    name = "orders_per_session"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Intents beyond the bound, in the order of sending."""
        bound = batch.limits.orders_per_session
        for intent in batch.intents[bound:]:
            yield Refusal(
                intent,
                Decimal(len(batch.intents)),
                Decimal(bound),
                f"{len(batch.intents)} orders in one session, at most {bound}",
            )


class NameWeightLimit(RiskLimit):
    """Too much of the equity in one name."""

    name = "name_weight"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Opening intents after which a position is above the bound."""
        bound = batch.limits.name_weight
        after = {intent.symbol: batch.held(intent.symbol) for intent in batch.intents}
        for intent in batch.intents:
            after[intent.symbol] += intent.change
            if intent.reduces:
                continue
            weight = abs(after[intent.symbol]) * intent.reference_price / batch.equity
            if weight > bound:
                after[intent.symbol] -= intent.change
                yield Refusal(
                    intent,
                    weight,
                    bound,
                    f"{weight:.2%} of equity in {intent.symbol}, at most {bound:.2%}",
                )


class GrossExposureLimit(RiskLimit):
    """Too much exposure, long and short together."""

    name = "gross_exposure"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Opening intents that would lift gross exposure above the bound, in the order of sending."""
        bound = batch.limits.gross_exposure
        shares = {symbol: batch.held(symbol) for symbol in batch.positions}
        for symbol in batch.open_quantities:
            shares.setdefault(symbol, batch.held(symbol))
        gross = sum((abs(n) * batch.prices[s] for s, n in shares.items() if n), _ZERO)
        for intent in batch.intents:
            before = shares.get(intent.symbol, _ZERO)
            change = (abs(before + intent.change) - abs(before)) * intent.reference_price
            if not intent.reduces and (gross + change) / batch.equity > bound:
                value = (gross + change) / batch.equity
                yield Refusal(
                    intent,
                    value,
                    bound,
                    f"gross exposure {value:.2%} of equity, at most {bound:.2%}",
                )
                continue
            gross += change
            shares[intent.symbol] = before + intent.change


class BuyingPowerLimit(RiskLimit):
    """More purchases and short sales than the account can carry, once everything else has filled."""

    name = "buying_power"

    def refusals(self, batch: Batch) -> Iterator[Refusal]:
        """Opening intents that do not even fit with what this batch's closing intents free."""
        freed = sum((intent.notional for intent in batch.intents if intent.reduces), _ZERO)
        bound = (batch.buying_power + freed) * (1 - batch.limits.buying_power_reserve)
        needed = _ZERO
        for intent in batch.intents:
            if intent.reduces:
                continue
            cost = opening_cost(intent)
            if needed + cost > bound:
                yield Refusal(
                    intent,
                    needed + cost,
                    bound,
                    f"{needed + cost:,.2f} USD of buying power needed, {bound:,.2f} to be had",
                )
                continue
            needed += cost


#: Every limit, in the order in which they run.
LIMITS: Final[tuple[RiskLimit, ...]] = (
    TradingStateLimit(),
    AccountLimit(),
    RestrictedLimit(),
    TradableLimit(),
    StaleQuoteLimit(),
    OrderNotionalLimit(),
    OrderCountLimit(),
    NameWeightLimit(),
    GrossExposureLimit(),
    BuyingPowerLimit(),
)


def opening_cost(intent: Intent) -> Decimal:
    """Buying power that an opening intent needs, USD."""
    return intent.notional * (SHORT_SALE_CUSHION if intent.side == "sell" else 1)


def apply_limits(batch: Batch, limits: Sequence[RiskLimit] = LIMITS) -> list[Intent]:
    """All intents of the batch, refused ones marked, in the order in which they are sent.

    An opening leg falls with the leg it waits for. Purchases that need what sales of the same batch free
    are marked to wait for the buying power.

    Args:
        batch: The batch as planned.
        limits: The limits, in order.

    Returns:
        As many intents as the batch has.
    """
    outcome = {intent.client_order_id: intent for intent in batch.intents}
    for limit in limits:
        passed = [intent for intent in outcome.values() if not intent.is_refused]
        for refusal in limit.refusals(replace(batch, intents=passed)):
            outcome[refusal.intent.client_order_id] = _refused(
                refusal.intent, limit.name, refusal.value, refusal.bound, refusal.reason
            )
        for intent in passed:
            closing = outcome.get(intent.depends_on or "")
            if closing is not None and closing.is_refused:
                outcome[intent.client_order_id] = _refused(
                    intent,
                    closing.limit_name or limit.name,
                    closing.limit_value or _ZERO,
                    closing.limit_bound or _ZERO,
                    "the leg that closes the position was refused",
                )
    return _wait_for_money(batch, list(outcome.values()))


def _refused(intent: Intent, name: str, value: Decimal, bound: Decimal, reason: str) -> Intent:
    return replace(
        intent,
        state=OrderState.REFUSED,
        limit_name=name,
        limit_value=value,
        limit_bound=bound,
        reason=reason,
    )


def _wait_for_money(batch: Batch, intents: list[Intent]) -> list[Intent]:
    left = batch.buying_power * (1 - batch.limits.buying_power_reserve)
    sent: list[Intent] = []
    for intent in intents:
        if intent.is_refused or intent.reduces or intent.state == OrderState.WAITING:
            sent.append(intent)
            continue
        cost = opening_cost(intent)
        if cost > left:
            sent.append(replace(intent, waits_for="buying_power", state=OrderState.WAITING))
            continue
        left -= cost
        sent.append(intent)
    return sent
