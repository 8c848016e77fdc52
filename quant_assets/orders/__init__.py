"""The orders stage: from signals to orders at the broker, exactly once, within limits, or not at all.

`target_portfolio` → `intents` → `limits` decide, pure. `planning` gathers what they need, `batches`
freezes, `submission` sends and recovers, `booking` books what happened, `evidence` proves it. The rules
are in `policy`.
"""

from quant_assets.orders.assets import order_assets as assets
from quant_assets.orders.checks import CHECKS
from quant_assets.orders.schemas import TABLES

__all__ = ["CHECKS", "TABLES", "assets"]
