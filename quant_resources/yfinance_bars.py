"""Daily bars and corporate actions of Yahoo through the yfinance package (`uv sync --extra yfinance`).

Belongs here: what Yahoo sends, turned back into what was traded. Does not belong here: Yahoo's addresses,
cookies and JSON, which are yfinance's business, and any judgement of a row.

Yahoo's interface is not official: nobody promises that it answers, that it keeps its form, or what its
terms allow to be done with it. It is good for looking and for confirming another source; money should not
rest on it alone.

1. A symbol is asked for from the first session until now, one symbol after the other, whatever the last
   session is: Yahoo's prices, volumes and dividends are adjusted for every split until today.
2. With ``r`` the product of the ratios of the splits after a day, the price of that day was traded at
   Yahoo's price times ``r`` and its volume was Yahoo's volume over ``r``, in whole shares. Yahoo sends
   prices as 32-bit numbers, so that they come back to about seven digits.
3. A dividend is Yahoo's amount times the ratios of the splits after its ex-date, and of one on it: amounts
   are per share held the day before, Yahoo's are per new share.
4. A row without any price is no bar. yfinance sends a missing volume as 0.

What cannot be had: the rows of a ticker's earlier owner and most delisted companies (Yahoo knows today's
tickers only, so that a rename takes its history along and nothing is survivorship-free), the kinds of
actions beside dividends and splits (a spin-off comes as a split of an odd ratio), and a clock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import polars as pl

from quant_resources.bar_source import (
    CORPORATE_ACTION_SCHEMA,
    RAW_BAR_SCHEMA,
    assert_every_session,
    session_at_or_after,
)
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.errors import ConfigurationError, SourceError

TIMEOUT_SECONDS: Final = 15
RETRIES: Final = 2
_SYMBOL: Final = re.compile(r"[A-Z0-9]{1,10}([.\-][A-Z0-9]{1,6}){0,2}")
_PRICES: Final = {"Open": "open", "High": "high", "Low": "low", "Close": "close"}
_EVENTS: Final = {"Dividends": "dividend", "Capital Gains": "gain", "Stock Splits": "split"}
#: Yahoo's words for a symbol that it knows but that did not trade in the days asked for.
_NO_DAYS: Final = "Data doesn't exist"


class YFinanceBars:
    """Yahoo as a `BarSource`.

    Args:
        symbols: The symbols that may be asked for, as Alpaca writes them (BRK.B).
        cache: Folder in which yfinance keeps cookies and time zones; None for its own in the home.
        session: HTTP session of curl_cffi for yfinance, such as one behind a proxy; None for its own.

    Raises:
        ConfigurationError: yfinance is not installed, or a symbol is none.
    """

    def __init__(
        self, symbols: Sequence[str], cache: Path | None = None, session: Any = None
    ) -> None:
        self._yfinance = require_yfinance()
        self._errors = import_module("yfinance.exceptions")
        time_zones = import_module("yfinance.cache").get_tz_cache
        self._symbols = tuple(sorted({symbol.strip().upper() for symbol in symbols}))
        strange = [symbol for symbol in self._symbols if not _SYMBOL.fullmatch(symbol)]
        if strange or not self._symbols:
            raise ConfigurationError(
                f"{strange[0]!r} is no symbol; correct QUANT_SYMBOLS."
                if strange
                else "Yahoo has no list of what it holds; name the symbols in QUANT_SYMBOLS."
            )
        if cache is not None:
            cache.mkdir(parents=True, exist_ok=True)
            self._yfinance.set_tz_cache_location(str(cache))
        for symbol in self._symbols:
            # Otherwise yfinance asks Yahoo for it, and remembers even an answer that was none.
            if time_zones().lookup(_yahoo(symbol)) != NEW_YORK.key:
                time_zones().store(_yahoo(symbol), NEW_YORK.key)
        # Otherwise it logs an error and returns an empty frame, as if nothing had been traded.
        self._yfinance.config.debug.hide_exceptions = False
        self._yfinance.config.network.retries = RETRIES
        self._session = session
        self._fetched: dict[str, tuple[date, pl.DataFrame]] = {}

    @property
    def name(self) -> str:
        """The source as written into every row."""
        return "yahoo"

    def newest_closed_session(self) -> date:
        """The last session that has closed by this machine's clock, since Yahoo has none."""
        return XNYS.newest_closed(datetime.now(UTC))

    def symbols(self) -> list[str]:
        """The configured symbols."""
        return list(self._symbols)

    def bars(
        self, symbols: Sequence[str] | None, first: date, last: date, asof: date | None = None
    ) -> pl.DataFrame:
        """Raw daily bars, splits undone; see `BarSource.bars`.

        Raises:
            SourceError: Also when an owner of a ticker is asked for: Yahoo knows today's alone.
        """
        if asof is not None:
            raise SourceError("Yahoo knows today's owner of a ticker only; ask without `asof`.")
        wanted = XNYS.sessions(first, last)
        if not wanted:
            raise SourceError(f"There is no session between {first} and {last}.")
        days = self._days(self._known(symbols), wanted[0])
        after = pl.col("ratio").cum_prod(reverse=True).over("symbol") / pl.col("ratio")
        frame = (
            days.with_columns(after=after)
            .filter(~pl.all_horizontal(pl.col(list(_PRICES.values())).is_null()))
            .with_columns(
                pl.col(list(_PRICES.values())) * pl.col("after"),
                volume=(pl.col("volume") / pl.col("after")).round(),
                session=session_at_or_after(pl.col("day"), wanted),
            )
            .filter(pl.col("session").is_not_null(), pl.col("day") > XNYS.previous(wanted[0]))
            .with_columns(
                bar_time=pl.col("day")
                .cast(pl.Datetime("us"))
                .dt.replace_time_zone(NEW_YORK.key)
                .dt.convert_time_zone("UTC"),
                vwap=pl.lit(None, pl.Float64),
                trade_count=pl.lit(None, pl.Int64),
                source=pl.lit(self.name),
                asof=pl.lit(None, pl.Date),
            )
        )
        assert_every_session(
            "Yahoo",
            frame,
            wanted,
            "fetch again later, or begin when one of the symbols was listed",
        )
        return frame.select(list(RAW_BAR_SCHEMA)).sort("session", "symbol", maintain_order=True)

    def corporate_actions(self, first: date, last: date) -> pl.DataFrame:
        """Dividends, distributed capital gains and splits; see `BarSource.corporate_actions`."""
        wanted = XNYS.sessions(first, last)
        if not wanted:
            return pl.DataFrame(schema=CORPORATE_ACTION_SCHEMA)
        days = self._days(self._symbols, wanted[0]).with_columns(
            until=pl.col("ratio").cum_prod(reverse=True).over("symbol")
        )
        split = pl.col("split")
        cash = [
            days.filter(pl.col(name) > 0).with_columns(
                action_type=pl.lit("cash_dividend"),
                kind=pl.lit(name),
                ratio=pl.lit(None, pl.Float64),
                cash=pl.col(name) * pl.col("until"),
            )
            for name in ("dividend", "gain")
        ]
        splits = days.filter(pl.col("ratio") != 1).with_columns(
            action_type=pl.when(split > 1)
            .then(pl.lit("forward_split"))
            .otherwise(pl.lit("reverse_split")),
            kind=pl.lit("split"),
            cash=pl.lit(None, pl.Float64),
        )
        names = ["day", "symbol", "action_type", "kind", "ratio", "cash", "observed_at"]
        return (
            pl.concat([part.select(names) for part in (*cash, splits)])
            .with_columns(
                session=session_at_or_after(pl.col("day"), wanted),
                ex_date=pl.col("day"),
                new_symbol=pl.lit(None, pl.String),
                action_id=pl.format("yahoo:{}:{}:{}", "symbol", "day", "kind"),
                source=pl.lit(self.name),
            )
            .filter(pl.col("session").is_not_null(), pl.col("day") > XNYS.previous(wanted[0]))
            .select(list(CORPORATE_ACTION_SCHEMA))
            .sort("session", "symbol", "action_id")
        )

    def _known(self, symbols: Sequence[str] | None) -> Sequence[str]:
        if symbols is None:
            return self._symbols
        unknown = sorted(set(symbols) - set(self._symbols))
        if unknown:
            raise SourceError(f"{unknown[0]} is not among QUANT_SYMBOLS; Yahoo is asked for those.")
        return symbols

    def _days(self, symbols: Sequence[str], first: date) -> pl.DataFrame:
        """Yahoo's days from the day after the session before, by symbol and day.

        A split's ``ratio`` is 1 on days without one.
        """
        start = XNYS.previous(first) + timedelta(days=1)
        rows = []
        for symbol in symbols:
            # Bars and actions of a run ask for the same days.
            known = self._fetched.get(symbol)
            if known is None or known[0] > start:
                known = (start, self._history(symbol, start))
                self._fetched[symbol] = known
            rows.append(known[1].filter(pl.col("day") >= start))
        split = pl.col("split")
        return (
            pl.concat(rows)
            .with_columns(ratio=pl.when(split > 0).then(split).otherwise(1.0))
            .sort("symbol", "day")
        )

    def _history(self, symbol: str, start: date) -> pl.DataFrame:
        observed_at = datetime.now(UTC)
        try:
            ticker = self._yfinance.Ticker(_yahoo(symbol), session=self._session)
            sent = ticker.history(
                start=start.isoformat(),
                auto_adjust=False,
                actions=True,
                keepna=True,
                timeout=TIMEOUT_SECONDS,
            )
            days = sent.index.date.tolist()
            columns = {
                name: pl.Series(sent[column].to_numpy(), dtype=pl.Float64)
                if column in sent
                else pl.repeat(0.0, len(days), eager=True)
                for column, name in (*_PRICES.items(), ("Volume", "volume"), *_EVENTS.items())
            }
        except self._errors.YFRateLimitError as error:
            raise SourceError(
                "Yahoo refuses for too many requests; wait some minutes, or ask for fewer symbols."
            ) from error
        except self._errors.YFTickerMissingError as error:
            if _NO_DAYS in str(error):
                return _no_days()
            raise SourceError(
                f"Yahoo has nothing under {symbol} ({error}); correct QUANT_SYMBOLS: companies that "
                "were delisted or renamed are no longer there."
            ) from error
        except (
            self._errors.YFException,
            OSError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
        ) as error:
            # yfinance passes on whatever its parsing of an unexpected answer runs into.
            raise SourceError(
                f"Yahoo gave no usable answer for {symbol} ({type(error).__name__}: {error}); its "
                "interface is unofficial: try again later, or another source."
            ) from error
        frame = pl.DataFrame(
            {"symbol": [symbol] * len(days), "day": pl.Series(days, dtype=pl.Date), **columns}
        )
        values = [*_PRICES.values(), "volume", *_EVENTS.values()]
        return frame.with_columns(
            pl.col(values).fill_nan(None),
            observed_at=pl.lit(observed_at).dt.cast_time_unit("us"),
        )


def require_yfinance() -> ModuleType:
    """The yfinance package.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        return import_module("yfinance")
    except ImportError:
        raise ConfigurationError(
            "yfinance is not installed; install the extra: uv sync --extra yfinance."
        ) from None


def _yahoo(symbol: str) -> str:
    return symbol.replace(".", "-")


def _no_days() -> pl.DataFrame:
    values = (*_PRICES.values(), "volume", *_EVENTS.values())
    return pl.DataFrame(
        schema={
            "symbol": pl.String,
            "day": pl.Date,
            **dict.fromkeys(values, pl.Float64),
            "observed_at": RAW_BAR_SCHEMA["observed_at"],
        }
    )
