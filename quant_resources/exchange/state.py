"""The durable state of an exchange: one SQLite file (WAL), every request one transaction.

Fills, activities, restatements and the audit log are append-only; triggers refuse to change them. Money
and shares are kept as text, exactly. Nothing here decides anything.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from quant_resources.errors import ExchangeError
from quant_resources.exchange.account import Position
from quant_resources.exchange.orders import OPEN_STATUSES, ZERO, Execution, Order, plain
from quant_resources.exchange.spec import MarketSpec

_ORDER_COLUMNS = tuple(field.name for field in fields(Order) if field.name != "sequence")
_MOMENTS = {
    "submitted_at",
    "updated_at",
    "expires_at",
    "filled_at",
    "canceled_at",
    "expired_at",
}
_AMOUNTS = {"quantity", "notional", "limit_price", "filled_quantity", "filled_value"}

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS positions (symbol TEXT PRIMARY KEY, quantity TEXT NOT NULL, cost_basis TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS orders (sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    {", ".join(f"{name} TEXT" for name in _ORDER_COLUMNS)},
    UNIQUE (order_id), UNIQUE (client_order_id));
CREATE INDEX IF NOT EXISTS orders_by_status ON orders (status);
CREATE TABLE IF NOT EXISTS fills (sequence INTEGER PRIMARY KEY AUTOINCREMENT, execution_id TEXT UNIQUE NOT NULL,
    order_id TEXT NOT NULL REFERENCES orders (order_id), symbol TEXT NOT NULL, side TEXT NOT NULL,
    quantity TEXT NOT NULL, price TEXT NOT NULL, session TEXT NOT NULL, at TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS fills_by_session ON fills (session, symbol);
CREATE TABLE IF NOT EXISTS activities (sequence INTEGER PRIMARY KEY AUTOINCREMENT, activity_id TEXT UNIQUE NOT NULL,
    activity_type TEXT NOT NULL, day TEXT NOT NULL, at TEXT NOT NULL, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS audit (sequence INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL,
    event TEXT NOT NULL, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS restatements (sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL, document TEXT NOT NULL);
""" + "".join(
    f"CREATE TRIGGER IF NOT EXISTS {table}_{verb.lower()} BEFORE {verb} ON {table} "
    f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END;\n"
    for table in ("fills", "activities", "audit", "restatements")
    for verb in ("UPDATE", "DELETE")
)


class State:
    """The state file of one exchange; used by one thread of one process.

    Args:
        folder: The state folder; `exchange.sqlite` lies in it.
    """

    FILE = "exchange.sqlite"

    def __init__(self, folder: Path) -> None:
        path = folder / self.FILE
        if not path.exists():
            raise ExchangeError(f"There is no exchange in {folder}; create one with a market spec.")
        self._connection = _connect(path)
        # A state made by an older version gets the tables that it lacks.
        self._connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        # What is read on every request is kept here too; nobody else writes the file.
        self._open: dict[int, Order] | None = None
        self._held: dict[str, Position] | None = None

    @classmethod
    def create(cls, folder: Path, spec: MarketSpec, clock: datetime) -> None:
        """Create the state of a new exchange; appears whole or not at all.

        Raises:
            ExchangeError: The folder cannot be written.
        """
        path = folder / cls.FILE
        draft = folder / f".{cls.FILE}.{uuid.uuid4().hex}"
        meta = {
            "state_id": uuid.uuid4().hex,
            "spec": spec.model_dump_json(),
            "clock": clock.isoformat(),
            "stamp": clock.isoformat(),
            "created_at": clock.isoformat(),
            "cash": plain(spec.starting_cash),
            "last_equity": plain(spec.starting_cash),
            "closing_equity": plain(spec.starting_cash),
            "closing_day": "",
            "suspend_trade": "false",
            "follow": "false",
            "market_digest": "",
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            connection = _connect(draft, journal="DELETE")
            # One transaction: a commit for each statement would wait for the disk twenty times.
            connection.executescript(f"BEGIN; {_SCHEMA}")
            connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            connection.execute("COMMIT")
            connection.close()
            draft.rename(path)
        except (OSError, sqlite3.OperationalError) as error:
            draft.unlink(missing_ok=True)
            raise ExchangeError(
                f"The exchange cannot be created in {folder}: {error}. Free space or choose a folder "
                "that can be written."
            ) from error

    @classmethod
    def peek(cls, folder: Path) -> tuple[str, MarketSpec] | None:
        """The state's id and specification without opening it for work; None if there is none."""
        meta = cls._peeked(folder)
        return None if meta is None else (meta["state_id"], MarketSpec.from_json(meta["spec"]))

    @classmethod
    def peek_clock(cls, folder: Path) -> datetime | None:
        """Where the clock of an exchange stands, whether it runs or not; None if there is none."""
        meta = cls._peeked(folder)
        return None if meta is None else datetime.fromisoformat(meta["clock"])

    @classmethod
    def _peeked(cls, folder: Path) -> dict[str, str] | None:
        path = folder / cls.FILE
        if not path.exists():
            return None
        connection = sqlite3.connect(path)
        try:
            return dict(
                connection.execute(
                    "SELECT key, value FROM meta WHERE key IN ('state_id', 'spec', 'clock')"
                ).fetchall()
            )
        except sqlite3.DatabaseError as error:
            raise ExchangeError(
                f"{path} is not the state of an exchange ({error}); remove the folder to start over."
            ) from error
        finally:
            connection.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside happens or nothing does."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._open = self._held = None
            # SQLite may have rolled back by itself, as it does on a full disk.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    # Single values

    def get(self, key: str) -> str:
        """A value of the state."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0]

    def find(self, key: str) -> str | None:
        """A value that the state may not have."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def put(self, key: str, value: str) -> None:
        """Set a value of the state."""
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @property
    def clock(self) -> datetime:
        """The virtual clock, aware UTC."""
        return datetime.fromisoformat(self.get("clock"))

    @property
    def cash(self) -> Decimal:
        """The account's cash, USD."""
        return Decimal(self.get("cash"))

    def add_cash(self, amount: Decimal) -> None:
        """Book cash in (or out, when negative)."""
        self.put("cash", plain(self.cash + amount))

    def next_stamp(self, at: datetime | None = None) -> datetime:
        """A moment for something that happens: the clock, or later by microseconds.

        No two things have the same moment, so that lists can be paged by time.
        """
        last = datetime.fromisoformat(self.get("stamp"))
        moment = max(at or self.clock, last + timedelta(microseconds=1))
        self.put("stamp", moment.isoformat())
        return moment

    # Positions

    def positions(self) -> dict[str, Position]:
        """Holdings by symbol, ascending."""
        if self._held is None:
            rows = self._connection.execute("SELECT * FROM positions")
            self._held = {r[0]: Position(r[0], Decimal(r[1]), Decimal(r[2])) for r in rows}
        return dict(sorted(self._held.items()))

    def set_position(self, position: Position) -> None:
        """Keep a holding; one of no shares is forgotten."""
        held = self._held
        if held is not None:
            held[position.symbol] = position
        if position.quantity == 0:
            if held is not None:
                del held[position.symbol]
            self._connection.execute("DELETE FROM positions WHERE symbol = ?", (position.symbol,))
            return
        self._connection.execute(
            "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)",
            (position.symbol, plain(position.quantity), plain(position.cost_basis)),
        )

    # Orders and fills

    def insert_order(self, order: Order) -> Order:
        """Keep a new order; the sequence number is given here."""
        marks = ", ".join("?" * len(_ORDER_COLUMNS))
        cursor = self._connection.execute(
            f"INSERT INTO orders ({', '.join(_ORDER_COLUMNS)}) VALUES ({marks})",  # noqa: S608
            _order_values(order),
        )
        assert cursor.lastrowid is not None  # noqa: S101 - an insert has a row
        kept = replace(order, sequence=cursor.lastrowid)
        self._remember(kept)
        return kept

    def update_order(self, order: Order) -> None:
        """Keep a changed order."""
        marks = ", ".join(f"{name} = ?" for name in _ORDER_COLUMNS)
        self._connection.execute(
            f"UPDATE orders SET {marks} WHERE sequence = ?",  # noqa: S608
            (*_order_values(order), order.sequence),
        )
        self._remember(order)

    def _remember(self, order: Order) -> None:
        if self._open is not None:
            self._open.pop(order.sequence, None)
            if order.is_open:
                self._open[order.sequence] = order

    def order(self, *, order_id: str = "", client_order_id: str = "") -> Order | None:
        """One order by either id."""
        row = self._connection.execute(
            "SELECT * FROM orders WHERE order_id = ? OR client_order_id = ?",
            (order_id, client_order_id),
        ).fetchone()
        return _order(row) if row else None

    def open_orders(self) -> list[Order]:
        """Orders that can still fill, in the order of submission."""
        if self._open is None:
            marks = ", ".join("?" * len(OPEN_STATUSES))
            rows = self._connection.execute(
                f"SELECT * FROM orders WHERE status IN ({marks})",  # noqa: S608
                sorted(OPEN_STATUSES),
            )
            self._open = {order.sequence: order for order in map(_order, rows)}
        return [order for _, order in sorted(self._open.items())]

    def all_orders(self) -> list[Order]:
        """Every order, in the order of submission."""
        return [
            _order(r) for r in self._connection.execute("SELECT * FROM orders ORDER BY sequence")
        ]

    def newest_order_ids(self, count: int) -> set[str]:
        """Both ids of the orders accepted last."""
        rows = self._connection.execute(
            "SELECT order_id, client_order_id FROM orders ORDER BY sequence DESC LIMIT ?", (count,)
        )
        return {either for row in rows for either in row}

    def count_orders(self) -> int:
        """How many orders were ever accepted."""
        return self._connection.execute("SELECT count(*) FROM orders").fetchone()[0]

    def insert_fill(
        self,
        execution_id: str,
        order: Order,
        execution: Execution,
        session: date,
        at: datetime,
    ) -> None:
        """Append a fill."""
        self._connection.execute(
            "INSERT INTO fills (execution_id, order_id, symbol, side, quantity, price, session, at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                execution_id,
                order.order_id,
                order.symbol,
                order.side,
                plain(execution.quantity),
                plain(execution.price),
                session.isoformat(),
                at.isoformat(),
            ),
        )

    def filled_in(self, session: date, symbol: str) -> Decimal:
        """Shares of a symbol that orders have already taken from a session."""
        rows = self._connection.execute(
            "SELECT quantity FROM fills WHERE session = ? AND symbol = ?",
            (session.isoformat(), symbol),
        )
        return sum((Decimal(row[0]) for row in rows), ZERO)

    # Append-only records

    def insert_activity(
        self, activity_id: str, kind: str, day: date, at: datetime, document: dict[str, Any]
    ) -> None:
        """Append an account activity."""
        self._connection.execute(
            "INSERT INTO activities (activity_id, activity_type, day, at, document) "
            "VALUES (?, ?, ?, ?, ?)",
            (activity_id, kind, day.isoformat(), at.isoformat(), json.dumps(document)),
        )

    def activities(self) -> list[tuple[int, str, date, datetime, dict[str, Any]]]:
        """Account activities: sequence, type, day, moment, document; oldest first."""
        rows = self._connection.execute(
            "SELECT sequence, activity_type, day, at, document FROM activities ORDER BY sequence"
        )
        return [
            (r[0], r[1], date.fromisoformat(r[2]), datetime.fromisoformat(r[3]), json.loads(r[4]))
            for r in rows
        ]

    def count_activities(self) -> int:
        """How many activities there are."""
        return self._connection.execute("SELECT count(*) FROM activities").fetchone()[0]

    def insert_restatement(self, document: dict[str, Any]) -> None:
        """Append a change of published data."""
        self._connection.execute(
            "INSERT INTO restatements (at, document) VALUES (?, ?)",
            (self.clock.isoformat(), json.dumps(document)),
        )

    def restatements(self) -> list[dict[str, Any]]:
        """Changes of published data with sequence number and moment, oldest first."""
        rows = self._connection.execute(
            "SELECT sequence, at, document FROM restatements ORDER BY sequence"
        )
        return [{"sequence": r[0], "at": r[1], **json.loads(r[2])} for r in rows]

    def record(self, event: str, document: dict[str, Any], at: datetime | None = None) -> None:
        """Append to the audit log."""
        moment = (at or self.clock).isoformat()
        self._connection.execute(
            "INSERT INTO audit (at, event, document) VALUES (?, ?, ?)",
            (moment, event, json.dumps(document)),
        )

    def audit(self, after: int = 0) -> list[dict[str, Any]]:
        """The audit log after a sequence number, oldest first."""
        rows = self._connection.execute(
            "SELECT sequence, at, event, document FROM audit WHERE sequence > ? ORDER BY sequence",
            (after,),
        )
        return [{"sequence": r[0], "at": r[1], "event": r[2], **json.loads(r[3])} for r in rows]


def _connect(path: Path, journal: str = "WAL") -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _order_values(order: Order) -> list[str | None]:
    values: list[str | None] = []
    for name in _ORDER_COLUMNS:
        value = getattr(order, name)
        if isinstance(value, Decimal):
            values.append(plain(value))
        elif isinstance(value, date):
            values.append(value.isoformat())
        else:
            values.append(value)
    return values


def _order(row: tuple[Any, ...]) -> Order:
    values: dict[str, Any] = dict(zip(("sequence", *_ORDER_COLUMNS), row, strict=True))
    for name, value in values.items():
        if value is None:
            continue
        if name in _MOMENTS:
            values[name] = datetime.fromisoformat(value).astimezone(UTC)
        elif name in _AMOUNTS:
            values[name] = Decimal(value)
    values["eligible_session"] = date.fromisoformat(values["eligible_session"])
    return Order(**values)
