"""Settings: everything a user may choose, read once from the environment (prefix `QUANT_`) and `.env`.

Secrets are `SecretStr`, so that they never print. Nothing else in the project reads the environment.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from quant_resources.errors import ConfigurationError

TradingMode = Literal["dry_run", "paper", "live"]
#: Where bars can come from.
BarOrigin = Literal["alpaca", "exchange", "files", "yfinance"]
DividendConvention = Literal["crsp", "wiki"]

LAYOUT_FILE = "files.toml"

ALPACA_DATA_URL = "https://data.alpaca.markets"
ALPACA_TRADING_URLS = {
    "paper": "https://paper-api.alpaca.markets",
    "live": "https://api.alpaca.markets",
}


class Settings(BaseSettings):
    """All settings with the defaults that make a fresh checkout work: the local exchange on loopback."""

    model_config = SettingsConfigDict(
        env_prefix="QUANT_", env_file=".env", extra="ignore", populate_by_name=True
    )

    data_root: Path = Field(
        Path(".quant"), description="Folder of data, ledger and exchange state."
    )
    database_url: SecretStr | None = Field(
        None, description="External PostgreSQL of the ledger; unset: the embedded server."
    )
    dagster_database_url: SecretStr | None = Field(
        None, description="Dagster's own database; unset: beside the ledger's."
    )
    source: Literal["exchange", "alpaca"] = Field(
        "exchange", description="Where market data and orders go: the local exchange or Alpaca."
    )
    bars: Literal["", "alpaca", "exchange", "files", "yfinance"] = Field(
        "", description="Where bars come from; empty: from where orders go (QUANT_SOURCE)."
    )
    second_source: Literal["", "alpaca", "exchange", "files", "yfinance"] = Field(
        "", description="Another source that every session's bars are compared with; empty: none."
    )
    files: Path | None = Field(
        None, description="Layout of bars in files; unset: files.toml in the data root."
    )
    second_source_tolerance: float = Field(
        0.001,
        ge=0,
        lt=1,
        description="Relative difference of a price that two sources may have.",
    )
    second_source_volume_tolerance: float = Field(
        0.05,
        ge=0,
        description="Relative difference of a volume that two sources may have: vendors count odd "
        "lots, late reports and corrections differently.",
    )
    dividend_convention: DividendConvention = Field(
        "crsp",
        description="Price factor of a dividend: crsp (1 - D / close before) or wiki "
        "(close / (close + D)). A data root keeps the one it began with.",
    )
    trading_mode: TradingMode = Field("dry_run", description="dry_run sends nothing.")
    live_account: str | None = Field(
        None, description="The second switch of live trading: the broker's account number."
    )
    book: str = Field("main", description="Name of the portfolio; part of every client_order_id.")
    feed: Literal["iex", "sip", "delayed_sip"] = Field("iex", description="Alpaca data feed.")
    symbols: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Symbols to ingest, separated by commas; empty: all listed."
    )
    universe_size: int = Field(500, ge=1, le=10_000, description="Names in the universe.")
    universe_membership: Path | None = Field(
        None,
        description="CSV or Parquet of index members (symbol, start_date, end_date exclusive); the "
        "universe holds members only.",
    )
    data_url: str | None = Field(None, description="Market data address; unset: by source.")
    trading_url: str | None = Field(None, description="Trading address; unset: by source and mode.")
    requests_per_minute: int = Field(200, ge=1, description="Rate limit towards Alpaca.")
    alpaca_api_key: SecretStr | None = Field(None, alias="ALPACA_API_KEY")
    alpaca_secret_key: SecretStr | None = Field(None, alias="ALPACA_SECRET_KEY")

    @field_validator("data_root")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("files", "universe_membership", mode="before")
    @classmethod
    def _unset_when_empty(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("files", "universe_membership")
    @classmethod
    def _absolute_when_set(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("symbols", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.startswith("["):
            return json.loads(value)
        return tuple(symbol.strip().upper() for symbol in value.split(",") if symbol.strip())

    @field_validator("book")
    @classmethod
    def _book_is_a_word(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9_]{1,32}", value):
            raise ValueError("a book is 1 to 32 lower-case letters, digits or underscores")
        return value

    @model_validator(mode="after")
    def _sources_fit(self) -> Settings:
        if self.second_source == self.bars_from:
            raise ValueError(
                f"the second source is {self.second_source} like the first, and would confirm its "
                "mistakes; set QUANT_SECOND_SOURCE to another one or unset it"
            )
        if "yfinance" in (self.bars_from, self.second_source) and not self.symbols:
            raise ValueError(
                "Yahoo has no list of what it holds; name the symbols in QUANT_SYMBOLS to use "
                "yfinance"
            )
        return self

    @property
    def bars_from(self) -> BarOrigin:
        """Where bars come from: the one that was chosen, or where orders go."""
        return self.bars or self.source

    @property
    def files_layout(self) -> Path:
        """The file that says how bars lie in files."""
        return self.files or self.data_root / LAYOUT_FILE

    @property
    def needs_alpaca(self) -> bool:
        """Whether anything is asked of Alpaca itself, so that its keys are needed."""
        return "alpaca" in (self.source, self.bars_from, self.second_source)

    @property
    def resolved_data_url(self) -> str | None:
        """The market data address; None while the local exchange's is not known yet."""
        return self.data_url or (ALPACA_DATA_URL if self.source == "alpaca" else None)

    @property
    def resolved_trading_url(self) -> str | None:
        """The trading address; None while the local exchange's is not known yet."""
        if self.trading_url or self.source != "alpaca":
            return self.trading_url
        return ALPACA_TRADING_URLS["live" if self.trading_mode == "live" else "paper"]


def load_settings(**overrides: object) -> Settings:
    """Read the settings, turning pydantic's report into one sentence per wrong variable.

    Raises:
        ConfigurationError: A variable holds something it may not hold; the value is not repeated,
            since it may be a secret.
    """
    try:
        return Settings(**overrides)  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        wrong = "; ".join(
            ": ".join(
                [*map(str, item["loc"]), item["msg"].removeprefix("Value error, ")],
            )
            for item in error.errors()
        )
        raise ConfigurationError(
            f"Settings are wrong: {wrong} (variables QUANT_…, ALPACA_…)."
        ) from None
    except SettingsError as error:
        raise ConfigurationError(f"Settings cannot be read: {error}.") from None
