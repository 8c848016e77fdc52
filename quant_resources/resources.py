"""Dagster resources: settings become the store, the ledger, the broker and the source of bars.

Each is a `ConfigurableResource` that yields a plain object, so that assets and tests use the object and
not Dagster's wrapper. Secrets arrive by `EnvVar`, so that they are in no run's configuration.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from quant_resources.alpaca_bars import AlpacaBars
from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.bar_source import BarSource
from quant_resources.broker import Broker
from quant_resources.exchange.process import ensure_exchange
from quant_resources.launch import LOCAL_KEY
from quant_resources.ledger.ledger import Ledger
from quant_resources.postgres import ensure_postgres
from quant_resources.settings import Settings
from quant_resources.store import Store

EXCHANGE_FOLDER = "exchange"


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
            feed=self.feed,
        )


class BarSourceResource(_AlpacaAddress):
    """The source of bars and corporate actions.

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
        )


def platform_resources(settings: Settings) -> dict[str, Any]:
    """The resources of the settings by key: store, ledger, broker, bar_source."""
    address: dict[str, Any] = {
        "data_root": str(settings.data_root),
        "data_url": settings.resolved_data_url or "",
        "trading_url": settings.resolved_trading_url or "",
        "feed": settings.feed,
        "requests_per_minute": settings.requests_per_minute if settings.source == "alpaca" else 0,
    }
    if settings.source == "alpaca" or settings.alpaca_api_key is not None:
        address["api_key"] = dg.EnvVar("ALPACA_API_KEY")
        address["secret_key"] = dg.EnvVar("ALPACA_SECRET_KEY")
    external = settings.database_url is not None
    return {
        "store": StoreResource(root=str(settings.data_root)),
        "ledger": LedgerResource(
            data_root=str(settings.data_root),
            database_url=dg.EnvVar("QUANT_DATABASE_URL") if external else "",
        ),
        "broker": BrokerResource(**address),
        "bar_source": BarSourceResource(**address, symbols=list(settings.symbols)),
    }
