"""From raw deliveries to valid bars and quarantined rows: one pure function behind both tables.

The algorithm:

1. Listings are assigned from the (symbol, session) pairs of the whole history (listings.py).
2. The rows of the wanted sessions and of `HISTORY_SESSIONS` before them are judged (validation.py).
3. Rows that break a rule go to quarantine; every delivered row ends in exactly one of the two tables.
4. Valid bars get the factors of the corporate actions since the listing's previous valid bar
   (adjustment.py), in the data root's convention; rows are judged in CRSP's. An action that the price
   contradicts twice, on its ex-date (where the row was quarantined as ``action_not_followed``) and on
   the next valid bar, is not applied.

Only rows, actions and calendar up to the last wanted session are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from quant_assets.market_data.adjustment import (
    Convention,
    place_actions,
    unapplied_actions,
    with_factors,
)
from quant_assets.market_data.levels import OUTLIER_RETURN
from quant_assets.market_data.listings import LISTING_GAP_SESSIONS, assign_listings
from quant_assets.market_data.row_comparisons import with_previous
from quant_assets.market_data.schemas import BARS, QUARANTINE
from quant_assets.market_data.validation import HISTORY_SESSIONS, judge


@dataclass(frozen=True)
class Gated:
    """What became of the delivered rows of the wanted sessions.

    Attributes:
        bars: Valid bars with factors (`schemas.BARS`).
        quarantine: Rejected rows with rule, detail and remedy (`schemas.QUARANTINE`).
        unapplied: Corporate actions that met a bar and could not be applied: ``session``,
            ``symbol``, ``security_id``, ``ex_date``, ``action_type``, ``problem``.
    """

    bars: pl.DataFrame
    quarantine: pl.DataFrame
    unapplied: pl.DataFrame


def gate(
    deliveries: pl.LazyFrame,
    actions: pl.LazyFrame,
    wanted: Sequence[date],
    sessions: Sequence[date],
    *,
    appearances: pl.LazyFrame | None = None,
    releases: pl.DataFrame | None = None,
    convention: Convention = "crsp",
) -> Gated:
    """Judge the deliveries of some sessions.

    Args:
        deliveries: Raw bars (`schemas.RAW_BARS`) of the wanted sessions and of at least
            `HISTORY_SESSIONS` before them, or from the data root's first session on.
        actions: Corporate actions (`schemas.CORPORATE_ACTIONS`) from the data root's first session on.
        wanted: The sessions to produce, ascending.
        sessions: The calendar, ascending, from the data root's first session to the last wanted one.
        appearances: ``symbol`` and ``session`` of all raw bars from the data root's first session to
            the last wanted one; None: the deliveries go back that far themselves.
        releases: Rows that people have released (`schemas.RELEASES`); None: none.
        convention: How the factors of bars count distributions. Which bars are valid does not depend
            on it: a close is judged by the factor that the closes before it give.

    Returns:
        Valid bars and quarantined rows of the wanted sessions, sorted by session and symbol.
    """
    until = [session for session in sessions if session <= wanted[-1]]
    near = until[max(until.index(wanted[0]) - HISTORY_SESSIONS, 0) :]
    until_wanted = pl.col("session") <= wanted[-1]
    known = deliveries.filter(until_wanted)
    pairs, rows, facts = pl.collect_all(
        [
            (known if appearances is None else appearances.filter(until_wanted)).select(
                "symbol", "session"
            ),
            known.filter(pl.col("session") >= near[0]),
            actions.filter(until_wanted),
        ]
    )
    listings = assign_listings(pairs, facts, until, since=near[0])
    judged = judge(rows, listings, facts, near, releases)
    is_wanted = pl.col("session").is_in(list(wanted))
    # Further back lies nothing that a factor of a wanted bar could come from.
    recent = near[max(near.index(wanted[0]) - LISTING_GAP_SESSIONS, 0) :]
    valid = judged.filter(pl.col("session") >= recent[0], pl.col("rule").is_null())
    bars, unapplied = _with_factors(
        valid.drop("rule", "detail", "remedy"), facts, recent, convention
    )
    return Gated(
        bars=_cleaned(bars.filter(is_wanted)).select(list(BARS.schema)).sort("session", "symbol"),
        quarantine=judged.filter(is_wanted, pl.col("rule").is_not_null())
        .select(list(QUARANTINE.schema))
        .sort("session", "symbol", "rule", nulls_last=True),
        unapplied=unapplied.filter(is_wanted),
    )


def _with_factors(
    valid: pl.DataFrame, facts: pl.DataFrame, sessions: Sequence[date], convention: Convention
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The bars with factors, and the actions that were not applied."""
    placed = place_actions(valid, facts, sessions, LISTING_GAP_SESSIONS)
    judged = with_previous(valid, placed, sessions)
    contradicted = (
        ((pl.col("close") / pl.col("previous_close") - 1).abs() <= OUTLIER_RETURN)
        & ((pl.col("close") / pl.col("expected_close") - 1).abs() > OUTLIER_RETURN)
    ).fill_null(value=False)
    ignored = judged.filter(contradicted).select(
        "session",
        "symbol",
        "security_id",
        ex_date=pl.col("session"),
        action_type=pl.lit("price-changing"),
        problem=pl.format(
            "the price did not follow the factor {} in two sessions",
            pl.col("price_factor").round(6),
        ),
    )
    followed = placed.join(ignored, on=["security_id", "session"], how="anti")
    return (
        with_factors(valid, followed, convention),
        pl.concat([unapplied_actions(placed), ignored]).sort("session", "symbol", "ex_date"),
    )


def _cleaned(bars: pl.DataFrame) -> pl.DataFrame:
    # A day without trades has no average price; sources send 0 for it.
    usable = (pl.col("vwap").is_finite() & (pl.col("vwap") > 0)).fill_null(value=False)
    return bars.with_columns(
        vwap=pl.when(usable).then("vwap"),
        trade_count=pl.when(pl.col("trade_count") >= 0).then("trade_count"),
    )
