"""The stage in real Dagster runs against a real exchange that replays a history with broken rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_assets import market_data
from quant_assets.market_data.adjustment import adjust
from quant_assets.market_data.checks import CHECKS
from quant_assets.market_data.schemas import (
    BARS,
    CORPORATE_ACTIONS,
    QUARANTINE,
    RAW_BARS,
    TABLES,
    UNIVERSE,
)
from quant_assets.market_span import MarketSpan
from quant_assets.partitions import partitions_for, range_tags
from quant_assets.table_assets import TableIOManager
from quant_assets.table_checks import check_definitions
from quant_resources.alpaca_bars import AlpacaBars
from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.bar_source import BarSource
from quant_resources.broker import Broker
from quant_resources.calendar import XNYS, start_of_day
from quant_resources.exchange.process import (
    ExchangeControl,
    MarketSpec,
    ensure_exchange,
    stop_exchange,
)
from quant_resources.store import Store

FIRST, LAST = date(2023, 1, 3), date(2023, 5, 31)
SESSIONS = XNYS.sessions(FIRST, LAST)
SPLIT_AT, BROKEN_AT, DIVIDEND_AT = 70, 75, 80
SYMBOLS = [f"S{number:02d}" for number in range(12)]
SPAN = MarketSpan(
    first_session=FIRST, last_session=SESSIONS[-3], first_trading_session=SESSIONS[-5]
)
PARTITIONS = partitions_for(SPAN)
RAW = dg.AssetSelection.assets("market_data/raw_bars")
FACTS = RAW | dg.AssetSelection.assets("market_data/corporate_actions")
JUDGED = dg.AssetSelection.assets("market_data/quarantine", "market_data/bars")
JOBS = {
    "everything": dg.AssetSelection.all(),
    "compute": dg.AssetSelection.all().without_checks(),
    "fetch_bars": RAW.without_checks(),
    "fetch": FACTS.without_checks(),
    "judge": JUDGED.without_checks(),
}


def history(folder: Path) -> Path:
    """Twelve symbols; S00 splits, S01 pays a dividend, and session 75 has broken rows."""
    days = pl.DataFrame({"date": SESSIONS}).with_row_index("at")
    bars = (
        pl.DataFrame({"symbol": SYMBOLS})
        .with_row_index("number")
        .join(days, how="cross")
        .with_columns(
            close=(20.0 + pl.col("number") * 5)
            * (1 + 0.01 * ((pl.col("at") * 7 + pl.col("number")) % 5))
        )
        .with_columns(
            close=pl.when((pl.col("symbol") == "S00") & (pl.col("at") >= SPLIT_AT))
            .then(pl.col("close") / 2)
            .otherwise("close")
        )
        .with_columns(
            open=pl.col("close"),
            high=pl.col("close") * 1.01,
            low=pl.col("close") * 0.99,
            volume=100_000.0 * (pl.col("number") + 1),
        )
    )
    broken = pl.col("at") == BROKEN_AT
    bars = bars.with_columns(
        high=pl.when(broken & (pl.col("symbol") == "S05")).then(pl.col("low") / 2).otherwise("high")
    )
    twice = bars.filter(broken, pl.col("symbol") == "S06")
    folder.mkdir()
    pl.concat([bars, twice]).drop("number", "at").write_parquet(folder / "bars.parquet")
    pl.DataFrame(
        {
            "symbol": ["S00", "S01"],
            "ex_date": [SESSIONS[SPLIT_AT], SESSIONS[DIVIDEND_AT]],
            "action_type": ["forward_split", "cash_dividend"],
            "ratio": [2.0, None],
            "cash": [None, 0.5],
        }
    ).write_parquet(folder / "actions.parquet")
    return folder


@pytest.fixture(scope="module")
def exchange_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("market_data")
    spec = MarketSpec(kind="history", folder=history(root / "history"))
    try:
        url = ensure_exchange(root / "exchange", spec).url
        ExchangeControl(url).advance(start_of_day(SESSIONS[95]))
        yield url
    finally:
        stop_exchange(root / "exchange")


@pytest.fixture
def source(exchange_url: str) -> BarSource:
    return AlpacaBars(
        exchange_url, exchange_url, "key", "secret", requests_per_minute=None, backoff=(0.01,)
    )


class Market:
    """A data root with this stage's graph alone."""

    def __init__(
        self, root: Path, source: BarSource, broker: Broker, second: BarSource | None = None
    ) -> None:
        self.store = Store(root)
        assets = [PARTITIONS.place(asset) for asset in market_data.ASSETS]
        none = dg.ResourceDefinition.none_resource()
        self.definitions = dg.Definitions(
            assets=assets,
            asset_checks=check_definitions(TABLES, CHECKS, PARTITIONS),
            jobs=[dg.define_asset_job(name, chosen) for name, chosen in JOBS.items()],
            resources={
                "table_io": TableIOManager(self.store, TABLES),
                "store": self.store,
                "bar_source": source,
                "second_bar_source": none if second is None else second,
                "ledger": none,
                "broker": broker,
            },
        )
        self.instance = dg.DagsterInstance.ephemeral()

    def run(self, first: date, last: date, job: str = "everything") -> dg.ExecuteInProcessResult:
        """Run a job over a range of sessions."""
        keys = [session.isoformat() for session in XNYS.sessions(first, last)]
        return self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            tags=dict(range_tags(keys)) if len(keys) > 1 else {"dagster/partition": keys[0]},
            raise_on_error=False,
        )


@pytest.fixture
def broker(exchange_url: str) -> Iterator[Broker]:
    broker = AlpacaBroker(exchange_url, exchange_url, "key", "secret")
    yield broker
    broker.close()


@pytest.fixture
def market(tmp_path: Path, source: BarSource, broker: Broker) -> Market:
    return Market(tmp_path / "root", source, broker)


def checks_of(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {
        f"{found.asset_key.path[-1]}.{found.check_name}": found.passed
        for found in result.get_asset_check_evaluations()
    }


def failure_text(result: dg.ExecuteInProcessResult) -> str:
    return " ".join(
        str(event.step_failure_data.error) for event in result.get_step_failure_events()
    )


def test_backfill_keeps_every_row_and_says_what_is_not_right(market: Market) -> None:
    result = market.run(SESSIONS[0], SESSIONS[90])
    assert result.success
    passed = checks_of(result)
    assert len(passed) == len(TABLES) + len(CHECKS)
    # The market has closed sessions beyond the run, and a quarantined row of twelve is a gap.
    assert [name for name, kept in passed.items() if not kept] == ["bars.fresh", "coverage.covered"]
    raw = market.store.read(RAW_BARS).collect()
    bars = market.store.read(BARS).collect()
    quarantine = market.store.read(QUARANTINE).collect()
    assert raw.height == 12 * 91 + 1 == bars.height + quarantine.height
    assert quarantine.select("symbol", "rule").sort("symbol").rows() == [
        ("S05", "high_below_low"),
        ("S06", "duplicate"),
    ]
    adjusted = adjust(bars.filter(symbol="S00")).sort("session")
    assert (adjusted["close"].pct_change().abs() < 0.06).all()
    factors = bars.filter(pl.col("price_factor") != 1.0).sort("symbol")
    close_before = bars.filter(symbol="S01", session=SESSIONS[DIVIDEND_AT - 1]).item(0, "close")
    assert factors["session"].to_list() == [SESSIONS[SPLIT_AT], SESSIONS[DIVIDEND_AT]]
    assert factors["price_factor"].to_list() == pytest.approx(
        [0.5, 1 - 0.5 / close_before], rel=1e-12
    )
    universe = market.store.read(UNIVERSE).collect()
    assert universe["session"].min() == SESSIONS[59]
    assert universe.filter(session=SESSIONS[90]).sort("rank")["symbol"][0] == "S11"
    assert universe["tradable"].null_count() == universe.height


@pytest.mark.long
def test_day_by_day_equals_the_range(
    market: Market, source: BarSource, broker: Broker, tmp_path: Path
) -> None:
    daily = Market(tmp_path / "daily", source, broker)
    assert market.run(SESSIONS[0], SESSIONS[SPLIT_AT + 1], "compute").success
    assert daily.run(SESSIONS[0], SESSIONS[SPLIT_AT - 1], "compute").success
    for session in SESSIONS[SPLIT_AT : SPLIT_AT + 2]:
        assert daily.run(session, session, "compute").success
    for table in (BARS, QUARANTINE, UNIVERSE, CORPORATE_ACTIONS):
        left, right = (
            root.store.read(table).collect().drop("observed_at", strict=False)
            for root in (market, daily)
        )
        assert_frame_equal(left, right)


def test_permissions_are_observed_for_the_newest_session(market: Market) -> None:
    assert market.run(SESSIONS[0], SESSIONS[94], "compute").success
    newest = market.store.read(UNIVERSE, [SESSIONS[94].isoformat()]).collect()
    assert newest["tradable"].to_list() == [True] * 12


def test_session_that_has_not_closed_is_refused_by_name(market: Market) -> None:
    result = market.run(SESSIONS[94], SESSIONS[95], "fetch_bars")
    assert not result.success
    text = failure_text(result)
    assert f"Session {SESSIONS[95]} is not there yet" in text
    assert str(SESSIONS[94]) in text


def test_bars_without_their_history_are_refused(market: Market) -> None:
    """A hole in the history would make old companies new listings."""
    assert market.run(SESSIONS[0], SESSIONS[2], "fetch").success
    assert market.run(SESSIONS[4], SESSIONS[5], "fetch").success
    result = market.run(SESSIONS[5], SESSIONS[5], "judge")
    assert not result.success
    assert str(SESSIONS[3]) in failure_text(result)


def test_fetching_again_adds_no_vintage(market: Market) -> None:
    for _ in range(2):
        assert market.run(SESSIONS[0], SESSIONS[1], "fetch_bars").success
    assert len(market.store.vintages(RAW_BARS, SESSIONS[0].isoformat())) == 1
