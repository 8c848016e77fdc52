"""Bars from a user's own files through the real graph: stored, judged and adjusted as the files say."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_assets import market_data
from quant_assets.market_data.adjustment import adjust
from quant_assets.market_data.schemas import BARS, CORPORATE_ACTIONS, QUARANTINE, RAW_BARS, TABLES
from quant_assets.market_span import MarketSpan
from quant_assets.partitions import partitions_for, range_tags
from quant_assets.table_assets import TableIOManager
from quant_resources.calendar import XNYS
from quant_resources.file_bars import FileBars
from quant_resources.file_layout import load_layout
from quant_resources.store import Store

SESSIONS = XNYS.sessions(date(2023, 1, 3), date(2023, 5, 31))
SPLIT_AT, DIVIDEND_AT, BROKEN_AT = 60, 70, 75
PRICES = ("open", "high", "low", "close")
LAYOUT = """
name = "vendor"
prices = "split_adjusted"
volume = "split_adjusted"
[bars]
path = "bars"
format = "csv"
one_file_per = "symbol"
[actions]
path = "actions.csv"
format = "csv"
[actions.columns]
ratio = "ratio"
cash = "cash"
"""
REAL = Path(os.environ.get("QUANT_TEST_DATA", "nowhere"))


class FileMarket:
    """A data root whose bars come from files, with the part of the graph that makes bars of them."""

    def __init__(self, root: Path, source: FileBars) -> None:
        self.store = Store(root)
        sessions = source.newest_closed_session()
        partitions = partitions_for(
            MarketSpan(
                first_session=SESSIONS[0], last_session=sessions, first_trading_session=sessions
            )
        )
        chosen = dg.AssetSelection.assets(
            *(table.path for table in (RAW_BARS, CORPORATE_ACTIONS, QUARANTINE, BARS))
        )
        none = dg.ResourceDefinition.none_resource()
        self.definitions = dg.Definitions(
            assets=[partitions.place(asset) for asset in market_data.ASSETS],
            jobs=[dg.define_asset_job("bars", chosen.without_checks())],
            resources={
                "table_io": TableIOManager(self.store, TABLES),
                "store": self.store,
                "bar_source": source,
                "second_bar_source": none,
                "ledger": none,
                "broker": none,
            },
        )

    def run(self, first: date, last: date) -> dg.ExecuteInProcessResult:
        """Fetch and judge a range of sessions."""
        keys = [session.isoformat() for session in XNYS.sessions(first, last)]
        with dg.DagsterInstance.ephemeral() as instance:
            return self.definitions.resolve_job_def("bars").execute_in_process(
                instance=instance, tags=dict(range_tags(keys)), raise_on_error=False
            )


def traded() -> pl.DataFrame:
    """What traded: ten symbols, of which S0 splits 2:1."""
    days = pl.DataFrame({"session": SESSIONS}).with_row_index("at")
    close = (20.0 + pl.col("number") * 5) * (1 + 0.01 * ((pl.col("at") * 7 + pl.col("number")) % 5))
    split = (pl.col("number") == 0) & (pl.col("at") >= SPLIT_AT)
    return (
        pl.DataFrame({"number": range(10)})
        .join(days, how="cross")
        .with_columns(close=(close / pl.when(split).then(2.0).otherwise(1.0)).round(2))
        .select(
            "session",
            symbol=pl.format("S{}", "number"),
            open="close",
            high=(pl.col("close") + 0.4).round(2),
            low=(pl.col("close") - 0.4).round(2),
            close="close",
            volume=100_000.0 * (pl.col("number") + 1),
        )
    )


@pytest.fixture
def source(tmp_path: Path) -> FileBars:
    """One CSV for each symbol, prices adjusted for the split, one broken and one repeated row."""
    before = (pl.col("symbol") == "S0") & (pl.col("session") < SESSIONS[SPLIT_AT])
    rescale = pl.when(before).then(2.0).otherwise(1.0)
    written = traded().with_columns(
        *(pl.col(name) / rescale for name in PRICES), volume=pl.col("volume") * rescale
    )
    broken = (pl.col("symbol") == "S5") & (pl.col("session") == SESSIONS[BROKEN_AT])
    written = written.with_columns(high=pl.when(broken).then(pl.col("low") / 2).otherwise("high"))
    again = written.filter(symbol="S6", session=SESSIONS[BROKEN_AT])
    (tmp_path / "files" / "bars").mkdir(parents=True)
    for (symbol,), part in pl.concat([written, again]).partition_by("symbol", as_dict=True).items():
        text = part.drop("symbol").rename({"session": "date"}).write_csv()
        (tmp_path / "files" / "bars" / f"{symbol}.csv").write_text(text)
    (tmp_path / "files" / "actions.csv").write_text(
        "ex_date,symbol,type,ratio,cash\n"
        f"{SESSIONS[SPLIT_AT]},S0,split,2,\n{SESSIONS[DIVIDEND_AT]},S1,dividend,,0.5\n"
    )
    (tmp_path / "files" / "files.toml").write_text(LAYOUT)
    return FileBars.from_layout(tmp_path / "files" / "files.toml", tmp_path / "root" / "file_cache")


def test_bars_are_what_the_files_say(source: FileBars, tmp_path: Path) -> None:
    market = FileMarket(tmp_path / "root", source)
    half = SESSIONS[50]
    assert market.run(SESSIONS[0], half).success
    assert market.run(XNYS.next(half), SESSIONS[-1]).success
    assert market.store.read(RAW_BARS).collect().height == 10 * len(SESSIONS) + 1
    quarantine = market.store.read(QUARANTINE).collect()
    assert quarantine.select("symbol", "rule").sort("symbol").rows() == [
        ("S5", "high_below_low"),
        ("S6", "duplicate"),
    ]
    bars = market.store.read(BARS).collect()
    broken = (pl.col("symbol") == "S5") & (pl.col("session") == SESSIONS[BROKEN_AT])
    assert_frame_equal(
        bars.select("session", "symbol", *PRICES, "volume").sort("session", "symbol"),
        traded().filter(~broken).sort("session", "symbol"),
        abs_tol=1e-6,
        rel_tol=0,
    )
    close = traded().filter(symbol="S1", session=SESSIONS[DIVIDEND_AT - 1])["close"].item()
    factors = bars.filter(pl.col("price_factor") != 1).sort("symbol")["price_factor"].to_list()
    assert factors == pytest.approx([0.5, 1 - 0.5 / close], rel=1e-12)
    adjusted = adjust(bars.filter(symbol="S0")).sort("session")
    assert (adjusted["close"].pct_change().abs() < 0.06).all()


def test_reading_the_same_files_again_adds_no_vintage(source: FileBars, tmp_path: Path) -> None:
    market = FileMarket(tmp_path / "root", source)
    for _ in range(2):
        assert market.run(SESSIONS[0], SESSIONS[4]).success
    assert len(market.store.vintages(RAW_BARS, SESSIONS[0].isoformat())) == 1


def test_a_bad_cell_stops_the_run_of_its_session_by_name(source: FileBars, tmp_path: Path) -> None:
    file = tmp_path / "files" / "bars" / "S3.csv"
    text = file.read_text().splitlines()
    text[3] = text[3].replace(",100", ",1x00").replace(",400", ",4x00")
    file.write_text("\n".join(text) + "\n")
    market = FileMarket(tmp_path / "root", source)
    failed = market.run(SESSIONS[0], SESSIONS[4])
    assert not failed.success
    told = " ".join(str(e.step_failure_data.error) for e in failed.get_step_failure_events())
    assert f"S3.csv, line 4 (S3, {SESSIONS[2]}), column volume: '4x00000.0' is no number" in told
    assert market.store.partitions(RAW_BARS) == []


@pytest.mark.skipif(not REAL.exists(), reason="set QUANT_TEST_DATA to the folder of the real bars")
def test_real_bars_from_their_files(tmp_path: Path) -> None:
    """Two years of the S&P 500: nothing is lost on the way, and the evidence says that they are raw."""
    from quant_resources.file_inspection import inspect

    layout = tmp_path / "files.toml"
    layout.write_text(
        'name = "sp500"\nprices = "raw"\n'
        f'[bars]\npath = "{REAL}/sp500_pit_raw_2015_2017.parquet"\n'
        'format = "parquet"\none_file_per = "market"\n'
        f'[actions]\npath = "{REAL}/sp500_pit_corporate_actions_2015_2017.parquet"\n'
        'format = "parquet"\nform = "price_factors"\n'
    )
    files = FileBars(load_layout(layout), clock=lambda: datetime(2024, 1, 1, tzinfo=UTC))
    raw = pl.read_parquet(REAL / "sp500_pit_raw_2015_2017.parquet")
    delivered = files.bars(None, date(2015, 3, 20), date(2017, 3, 31))
    assert_frame_equal(
        delivered.select("symbol", pl.col("session").alias("date"), *PRICES, "volume"),
        raw.cast({"volume": pl.Float64}).sort("date", "symbol"),
    )
    found = inspect(files)
    assert found.refusal is None
    assert found.dividends is not None
    assert abs(found.dividends.followed - 1) < abs(found.dividends.followed)
    assert set(found.splits["supports"]) == {"raw"}
