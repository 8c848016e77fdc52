"""Rules on rows beside other rows: the listing's own before, and those of the session.

What belongs here: repeated, copied and impossible rows that look sound by themselves, and what lies before a
row. What does not: what a row shows alone (validation.py), whether its price level is believable (levels.py).

1. ``zero_volume``: no share traded, yet the price moved. Four equal prices at the previous close are a day
   without trades, which is kept.
2. ``stale_row``: all prices and the volume are those of the listing's row before. Among 270,000 real bars
   there is none. Days of a single price are left alone: thinly traded symbols do repeat them.
3. ``copied_row``: all prices and the volume are those of another symbol's row of the session. The row whose
   price is nearest to what its listing closed at last, before it was ever a copy, is the original.
4. ``volume_spike``: more than `ABSURD_VOLUME_RATIO` times the median of 60 sessions with a price that moved
   less than `CALM_RETURN` and no split. Index changes reach 83 times in two years of S&P 500
   members.

A history is large and all of this is rare: every rule first finds its candidates by numbers, and sorts or
groups only their listings.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl

from quant_assets.market_data.adjustment import place_actions, with_factors
from quant_assets.market_data.listings import LISTING_GAP_SESSIONS
from quant_assets.market_data.panel_keys import PanelKeys

ABSURD_VOLUME_RATIO = 250.0
CALM_RETURN = 0.10
VOLUME_SESSIONS = 60
#: Below this median (shares) a block trade is no sign of a wrong number.
LEAST_USUAL_VOLUME = 10_000.0
#: Actions whose effect on the price their terms do not give.
OPAQUE_ACTIONS = (
    "merger",
    "unit_split",
    "redemption",
    "worthless_removal",
    "rights_distribution",
    "other",
)
#: A copy is further from its own past than the original by more than this.
_COPY_DISTANCE = 0.005
_PRICES = ("open", "high", "low", "close")
_LISTING = "security_id"

NO_VERDICT = pl.lit(None, pl.Struct({"rule": pl.String, "detail": pl.String}))


def verdict(rule: str, detail: pl.Expr) -> pl.Expr:
    """A broken rule and what was seen, as one value."""
    return pl.struct(rule=pl.lit(rule), detail=detail)


def maybe_repeated(*names: str) -> pl.Expr:
    """Whether a row's values of some columns may occur in another row: false is certain, true is likely.

    Many times faster than an exact comparison, which has to follow for the few rows found.
    """
    mixed = pl.lit(0, pl.UInt64)
    for seed, name in enumerate(names):
        mixed = mixed.xor(pl.col(name).hash(seed))
    return mixed.is_duplicated()


def beside_previous(
    sound: pl.DataFrame, actions: pl.DataFrame, sessions: Sequence[date]
) -> pl.DataFrame:
    """Put rows beside the row before of their listing, at most a listing gap back.

    Args:
        sound: Rows that are sound by themselves, unique by listing and session, with ``row`` (their
            number).
        actions: Corporate actions up to the last session.
        sessions: The calendar, ascending, over the span of the rows.

    Returns:
        What the rules read of the rows, in their order: ``row``, ``symbol``, ``security_id``,
        ``session``, ``position`` (in the calendar), prices, ``volume``, ``price_factor``,
        ``volume_factor``, ``explained`` (an action of unknown effect), ``previous_session``,
        ``previous_close``, ``expected_close`` (USD; what the previous close is worth after the
        actions; null for a listing's first row) and ``stale`` (all values are those before).
    """
    placed = place_actions(sound, actions, sessions, LISTING_GAP_SESSIONS)
    unknown = placed.filter(
        pl.col("action_type").is_in(OPAQUE_ACTIONS) | pl.col("problem").is_not_null()
    )["bar"]
    rows = sound.select("row", "symbol", _LISTING, "session", *_PRICES, "volume")
    return with_previous(rows, placed, sessions).with_columns(
        explained=pl.int_range(pl.len()).is_in(unknown.unique().implode())
    )


def with_previous(
    rows: pl.DataFrame, placed: pl.DataFrame, sessions: Sequence[date]
) -> pl.DataFrame:
    """Add factors, calendar ``position`` and the values before.

    Args:
        rows: Rows unique by listing and session, with prices and volume.
        placed: `adjustment.place_actions` of the rows.
        sessions: The calendar, ascending, over the span of the rows.

    Returns:
        The rows in their order; what is added is described at `beside_previous`.
    """
    before = PanelKeys.of(
        rows[_LISTING], rows["session"], sessions, LISTING_GAP_SESSIONS
    ).previous()
    calendar = pl.Series(list(sessions), dtype=pl.Date)
    again = (pl.col(name) == rows[name].gather(before) for name in (*_PRICES, "volume"))
    return with_factors(
        rows.with_columns(
            position=calendar.search_sorted(rows["session"]).cast(pl.Int64),
            previous_session=rows["session"].gather(before),
            previous_close=rows["close"].gather(before),
            stale=pl.all_horizontal(again).fill_null(value=False),
        ),
        placed,
    ).with_columns(expected_close=pl.col("previous_close") * pl.col("price_factor"))


def compared_with_others(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows that break a rule of this module.

    Args:
        rows: From `beside_previous`.

    Returns:
        Columns ``row`` and ``verdict``, one per row: the first rule that it breaks.
    """
    found = [_zero_volume(rows), _stale(rows), _copied(rows), _volume_spikes(rows)]
    return pl.concat(found).unique("row", keep="first", maintain_order=True)


def _zero_volume(rows: pl.DataFrame) -> pl.DataFrame:
    flat = pl.all_horizontal(pl.col(name) == pl.col("close") for name in _PRICES)
    unchanged = (
        pl.min_horizontal(
            (pl.col("close") / pl.col("previous_close") - 1).abs(),
            (pl.col("close") / pl.col("expected_close") - 1).abs(),
        )
        <= 1e-4
    ).fill_null(value=True)
    seen = pl.format(
        "no volume, close {} after {}",
        "close",
        pl.col("previous_close").cast(pl.String).fill_null("none"),
    )
    return rows.filter(pl.col("volume") == 0, ~(flat & unchanged)).select(
        "row", verdict=verdict("zero_volume", seen)
    )


def _stale(rows: pl.DataFrame) -> pl.DataFrame:
    seen = pl.format(
        "prices and volume of {} again (close {}, volume {})",
        pl.col("previous_session").cast(pl.String),
        "close",
        "volume",
    )
    return rows.filter("stale", _traded_in_a_range()).select(
        "row", verdict=verdict("stale_row", seen)
    )


def _copied(rows: pl.DataFrame) -> pl.DataFrame:
    same = ["session", *_PRICES, "volume"]
    twins = (
        rows.filter(_traded_in_a_range())
        .filter(maybe_repeated("session", "close", "volume"))
        .filter(pl.struct(same).is_duplicated())
    )
    distance = (pl.col("level") / pl.col("own_level")).log().abs()
    judged = (
        _of_listings(rows, twins)
        .with_columns(
            twin=pl.col("row").is_in(twins["row"].implode()),
            level=pl.col("close") / pl.col("price_factor").cum_prod().over(_LISTING),
        )
        .with_columns(
            pl.when(~pl.col("twin")).then(value).forward_fill().shift(1).over(_LISTING).alias(name)
            for name, value in (("own_level", "level"), ("own_position", "position"))
        )
        .filter("twin")
        .with_columns(
            distance=pl.when(
                pl.col("position") - pl.col("own_position") <= LISTING_GAP_SESSIONS
            ).then(distance)
        )
    )
    original = pl.col("symbol").sort_by("distance", nulls_last=True).first().over(same)
    seen = pl.format("prices and volume of {} (close {}, volume {})", original, "close", "volume")
    return (
        judged.with_columns(
            copied=pl.col("distance") > pl.col("distance").min().over(same) + _COPY_DISTANCE,
            verdict=verdict("copied_row", seen),
        )
        .filter("copied")
        .select("row", "verdict")
    )


def _volume_spikes(rows: pl.DataFrame) -> pl.DataFrame:
    # A row of that ratio to a median has it to the least volume too.
    suspects = (
        rows.group_by(_LISTING)
        .agg(least=pl.col("volume").min(), most=pl.col("volume").max())
        .filter(
            pl.col("most") > ABSURD_VOLUME_RATIO * pl.col("least"),
            pl.col("most") > ABSURD_VOLUME_RATIO * LEAST_USUAL_VOLUME,
        )
    )
    usual = pl.col("volume_level").rolling_median_by(
        "position", f"{VOLUME_SESSIONS}i", closed="left", min_samples=VOLUME_SESSIONS // 3
    )
    scale = pl.col("volume_factor").cum_prod().over(_LISTING)
    seen = pl.format(
        "volume {}, {} times its median of {}",
        "volume",
        (pl.col("volume") / pl.col("usual_volume")).round(0),
        "usual_volume",
    )
    return (
        _of_listings(rows, suspects)
        .with_columns(volume_level=pl.col("volume") / scale)
        .with_columns(usual_volume=usual.over(_LISTING) * scale)
        .filter(
            pl.col("volume") > ABSURD_VOLUME_RATIO * pl.col("usual_volume"),
            pl.col("usual_volume") >= LEAST_USUAL_VOLUME,
            pl.col("volume_factor") == 1.0,
            (pl.col("close") / pl.col("expected_close") - 1).abs() < CALM_RETURN,
        )
        .select("row", verdict=verdict("volume_spike", seen))
    )


def _of_listings(rows: pl.DataFrame, named: pl.DataFrame) -> pl.DataFrame:
    """All rows of the listings that some rows name, by listing and session."""
    return rows.join(named.select(_LISTING).unique(), on=_LISTING, how="semi").sort(
        _LISTING, "position"
    )


def _traded_in_a_range() -> pl.Expr:
    return (pl.col("volume") > 0) & (pl.col("high") > pl.col("low"))
