"""The features stage: what is known of each member of the universe at a session's close, and its labels.

Belongs here: features computed from validated bars, forward returns, their tables and checks.
Does not belong here: prices and adjustment (before), models and which labels they may use
(after).
"""

from quant_assets.features import checks, label_checks
from quant_assets.features.assets import ASSETS
from quant_assets.features.schemas import TABLES

CHECKS = (*checks.CHECKS, *label_checks.CHECKS)

__all__ = ["ASSETS", "CHECKS", "TABLES"]
