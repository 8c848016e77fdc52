"""The market data stage: raw deliveries, corporate actions, validated bars, quarantine, universe.

Belongs here: what came from the source, which of it may be used, and how it is adjusted. Does not belong
here: how a source is spoken to (`quant_resources.bar_source`) and anything computed from prices (the
features stage, after).
"""

from quant_assets.market_data.assets import ASSETS
from quant_assets.market_data.checks import CHECKS
from quant_assets.market_data.schemas import TABLES

__all__ = ["ASSETS", "CHECKS", "TABLES"]
