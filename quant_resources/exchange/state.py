"""The durable state of an exchange: one SQLite file (WAL), every request one transaction.

Fills, activities, restatements and the audit log are append-only; triggers refuse to change them. Money
and shares are kept as text, exactly. Nothing here decides anything.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from quant_resources.errors import ExchangeError
from quant_resources.exchange.account import Position
from quant_resources.exchange.order_rows import (
    INDEXES,
    TABLES,
    OrderRows,
    add_missing_columns,
    last_before,
)
from quant_resources.exchange.orders import plain
from quant_resources.exchange.spec import MarketSpec

_SCHEMA = f"""{TABLES}
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS positions (symbol TEXT PRIMARY KEY, quantity TEXT NOT NULL, cost_basis TEXT NOT NULL);
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


@dataclass(frozen=True)
class ActivityFilter:
    """Which account activities a list shall hold.

    Attributes:
        trades: True for fills only, False for everything else.
        behind: Only those that the list has behind this sequence number.
        limit: None for all.
    """

    kinds: Collection[str] = ()
    trades: bool | None = None
    day: date | None = None
    after: datetime | None = None
    until: datetime | None = None
    behind: int | None = None
    newest_first: bool = False
    limit: int | None = None


class State(OrderRows):
    """The state file of one exchange; used by one thread of one process.

    Args:
        folder: The state folder; `exchange.sqlite` lies in it.
    """

    FILE = "exchange.sqlite"

    def __init__(self, folder: Path) -> None:
        path = folder / self.FILE
        if not path.exists():
            raise ExchangeError(f"There is no exchange in {folder}; create one with a market spec.")
        super().__init__(_connect(path))
        # A state made by an older version gets the tables and columns that it lacks.
        self._connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        add_missing_columns(self._connection)
        self._connection.executescript(f"BEGIN; {INDEXES} COMMIT;")
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
            connection.executescript(f"BEGIN; {_SCHEMA} {INDEXES}")
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

    def activities(self) -> list[dict[str, Any]]:
        """Every account activity, oldest first."""
        return self.find_activities(ActivityFilter())

    def find_activities(self, wanted: ActivityFilter) -> list[dict[str, Any]]:
        """The account activities of a list, in the order of events or the reverse."""
        rules, values = ["TRUE"], list[str | int]()
        if wanted.kinds:
            rules.append(f"activity_type IN ({', '.join('?' * len(wanted.kinds))})")
            values += sorted(wanted.kinds)
        if wanted.trades is not None:
            rules.append(f"activity_type {'=' if wanted.trades else '!='} 'FILL'")
        if wanted.day is not None:
            rules.append("day = ?")
            values.append(wanted.day.isoformat())
        for edge, is_after in ((wanted.after, True), (wanted.until, False)):
            if edge is not None:
                rules.append("sequence > ?" if is_after else "sequence <= ?")
                values.append(
                    last_before(self._connection, "activities", "at", edge, or_at=is_after)
                )
        if wanted.behind is not None:
            rules.append("sequence < ?" if wanted.newest_first else "sequence > ?")
            values.append(wanted.behind)
        order = "DESC" if wanted.newest_first else "ASC"
        values.append(-1 if wanted.limit is None else wanted.limit)
        rows = self._connection.execute(
            f"SELECT document FROM activities WHERE {' AND '.join(rules)} "  # noqa: S608
            f"ORDER BY sequence {order} LIMIT ?",
            values,
        )
        return [json.loads(row[0]) for row in rows]

    def activity_sequence(self, activity_id: str) -> int | None:
        """The place of an activity among all; None if there is no such one."""
        row = self._connection.execute(
            "SELECT sequence FROM activities WHERE activity_id = ?", (activity_id,)
        ).fetchone()
        return row[0] if row else None

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

    def audit_end(self) -> int:
        """The sequence number of the audit log's newest entry; zero for an empty one."""
        return self._connection.execute("SELECT coalesce(max(sequence), 0) FROM audit").fetchone()[
            0
        ]


def _connect(path: Path, journal: str = "WAL") -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection
