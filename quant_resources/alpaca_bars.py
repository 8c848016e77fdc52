"""Daily bars, corporate actions and listings from Alpaca through alpaca-py's own clients.

What belongs here: requests in chunks, and Alpaca's JSON into frames. What does not: pace, patience and the
proof that an answer is whole (alpaca_transport.py), and any judgement of a row.

Bars are asked for with ``asof="-"``, which skips Alpaca's symbol mapping: rows come under the ticker under
which they traded, whoever owns it today. Renames are corporate actions and are followed later.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import polars as pl
from alpaca.common.rest import RESTClient
from alpaca.data.enums import Adjustment, DataFeed
from alpaca.data.historical.corporate_actions import CorporateActionsClient
from alpaca.data.historical.stock import StockHistoricalDataClient
from alpaca.data.requests import CorporateActionsRequest, StockBarsRequest
from alpaca.data.timeframe import TimeFrame
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import AssetClass
from alpaca.trading.requests import GetAssetsRequest

from quant_resources.alpaca_market_messages import action_rows, asset_frame, bar_frame
from quant_resources.alpaca_transport import (
    BACKOFF_SECONDS,
    TIMEOUT_SECONDS,
    ReadTransport,
    RefusedError,
    shared_pace,
)
from quant_resources.bar_source import CORPORATE_ACTION_SCHEMA, RAW_BAR_SCHEMA
from quant_resources.calendar import XNYS, start_of_day
from quant_resources.errors import ConfigurationError, SourceError
from quant_resources.launch import is_local

#: A multi-symbol request stays below 2 kB of URL; 200 symbols over a year are six pages of 10,000 bars.
SYMBOLS_PER_REQUEST: Final = 200
#: Alpaca selects actions by process date, which for cash dividends is the payable date, weeks after.
PROCESS_LEAD: Final = timedelta(days=10)
PROCESS_LAG: Final = timedelta(days=90)

_INVALID_SYMBOL: Final = re.compile(r"invalid symbol(?:\(s\))?: ?([^\s\"}]+)", re.IGNORECASE)


class AlpacaBars:
    """Alpaca as a `BarSource`.

    Args:
        data_url: Address of the market data API without a version; never empty.
        trading_url: Address of the trading API without `/v2`; never empty.
        api_key: Key id.
        secret_key: Secret; it is given to alpaca-py and kept nowhere else.
        feed: "iex", "sip" or "delayed_sip".
        symbols: The symbols to ask for; empty for everything that the broker lists.
        requests_per_minute: Pace, shared by all sources of one key; None for the local exchange.
        timeout: Seconds to wait for a connection and for an answer.
        backoff: Seconds before each repetition of a read.

    Raises:
        ConfigurationError: An address or key is empty, or the feed is unknown.
    """

    def __init__(
        self,
        data_url: str,
        trading_url: str,
        api_key: str,
        secret_key: str,
        *,
        feed: str = "iex",
        symbols: Sequence[str] = (),
        requests_per_minute: int | None = 200,
        timeout: tuple[float, float] = TIMEOUT_SECONDS,
        backoff: Sequence[float] = BACKOFF_SECONDS,
    ) -> None:
        for name, url in (("data", data_url), ("trading", trading_url)):
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
                raise ConfigurationError(
                    f"The {name} address {url!r} is no http address; set QUANT_{name.upper()}_URL."
                )
        if not api_key or not secret_key:
            raise ConfigurationError("Set ALPACA_API_KEY and ALPACA_SECRET_KEY.")
        try:
            self._feed = DataFeed(feed)
        except ValueError:
            raise ConfigurationError(
                f"{feed!r} is no feed of Alpaca; set QUANT_FEED to iex, sip or delayed_sip."
            ) from None
        self._local = is_local(data_url)
        self._symbols = tuple(sorted({symbol.strip().upper() for symbol in symbols}))
        keys = {"api_key": api_key, "secret_key": secret_key, "raw_data": True}
        pace = None if requests_per_minute is None else shared_pace(api_key, requests_per_minute)
        data = ReadTransport(data_url.rstrip("/"), pace, timeout, backoff)
        trading = ReadTransport(trading_url.rstrip("/"), pace, timeout, backoff)
        self._bars = _StockReader(data, url_override=data_url.rstrip("/"), **keys)
        self._actions = _ActionReader(data, url_override=data_url.rstrip("/"), **keys)
        self._trading = _TradingReader(trading, url_override=trading_url.rstrip("/"), **keys)

    @property
    def name(self) -> str:
        """Source and feed, such as "alpaca/iex"; the local exchange has one feed."""
        return "local exchange" if self._local else f"alpaca/{self._feed.value}"

    def newest_closed_session(self) -> date:
        """The last session whose close is not after the trading clock."""
        clock: Any = self._trading.get_clock()
        try:
            now = datetime.fromisoformat(str(clock["timestamp"])).astimezone(UTC)
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(
                f"The trading clock answered {clock!r}, which is no clock."
            ) from error
        newest = XNYS.at_or_before(now.date())
        return newest if XNYS.close(newest) <= now else XNYS.previous(newest)

    def symbols(self) -> list[str]:
        """The configured symbols, each known to the broker, or every well-formed listed one."""
        listed = self.assets().get_column("symbol").to_list()
        if not self._symbols:
            return listed
        unknown = sorted(set(self._symbols) - set(listed))
        if unknown:
            raise SourceError(
                f"{self.name} does not know the symbol(s) {', '.join(unknown[:10])}"
                f"{' …' if len(unknown) > 10 else ''}; correct QUANT_SYMBOLS."
            )
        return list(self._symbols)

    def assets(self) -> pl.DataFrame:
        """US equities of the broker's list, active and inactive, without over-the-counter ones."""
        answer: Any = self._trading.get_all_assets(
            GetAssetsRequest(asset_class=AssetClass.US_EQUITY)
        )
        return asset_frame(answer)

    def bars(
        self, symbols: Sequence[str] | None, first: date, last: date, asof: date | None = None
    ) -> pl.DataFrame:
        """Raw daily bars; see `BarSource.bars`."""
        wanted = XNYS.sessions(first, last)
        if not wanted:
            raise SourceError(f"There is no session between {first} and {last}.")
        asked = list(self.symbols() if symbols is None else symbols)
        configured = symbols is not None or bool(self._symbols)
        observed_at = datetime.now(UTC)
        chunks = [
            self._chunk(asked[start : start + SYMBOLS_PER_REQUEST], wanted, asof, configured)
            for start in range(0, len(asked), SYMBOLS_PER_REQUEST)
        ]
        rows = pl.concat(chunks) if chunks else bar_frame({})
        frame = _with_sessions(rows, wanted).with_columns(
            source=pl.lit(self.name),
            asof=pl.lit(asof, pl.Date),
            observed_at=pl.lit(observed_at).dt.cast_time_unit("us"),
        )
        self._check_complete(frame, wanted)
        return frame.select(list(RAW_BAR_SCHEMA)).sort("session", "symbol", maintain_order=True)

    def corporate_actions(self, first: date, last: date) -> pl.DataFrame:
        """Corporate actions by session; see `BarSource.corporate_actions`."""
        day_after_previous = XNYS.previous(first) + timedelta(days=1)
        observed_at = datetime.now(UTC)
        groups: list[list[str] | None] = [
            list(self._symbols[start : start + SYMBOLS_PER_REQUEST])
            for start in range(0, len(self._symbols), SYMBOLS_PER_REQUEST)
        ]
        rows: list[dict[str, Any]] = []
        for group in groups or [None]:
            answer: Any = self._actions.get_corporate_actions(
                CorporateActionsRequest(
                    symbols=group,
                    start=day_after_previous - PROCESS_LEAD,
                    end=last + PROCESS_LAG,
                    limit=None,
                )
            )
            rows += action_rows(answer)
        dated = [row for row in rows if day_after_previous <= row["ex_date"] <= last]
        return (
            pl.DataFrame(dated, schema=CORPORATE_ACTION_SCHEMA, orient="row")
            .with_columns(
                session=_session_at_or_after(pl.col("ex_date"), XNYS.sessions(first, last)),
                source=pl.lit(self.name),
                observed_at=pl.lit(observed_at).dt.cast_time_unit("us"),
            )
            .unique("action_id", keep="last", maintain_order=True)
            .sort("session", "symbol", "action_id")
        )

    def _chunk(
        self, symbols: list[str], wanted: list[date], asof: date | None, configured: bool
    ) -> pl.DataFrame:
        remaining = list(symbols)
        while remaining:
            request = StockBarsRequest(
                symbol_or_symbols=remaining,
                timeframe=TimeFrame.Day,  # pyright: ignore[reportArgumentType]
                # Whatever is stamped after the session before belongs to the first wanted one.
                start=start_of_day(XNYS.previous(wanted[0]) + timedelta(days=1)),
                end=start_of_day(wanted[-1] + timedelta(days=1)) - timedelta(seconds=1),
                adjustment=Adjustment.RAW,
                feed=self._feed,
                asof="-" if asof is None else asof.isoformat(),
            )
            try:
                answer: Any = self._bars.get_stock_bars(request)
            except RefusedError as error:
                found = _INVALID_SYMBOL.search(error.reason)
                if found is None or found.group(1) not in remaining:
                    raise
                if configured:
                    raise SourceError(
                        f"{self.name} does not know the symbol {found.group(1)}; correct "
                        "QUANT_SYMBOLS."
                    ) from error
                # The broker lists more tickers than the data API knows; one must not hide the rest.
                remaining.remove(found.group(1))
                continue
            return bar_frame(answer)
        return bar_frame({})

    def _check_complete(self, frame: pl.DataFrame, wanted: list[date]) -> None:
        present = set(frame.get_column("session").unique().to_list())
        missing = [session for session in wanted if session not in present]
        if missing:
            shown = ", ".join(map(str, missing[:5])) + (" …" if len(missing) > 5 else "")
            raise SourceError(
                f"{self.name} has no bar for {len(missing)} session(s) that the calendar counts: "
                f"{shown}; fetch again later, or check feed and subscription."
            )


class _Reader(RESTClient):
    """A client of alpaca-py whose reads go through our transport."""

    def __init__(self, transport: ReadTransport, **options: Any) -> None:
        super().__init__(**options)
        self._transport = transport
        transport.mount(self)

    def get(self, path: str, data: Any = None, **options: Any) -> Any:
        send = super().get
        token = (data or {}).get("page_token")
        return self._transport.read(lambda: send(path, data, **options), path, token)


class _StockReader(_Reader, StockHistoricalDataClient):
    pass


class _ActionReader(_Reader, CorporateActionsClient):
    pass


class _TradingReader(_Reader, TradingClient):
    pass


def _with_sessions(rows: pl.DataFrame, wanted: list[date]) -> pl.DataFrame:
    own_day = pl.col("bar_time").dt.convert_time_zone("America/New_York").dt.date()
    dated = rows.with_columns(session=_session_at_or_after(own_day, wanted))
    strange = dated.filter(
        pl.any_horizontal(pl.col("bar_time", "session").is_null())
        | (own_day <= pl.lit(XNYS.previous(wanted[0]), pl.Date))
    )
    if strange.height:
        symbol, time = strange.select("symbol", "bar_time").row(0)
        raise SourceError(
            f"{strange.height} bars lie outside the days asked for ({wanted[0]} to {wanted[-1]}), "
            f"such as {symbol} at {time}; nothing was taken."
        )
    return dated


def _session_at_or_after(day: pl.Expr, sessions: list[date]) -> pl.Expr:
    known = pl.Series(sessions, dtype=pl.Date)
    position = pl.lit(known).search_sorted(day, side="left")
    return pl.lit(known).gather(position, null_on_oob=True)
