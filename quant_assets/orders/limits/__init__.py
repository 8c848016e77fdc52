"""Pre-trade limits: each a small class with one method that names what it refuses, and why.

Pure. A limit sees the whole batch, what is held and what is open, and refuses single intents; a refused
intent is kept with the limit, the measured number and the bound. Intents that only make a position smaller
pass the limits on exposure and losses: a book above its bounds must be able to come down. What is not known
(no price, no volume, no quote, an unknown loss) opens nothing.

| Module | Limits |
|---|---|
| `permissions` | trading_state, account, restricted, tradable, shortable |
| `order_form` | quantity, order_rules, duplicate, self_cross |
| `market_prices` | stale_quote, price_collar |
| `order_size` | order_notional, volume_share, orders_per_session |
| `loss_limits` | daily_loss, drawdown |
| `exposure` | position_size, name_weight, concentration, gross_exposure, net_exposure |
| `buying_power` | buying_power |

`limit` says what a limit is, `application` runs them. Does not belong here: the bounds (`policy.py`) and
asking the market for facts (`market_facts.py`).
"""

from __future__ import annotations

from quant_assets.orders.limits.application import LIMITS, apply_limits
from quant_assets.orders.limits.limit import (
    SHORT_SALE_CUSHION,
    Batch,
    Refusal,
    RiskLimit,
    opening_cost,
)

__all__ = [
    "LIMITS",
    "SHORT_SALE_CUSHION",
    "Batch",
    "Refusal",
    "RiskLimit",
    "apply_limits",
    "opening_cost",
]
