"""The broker as the order path sees it: one small protocol, its value types and its errors.

Belongs here: what every broker must offer, in exact numbers and aware times. Does not belong here: any
broker's wire format (`alpaca_messages.py` holds Alpaca's) and any decision about orders.

An error of `submit` says what is known about the order, because that decides what may be done next:

| Error               | Class     | What the broker has          | What follows                          |
|---------------------|-----------|------------------------------|---------------------------------------|
| `RateLimitedError`  | retryable | not the order (429)          | the adapter sends again after 2, 4 and |
|                     |           |                              | 8 s; then it waits for the next pass  |
| `AmbiguousError`    | ambiguous | the order or not: time-out,  | a look-up under the same client id,   |
|                     |           | reset, 5xx, unreadable body  | never another id                      |
| `DuplicateIdError`  | ambiguous | an order under this id       | a look-up; what is found is compared  |
| `RejectedError`     | final     | not the order, for cause     | it is recorded with the broker's words|
| `BrokenRulesError`  | final     | nothing was sent             | as rejected: the rules of `breaches`  |
| `UnauthorizedError` | final     | not the order (401)          | the pass stops until keys are corrected|

A 429 that came although the order was accepted does no harm: the repetition has the same client id and
ends as `DuplicateIdError`. Reading methods repeat retryable and ambiguous answers alike, since reading
twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, Protocol, runtime_checkable

from quant_resources.errors import BrokerError

Side = Literal["buy", "sell"]
OrderType = Literal["market", "limit", "stop", "stop_limit"]
TimeInForce = Literal["day", "gtc", "opg", "cls"]


class RateLimitedError(BrokerError):
    """The broker took nothing because too many requests were made; it may be sent again."""


class AmbiguousError(BrokerError):
    """The answer proves nothing: the broker may or may not have done what was asked."""


class RejectedError(BrokerError):
    """The broker refused for cause; sending the same again would be refused again.

    Attributes:
        reason: The broker's own words.
        status_code: HTTP status of the answer.
        raw: The answer, for the ledger.
    """

    def __init__(self, message: str, reason: str, status_code: int, raw: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.reason = reason
        self.status_code = status_code
        self.raw = dict(raw)


class BrokenRulesError(RejectedError):
    """The order breaks a rule of the broker that was checked here: it was not sent.

    Attributes:
        broken: Every broken rule, as a sentence.
    """

    def __init__(self, message: str, broken: Sequence[str]) -> None:
        super().__init__(message, "; ".join(broken), 0, {"message": "; ".join(broken)})
        self.broken = tuple(broken)


class UnauthorizedError(BrokerError):
    """The broker does not accept the credentials; nothing can be done until they are corrected."""


class DuplicateIdError(AmbiguousError):
    """The broker knows the client id already: the order exists and must be looked up."""


@dataclass(frozen=True)
class BrokerClock:
    """The broker's time and the next turns of the market; all times UTC."""

    now: datetime
    is_open: bool
    next_open: datetime
    next_close: datetime


@dataclass(frozen=True)
class TradingHours:
    """Open and close of one session, UTC."""

    session: date
    open: datetime
    close: datetime


@dataclass(frozen=True)
class Account:
    """Money of the account in USD; `short_value` is negative or zero."""

    account_id: str
    account_number: str
    equity: Decimal
    cash: Decimal
    buying_power: Decimal
    long_value: Decimal
    short_value: Decimal
    previous_equity: Decimal | None
    blocked: bool
    shorting_enabled: bool
    raw: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class BrokerPosition:
    """A holding; shorts have a negative quantity. Prices and values in USD."""

    symbol: str
    quantity: Decimal
    average_price: Decimal
    market_price: Decimal
    market_value: Decimal
    raw: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class OrderRequest:
    """One order to send; exactly what was frozen, already rounded to what the broker takes.

    Attributes:
        quantity: Shares; exactly one of `quantity` and `notional` is set.
        notional: USD to buy or sell for, instead of a number of shares.
        take_profit_price: Limit of the leg that takes the profit; with `stop_loss_price` it makes the
            order a bracket, and one without the other is no order.
        stop_loss_price: Stop of the leg that limits the loss.
    """

    client_order_id: str
    symbol: str
    side: Side
    quantity: Decimal | None
    notional: Decimal | None = None
    order_type: OrderType = "market"
    time_in_force: TimeInForce = "day"
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    take_profit_price: Decimal | None = None
    stop_loss_price: Decimal | None = None

    @property
    def is_bracket(self) -> bool:
        """Whether it has protective legs."""
        return self.take_profit_price is not None or self.stop_loss_price is not None


@dataclass(frozen=True)
class BrokerOrder:
    """An order as the broker holds it.

    Attributes:
        quantity: Shares; None for an order by `notional` (USD).
        order_class: "simple", or "bracket" for an entry and its protective legs.
        parent_order_id: The entry that this order protects; None for every other order.
        replaces: The order that this one took the place of, and `replaced_by` the other way round.
    """

    broker_order_id: str
    client_order_id: str
    symbol: str
    side: Side
    quantity: Decimal | None
    order_type: str
    filled_quantity: Decimal
    average_fill_price: Decimal | None
    status: str
    submitted_at: datetime
    updated_at: datetime
    raw: Mapping[str, Any] = field(repr=False)
    notional: Decimal | None = None
    time_in_force: str = "day"
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    order_class: str = "simple"
    parent_order_id: str | None = None
    replaces: str | None = None
    replaced_by: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether more of it may still fill; a leg that is held until its entry fills is open."""
        return self.status not in _ENDED

    @property
    def protects(self) -> bool:
        """Whether it is a leg of a bracket, which only ever makes a position smaller."""
        return self.parent_order_id is not None

    @property
    def remaining(self) -> Decimal:
        """Signed shares that may still fill: positive buys, negative sells; zero for a notional order.

        `remaining_at` counts notional orders too.
        """
        if self.quantity is None or not self.is_open:
            return Decimal(0)
        return self._signed(self.quantity - self.filled_quantity)

    def remaining_at(self, price: Decimal) -> Decimal:
        """Signed shares that may still fill, those of a notional order at a price in USD."""
        if self.notional is None or not self.is_open:
            return self.remaining
        spent = self.filled_quantity * (self.average_fill_price or Decimal(0))
        return self._signed(max(self.notional - spent, Decimal(0)) / price)

    def _signed(self, shares: Decimal) -> Decimal:
        return shares if self.side == "buy" else -shares


_ENDED = frozenset({"filled", "canceled", "expired", "rejected", "replaced"})


@dataclass(frozen=True)
class Execution:
    """One fill, or the broker's later word on one; `execution_id` identifies it for ever.

    Attributes:
        quantity: Shares, and `price` in USD: those of the fill, for a "correct" what really traded, for a
            "bust" those of the fill that never was.
        kind: "fill"; "bust" takes a fill back, "correct" changes one.
        corrects: `execution_id` of the fill that a bust or correction is about.
    """

    execution_id: str
    broker_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    filled_at: datetime
    raw: Mapping[str, Any] = field(repr=False)
    kind: Literal["fill", "bust", "correct"] = "fill"
    corrects: str | None = None


@dataclass(frozen=True)
class AccountActivity:
    """What changed cash or shares without a fill: dividends, splits, fees, transfers.

    `quantity` is the change of shares (None where there is none), `net_amount` that of cash.
    """

    activity_id: str
    activity_type: str
    activity_date: date
    symbol: str | None
    quantity: Decimal | None
    net_amount: Decimal
    description: str
    raw: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Asset:
    """What the broker lets one do with a symbol today; an inactive one is no longer listed."""

    symbol: str
    tradable: bool
    shortable: bool
    fractionable: bool
    active: bool = True


@dataclass(frozen=True)
class LatestPrice:
    """The last known price of a symbol and when it was made."""

    symbol: str
    price: Decimal
    at: datetime


@dataclass(frozen=True)
class Quote:
    """The best bid and offer of a symbol, USD per share, and when they were made; zero where absent."""

    symbol: str
    bid: Decimal
    ask: Decimal
    at: datetime

    @property
    def mid(self) -> Decimal | None:
        """The middle, USD; None unless both sides are there and do not cross."""
        if self.bid <= 0 or self.ask < self.bid:
            return None
        return (self.bid + self.ask) / 2


@dataclass(frozen=True)
class Split:
    """A split: each old share becomes `ratio` new ones from `ex_date` on."""

    symbol: str
    ex_date: date
    ratio: Decimal


@dataclass(frozen=True)
class Dividend:
    """A cash dividend: USD on each share held before `ex_date`, paid then or weeks later."""

    symbol: str
    ex_date: date
    cash: Decimal


@runtime_checkable
class Broker(Protocol):
    """What the order path needs of a broker.

    Reading methods raise `BrokerError` when no usable answer comes; they may repeat the request.
    """

    @property
    def name(self) -> str:
        """The broker as written into what was observed of it, such as "alpaca"."""
        ...

    @property
    def moves_real_money(self) -> bool:
        """Whether an order sent here is an order in the market."""
        ...

    def clock(self) -> BrokerClock:
        """The broker's time: deadlines are measured with it, never with the local clock."""
        ...

    def calendar(self, first: date, last: date) -> Sequence[TradingHours]:
        """Sessions between both days, inclusive, with their hours."""
        ...

    def account(self) -> Account:
        """The account's money."""
        ...

    def positions(self) -> Sequence[BrokerPosition]:
        """All holdings."""
        ...

    def open_orders(self) -> Sequence[BrokerOrder]:
        """All orders that may still fill, protective legs after the entry they belong to."""
        ...

    def orders_since(self, after: datetime) -> Sequence[BrokerOrder]:
        """All orders, open and ended, that were submitted after a time; legs after their entry."""
        ...

    def order_by_client_id(self, client_order_id: str) -> BrokerOrder | None:
        """The order under a client id; None only when the broker says that it has none.

        Raises:
            AmbiguousError: No usable answer.
        """
        ...

    def submit(self, request: OrderRequest) -> BrokerOrder:
        """Send one order once; only answers that prove non-acceptance are repeated.

        Raises:
            RateLimitedError: Proven not accepted, still limited after the last repetition.
            BrokenRulesError: Not sent, because the broker would refuse it.
            RejectedError: Proven not accepted, for cause.
            AmbiguousError: Anything else.
        """
        ...

    def cancel(self, broker_order_id: str) -> None:
        """Ask for the cancellation of an order; one that has ended already is no error."""
        ...

    def suspend_trading(self, *, suspended: bool) -> None:
        """Set or release the broker's own switch, under which it takes no order at all."""
        ...

    def is_suspended(self) -> bool:
        """Whether that switch is set, by whomever."""
        ...

    def executions(self, since: date) -> Sequence[Execution]:
        """All fills, busts and corrections on or after a day (New York), oldest first."""
        ...

    def activities(self, since: date) -> Sequence[AccountActivity]:
        """All activities other than fills on or after a day, oldest first."""
        ...

    def assets(self) -> Mapping[str, Asset]:
        """Every listed symbol with what may be done with it."""
        ...

    def listings(self) -> Sequence[Asset]:
        """The whole list, one entry per symbol: what was delisted is there as inactive.

        Over-the-counter symbols stay out.
        """
        ...

    def latest_prices(self, symbols: Collection[str]) -> Mapping[str, LatestPrice]:
        """Last prices; symbols without one are left out.

        Whether a price from before a split is in old or new shares differs between brokers (and hours
        of the day): where it matters, `closes_before` is asked.
        """
        ...

    def latest_quotes(self, symbols: Collection[str]) -> Mapping[str, Quote]:
        """Best bids and offers; symbols without a quote are left out."""
        ...

    def closes_before(self, symbols: Collection[str], day: date) -> Mapping[str, LatestPrice]:
        """Closes of the last session before a day, as traded, in the shares of that session."""
        ...

    def splits(self, first: date, last: date) -> Sequence[Split]:
        """Splits with an ex-date between both days, inclusive."""
        ...

    def dividends(self, symbols: Collection[str], first: date, last: date) -> Sequence[Dividend]:
        """Cash dividends of some symbols with an ex-date between both days, inclusive."""
        ...
