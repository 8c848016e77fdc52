"""The broker as the order path sees it: one small protocol, its value types and its errors.

Belongs here: what every broker must offer, in exact numbers and aware times. Does not belong here: any
broker's wire format (`alpaca_broker.py` holds Alpaca's) and any decision about orders.

An error of `submit` says what is known about the order, because that decides what may be done next:
`RateLimitedError` and `RejectedError` prove that the broker does not have it, `AmbiguousError` proves
nothing and must be followed by a look-up under the same client id.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, Protocol, runtime_checkable

from quant_resources.errors import BrokerError

Side = Literal["buy", "sell"]


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
    """One order to send; exactly what was frozen, already rounded to what the broker takes."""

    client_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    order_type: str = "market"
    time_in_force: str = "day"
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    take_profit_price: Decimal | None = None
    stop_loss_price: Decimal | None = None


@dataclass(frozen=True)
class BrokerOrder:
    """An order as the broker holds it."""

    broker_order_id: str
    client_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    order_type: str
    filled_quantity: Decimal
    average_fill_price: Decimal | None
    status: str
    submitted_at: datetime
    updated_at: datetime
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def is_open(self) -> bool:
        """Whether more of it may still fill."""
        return self.status not in _ENDED

    @property
    def remaining(self) -> Decimal:
        """Signed quantity that may still fill: positive buys, negative sells."""
        left = self.quantity - self.filled_quantity if self.is_open else Decimal(0)
        return left if self.side == "buy" else -left


_ENDED = frozenset({"filled", "canceled", "expired", "rejected", "replaced"})


@dataclass(frozen=True)
class Execution:
    """One fill; `execution_id` is the broker's and identifies it for ever."""

    execution_id: str
    broker_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    filled_at: datetime
    raw: Mapping[str, Any] = field(repr=False)


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
class Split:
    """A split: each old share becomes `ratio` new ones from `ex_date` on."""

    symbol: str
    ex_date: date
    ratio: Decimal


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
        """All orders that may still fill."""
        ...

    def orders_since(self, after: datetime) -> Sequence[BrokerOrder]:
        """All orders, open and ended, that were submitted after a time."""
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
            RejectedError: Proven not accepted, for cause.
            AmbiguousError: Anything else.
        """
        ...

    def cancel(self, broker_order_id: str) -> None:
        """Ask for the cancellation of an order; one that has ended already is no error."""
        ...

    def executions(self, since: date) -> Sequence[Execution]:
        """All fills on or after a day (New York), oldest first."""
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

    def closes_before(self, symbols: Collection[str], day: date) -> Mapping[str, LatestPrice]:
        """Closes of the last session before a day, as traded, in the shares of that session."""
        ...

    def splits(self, first: date, last: date) -> Sequence[Split]:
        """Splits with an ex-date between both days, inclusive."""
        ...
