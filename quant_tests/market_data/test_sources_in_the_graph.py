"""The broker's list, the second source and index membership in real Dagster runs.

Two exchanges are served: the second replays the first's history with one close changed, one bar left out
and one bar more. Both are spoken to over HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from quant_assets import market_data
from quant_assets.market_data.schemas import (
    BARS,
    CORPORATE_ACTIONS,
    LISTED_ASSETS,
    RAW_BARS,
    SOURCE_DIFFERENCES,
    TABLES,
    UNIVERSE,
)
from quant_assets.market_data.source_checks import CHECKS
from quant_assets.market_span import MarketSpan
from quant_assets.partitions import partitions_for, range_tags
from quant_assets.point_in_time.detectors import day_equals_range, look_ahead
from quant_assets.point_in_time.recompute import steps
from quant_assets.point_in_time.session_recomputations import Recomputations
from quant_assets.table_assets import TableIOManager
from quant_assets.table_checks import check_definitions
from quant_resources.alpaca_bars import AlpacaBars
from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.calendar import XNYS, start_of_day
from quant_resources.exchange.spec import MarketSpec
from quant_resources.exchange.state import State
from quant_resources.store import Store
from quant_tests.exchange.served import Server
from quant_tests.market_data.deliveries import action, action_frame

SESSIONS = XNYS.sessions(date(2023, 1, 3), date(2023, 5, 31))
SYMBOLS = ["AAA", "BBB", "CCC"]
CHANGED, LEFT_OUT = SESSIONS[70], SESSIONS[71]
#: The morning on which the clocks stand: what closed last is the session before.
NOW_AT = 80
SPAN = MarketSpan(
    first_session=SESSIONS[0], last_session=SESSIONS[-3], first_trading_session=SESSIONS[-5]
)
PARTITIONS = partitions_for(SPAN)


def history(folder: Path) -> pl.DataFrame:
    folder.mkdir(parents=True)
    days = pl.DataFrame({"date": SESSIONS}).with_row_index("at")
    return (
        pl.DataFrame({"symbol": SYMBOLS})
        .with_row_index("number")
        .join(days, how="cross")
        .with_columns(close=20.0 + pl.col("number") * 5 + (pl.col("at") % 5) * 0.1)
        .with_columns(
            open=pl.col("close"),
            high=pl.col("close") * 1.01,
            low=pl.col("close") * 0.99,
            volume=100_000.0 * (pl.col("number") + 1),
        )
        .drop("number", "at")
    )


def served(folder: Path, bars: pl.DataFrame, now_at: int = NOW_AT) -> Server:
    bars.write_parquet(folder / "history" / "bars.parquet")
    spec = MarketSpec(kind="history", folder=folder / "history")
    State.create(folder / "exchange", spec, start_of_day(SESSIONS[now_at]))
    return Server(folder / "exchange")


@pytest.fixture(scope="module")
def exchanges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    root = tmp_path_factory.mktemp("exchanges")
    one = history(root / "one" / "history")
    other = history(root / "other" / "history").with_columns(
        close=pl.when((pl.col("symbol") == "AAA") & (pl.col("date") == CHANGED))
        .then(pl.col("close") * 1.005)
        .otherwise("close")
    )
    other = other.filter((pl.col("symbol") != "BBB") | (pl.col("date") != LEFT_OUT))
    one = one.filter((pl.col("symbol") != "CCC") | (pl.col("date") != LEFT_OUT))
    servers = served(root / "one", one), served(root / "other", other)
    yield servers
    for server in servers:
        server.stop()
        server.wait()


def bars_of(server: Server) -> AlpacaBars:
    return AlpacaBars(server.url, server.url, "k", "s", requests_per_minute=None, backoff=(0.01,))


class Market:
    """A data root with this stage's graph alone."""

    def __init__(self, root: Path, first: Server, second: object | None) -> None:
        self.store = Store(root)
        none = dg.ResourceDefinition.none_resource()
        self.broker = AlpacaBroker(first.url, first.url, "k", "s")
        resources: dict[str, Any] = {
            "table_io": TableIOManager(self.store, TABLES),
            "store": self.store,
            "bar_source": bars_of(first),
            "second_bar_source": none if second is None else second,
            "ledger": none,
            "broker": self.broker,
        }
        self.definitions = dg.Definitions(
            assets=[PARTITIONS.place(asset) for asset in market_data.ASSETS],
            asset_checks=check_definitions((), CHECKS, PARTITIONS),
            resources=resources,
        )
        self.instance = dg.DagsterInstance.ephemeral()

    def run(self, first: date, last: date, *tables: str) -> dg.ExecuteInProcessResult:
        """Materialize tables of a range of sessions with their checks."""
        keys = [session.isoformat() for session in XNYS.sessions(first, last)]
        job = dg.define_asset_job(
            "chosen", dg.AssetSelection.assets(*(["market_data", table] for table in tables))
        )
        return dg.Definitions.merge(
            self.definitions, dg.Definitions(jobs=[job])
        ).resolve_job_def("chosen").execute_in_process(
            instance=self.instance,
            tags=dict(range_tags(keys)) if len(keys) > 1 else {"dagster/partition": keys[0]},
            raise_on_error=False,
        )  # fmt: skip


@pytest.fixture
def market(tmp_path: Path, exchanges: tuple[Server, Server]) -> Iterator[Market]:
    market = Market(tmp_path / "root", exchanges[0], bars_of(exchanges[1]))
    yield market
    market.broker.close()


def checked(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Checks that did not pass, and what they say."""
    return {
        found.check_name: str(found.description)
        for found in result.get_asset_check_evaluations()
        if not found.passed
    }


def test_the_list_is_observed_for_the_newest_session_and_kept_for_the_others(
    market: Market, exchanges: tuple[Server, Server]
) -> None:
    older, newest = SESSIONS[NOW_AT - 2 : NOW_AT]
    assert market.run(older, newest, "listed_assets").success
    assert market.store.read(LISTED_ASSETS, [str(older)]).collect().is_empty()
    listed = market.store.read(LISTED_ASSETS, [str(newest)]).collect()
    assert listed.select("symbol", "active", "tradable").rows() == [
        (symbol, True, True) for symbol in SYMBOLS
    ]
    assert listed["source"].unique().to_list() == ["local exchange"]
    assert listed["session"].unique().to_list() == [newest]
    assert market.run(older, newest, "listed_assets").success
    assert len(market.store.vintages(LISTED_ASSETS, str(newest))) == 1


def test_materializing_an_old_session_again_keeps_what_was_observed_then(market: Market) -> None:
    """An empty list over an observed one would forget what could be traded that day."""
    old = SESSIONS[NOW_AT - 10]
    observed = LISTED_ASSETS.conform(
        pl.DataFrame(
            {
                "session": [old],
                "symbol": ["AAA"],
                "active": [True],
                "tradable": [True],
                "shortable": [False],
                "fractionable": [False],
                "source": ["alpaca"],
                "observed_at": [start_of_day(SESSIONS[NOW_AT - 9])],
            }
        ).with_columns(pl.col("observed_at").dt.cast_time_unit("us"))
    )
    market.store.write(LISTED_ASSETS, observed, [str(old)])
    assert market.run(SESSIONS[NOW_AT - 11], SESSIONS[NOW_AT - 1], "listed_assets").success
    assert market.store.read(LISTED_ASSETS, [str(old)]).collect().equals(observed)
    assert len(market.store.vintages(LISTED_ASSETS, str(old))) == 1


def test_differences_are_told_by_symbol_and_session_and_stop_nothing(market: Market) -> None:
    result = market.run(SESSIONS[68], SESSIONS[72], "raw_bars", "source_differences")
    assert result.success
    found = market.store.read(SOURCE_DIFFERENCES).collect()
    assert found.select("session", "symbol", "field", "value", "other_value").rows() == [
        (CHANGED, "AAA", "close", 20.0, pytest.approx(20.1)),
        (LEFT_OUT, "BBB", "presence", 1.0, 0.0),
        # Delivered the sessions before, so that its absence is noticed.
        (LEFT_OUT, "CCC", "presence", 0.0, 1.0),
    ]
    said = checked(result)["sources_agree"]
    assert "3 value(s) of 3 symbol(s) and 2 session(s)" in said
    assert f"AAA on {CHANGED}" in said or "presence" in said


def test_without_a_second_source_nothing_is_asked(
    tmp_path: Path, exchanges: tuple[Server, Server]
) -> None:
    alone = Market(tmp_path / "alone", exchanges[0], None)
    result = alone.run(SESSIONS[70], SESSIONS[71], "raw_bars", "source_differences")
    assert result.success
    assert checked(result) == {}
    assert alone.store.read(SOURCE_DIFFERENCES).collect().is_empty()
    alone.broker.close()


def test_a_second_source_that_is_down_costs_its_confirmation_and_no_day(
    tmp_path: Path, exchanges: tuple[Server, Server]
) -> None:
    nowhere = AlpacaBars(
        "http://127.0.0.1:9", "http://127.0.0.1:9", "k", "s", requests_per_minute=None, backoff=()
    )
    market = Market(tmp_path / "down", exchanges[0], nowhere)
    result = market.run(
        SESSIONS[70], SESSIONS[71], "raw_bars", "corporate_actions", "source_differences"
    )
    assert result.success
    found = market.store.read(SOURCE_DIFFERENCES).collect()
    assert found.select("session", "symbol", "field").rows() == [
        (CHANGED, "*", "answer"),
        (LEFT_OUT, "*", "answer"),
    ]
    assert "no usable answer for 2 session(s)" in checked(result)["sources_agree"]
    market.broker.close()


def test_a_second_source_that_lags_answers_for_what_it_has(
    tmp_path: Path, exchanges: tuple[Server, Server]
) -> None:
    root = tmp_path / "lagging"
    # Its clock stands ten days earlier: session 70 is the newest that has closed there.
    slow = served(
        root / "slow",
        history(root / "slow" / "history").filter(pl.col("symbol") != "BBB"),
        now_at=71,
    )
    try:
        market = Market(root / "root", exchanges[0], bars_of(slow))
        assert market.run(SESSIONS[69], SESSIONS[71], "raw_bars", "source_differences").success
        found = market.store.read(SOURCE_DIFFERENCES).collect()
        # BBB, which the second does not hold, is not missed; the last session is not confirmed.
        assert found.select("session", "symbol", "field").rows() == [(SESSIONS[71], "*", "answer")]
        market.broker.close()
    finally:
        slow.stop()
        slow.wait()


def test_the_universe_of_an_index_holds_its_members_under_the_names_of_the_time(
    tmp_path: Path, exchanges: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    members = tmp_path / "members.csv"
    members.write_text(
        "symbol,start_date,end_date\n"
        f"NEW,2020-01-02,\nBBB,2020-01-02,{SESSIONS[66]}\nNEVER,2020-01-02,2023-01-05\n"
        f"ABSENT,{SESSIONS[65]},\n"
    )
    monkeypatch.setenv("QUANT_UNIVERSE_MEMBERSHIP", str(members))
    market = Market(tmp_path / "root", exchanges[0], None)
    first, last = SESSIONS[0], SESSIONS[67]
    assert market.run(first, last, "raw_bars", "corporate_actions", "listed_assets").success
    # AAA is renamed months later, by an action that is known by now.
    day = SESSIONS[75]
    market.store.write(
        CORPORATE_ACTIONS,
        action_frame([action("AAA", day, "name_change", new_symbol="NEW")]),
        [str(day)],
    )
    result = market.run(first, last, "bars", "quarantine", "universe")
    assert result.success
    universe = market.store.read(UNIVERSE).collect()
    by_session = {
        session: sorted(universe.filter(session=session)["symbol"]) for session in SESSIONS[64:68]
    }
    assert list(by_session.values()) == [["AAA", "BBB"], ["AAA", "BBB"], ["AAA"], ["AAA"]]
    assert universe["rank"].max() == 2
    said = checked(result)["members_have_bars"]
    assert "2 members" in said
    assert f"ABSENT from {SESSIONS[65]} on" in said
    assert market.store.read(BARS).select("symbol").unique().collect().height == 3
    assert market.store.exists(RAW_BARS, str(last))
    # The rename is later than the sessions, and yet no look into the future: it says whose line it is.
    placed = [PARTITIONS.place(asset) for asset in market_data.ASSETS]
    step = next(one for one in steps(placed, PARTITIONS) if one.tables == (UNIVERSE,))
    again = Recomputations(step, market.store, {})
    keys = [str(session) for session in SESSIONS[64:67]]
    for detector in (look_ahead, day_equals_range):
        finding = detector(again, UNIVERSE, keys)
        assert finding.passed, finding.message
    market.broker.close()
