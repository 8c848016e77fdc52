"""Which delivered bars may be used: one rule per defect, each named, explained and with a remedy.

What belongs here: rules on rows, as pure functions. What does not: storage, the factors of valid bars,
rules on whole sessions (checks.py), the rules' words (rules.py). In the order in which a row is judged; the
first broken rule counts:

1. ``malformed_symbol``: no ticker, or one that no exchange would list (a slash, a path).
2. ``not_a_session``: the bar's own time lies on another day than the session it came with.
3. ``missing_price``: open, high, low or close absent, NaN or infinite.
4. ``non_positive_price``: a price that is not above zero, or by less than any tick.
5. ``high_below_low``, and ``outside_high_low``: open or close outside [low, high] by more than the
   rounding of a cent.
6. ``bad_volume``: volume absent, negative, NaN or infinite; ``misplaced_decimal``: high or low nine
   times beyond both open and close, as no day has been whose prices are written correctly.
7. ``duplicate`` (the same row again: one is kept) and ``conflicting_duplicate`` (different rows for one
   symbol and session: none is kept, nobody knows which is right).
8. ``zero_volume``, ``stale_row``, ``copied_row``, ``volume_spike``: rows beside other rows
   (row_comparisons.py).
9. ``action_not_followed``, ``suspected_missed_split``, ``misplaced_decimal`` or ``return_outlier``: the
   close is more than 30 % from the previous delivered close, rescaled by the factor of the corporate
   actions between, and no action of unknown effect (merger, unpriced spin-off, rights) explains it.
   Named after what it looks like.

Rule 9 judges levels, with no knowledge of the future (levels.py): a jump that trades like real news is
kept, any other is held back the longer the less speaks for it, or until the old level comes back.

A row that a person has released (releases.py) breaks no rule that it was released from; rules 1 to 7
cannot be overruled, save the decimal point.

Every step looks a bounded number of sessions back, so that a row is judged the same whether one session or
ten years are computed; `HISTORY_SESSIONS` is what a caller must provide before the first session that it
wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl

from quant_assets.market_data.levels import (
    LEVEL_HISTORY_SESSIONS,
    LEVEL_RULES,
    rejected_levels,
)
from quant_assets.market_data.listings import LISTING_GAP_SESSIONS, with_listings
from quant_assets.market_data.releases import SENT, released
from quant_assets.market_data.row_comparisons import (
    NO_VERDICT,
    beside_previous,
    compared_with_others,
    maybe_repeated,
    verdict,
)
from quant_assets.market_data.rules import REMEDIES
from quant_assets.market_data.schemas import SMALLEST_PRICE

#: What a row's verdict and factors can depend on: a level's history, whose first row may be compared with
#: one a listing gap before.
HISTORY_SESSIONS = LEVEL_HISTORY_SESSIONS + LISTING_GAP_SESSIONS
PRICES = ("open", "high", "low", "close")
_CENT_ROUNDING = 0.0051
#: A decimal point one place off makes ten; the largest range of a real day reaches six and a half.
_DECIMAL_RANGE = 9.0
_SYMBOL = r"^[A-Z0-9]{1,10}([.\-][A-Z0-9]{1,6}){0,2}$"


def judge(
    rows: pl.DataFrame,
    listings: pl.DataFrame,
    actions: pl.DataFrame,
    sessions: Sequence[date],
    releases: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Name the rule that each delivered row breaks.

    Args:
        rows: Raw bars (`schemas.RAW_BARS`), from `HISTORY_SESSIONS` before the first session that
            matters, or from the data root's first session.
        listings: `listings.assign_listings` of at least these rows.
        actions: Corporate actions up to the last session.
        sessions: The calendar, ascending, over the span of the rows.
        releases: What people have released (`schemas.RELEASES`); None: nothing.

    Returns:
        The rows in their order with ``first_session`` and ``security_id`` (null for malformed
        ones), ``rule`` and ``detail`` (both null for valid rows) and ``remedy``.
    """
    # In one chunk: Polars 2.1's `format` panics on numbered rows whose first of several is empty.
    numbered = rows.rechunk().with_row_index("row")
    overruled = released(numbered, releases)
    judged = with_listings(numbered, listings).with_columns(verdict=NO_VERDICT)
    judged = _also(judged, _but_not(_row_rule(numbered, sessions), overruled))
    judged = _also(judged, _duplicate_rule(judged))
    beside = beside_previous(_sound(judged), actions, sessions)
    compared = _but_not(compared_with_others(beside), overruled)
    if compared.height:
        judged = _also(judged, compared)
        beside = beside_previous(_sound(judged), actions, sessions)
    judged = _also(judged, _level_rule(beside, overruled))
    return (
        judged.unnest("verdict")
        .drop("row")
        .with_columns(remedy=pl.col("rule").replace_strict(REMEDIES, default=None))
    )


def _row_rule(numbered: pl.DataFrame, sessions: Sequence[date]) -> pl.DataFrame:
    """Rules 1 to 6: what a row shows by itself."""
    tolerance = _CENT_ROUNDING * pl.min_horizontal(pl.lit(1.0), "close")
    own_day = pl.col("bar_time").dt.convert_time_zone("America/New_York").dt.date()
    prices = pl.concat_str(
        [
            pl.format("{} {}", pl.lit(name), pl.col(name).cast(pl.String).fill_null("missing"))
            for name in PRICES
        ],
        separator=", ",
    )
    unusable = [~pl.col(name).is_finite().fill_null(value=False) for name in PRICES]
    misplaced = (own_day != pl.col("session")).fill_null(value=False) | ~pl.col("session").is_in(
        list(sessions)
    )
    outside = pl.any_horizontal(
        (pl.col(name) > pl.col("high") + tolerance) | (pl.col(name) < pl.col("low") - tolerance)
        for name in ("open", "close")
    )
    symbol = pl.format("symbol {}", pl.col("symbol").fill_null("missing"))
    day = pl.format("bar of {}", pl.coalesce(own_day, "session").cast(pl.String))
    volume = pl.format("volume {}", pl.col("volume").cast(pl.String).fill_null("missing"))
    rules = [
        (
            "malformed_symbol",
            ~pl.col("symbol").str.contains(_SYMBOL).fill_null(value=False),
            symbol,
        ),
        ("not_a_session", misplaced, day),
        ("missing_price", pl.any_horizontal(unusable), prices),
        (
            "non_positive_price",
            pl.any_horizontal(pl.col(name) < SMALLEST_PRICE for name in PRICES),
            prices,
        ),
        ("high_below_low", pl.col("high") < pl.col("low"), prices),
        ("outside_high_low", outside, prices),
        (
            "bad_volume",
            ~(pl.col("volume").is_finite() & (pl.col("volume") >= 0)).fill_null(value=False),
            volume,
        ),
        (
            "misplaced_decimal",
            (pl.col("high") >= _DECIMAL_RANGE * pl.max_horizontal("open", "close"))
            | (pl.col("low") * _DECIMAL_RANGE <= pl.min_horizontal("open", "close")),
            prices,
        ),
    ]
    # Text is built for broken rows alone: for a million sound ones it would take longer than the rules.
    broken = numbered.filter(pl.any_horizontal(breaks for _, breaks, _ in rules))
    return broken.select(
        "row",
        verdict=pl.coalesce(
            pl.when(breaks).then(verdict(rule, seen)) for rule, breaks, seen in rules
        ),
    )


def _duplicate_rule(judged: pl.DataFrame) -> pl.DataFrame:
    """Rule 7: rows that share symbol and session; a row of another day shares nothing."""
    elsewhere = pl.col("verdict").struct.field("rule") == "not_a_session"
    key = ["symbol", "session", "elsewhere"]
    repeated = judged.with_columns(elsewhere=elsewhere.fill_null(value=False)).filter(
        maybe_repeated(*key)
    )
    rows = pl.len().over(key)
    same = pl.len().over([*key, *SENT])
    again = pl.int_range(pl.len()).over([*key, *SENT]) > 0
    return repeated.select(
        "row",
        verdict=pl.when(same < rows)
        .then(verdict("conflicting_duplicate", pl.format("{} different rows were sent", rows)))
        .when(again)
        .then(verdict("duplicate", pl.format("the same row was sent {} times", rows)))
        .otherwise(NO_VERDICT),
    )


def _sound(judged: pl.DataFrame) -> pl.DataFrame:
    return judged.select(
        "row",
        "symbol",
        "security_id",
        "first_session",
        "session",
        *PRICES,
        "volume",
        pl.col("verdict").is_null().alias("sound"),
    ).filter("sound")


def _also(judged: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
    if verdicts.is_empty():
        return judged
    return judged.join(
        verdicts.select("row", later="verdict"), on="row", how="left", maintain_order="left"
    ).select(pl.exclude("verdict", "later"), verdict=pl.coalesce("verdict", "later"))


def _but_not(judged: pl.DataFrame, overruled: pl.DataFrame) -> pl.DataFrame:
    """The verdicts without those that a person has overruled."""
    if overruled.is_empty():
        return judged
    named = overruled.select("row", rule="rule", overruled=pl.lit(value=True))
    return (
        judged.with_columns(rule=pl.col("verdict").struct.field("rule"))
        .join(named, on=["row", "rule"], how="left", maintain_order="left")
        .with_columns(
            verdict=pl.when(pl.col("overruled").is_null()).then("verdict").otherwise(NO_VERDICT)
        )
        .drop("rule", "overruled")
    )


def _level_rule(beside: pl.DataFrame, overruled: pl.DataFrame) -> pl.DataFrame:
    """Rule 9: a level that neither the previous close nor a corporate action explains."""
    vouched_for = overruled.filter(pl.col("rule").is_in(LEVEL_RULES))["row"].unique()
    rows = beside.with_columns(released=pl.col("row").is_in(vouched_for.implode()))
    return rejected_levels(rows).select(
        "row",
        verdict=pl.struct(
            rule="rule",
            detail=pl.format(
                "close {}; jump on {} from {} to {} ({} %, action factor {}, volume {} times its median)",
                "close",
                pl.col("jump_session").cast(pl.String),
                "jump_from",
                "jump_close",
                (pl.col("jump_move") * 100).round(1),
                pl.col("jump_factor").round(6),
                pl.col("jump_volume_ratio").round(2).cast(pl.String).fill_null("unknown"),
            ),
        ),
    )
