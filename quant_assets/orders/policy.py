"""The rules of trading that a user sets: mode, allocation, order style, limits, breakers. Safe where not set.

Belongs here: one validated, immutable model. A limit that is empty, unknown or absurd refuses to trade:
there is no way to switch one off. Does not belong here: applying them (`limits/`, `breakers.py`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from quant_resources.errors import ConfigurationError
from quant_resources.order_rules import is_symbol
from quant_resources.settings import TradingMode

_Fraction = Annotated[Decimal, Field(gt=0, le=1, allow_inf_nan=False)]
_Loss = Annotated[Decimal, Field(gt=0, le=Decimal("0.5"), allow_inf_nan=False)]
_Exposure = Annotated[Decimal, Field(gt=0, le=4, allow_inf_nan=False)]
_Dollars = Annotated[Decimal, Field(gt=0, le=50_000_000, allow_inf_nan=False)]
_Offset = Annotated[Decimal, Field(ge=0, le=500, allow_inf_nan=False)]
BreakerState = Literal["REDUCING", "HALTED"]


class Limits(BaseModel):
    """Bounds of what may be sent; every one has a default and a ceiling.

    Exposure and weights are fractions of equity, with what is held, what is open and what is sent all
    counted as filled.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name_weight: _Fraction = Field(
        Decimal("0.10"), description="Largest position in one symbol, fraction of equity."
    )
    concentration: _Exposure = Field(
        Decimal("0.60"), description="Sum of the five largest absolute weights."
    )
    gross_exposure: _Exposure = Field(Decimal("1.5"), description="Long + short over equity.")
    net_exposure: _Exposure = Field(
        Decimal("1.0"), description="Absolute value of long - short, over equity."
    )
    position_notional: _Dollars = Field(Decimal(500_000), description="USD of one position.")
    order_notional: _Dollars = Field(Decimal(250_000), description="USD of one order.")
    volume_share: _Fraction = Field(
        Decimal("0.05"),
        description="Shares sent and open in one symbol, of its average volume of 20 sessions.",
    )
    price_collar: Annotated[Decimal, Field(gt=0, le=Decimal("0.5"), allow_inf_nan=False)] = Field(
        Decimal("0.05"),
        description="Distance of the reference and the limit price from the last quote, of the quote.",
    )
    buying_power_reserve: Decimal = Field(
        Decimal("0.02"), ge=0, lt=1, allow_inf_nan=False, description="Buying power left unspent."
    )
    quote_age_minutes: int = Field(
        30,
        ge=1,
        le=390,
        description="Age from which a price is stale: minutes since it was made, before the open "
        "minutes before the previous close.",
    )
    orders_per_session: int = Field(
        2_000, ge=1, le=10_000, description="Orders of a trading session, all attempts together."
    )
    daily_loss: _Loss = Field(
        Decimal("0.05"), description="Loss since the close before, of the equity then."
    )
    drawdown: Annotated[Decimal, Field(gt=0, le=Decimal("0.8"), allow_inf_nan=False)] = Field(
        Decimal("0.20"), description="Loss since the highest equity, of the highest equity."
    )
    restricted: tuple[str, ...] = Field((), description="Symbols that are never traded.")

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError(  # noqa: TRY004 - pydantic reports a ValueError with the field's name
                f"{str(value).lower()} is no bound: a limit cannot be switched on or off"
            )
        return value

    @field_validator("restricted")
    @classmethod
    def _tickers(cls, symbols: tuple[str, ...]) -> tuple[str, ...]:
        for symbol in symbols:
            if not is_symbol(symbol):
                # One in small letters, say, would never match anything.
                raise ValueError(f"{symbol!r} is no ticker as brokers write it, such as BRK.B")
        return symbols


class OrderStyle(BaseModel):
    """How the orders of a strategy are given: type, time in force, sizing, protection.

    Attributes:
        limit_offset_bps: How far a limit order pays up: limit = reference x (1 + offset) for buys,
            x (1 - offset) for sells.
        stop_offset_bps: How far the market must move before a stop order is given: stop = reference x
            (1 + offset) for buys, x (1 - offset) for sells.
        stop_loss: Distance of the stop loss from the entry's price where the signal gives none.
        take_profit: Distance of the take profit from the entry's price where the signal gives none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    order_type: Literal["market", "limit", "stop"] = "market"
    limit_offset_bps: _Offset = Decimal(20)
    stop_offset_bps: _Offset = Decimal(20)
    time_in_force: Literal["day", "opg", "cls", "gtc"] = "day"
    sizing: Literal["shares", "notional"] = "shares"
    brackets: bool = False
    stop_loss: _Loss = Decimal("0.02")
    take_profit: _Loss = Decimal("0.04")

    @model_validator(mode="after")
    def _possible(self) -> OrderStyle:
        auction = self.time_in_force in ("opg", "cls")
        if auction and self.order_type == "stop":
            raise ValueError("an auction (opg, cls) takes market and limit orders, no stop orders")
        if self.brackets and auction:
            raise ValueError("brackets are day or gtc orders, not for an auction (opg, cls)")
        if self.brackets and self.order_type == "stop":
            raise ValueError("the entry of a bracket is a market or a limit order")
        if self.sizing == "notional" and self.brackets:
            raise ValueError("brackets are sized in whole shares, not in dollars (notional)")
        if self.sizing == "notional" and (self.time_in_force != "day" or self.order_type == "stop"):
            raise ValueError("notional orders are market or limit orders for the day")
        return self


class Breakers(BaseModel):
    """What trips the circuit breakers, and what HALTED does to what is open.

    The bounds of loss and drawdown are those of `Limits`: at the bound the limit refuses what opens, and
    the breaker sets the trading state, which only a person takes back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    daily_loss_state: BreakerState = "HALTED"
    drawdown_state: BreakerState = "HALTED"
    rejects: int = Field(
        5, ge=1, le=100, description="Orders refused by the broker in one session: HALTED."
    )
    stale_share: _Fraction = Field(
        Decimal("0.5"), description="Share of a batch refused as stale, above it: REDUCING."
    )
    cancel_open_orders: bool = Field(
        False, description="HALTED cancels open entry orders, never protective ones."
    )
    suspend_at_broker: bool = Field(False, description="HALTED sets the broker's own switch.")


class Reconciling(BaseModel):
    """How far ledger and broker may differ before trading is halted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantity: Decimal = Field(Decimal("0.000001"), ge=0, le=1, description="Shares.")
    average_price: Decimal = Field(Decimal("0.01"), ge=0, le=1, description="USD per share.")
    cash: Decimal = Field(Decimal("1.00"), ge=0, le=10_000, description="USD.")


class Sending(BaseModel):
    """Deadlines of orders and the waits of the submission protocol."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    send_until_minutes_before_close: int = Field(
        15, ge=0, le=380, description="Deadline of an intent: past it, it is never sent."
    )
    look_ups: int = Field(3, ge=2, le=20, description="Look-ups before an order counts as absent.")
    look_up_wait_seconds: float = Field(
        2.0, ge=0, le=60, description="Wait between two look-ups of an ambiguous order."
    )
    resends: int = Field(2, ge=0, le=5, description="Times an absent order is sent again per pass.")


class TradingPolicy(BaseModel):
    """Everything that decides what is sent, where and how much.

    Attributes:
        mode: `dry_run` records and sends nothing; `live` needs `live_account` too.
        allocations: Strategy to its fraction of equity; strategies that are not named share the
            rest equally. Empty: equal shares.
        style: How orders are given where a strategy has no style of its own.
        styles: Strategy to its style; what it does not name is the book's (`style`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: TradingMode = "dry_run"
    live_account: str | None = None
    book: str = Field("main", pattern=r"^[a-z0-9_]{1,32}$")
    allocations: dict[str, Decimal] = Field(default_factory=dict)
    fractional: bool = Field(False, description="Longs of fractionable symbols in fractions.")
    smallest_trade: Decimal = Field(
        Decimal(100), ge=1, le=100_000, description="USD below which a position is not adjusted."
    )
    strategy_gross: Decimal = Field(
        Decimal(1), gt=0, le=4, description="Largest sum of absolute target weights of a strategy."
    )
    oldest_price_days: int = Field(
        5, ge=1, le=30, description="Days after which a price counts as none."
    )
    style: OrderStyle = Field(default_factory=lambda: OrderStyle.model_validate({}))
    styles: dict[str, OrderStyle] = Field(default_factory=dict)
    limits: Limits = Field(default_factory=lambda: Limits.model_validate({}))
    breakers: Breakers = Field(default_factory=lambda: Breakers.model_validate({}))
    reconciling: Reconciling = Field(default_factory=lambda: Reconciling.model_validate({}))
    sending: Sending = Field(default_factory=lambda: Sending.model_validate({}))

    @model_validator(mode="before")
    @classmethod
    def _styles_begin_with_the_books(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        book, styles = values.get("style"), values.get("styles")
        if not isinstance(book, dict) or not isinstance(styles, dict):
            return values
        own = {
            name: {**book, **style} if isinstance(style, dict) else style
            for name, style in styles.items()
        }
        return {**values, "styles": own}

    @model_validator(mode="after")
    def _allocations_sum(self) -> TradingPolicy:
        for name, share in self.allocations.items():
            if not share.is_finite() or not 0 <= share <= 1:
                raise ValueError(f"allocation of {name} is {share}, it must lie in 0..1")
        if sum(self.allocations.values(), Decimal(0)) > 1:
            raise ValueError("allocations sum to more than 1")
        return self

    def allocation_of(self, strategies: Sequence[str]) -> dict[str, Decimal]:
        """Fraction of equity of each strategy; what is not named shares the rest equally.

        Raises:
            ConfigurationError: A strategy named here or under `styles` does not exist.
        """
        for what, names in (("An allocation", self.allocations), ("A style", self.styles)):
            unknown = sorted(set(names) - set(strategies))
            if unknown:
                raise ConfigurationError(
                    f"{what} names the strategy {unknown[0]!r}, which does not exist; strategies "
                    f"are {', '.join(sorted(strategies)) or 'none'}."
                )
        named = [name for name in strategies if name in self.allocations]
        others = [name for name in strategies if name not in self.allocations]
        rest = 1 - sum((self.allocations[name] for name in named), Decimal(0))
        return {name: self.allocations[name] for name in named} | {
            name: (rest / len(others)).quantize(Decimal("1e-9"), "ROUND_DOWN") for name in others
        }

    def style_of(self, strategies: Collection[str]) -> OrderStyle:
        """The style of an order that all these strategies want: their common one, else the book's."""
        styles = [self.styles.get(name, self.style) for name in strategies]
        common = bool(styles) and all(style == styles[0] for style in styles)
        return styles[0] if common else self.style


def load_policy(file: Path | None = None, **overrides: Any) -> TradingPolicy:
    """The policy of a TOML file (if there is one) with overrides from the settings.

    Args:
        file: TOML with the fields of `TradingPolicy`, limits under `[limits]`; absent: the defaults.
        overrides: Fields that win over the file: mode, live_account, book.

    Raises:
        ConfigurationError: The file is no TOML, or a value is missing, unknown or absurd.
    """
    values: dict[str, Any] = {}
    if file is not None and file.exists():
        try:
            values = tomllib.loads(file.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"{file} is no TOML ({error}); nothing is traded until it is corrected."
            ) from error
    try:
        return TradingPolicy.model_validate(values | overrides)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'policy'}: {item['msg']}"
            for item in error.errors()
        )
        where = f" in {file}" if values else ""
        raise ConfigurationError(
            f"The trading policy{where} is wrong: {wrong}; nothing is traded until it is corrected."
        ) from None
