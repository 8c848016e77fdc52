"""Price levels of a listing: which jumps are news, which are another instrument or a missed split.

What belongs here: the level rule alone, on rows whose values are sound. What does not: the previous close
and the factors it is given (validation.py).

1. A row *jumps* when its close is more than 30 % from the previous delivered close times the factor of the
   corporate actions between. Jumps cut a listing into segments, each at one level.
2. A new level is *held back* for as many sessions as its first row leaves doubt:
   - none when it traded like news: it opened within 30 % of the old level (a split, or another
     instrument, shows from the open) and traded twice the median volume of the 20 sessions before, or it
     traded three times that (five times, net of the split, where it looks like a forward split);
   - one when the price stayed where an action should have moved it: a second session tells a late action
     from a false one;
   - `DOUBT_SESSIONS` when one of the two signs of news is there, since a wrong instrument is gone
     within days;
   - `CONFIRMATION_SESSIONS` for all else: what looks like a split or a misplaced decimal point, what
     traded no more than usual;
   - `THIN_SESSIONS` when after those 20 sessions the level has turned over less than a tenth of the money
     that the listing turned over before: a company does not lose nine tenths of its trading in a jump
     that nobody traded on, another instrument (a preferred share, a note) never had it.
3. A segment is *established* when it is the listing's first, has outlasted its doubt, or a person has
   released a row of it; it is *firm* when besides it held for `CONFIRMATION_SESSIONS`.
4. A row is rejected while its level is held back, unless the level is within 30 % of the last established
   or the last firm one, at most a listing gap ago (what lay between was wrong), or a row of the segment up
   to it was released.
5. Rejected rows are named after what the jump looks like.

In two years of S&P 500 members, the 16 real moves beyond 30 % traded 2.2 to 30 times their median,
and the five that began with a gap beyond 30 % at least 8 times; rows of a wrong instrument traded 0.01 to
0.8 times it. Of ordinary rows 6 % trade twice their median, 1.7 % three times, 0.5 % five times. Where those
bars show another instrument for five months, its turnover is a twentieth of the company's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from quant_assets.market_data.listings import LISTING_GAP_SESSIONS

OUTLIER_RETURN = 0.30
DOUBT_SESSIONS = 5
CONFIRMATION_SESSIONS = 20
THIN_SESSIONS = 120
#: How far back the verdict on a row can look: a thin level, a gap to the level before, which may be thin
#: itself, and the volume before that one.
LEVEL_HISTORY_SESSIONS = 2 * THIN_SESSIONS + LISTING_GAP_SESSIONS + CONFIRMATION_SESSIONS
NEWS_VOLUME_RATIO = 2.0
CERTAIN_VOLUME_RATIO = 3.0
#: Net of the split that it looks like: a real 2:1 split has traded 3.0 times its median.
CERTAIN_SPLIT_VOLUME_RATIO = 5.0
THIN_TURNOVER = 0.1
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
DECIMAL_SHIFTS = (100.0, 1000.0, 10000.0)
DECIMAL_TOLERANCE = 0.10

#: The rules that this module names.
LEVEL_RULES = (
    "action_not_followed",
    "suspected_missed_split",
    "misplaced_decimal",
    "return_outlier",
)

_LISTING = "security_id"
#: A level on one scale whatever happened between: by all factors, and by those of splits alone, since a
#: dividend after a wrong row was measured on the wrong price.
_LEVELS = ("level", "share_level")
_END_LEVELS = ("end_level", "end_share_level")
#: So many rows make a median that the day of the news does not decide.
_ROWS_OF_A_MEDIAN = 3
_SEGMENT = ("security_id", "segment")


def rejected_levels(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows whose level nothing supports, with the rule that names them.

    Args:
        rows: Sound rows, unique by ``security_id`` and ``position`` (calendar index), with ``open``,
            ``close``, ``previous_close`` and ``expected_close`` (USD, null where there is none),
            ``volume``, ``price_factor``, ``volume_factor``, ``explained`` (an action of unknown effect)
            and ``released`` (a person has released the row's level).

    Returns:
        The rejected rows with ``rule`` and of the jump that began their level ``jump_session``,
        ``jump_close``, ``jump_from`` (USD), ``jump_move`` (fraction), ``jump_factor`` and
        ``jump_volume_ratio`` added.
    """
    moved = rows.with_columns(move=pl.col("close") / pl.col("expected_close") - 1).with_columns(
        jump=((pl.col("move").abs() > OUTLIER_RETURN) & ~pl.col("explained")).fill_null(value=False)
    )
    # Few listings jump; only they are looked at any further.
    jumping = moved.filter("jump")[_LISTING].unique()
    marked = _with_segments(
        moved.filter(pl.col(_LISTING).is_in(jumping.implode())).sort(_LISTING, "position")
    )
    segments = _segments(marked)
    came_back = pl.any_horizontal(
        (
            ((pl.col(level) / pl.col(f"{kind}_end_{level}") - 1).abs() <= OUTLIER_RETURN)
            & (pl.col("segment_start") - pl.col(f"{kind}_segment_end") <= LISTING_GAP_SESSIONS)
        ).fill_null(value=False)
        for kind in ("established", "firm")
        for level in _LEVELS
    )
    return marked.join(segments, on=_SEGMENT, how="inner", maintain_order="left").filter(
        pl.col("segment") > 0,
        pl.col("position") - pl.col("segment_start") < pl.col("hold"),
        ~came_back,
        (pl.col("position") < pl.col("released_from")).fill_null(value=True),
    )


def _with_segments(moved: pl.DataFrame) -> pl.DataFrame:
    """Add ``segment``, levels, turnover and what they usually were in the 20 sessions before."""

    def usual(name: str) -> pl.Expr:
        median = pl.col(name).rolling_median_by(
            "position", f"{CONFIRMATION_SESSIONS}i", closed="left", min_samples=3
        )
        return median.over(_LISTING)

    shares = pl.col("volume_factor").cum_prod().over(_LISTING)
    return (
        moved.with_columns(
            level=pl.col("close") / pl.col("price_factor").cum_prod().over(_LISTING),
            share_level=pl.col("close") * shares,
            volume_level=pl.col("volume") / shares,
            turnover=pl.col("close") * pl.col("volume"),
            segment=pl.col("jump").cum_sum().over(_LISTING),
        )
        .with_columns(
            volume_ratio=pl.col("volume_level") / usual("volume_level"),
            usual_turnover=usual("turnover"),
        )
        .drop("volume_level")
    )


def _segments(marked: pl.DataFrame) -> pl.DataFrame:
    """One row per segment: where it starts, how long it is held back, which levels it may come back to."""
    first, last = pl.col("position").first(), pl.col("position").last()
    early = pl.col("position") - first < CONFIRMATION_SESSIONS
    late = last - pl.col("position") < CONFIRMATION_SESSIONS
    segments = marked.group_by(_SEGMENT, maintain_order=True).agg(
        segment_start=first,
        segment_end=last,
        rows=pl.len(),
        doubt=_doubt().first(),
        end_level=pl.col("level").last(),
        end_share_level=pl.col("share_level").last(),
        usual_turnover=pl.col("usual_turnover").first(),
        early_turnover=pl.col("turnover").filter(early).median(),
        late_turnover=pl.col("turnover").filter(late).median(),
        released_from=pl.col("position").filter("released").min(),
        rule=_jump_name().first(),
        jump_session=pl.col("session").first(),
        jump_close=pl.col("close").first(),
        jump_from=pl.col("previous_close").first(),
        jump_move=pl.col("move").first(),
        jump_factor=pl.col("price_factor").first(),
        jump_volume_ratio=pl.col("volume_ratio").first(),
    )
    is_first = pl.col("segment") == 0
    length = pl.col("segment_end") - pl.col("segment_start")
    believed = (
        is_first
        | ((pl.col("doubt") <= DOUBT_SESSIONS) & (pl.col("rows") >= _ROWS_OF_A_MEDIAN))
        | (length >= THIN_SESSIONS)
    )
    held = _referring(segments, {"believed": believed}, ("late_turnover",)).with_columns(
        hold=pl.when((pl.col("doubt") == CONFIRMATION_SESSIONS) & _thin())
        .then(THIN_SESSIONS)
        .otherwise("doubt")
    )
    outlasted = (length >= pl.col("hold")) & (pl.col("rows") > 1)
    established = is_first | outlasted | pl.col("released_from").is_not_null()
    firm = is_first | (established & (length >= CONFIRMATION_SESSIONS))
    return _referring(held, {"established": established, "firm": firm}, _END_LEVELS).select(
        *_SEGMENT,
        "segment_start",
        "hold",
        "released_from",
        "rule",
        pl.col("^jump_.*$"),
        pl.col("^(established|firm)_.*$"),
    )


def _referring(
    segments: pl.DataFrame, kinds: Mapping[str, pl.Expr], values: Sequence[str]
) -> pl.DataFrame:
    """Add values and end of the last segment before of each kind, as ``<kind>_<value>``."""
    return segments.with_columns(
        pl.when(is_kind).then(value).forward_fill().shift(1).over(_LISTING).alias(f"{kind}_{value}")
        for kind, is_kind in kinds.items()
        for value in (*values, "segment_end")
    )


def _thin() -> pl.Expr:
    """Whether a level turns over a fraction of what the last believed one did, or the sessions before."""
    recent = pl.col("segment_start") - pl.col("believed_segment_end") <= LISTING_GAP_SESSIONS
    usual = pl.when(recent).then("believed_late_turnover").otherwise("usual_turnover")
    return (pl.col("early_turnover") < THIN_TURNOVER * usual).fill_null(value=False)


def _doubt() -> pl.Expr:
    """For how many sessions a jump's first row leaves its level in doubt, before turnover is looked at."""
    from_the_open = ~_opened_near()
    like_split = from_the_open & _like_forward_split()
    busy = (pl.col("volume_ratio") >= NEWS_VOLUME_RATIO).fill_null(value=False)
    certain = (
        pl.when(like_split)
        .then(pl.col("volume_ratio") * (1 + pl.col("move")) >= CERTAIN_SPLIT_VOLUME_RATIO)
        .otherwise(pl.col("volume_ratio") >= CERTAIN_VOLUME_RATIO)
    ).fill_null(value=False)
    return (
        pl.when(_price_stayed())
        .then(1)
        .when(_like_decimal_shift())
        .then(CONFIRMATION_SESSIONS)
        .when(certain | (busy & ~from_the_open))
        .then(0)
        .when(like_split)
        .then(CONFIRMATION_SESSIONS)
        .when(busy | ~from_the_open)
        .then(DOUBT_SESSIONS)
        .otherwise(CONFIRMATION_SESSIONS)
    )


def _opened_near() -> pl.Expr:
    near = (pl.col("open") / pl.col("expected_close") - 1).abs() <= OUTLIER_RETURN
    return near.fill_null(value=False)


def _like_forward_split() -> pl.Expr:
    return _like_split(
        (pl.col("expected_close") / pl.col(price) for price in ("open", "close")), least=2.0
    )


def _like_split(ratios: Iterable[pl.Expr], least: float) -> pl.Expr:
    return pl.any_horizontal(
        (ratio / simple - 1).abs() <= SPLIT_TOLERANCE
        for ratio in ratios
        for simple in SPLIT_RATIOS
        if simple >= least
    ).fill_null(value=False)


def _like_decimal_shift() -> pl.Expr:
    return pl.any_horizontal(
        (_scale() / shift - 1).abs() <= DECIMAL_TOLERANCE for shift in DECIMAL_SHIFTS
    )


def _price_stayed() -> pl.Expr:
    stayed = (pl.col("close") / pl.col("previous_close") - 1).abs() <= OUTLIER_RETURN
    return stayed.fill_null(value=False)


def _scale(price: str = "close") -> pl.Expr:
    """How many times larger the one level is than the other, at least 1."""
    ratio = pl.col(price) / pl.col("expected_close")
    return pl.max_horizontal(ratio, 1 / ratio)


def _jump_name() -> pl.Expr:
    like_split = ~_opened_near() & _like_split((_scale("open"), _scale()), least=1.5)
    return (
        pl.when(_price_stayed())
        .then(pl.lit("action_not_followed"))
        .when(like_split)
        .then(pl.lit("suspected_missed_split"))
        .when(_like_decimal_shift())
        .then(pl.lit("misplaced_decimal"))
        .otherwise(pl.lit("return_outlier"))
    )
