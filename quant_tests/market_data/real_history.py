"""Two years of real S&P 500 bars as a source would deliver them, and what the gate makes of them.

Belongs here: reading the files and the evidence that does not come from the gate itself. Run as a program it
prints the evidence:

    QUANT_TEST_DATA=<folder> python -m quant_tests.market_data.real_history

1. Quarantined rows by rule.
2. Each cluster of them (a symbol's rejected rows in a row) beside evidence that the gate has not seen: where
   the price goes afterwards, what was turned over, whether the action table itself says that an action was
   not followed; and the cause that this evidence names.
3. Rows that were let through although their neighbours on both sides agree on another price.
4. Real moves beyond 30 % that were kept.
5. Adjusted returns on ex-dates against the table of corporate actions.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import polars as pl

from quant_assets.market_data.adjustment import Convention, adjust
from quant_assets.market_data.levels import OUTLIER_RETURN
from quant_assets.market_data.quality_gate import Gated, gate
from quant_assets.market_data.schemas import CORPORATE_ACTIONS, RAW_BARS
from quant_resources.calendar import XNYS, start_of_day

FOLDER = Path(os.environ.get("QUANT_TEST_DATA", "nowhere"))
BAR_FILE = FOLDER / "sp500_pit_raw_2015_2017.parquet"
ACTION_FILE = FOLDER / "sp500_pit_corporate_actions_2015_2017.parquet"
_USUAL_SESSIONS = 20


@dataclass(frozen=True)
class RealHistory:
    """The real bars, their actions and the gate's verdict on all of them."""

    raw: pl.DataFrame
    actions: pl.DataFrame
    table: pl.DataFrame
    convention: Convention = "crsp"

    @classmethod
    def read(cls) -> RealHistory:
        """Read the files of `FOLDER` as raw deliveries and corporate actions."""
        table = pl.read_parquet(ACTION_FILE)
        return cls(_deliveries(pl.read_parquet(BAR_FILE)), _facts(table), table)

    @cached_property
    def gated(self) -> Gated:
        """What the gate makes of all sessions at once."""
        days = self.raw["session"]
        sessions = XNYS.sessions(days.sort()[0], days.sort()[-1])
        return gate(
            self.raw.lazy(),
            self.actions.lazy(),
            sessions,
            sessions,
            convention=self.convention,
        )

    @cached_property
    def delivered(self) -> pl.DataFrame:
        """Delivered rows by symbol and session with neighbours, usual turnover and the gate's rule."""
        turnover = pl.col("close") * pl.col("volume")
        return (
            self.raw.join(
                self.gated.quarantine.select("symbol", "session", "rule"),
                on=["symbol", "session"],
                how="left",
            )
            .sort("symbol", "session")
            .with_columns(
                turnover=turnover,
                before=pl.col("close").shift(1).over("symbol"),
                after=pl.col("close").shift(-1).over("symbol"),
            )
            .with_columns(
                usual_turnover=pl.col("turnover")
                .rolling_median(_USUAL_SESSIONS, min_samples=3)
                .shift(1)
                .over("symbol"),
                later_turnover=pl.col("turnover")
                .rolling_median(_USUAL_SESSIONS, min_samples=3)
                .shift(-_USUAL_SESSIONS)
                .over("symbol"),
                usual_volume=pl.col("volume")
                .rolling_median(_USUAL_SESSIONS, min_samples=3)
                .shift(1)
                .over("symbol"),
            )
        )

    def clusters(self) -> pl.DataFrame:
        """One row per run of a symbol's rejected rows, with outside evidence and the cause it names."""
        rejected = pl.col("rule").is_not_null()
        found = (
            self.delivered.with_columns(
                cluster=(rejected != rejected.shift(1))
                .fill_null(value=True)
                .cum_sum()
                .over("symbol")
            )
            .filter(rejected)
            .group_by("symbol", "cluster")
            .agg(
                rule=pl.col("rule").first(),
                first=pl.col("session").min(),
                last=pl.col("session").max(),
                rows=pl.len(),
                before=pl.col("before").first(),
                close=pl.col("close").first(),
                after=pl.col("after").last(),
                volume=pl.col("volume").first(),
                turnover=pl.col("turnover").median()
                / pl.max_horizontal(
                    pl.col("usual_turnover").first(), pl.col("later_turnover").last()
                ),
            )
            .join(
                self.table.filter(pl.col("kind") != "dividend").select(
                    "symbol", "price_consistent", first="ex_date"
                ),
                on=["symbol", "first"],
                how="left",
            )
        )
        came_back = (pl.col("after") / pl.col("before")).is_between(0.85, 1.18)
        return (
            found.with_columns(
                cause=pl.when(pl.col("volume") == 0)
                .then(pl.lit("no trade; the ticker goes over to another company"))
                .when(came_back & (pl.col("turnover") < 0.25))
                .then(pl.lit("rows of another instrument"))
                .when(~pl.col("price_consistent"))
                .then(pl.lit("factor in the table that the price did not follow"))
                .when(~came_back & pl.col("turnover").is_between(0.25, 4.0))
                .then(pl.lit("action missing from the table"))
                .otherwise(pl.lit("real move: false alarm"))
            )
            .drop("cluster", "volume")
            .sort("first")
        )

    def lonely_rows(self) -> pl.DataFrame:
        """Rows let through whose neighbours agree within 5 % on a price more than 20 % away."""
        return self.delivered.filter(
            pl.col("rule").is_null(),
            (pl.col("after") / pl.col("before") - 1).abs() < 0.05,
            (pl.col("close") / pl.col("before") - 1).abs() > 0.20,
            (pl.col("close") / pl.col("after") - 1).abs() > 0.20,
        ).select("symbol", "session", "before", "close", "after")

    def kept_moves(self) -> pl.DataFrame:
        """Bars more than 30 % from the adjusted bar before, with their volume over its median."""
        volumes = self.delivered.select(
            "symbol", "session", "open", times_usual=pl.col("volume") / pl.col("usual_volume")
        )
        return (
            self.ex_date_returns()
            .filter(pl.col("adjusted").abs() > OUTLIER_RETURN)
            .select("symbol", "session", "adjusted")
            .join(volumes, on=["symbol", "session"])
            .sort("session")
        )

    def ex_date_returns(self) -> pl.DataFrame:
        """Every bar's adjusted return beside its previous raw close and factor."""
        adjusted = adjust(self.gated.bars).sort("security_id", "session")
        raw = self.gated.bars.sort("security_id", "session")
        return (
            raw.with_columns(
                previous_close=pl.col("close").shift(1).over("security_id"),
                previous_session=pl.col("session").shift(1).over("security_id"),
                adjusted=adjusted["close"] / adjusted["close"].shift(1) - 1,
            )
            .filter(pl.col("previous_close").is_not_null())
            .select(
                "symbol",
                "session",
                "previous_session",
                "previous_close",
                "close",
                "price_factor",
                "adjusted",
            )
        )

    def actions_against_returns(self) -> pl.DataFrame:
        """Each action with an amount that met two bars next to each other, with the return across it.

        ``holding`` is (close + cash) / previous close - 1, the return of who held the share.
        """
        following = pl.col("previous_session") == pl.col("prev_date")
        return (
            self.table.join(
                self.ex_date_returns(),
                left_on=["symbol", "ex_date"],
                right_on=["symbol", "session"],
            )
            .filter(following, pl.col("implied_cash") > 0)
            .with_columns(
                holding=(pl.col("close") + pl.col("implied_cash")) / pl.col("previous_close") - 1,
                crsp=pl.col("close") / (pl.col("previous_close") - pl.col("implied_cash")) - 1,
            )
        )


def _deliveries(bars: pl.DataFrame) -> pl.DataFrame:
    stamps = bars.rename({"date": "session"})
    days = stamps["session"].unique().to_list()
    times = pl.DataFrame(
        {"session": days, "bar_time": [start_of_day(day) for day in days]},
        schema={"session": pl.Date, "bar_time": pl.Datetime("us", "UTC")},
    )
    return (
        stamps.join(times, on="session")
        .with_columns(
            pl.col("volume").cast(pl.Float64),
            vwap=pl.lit(None, pl.Float64),
            trade_count=pl.lit(None, pl.Int64),
            source=pl.lit("file"),
            asof=pl.lit(None, pl.Date),
            observed_at=pl.lit(datetime(2024, 1, 1, tzinfo=UTC)).dt.cast_time_unit("us"),
        )
        .select(list(RAW_BARS.schema))
    )


def _facts(table: pl.DataFrame) -> pl.DataFrame:
    dividend = pl.col("kind") == "dividend"
    return table.with_columns(
        session=pl.col("ex_date"),
        action_type=pl.when(dividend)
        .then(pl.lit("cash_dividend"))
        .when(pl.col("adj_factor") < 1)
        .then(pl.lit("forward_split"))
        .otherwise(pl.lit("reverse_split")),
        ratio=pl.when(~dividend).then(1 / pl.col("adj_factor")),
        cash=pl.when(dividend).then("implied_cash"),
        new_symbol=pl.lit(None, pl.String),
        action_id=pl.format("{}-{}", "symbol", "ex_date"),
        source=pl.lit("file"),
        observed_at=pl.lit(datetime(2024, 1, 1, tzinfo=UTC)).dt.cast_time_unit("us"),
    ).select(list(CORPORATE_ACTIONS.schema))


def main() -> None:
    """Print the evidence."""
    history = RealHistory.read()
    gated = history.gated
    clusters, moves = history.clusters(), history.kept_moves()
    across = history.actions_against_returns()
    dividends = across.filter(pl.col("kind") == "dividend")
    others = across.filter((pl.col("kind") != "dividend") & pl.col("price_consistent"))
    with pl.Config(tbl_rows=60, tbl_cols=20, tbl_width_chars=200, fmt_str_lengths=60):
        print(f"{history.raw.height} rows delivered, {gated.quarantine.height} rejected")
        print(gated.quarantine["rule"].value_counts(sort=True))
        print(clusters)
        print(clusters.group_by("cause").agg(pl.len().alias("clusters"), pl.col("rows").sum()))
        print(f"{history.lonely_rows().height} rows let through that both neighbours contradict")
        print(history.lonely_rows())
        print(f"{moves.height} adjusted moves beyond 30 % kept")
        print(moves)
        for name, frame in (("dividends", dividends), ("splits and spin-offs", others)):
            worst = frame.sort(pl.col("adjusted").abs(), descending=True)
            wide = frame.filter(pl.col("adjusted").abs() > 0.10).height
            error = (frame["adjusted"] - frame["crsp"]).abs().max()
            print(
                f"{frame.height} {name}: median adjusted return {frame['adjusted'].median():.5f}, "
                f"{wide} beyond 10 %, largest difference to p / (p_prev - d) - 1 {error:.1e}"
            )
            print(worst.select("symbol", "ex_date", "adj_factor", "adjusted", "holding").head(8))
        apart = (dividends["adjusted"] - dividends["holding"]).abs()
        print(
            f"CRSP against the holding return: mean {apart.mean():.1e}, largest {apart.max():.1e}"
        )


if __name__ == "__main__":
    main()
