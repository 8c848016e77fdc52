"""Which session it is for the broker: its clock decides, never ours."""

from __future__ import annotations

from datetime import date

from quant_assets.cli.platform import Platform
from quant_resources.calendar import NEW_YORK, XNYS


def newest_closed_session(platform: Platform) -> date:
    """The newest session whose daily bars exist: they do from midnight New York after it."""
    today = platform.broker.clock().now.astimezone(NEW_YORK).date()
    return XNYS.previous(today)
