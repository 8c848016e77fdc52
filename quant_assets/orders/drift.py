"""A difference between ledger and broker, and what explains it. Pure value types.

Does not belong here: finding differences (`reconciliation.py`), explaining them (`drift_explanations.py`), and booking
an explanation that a person has confirmed (`confirmation.py`).

An explanation is a proposal: it says what would have to be booked for the difference to be gone, and why that is
believed. Nothing is booked before somebody confirms it under its key. The key is a digest of what would be
booked, so that what is confirmed is exactly what was seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from quant_resources.errors import LedgerError

DriftKind = Literal["order", "fill", "position", "average_price", "cash"]
AdjustmentKind = Literal["split", "dividend", "manual_trade", "other"]

_KEY_LENGTH = 12


@dataclass(frozen=True)
class ForeignExecution:
    """An execution of an order that is not ours, as it counts: signed shares at a price in USD.

    Attributes:
        change: Zero for what was busted.
        corrects: The execution in whose place it counts, if the broker corrected or busted one.
    """

    execution_id: str
    change: Decimal
    price: Decimal
    at: datetime
    corrects: str | None = None

    @property
    def cash(self) -> Decimal:
        """What it brought, USD; negative for a purchase."""
        return -self.change * self.price


@dataclass(frozen=True)
class Explanation:
    """What would explain a difference, and what booking it would change.

    Attributes:
        kind: What happened. "other" is a rename that the broker does not name.
        symbol: Whose shares or dividend it is; the new name for a rename.
        quantity: Change of shares; for a rename all that is held under the old symbol.
        price: USD per share, where shares were traded.
        cash: Change of cash, USD.
        at: When it happened.
        text: One sentence for a person.
        old_symbol: What a renamed symbol was called.
        orders: Broker ids of the orders behind it, which are not ours.
        executions: Executions of those orders that are not booked yet.
    """

    kind: AdjustmentKind
    symbol: str | None
    quantity: Decimal
    price: Decimal | None
    cash: Decimal
    at: datetime
    text: str
    old_symbol: str | None = None
    orders: Sequence[str] = ()
    executions: Sequence[ForeignExecution] = ()

    @property
    def key(self) -> str:
        """Under which it is confirmed; the same for the same change, whenever it is found."""
        facts = [
            self.kind,
            self.symbol or "",
            self.old_symbol or "",
            plain(self.quantity),
            plain(self.cash),
            # A split or dividend is known by its day, a trade by its executions.
            *(sorted(one.execution_id for one in self.executions) or [self.at.date().isoformat()]),
            *sorted(self.orders),
        ]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:_KEY_LENGTH]

    def as_json(self) -> dict[str, Any]:
        """For the ledger: everything that a later comparison needs to recognise what was confirmed."""
        return {
            "key": self.key,
            "kind": self.kind,
            "symbol": self.symbol,
            "quantity": str(self.quantity),
            "price": None if self.price is None else str(self.price),
            "cash": str(self.cash),
            "at": self.at.isoformat(),
            "text": self.text,
            "old_symbol": self.old_symbol,
            "orders": list(self.orders),
            "executions": [
                {
                    "id": one.execution_id,
                    "change": str(one.change),
                    "price": str(one.price),
                    "at": one.at.isoformat(),
                    "corrects": one.corrects,
                }
                for one in self.executions
            ],
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Explanation:
        """What `as_json` made."""
        return cls(
            kind=stored["kind"],
            symbol=stored["symbol"],
            quantity=Decimal(stored["quantity"]),
            price=None if stored["price"] is None else Decimal(stored["price"]),
            cash=Decimal(stored["cash"]),
            at=datetime.fromisoformat(stored["at"]),
            text=stored["text"],
            old_symbol=stored["old_symbol"],
            orders=tuple(stored["orders"]),
            executions=tuple(
                ForeignExecution(
                    one["id"],
                    Decimal(one["change"]),
                    Decimal(one["price"]),
                    datetime.fromisoformat(one["at"]),
                    one["corrects"],
                )
                for one in stored["executions"]
            ),
        )


@dataclass(frozen=True)
class Drift:
    """One difference.

    Attributes:
        explanation: What explains it and waits to be confirmed; None: nothing does.
    """

    kind: DriftKind
    subject: str
    ledger: str
    broker: str
    detail: str
    explanation: Explanation | None = field(default=None, compare=False)

    def as_json(self) -> dict[str, str]:
        """For the ledger."""
        return {
            "kind": self.kind,
            "subject": self.subject,
            "ledger": self.ledger,
            "broker": self.broker,
            "detail": self.detail,
            "key": self.explanation.key if self.explanation else "",
            "explanation": self.explanation.text if self.explanation else "",
        }

    def __str__(self) -> str:
        return f"{self.detail} (ledger: {self.ledger}, broker: {self.broker})"


class UnconfirmedDriftError(LedgerError):
    """Ledger and broker differ, and what explains it waits for somebody to confirm it."""


def unexplained(drifts: Sequence[Drift]) -> list[Drift]:
    """The differences that nothing explains: those that halt."""
    return [drift for drift in drifts if drift.explanation is None]


def explanations(drifts: Sequence[Drift]) -> list[Explanation]:
    """What waits to be confirmed, each once."""
    found = {drift.explanation.key: drift.explanation for drift in drifts if drift.explanation}
    return list(found.values())


def require_confirmed(drifts: Sequence[Drift], what: str) -> None:
    """Refuse to go on while an explanation waits for confirmation.

    Args:
        drifts: What a comparison has found.
        what: What is refused, such as "planned for 2024-03-05".

    Raises:
        UnconfirmedDriftError: Naming each explanation and the command that confirms it.
    """
    waiting = explanations(drifts)
    if waiting:
        told = " ".join(
            f"{one.text} Confirm it with `quant reconcile --confirm {one.key} --reason WHY`."
            for one in waiting
        )
        raise UnconfirmedDriftError(
            f"Nothing is {what}: ledger and broker differ, and the explanation is not confirmed. {told}"
        )


def plain(number: Decimal) -> str:
    """A number without an exponent and without zeros at its end."""
    return f"{number.normalize():f}"
