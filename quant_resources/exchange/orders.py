"""Values that pass between the parts of the exchange: orders, executions, bars. Immutable."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

ZERO = Decimal(0)
SHARE_STEP = Decimal("1e-9")
PRICE_STEP = Decimal("0.0001")

# A leg is held until its entry has filled; then it is new, like any order that the market has.
HELD = "held"
OPEN_STATUSES = frozenset({"accepted", "new", "partially_filled", HELD})


@dataclass(frozen=True)
class TradedBar:
    """A session's bar in the exact numbers that orders are matched with (USD, shares)."""

    session: date
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


@dataclass(frozen=True)
class Execution:
    """What an order gets from a bar: `quantity` shares at `price` USD."""

    quantity: Decimal
    price: Decimal


@dataclass(frozen=True)
class Order:
    """An order as the exchange keeps it.

    Attributes:
        sequence: Position in the order of submission.
        quantity: Shares; None for a notional order.
        notional: USD; None for an order in shares.
        eligible_session: The first session in which it can trade.
        filled_value: Sum of quantity times price over its fills, USD.
        stop_price: The price that triggers a stop or stop-limit order.
        order_class: "simple", or "bracket" for an entry and its two legs.
        parent_id: The entry of a leg; None for every other order.
        group_id: What the orders of a bracket share, replacements among them.
        replaces: The order that this one took the place of; `replaced_by` leads the other way.
        close_only: The session in which it trades at the close only, because it came (or was released)
            after the open and a daily bar does not say when its range was traded.
        triggered_at: When the stop price was reached; from then on the order is a market or limit one.
    """

    sequence: int
    order_id: str
    client_order_id: str
    symbol: str
    side: str
    order_type: str
    time_in_force: str
    quantity: Decimal | None
    notional: Decimal | None
    limit_price: Decimal | None
    position_intent: str
    status: str
    eligible_session: date
    submitted_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    filled_quantity: Decimal = ZERO
    filled_value: Decimal = ZERO
    filled_at: datetime | None = None
    canceled_at: datetime | None = None
    expired_at: datetime | None = None
    stop_price: Decimal | None = None
    order_class: str = "simple"
    parent_id: str | None = None
    group_id: str | None = None
    replaces: str | None = None
    replaced_by: str | None = None
    replaced_at: datetime | None = None
    close_only: date | None = None
    triggered_at: datetime | None = None

    @property
    def is_leg(self) -> bool:
        """Whether it protects what a bracket's entry has bought or sold."""
        return self.parent_id is not None

    @property
    def group_role(self) -> str | None:
        """What it does in its bracket: entry, take_profit or stop_loss; None outside of one."""
        if self.order_class != "bracket":
            return None
        if not self.is_leg:
            return "entry"
        return "take_profit" if self.order_type == "limit" else "stop_loss"

    @property
    def waits_for_stop(self) -> bool:
        """Whether the price has yet to reach the stop."""
        return self.stop_price is not None and self.triggered_at is None

    @property
    def is_open(self) -> bool:
        """Whether the order can still fill."""
        return self.status in OPEN_STATUSES

    @property
    def sign(self) -> int:
        """+1 for a purchase, -1 for a sale."""
        return 1 if self.side == "buy" else -1

    @property
    def average_fill_price(self) -> Decimal | None:
        """Volume-weighted price of the fills, USD; None without fills."""
        return self.filled_value / self.filled_quantity if self.filled_quantity else None

    def remaining(self, price: Decimal) -> Decimal:
        """Shares still wanted; a notional order wants what its remaining USD buy at `price`."""
        if self.quantity is not None:
            return self.quantity - self.filled_quantity
        assert self.notional is not None  # noqa: S101 - one of the two is always given
        return ((self.notional - self.filled_value) / price).quantize(SHARE_STEP, "ROUND_DOWN")


def is_whole(quantity: Decimal | None) -> bool:
    """Whether an order is for whole shares; a notional order (None) never is."""
    return quantity is not None and quantity == quantity.to_integral_value()


def plain(value: Decimal) -> str:
    """A Decimal as Alpaca writes numbers: no exponent, no trailing zeros."""
    return format(value.normalize() + ZERO, "f")
