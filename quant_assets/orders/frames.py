"""From rows of the ledger to the stage's tables. Rows in, Polars out.

Belongs here: column by column copies. Does not belong here: queries (`quant_resources.ledger`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, TypeVar

import polars as pl

from quant_assets.orders import schemas
from quant_assets.orders.target_portfolio import Target
from quant_resources.ledger.counted_fills import CountedFill
from quant_resources.ledger.order_tables import (
    AccountSnapshot,
    Order,
    OrderBatch,
    OrderIntent,
    PositionSnapshot,
    TargetPosition,
)
from quant_resources.tables import Table

_Row = TypeVar("_Row")


def targets_frame(
    targets: Sequence[Target] | Sequence[TargetPosition],
    trading_session: date,
    book: str,
) -> pl.DataFrame:
    """Rows of `orders/target_portfolio`, from planned targets or from those of a frozen batch."""
    return _frame(
        schemas.TARGET_PORTFOLIO,
        targets,
        lambda row: {
            "trading_session": trading_session,
            "book": book,
            **_copied(
                row,
                "strategy",
                "symbol",
                "security_id",
                "signal_session",
                "score",
                "target_weight",
                "target_quantity",
                "reference_price",
                "changed",
                "reason",
                "model_version",
                "priced_at",
                "stop_loss",
                "take_profit",
            ),
        },
    )


def intents_frame(intents: Sequence[OrderIntent], batch: OrderBatch) -> pl.DataFrame:
    """Rows of `orders/order_intents`."""
    return _frame(
        schemas.ORDER_INTENTS,
        intents,
        lambda row: {
            **_copied(batch, "trading_session", "book", "attempt"),
            **_copied(
                row,
                "client_order_id",
                "symbol",
                "leg",
                "side",
                "quantity",
                "notional",
                "order_type",
                "time_in_force",
                "limit_price",
                "stop_price",
                "take_profit_price",
                "stop_loss_price",
                "reference_price",
                "state",
                "limit_name",
                "limit_value",
                "limit_bound",
                "reason",
                "deadline",
            ),
        },
    )


def orders_frame(orders: Sequence[Order], trading_session: date) -> pl.DataFrame:
    """Rows of `orders/orders`."""
    names = [column.name for column in schemas.ORDERS.columns if column.name != "trading_session"]
    return _frame(
        schemas.ORDERS,
        orders,
        lambda row: {"trading_session": trading_session, **_copied(row, *names)},
    )


def fills_frame(fills: Sequence[CountedFill]) -> pl.DataFrame:
    """Rows of `orders/fills`."""
    names = [column.name for column in schemas.FILLS.columns]
    return _frame(schemas.FILLS, fills, lambda row: _copied(row, *names))


def positions_frame(positions: Sequence[PositionSnapshot], trading_session: date) -> pl.DataFrame:
    """Rows of `orders/positions`."""
    return _frame(
        schemas.POSITIONS,
        positions,
        lambda row: {
            "trading_session": trading_session,
            **_copied(
                row,
                "symbol",
                "security_id",
                "quantity",
                "average_price",
                "market_price",
                "market_value",
                "realised_pnl",
                "unrealised_pnl",
            ),
        },
    )


def account_frame(snapshot: AccountSnapshot) -> pl.DataFrame:
    """The row of `orders/account`; exposures are null-free: no equity means no exposure."""
    equity = snapshot.equity

    def share(value: Decimal) -> float:
        return float(value / equity) if equity > 0 else 0.0

    return _frame(
        schemas.ACCOUNT,
        [snapshot],
        lambda row: {
            **_copied(
                row,
                "trading_session",
                "account_id",
                "equity",
                "cash",
                "buying_power",
                "long_value",
                "short_value",
                "previous_equity",
                "trading_state",
            ),
            "gross_exposure": share(row.long_value - row.short_value),
            "net_exposure": share(row.long_value + row.short_value),
        },
    )


def _frame(
    table: Table, rows: Iterable[_Row], copy: Callable[[_Row], Mapping[str, Any]]
) -> pl.DataFrame:
    return pl.DataFrame([dict(copy(row)) for row in rows], schema=table.schema, orient="row")


def _copied(row: object, *names: str) -> dict[str, Any]:
    return {name: _plain(getattr(row, name)) for name in names}


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value
