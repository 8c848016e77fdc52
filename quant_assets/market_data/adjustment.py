"""Adjustment of raw prices for corporate actions, as pure functions over Polars frames.

What belongs here: the factor of a corporate action, the factors of a bar, and the adjustment of a
window of bars. What does not: where actions come from, which bars are valid, any storage.

The convention is CRSP's, in these steps:

1. Prices are stored raw. Every bar carries two factors that say how everything *before* it has to
   be rescaled to be comparable with it: ``price_factor`` and ``volume_factor``.
2. A share-changing action (forward and reverse split, stock dividend) of ``ratio`` new shares per
   old share has price factor ``1 / ratio`` and volume factor ``ratio``. A stock dividend of 5 %
   has ratio 1.05.
3. A cash dividend of D per share has price factor ``1 - D / close_prev`` and volume factor 1, where
   ``close_prev`` is the close of the security's previous bar. (WIKI divides by ``close + D``
   instead; the two differ by up to 0.2 %.)
4. A spin-off is a dividend in kind: D is the value distributed per share, stated by the source or
   else ``ratio`` shares of the new symbol at its close on the session that the factor belongs to.
5. A bar's factor is the product over all actions with an ex-date after the security's previous bar
   and not after this bar, so that an action on a halted or quarantined day is not lost.
6. Amounts are per share *as held at the close before the ex-date*. A dividend that goes ex on the
   day of a split is therefore per pre-split share, as in CRSP's return
   ``(p_t * f_t + d_t) / p_prev - 1``, and both factors simply multiply. Amounts of one ex-date add
   up to one D. A dividend that goes ex on a later day than a split, with no bar between, is per
   post-split share: ``1 - D / (close_prev / ratio)``.
7. A window is adjusted as known at its last session: every bar is multiplied by the product of the
   factors of the security's *later* bars in the window.

Source: CRSP US Stock & Index Databases Guide, "Adjusted data" and "Return calculation".
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TypeVar

import polars as pl

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)

PRICE_COLUMNS = ("open", "high", "low", "close", "vwap")
SHARE_CHANGING = ("forward_split", "reverse_split", "stock_dividend")
DISTRIBUTING = ("cash_dividend", "spin_off")


def adjust(bars: Frame) -> Frame:
    """Adjust a window of raw bars as known at the window's last session.

    Args:
        bars: One row per (security_id, session) in any order, with raw prices, volume,
            ``price_factor`` and ``volume_factor``. Price and volume columns that are absent are
            left out, so that a projection can be adjusted. The first factor of every security in
            the window is not used: nothing lies before it.

    Returns:
        The same frame (type, columns, row order) with adjusted prices (USD per share of the
        window's last session) and volume. The factors come back as 1.0: an adjusted window needs no
        further adjustment, and adjusting twice is adjusting once.
    """
    present = set(bars.collect_schema().names())
    later_price, later_volume = (
        pl.col(factor)
        .shift(-1)
        .fill_null(1.0)
        .cum_prod(reverse=True)
        .over("security_id", order_by="session")
        for factor in ("price_factor", "volume_factor")
    )
    adjusted = [pl.col(name) * later_price for name in PRICE_COLUMNS if name in present]
    if "volume" in present:
        adjusted.append(pl.col("volume") * later_volume)
    return bars.with_columns(*adjusted, price_factor=pl.lit(1.0), volume_factor=pl.lit(1.0))


def session_factors(
    bars: pl.DataFrame, actions: pl.DataFrame, sessions: Sequence[date], reach: int
) -> pl.DataFrame:
    """Add the factors of the corporate actions that each bar is the first to show.

    Args:
        bars: Valid bars, unique by (security_id, session) and by (symbol, session), in any order,
            with ``symbol``, ``security_id``, ``session``, ``first_session`` and raw ``close`` (USD).
        actions: Corporate actions with ``symbol``, ``ex_date``, ``action_type``, ``ratio``,
            ``cash`` and ``new_symbol``; types without an effect on prices are ignored.
        sessions: The calendar, ascending, over at least the span of the bars.
        reach: How many sessions back a previous bar or an ex-date may lie. A bounded reach makes a
            bar's factors the same whether one session or a whole history is computed at once.

    Returns:
        The bars in their order with ``price_factor`` and ``volume_factor`` (Float64, both 1.0 where
        nothing happened). A listing's first bar has factors 1.0. Actions that cannot be applied
        leave the factors alone; `unapplied_actions` names them.
    """
    applied = _placed(bars, actions, sessions, reach).filter(pl.col("problem").is_null())
    factors = (
        applied.group_by("security_id", "session", "ex_date")
        .agg(
            price_factor=(1.0 - pl.col("amount").sum() / pl.col("basis").first().fill_null(1.0))
            / pl.col("share_ratio").product(),
            volume_factor=pl.col("share_ratio").product(),
        )
        .group_by("security_id", "session")
        .agg(pl.col("price_factor", "volume_factor").product())
    )
    return bars.join(
        factors, on=["security_id", "session"], how="left", maintain_order="left"
    ).with_columns(pl.col("price_factor", "volume_factor").fill_null(1.0))


def unapplied_actions(
    bars: pl.DataFrame, actions: pl.DataFrame, sessions: Sequence[date], reach: int
) -> pl.DataFrame:
    """Price-changing actions that met a bar but could not be applied, with the reason.

    Args:
        bars: As in `session_factors`.
        actions: As in `session_factors`.
        sessions: As in `session_factors`.
        reach: As in `session_factors`.

    Returns:
        Columns ``session``, ``symbol``, ``security_id``, ``ex_date``, ``action_type``, ``problem``.
    """
    return (
        _placed(bars, actions, sessions, reach)
        .filter(pl.col("problem").is_not_null())
        .select("session", "symbol", "security_id", "ex_date", "action_type", "problem")
        .sort("session", "symbol", "ex_date", "action_type")
    )


def place_actions(
    bars: pl.DataFrame, actions: pl.DataFrame, sessions: Sequence[date], reach: int
) -> pl.DataFrame:
    """Put every corporate action beside the bar that first shows it.

    Args:
        bars: As in `session_factors`.
        actions: As in `session_factors`, of any type.
        sessions: As in `session_factors`.
        reach: As in `session_factors`.

    Returns:
        The actions that meet a bar other than a listing's first, with the bar's ``security_id``,
        ``session``, the ``previous_close`` of the security (USD, null out of reach) and the
        ``new_close`` of the new symbol at the session (USD, null without a bar).
    """
    calendar = pl.DataFrame(
        {"session": list(sessions), "position": range(len(sessions))},
        schema={"session": pl.Date, "position": pl.Int64},
    )
    positioned = (
        bars.select("symbol", "security_id", "session", "first_session", "close")
        .join(calendar, on="session", how="inner")
        .sort("session", "symbol")
        .with_columns(
            # A previous bar out of reach is none: a longer window must not see more.
            previous_close=pl.when(pl.col("position").diff().over("security_id") <= reach).then(
                pl.col("close").shift(1).over("security_id")
            )
        )
    )
    return (
        # How far back an ex-date before the calendar lies is unknown: out of reach.
        actions.filter(pl.col("ex_date") >= pl.lit(sessions[0], pl.Date))
        .select("symbol", "ex_date", "action_type", "ratio", "cash", "new_symbol")
        .sort("ex_date", "symbol")
        .join_asof(
            calendar.rename({"session": "ex_session", "position": "ex_position"}),
            left_on="ex_date",
            right_on="ex_session",
            strategy="forward",
            check_sortedness=False,
        )
        .join_asof(
            positioned,
            left_on="ex_date",
            right_on="session",
            by="symbol",
            strategy="forward",
            coalesce=False,
            check_sortedness=False,
        )
        .filter(
            pl.col("session") > pl.col("first_session"),
            pl.col("position") - pl.col("ex_position") < reach,
        )
        .join(
            positioned.select(new_symbol="symbol", session="session", new_close="close"),
            on=["new_symbol", "session"],
            how="left",
        )
    )


def _placed(
    bars: pl.DataFrame, actions: pl.DataFrame, sessions: Sequence[date], reach: int
) -> pl.DataFrame:
    """Each price-changing action at the bar that first shows it, with its terms or its problem."""
    changing = actions.filter(pl.col("action_type").is_in(SHARE_CHANGING + DISTRIBUTING))
    return _with_terms(place_actions(bars, changing, sessions, reach))


def _with_terms(placed: pl.DataFrame) -> pl.DataFrame:
    """Add ``share_ratio``, ``amount`` (USD), ``basis`` (USD, what an amount is taken from), ``problem``."""
    changes_shares = pl.col("action_type").is_in(SHARE_CHANGING)
    one_day = ["security_id", "session", "ex_date"]
    terms = placed.with_columns(
        share_ratio=pl.when(changes_shares).then("ratio").otherwise(1.0),
        amount=pl.when(changes_shares)
        .then(0.0)
        .otherwise(
            pl.when(pl.col("action_type") == "spin_off")
            .then(pl.coalesce("cash", pl.col("ratio") * pl.col("new_close")))
            .otherwise("cash")
        ),
    ).with_columns(
        problem=pl.when(~_positive("share_ratio"))
        .then(pl.lit("the ratio is missing or not positive"))
        .when(~changes_shares & ~_positive("amount"))
        .then(pl.lit("the amount per share is missing or not positive"))
        .when(~changes_shares & pl.col("previous_close").is_null())
        .then(pl.lit("the security has no previous close within reach")),
    )
    sound = pl.col("problem").is_null()
    ratio_before = (
        terms.filter(sound)
        .group_by(one_day)
        .agg(day_ratio=pl.col("share_ratio").product())
        .with_columns(
            ratio_before=pl.col("day_ratio")
            .cum_prod()
            .shift(1)
            .fill_null(1.0)
            .over("security_id", "session", order_by="ex_date")
        )
    )
    day_amount = pl.col("amount").filter(sound).sum().over(one_day)
    return (
        terms.join(ratio_before, on=one_day, how="left")
        .with_columns(basis=pl.col("previous_close") / pl.col("ratio_before"))
        .with_columns(
            problem=pl.when(sound & ~changes_shares & (day_amount >= pl.col("basis")))
            .then(pl.lit("the amount is not smaller than the previous close"))
            .otherwise("problem")
        )
    )


def _positive(name: str) -> pl.Expr:
    return (pl.col(name).is_finite() & (pl.col(name) > 0)).fill_null(value=False)
