"""A generated market of any size, as a source would deliver it: bars and corporate actions by session.

For measurements and for comparing implementations over many cases. Deliveries come in stretches of
sessions, so that ten years of 5,000 symbols need the memory of one stretch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time

import numpy as np
import polars as pl
from numpy.typing import NDArray

from quant_assets.market_data.schemas import CORPORATE_ACTIONS, RAW_BARS
from quant_resources.calendar import start_of_day

SESSIONS_AT_ONCE = 252
DIVIDEND_EVERY = 63
_OBSERVED = time(23, tzinfo=UTC)
_SPLIT_ABOVE, _REVERSE_BELOW = 120.0, 4.0


@dataclass(frozen=True)
class Delivered:
    """What a source sends for a stretch of sessions: rows of `RAW_BARS` and `CORPORATE_ACTIONS`."""

    raw_bars: pl.DataFrame
    actions: pl.DataFrame


@dataclass
class _Market:
    """What goes on from session to session."""

    tickers: NDArray[np.str_]
    price: NDArray[np.float64]
    listed: NDArray[np.bool_]
    usual_volume: NDArray[np.float64]
    facts: list[dict[str, object]] = field(default_factory=list)


def deliveries(
    symbols: int,
    sessions: Sequence[date],
    *,
    seed: int = 0,
    defects: float = 0.0,
    rare_events: float = 0.00002,
    at_once: int = SESSIONS_AT_ONCE,
) -> Iterator[Delivered]:
    """Generate a market: listings that begin and end, renames, splits, dividends, spin-offs, halts.

    Args:
        symbols: How many tickers there are; about nine in ten trade on the first session.
        sessions: The calendar.
        seed: Of everything random.
        defects: Share of the rows that are broken in one of several ways (wrong values, repeated
            rows, another instrument for a few sessions, splits that the action table lacks).
        rare_events: Chance a session of a spin-off, stock dividend, merger or rename, by symbol.
        at_once: Sessions in one delivery.

    Yields:
        The rows of the next sessions, in order of session and ticker.
    """
    rng = np.random.default_rng(seed)
    market = _Market(
        tickers=np.array([f"S{number:05d}" for number in range(symbols)], dtype="<U8"),
        price=np.exp(rng.normal(3.6, 0.5, symbols)),
        listed=rng.random(symbols) < 0.9,
        usual_volume=np.exp(rng.normal(13.5, 1.2, symbols)),
    )
    for start in range(0, len(sessions), at_once):
        days = sessions[start : start + at_once]
        market.facts = []
        closes = np.full((len(days), symbols), np.nan)
        tickers = np.empty((len(days), symbols), dtype=market.tickers.dtype)
        for row, day in enumerate(days):
            _next_session(market, rng, day, start + row, rare_events, missed_splits=defects > 0)
            tickers[row] = market.tickers
            halted = rng.random(symbols) < 0.002
            closes[row] = np.where(market.listed & ~halted, market.price, np.nan)
        raw = _bars(days, tickers, closes, market.usual_volume, rng)
        yield Delivered(
            _with_defects(raw, defects, rng) if defects else raw,
            pl.DataFrame(market.facts, schema=CORPORATE_ACTIONS.schema, orient="row"),
        )


def _next_session(
    market: _Market,
    rng: np.random.Generator,
    day: date,
    position: int,
    rare_events: float,
    *,
    missed_splits: bool,
) -> None:
    size = len(market.price)
    market.price *= np.exp(rng.normal(0.0003, 0.018, size).clip(-0.2, 0.2))
    if position:
        market.listed ^= rng.random(size) < np.where(market.listed, 0.0001, 0.001)

    def report(numbers: NDArray[np.intp], kind: str, ratio: float | None = None) -> None:
        for number in numbers.tolist():
            _report(market, day, (number, kind), ratio=ratio)

    pays = np.flatnonzero((np.arange(size) + position) % DIVIDEND_EVERY == 0)
    for number in pays[pays % 3 > 0].tolist():
        amount = round(0.006 * float(market.price[number]), 4)
        market.price[number] -= amount
        _report(market, day, (number, "cash_dividend"), cash=amount)
    for kind, ratio, reached in (
        ("forward_split", 2.0, market.price > _SPLIT_ABOVE),
        ("reverse_split", 0.1, market.price < _REVERSE_BELOW),
    ):
        split = np.flatnonzero(reached & market.listed)
        market.price[split] /= ratio
        report(split[rng.random(len(split)) >= 0.1] if missed_splits else split, kind, ratio)
    for number in np.flatnonzero(rng.random(size) < rare_events).tolist():
        kind = ("spin_off", "stock_dividend", "name_change", "merger")[int(rng.integers(4))]
        if kind == "spin_off":
            market.price[number] *= 0.9
            cash = round(float(market.price[number]) / 9, 4)
            _report(market, day, (number, kind), ratio=0.25, cash=cash)
        elif kind == "stock_dividend":
            market.price[number] /= 1.05
            _report(market, day, (number, kind), ratio=1.05)
        elif kind == "merger":
            _report(market, day, (number, kind), ratio=0.5, new_symbol="S00001")
        else:
            renamed = str(market.tickers[number]).startswith("S")
            new = f"R{position:04d}{number % 1000:03d}" if renamed else f"S{number:05d}"
            _report(market, day, (number, kind), new_symbol=new)
            market.tickers[number] = new


def _report(market: _Market, day: date, what: tuple[int, str], **terms: object) -> None:
    number, kind = what
    symbol = str(market.tickers[number])
    market.facts.append(
        {
            "session": day,
            "ex_date": day,
            "symbol": symbol,
            "action_type": kind,
            "action_id": f"{symbol}-{day}-{kind}",
            "source": "generated",
            "observed_at": datetime.combine(day, _OBSERVED),
            **terms,
        }
    )


def _bars(
    days: Sequence[date],
    tickers: NDArray[np.str_],
    closes: NDArray[np.float64],
    usual_volume: NDArray[np.float64],
    rng: np.random.Generator,
) -> pl.DataFrame:
    traded = ~np.isnan(closes)
    close = closes[traded].round(2)
    size = len(close)
    opening = (close * np.exp(rng.normal(0, 0.006, size))).round(2)
    high = (np.maximum(opening, close) * np.exp(np.abs(rng.normal(0, 0.006, size)))).round(2)
    low = (np.minimum(opening, close) * np.exp(-np.abs(rng.normal(0, 0.006, size)))).round(2)
    row, number = np.nonzero(traded)
    volume = (usual_volume[number] * np.exp(rng.normal(0, 0.4, size))).round()
    return (
        pl.DataFrame(
            {
                "session": pl.Series(list(days), dtype=pl.Date).gather(row),
                "symbol": tickers[traded],
                "bar_time": pl.Series([start_of_day(day) for day in days]).gather(row),
                "open": opening,
                "high": high,
                "low": low,
                "close": close,
                "volume": volume,
                "vwap": ((high + low + close) / 3).round(4),
                "trade_count": (volume / 100).astype(np.int64),
                "source": "generated",
                "asof": None,
                "observed_at": pl.Series([datetime.combine(day, _OBSERVED) for day in days]).gather(
                    row
                ),
            }
        )
        .cast(dict(RAW_BARS.schema))  # type: ignore[arg-type]
        .sort("session", "symbol")
    )


def _with_defects(raw: pl.DataFrame, share: float, rng: np.random.Generator) -> pl.DataFrame:
    """Break a share of the rows, each in one of eleven ways, and repeat some."""
    kind = np.where(rng.random(raw.height) < share, rng.integers(1, 12, raw.height), 0)
    # Another instrument stays under the ticker for some sessions of the stretch.
    strays = raw["symbol"].unique().sort().sample(fraction=share, seed=int(rng.integers(2**31)))
    first = raw["session"].unique().sort()[int(rng.integers(raw["session"].n_unique()))]
    stray = pl.col("symbol").is_in(strays.implode()) & pl.col("session").is_between(
        first, pl.lit(first).dt.offset_by("9d")
    )
    marked = raw.with_columns(defect=pl.Series(kind))
    broken = marked.with_columns(
        open=pl.when(pl.col("defect") == 1).then(pl.col("high") * 2).otherwise("open"),
        high=pl.when(pl.col("defect") == 2).then(pl.col("low") / 2).otherwise("high"),
        low=pl.when(pl.col("defect") == 3).then(None).otherwise("low"),
        volume=pl.when(pl.col("defect") == 4)
        .then(-1.0)
        .when(pl.col("defect").is_in([5, 6]))
        .then(0.0)
        .when(pl.col("defect").is_in([7, 8]))
        .then(pl.col("volume") * 10)
        .otherwise("volume"),
        symbol=pl.when(pl.col("defect") == 9)
        .then(pl.lit("../A"))
        .when(pl.col("defect") == 10)
        .then(None)
        .otherwise("symbol"),
        bar_time=pl.when(pl.col("defect") == 11)
        .then(pl.col("bar_time").dt.offset_by("-1d"))
        .otherwise("bar_time"),
        vwap=pl.when(pl.col("defect") == 1).then(0.0).otherwise("vwap"),
    )
    scale = (
        pl.when(stray)
        .then(4.1)
        .when(pl.col("defect") == 7)
        .then(1.5)
        .when(pl.col("defect") == 8)
        .then(0.5)
        .otherwise(1.0)
    )
    moved = broken.with_columns(
        pl.col("open", "high", "low", "close") * scale,
    )
    again = moved.filter(pl.Series(rng.random(raw.height) < share / 4))
    other = again.with_columns(pl.col("volume") + 1).head(again.height // 2)
    return pl.concat([moved, again, other]).drop("defect").sort("session", "symbol")
