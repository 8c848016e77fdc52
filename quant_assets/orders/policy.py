"""The rules of trading that a user sets: mode, allocation, order style, limits. Safe where not set.

Belongs here: one validated, immutable model. A limit that is missing, unknown or absurd refuses to trade:
there is no way to switch one off. Does not belong here: applying them (`risk_limits.py`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from quant_resources.errors import ConfigurationError
from quant_resources.settings import TradingMode

_Fraction = Annotated[Decimal, Field(gt=0, le=1, allow_inf_nan=False)]


class Limits(BaseModel):
    """Bounds of what may be sent; every one has a default and a ceiling."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name_weight: _Fraction = Field(
        Decimal("0.10"), description="Largest position in one symbol, fraction of equity."
    )
    gross_exposure: Decimal = Field(
        Decimal("1.5"), gt=0, le=4, allow_inf_nan=False, description="Long + short over equity."
    )
    order_notional: Decimal = Field(
        Decimal(250_000), gt=0, le=50_000_000, allow_inf_nan=False, description="USD of one order."
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
    orders_per_session: int = Field(2_000, ge=1, le=10_000, description="Orders of one batch.")
    restricted: tuple[str, ...] = Field((), description="Symbols that are never traded.")


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
    limits: Limits = Field(default_factory=lambda: Limits.model_validate({}))
    reconciling: Reconciling = Field(default_factory=lambda: Reconciling.model_validate({}))
    sending: Sending = Field(default_factory=lambda: Sending.model_validate({}))

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
            ConfigurationError: A named strategy does not exist.
        """
        unknown = sorted(set(self.allocations) - set(strategies))
        if unknown:
            raise ConfigurationError(
                f"An allocation names the strategy {unknown[0]!r}, which does not exist; strategies "
                f"are {', '.join(sorted(strategies)) or 'none'}."
            )
        named = [name for name in strategies if name in self.allocations]
        others = [name for name in strategies if name not in self.allocations]
        rest = 1 - sum((self.allocations[name] for name in named), Decimal(0))
        return {name: self.allocations[name] for name in named} | {
            name: (rest / len(others)).quantize(Decimal("1e-9"), "ROUND_DOWN") for name in others
        }


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
