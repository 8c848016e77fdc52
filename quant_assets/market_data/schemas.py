"""The tables of the market data stage: columns, types, units, bounds and keys, each written once.

Raw deliveries and quarantined rows have no bounds: they hold what was sent, however wrong. Bounds of
`BARS` and `UNIVERSE` are what validation promises.
"""

from __future__ import annotations

import polars as pl

from quant_resources.bar_source import ACTION_TYPES
from quant_resources.tables import Column, Table

STAGE = "market_data"
UTC_TIME = pl.Datetime("us", "UTC")
SMALLEST_PRICE = 1e-6  # USD; bounds are inclusive and a price is positive

SENT_VALUES = (
    Column("bar_time", UTC_TIME, "Start of the bar as sent", nullable=True),
    Column("open", pl.Float64, "First price as traded", "USD", nullable=True),
    Column("high", pl.Float64, "Highest price as traded", "USD", nullable=True),
    Column("low", pl.Float64, "Lowest price as traded", "USD", nullable=True),
    Column("close", pl.Float64, "Last price as traded", "USD", nullable=True),
    Column("volume", pl.Float64, "Shares traded", "shares", nullable=True),
    Column("vwap", pl.Float64, "Volume-weighted average price", "USD", nullable=True),
    Column("trade_count", pl.Int64, "Number of trades", "trades", nullable=True),
)
DELIVERY = (
    Column("source", pl.String, "Source and feed, such as alpaca/iex"),
    Column(
        "asof",
        pl.Date,
        "Date whose owner of the ticker was asked for; empty: rows as they traded under the ticker",
        nullable=True,
    ),
    Column("observed_at", UTC_TIME, "When the row was received"),
)

RAW_BARS = Table(
    stage=STAGE,
    name="raw_bars",
    grain="session",
    description=(
        "Daily bars exactly as the source sent them. A row of a day that is no session is kept with "
        "the next session. Every fetch whose content differs adds a vintage; nothing is overwritten."
    ),
    columns=(
        Column("session", pl.Date, "Session of the bar"),
        Column("symbol", pl.String, "Ticker as sent", nullable=True),
        *SENT_VALUES,
        *DELIVERY,
    ),
    key=(),
    vintaged=True,
)

CORPORATE_ACTIONS = Table(
    stage=STAGE,
    name="corporate_actions",
    grain="session",
    description=(
        "Corporate actions by the session on which they first show in prices (the ex-date, or the "
        "next session). Facts only: prices are adjusted when a window is read."
    ),
    columns=(
        Column("session", pl.Date, "First session at or after the ex-date"),
        Column(
            "ex_date", pl.Date, "Ex-date; effective or process date where a type has no ex-date"
        ),
        Column("symbol", pl.String, "Ticker whose price is affected; the old ticker of a rename"),
        Column("action_type", pl.String, "Kind of action", allowed=ACTION_TYPES),
        Column(
            "ratio",
            pl.Float64,
            "Shares after per share before (2.0 for a 2:1 split, 1.05 for a 5 % stock dividend); "
            "new shares received per share held for spin-offs, mergers and rights",
            "shares per share",
            nullable=True,
        ),
        Column("cash", pl.Float64, "Cash or value per share held", "USD per share", nullable=True),
        Column("new_symbol", pl.String, "New or acquiring ticker", nullable=True),
        Column("action_id", pl.String, "Identifier given by the source"),
        Column("source", pl.String, "Source of the fact"),
        Column("observed_at", UTC_TIME, "When the fact was received"),
    ),
    key=("session", "action_id"),
    vintaged=True,
)

LISTED_ASSETS = Table(
    stage=STAGE,
    name="listed_assets",
    grain="session",
    description=(
        "The broker's asset list as it was observed after the session: what could be traded, lent and "
        "split. Empty for sessions that nobody observed, such as backfilled ones."
    ),
    columns=(
        Column("session", pl.Date, "Newest closed session when the list was observed"),
        Column("symbol", pl.String, "Ticker"),
        Column("active", pl.Boolean, "Listed"),
        Column("tradable", pl.Boolean, "Broker allows trading"),
        Column("shortable", pl.Boolean, "Broker lends it"),
        Column("fractionable", pl.Boolean, "Broker takes fractions of a share"),
        Column("source", pl.String, "Broker that was asked"),
        Column("observed_at", UTC_TIME, "When the list was received"),
    ),
    key=("session", "symbol"),
    vintaged=True,
)

BARS = Table(
    stage=STAGE,
    name="bars",
    grain="session",
    description=(
        "Validated raw bars with the factors of the session's corporate actions. `adjust` in "
        "adjustment.py turns a window of them into prices as known at its last session."
    ),
    columns=(
        Column("session", pl.Date, "Session of the bar"),
        Column("symbol", pl.String, "Ticker at the session"),
        Column("security_id", pl.String, "Listing: its first symbol @ its first session"),
        Column("first_session", pl.Date, "First session of the listing in this data root"),
        Column("open", pl.Float64, "First price, raw", "USD", minimum=SMALLEST_PRICE),
        Column("high", pl.Float64, "Highest price, raw", "USD", minimum=SMALLEST_PRICE),
        Column("low", pl.Float64, "Lowest price, raw", "USD", minimum=SMALLEST_PRICE),
        Column("close", pl.Float64, "Last price, raw", "USD", minimum=SMALLEST_PRICE),
        Column("volume", pl.Float64, "Shares traded, raw", "shares", minimum=0.0),
        Column(
            "vwap",
            pl.Float64,
            "Volume-weighted average price, raw; empty where the source sent no positive number",
            "USD",
            nullable=True,
            minimum=SMALLEST_PRICE,
        ),
        Column("trade_count", pl.Int64, "Number of trades", "trades", nullable=True, minimum=0),
        Column(
            "price_factor",
            pl.Float64,
            "Multiplies every earlier price of the listing, in the data root's dividend convention",
            "fraction",
            minimum=1e-6,
            maximum=1e6,
        ),
        Column(
            "volume_factor",
            pl.Float64,
            "Multiplies every earlier volume of the listing",
            "fraction",
            minimum=1e-6,
            maximum=1e6,
        ),
    ),
    key=("session", "symbol"),
)

QUARANTINE = Table(
    stage=STAGE,
    name="quarantine",
    grain="session",
    description="Rejected bars with the rule each one broke, what was seen, and what to do.",
    columns=(
        Column("session", pl.Date, "Session under which the row was delivered"),
        Column("symbol", pl.String, "Ticker as sent", nullable=True),
        Column("rule", pl.String, "Rule that the row broke"),
        Column("detail", pl.String, "What was seen"),
        Column("remedy", pl.String, "What to do about it"),
        *SENT_VALUES,
        *(column for column in DELIVERY if column.name != "asof"),
    ),
    key=(),
)

UNIVERSE = Table(
    stage=STAGE,
    name="universe",
    grain="session",
    description=(
        "Symbols that could be traded at the session, by what was known at its close: most liquid "
        "names with a bar at the session, a price floor and a history floor. Empty in the first 59 "
        "sessions of a data root."
    ),
    columns=(
        Column("session", pl.Date, "Session"),
        Column("symbol", pl.String, "Ticker at the session"),
        Column("security_id", pl.String, "Listing: its first symbol @ its first session"),
        Column(
            "median_dollar_volume",
            pl.Float64,
            "Median of close times volume over the trailing 60 sessions",
            "USD",
            minimum=0.0,
        ),
        Column("rank", pl.Int32, "1 is the most liquid", "rank", minimum=1),
        Column("close", pl.Float64, "Raw close of the session", "USD", minimum=SMALLEST_PRICE),
        Column(
            "history_sessions",
            pl.Int32,
            "Bars within the trailing 60 sessions",
            "sessions",
            minimum=1,
            maximum=60,
        ),
        Column("tradable", pl.Boolean, "Broker allows trading; empty: not observed", nullable=True),
        Column("shortable", pl.Boolean, "Broker lends it; empty: not observed", nullable=True),
        Column(
            "fractionable",
            pl.Boolean,
            "Broker takes fractions of a share; empty: not observed",
            nullable=True,
        ),
    ),
    key=("session", "symbol"),
)

COVERAGE = Table(
    stage=STAGE,
    name="coverage",
    grain="session",
    description=(
        "What was expected of a session and what became of it: every symbol whose listing was alive, by "
        "what was known at the session, as a bar, a quarantined row or a gap."
    ),
    columns=(
        Column("session", pl.Date, "Session"),
        Column("symbol", pl.String, "Ticker expected or delivered at the session"),
        Column(
            "state",
            pl.String,
            "What became of it",
            allowed=("present", "quarantined", "missing"),
        ),
        Column(
            "absent_sessions",
            pl.Int32,
            "Sessions in a row without a delivered row, this one included; 0 when one was delivered",
            "sessions",
            minimum=0,
        ),
    ),
    key=("session", "symbol"),
)

SOURCE_DIFFERENCES = Table(
    stage=STAGE,
    name="source_differences",
    grain="session",
    description=(
        "Where the second source disagrees with the first beyond the tolerance, by symbol, session and "
        "field. Empty where they agree, and where no second source is configured."
    ),
    columns=(
        Column("session", pl.Date, "Session"),
        Column("symbol", pl.String, "Ticker; * in a row on the whole session"),
        Column(
            "field",
            pl.String,
            "What differs; presence: only one of the sources has the bar; answer: the second source "
            "gave none for the session, of which nothing is confirmed",
            allowed=("answer", "presence", "open", "high", "low", "close", "volume"),
        ),
        Column("value", pl.Float64, "Of the first source; presence: 1 or 0", nullable=True),
        Column("other_value", pl.Float64, "Of the second source", nullable=True),
        Column(
            "relative_difference",
            pl.Float64,
            "Absolute difference over the first source's value",
            "fraction",
            nullable=True,
            minimum=0.0,
        ),
        Column("tolerance", pl.Float64, "Largest relative difference allowed", "fraction"),
        Column("source", pl.String, "First source"),
        Column("other_source", pl.String, "Second source"),
    ),
    key=("session", "symbol", "field"),
)

RELEASES = Table(
    stage=STAGE,
    name="releases",
    grain="none",
    description=(
        "Quarantined rows that a person has released, with who, when and why. A release holds for the "
        "very values that were looked at: a restated row is judged anew. Rows are only ever added."
    ),
    columns=(
        Column("symbol", pl.String, "Ticker as sent"),
        Column("session", pl.Date, "Session under which the row was delivered"),
        Column("rule", pl.String, "Rule that the row broke"),
        Column("row_digest", pl.String, "Digest of the values that were released"),
        Column("reason", pl.String, "Why the row is right"),
        Column("released_by", pl.String, "Who released it"),
        Column("released_at", UTC_TIME, "When it was released"),
    ),
    key=("symbol", "session", "rule", "row_digest"),
)

#: Tables that assets compute; `RELEASES` is written by people.
TABLES: tuple[Table, ...] = (
    RAW_BARS,
    CORPORATE_ACTIONS,
    LISTED_ASSETS,
    BARS,
    QUARANTINE,
    COVERAGE,
    SOURCE_DIFFERENCES,
    UNIVERSE,
)
