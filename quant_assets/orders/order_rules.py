"""The broker's rules, put to an intent: what would be refused is never frozen. Pure.

Belongs here: the order that an intent becomes, and whether it may. The rules themselves are
`quant_resources.order_rules`, which the adapter asks once more before it sends.
"""

from __future__ import annotations

from datetime import datetime

from quant_assets.orders.intents import Intent
from quant_resources.broker import Asset, OrderRequest
from quant_resources.order_rules import breaches

__all__ = ["breaches", "intent_breaches", "request_of"]


def request_of(intent: Intent) -> OrderRequest:
    """Exactly what is sent for an intent: by dollars where it has a notional, else by shares."""
    return OrderRequest(
        client_order_id=intent.client_order_id,
        symbol=intent.symbol,
        side=intent.side,
        quantity=intent.quantity if intent.notional is None else None,
        notional=intent.notional,
        order_type=intent.order_type,
        time_in_force=intent.time_in_force,
        limit_price=intent.limit_price,
        stop_price=intent.stop_price,
        take_profit_price=intent.take_profit_price,
        stop_loss_price=intent.stop_loss_price,
    )


def intent_breaches(intent: Intent, asset: Asset | None, now: datetime | None = None) -> list[str]:
    """Every rule of the broker that the intent's order would break; `breaches` says how they read."""
    return breaches(
        request_of(intent),
        asset,
        opens=not intent.reduces,
        price=intent.reference_price,
        now=now,
    )
