"""The gate over what is stored: one reading of deliveries, actions and releases for everyone who asks.

Used by the step that makes bars and quarantine, and by the plan that asks whether stored ones still follow
from the newest vintages. Which rows are valid is `quality_gate.gate`'s to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from quant_assets.market_data.adjustment import Convention
from quant_assets.market_data.quality_gate import Gated, gate
from quant_assets.market_data.schemas import CORPORATE_ACTIONS, RAW_BARS, RELEASES
from quant_assets.market_data.validation import HISTORY_SESSIONS
from quant_resources.calendar import XNYS
from quant_resources.store import Store


def gate_stored(
    store: Store, first: date, wanted: Sequence[date], convention: Convention = "crsp"
) -> Gated:
    """Judge the newest stored deliveries of some sessions.

    Args:
        store: The data root; every session from `first` to the last wanted one must have been fetched.
        first: First session of the data root's market.
        wanted: Sessions to judge, ascending.
        convention: Convention of the data root's dividends.

    Raises:
        MissingPartitionError: A session has not been fetched: a hole in the history would make old
            companies new listings.
    """
    sessions = XNYS.sessions(first, wanted[-1])
    keys = [session.isoformat() for session in sessions]
    near = keys[max(len(keys) - len(XNYS.sessions(wanted[0], wanted[-1])) - HISTORY_SESSIONS, 0) :]
    return gate(
        # Of the sessions before these, which can be ten years, only who was there is asked.
        store.read(RAW_BARS, near),
        store.read(CORPORATE_ACTIONS, keys),
        wanted,
        sessions,
        appearances=store.read(RAW_BARS, keys, ["symbol", "session"]),
        releases=store.read(RELEASES).collect() if store.exists(RELEASES) else None,
        convention=convention,
    )
