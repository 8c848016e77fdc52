"""Orders and fills as rows of the state file: how they are written, read and searched.

`state.py` holds the file, its transactions and every other table. Nothing here decides anything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, Literal

from quant_resources.exchange.orders import HELD, OPEN_STATUSES, ZERO, Execution, Order, plain

ORDER_COLUMNS: Final = tuple(field.name for field in fields(Order) if field.name != "sequence")
_MOMENTS: Final = frozenset(
    {
        "submitted_at",
        "updated_at",
        "expires_at",
        "filled_at",
        "canceled_at",
        "expired_at",
        "replaced_at",
        "triggered_at",
    }
)
_DAYS: Final = frozenset({"eligible_session", "close_only"})
_AMOUNTS: Final = frozenset(
    {"quantity", "notional", "limit_price", "stop_price", "filled_quantity", "filled_value"}
)

TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS orders (sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    {", ".join(f"{name} TEXT" for name in ORDER_COLUMNS)},
    UNIQUE (order_id), UNIQUE (client_order_id));
CREATE TABLE IF NOT EXISTS fills (sequence INTEGER PRIMARY KEY AUTOINCREMENT, execution_id TEXT UNIQUE NOT NULL,
    order_id TEXT NOT NULL REFERENCES orders (order_id), symbol TEXT NOT NULL, side TEXT NOT NULL,
    quantity TEXT NOT NULL, price TEXT NOT NULL, session TEXT NOT NULL, at TEXT NOT NULL);
"""
INDEXES: Final = """
CREATE INDEX IF NOT EXISTS orders_by_status ON orders (status);
CREATE INDEX IF NOT EXISTS orders_by_parent ON orders (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS fills_by_session ON fills (session, symbol);
"""


def add_missing_columns(connection: sqlite3.Connection) -> None:
    """Give the table of a state made by an older version the columns that it lacks."""
    found = {row[1] for row in connection.execute("PRAGMA table_info(orders)")}
    for name in ORDER_COLUMNS:
        if name not in found:
            default = " DEFAULT 'simple'" if name == "order_class" else ""
            connection.execute(f"ALTER TABLE orders ADD COLUMN {name} TEXT{default}")


@dataclass(frozen=True)
class OrderFilter:
    """Which orders a list shall hold.

    Attributes:
        status: "open", "closed" or "all"; a leg that is held is neither open nor closed.
        after: Only those submitted later; `until`: only those submitted earlier.
        roll_up: Only orders that are no legs; the caller looks these up beside them.
    """

    status: Literal["open", "closed", "all"] = "all"
    symbols: Collection[str] = ()
    side: str | None = None
    after: datetime | None = None
    until: datetime | None = None
    roll_up: bool = False
    newest_first: bool = False
    limit: int = 500


@dataclass(frozen=True)
class Fill:
    """A fill as it was booked, whatever was corrected later."""

    execution_id: str
    order_id: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal
    session: date

    @property
    def sign(self) -> int:
        """+1 for a purchase, -1 for a sale."""
        return 1 if self.side == "buy" else -1


class OrderRows:
    """The tables of orders and fills.

    Args:
        connection: The open state file.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # What is read on every request is kept here too; nobody else writes the file.
        self._open: dict[int, Order] | None = None

    def insert_order(self, order: Order) -> Order:
        """Keep a new order; the sequence number is given here."""
        marks = _marks(ORDER_COLUMNS)
        cursor = self._connection.execute(
            f"INSERT INTO orders ({', '.join(ORDER_COLUMNS)}) VALUES ({marks})",  # noqa: S608
            _order_values(order),
        )
        assert cursor.lastrowid is not None  # noqa: S101 - an insert has a row
        kept = replace(order, sequence=cursor.lastrowid)
        self._remember(kept)
        return kept

    def update_order(self, order: Order) -> None:
        """Keep a changed order."""
        marks = ", ".join(f"{name} = ?" for name in ORDER_COLUMNS)
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
        found = self._orders("order_id = ? OR client_order_id = ?", (order_id, client_order_id))
        return found[0] if found else None

    def legs(self, parents: Iterable[Order]) -> dict[str, list[Order]]:
        """The legs of entries by the entry's id, take-profit first; those replaced are left out."""
        ids = [order.order_id for order in parents if order.order_class == "bracket"]
        found: dict[str, list[Order]] = {}
        for leg in self._orders(
            f"parent_id IN ({_marks(ids)}) AND status != 'replaced'", tuple(ids)
        ):
            found.setdefault(leg.parent_id or "", []).append(leg)
        for legs in found.values():
            legs.sort(key=lambda leg: (leg.group_role != "take_profit", leg.sequence))
        return found

    def open_orders(self) -> list[Order]:
        """Orders that can still fill, in the order of submission."""
        if self._open is None:
            found = self._orders(f"status IN ({_marks(OPEN_STATUSES)})", sorted(OPEN_STATUSES))
            self._open = {order.sequence: order for order in found}
        return [order for _, order in sorted(self._open.items())]

    def still_open(self, order: Order) -> Order | None:
        """An order as it is now; None if it has ended meanwhile."""
        if self._open is None:
            self.open_orders()
        assert self._open is not None  # noqa: S101 - read just above
        return self._open.get(order.sequence)

    def all_orders(self) -> list[Order]:
        """Every order, in the order of submission."""
        return self._orders("TRUE", ())

    def find_orders(self, wanted: OrderFilter) -> list[Order]:
        """The orders of a list, in the order of submission or the reverse."""
        rules: list[str] = []
        values: list[str | int] = []
        if wanted.status != "all":
            statuses = OPEN_STATUSES - {HELD} if wanted.status == "open" else OPEN_STATUSES
            is_in = "IN" if wanted.status == "open" else "NOT IN"
            rules.append(f"status {is_in} ({_marks(statuses)})")
            values += sorted(statuses)
        if wanted.roll_up:
            rules.append("parent_id IS NULL")
        if wanted.symbols:
            rules.append(f"symbol IN ({_marks(wanted.symbols)})")
            values += sorted(wanted.symbols)
        if wanted.side:
            rules.append("side = ?")
            values.append(wanted.side)
        if wanted.after is not None:
            rules.append("sequence > ?")
            values.append(self._submitted_before(wanted.after, or_at=True))
        if wanted.until is not None:
            rules.append("sequence <= ?")
            values.append(self._submitted_before(wanted.until, or_at=False))
        return self._orders(
            " AND ".join(rules) or "TRUE",
            values,
            f"sequence {'DESC' if wanted.newest_first else 'ASC'} LIMIT {wanted.limit:d}",
        )

    def _submitted_before(self, edge: datetime, *, or_at: bool) -> int:
        return last_before(self._connection, "orders", "submitted_at", edge, or_at=or_at)

    def newest_order_ids(self, count: int) -> set[str]:
        """Both ids of the orders accepted last; legs go with their entry."""
        rows = self._connection.execute(
            "WITH newest AS (SELECT order_id FROM orders WHERE parent_id IS NULL "
            "ORDER BY sequence DESC LIMIT ?) "
            "SELECT order_id, client_order_id FROM orders "
            "WHERE order_id IN newest OR parent_id IN newest",
            (count,),
        )
        return {either for row in rows for either in row}

    def count_orders(self) -> int:
        """How many orders were ever accepted, legs among them."""
        return self._connection.execute("SELECT count(*) FROM orders").fetchone()[0]

    def _orders(
        self, rule: str, values: Iterable[object], sorting: str = "sequence"
    ) -> list[Order]:
        columns = ", ".join(("sequence", *ORDER_COLUMNS))
        rows = self._connection.execute(
            f"SELECT {columns} FROM orders WHERE {rule} ORDER BY {sorting}",  # noqa: S608
            tuple(values),
        )
        return [_order(row) for row in rows]

    # Fills

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

    def fill(self, execution_id: str) -> Fill | None:
        """One fill."""
        row = self._connection.execute(
            "SELECT execution_id, order_id, symbol, side, quantity, price, session FROM fills "
            "WHERE execution_id = ?",
            (execution_id,),
        ).fetchone()
        if row is None:
            return None
        known, order_id, symbol, side, quantity, price, session = row
        return Fill(
            known,
            order_id,
            symbol,
            side,
            Decimal(quantity),
            Decimal(price),
            date.fromisoformat(session),
        )


def last_before(
    connection: sqlite3.Connection, table: str, column: str, edge: datetime, *, or_at: bool
) -> int:
    """The sequence number of the last row from before a moment (or at it), by halving; 0 for none.

    Rows are numbered in the order of their moments, and no two have the same; the moments are kept in
    whatever time zone the clock was set in, so their texts cannot be compared.
    """
    low, high = 0, connection.execute(f"SELECT max(sequence) FROM {table}").fetchone()[0] or 0  # noqa: S608
    while low < high:
        middle = (low + high + 1) // 2
        row = connection.execute(
            f"SELECT {column} FROM {table} WHERE sequence <= ? "  # noqa: S608
            "ORDER BY sequence DESC LIMIT 1",
            (middle,),
        ).fetchone()
        moment = datetime.fromisoformat(row[0]) if row else None
        if moment is None or moment < edge or (or_at and moment == edge):
            low = middle
        else:
            high = middle - 1
    return low


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


def _order_values(order: Order) -> list[str | None]:
    values: list[str | None] = []
    for name in ORDER_COLUMNS:
        value = getattr(order, name)
        if isinstance(value, Decimal):
            values.append(plain(value))
        elif isinstance(value, date):
            values.append(value.isoformat())
        else:
            values.append(value)
    return values


def _order(row: tuple[Any, ...]) -> Order:
    values: dict[str, Any] = dict(zip(("sequence", *ORDER_COLUMNS), row, strict=True))
    for name, value in values.items():
        if value is None:
            continue
        if name in _MOMENTS:
            values[name] = datetime.fromisoformat(value).astimezone(UTC)
        elif name in _DAYS:
            values[name] = date.fromisoformat(value)
        elif name in _AMOUNTS:
            values[name] = Decimal(value)
    return Order(**values)
