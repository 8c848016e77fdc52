"""Which delivered bars may be used: one rule per defect, each named, explained and with a remedy.

What belongs here: rules on rows, as pure functions. What does not: storage, the factors of valid bars,
rules on whole sessions (checks.py). In the order in which a row is judged; the first broken rule counts:

1. ``malformed_symbol``: no ticker, or one that no exchange would list (a slash, a path).
2. ``not_a_session``: the bar's own time lies on another day than the session it came with.
3. ``missing_price``: open, high, low or close absent, NaN or infinite.
4. ``non_positive_price``: a price that is not above zero.
5. ``high_below_low`` and ``outside_high_low``: open or close outside [low, high] by more than the
   rounding of a cent.
6. ``bad_volume``: volume absent, negative, NaN or infinite.
7. ``duplicate`` (the same row again: one is kept) and ``conflicting_duplicate`` (different rows for one
   symbol and session: none is kept, nobody knows which is right).
8. ``zero_volume``: no share traded, yet the price moved. Four equal prices at the previous close are
   a day without trades, which is kept.
9. ``action_not_followed``, ``suspected_missed_split`` or ``return_outlier``: the close is more than 30 %
   from the previous delivered close, rescaled by the factor of the corporate actions between, and no
   action of unknown effect (merger, unpriced spin-off, rights) explains it. Named after what it looks
   like: the price stayed where an action should have moved it; the jump is a simple split ratio.

Rule 9 judges levels, with no knowledge of the future (levels.py): a jump with the trading volume of real
news costs its first session, any other jump is rejected until its level has held for 20 sessions or the
old level comes back.

Every step looks a bounded number of sessions back, so that a row is judged the same whether one session or
ten years are computed; `HISTORY_SESSIONS` is what a caller must provide before the first session that it
wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl

from quant_assets.market_data.adjustment import (
    place_actions,
    session_factors,
    unapplied_actions,
)
from quant_assets.market_data.levels import CONFIRMATION_SESSIONS, rejected_levels
from quant_assets.market_data.listings import LISTING_GAP_SESSIONS

#: What a row's verdict and factors can depend on: the previous bar (for its factor, its zero volume and
#: its jump) may lie a listing gap back, and so may a reference level, beside two confirmations.
HISTORY_SESSIONS = 4 * LISTING_GAP_SESSIONS + 2 * CONFIRMATION_SESSIONS
PRICES = ("open", "high", "low", "close")
SENT = ("bar_time", *PRICES, "volume", "vwap", "trade_count")
#: Actions whose effect on the price their terms do not give.
OPAQUE_ACTIONS = (
    "merger",
    "unit_split",
    "redemption",
    "worthless_removal",
    "rights_distribution",
    "other",
)
_CENT_ROUNDING = 0.0051
_SYMBOL = r"^[A-Z0-9]{1,10}([.\-][A-Z0-9]{1,6}){0,2}$"

REMEDIES = {
    "malformed_symbol": "Correct the symbol at the source or leave it out of the configured symbols.",
    "not_a_session": "Ask the source why it has a bar on a day without trading.",
    "missing_price": "Fetch the session again; a repaired row is accepted as a new vintage.",
    "non_positive_price": "Fetch the session again; a repaired row is accepted as a new vintage.",
    "high_below_low": "Fetch the session again; a repaired row is accepted as a new vintage.",
    "outside_high_low": "Fetch the session again; a repaired row is accepted as a new vintage.",
    "bad_volume": "Fetch the session again; a repaired row is accepted as a new vintage.",
    "duplicate": "Nothing: the same row was kept once.",
    "conflicting_duplicate": "Compare with a second source and have the wrong row removed.",
    "zero_volume": "Compare with a second source: a price cannot move without a trade.",
    "action_not_followed": (
        "Check the corporate action: if the price stays, the action is ignored from the next session."
    ),
    "suspected_missed_split": (
        "Look for a split of this session; once the source reports it, fetch the session again."
    ),
    "return_outlier": (
        "Compare with a second source; the sessions that follow confirm the level or refute it."
    ),
}


def judge(
    rows: pl.DataFrame, listings: pl.DataFrame, actions: pl.DataFrame, sessions: Sequence[date]
) -> pl.DataFrame:
    """Name the rule that each delivered row breaks.

    Args:
        rows: Raw bars (`schemas.RAW_BARS`), from `HISTORY_SESSIONS` before the first session that
            matters, or from the data root's first session.
        listings: `listings.assign_listings` of at least these rows.
        actions: Corporate actions up to the last session.
        sessions: The calendar, ascending, over the span of the rows.

    Returns:
        The rows in their order with ``first_session`` and ``security_id`` (null for malformed
        ones), ``rule`` and ``detail`` (both null for valid rows) and ``remedy``.
    """
    judged = (
        rows.with_row_index("row")
        .join(listings, on=["symbol", "session"], how="left", maintain_order="left")
        .with_columns(_row_rule(sessions))
        .with_columns(_duplicate_rule())
    )
    judged = _also(judged, _zero_volume_rule(_sound(judged), actions, sessions))
    judged = _also(judged, _level_rule(_sound(judged), actions, sessions))
    return (
        judged.unnest("verdict")
        .drop("row")
        .with_columns(remedy=pl.col("rule").replace_strict(REMEDIES, default=None))
    )


def _verdict(rule: str, detail: pl.Expr) -> pl.Expr:
    return pl.struct(rule=pl.lit(rule), detail=detail)


_NO_VERDICT = pl.lit(None, pl.Struct({"rule": pl.String, "detail": pl.String}))


def _row_rule(sessions: Sequence[date]) -> pl.Expr:
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
    return (
        pl.when(~pl.col("symbol").str.contains(_SYMBOL).fill_null(value=False))
        .then(
            _verdict(
                "malformed_symbol", pl.format("symbol {}", pl.col("symbol").fill_null("missing"))
            )
        )
        .when(misplaced)
        .then(
            _verdict(
                "not_a_session",
                pl.format("bar of {}", pl.coalesce(own_day, "session").cast(pl.String)),
            )
        )
        .when(pl.any_horizontal(unusable))
        .then(_verdict("missing_price", prices))
        .when(pl.any_horizontal(pl.col(name) <= 0 for name in PRICES))
        .then(_verdict("non_positive_price", prices))
        .when(pl.col("high") < pl.col("low"))
        .then(_verdict("high_below_low", prices))
        .when(outside)
        .then(_verdict("outside_high_low", prices))
        .when(~(pl.col("volume").is_finite() & (pl.col("volume") >= 0)).fill_null(value=False))
        .then(
            _verdict(
                "bad_volume",
                pl.format("volume {}", pl.col("volume").cast(pl.String).fill_null("missing")),
            )
        )
        .otherwise(_NO_VERDICT)
        .alias("verdict")
    )


def _duplicate_rule() -> pl.Expr:
    """Rule 7: rows that share symbol and session; a row of another day shares nothing."""
    rule = pl.col("verdict").struct.field("rule")
    key = ["symbol", "session", (rule == "not_a_session").fill_null(value=False)]
    rows = pl.len().over(key)
    same = pl.len().over([*key, *SENT])
    again = pl.int_range(pl.len()).over([*key, *SENT]) > 0
    return (
        pl.when(pl.col("verdict").is_not_null() | (rows == 1))
        .then("verdict")
        .when(same < rows)
        .then(_verdict("conflicting_duplicate", pl.format("{} different rows were sent", rows)))
        .when(again)
        .then(_verdict("duplicate", pl.format("the same row was sent {} times", rows)))
        .otherwise(_NO_VERDICT)
    ).alias("verdict")


def _sound(judged: pl.DataFrame) -> pl.DataFrame:
    return judged.filter(pl.col("verdict").is_null()).drop("verdict")


def _also(judged: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
    return judged.join(
        verdicts.select("row", later="verdict"), on="row", how="left", maintain_order="left"
    ).select(pl.exclude("verdict", "later"), verdict=pl.coalesce("verdict", "later"))


def _zero_volume_rule(
    sound: pl.DataFrame, actions: pl.DataFrame, sessions: Sequence[date]
) -> pl.DataFrame:
    """Rule 8: a price that moved without a trade."""
    without_trade = sound.filter(volume=0.0)
    if without_trade.is_empty():
        return without_trade.select("row", verdict=_NO_VERDICT)
    flat = pl.all_horizontal(pl.col(name) == pl.col("close") for name in ("open", "high", "low"))
    unchanged = (
        pl.min_horizontal(
            (pl.col("close") / pl.col("previous_close") - 1).abs(),
            (pl.col("close") / pl.col("expected_close") - 1).abs(),
        )
        <= 1e-4
    ).fill_null(value=True)
    return (
        _with_previous(sound, actions, sessions)
        .filter(pl.col("volume") == 0, ~(flat & unchanged))
        .select(
            "row",
            verdict=_verdict(
                "zero_volume",
                pl.format(
                    "no volume, close {} after {}",
                    "close",
                    pl.col("previous_close").cast(pl.String).fill_null("none"),
                ),
            ),
        )
    )


def _level_rule(
    sound: pl.DataFrame, actions: pl.DataFrame, sessions: Sequence[date]
) -> pl.DataFrame:
    """Rule 9: a level that neither the previous close nor a corporate action explains."""
    explained = pl.concat(
        [
            place_actions(
                sound,
                actions.filter(pl.col("action_type").is_in(OPAQUE_ACTIONS)),
                sessions,
                LISTING_GAP_SESSIONS,
            ).select("security_id", "session"),
            unapplied_actions(sound, actions, sessions, LISTING_GAP_SESSIONS).select(
                "security_id", "session"
            ),
        ]
    ).unique()
    moves = (
        _with_previous(sound, actions, sessions)
        .join(
            explained.with_columns(explained=pl.lit(value=True)),
            on=["security_id", "session"],
            how="left",
        )
        .with_columns(pl.col("explained").fill_null(value=False))
    )
    return rejected_levels(moves).select(
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


def _with_previous(
    sound: pl.DataFrame, actions: pl.DataFrame, sessions: Sequence[date]
) -> pl.DataFrame:
    """Add calendar ``position``, factors, ``previous_close`` and what it is worth now, within reach."""
    calendar = pl.DataFrame(
        {"session": list(sessions), "position": range(len(sessions))},
        schema={"session": pl.Date, "position": pl.Int64},
    )
    return (
        session_factors(sound, actions, sessions, LISTING_GAP_SESSIONS)
        .join(calendar, on="session", how="inner")
        .sort("security_id", "position")
        .with_columns(
            previous_close=pl.when(
                pl.col("position").diff().over("security_id") <= LISTING_GAP_SESSIONS
            ).then(pl.col("close").shift(1).over("security_id"))
        )
        .with_columns(expected_close=pl.col("previous_close") * pl.col("price_factor"))
    )
