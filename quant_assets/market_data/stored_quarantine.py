"""What is stored about quarantined rows: which there are, and the story of one.

Belongs here: reading tables and putting a row's surroundings together. Does not belong here: rules
(validation.py), the release of a row (releases.py), the terminal (cli/quarantine.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from quant_assets.market_data.releases import row_digest
from quant_assets.market_data.rules import BY_NAME, RULES
from quant_assets.market_data.schemas import (
    BARS,
    CORPORATE_ACTIONS,
    QUARANTINE,
    RAW_BARS,
    RELEASES,
)
from quant_resources.calendar import XNYS
from quant_resources.errors import DataError
from quant_resources.store import Store, observed_at

#: Sessions shown on either side of a row, and around it in which actions are looked for.
NEIGHBOUR_SESSIONS = 5
ACTION_SESSIONS = 10


@dataclass(frozen=True)
class Story:
    """A quarantined row and what surrounds it; frames may be empty.

    Attributes:
        row: The row as quarantined, with ``rule``, ``detail`` and ``remedy``.
        words: The rule in words.
        releasable: Whether a person may overrule the rule.
        neighbours: The symbol's delivered rows around it: ``session``, ``close``, ``volume``,
            ``change`` (fraction, from the row before) and ``verdict`` (a rule, or bar).
        actions: Corporate actions of the symbol near the session.
        vintages: What the source sent for symbol and session, and when: one line per row of each
            vintage that changed it.
        releases: Earlier releases of symbol and session, and whether they hold for these values.
    """

    row: dict[str, Any]
    words: str
    releasable: bool
    neighbours: pl.DataFrame
    actions: pl.DataFrame
    vintages: pl.DataFrame
    releases: pl.DataFrame


def quarantined(
    store: Store,
    symbol: str | None = None,
    rule: str | None = None,
    first: date | None = None,
    last: date | None = None,
) -> pl.DataFrame:
    """The stored quarantined rows, newest session first.

    Args:
        store: The data root.
        symbol: Only rows of this symbol.
        rule: Only rows that broke this rule.
        first: Not before this day.
        last: Not after this day.

    Returns:
        Rows of `schemas.QUARANTINE`.

    Raises:
        DataError: There is no such rule.
    """
    if rule is not None and rule not in BY_NAME:
        raise DataError(
            f"There is no rule {rule!r}; rules are {', '.join(known.name for known in RULES)}."
        )
    keys = [
        key
        for key in store.partitions(QUARANTINE)
        if (first is None or key >= first.isoformat()) and (last is None or key <= last.isoformat())
    ]
    rows = store.read(QUARANTINE, keys)
    if symbol is not None:
        rows = rows.filter(pl.col("symbol") == symbol)
    if rule is not None:
        rows = rows.filter(pl.col("rule") == rule)
    return rows.collect().sort(
        "session", "symbol", "rule", descending=[True, False, False], nulls_last=True
    )


def rejected_rows(store: Store, symbol: str, session: date) -> list[dict[str, Any]]:
    """The quarantined rows of a symbol and session, at least one.

    Raises:
        DataError: There is none; the message says what there is instead.
    """
    key = session.isoformat()
    if not XNYS.is_session(session):
        raise DataError(
            f"{session} is no session; the next one is {XNYS.at_or_after(session)}. A bar of a day "
            "without trading is quarantined under the next session."
        )
    if not store.exists(QUARANTINE, key):
        stored = store.partitions(QUARANTINE)
        known = f"stored are {stored[0]} to {stored[-1]}" if stored else "nothing is stored yet"
        raise DataError(
            f"Session {session} has not been judged yet ({known}); `quant backfill` makes it."
        )
    rows = store.read(QUARANTINE, [key]).filter(pl.col("symbol") == symbol).collect()
    if rows.height:
        return rows.to_dicts()
    bar = store.read(BARS, [key]).filter(pl.col("symbol") == symbol).collect()
    if bar.height:
        raise DataError(
            f"{symbol} of {session} is not in quarantine: it is a valid bar (close {bar['close'][0]})."
        )
    raise DataError(
        f"No row of {symbol} was delivered for {session}; `quant data coverage --symbol {symbol}` shows "
        "its gaps."
    )


def story(store: Store, symbol: str, session: date) -> list[Story]:
    """The story of each quarantined row of a symbol and session.

    Raises:
        DataError: There is none; the message says what there is instead.
    """
    rows = rejected_rows(store, symbol, session)
    neighbours = _neighbours(store, symbol, session)
    actions = _actions(store, symbol, session)
    vintages = _vintages(store, symbol, session)
    return [
        Story(
            row=row,
            words=BY_NAME[row["rule"]].words,
            releasable=BY_NAME[row["rule"]].releasable,
            neighbours=neighbours,
            actions=actions,
            vintages=vintages,
            releases=_releases(store, row),
        )
        for row in rows
    ]


def stored_releases(store: Store) -> pl.DataFrame:
    """All releases in the order in which they were made."""
    return store.read(RELEASES).collect() if store.exists(RELEASES) else RELEASES.empty()


def add_releases(store: Store, added: pl.DataFrame) -> pl.DataFrame:
    """Store releases behind those that are there; one that is there already is not added again.

    The caller holds the data root for itself.

    Returns:
        What was added.
    """
    known = stored_releases(store)
    new = added.join(known, on=list(RELEASES.key), how="anti")
    if new.height:
        store.write(RELEASES, pl.concat([known, new]))
    return new


def _around(store: Store, session: date, sessions: int) -> list[str]:
    keys = store.partitions(RAW_BARS)
    first, last = XNYS.offset(session, -sessions), XNYS.offset(session, sessions)
    return [key for key in keys if first.isoformat() <= key <= last.isoformat()]


def _neighbours(store: Store, symbol: str, session: date) -> pl.DataFrame:
    keys = _around(store, session, NEIGHBOUR_SESSIONS)
    sent = ["session", "open", "high", "low", "close", "volume"]
    is_symbol = pl.col("symbol") == symbol
    bars = store.read(BARS, [key for key in keys if store.exists(BARS, key)])
    rejected = store.read(QUARANTINE, [key for key in keys if store.exists(QUARANTINE, key)])
    rows = pl.concat(
        [
            bars.filter(is_symbol).select(*sent, verdict=pl.lit("bar")).collect(),
            rejected.filter(is_symbol).select(*sent, verdict="rule").collect(),
        ]
    ).sort("session", "verdict")
    return rows.with_columns(change=pl.col("close") / pl.col("close").shift(1) - 1).select(
        *sent, "change", "verdict"
    )


def _actions(store: Store, symbol: str, session: date) -> pl.DataFrame:
    keys = [
        key
        for key in _around(store, session, ACTION_SESSIONS)
        if store.exists(CORPORATE_ACTIONS, key)
    ]
    return (
        store.read(CORPORATE_ACTIONS, keys)
        .filter((pl.col("symbol") == symbol) | (pl.col("new_symbol") == symbol))
        .select(
            "ex_date",
            "symbol",
            "action_type",
            "ratio",
            "cash",
            "new_symbol",
            "source",
            "observed_at",
        )
        .sort("ex_date", "action_type")
        .collect()
    )


def _vintages(store: Store, symbol: str, session: date) -> pl.DataFrame:
    """The symbol's rows in each vintage that says something else of it than the vintage before."""
    key = session.isoformat()
    sent = ["open", "high", "low", "close", "volume", "vwap", "trade_count", "source"]
    told: list[pl.DataFrame] = []
    before: pl.DataFrame | None = None
    for vintage in store.vintages(RAW_BARS, key):
        whole = store.read_vintage(RAW_BARS, key, vintage)
        rows = whole.filter(pl.col("symbol") == symbol).select(sent)
        if before is None or not rows.equals(before):
            shown = rows if rows.height else rows.clear(1)
            told.append(
                shown.select(
                    pl.lit(observed_at(vintage)).alias("observed_at"),
                    pl.lit("sent" if rows.height else "withdrawn").alias("state"),
                    pl.all(),
                )
            )
        before = rows
    empty = RAW_BARS.empty().select("observed_at", pl.lit("").alias("state"), *sent)
    return pl.concat(told, how="vertical_relaxed") if told else empty


def _releases(store: Store, row: dict[str, Any]) -> pl.DataFrame:
    digest = row_digest(row)
    return (
        stored_releases(store)
        .filter(symbol=row["symbol"], session=row["session"])
        .select(
            "rule",
            "reason",
            "released_by",
            "released_at",
            holds=(pl.col("row_digest") == digest) & (pl.col("rule") == row["rule"]),
        )
    )
