"""Rules on what a source delivers: prices as declared, believable volumes, levels that wait for a person.

Belongs here: what shows only over many rows of a delivery. Does not belong here: rules on single rows
(validation.py), rules on whole sessions (checks.py), the evidence itself (adjusted_prices.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from quant_assets.market_data.adjusted_prices import dividend_slope
from quant_assets.market_data.adjusted_prices import splits_followed as which_followed
from quant_assets.market_data.levels import LEVEL_RULES
from quant_assets.market_data.row_comparisons import CALM_RETURN, VOLUME_SESSIONS
from quant_assets.market_data.schemas import BARS, CORPORATE_ACTIONS, QUARANTINE, RAW_BARS
from quant_assets.table_checks import CheckScope, Finding, TableCheck

#: Fewer splits, or dividends, say nothing about a delivery.
LEAST_SPLITS = 3
LEAST_DIVIDENDS = 100
#: Of 252 sessions' splits this share must be followed; of 23 real ones 22 are.
LEAST_FOLLOWED_SHARE = 0.5
#: Real raw closes fall by 0.88 of their dividends, adjusted ones by -0.08. Of random hundreds of real
#: dividends none crosses both bounds, of adjusted ones 92 % do.
LEAST_DIVIDEND_SLOPE = 0.5
SLOPE_ERRORS = 4.0
TRAILING_SESSIONS = 252
#: Of 270,000 real bars, 50 trade more than this multiple of their median while the price moves less than
#: 10 %: index changes and deals, some two a month of 500 symbols.
LARGE_VOLUME_RATIO = 20.0
_SAMPLE = 10
_DECLARE = (
    'Declare the source adjusted where it is configured (files: prices = "split_adjusted" or "adjusted"), '
    "or ask it for raw prices, and fetch the sessions again."
)
_VOLUME_COLUMNS = (
    "session",
    "symbol",
    "security_id",
    "close",
    "volume",
    "price_factor",
    "volume_factor",
)


def prices_as_traded(_bars: pl.DataFrame, scope: CheckScope) -> Finding:
    """Closes move with the splits and dividends of the run and of the year before it."""
    keys = scope.partition_keys
    actions = _actions(scope, keys)
    splits = which_followed(_closes(scope, keys, actions), actions)
    if splits.height:
        splits = pl.concat([_earlier_splits(scope), splits])
    ignored = splits.filter(~pl.col("followed"))
    if splits.height >= LEAST_SPLITS and ignored.height > LEAST_FOLLOWED_SHARE * splits.height:
        return Finding(
            False,
            f"Prices come adjusted: {ignored.height} of {splits.height} splits do not show in the "
            f"closes, such as {_named(ignored)}.",
            ignored.height,
            ignored.head(_SAMPLE),
            _DECLARE,
        )
    dividends = actions.filter(pl.col("action_type") == "cash_dividend")
    if dividends.height < LEAST_DIVIDENDS:
        return Finding(
            True, f"{splits.height - ignored.height} of {splits.height} splits followed."
        )
    found = dividend_slope(_closes(scope, keys), actions)
    if found is None or found.dividends < LEAST_DIVIDENDS:
        return Finding(
            True, f"{splits.height - ignored.height} of {splits.height} splits followed."
        )
    said = f"closes fall by {found.slope:.2f} of {found.dividends} dividends"
    adjusted = found.slope < LEAST_DIVIDEND_SLOPE and 1 - found.slope > SLOPE_ERRORS * found.error
    return Finding(
        not adjusted,
        f"Prices come adjusted: {said} (standard error {found.error:.2f}), raw ones by about 1."
        if adjusted
        else f"{splits.height - ignored.height} of {splits.height} splits followed; {said}.",
        found.dividends if adjusted else 0,
        dividends.select("session", "symbol", "cash").head(_SAMPLE) if adjusted else None,
        _DECLARE if adjusted else "",
    )


def splits_followed(_bars: pl.DataFrame, scope: CheckScope) -> Finding:
    """Every split of the run shows in the closes of its first session."""
    keys = scope.partition_keys
    actions = _actions(scope, keys)
    splits = which_followed(_closes(scope, keys, actions), actions)
    ignored = splits.filter(~pl.col("followed"))
    if ignored.is_empty():
        return Finding(True, f"{splits.height} splits, all followed.")
    return Finding(
        False,
        f"{ignored.height} of {splits.height} splits do not show in the closes, such as "
        f"{_named(ignored)}.",
        ignored.height,
        ignored.head(_SAMPLE),
        "Check the action at a second source: the bar of that session is quarantined, and if the price "
        "stays the action is ignored. If there are more of them, the prices come adjusted.",
    )


def volume_spikes(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """No bar trades many times its usual volume without news in the price."""
    keys = [key for key in scope.store.partitions(BARS) if key < scope.partition_keys[0]]
    earlier = scope.store.read(BARS, keys[-VOLUME_SESSIONS:], _VOLUME_COLUMNS).collect()
    first = pl.lit(scope.partition_keys[0]).str.to_date()
    listing = "security_id"
    scale = pl.col("volume_factor").cum_prod().over(listing)
    median = pl.col("volume_level").rolling_median_by(
        "place", f"{VOLUME_SESSIONS}i", closed="left", min_samples=VOLUME_SESSIONS // 3
    )
    before = pl.col("close").shift(1).over(listing) * pl.col("price_factor")
    spikes = (
        pl.concat([earlier, frame.select(_VOLUME_COLUMNS)])
        .sort(listing, "session")
        .with_columns(
            place=pl.col("session").rank("dense").cast(pl.Int64),
            volume_level=pl.col("volume") / scale,
            move=pl.col("close") / before - 1,
        )
        .with_columns(times_usual=pl.col("volume_level") / median.over(listing))
        .filter(
            pl.col("session") >= first,
            pl.col("times_usual") > LARGE_VOLUME_RATIO,
            pl.col("move").abs() < CALM_RETURN,
            pl.col("volume_factor") == 1.0,
        )
        .select("session", "symbol", "volume", "times_usual", "move")
        .sort("session", "times_usual", descending=True)
    )
    if spikes.is_empty():
        return Finding(True, f"No volume beyond {LARGE_VOLUME_RATIO:.0f} times its median.")
    newest = spikes.row(0, named=True)
    return Finding(
        False,
        f"{spikes.height} bars trade more than {LARGE_VOLUME_RATIO:.0f} times their median of "
        f"{VOLUME_SESSIONS} sessions while the price hardly moved, such as {newest['symbol']} on "
        f"{newest['session']} ({newest['times_usual']:.0f} times).",
        spikes.height,
        spikes.head(_SAMPLE),
        "Index changes and large deals trade so; for others compare the volume with a second source.",
    )


def no_level_waits(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """No symbol's newest row is held back because its price level is doubted."""
    newest = scope.partition_keys[-1]
    doubted = frame.filter(pl.col("rule").is_in(LEVEL_RULES))
    waiting = (
        doubted.filter(
            pl.col("symbol").is_in(
                doubted.filter(pl.col("session") == pl.lit(newest).str.to_date())[
                    "symbol"
                ].implode()
            )
        )
        .group_by("symbol")
        .agg(
            pl.col("rule").last(),
            rows=pl.len(),
            first=pl.col("session").min(),
            detail=pl.col("detail").last(),
        )
        .sort("first", "symbol")
    )
    if waiting.is_empty():
        return Finding(True, f"No level is in doubt on {newest}.")
    oldest = waiting.row(0, named=True)
    return Finding(
        False,
        f"{waiting.height} symbol(s) have no bar on {newest} because their price level is doubted, such "
        f"as {oldest['symbol']} ({oldest['rule']}).",
        waiting.height,
        waiting.head(_SAMPLE),
        "`quant data quarantine explain SYMBOL SESSION` tells why; if the level is right, release the row "
        "that began it, and if a split was missed, have the source report it.",
    )


def _named(splits: pl.DataFrame) -> str:
    return ", ".join(
        f"{row['symbol']} on {row['session']} ({row['ratio']:g} for 1)"
        for row in splits.head(3).iter_rows(named=True)
    )


def _earlier_splits(scope: CheckScope) -> pl.DataFrame:
    """The splits of the year up to the run, followed or not."""
    count = max(TRAILING_SESSIONS - len(scope.partition_keys), 0)
    first = scope.partition_keys[0]
    stored = [key for key in scope.store.partitions(CORPORATE_ACTIONS) if key < first]
    keys = stored[len(stored) - count :] if count else []
    actions = _actions(scope, keys)
    return which_followed(_closes(scope, keys, actions), actions)


def _actions(scope: CheckScope, keys: Sequence[str]) -> pl.DataFrame:
    columns = ["session", "symbol", "action_type", "ratio", "cash"]
    stored = [key for key in keys if scope.store.exists(CORPORATE_ACTIONS, key)]
    return scope.store.read(CORPORATE_ACTIONS, stored, columns).collect()


def _closes(
    scope: CheckScope, keys: Sequence[str], actions: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Closes as sent beside those of the session before; of symbols with actions alone, if given."""
    stored = scope.store.partitions(RAW_BARS)
    before = [key for key in stored if keys and key < keys[0]][-1:]
    wanted = set(keys)
    rows = scope.store.read(
        RAW_BARS,
        [*before, *(key for key in stored if key in wanted)],
        ["session", "symbol", "close"],
    )
    if actions is not None:
        rows = rows.filter(pl.col("symbol").is_in(actions["symbol"].unique().implode()))
    found = rows.collect()
    sessions = found["session"].unique().sort()
    following = pl.DataFrame({"session": sessions[:-1], "next": sessions[1:]})
    earlier = found.join(following, on="session").select(
        "symbol", session="next", previous_close="close"
    )
    return found.join(earlier, on=["session", "symbol"])


CHECKS: tuple[TableCheck, ...] = (
    TableCheck(
        BARS,
        "prices_as_traded",
        "Closes move with splits and dividends, as raw prices do: prices that come adjusted would be "
        "adjusted twice.",
        prices_as_traded,
        columns=("session",),
    ),
    TableCheck(
        BARS,
        "splits_followed",
        "The close of a split's first session moves by its ratio.",
        splits_followed,
        blocking=False,
        columns=("session",),
    ),
    TableCheck(
        BARS,
        "volume_spikes",
        "Names bars that trade more than 20 times the median of 60 sessions while the price moves less "
        "than 10 %.",
        volume_spikes,
        blocking=False,
        columns=_VOLUME_COLUMNS,
    ),
    TableCheck(
        QUARANTINE,
        "no_level_waits",
        "Names the symbols that have no bar on the newest session because their price level is doubted.",
        no_level_waits,
        blocking=False,
        columns=("session", "symbol", "rule", "detail"),
    ),
)
