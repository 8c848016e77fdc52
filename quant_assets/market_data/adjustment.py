"""Adjustment of raw prices for corporate actions, as pure functions over Polars frames.

What belongs here: the factor of a corporate action, the factors of a bar, and the adjustment of a
window of bars. What does not: where actions come from, which bars are valid, any storage.

In these steps:

1. Prices are stored raw. Every bar carries two factors that say how everything *before* it has to
   be rescaled to be comparable with it: ``price_factor`` and ``volume_factor``.
2. A share-changing action (forward and reverse split, stock dividend) of ``ratio`` new shares per
   old share has price factor ``1 / ratio`` and volume factor ``ratio``. A stock dividend of 5 %
   has ratio 1.05.
3. A cash dividend of D per share, regular or special, has volume factor 1 and a price factor by
   convention. CRSP, the default, as Yahoo: ``1 - D / close_prev``, where ``close_prev`` is the close
   of the security's previous bar. WIKI, as Quandl's WIKI prices: ``close_ex / (close_ex + D)``, where
   ``close_ex`` is the bar's own close, so that the adjusted return of the ex-date is the holding return
   ``(close_ex + D) / close_prev - 1``. The two differ by up to 0.2 % at ordinary dividends.
4. A spin-off is a dividend in kind: D is the value distributed per share, stated by the source or
   else ``ratio`` shares of the new symbol at its close on the session that the factor belongs to.
5. A bar's factor is the product over all actions with an ex-date after the security's previous bar
   and not after this bar, so that an action on a halted or quarantined day is not lost.
6. Amounts are per share *as held at the close before the ex-date*. A dividend that goes ex on the
   day of a split is therefore per pre-split share, as in CRSP's return
   ``(p_t * f_t + d_t) / p_prev - 1``, and both factors simply multiply. Amounts of one ex-date add
   up to one D. What D is compared with is per the same share: with splits between, the previous close
   is divided by the ratios before the ex-date (a dividend that goes ex later than a split, with no bar
   between, is per post-split share), and the bar's own close is multiplied by those from it on.
7. Whether an action is applied does not depend on the convention.
8. A window is adjusted as known at its last session: every bar is multiplied by the product of the
   factors of the security's *later* bars in the window.

Sources: CRSP US Stock & Index Databases Guide, "Adjusted data" and "Return calculation"; Yahoo Finance
help, "What is the adjusted close?"; Quandl WIKI Prices, columns ``ex_dividend`` and ``adj_close``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Literal, TypeVar

import polars as pl

from quant_assets.market_data.panel_keys import PanelKeys

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)
#: How a distribution rescales the prices before it.
Convention = Literal["crsp", "wiki"]

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
    present = bars.collect_schema().names()
    # Named first: an expression over groups would be computed once for every column that it scales.
    later = {"_later_price": "price_factor", "_later_volume": "volume_factor"}
    scaled = bars.with_columns(
        pl.col(factor)
        .shift(-1)
        .fill_null(1.0)
        .cum_prod(reverse=True)
        .over("security_id", order_by="session")
        .alias(name)
        for name, factor in later.items()
    ).with_columns(
        *(pl.col(name) * pl.col("_later_price") for name in PRICE_COLUMNS if name in present),
        *(pl.col(name) * pl.col("_later_volume") for name in ("volume",) if name in present),
        price_factor=pl.lit(1.0),
        volume_factor=pl.lit(1.0),
    )
    return scaled.drop(later)


def session_factors(
    bars: pl.DataFrame,
    actions: pl.DataFrame,
    sessions: Sequence[date],
    reach: int,
    convention: Convention = "crsp",
) -> pl.DataFrame:
    """Add the factors of the corporate actions that each bar is the first to show.

    Args:
        bars: As in `place_actions`.
        actions: As in `place_actions`; types without an effect on prices are ignored.
        sessions: As in `place_actions`.
        reach: As in `place_actions`.
        convention: Of distributions.

    Returns:
        The bars in their order with ``price_factor`` and ``volume_factor`` (Float64, both 1.0 where
        nothing happened). A listing's first bar has factors 1.0. Actions that cannot be applied
        leave the factors alone; `unapplied_actions` names them.
    """
    return with_factors(bars, place_actions(bars, actions, sessions, reach), convention)


def with_factors(
    bars: pl.DataFrame, placed: pl.DataFrame, convention: Convention = "crsp"
) -> pl.DataFrame:
    """`session_factors` of actions that have been placed.

    Args:
        bars: The bars that the actions were placed beside, in the same order.
        placed: From `place_actions`.
        convention: Of distributions.

    Returns:
        As `session_factors`.

    Raises:
        ValueError: These are not the bars that the actions were placed beside.
    """
    if not bars["security_id"].gather(placed["bar"]).equals(placed["security_id"]):
        raise ValueError(
            "The actions were placed beside other bars, or beside these in another order."
        )
    amount = pl.col("amount").sum()
    basis, close_after = (pl.col(name).first() for name in ("basis", "close_after"))
    distributed = {
        "crsp": 1.0 - amount / basis.fill_null(1.0),
        "wiki": close_after / (close_after + amount),
    }[convention]
    factors = (
        placed.filter(
            pl.col("action_type").is_in(SHARE_CHANGING + DISTRIBUTING), pl.col("problem").is_null()
        )
        .group_by("bar", "ex_date", maintain_order=True)
        .agg(
            price_factor=distributed / pl.col("share_ratio").product(),
            volume_factor=pl.col("share_ratio").product(),
        )
        .group_by("bar", maintain_order=True)
        .agg(pl.col("price_factor", "volume_factor").product())
    )
    return bars.with_columns(
        pl.repeat(1.0, bars.height, eager=True).scatter(factors["bar"], factors[name]).alias(name)
        for name in ("price_factor", "volume_factor")
    )


def unapplied_actions(placed: pl.DataFrame) -> pl.DataFrame:
    """Price-changing actions that met a bar but could not be applied, with the reason.

    Args:
        placed: From `place_actions`.

    Returns:
        Columns ``session``, ``symbol``, ``security_id``, ``ex_date``, ``action_type``, ``problem``.
    """
    return (
        placed.filter(pl.col("problem").is_not_null())
        .select("session", "symbol", "security_id", "ex_date", "action_type", "problem")
        .sort("session", "symbol", "ex_date", "action_type")
    )


def place_actions(
    bars: pl.DataFrame, actions: pl.DataFrame, sessions: Sequence[date], reach: int
) -> pl.DataFrame:
    """Put every corporate action beside the bar that first shows it, with its terms or its problem.

    Args:
        bars: Bars, unique by (security_id, session) and by (symbol, session), in any order, with
            ``symbol``, ``security_id``, ``session``, ``first_session`` and raw ``close`` (USD).
        actions: Corporate actions of any type with ``symbol``, ``ex_date``, ``action_type``,
            ``ratio``, ``cash`` and ``new_symbol``.
        sessions: The calendar, ascending, over the span of the bars.
        reach: How many sessions back a previous bar or an ex-date may lie. A bounded reach makes a
            bar's factors the same whether one session or a whole history is computed at once.

    Returns:
        The actions that meet a bar other than a listing's first, by ex-date and symbol, with ``bar`` (the
        number of the bar's row), its ``security_id`` and ``session``; of those that change prices ``share_ratio``, ``amount`` (USD
        per share before the ex-date), ``basis`` and ``close_after`` (USD, previous and own close per
        the same share; basis null out of reach), and ``problem`` where they cannot be applied.
    """
    # How far back an ex-date before the calendar lies is unknown: out of reach.
    known = (
        actions.filter(pl.col("ex_date") >= pl.lit(sessions[0], pl.Date))
        .select("symbol", "ex_date", "action_type", "ratio", "cash", "new_symbol")
        .sort("ex_date", "symbol", "action_type", "ratio", "cash", "new_symbol")
    )
    by_symbol = PanelKeys.of(bars["symbol"], bars["session"], sessions, reach)
    by_listing = PanelKeys.of(bars["security_id"], bars["session"], sessions, reach)
    row = by_symbol.first_within(known["symbol"], known["ex_date"], reach)
    shown, row = known.filter(row.is_not_null()), row.drop_nulls()
    beside = bars.select("security_id", "session", "first_session", "close")[row]
    placed = shown.hstack(beside).with_columns(
        bar=row,
        # A previous bar out of reach is none: a longer window must not see more.
        previous_close=bars["close"].gather(by_listing.previous().gather(row)),
        new_close=bars["close"].gather(
            by_symbol.first_within(shown["new_symbol"], beside["session"], 1)
        ),
    )
    return _with_terms(placed.filter(pl.col("session") > pl.col("first_session")))


def _with_terms(placed: pl.DataFrame) -> pl.DataFrame:
    """Add what `place_actions` says of actions that change prices."""
    changes_shares = pl.col("action_type").is_in(SHARE_CHANGING)
    distributes = pl.col("action_type").is_in(DISTRIBUTING)
    one_day = ["security_id", "session", "ex_date"]
    terms = placed.with_columns(
        share_ratio=pl.when(changes_shares).then("ratio").otherwise(1.0),
        amount=pl.when(pl.col("action_type") == "spin_off")
        .then(pl.coalesce("cash", pl.col("ratio") * pl.col("new_close")))
        .when(distributes)
        .then("cash")
        .otherwise(0.0),
    ).with_columns(
        problem=pl.when(~_positive("share_ratio"))
        .then(pl.lit("the ratio is missing or not positive"))
        .when(distributes & ~_positive("amount"))
        .then(pl.lit("the amount per share is missing or not positive"))
        .when(distributes & pl.col("previous_close").is_null())
        .then(pl.lit("the security has no previous close within reach")),
    )
    sound = pl.col("problem").is_null()
    ratios = (
        terms.filter(sound)
        .group_by(one_day, maintain_order=True)
        .agg(day_ratio=pl.col("share_ratio").product())
        .with_columns(
            ratio_before=pl.col("day_ratio")
            .cum_prod()
            .shift(1)
            .fill_null(1.0)
            .over(one_day[:2], order_by="ex_date"),
            ratio_from=pl.col("day_ratio")
            .cum_prod(reverse=True)
            .over(one_day[:2], order_by="ex_date"),
        )
    )
    day_amount = pl.col("amount").filter(sound).sum().over(one_day)
    return (
        terms.join(ratios, on=one_day, how="left", maintain_order="left")
        .with_columns(
            basis=pl.col("previous_close") / pl.col("ratio_before"),
            close_after=pl.col("close") * pl.col("ratio_from"),
        )
        .with_columns(
            problem=pl.when(sound & distributes & (day_amount >= pl.col("basis")))
            .then(pl.lit("the amount is not smaller than the previous close"))
            .otherwise("problem")
        )
    )


def _positive(name: str) -> pl.Expr:
    return (pl.col(name).is_finite() & (pl.col(name) > 0)).fill_null(value=False)
