"""Adjusted prices made raw again, and what the prices themselves say about how they were declared.

What belongs here: pure functions over rows and corporate actions. What does not: reading either.

What is undone, in the CRSP convention:

1. Prices that are "split_adjusted" were divided by the ratio of every forward split, reverse split and
   stock dividend with an ex-date after the bar, up to the newest day of the files. The raw price is the
   price times the product of those ratios.
2. Prices that are "adjusted" were multiplied by the factor of every ex-date after the bar, which is
   (1 - D / p) / R: D the cash dividends and valued spin-offs in USD per share held before the ex-date, p
   the raw close before it, R the ratio. The raw p is not known before it is undone; with a the adjusted
   close before the ex-date and G the multiplier in force after it, the multiplier before is

       G' = R * G + D / a

   which is linear, so that a symbol's multipliers come from one cumulative product and one cumulative
   sum, newest first. The raw price is the price times G' of the first ex-date after the bar. Amounts of
   several ex-dates between the same two bars add up.
3. Volume that is "split_adjusted" was multiplied by the same ratios of shares, and is divided by them.
4. An absence of more than 45 days ends a listing, as it does for the quality gate: actions of a company
   that took over a ticker undo nothing of the company that had it before.
5. Results are rounded to a millionth, which removes what multiplying leaves of binary fractions. A vendor
   that rounds adjusted prices has lost digits that nobody can bring back.

Source: CRSP US Stock & Index Databases Guide, "Adjusted data".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl

from quant_resources.errors import SourceError
from quant_resources.file_layout import FileLayout, Prices

SHARE_CHANGING = ("forward_split", "reverse_split", "stock_dividend")
DISTRIBUTING = ("cash_dividend", "spin_off")
_PRICES = ("open", "high", "low", "close", "vwap")
_DIGITS = 6
#: A split moves the price by this much at least, or daily moves hide whether it did.
_VISIBLE = 1.25
#: How far, as a factor, a price may be from where a declaration puts it.
_NEAR = 1.35
_LONGEST_GAP = 10
_LISTING_GAP = 45


def undoing(
    actions: pl.DataFrame, closes: pl.DataFrame, newest: date, prices: Prices
) -> pl.DataFrame:
    """What the bars before each ex-date have to be multiplied by.

    Args:
        actions: Corporate actions (`bar_source.CORPORATE_ACTION_SCHEMA`), each fact once.
        closes: ``symbol``, ``day``, ``close`` as in the files.
        newest: Newest day of the files: later actions have adjusted nothing yet.
        prices: What the prices are declared to be.

    Returns:
        ``symbol``, ``ex_date``, ``price_multiplier``, ``share_multiplier`` (what volume is divided
        by) and ``since``, the first day of the listing, sorted by ex-date. Each row is for bars from
        the ex-date before it, or from ``since``, to the day before its own.

    Raises:
        SourceError: An action that the prices are adjusted for has no ratio or no amount.
    """
    adjusting = SHARE_CHANGING + (DISTRIBUTING if prices == "adjusted" else ())
    done = actions.filter(
        pl.col("action_type").is_in(adjusting), pl.col("ex_date") <= newest
    ).with_columns(shares=pl.col("action_type").is_in(SHARE_CHANGING))
    needed = pl.when("shares").then("ratio").otherwise("cash")
    unusable = done.filter(~(needed.is_finite() & (needed > 0)).fill_null(value=False))
    if unusable.height:
        row = unusable.row(0, named=True)
        what = "ratio" if row["shares"] else "amount in USD per share"
        raise SourceError(
            f"The {row['action_type']} of {row['symbol']} on {row['ex_date']} has no {what}, so that "
            f"prices declared {prices} cannot be made raw again; complete the actions file."
        )
    events = (
        done.group_by("symbol", "ex_date")
        .agg(
            ratio=pl.col("ratio").filter("shares").product(),
            cash=pl.col("cash").filter(~pl.col("shares")).sum(),
        )
        .sort("ex_date", "symbol")
    )
    backward = {"left_on": "ex_date", "by": "symbol", "check_sortedness": False}
    before = _sorted_closes(closes).select("symbol", "day", adjusted="close")
    events = (
        events.join_asof(before, right_on="day", allow_exact_matches=False, **backward)
        .join_asof(_listing_starts(closes), right_on="since", coalesce=False, **backward)
        .drop_nulls("since")
    )
    newest_first = {"partition_by": ["symbol", "since"], "order_by": "ex_date", "descending": True}
    shares = pl.col("ratio").cum_prod().over(**newest_first)
    # Before the first bar there is nothing to undo, nor a close to undo it with.
    given = (pl.col("cash") / pl.col("adjusted")).fill_null(0.0)
    return (
        events.with_columns(share_multiplier=shares)
        .with_columns(
            price_multiplier=pl.col("share_multiplier")
            * (1.0 + (given / pl.col("share_multiplier")).cum_sum().over(**newest_first))
        )
        .select("symbol", "ex_date", "since", "price_multiplier", "share_multiplier")
        .sort("ex_date", "symbol")
    )


def made_raw(rows: pl.DataFrame, undo: pl.DataFrame, layout: FileLayout) -> pl.DataFrame:
    """Rows with raw prices and volume.

    Args:
        rows: ``symbol``, ``day``, prices and ``volume`` as in the files.
        undo: From `undoing`, of the same files.
        layout: Whether volume is adjusted too.

    Returns:
        The rows in another order, prices in USD per share as traded.
    """
    placed = rows.sort("day").join_asof(
        undo,
        left_on="day",
        right_on="ex_date",
        by="symbol",
        strategy="forward",
        allow_exact_matches=False,
        check_sortedness=False,
    )
    concerned = pl.col("day") >= pl.col("since")
    price, shares = (
        pl.when(concerned).then(f"{kind}_multiplier").otherwise(1.0) for kind in ("price", "share")
    )
    volume = pl.col("volume") / shares if layout.volume == "split_adjusted" else pl.col("volume")
    return placed.with_columns(
        *((pl.col(name) * price).round(_DIGITS) for name in _PRICES), volume.round(_DIGITS)
    ).drop("ex_date", "since", "price_multiplier", "share_multiplier")


def split_evidence(closes: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """What the closes around each split say.

    Args:
        closes: ``symbol``, ``day``, ``close`` as in the files.
        actions: Corporate actions.

    Returns:
        ``symbol``, ``ex_date``, ``ratio``, ``close_before``, ``close_after`` and ``supports``: "raw"
        (the price moved by the ratio), "split_adjusted" (it did not) or "neither". Splits that move
        the price by less than a quarter, or have no bars around them, are left out.
    """
    splits = (
        actions.filter(pl.col("action_type").is_in(SHARE_CHANGING))
        .group_by("symbol", "ex_date")
        .agg(pl.col("ratio").product())
        .filter(pl.max_horizontal(pl.col("ratio"), 1 / pl.col("ratio")) >= _VISIBLE)
        .sort("ex_date", "symbol")
    )
    gap = pl.duration(days=_LONGEST_GAP)
    near_splits = splits.select(
        "symbol", day=pl.date_ranges(pl.col("ex_date") - gap, pl.col("ex_date") + gap)
    ).explode("day")
    known = _sorted_closes(closes.join(near_splits, on=["symbol", "day"], how="semi"))
    around = {"left_on": "ex_date", "right_on": "day", "by": "symbol", "check_sortedness": False}
    placed = splits.join_asof(
        known.rename({"close": "close_before"}),
        strategy="backward",
        allow_exact_matches=False,
        tolerance=f"{_LONGEST_GAP}d",
        **around,
    ).join_asof(
        known.rename({"close": "close_after"}),
        strategy="forward",
        tolerance=f"{_LONGEST_GAP}d",
        **around,
    )
    moved = pl.col("close_after") / pl.col("close_before")
    near = (pl.max_horizontal(away, 1 / away) <= _NEAR for away in (moved * pl.col("ratio"), moved))
    as_raw, as_adjusted = near
    return (
        placed.drop_nulls(["close_before", "close_after"])
        .with_columns(
            supports=pl.when(as_raw & ~as_adjusted)
            .then(pl.lit("raw"))
            .when(as_adjusted & ~as_raw)
            .then(pl.lit("split_adjusted"))
            .otherwise(pl.lit("neither"))
        )
        .select("symbol", "ex_date", "ratio", "close_before", "close_after", "supports")
    )


def assert_declared(evidence: pl.DataFrame, prices: Prices, name: str) -> None:
    """Refuse a declaration that most splits contradict.

    Args:
        evidence: From `split_evidence`.
        prices: What the prices are declared to be.
        name: Source, for the message.

    Raises:
        SourceError: More splits contradict the declaration than support it; naming one of them.
    """
    expected, other = ("raw", "split_adjusted") if prices == "raw" else ("split_adjusted", "raw")
    against = evidence.filter(supports=other)
    for_it = evidence.filter(supports=expected)
    if against.height <= for_it.height:
        return
    row = against.row(0, named=True)
    likely = '"split_adjusted" or "adjusted"' if prices == "raw" else '"raw"'
    raise SourceError(
        f"{name}: prices are declared {prices}, which {against.height} of {evidence.height} splits "
        f"contradict: {row['symbol']} closed at {row['close_before']:g} before {row['ex_date']} and at "
        f"{row['close_after']:g} after, with {row['ratio']:g} shares for one. Set prices = {likely} in the "
        "layout, or correct the actions file."
    )


@dataclass(frozen=True)
class DividendEvidence:
    """What the closes around dividends say.

    Attributes:
        dividends: How many have a close before and after.
        followed: By how much prices fell on ex-dates, in dividends: near 1 for prices that are not
            adjusted for dividends, near 0 for those that are.
        standard_error: Of `followed`.
    """

    dividends: int
    followed: float
    standard_error: float


def dividend_evidence(
    closes: pl.DataFrame, actions: pl.DataFrame, prices: Prices
) -> DividendEvidence | None:
    """Regress the moves of ex-dates on the dividends; None with fewer than 30 of them.

    Args:
        closes: ``symbol``, ``day``, ``close`` as in the files.
        actions: Corporate actions; amounts are per share as held then.
        prices: What the prices are declared to be; unless raw, amounts are rescaled for later splits.
    """
    changing = actions.filter(pl.col("action_type").is_in(SHARE_CHANGING))
    dividends = (
        actions.filter(action_type="cash_dividend")
        .join(changing, on=["symbol", "ex_date"], how="anti")
        .group_by("symbol", "ex_date")
        .agg(pl.col("cash").sum())
        .sort("ex_date", "symbol")
    )
    if prices != "raw":
        newest = closes["day"].max()
        assert isinstance(newest, date)  # noqa: S101 - there are rows
        later = undoing(actions, closes, newest, "split_adjusted")
        dividends = dividends.join_asof(
            later.select("symbol", "ex_date", "share_multiplier"),
            on="ex_date",
            by="symbol",
            strategy="forward",
            allow_exact_matches=False,
            check_sortedness=False,
        ).with_columns(pl.col("cash") / pl.col("share_multiplier").fill_null(1.0))
    known = _sorted_closes(closes).with_columns(
        before=pl.col("close").shift(1).over("symbol", order_by="day")
    )
    moves = dividends.join(known, left_on=["symbol", "ex_date"], right_on=["symbol", "day"]).select(
        move=pl.col("close") / pl.col("before") - 1, dividend=pl.col("cash") / pl.col("before")
    )
    # A jump or a liquidating dividend would say more than a thousand plain ones.
    moves = moves.drop_nulls().filter(
        pl.col("move").abs() < 0.2, pl.col("dividend").is_between(0.0, 0.1, closed="right")
    )
    if moves.height < 30:
        return None
    x, y = moves["dividend"].to_numpy(), moves["move"].to_numpy()
    slope = float((x * y).sum() / (x * x).sum())
    error = float(((y - slope * x) ** 2 * x * x).sum() ** 0.5 / (x * x).sum())
    return DividendEvidence(moves.height, -slope, error)


def whole_cents(closes: pl.DataFrame) -> float | None:
    """Share of closes of at least one USD that are whole cents: near 1 for prices as traded."""
    dear = closes.filter(pl.col("close") >= 1).select(
        ((pl.col("close") * 100 - (pl.col("close") * 100).round()).abs() < 0.02).mean()
    )
    return dear.item()


def _listing_starts(closes: pl.DataFrame) -> pl.DataFrame:
    """``symbol`` and ``since``, one row for each first day after a long absence."""
    days = closes.select("symbol", "day").drop_nulls().unique().sort("day", "symbol")
    away = pl.col("day") - pl.col("day").shift(1).over("symbol", order_by="day")
    starts = days.filter((away > pl.duration(days=_LISTING_GAP)).fill_null(value=True))
    return starts.select("symbol", since="day")


def _sorted_closes(closes: pl.DataFrame) -> pl.DataFrame:
    sound = pl.col("close").is_finite() & (pl.col("close") > 0)
    return (
        closes.filter(sound.fill_null(value=False), pl.col("symbol").is_not_null())
        .sort("day", "symbol")
        .select("symbol", "day", "close")
    )
