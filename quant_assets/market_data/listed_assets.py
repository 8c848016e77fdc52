"""The broker's asset list as a table: what could be traded, lent and split when somebody looked.

Belongs here: the list as rows. Does not belong here: asking for it (assets.py) and what it decides, which is
nothing in the universe and whatever the limits ask of the broker itself when orders are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import polars as pl

from quant_assets.market_data.schemas import LISTED_ASSETS
from quant_resources.broker import Asset
from quant_resources.errors import BrokerError


def observed_list(
    listings: Sequence[Asset], session: date, broker: str, observed_at: datetime
) -> pl.DataFrame:
    """The list as rows of `schemas.LISTED_ASSETS`, by symbol.

    Args:
        listings: The whole list, one entry per symbol.
        session: The newest session that had closed when it was observed.
        broker: Name of the broker.
        observed_at: When the list was received.

    Raises:
        BrokerError: The list is empty, which no broker's is.
    """
    if not listings:
        raise BrokerError(f"The asset list of {broker} is empty; check QUANT_TRADING_URL.")
    names = ("symbol", "active", "tradable", "shortable", "fractionable")
    return (
        pl.DataFrame({name: [getattr(asset, name) for asset in listings] for name in names})
        .with_columns(
            session=pl.lit(session),
            source=pl.lit(broker),
            observed_at=pl.lit(observed_at).dt.cast_time_unit("us"),
        )
        .select(list(LISTED_ASSETS.schema))
        .sort("symbol")
    )
