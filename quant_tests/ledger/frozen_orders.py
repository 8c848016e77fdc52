"""Frozen batches and broker's orders for tests of the ledger: one symbol, written as the order path writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from sqlalchemy.orm import Session

from quant_resources.broker import BrokerOrder
from quant_resources.ledger import Ledger, order_book
from quant_resources.ledger.account_tables import Fill
from quant_resources.ledger.order_states import Actor, OrderState
from quant_resources.ledger.order_tables import (
    IntentSignal,
    OrderBatch,
    OrderIntent,
    TargetPosition,
)

ACCOUNT: Final = "account"
SESSION: Final = date(2024, 3, 4)
NAME: Final = "main-2024-03-04-abc"
SUBMITTED: Final = datetime(2024, 3, 4, 15, tzinfo=UTC)
#: Terms of a bracket: 10 AAA at 100 USD, sold again at 104 or 98.
BRACKET: Final[Mapping[str, Any]] = {
    "order_type": "limit",
    "limit_price": Decimal(100),
    "take_profit_price": Decimal(104),
    "stop_loss_price": Decimal(98),
}


def intent(name: str = NAME, **more: Any) -> OrderIntent:
    """A purchase of 10 AAA at the market, with whatever is said otherwise."""
    fields = {
        "client_order_id": name,
        "symbol": "AAA",
        "security_id": "AAA@2024-03-01",
        "leg": 1,
        "side": "buy",
        "quantity": Decimal(10),
        "reduces": False,
        "order_type": "market",
        "time_in_force": "day",
        "reference_price": Decimal(100),
        "waits_for": "",
        "deadline": datetime(2024, 3, 4, 20, tzinfo=UTC),
        "state": "pending",
        "reason": "test",
    }
    return OrderIntent(**fields | more)


def freeze(
    session: Session, *intents: OrderIntent, attempt: int = 1, account: str = ACCOUNT
) -> int:
    """Freeze intents as one batch, every one with a target and a signal."""
    return order_book.freeze_batch(
        session,
        OrderBatch(
            book="main",
            trading_session=SESSION,
            attempt=attempt,
            account_id=account,
            mode="paper",
            equity=Decimal(1),
            cash=Decimal(1),
            buying_power=Decimal(1),
            configuration={},
        ),
        [_target(symbol) for symbol in sorted({row.symbol for row in intents})],
        intents,
        [_link(row) for row in intents],
    )


def frozen(ledger: Ledger, name: str = NAME, **more: Any) -> str:
    """Commit a batch of one intent."""
    with ledger.begin() as session:
        freeze(session, intent(name, **more))
    return name


def sending(ledger: Ledger, name: str = NAME, **more: Any) -> str:
    """Commit a batch of one intent whose request is about to leave."""
    frozen(ledger, name, **more)
    with ledger.begin() as session:
        state = OrderState.SENDING
        order_book.transition(session, name, state, Actor.SUBMISSION, detail="sending")
    return name


def broker_order(name: str = NAME, minutes: float = 0, **more: Any) -> BrokerOrder:
    """What the broker says of the order `minutes` after it was submitted."""
    fields = {
        "broker_order_id": f"broker-{name}",
        "client_order_id": name,
        "symbol": "AAA",
        "side": "buy",
        "quantity": Decimal(10),
        "order_type": "market",
        "filled_quantity": Decimal(0),
        "average_fill_price": None,
        "status": "new",
        "submitted_at": SUBMITTED,
        "updated_at": SUBMITTED + timedelta(minutes=minutes),
        "raw": {"said": more.get("status", "new")},
    }
    return BrokerOrder(**fields | more)


def entry(minutes: float = 0, **more: Any) -> BrokerOrder:
    """The entry of a bracket."""
    terms = {"order_type": "limit", "limit_price": Decimal(100), "order_class": "bracket"}
    return broker_order(minutes=minutes, **terms | more)


def leg(role: str, minutes: float = 0, **more: Any) -> BrokerOrder:
    """A protective leg of the bracket, by its role."""
    prices = {
        "take_profit": {"order_type": "limit", "limit_price": Decimal(104)},
        "stop_loss": {"order_type": "stop", "stop_price": Decimal(98)},
    }
    fields = {
        "broker_order_id": role,
        "client_order_id": f"{role}-id",
        "side": "sell",
        "order_class": "bracket",
        "parent_order_id": f"broker-{NAME}",
    }
    return replace(broker_order(minutes=minutes), **fields | prices[role] | more)


def fill(execution_id: str = "execution", name: str = NAME, **more: Any) -> Fill:
    """The execution of 10 AAA at 100 USD."""
    fields = {
        "execution_id": execution_id,
        "account_id": ACCOUNT,
        "trading_session": SESSION,
        "client_order_id": name,
        "broker_order_id": f"broker-{name}",
        "symbol": "AAA",
        "side": "buy",
        "quantity": Decimal(10),
        "price": Decimal(100),
        "realised_pnl": Decimal(0),
        "filled_at": SUBMITTED,
        "broker_message": {},
    }
    return Fill(**fields | more)


def _target(symbol: str) -> TargetPosition:
    return TargetPosition(
        strategy="alpha",
        symbol=symbol,
        security_id=f"{symbol}@2024-03-01",
        signal_session=date(2024, 3, 1),
        score=None,
        target_weight=Decimal(1),
        target_quantity=Decimal(10),
        reference_price=Decimal(100),
        changed=True,
        reason="test",
        model_version="rules-1",
    )


def _link(row: OrderIntent) -> IntentSignal:
    return IntentSignal(
        client_order_id=row.client_order_id,
        strategy="alpha",
        symbol=row.symbol,
        signal_session=date(2024, 3, 1),
        score=None,
        target_weight=Decimal(1),
        model_version="rules-1",
    )
