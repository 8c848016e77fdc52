"""The signals stage: what every strategy wants to hold, session by session.

Belongs here: strategies, how they are found and fed, their tables and checks. Does not belong here:
allocation between strategies and limits (the orders stage).
"""

from quant_assets.signals.assets import signal_assets as assets
from quant_assets.signals.checks import signal_checks as checks
from quant_assets.signals.schemas import TABLES, tables

__all__ = ["TABLES", "assets", "checks", "tables"]
