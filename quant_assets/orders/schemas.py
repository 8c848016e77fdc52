"""The tables of the orders stage: the evidence of what was planned, sent, filled and held.

Numbers are Float64 for analysis; the ledger keeps the exact amounts, and these tables are copies of it.
"""

from __future__ import annotations

import polars as pl

from quant_resources.ledger.order_states import OrderState
from quant_resources.tables import Column, Table

STAGE = "orders"
UTC_TIME = pl.Datetime("us", "UTC")
SIDES = ("buy", "sell")
TRADING_STATES = ("ACTIVE", "REDUCING", "HALTED")
_KINDS = ("polars", "parquet", "postgres")

_SESSION = Column("trading_session", pl.Date, "Session in which it trades")
_SYMBOL = Column("symbol", pl.String, "Ticker")
_CLIENT_ORDER_ID = Column(
    "client_order_id", pl.String, "Our id of the order, a digest of the decision"
)
_BROKER_ORDER_ID = Column("broker_order_id", pl.String, "The broker's id of the order")
_SIDE = Column("side", pl.String, "Direction", allowed=SIDES)
_QUANTITY = Column("quantity", pl.Float64, "Shares", "shares", minimum=1e-9)
ORDER_ROLES = ("entry", "take_profit", "stop_loss", "replacement")
CORRECTIONS = ("none", "bust", "correct")


def _price(name: str, description: str, added: bool = True) -> Column:
    """A price that not every row has."""
    return Column(name, pl.Float64, description, "USD", nullable=True, minimum=1e-6, added=added)


TARGET_PORTFOLIO = Table(
    stage=STAGE,
    name="target_portfolio",
    grain="trading_session",
    description=(
        "What every strategy wants to hold in the trading session, from the signals of the session "
        "before. A strategy without usable signals keeps what it wanted last."
    ),
    columns=(
        _SESSION,
        Column("book", pl.String, "Portfolio of an account"),
        Column("strategy", pl.String, "Strategy whose sleeve this is"),
        _SYMBOL,
        Column("security_id", pl.String, "Listing: its first symbol @ its first session"),
        Column("signal_session", pl.Date, "Session of the signal behind the target"),
        Column("score", pl.Float64, "Score of the signal", nullable=True),
        Column("target_weight", pl.Float64, "Signed share of the strategy's capital", "fraction"),
        Column("target_quantity", pl.Float64, "Shares wanted, negative for short", "shares"),
        Column("reference_price", pl.Float64, "Last price before the open", "USD", minimum=1e-6),
        Column("changed", pl.Boolean, "False: the sleeve is kept, nothing is traded for it"),
        Column("reason", pl.String, "Why it is this quantity"),
        Column("model_version", pl.String, "Model or rules behind the signal"),
        Column("priced_at", UTC_TIME, "When the reference price was made", nullable=True),
        _price("stop_loss", "Price at which the signal ends a loss"),
        _price("take_profit", "Price at which the signal takes its profit"),
    ),
    key=("trading_session", "strategy", "symbol"),
    kinds=_KINDS,
)

ORDER_INTENTS = Table(
    stage=STAGE,
    name="order_intents",
    grain="trading_session",
    description=(
        "Every order that was decided, written to the ledger before it was sent; those that a limit "
        "refused too, with the limit. The newest attempt of the session."
    ),
    columns=(
        _SESSION,
        Column("book", pl.String, "Portfolio of an account"),
        Column("attempt", pl.Int32, "Attempt of the session; a re-plan is the next one", minimum=1),
        _CLIENT_ORDER_ID,
        _SYMBOL,
        Column("leg", pl.Int32, "1; 2 opens the other side after a close", minimum=1),
        _SIDE,
        _QUANTITY,
        _price("notional", "Amount that it is sent for, instead of shares"),
        Column("order_type", pl.String, "market, limit, stop"),
        Column("time_in_force", pl.String, "day, gtc, opg, cls"),
        _price("limit_price", "Limit", added=False),
        _price("stop_price", "Price from which it trades"),
        _price("take_profit_price", "Limit of the bracket's leg that takes the profit"),
        _price("stop_loss_price", "Stop of the bracket's leg that ends a loss"),
        Column("reference_price", pl.Float64, "Last price before the open", "USD", minimum=1e-6),
        Column("state", pl.String, "Where it stands", allowed=tuple(sorted(OrderState))),
        Column("limit_name", pl.String, "The limit that refused it", nullable=True),
        Column("limit_value", pl.Float64, "What the limit measured", nullable=True),
        Column("limit_bound", pl.Float64, "What the limit allows", nullable=True),
        Column("reason", pl.String, "Why it is sent, or refused"),
        Column("deadline", UTC_TIME, "Past it, it is never sent"),
    ),
    key=("trading_session", "client_order_id"),
    kinds=_KINDS,
)

ORDERS = Table(
    stage=STAGE,
    name="orders",
    grain="trading_session",
    description=(
        "The broker's orders of the session as they ended: at most one entry per intent, its protective legs, "
        "and what replaced one of them at the broker."
    ),
    columns=(
        _SESSION,
        _CLIENT_ORDER_ID,
        _BROKER_ORDER_ID,
        Column(
            "role",
            pl.String,
            "What it is to its intent",
            allowed=ORDER_ROLES,
            added=True,
            earlier="entry",
        ),
        Column(
            "parent_order_id",
            pl.String,
            "The broker's id of the order that it protects or replaced",
            nullable=True,
            added=True,
        ),
        Column(
            "broker_client_order_id",
            pl.String,
            "The client id that the broker knows",
            added=True,
            earlier_as="client_order_id",
        ),
        _SYMBOL,
        _SIDE,
        Column(
            "quantity",
            pl.Float64,
            "Shares; none where it is sent for an amount",
            "shares",
            nullable=True,
            minimum=1e-9,
        ),
        _price("notional", "Amount that it is sent for, instead of shares"),
        Column(
            "order_type", pl.String, "market, limit, stop, stop_limit", added=True, earlier="market"
        ),
        Column("time_in_force", pl.String, "day, gtc, opg, cls", added=True, earlier="day"),
        _price("limit_price", "Limit"),
        _price("stop_price", "Price from which it trades"),
        Column("filled_quantity", pl.Float64, "Shares filled", "shares", minimum=0.0),
        Column(
            "average_fill_price",
            pl.Float64,
            "Volume-weighted price of the fills",
            "USD",
            nullable=True,
            minimum=1e-6,
        ),
        Column("status", pl.String, "The broker's word for where it stands"),
        Column("submitted_at", UTC_TIME, "When the broker took it"),
        Column("updated_at", UTC_TIME, "When the broker last changed it"),
    ),
    key=("trading_session", "broker_order_id"),
    kinds=_KINDS,
)

FILLS = Table(
    stage=STAGE,
    name="fills",
    grain="trading_session",
    description=(
        "The executions of the session, each booked once by the broker's execution id, as they count after what the "
        "broker took back or corrected until the evidence was frozen."
    ),
    columns=(
        _SESSION,
        Column("execution_id", pl.String, "The broker's id of the execution"),
        _CLIENT_ORDER_ID,
        _BROKER_ORDER_ID,
        _SYMBOL,
        _SIDE,
        Column("quantity", pl.Float64, "Shares; none of a busted fill", "shares", minimum=0.0),
        Column("price", pl.Float64, "Price of the execution", "USD", minimum=1e-6),
        Column(
            "realised_pnl", pl.Float64, "Profit that the fill and its corrections realised", "USD"
        ),
        Column("filled_at", UTC_TIME, "When it was executed"),
        Column(
            "correction",
            pl.String,
            "What the broker did to it later",
            allowed=CORRECTIONS,
            added=True,
            earlier="none",
        ),
        Column(
            "booked_quantity",
            pl.Float64,
            "Shares as first said",
            "shares",
            minimum=1e-9,
            added=True,
            earlier_as="quantity",
        ),
        Column(
            "booked_price",
            pl.Float64,
            "Price as first said",
            "USD",
            minimum=1e-6,
            added=True,
            earlier_as="price",
        ),
    ),
    key=("execution_id",),
    kinds=_KINDS,
)

POSITIONS = Table(
    stage=STAGE,
    name="positions",
    grain="trading_session",
    description="What the account held at the end of the session, at the broker's closing marks.",
    columns=(
        _SESSION,
        _SYMBOL,
        Column("security_id", pl.String, "Listing, where a strategy named it", nullable=True),
        Column("quantity", pl.Float64, "Shares held, negative for short", "shares"),
        Column("average_price", pl.Float64, "Weighted-average entry price", "USD", minimum=0.0),
        Column("market_price", pl.Float64, "The broker's closing mark", "USD", minimum=0.0),
        Column("market_value", pl.Float64, "Quantity at the mark", "USD"),
        Column("realised_pnl", pl.Float64, "Realised since the ledger began", "USD"),
        Column("unrealised_pnl", pl.Float64, "At the mark", "USD"),
    ),
    key=("trading_session", "symbol"),
    kinds=_KINDS,
)

ACCOUNT = Table(
    stage=STAGE,
    name="account",
    grain="trading_session",
    description="The account at the end of the session.",
    columns=(
        _SESSION,
        Column("account_id", pl.String, "The broker's id of the account"),
        Column("equity", pl.Float64, "Cash and holdings", "USD"),
        Column("cash", pl.Float64, "Cash", "USD"),
        Column("buying_power", pl.Float64, "What could be bought", "USD"),
        Column("long_value", pl.Float64, "Value of long holdings", "USD", minimum=0.0),
        Column("short_value", pl.Float64, "Value of short holdings", "USD", maximum=0.0),
        Column("gross_exposure", pl.Float64, "Long and short over equity", "fraction"),
        Column("net_exposure", pl.Float64, "Long less short over equity", "fraction"),
        Column(
            "previous_equity",
            pl.Float64,
            "Equity at the end of the session before",
            "USD",
            nullable=True,
        ),
        Column(
            "trading_state", pl.String, "State at the end of the session", allowed=TRADING_STATES
        ),
    ),
    key=("trading_session",),
    kinds=_KINDS,
)

TABLES = (TARGET_PORTFOLIO, ORDER_INTENTS, ORDERS, FILLS, POSITIONS, ACCOUNT)
