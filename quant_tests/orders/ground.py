"""A trading ground for tests: a real local exchange over HTTP, a real PostgreSQL ledger, our own broker adapter.

Nothing between the order path and the wire is replaced. Tests that must see a fault put it into the
exchange's own fault plan (`Ground.exchange.inject`), or end the process that trades.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from quant_assets.market_data.schemas import BARS
from quant_assets.orders import frames
from quant_assets.orders.batches import trade_session
from quant_assets.orders.planning import Plan, plan_targets
from quant_assets.orders.policy import TradingPolicy
from quant_assets.orders.signal_input import StrategySignals, usable_signals
from quant_assets.orders.submission import PassReport, TradingDesk, run_pass, trading_desk
from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.exchange.control import ExchangeControl
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.account_book import TradingStatus
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_tables import OrderBatch, OrderIntent
from quant_resources.store import Store
from quant_resources.tables import Column, Table

FIRST = date(2024, 3, 1)
LAST = date(2024, 3, 22)
#: symbol → opening price of the first session; it moves one percent up and down from day to day.
PRICES = {
    "AAA": 100.0,
    "BBB": 50.0,
    "CCC": 20.0,
    "DDD": 200.0,
    "EEE": 10.0,
    "THIN": 30.0,
    "ENDS": 40.0,
}
VOLUMES = {"THIN": 1_000.0}
_VOLUME = 10_000_000.0
#: What the volume limit is given: average daily shares of the 20 sessions before.
AVERAGE_VOLUMES = {symbol: Decimal(int(VOLUMES.get(symbol, _VOLUME))) for symbol in PRICES}
#: The last session of a symbol that is delisted.
ENDS = {"ENDS": date(2024, 3, 13)}
#: What happens to what is held: split, dividend, merger for cash, spin-off, delisting.
ACTIONS = [
    {"symbol": "DDD", "ex_date": "2024-03-12", "action_type": "forward_split", "ratio": 2.0},
    {"symbol": "BBB", "ex_date": "2024-03-13", "action_type": "cash_dividend", "cash": 0.5},
    {"symbol": "CCC", "ex_date": "2024-03-14", "action_type": "cash_merger", "cash": 25.0},
    {
        "symbol": "EEE",
        "ex_date": "2024-03-14",
        "action_type": "spin_off",
        "ratio": 0.1,
        "new_symbol": "AAA",
    },
]
#: Waits are shortened; the few names of this market may be large, as a test of a limit says itself.
POLICY = TradingPolicy.model_validate(
    {
        "mode": "paper",
        "smallest_trade": 1,
        "limits": {"name_weight": "0.5", "concentration": 4},
        "sending": {"look_up_wait_seconds": 0.01},
    }
)


def history(folder: Path) -> Path:
    """The market's bars and corporate actions as the exchange reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    bars().rename({"session": "date"}).write_csv(folder / "bars.csv")
    pl.DataFrame(ACTIONS, infer_schema_length=None).write_csv(folder / "actions.csv")
    return folder


def bars() -> pl.DataFrame:
    """The market's raw bars."""
    rows: list[dict[str, object]] = []
    for number, session in enumerate(XNYS.sessions(FIRST, LAST)):
        for symbol, start in PRICES.items():
            if session > ENDS.get(symbol, LAST):
                continue
            price = start * (1.01 if number % 2 else 1.0)
            if symbol == "DDD" and session >= date(2024, 3, 12):
                price /= 2
            rows.append(
                {
                    "symbol": symbol,
                    "session": session,
                    "open": price,
                    "high": price * 1.02,
                    "low": price * 0.98,
                    "close": price,
                    "volume": VOLUMES.get(symbol, _VOLUME),
                }
            )
    return pl.DataFrame(rows)


def signal_table(name: str) -> Table:
    """A strategy's signal table with the columns that orders read."""
    return Table(
        "signals",
        name,
        "session",
        f"Signals of {name}.",
        (
            Column("session", pl.Date, "Session"),
            Column("symbol", pl.String, "Ticker"),
            Column("security_id", pl.String, "Listing"),
            Column("strategy", pl.String, "Strategy"),
            Column("score", pl.Float64, "Score"),
            Column("target_weight", pl.Float64, "Weight", nullable=True, minimum=-1, maximum=1),
            Column("stop_loss", pl.Float64, "Stop loss", nullable=True),
            Column("take_profit", pl.Float64, "Take profit", nullable=True),
            Column("model_version", pl.String, "Version"),
        ),
        ("session", "symbol"),
    )


#: Symbol → prices of (stop loss, take profit).
Protection = Mapping[str, tuple[float | None, float | None]]


def signals(
    name: str,
    session: date,
    weights: Mapping[str, float | None],
    protection: Protection | None = None,
) -> pl.DataFrame:
    """Rows of a strategy's signal table."""
    protected = protection or {}
    return pl.DataFrame(
        [
            {
                "session": session,
                "symbol": symbol,
                "security_id": f"{symbol}@{FIRST}",
                "strategy": name,
                "score": 0.0 if weight is None else weight,
                "target_weight": weight,
                "stop_loss": protected.get(symbol, (None, None))[0],
                "take_profit": protected.get(symbol, (None, None))[1],
                "model_version": f"{name}-rules-1",
            }
            for symbol, weight in weights.items()
        ],
        schema=signal_table(name).schema,
    )


@dataclass
class Ground:
    """One exchange, one ledger, one data root."""

    exchange: ExchangeControl
    broker: AlpacaBroker
    ledger: Ledger
    store: Store
    folder: Path
    policy: TradingPolicy = POLICY
    volumes: Mapping[str, Decimal] = field(default_factory=lambda: dict(AVERAGE_VOLUMES))
    protection: Protection = field(default_factory=dict)

    def at(self, text: str) -> None:
        """Move the virtual clock to a New York time."""
        self.exchange.advance(datetime.fromisoformat(text).replace(tzinfo=NEW_YORK))

    def morning(self, session: date) -> None:
        """The clock at 08:30 of a session, before the open."""
        self.at(f"{session} 08:30")

    def evening(self, session: date) -> None:
        """The clock at 18:00 of a session, after the close."""
        self.at(f"{session} 18:00")

    def given(
        self, session: date, **strategies: Mapping[str, float | None] | None
    ) -> list[StrategySignals]:
        """Signals for a trading session, as of the session before; None for a failed strategy."""
        before = XNYS.previous(session)
        return [
            usable_signals(
                name,
                None if weights is None else signals(name, before, weights, self.protection),
                before,
                1.0,
            )
            for name, weights in strategies.items()
        ]

    def plan(
        self, session: date, attempt: int = 1, **strategies: Mapping[str, float | None] | None
    ) -> Plan:
        """Plan targets as the asset does."""
        return plan_targets(
            self.ledger,
            self.broker,
            self.policy,
            trading_session=session,
            signals=self.given(session, **strategies),
            attempt=attempt,
        )

    def trade(
        self, session: date, replan: bool = False, **strategies: Mapping[str, float | None] | None
    ) -> tuple[OrderBatch, PassReport]:
        """Plan, freeze and send as the assets do."""
        attempt = 2 if replan else 1
        frame = self.frame(self.plan(session, attempt, **strategies), session)
        return self.send(session, frame, replan)

    def send(
        self, session: date, frame: pl.DataFrame, replan: bool = False
    ) -> tuple[OrderBatch, PassReport]:
        """Freeze and send a target portfolio; a frozen one is finished."""
        with self.desk() as desk:
            return trade_session(desk, session, frame, self.volumes, replan)

    @contextmanager
    def desk(self) -> Iterator[TradingDesk]:
        """The account under its lock."""
        with trading_desk(self.ledger, self.broker, self.policy) as desk:
            yield desk

    def finish(self) -> PassReport:
        """One pass, as the sensor or `quant trade --pass` makes it."""
        return run_pass(self.ledger, self.broker, self.policy)

    def status(self) -> TradingStatus:
        """The trading state in force."""
        with self.ledger.begin() as session:
            return account_book.trading_status(session, self.policy.book)

    def limited(self, **limits: object) -> None:
        """Change bounds of the policy from here on."""
        self.changed(limits=self.policy.limits.model_dump() | limits)

    def changed(self, **fields: object) -> None:
        """Change fields of the policy from here on."""
        self.policy = TradingPolicy.model_validate(self.policy.model_dump() | fields)

    def frame(self, plan: Plan, session: date) -> pl.DataFrame:
        """The plan as `orders/target_portfolio`."""
        return frames.targets_frame(plan.targets, session, self.policy.book)

    def intents(self, batch: OrderBatch) -> list[OrderIntent]:
        """The batch's intents as they stand now."""
        with self.ledger.begin() as session:
            return order_book.intents_of(session, batch.batch_id)

    def states(self, batch: OrderBatch) -> dict[tuple[str, int], str]:
        """(symbol, leg) → state."""
        return {(row.symbol, row.leg): row.state for row in self.intents(batch)}

    def accepted(self) -> dict[str, int]:
        """Client id → accepted submissions, by the exchange's own audit log: the truth."""
        counts: dict[str, int] = {}
        for entry in self.submissions():
            if entry["outcome"] == "accepted":
                name = entry["client_order_id"]
                counts[name] = counts.get(name, 0) + 1
        return counts

    def submissions(self) -> list[dict[str, Any]]:
        """Every submission that reached the exchange."""
        return [entry for entry in self.exchange.audit() if entry["event"] == "submit"]

    def held(self) -> dict[str, Decimal]:
        """What the broker says is held."""
        return {position.symbol: position.quantity for position in self.broker.positions()}

    def store_bars(self, session: date) -> None:
        """The session's bars as they would have been ingested, without corporate actions."""
        stored = bars().filter(pl.col("session") == session)
        filled = stored.with_columns(
            security_id=pl.col("symbol") + f"@{FIRST}",
            first_session=pl.lit(FIRST),
            vwap=pl.col("close"),
            trade_count=pl.lit(1_000),
            price_factor=pl.lit(1.0),
            volume_factor=pl.lit(1.0),
        )
        frame = filled.select(pl.col(name).cast(kind) for name, kind in BARS.schema.items())
        self.store.write(BARS, frame, [session.isoformat()])
