"""Dagster resources: settings become the store, the ledger, the broker and the source of bars.

Each is a `ConfigurableResource` that yields a plain object, so that assets and tests use the object and
not Dagster's wrapper. Secrets arrive by `EnvVar`, so that they are in no run's configuration.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from quant_resources.alpaca_bars import AlpacaBars
from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.bar_source import BarSource
from quant_resources.broker import Broker
from quant_resources.exchange.process import EXCHANGE_FOLDER, ensure_exchange
from quant_resources.landing import Landing
from quant_resources.launch import LOCAL_KEY
from quant_resources.ledger.ledger import Ledger
from quant_resources.postgres import ensure_postgres
from quant_resources.request_pace import meeting_place
from quant_resources.settings import (
    ALPACA_DATA_URL,
    ALPACA_TRADING_URLS,
    BarOrigin,
    Settings,
)
from quant_resources.store import Store

#: What is made of bar files so that they are read once, below the data root.
FILE_CACHE = "file_cache"
YAHOO_CACHE = "yahoo_cache"


class StoreResource(dg.ConfigurableResource[Store]):
    """The data root.

    Attributes:
        root: Folder or object-store URL.
    """

    root: str

    def create_resource(self, context: dg.InitResourceContext) -> Store:  # noqa: ARG002
        """Open the store; nothing is created before something is written."""
        return Store(self.root)


class LedgerResource(dg.ConfigurableResource[Ledger]):
    """The ledger; the embedded server is started when it is not running.

    Attributes:
        data_root: Folder of the embedded server.
        database_url: External PostgreSQL; empty for the embedded one.
    """

    data_root: str
    database_url: str = ""

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Ledger]:  # noqa: ARG002
        """Connect for the length of a run."""
        url = self.database_url or ensure_postgres(Path(self.data_root)).ledger_url
        ledger = Ledger(url)
        try:
            yield ledger
        finally:
            ledger.dispose()


class _AlpacaAddress(dg.ConfigurableResource[Any]):
    """Where Alpaca's API is spoken: by Alpaca, or by the local exchange under the data root.

    Attributes:
        data_root: Folder of the local exchange.
        data_url: Market data address; empty for the local exchange.
        trading_url: Trading address; empty for the local exchange.
        api_key: Key id.
        secret_key: Secret key.
        feed: Data feed.
        requests_per_minute: Rate limit; 0 for none.
    """

    data_root: str
    data_url: str = ""
    trading_url: str = ""
    api_key: str = LOCAL_KEY
    secret_key: str = LOCAL_KEY
    feed: str = "iex"
    requests_per_minute: int = 0

    def _addresses(self) -> tuple[str, str]:
        if self.data_url and self.trading_url:
            return self.data_url, self.trading_url
        # Asked for anew by every run: a restarted exchange may answer on another port.
        local = ensure_exchange(Path(self.data_root) / EXCHANGE_FOLDER, None).url
        return self.data_url or local, self.trading_url or local

    def _pace_folder(self) -> Path | None:
        return meeting_place() if self.requests_per_minute else None


class BrokerResource(_AlpacaAddress):
    """The broker's account."""

    def create_resource(self, context: dg.InitResourceContext) -> Broker:  # noqa: ARG002
        """Build the client; nothing is asked yet."""
        data_url, trading_url = self._addresses()
        return AlpacaBroker(
            trading_url=trading_url,
            data_url=data_url,
            api_key=self.api_key,
            secret_key=self.secret_key,
            requests_per_minute=self.requests_per_minute or None,
            pace_folder=self._pace_folder(),
            feed=self.feed,
        )


class AlpacaBarsResource(_AlpacaAddress):
    """Bars and corporate actions of Alpaca, or of the local exchange.

    Attributes:
        symbols: Symbols to ingest; empty for all that are listed.
    """

    symbols: list[str] = Field(default_factory=list)

    def create_resource(self, context: dg.InitResourceContext) -> BarSource:  # noqa: ARG002
        """Build the client; nothing is asked yet."""
        data_url, trading_url = self._addresses()
        return AlpacaBars(
            data_url=data_url,
            trading_url=trading_url,
            api_key=self.api_key,
            secret_key=self.secret_key,
            feed=self.feed,
            symbols=tuple(self.symbols),
            requests_per_minute=self.requests_per_minute or None,
            pace_folder=self._pace_folder(),
            landing=Landing(Path(self.data_root)),
        )

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """The run has stored what it fetched: its landed answers are not needed any more."""
        Landing(Path(self.data_root)).tidy()


class FileBarsResource(dg.ConfigurableResource[Any]):
    """Bars and corporate actions in Parquet or CSV files.

    Attributes:
        layout: File that says where they lie and what their columns mean.
        cache: Folder for what is made of them.
        symbols: Symbols to ingest; empty for all that the files hold.
    """

    layout: str
    cache: str
    symbols: list[str] = Field(default_factory=list)

    def create_resource(self, context: dg.InitResourceContext) -> BarSource:  # noqa: ARG002
        """Read the layout; the data files are read when they are asked for."""
        from quant_resources.file_bars import FileBars

        return FileBars.from_layout(Path(self.layout), Path(self.cache), self.symbols)


class YahooBarsResource(dg.ConfigurableResource[Any]):
    """Bars and corporate actions of Yahoo through yfinance, which is an extra.

    Attributes:
        symbols: Symbols to ingest.
        cache: Folder of yfinance's own cookies and time zones.
    """

    symbols: list[str]
    cache: str

    def create_resource(self, context: dg.InitResourceContext) -> BarSource:  # noqa: ARG002
        """Import yfinance; nothing is asked yet."""
        from quant_resources.yfinance_bars import YFinanceBars

        return YFinanceBars(self.symbols, Path(self.cache))


def platform_resources(settings: Settings) -> dict[str, Any]:
    """The resources of the settings by key.

    Returns:
        ``store``, ``ledger``, ``broker``, ``bar_source`` and ``second_bar_source``, which is None
        where no second source is configured.
    """
    external = settings.database_url is not None
    return {
        "store": StoreResource(root=str(settings.data_root)),
        "ledger": LedgerResource(
            data_root=str(settings.data_root),
            database_url=dg.EnvVar("QUANT_DATABASE_URL") if external else "",
        ),
        "broker": BrokerResource(**_alpaca_address(settings, settings.source)),
        "bar_source": _bar_source(settings, settings.bars_from),
        "second_bar_source": (
            _bar_source(settings, settings.second_source)
            if settings.second_source
            else dg.ResourceDefinition.none_resource("No second source of bars is configured.")
        ),
    }


def refuse_unusable_sources(settings: Settings) -> None:
    """Say at once what a run would only meet when it makes its sources.

    Raises:
        ConfigurationError: The layout of the files is missing or wrong, or yfinance not installed.
    """
    chosen = (settings.bars_from, settings.second_source)
    if "files" in chosen:
        from quant_resources.file_layout import load_layout

        load_layout(settings.files_layout)
    if "yfinance" in chosen:
        from quant_resources.yfinance_bars import require_yfinance

        require_yfinance()


def _bar_source(settings: Settings, origin: BarOrigin) -> dg.ConfigurableResource[Any]:
    symbols = list(settings.symbols)
    if origin == "files":
        return FileBarsResource(
            layout=str(settings.files_layout),
            cache=str(settings.data_root / FILE_CACHE),
            symbols=symbols,
        )
    if origin == "yfinance":
        return YahooBarsResource(symbols=symbols, cache=str(settings.data_root / YAHOO_CACHE))
    return AlpacaBarsResource(**_alpaca_address(settings, origin), symbols=symbols)


def _alpaca_address(settings: Settings, origin: Literal["alpaca", "exchange"]) -> dict[str, Any]:
    address: dict[str, Any] = {"data_root": str(settings.data_root), "feed": settings.feed}
    if origin == settings.source:
        address["data_url"] = settings.resolved_data_url or ""
        address["trading_url"] = settings.resolved_trading_url or ""
    elif origin == "alpaca":
        # Orders go elsewhere: of Alpaca only bars, the clock and the list of symbols are read.
        address["data_url"] = ALPACA_DATA_URL
        address["trading_url"] = ALPACA_TRADING_URLS["paper"]
    if origin == "alpaca":
        address["requests_per_minute"] = settings.requests_per_minute
    # Alpaca's keys are not shown to a local exchange that stands beside it.
    if origin == "alpaca" or (origin == settings.source and settings.alpaca_api_key is not None):
        address["api_key"] = dg.EnvVar("ALPACA_API_KEY")
        address["secret_key"] = dg.EnvVar("ALPACA_SECRET_KEY")
    return address
