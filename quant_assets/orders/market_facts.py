"""What the market says of the symbols of a batch: last quotes, last trades, average volumes.

Belongs here: asking for these facts, and leaving out what is too old to be one. Does not belong here:
judging an order by them (`limits/`).

1. A quote or trade that is older than the policy's age is none, by the rule for the prices of orders.
2. One from before a split between it and the session is in old shares with some brokers and in new ones
   with others (and at other hours). Of both readings the one nearer to the reference price is taken: that
   price has been through the stricter rules of planning.
3. Average volumes are those of the bars of the twenty sessions before, in shares of the last of them. A
   split of the trading session may be announced and not happen: it can make a volume smaller, never larger.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

import polars as pl

from quant_assets.market_data.adjustment import adjust
from quant_assets.market_data.schemas import BARS
from quant_assets.orders.target_portfolio import split_ratio
from quant_assets.orders.trading_sessions import price_age
from quant_resources.broker import Broker, Quote, Split
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.store import Store

#: Sessions whose volume is averaged.
VOLUME_SESSIONS: Final = 20
#: Splits are looked for this far back: quotes and trades that count are no older than a long weekend.
_SPLIT_WINDOW: Final = timedelta(days=7)
_WHOLE_SHARE: Final = Decimal(1)


@dataclass(frozen=True)
class Facts:
    """Facts by symbol; a symbol without a usable fact is left out.

    Attributes:
        quotes: Last quotes.
        last_trades: Prices of the last trades, USD.
        volumes: Average daily shares.
    """

    quotes: Mapping[str, Quote]
    last_trades: Mapping[str, Decimal]
    volumes: Mapping[str, Decimal]


def gather(
    broker: Broker,
    references: Mapping[str, Decimal],
    volumes: Mapping[str, Decimal],
    *,
    trading_session: date,
    now: datetime,
    oldest: timedelta,
) -> Facts:
    """Ask the broker what the market says of the symbols that are to be traded.

    Args:
        broker: The broker.
        references: Traded symbol to its reference price, USD, in shares of the trading session.
        volumes: `average_volumes` of the trading session.
        trading_session: The session to trade.
        now: The broker's time.
        oldest: Age from which a quote or a trade is none (`price_age`).

    Raises:
        BrokerError: The broker gives no usable answer.
    """
    if not references:
        return Facts({}, {}, volumes)
    splits = broker.splits(trading_session - _SPLIT_WINDOW, trading_session)
    quotes = {
        symbol: _in_new_shares(quote, references[symbol], splits, trading_session)
        for symbol, quote in broker.latest_quotes(references.keys()).items()
        if symbol in references and price_age(quote.at, now, trading_session) <= oldest
    }
    trades = {
        symbol: trade.price
        / _ratio_of(
            trade.price,
            references[symbol],
            _ratio_since(symbol, trade.at, splits, trading_session),
        )
        for symbol, trade in broker.latest_prices(references.keys()).items()
        if symbol in references and price_age(trade.at, now, trading_session) <= oldest
    }
    before = XNYS.previous(trading_session)
    return Facts(
        quotes,
        trades,
        {
            symbol: min(volume, volume * split_ratio(symbol, splits, before, trading_session))
            for symbol, volume in volumes.items()
        },
    )


def average_volumes(store: Store, trading_session: date) -> dict[str, Decimal]:
    """Average daily volume by symbol, in shares of the session before the trading session.

    A listing is averaged over the sessions since its first bar among those stored; one on which it did
    not trade counts as zero.

    Args:
        store: Holds `market_data/bars`.
        trading_session: The session to trade; its own bar is not read.
    """
    sessions = _sessions_before(trading_session)
    stored = set(store.partitions(BARS))
    keys = [session.isoformat() for session in sessions if session.isoformat() in stored]
    if not keys:
        return {}
    columns = ["session", "symbol", "security_id", "volume", "price_factor", "volume_factor"]
    bars = adjust(store.read(BARS, keys, columns).collect())
    numbered = bars.join(
        pl.DataFrame(
            {"session": [date.fromisoformat(key) for key in keys]}, schema={"session": pl.Date}
        ).with_row_index("number"),
        on="session",
    )
    listings = numbered.group_by("security_id").agg(
        pl.col("symbol").sort_by("session").last(),
        pl.col("session").max().alias("last_session"),
        (pl.col("volume").sum() / (len(keys) - pl.col("number").min())).alias("average"),
    )
    # A ticker that passed to another listing means the one that traded last.
    current = listings.sort("last_session", "security_id").group_by("symbol").last()
    return {
        symbol: Decimal(str(average)).quantize(_WHOLE_SHARE)
        for symbol, average in current.select("symbol", "average").iter_rows()
    }


def _sessions_before(trading_session: date) -> Sequence[date]:
    session, found = trading_session, []
    for _ in range(VOLUME_SESSIONS):
        session = XNYS.previous(session)
        found.append(session)
    return found[::-1]


def _in_new_shares(
    quote: Quote, reference: Decimal, splits: Collection[Split], trading_session: date
) -> Quote:
    middle = quote.mid
    if middle is None:
        return quote
    ratio = _ratio_of(
        middle, reference, _ratio_since(quote.symbol, quote.at, splits, trading_session)
    )
    return replace(quote, bid=quote.bid / ratio, ask=quote.ask / ratio)


def _ratio_since(
    symbol: str, made_at: datetime, splits: Collection[Split], trading_session: date
) -> Decimal:
    made = made_at.astimezone(NEW_YORK).date()
    return split_ratio(symbol, list(splits), made, trading_session)


def _ratio_of(price: Decimal, reference: Decimal, ratio: Decimal) -> Decimal:
    """What a price has to be divided by: the split's ratio, or 1 where it is in new shares already."""
    if ratio <= 0 or price <= 0 or reference <= 0:
        return Decimal(1)
    as_sent, divided = (max(p / reference, reference / p) for p in (price, price / ratio))
    return ratio if divided < as_sent else Decimal(1)
