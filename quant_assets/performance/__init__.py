"""The performance stage: what was earned, what it cost, and what it would have earned elsewhere.

Belongs here: metrics, backtests, profit and loss, comparison of strategies, pictures and the tear sheet,
their tables and checks. Does not belong here: the evidence of trading itself (the orders stage).

Numbers, plots and reports are separate modules, and numbers know nothing of the others.
"""

from quant_assets.performance.assets import performance_assets as assets
from quant_assets.performance.checks import performance_checks as checks
from quant_assets.performance.schemas import TABLES, tables

__all__ = ["TABLES", "assets", "checks", "tables"]
