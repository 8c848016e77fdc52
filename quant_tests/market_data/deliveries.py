"""Constructed deliveries: raw bars and corporate actions as a source would send them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from quant_assets.market_data.adjustment import Convention
from quant_assets.market_data.quality_gate import Gated, gate
from quant_assets.market_data.schemas import CORPORATE_ACTIONS, RAW_BARS
from quant_resources.calendar import XNYS, start_of_day

SESSIONS = XNYS.sessions(date(2024, 1, 2), date(2024, 12, 31))
OBSERVED_AT = datetime(2025, 1, 1, tzinfo=UTC)


def bar(symbol: str | None, session: date, close: float | None, **sent: Any) -> dict[str, Any]:
    """One raw row around a close; keyword arguments replace what is sent."""
    price = close if close is not None else 1.0
    return {
        "session": session,
        "symbol": symbol,
        "bar_time": start_of_day(session),
        "open": price,
        "high": price * 1.01,
        "low": price * 0.99,
        "close": close,
        "volume": 1_000_000.0,
        "vwap": price,
        "trade_count": 5000,
        "source": "test",
        "asof": None,
        "observed_at": OBSERVED_AT,
    } | sent


def action(symbol: str, ex_date: date, action_type: str, **terms: Any) -> dict[str, Any]:
    """One corporate action; keyword arguments are its terms."""
    return {
        "session": XNYS.at_or_after(ex_date),
        "ex_date": ex_date,
        "symbol": symbol,
        "action_type": action_type,
        "ratio": None,
        "cash": None,
        "new_symbol": None,
        "action_id": f"{symbol}-{ex_date}-{action_type}",
        "source": "test",
        "observed_at": OBSERVED_AT,
    } | terms


def raw_frame(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows as a frame of the raw_bars table."""
    return pl.DataFrame(list(rows), schema=RAW_BARS.schema, orient="row")


def action_frame(rows: Sequence[Mapping[str, Any]] = ()) -> pl.DataFrame:
    """Rows as a frame of the corporate_actions table."""
    return pl.DataFrame(list(rows), schema=CORPORATE_ACTIONS.schema, orient="row")


def steady(
    symbol: str, closes: Sequence[float | None], start: int = 0, volume: float = 1_000_000.0
) -> list[dict[str, Any]]:
    """A symbol's rows with the given closes session by session; None is a session without a row."""
    return [
        bar(symbol, SESSIONS[start + place], close, volume=volume)
        for place, close in enumerate(closes)
        if close is not None
    ]


def gated(
    rows: Sequence[Mapping[str, Any]],
    actions: Sequence[Mapping[str, Any]] = (),
    wanted: Sequence[date] | None = None,
    convention: Convention = "crsp",
) -> Gated:
    """Send rows through the gate; by default all sessions that have rows are wanted."""
    raw = raw_frame(rows)
    last = max(row["session"] for row in rows)
    asked = wanted or [session for session in SESSIONS if session <= last]
    return gate(raw.lazy(), action_frame(actions).lazy(), asked, SESSIONS, convention=convention)
