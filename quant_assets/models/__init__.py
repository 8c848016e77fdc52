"""The models stage: a model per month, trained on what was known before it, with its evidence.

Belongs here: splitting, training, judging and promoting models, their table and checks. Does not belong
here: features and labels (before) and the use of predictions (the signals stage, after).
"""

from quant_assets.models.assets import ASSETS
from quant_assets.models.checks import CHECKS
from quant_assets.models.schemas import TABLES

__all__ = ["ASSETS", "CHECKS", "TABLES"]
