"""Rows of a batch: from stored targets to decisions, and from decisions to rows of the ledger.

Pure but for the ledger's row types. Does not belong here: deciding anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal

from quant_assets.orders.intents import Intent
from quant_assets.orders.signal_input import as_decimal
from quant_assets.orders.target_portfolio import Target
from quant_resources.errors import DataError
from quant_resources.ledger.order_states import OrderState
from quant_resources.ledger.order_tables import IntentSignal, OrderIntent, TargetPosition


def target_of(row: Mapping[str, object]) -> Target:
    """A stored row of `orders/target_portfolio` as the decision that it is.

    Raises:
        DataError: A number is none, or what an order would need to know is missing.
    """

    def number(name: str) -> Decimal:
        value = row[name]
        if not isinstance(value, float):
            raise DataError(
                f"{name} of {row['symbol']} is {value!r}, not a number; materialize "
                "orders/target_portfolio again."
            )
        return as_decimal(value)

    def perhaps(name: str) -> Decimal | None:
        return None if row[name] is None else number(name)

    signal_session, priced_at = row["signal_session"], row["priced_at"]
    if not isinstance(signal_session, date):
        raise DataError(
            f"The target of {row['symbol']} has no signal session; materialize "
            "orders/target_portfolio again."
        )
    if row["changed"] and not isinstance(priced_at, datetime):
        raise DataError(
            f"When the price of {row['symbol']} was made is not known, so nothing is ordered; "
            "materialize orders/target_portfolio again."
        )
    return Target(
        strategy=str(row["strategy"]),
        symbol=str(row["symbol"]),
        security_id=str(row["security_id"]),
        signal_session=signal_session,
        score=perhaps("score"),
        target_weight=number("target_weight"),
        target_quantity=number("target_quantity"),
        reference_price=number("reference_price"),
        reason=str(row["reason"]),
        model_version=str(row["model_version"]),
        changed=bool(row["changed"]),
        priced_at=priced_at if isinstance(priced_at, datetime) else None,
        stop_loss=perhaps("stop_loss"),
        take_profit=perhaps("take_profit"),
    )


def target_row(target: Target) -> TargetPosition:
    """A target as it is frozen."""
    return TargetPosition(
        strategy=target.strategy,
        symbol=target.symbol,
        security_id=target.security_id,
        signal_session=target.signal_session,
        score=target.score,
        target_weight=target.target_weight,
        target_quantity=target.target_quantity,
        reference_price=target.reference_price,
        changed=target.changed,
        reason=target.reason,
        model_version=target.model_version,
        priced_at=target.priced_at,
        stop_loss=target.stop_loss,
        take_profit=target.take_profit,
    )


def intent_row(intent: Intent, *, dry: bool) -> OrderIntent:
    """An intent as it is frozen; in a dry run it will never be sent."""
    state = OrderState.DRY_RUN if dry and not intent.is_refused else intent.state
    return OrderIntent(
        client_order_id=intent.client_order_id,
        symbol=intent.symbol,
        security_id=intent.security_id,
        leg=intent.leg,
        side=intent.side,
        quantity=intent.quantity,
        notional=intent.notional,
        reduces=intent.reduces,
        order_type=intent.order_type,
        time_in_force=intent.time_in_force,
        limit_price=intent.limit_price,
        stop_price=intent.stop_price,
        take_profit_price=intent.take_profit_price,
        stop_loss_price=intent.stop_loss_price,
        reference_price=intent.reference_price,
        waits_for=intent.waits_for,
        depends_on=intent.depends_on,
        deadline=intent.deadline,
        state=str(state),
        limit_name=intent.limit_name,
        limit_value=intent.limit_value,
        limit_bound=intent.limit_bound,
        reason=intent.reason,
    )


def signal_links(intents: Sequence[Intent], targets: Sequence[Target]) -> list[IntentSignal]:
    """Which strategies' signals each intent comes from."""
    by_symbol: dict[str, list[Target]] = {}
    for target in targets:
        by_symbol.setdefault(target.symbol, []).append(target)
    return [
        IntentSignal(
            client_order_id=intent.client_order_id,
            strategy=target.strategy,
            symbol=intent.symbol,
            signal_session=target.signal_session,
            score=target.score,
            target_weight=target.target_weight,
            model_version=target.model_version,
        )
        for intent in intents
        for target in by_symbol[intent.symbol]
    ]
