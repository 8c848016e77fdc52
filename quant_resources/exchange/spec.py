"""The specification of a local exchange: which market, which account, which costs.

A specification is frozen, turns into JSON and back without loss, and never changes once a state
folder has been created from it.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from quant_resources.errors import ConfigurationError


class MarketSpec(BaseModel):
    """What the exchange trades and how it treats orders.

    The clock of a new exchange stands at midnight New York at the start of `first_session`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["stochastic", "history"] = "stochastic"
    seed: int = Field(default=7, ge=0, description="Seed of the stochastic market.")
    symbols: int = Field(
        default=100, ge=3, le=5000, description="Listings of the stochastic market."
    )
    first_session: date | None = Field(
        default=None, description="First session; history: defaults to the first in the folder."
    )
    last_session: date | None = Field(
        default=None, description="Last session; history: defaults to the last in the folder."
    )
    sessions_beyond: int = Field(
        default=20,
        ge=0,
        le=1000,
        description="Sessions the stochastic market goes on after last_session.",
    )
    folder: Path | None = Field(default=None, description="Folder or file of the replayed history.")
    starting_cash: Decimal = Field(default=Decimal(1_000_000), gt=0, description="USD.")
    volume_share: Decimal = Field(
        default=Decimal("0.10"),
        gt=0,
        le=1,
        description="Share of a session's volume that orders may take.",
    )
    half_spread_bps: Decimal = Field(default=Decimal(2), ge=0, description="Paid by market orders.")
    impact_bps: Decimal = Field(
        default=Decimal(10),
        ge=0,
        description="Impact at 100 % of volume; scales with its square root.",
    )

    @field_validator("folder")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value is not None else None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "history" and self.folder is None:
            raise ValueError("a history market needs `folder`, the folder of its bars")
        if self.kind == "stochastic" and (self.first_session is None or self.last_session is None):
            raise ValueError("a stochastic market needs `first_session` and `last_session`")
        if self.first_session and self.last_session and self.first_session > self.last_session:
            raise ValueError(
                f"first_session {self.first_session} is after last_session {self.last_session}"
            )
        return self

    @classmethod
    def from_json(cls, text: str) -> MarketSpec:
        """Read a specification from JSON.

        Raises:
            ConfigurationError: The text is no valid specification.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'spec'}: {item['msg']}"
                for item in error.errors()
            )
            raise ConfigurationError(f"The market specification is wrong: {wrong}.") from None

    def differences(self, other: MarketSpec) -> list[str]:
        """The fields in which two specifications differ, as `name: mine → other`."""
        mine, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        return [f"{key}: {mine[key]} → {theirs[key]}" for key in mine if mine[key] != theirs[key]]
