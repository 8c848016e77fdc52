"""Daily bars, corporate actions and listings from Alpaca through alpaca-py's own clients.

What belongs here: which requests are sent, and Alpaca's JSON into frames. What does not: patience and the
proof that an answer is whole (alpaca_transport.py), the request budget (request_pace.py), what survives a
kill (landing.py), and any judgement of a row.

1. Bars are asked for in requests of so many symbols and sessions that each takes a few pages, a few
   requests at a time; what comes back is put together in the order in which it was asked for.
2. Each answer is proved (lost_pages.py) and then landed, so that a process that is killed asks only
   for the rest.
3. An answer that leaves a session without any bar is forgotten again: it was too early, or wrong.

Bars are asked for with ``asof="-"``, which skips Alpaca's symbol mapping: rows come under the ticker under
which they traded, whoever owns it today. Renames are corporate actions and are followed later.

Feeds, by Alpaca's API description: historical bars know `iex` and `sip`; `delayed_sip` is a feed of the
latest quotes alone. Its history is `sip` up to 15 minutes ago, which needs no subscription, so that is what
is asked for under its name.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
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

from quant_resources.alpaca_market_messages import action_rows, bar_frame, listed_symbols
from quant_resources.alpaca_transport import (
    BACKOFF_SECONDS,
    TIMEOUT_SECONDS,
    ReadTransport,
    RefusedError,
)
from quant_resources.bar_source import (
    CORPORATE_ACTION_SCHEMA,
    RAW_BAR_SCHEMA,
    assert_every_session,
    chosen_symbols,
    session_at_or_after,
)
from quant_resources.calendar import XNYS, start_of_day
from quant_resources.errors import ConfigurationError, SourceError
from quant_resources.landing import LandedRequest, Landing
from quant_resources.launch import is_local
from quant_resources.lost_pages import actions_told_twice, bars_told_twice
from quant_resources.request_pace import shared_pace

#: A multi-symbol request stays below 2 kB of URL.
SYMBOLS_PER_REQUEST: Final = 200
#: Five pages of 10,000: a kill loses the requests under way, seconds at 200 requests a minute.
BARS_PER_REQUEST: Final = 50_000
REQUESTS_AT_ONCE: Final = 4
#: Without a subscription the consolidated tape is served up to 15 minutes ago.
SIP_DELAY: Final = timedelta(minutes=16)
#: Alpaca selects actions by process date, which for cash dividends is the payable date, weeks after.
PROCESS_LEAD: Final = timedelta(days=10)
PROCESS_LAG: Final = timedelta(days=90)

_NOT_SUBSCRIBED: Final = re.compile(r"subscription", re.IGNORECASE)
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
        pace_folder: Where processes share the pace; None for this process alone.
        landing: Where answers survive a kill; None for nowhere.
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
        pace_folder: Path | None = None,
        landing: Landing | None = None,
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
        pace = (
            None
            if requests_per_minute is None
            else shared_pace(api_key, requests_per_minute, pace_folder)
        )
        self._address = data_url.rstrip("/")
        self._landing = landing
        data = ReadTransport(self._address, pace, timeout, backoff)
        trading = ReadTransport(trading_url.rstrip("/"), pace, timeout, backoff)
        self._bars = _StockReader(data, url_override=self._address, **keys)
        self._actions = _ActionReader(data, url_override=self._address, **keys)
        self._trading = _TradingReader(trading, url_override=trading_url.rstrip("/"), **keys)

    @property
    def name(self) -> str:
        """Source and feed, such as "alpaca/iex"; the local exchange has one feed."""
        return "local exchange" if self._local else f"alpaca/{self._feed.value}"

    def newest_closed_session(self) -> date:
        """The last session whose close, as the feed serves it, is not after the trading clock."""
        now = self._clock()
        newest = XNYS.at_or_before(now.date())
        if self._feed is DataFeed.DELAYED_SIP:
            # What the delayed tape still holds back is part of the session.
            now -= SIP_DELAY
        return newest if XNYS.close(newest) <= now else XNYS.previous(newest)

    def symbols(self) -> list[str]:
        """The configured symbols, each known to the broker, or every well-formed listed one."""
        answer: Any = self._trading.get_all_assets(
            GetAssetsRequest(asset_class=AssetClass.US_EQUITY)
        )
        return chosen_symbols(self.name, self._symbols, listed_symbols(answer))

    def bars(
        self, symbols: Sequence[str] | None, first: date, last: date, asof: date | None = None
    ) -> pl.DataFrame:
        """Raw daily bars; see `BarSource.bars`."""
        wanted = XNYS.sessions(first, last)
        if not wanted:
            raise SourceError(f"There is no session between {first} and {last}.")
        asked = list(self.symbols() if symbols is None else symbols)
        configured = symbols is not None or bool(self._symbols)
        requests = self._requests(asked, wanted, asof)
        if self._landing is not None:
            self._landing.tidy()

        def answer(request: LandedRequest) -> pl.DataFrame:
            return self._answer(request, configured)

        if len(requests) == 1:
            answers = [answer(requests[0])]
        else:
            with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:
                answers = list(threads.map(answer, requests))
        frame = pl.concat(answers) if answers else pl.DataFrame(schema=RAW_BAR_SCHEMA)
        try:
            assert_every_session(
                self.name, frame, wanted, "fetch again later, or check feed and subscription"
            )
        except SourceError:
            if self._landing is not None:
                self._landing.forget(requests)
            raise
        return frame.sort("session", "symbol", maintain_order=True)

    def corporate_actions(self, first: date, last: date) -> pl.DataFrame:
        """Corporate actions by session; see `BarSource.corporate_actions`."""
        day_after_previous = XNYS.previous(first) + timedelta(days=1)
        observed_at = datetime.now(UTC)
        groups: list[list[str] | None] = [
            list(self._symbols[start : start + SYMBOLS_PER_REQUEST])
            for start in range(0, len(self._symbols), SYMBOLS_PER_REQUEST)
        ]

        def ask(group: list[str] | None) -> list[dict[str, Any]]:
            request = CorporateActionsRequest(
                symbols=group,
                start=day_after_previous - PROCESS_LEAD,
                end=last + PROCESS_LAG,
                limit=None,
            )
            answer: Any = self._actions.get_corporate_actions(request)
            return action_rows(answer)

        rows = [
            row
            for group in groups or [None]
            for row in actions_told_twice(partial(ask, group), self.name)
        ]
        dated = [row for row in rows if day_after_previous <= row["ex_date"] <= last]
        return (
            pl.DataFrame(dated, schema=CORPORATE_ACTION_SCHEMA, orient="row")
            .with_columns(
                session=session_at_or_after(pl.col("ex_date"), XNYS.sessions(first, last)),
                source=pl.lit(self.name),
                observed_at=pl.lit(observed_at).dt.cast_time_unit("us"),
            )
            .unique("action_id", keep="last", maintain_order=True)
            .sort("session", "symbol", "action_id")
        )

    def _requests(
        self, symbols: list[str], wanted: list[date], asof: date | None
    ) -> list[LandedRequest]:
        step = max(1, BARS_PER_REQUEST // max(1, min(len(symbols), SYMBOLS_PER_REQUEST)))
        return [
            LandedRequest(
                source=self.name,
                address=self._address,
                feed=self._feed.value,
                adjustment=Adjustment.RAW.value,
                # Rows as they traded under the ticker, whoever owns it today.
                asof="-" if asof is None else asof.isoformat(),
                symbols=tuple(symbols[start : start + SYMBOLS_PER_REQUEST]),
                first=sessions[0],
                last=sessions[-1],
            )
            for sessions in (wanted[day : day + step] for day in range(0, len(wanted), step))
            for start in range(0, len(symbols), SYMBOLS_PER_REQUEST)
        ]

    def _answer(self, request: LandedRequest, configured: bool) -> pl.DataFrame:
        landed = None if self._landing is None else self._landing.load(request)
        if landed is not None:
            return landed
        sessions = XNYS.sessions(request.first, request.last)

        def ask(symbols: Sequence[str]) -> pl.DataFrame:
            sent = self._ask(replace(request, symbols=tuple(symbols)), configured)
            return _with_sessions(sent, sessions)

        rows = bars_told_twice(ask, request.symbols, sessions, self.name).with_columns(
            source=pl.lit(self.name),
            asof=pl.lit(None if request.asof == "-" else date.fromisoformat(request.asof), pl.Date),
            observed_at=pl.lit(datetime.now(UTC)).dt.cast_time_unit("us"),
        )
        answer = rows.select(list(RAW_BAR_SCHEMA))
        if self._landing is not None:
            self._landing.keep(request, answer)
        return answer

    def _ask(self, landed: LandedRequest, configured: bool) -> pl.DataFrame:
        # Whatever is stamped after the session before belongs to the first wanted one.
        start = start_of_day(XNYS.previous(landed.first) + timedelta(days=1))
        end = start_of_day(landed.last + timedelta(days=1)) - timedelta(seconds=1)
        feed = self._feed
        if feed is DataFeed.DELAYED_SIP:
            feed = DataFeed.SIP
            end = min(end, self._clock() - SIP_DELAY)
        remaining = list(landed.symbols)
        while remaining:
            request = StockBarsRequest(
                symbol_or_symbols=remaining,
                timeframe=TimeFrame.Day,  # pyright: ignore[reportArgumentType]
                start=start,
                end=end,
                adjustment=Adjustment(landed.adjustment),
                feed=feed,
                asof=landed.asof,
            )
            try:
                answer: Any = self._bars.get_stock_bars(request)
            except RefusedError as error:
                if _NOT_SUBSCRIBED.search(error.reason):
                    raise SourceError(
                        f"{self.name} refused the bars of {landed.first} to {landed.last}: "
                        f"{error.reason}; without a subscription the {feed.value} feed is served up "
                        "to 15 minutes ago: set QUANT_FEED to delayed_sip or iex, or try again later."
                    ) from error
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
            if strangers := sorted(set(answer) - set(remaining)):
                raise SourceError(
                    f"{self.name} sent bars of {strangers[0]!r}, which was not asked for "
                    f"({landed.first} to {landed.last}); nothing was taken, fetch again later."
                )
            return bar_frame(answer)
        return bar_frame({})

    def _clock(self) -> datetime:
        clock: Any = self._trading.get_clock()
        try:
            return datetime.fromisoformat(str(clock["timestamp"])).astimezone(UTC)
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(
                f"The trading clock answered {clock!r}, which is no clock."
            ) from error


class _Reader(RESTClient):
    """A client of alpaca-py whose reads go through our transport."""

    def __init__(self, transport: ReadTransport, **options: Any) -> None:
        super().__init__(**options)
        self._transport = transport
        self._pages = threading.local()
        transport.mount(self)

    def get(self, path: str, data: Any = None, **options: Any) -> Any:
        send = super().get
        token = (data or {}).get("page_token")
        # The pages of one answer are asked for one after another by one thread.
        before = getattr(self._pages, "followed", ())
        self._pages.followed = () if token is None else (*before, token)
        return self._transport.read(lambda: send(path, data, **options), path, self._pages.followed)


class _StockReader(_Reader, StockHistoricalDataClient):
    pass


class _ActionReader(_Reader, CorporateActionsClient):
    pass


class _TradingReader(_Reader, TradingClient):
    pass


def _with_sessions(rows: pl.DataFrame, wanted: list[date]) -> pl.DataFrame:
    own_day = pl.col("bar_time").dt.convert_time_zone("America/New_York").dt.date()
    dated = rows.with_columns(session=session_at_or_after(own_day, wanted))
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
