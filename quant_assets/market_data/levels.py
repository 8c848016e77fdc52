"""Price levels of a listing: which jumps are news, which are another instrument or a missed split.

What belongs here: the level rule alone, on rows whose values are sound. What does not: the previous close
and the factors it is given (validation.py).

1. A row *jumps* when its close is more than 30 % from the previous delivered close times the factor of the
   corporate actions between. Jumps cut a listing into segments, each at one level.
2. A jump is *trusted* when it traded at least twice the median volume of the 20 sessions before and
   does not look like a forward split of 2 or more (a missed split also multiplies volume). Among the
   moves beyond 30 % in two years of S&P 500 members, real news traded 2.2 to 30 times its median,
   rows of a wrong instrument 0.01 to 1.2 times. A price that stayed where an action should have moved
   it is trusted too: a second session tells a late action from a false one.
3. A segment is *established* when it is the listing's first, when its jump was trusted and a second
   row confirmed it, or when it has held for `CONFIRMATION_SESSIONS`.
4. A row is accepted when it does not belong to a jump of the last `CONFIRMATION_SESSIONS`; or its
   segment's jump is trusted and the row is not the jump itself; or its level is within 30 % of the
   last established segment before, at most a listing gap ago (what lay between was wrong).
5. Rejected rows are named after what the jump looks like.
"""

from __future__ import annotations

import polars as pl

from quant_assets.market_data.listings import LISTING_GAP_SESSIONS

OUTLIER_RETURN = 0.30
CONFIRMATION_SESSIONS = 20
NEWS_VOLUME_RATIO = 2.0
#: New shares per old share of the splits that companies choose; reverse splits are their inverses.
SPLIT_RATIOS = (
    1.5,
    2.0,
    2.5,
    3.0,
    4.0,
    5.0,
    6.0,
    7.0,
    8.0,
    10.0,
    12.0,
    15.0,
    20.0,
    25.0,
    30.0,
    50.0,
)
SPLIT_TOLERANCE = 0.03

_LISTING = "security_id"
_SEGMENT = ("security_id", "segment")


def rejected_levels(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows whose level nothing supports, with the rule that names them.

    Args:
        rows: Sound rows sorted by ``security_id`` and ``position`` (calendar index), with ``close``,
            ``previous_close`` and ``expected_close`` (USD, null where there is none), ``volume``,
            ``price_factor``, ``volume_factor`` and ``explained`` (an action of unknown effect).

    Returns:
        The rejected rows with ``rule`` and of the jump that began their level ``jump_session``,
        ``jump_close``, ``jump_from`` (USD), ``jump_move`` (fraction), ``jump_factor`` and
        ``jump_volume_ratio`` added.
    """
    marked = _with_jumps(rows)
    if not marked["jump"].any():
        return marked.clear().join(_segments(marked).clear(), on=_SEGMENT)
    segments = _segments(marked)
    came_back = (
        ((pl.col("level") / pl.col("reference_level") - 1).abs() <= OUTLIER_RETURN)
        & (pl.col("segment_start") - pl.col("reference_end") <= LISTING_GAP_SESSIONS)
    ).fill_null(value=False)
    held = pl.col("position") - pl.col("segment_start")
    return marked.join(segments, on=_SEGMENT, how="inner", maintain_order="left").filter(
        pl.col("segment") > 0,
        held < CONFIRMATION_SESSIONS,
        ~(pl.col("segment_trusted") & (held > 0)),
        ~came_back,
    )


def _with_jumps(rows: pl.DataFrame) -> pl.DataFrame:
    """Add ``move``, ``jump``, ``segment``, ``level`` and ``volume_ratio``."""
    usual_volume = pl.col("volume_level").rolling_median_by(
        "position", f"{CONFIRMATION_SESSIONS}i", closed="left", min_samples=3
    )
    return (
        rows.with_columns(
            move=pl.col("close") / pl.col("expected_close") - 1,
            # One scale for all rows of a listing, whatever was split between.
            level=pl.col("close") / pl.col("price_factor").cum_prod().over(_LISTING),
            volume_level=pl.col("volume") / pl.col("volume_factor").cum_prod().over(_LISTING),
        )
        .with_columns(
            jump=((pl.col("move").abs() > OUTLIER_RETURN) & ~pl.col("explained")).fill_null(
                value=False
            ),
            volume_ratio=pl.col("volume_level") / usual_volume.over(_LISTING),
        )
        .with_columns(segment=pl.col("jump").cum_sum().over(_LISTING))
    )


def _segments(marked: pl.DataFrame) -> pl.DataFrame:
    """One row per segment: where it starts, whether it is trusted, and the level to come back to."""
    news = (pl.col("volume_ratio") >= NEWS_VOLUME_RATIO).fill_null(value=False)
    trusted = (news & ~_like_forward_split()) | _price_stayed()
    length = pl.col("position").last() - pl.col("position").first()
    return (
        marked.group_by(_SEGMENT, maintain_order=True)
        .agg(
            segment_start=pl.col("position").first(),
            segment_end=pl.col("position").last(),
            end_level=pl.col("level").last(),
            segment_trusted=trusted.first(),
            rule=_jump_name().first(),
            jump_session=pl.col("session").first(),
            jump_close=pl.col("close").first(),
            jump_from=pl.col("previous_close").first(),
            jump_move=pl.col("move").first(),
            jump_factor=pl.col("price_factor").first(),
            jump_volume_ratio=pl.col("volume_ratio").first(),
            established=(pl.col("segment").first() == 0)
            | (trusted.first() & (pl.len() > 1))
            | (length >= CONFIRMATION_SESSIONS),
        )
        .with_columns(
            pl.when("established").then(value).forward_fill().shift(1).over(_LISTING).alias(name)
            for name, value in (("reference_level", "end_level"), ("reference_end", "segment_end"))
        )
        .drop("segment_end", "end_level", "established")
    )


def _like_forward_split() -> pl.Expr:
    return pl.any_horizontal(
        ((1 + pl.col("move")) * ratio - 1).abs() <= SPLIT_TOLERANCE
        for ratio in SPLIT_RATIOS
        if ratio >= 2
    )


def _price_stayed() -> pl.Expr:
    stayed = (pl.col("close") / pl.col("previous_close") - 1).abs() <= OUTLIER_RETURN
    return stayed.fill_null(value=False)


def _jump_name() -> pl.Expr:
    ratio = pl.max_horizontal(1 + pl.col("move"), 1 / (1 + pl.col("move")))
    like_split = pl.any_horizontal(
        (ratio / simple - 1).abs() <= SPLIT_TOLERANCE for simple in SPLIT_RATIOS
    )
    return (
        pl.when(_price_stayed())
        .then(pl.lit("action_not_followed"))
        .when(like_split)
        .then(pl.lit("suspected_missed_split"))
        .otherwise(pl.lit("return_outlier"))
    )
