"""Which session it is for the broker: its clock decides, never ours."""

from __future__ import annotations

from datetime import date

import dagster as dg

from quant_assets.cli.platform import Platform
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.resources import platform_resources


def newest_closed_session(platform: Platform) -> date:
    """The newest session whose daily bars exist: they do from midnight New York after it."""
    today = platform.broker.clock().now.astimezone(NEW_YORK).date()
    return XNYS.previous(today)


def newest_delivered_session(platform: Platform) -> date:
    """The newest closed session of the broker's clock that the source of bars can have."""
    source = platform_resources(platform.settings)["bar_source"]
    with dg.build_resources({"bar_source": source}) as built:
        return min(newest_closed_session(platform), built.bar_source.newest_closed_session())
