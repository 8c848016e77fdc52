"""A vendor restates: real exchange, real Dagster runs, and exactly the affected partitions again.

The whole graph but for models and orders, over eighty sessions of twelve symbols, is made once; every test
restates a bar of its own and walks the sensor's ticks, or the command's way, to the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_assets.automation import jobs
from quant_assets.automation.restatement_journal import (
    held_journal,
    read_journal,
    write_journal,
)
from quant_assets.automation.restatement_runs import MAXIMUM_ATTEMPTS
from quant_assets.automation.schedules import refetch_requests
from quant_assets.cli.graph_runs import GraphRunner, RunFailedError
from quant_assets.cli.refetch import pending, refetch_sessions, rerun_affected
from quant_assets.cli.trading_day import TradingDay
from quant_assets.definitions import all_tables, build_defs
from quant_assets.features.schemas import LABEL_TABLES
from quant_assets.features.session_features import (
    ALPHA158_FEATURES,
    ANOMALY_FEATURES,
    TECHNICAL_FEATURES,
)
from quant_assets.market_data.listings import LISTING_GAP_SESSIONS
from quant_assets.market_data.releases import row_digest
from quant_assets.market_data.schemas import (
    BARS,
    QUARANTINE,
    RAW_BARS,
    RELEASES,
    SOURCE_DIFFERENCES,
)
from quant_assets.market_data.universe import WINDOW_SESSIONS
from quant_assets.market_span import MarketSpan
from quant_assets.performance.strategy_comparison import WINDOW
from quant_assets.signals.strategies.enhanced_momentum import EnhancedMomentum
from quant_resources.alpaca_bars import AlpacaBars
from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.calendar import NEW_YORK, XNYS, start_of_day
from quant_resources.errors import ConfigurationError
from quant_resources.exchange.control import ExchangeControl
from quant_resources.exchange.process import ensure_exchange, stop_exchange
from quant_resources.exchange.spec import MarketSpec
from quant_resources.ledger import Ledger
from quant_resources.ledger.migrate import migrate
from quant_resources.postgres import ensure_postgres, stop_postgres
from quant_resources.settings import Settings
from quant_resources.store import Store
from quant_resources.tables import Table

COUNT = 90
SESSIONS = XNYS.sessions(date(2023, 1, 3), date(2023, 12, 29))[: COUNT + 10]
KEYS = [day.isoformat() for day in SESSIONS[:COUNT]]
SPAN = MarketSpan(
    first_session=SESSIONS[0],
    last_session=SESSIONS[COUNT + 4],
    first_trading_session=SESSIONS[COUNT],
)
SYMBOLS = [f"S{number:02d}" for number in range(12)]
Made = set[tuple[str, str | None]]


def history(folder: Path) -> Path:
    """Twelve symbols whose closes move by a few percent, for ever differently."""
    days = pl.DataFrame({"date": SESSIONS}).with_row_index("at")
    wave = (pl.col("at") * 7 + pl.col("number") * 3) % 11 + (pl.col("at") * 5) % 3
    folder.mkdir()
    (
        pl.DataFrame({"symbol": SYMBOLS})
        .with_row_index("number")
        .join(days, how="cross")
        .with_columns(close=(20.0 + pl.col("number") * 5) * (1 + 0.004 * wave))
        .with_columns(
            open=pl.col("close") * 0.999,
            high=pl.col("close") * 1.01,
            low=pl.col("close") * 0.99,
            volume=100_000.0 * (pl.col("number") + 1) + 1000.0 * wave,
        )
        .drop("number", "at")
        .write_parquet(folder / "bars.parquet")
    )
    return folder


@dataclass
class Market:
    """A data root with history, the exchange that it comes from, and its Dagster instance."""

    store: Store
    control: ExchangeControl
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    runner: GraphRunner = field(init=False)

    def __post_init__(self) -> None:
        self.runner = GraphRunner(self.definitions, self.instance, lambda _label, _done: None)

    def restate(self, symbol: str, at: int, **values: float) -> None:
        """Publish other values at the exchange and fetch the session again."""
        self.control.restate(symbol, SESSIONS[at], **values)
        refetch_sessions(self.runner, self.store, [KEYS[at]])

    def tick(self) -> tuple[list[dg.RunRequest], str]:
        """One look of the sensor, as the daemon takes it: what it asks for, or why it skips."""
        repository = self.definitions.get_repository_def()
        # What the daemon makes; dg.build_sensor_context wants an instance on disk, ten times as slow.
        with dg.SensorEvaluationContext(
            instance_ref=None,
            instance=self.instance,
            repository_def=repository,
            resources={"store": dg.ResourceDefinition.hardcoded_resource(self.store)},
        ) as context:
            found = repository.get_sensor_def("restatements").evaluate_tick(context)
        return list(found.run_requests or ()), found.skip_message or ""

    def execute(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Make the run that was asked for."""
        return self.definitions.resolve_job_def(str(request.job_name)).execute_in_process(
            instance=self.instance,
            partition_key=request.partition_key,
            tags=dict(request.tags),
            asset_selection=request.asset_selection,
            raise_on_error=False,
        )

    def walk(self) -> list[Made]:
        """Ticks and runs until the sensor has nothing left to ask for; what each tick's runs made."""
        steps: list[Made] = []
        while True:
            requests, told = self.tick()
            if not requests:
                assert "Made again" in told or "No session" in told, told
                return steps
            made: Made = set()
            for request in requests:
                result = self.execute(request)
                assert result.success
                made |= materialized(result)
            steps.append(made)

    def tables(self) -> dict[str, pl.DataFrame]:
        """Everything computed that is stored, without when it was observed."""
        return {
            table.path: self.store.read(table).collect().drop("observed_at", strict=False)
            for table in all_tables([EnhancedMomentum()])
            if table.stage != "orders" and not table.vintaged and self.holds_rows(table)
        }

    def holds_rows(self, table: Table) -> bool:
        """Whether something of a table is stored; some are empty here, whatever happens."""
        there = self.store.partitions(table) if table.partition_column else self.store.exists(table)
        return bool(there) and table.path not in ("market_data/quarantine", SOURCE_DIFFERENCES.path)

    @contextmanager
    def without(self, key: str) -> Iterator[None]:
        """Take a session's raw bars away for a while: nothing can be judged without them."""
        folder = Path(str(self.store.root)) / RAW_BARS.path
        (folder / key).rename(folder / f"{key}.away")
        try:
            yield
        finally:
            (folder / f"{key}.away").rename(folder / key)

    def newest_ids(self) -> dict[tuple[str, str | None], int]:
        """Newest materialization of every partition of the graph."""
        graph = self.definitions.resolve_asset_graph()
        found: dict[tuple[str, str | None], int] = {}
        for key in graph.materializable_asset_keys:
            path = key.to_user_string()
            if graph.get(key).partitions_def is None:
                records = self.instance.fetch_materializations(key, limit=1).records
                if records:
                    found[path, None] = records[0].storage_id
                continue
            ids = self.instance.event_log_storage.get_latest_storage_id_by_partition(
                key, dg.DagsterEventType.ASSET_MATERIALIZATION
            )
            found.update({(path, partition): number for partition, number in ids.items()})
        return found


def materialized(result: dg.ExecuteInProcessResult) -> Made:
    return {
        (event.asset_key.to_user_string(), event.partition)
        for event in result.all_events
        if event.is_step_materialization and event.asset_key is not None
    }


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    folder = tmp_path_factory.mktemp("restatements")
    root = folder / "root"
    database = ensure_postgres(folder / "ledger").ledger_url
    migrate(database)
    ledger = Ledger(database)
    try:
        spec = MarketSpec(kind="history", folder=history(folder / "history"))
        url = ensure_exchange(folder / "exchange", spec).url
        control = ExchangeControl(url)
        control.advance(start_of_day(SESSIONS[COUNT]))
        source = AlpacaBars(url, url, "key", "secret", requests_per_minute=None, backoff=(0.01,))
        broker = AlpacaBroker(url, url, "key", "secret", requests_per_minute=None)
        settings = Settings(data_root=root, _env_file=None)  # pyright: ignore[reportCallIssue]
        definitions = build_defs(
            settings,
            SPAN,
            [EnhancedMomentum()],
            {"bar_source": source, "ledger": ledger, "broker": broker, "store": Store(root)},
        )
        with dg.DagsterInstance.ephemeral() as instance:
            made = Market(Store(root), control, definitions, instance)
            day = TradingDay(made.runner, SPAN, ())
            day.learn(SESSIONS[:COUNT])
            day.backtest()
            yield made
    finally:
        stop_exchange(folder / "exchange")
        ledger.dispose()
        stop_postgres(folder / "ledger")


def span(first: int, last: int) -> set[str]:
    return set(KEYS[max(first, 0) : min(last, COUNT - 1) + 1])


def labels_after(at: int, in_universe: set[str], horizon: int) -> set[str]:
    """Labels that name a member by the close, or read it up to their sale, as far as they are known."""
    return (in_universe | span(at - horizon, at)) & span(0, COUNT - 1 - horizon)


def expected_after(at: int) -> list[Made]:
    """What a restated close of one session makes stale, table by table, counted by hand."""
    in_universe = span(at, at + WINDOW_SESSIONS - 1)
    by_table: list[list[tuple[str, set[str]]]] = [
        [("market_data/bars", span(at, at)), ("market_data/quarantine", span(at, at))],
        [("market_data/coverage", span(at, at + LISTING_GAP_SESSIONS))],
        [("market_data/source_differences", span(at, at))],
        [("market_data/universe", in_universe)],
        *(
            [(f"features/{name}", in_universe | span(at, at + features.lookback))]
            for name, features in (
                ("alpha158", ALPHA158_FEATURES),
                ("anomaly", ANOMALY_FEATURES),
                ("technical", TECHNICAL_FEATURES),
            )
        ),
        *([(table.path, labels_after(at, in_universe, table.horizon))] for table in LABEL_TABLES),
    ]
    signals = by_table[6][0][1]
    last = max(KEYS.index(key) for key in signals)
    by_table += [
        [("signals/enhanced_momentum", signals)],
        [("performance/strategy_performance", span(at, last + WINDOW))],
    ]
    steps: list[Made] = [
        {(path, key) for path, keys in group for key in keys} for group in by_table
    ]
    return [*steps, {("performance/backtest_enhanced_momentum", None)}]


def test_one_restated_bar_runs_its_partitions_again_and_nothing_else(market: Market) -> None:
    at = 5
    before = market.store.read(BARS, KEYS[at : at + 1]).filter(symbol="S03").collect()
    untouched = market.newest_ids()
    assert market.tick() == ([], "No session has been restated or released since the last plan.")
    market.restate("S03", at, close=before.item(0, "close") * 1.001)
    steps = market.walk()
    assert {frozenset(step) for step in steps} == {frozenset(step) for step in expected_after(at)}
    again = set.union(*steps) | {
        ("market_data/raw_bars", KEYS[at]),
        ("market_data/corporate_actions", KEYS[at]),
    }
    renewed = market.newest_ids()
    assert {key for key, number in renewed.items() if untouched.get(key) != number} == again
    # Later tables were asked for only when the earlier ones were there.
    order = [sorted({path for path, _ in step})[0] for step in steps]
    assert order.index("market_data/bars") == 0
    assert order.index("market_data/universe") < order.index("features/technical")
    assert order.index("features/technical") < order.index("signals/enhanced_momentum")
    after = market.store.read(BARS, KEYS[at : at + 1]).filter(symbol="S03").collect()
    assert after.item(0, "close") == pytest.approx(before.item(0, "close") * 1.001)
    assert market.tick() == ([], "No session has been restated or released since the last plan.")


@pytest.mark.long
def test_what_was_made_again_is_what_making_everything_gives(market: Market) -> None:
    """Nothing that follows from the restated bar was left out."""
    market.restate("S05", 65, close=47.0, high=50.0)
    assert market.walk()
    made = market.tables()
    market.runner.run(jobs.INGEST, KEYS)
    for table in LABEL_TABLES:
        market.runner.run(jobs.job_of(table), KEYS[: -table.horizon])
    market.runner.run(jobs.SIGNAL, KEYS)
    market.runner.run(jobs.COMPARE, KEYS)
    market.runner.run(jobs.BACKTEST, [])
    for path, frame in market.tables().items():
        assert frame.height, path
        assert_frame_equal(frame, made[path], check_row_order=False)


def test_a_restated_value_that_no_table_uses_stops_at_the_gate(market: Market) -> None:
    """Raw bars keep the time of a bar; no later table reads it."""
    key = KEYS[30]
    frame = market.store.read(RAW_BARS, [key]).collect()
    later = frame.with_columns(
        bar_time=pl.col("bar_time") + pl.duration(minutes=1), observed_at=datetime.now(NEW_YORK)
    ).cast(pl.Schema(RAW_BARS.schema))
    assert market.store.write(RAW_BARS, later, [key]) == 1
    steps = market.walk()
    reading_raw = {path for step in steps for path, _ in step}
    assert reading_raw == {"market_data/coverage", "market_data/source_differences"}


def test_sensor_and_command_go_on_where_the_other_was_stopped(market: Market) -> None:
    market.restate("S07", 70, close=56.0, high=60.0)
    requests, _ = market.tick()
    assert {key.to_user_string() for key in requests[0].asset_selection or ()} == {
        BARS.path,
        QUARANTINE.path,
    }
    # The tick was lost before the run began: the same request again, under the same key.
    repeated, _ = market.tick()
    assert [request.run_key for request in repeated] == [request.run_key for request in requests]
    for request in repeated:
        assert market.execute(request).success
    second, _ = market.tick()
    for request in second:
        assert market.execute(request).success
    done = {tuple(step.tables) for step in plan_of(market).steps[:2]}
    stopped = Stopping(market, after=2)
    with pytest.raises(KeyboardInterrupt):
        rerun_affected(stopped, market.store)
    assert not done & {tuple(tables) for tables in stopped.asked}
    left = [step for step in plan_of(market).steps if not step.done]
    assert len(left) == len(plan_of(market).steps) - 4
    steps = market.walk()
    assert [sorted({path for path, _ in made}) for made in steps] == [step.tables for step in left]
    assert read_journal(market.store).current is None


def test_the_command_makes_the_same_partitions_as_the_sensor(market: Market) -> None:
    at = 62
    market.restate("S09", at, close=66.0, high=70.0)
    dry = pending(market.runner, market.store)
    assert dry is not None
    assert read_journal(market.store).current is None
    before = market.newest_ids()
    plan = rerun_affected(market.runner, market.store)
    assert plan is not None
    assert [step.tables for step in plan.steps] == [step.tables for step in dry.steps]
    after = market.newest_ids()
    made = {key for key, number in after.items() if before.get(key) != number}
    assert made == set.union(*expected_after(at))
    assert rerun_affected(market.runner, market.store) is None


def test_a_plan_that_fails_stands_still_and_a_new_restatement_takes_it_up(market: Market) -> None:
    market.restate("S02", 72, close=31.0, high=33.0)
    for _ in range(MAXIMUM_ATTEMPTS):
        requests, _ = market.tick()
        assert [request.partition_key for request in requests] == [KEYS[72]]
        with market.without(KEYS[0]):
            assert not market.execute(requests[0]).success
    for _ in range(2):
        requests, told = market.tick()
        assert requests == []
        assert f"failed {MAXIMUM_ATTEMPTS} times" in told
        assert "quant data refetch" in told
    market.restate("S02", 73, close=31.5, high=33.0)
    made = set.union(*market.walk())
    assert {(BARS.path, KEYS[72]), (BARS.path, KEYS[73])} <= made
    assert rerun_affected(market.runner, market.store) is None


def test_a_run_of_the_sensor_is_waited_for(market: Market) -> None:
    market.restate("S04", 74, close=41.0, high=44.0)
    requests, _ = market.tick()
    (request,) = requests
    run = market.instance.create_run_for_job(
        market.definitions.resolve_job_def(str(request.job_name)),
        tags={**request.tags, "dagster/partition": str(request.partition_key)},
        status=dg.DagsterRunStatus.STARTED,
    )
    market.restate("S06", 75, close=51.0, high=54.0)
    name = plan_of(market).name
    requests, told = market.tick()
    assert requests == []
    assert "is running" in told
    # A plan over both would ask for partitions that are being made.
    assert plan_of(market).name == name
    with pytest.raises(ConfigurationError, match=run.run_id):
        rerun_affected(market.runner, market.store)
    market.instance.report_run_canceled(run)
    with held_journal(market.store, seconds=0) as held:
        assert held
        assert market.tick() == ([], "A command works on the plan.")
    made = set.union(*market.walk())
    assert {(BARS.path, KEYS[74]), (BARS.path, KEYS[75])} <= made


def test_part_of_a_session_is_refused_and_nothing_is_stored(market: Market) -> None:
    at = 20
    stems = market.store.vintages(RAW_BARS, KEYS[at])
    stored = market.store.read(RAW_BARS, [KEYS[at]]).collect()
    for symbol in SYMBOLS[:5]:
        market.control.withdraw(symbol, SESSIONS[at])
    with pytest.raises(RunFailedError, match=rf"{KEYS[at]} came without 5 of the 12 symbols.*S00"):
        refetch_sessions(market.runner, market.store, [KEYS[at]])
    assert market.store.vintages(RAW_BARS, KEYS[at]) == stems
    changed = refetch_sessions(market.runner, market.store, [KEYS[at]], required=False)
    assert changed.is_empty()
    assert "came without 5 of the 12" in market.runner.tally.failed_steps[-1]
    for bar in stored.filter(pl.col("symbol").is_in(SYMBOLS[:5])).iter_rows(named=True):
        values = {name: bar[name] for name in ("open", "high", "low", "close", "volume")}
        market.control.add_bar(bar["symbol"], SESSIONS[at], **values)


def test_a_withdrawn_bar_leaves_the_tables(market: Market) -> None:
    at = 76
    market.control.withdraw("S11", SESSIONS[at])
    changed = refetch_sessions(market.runner, market.store, [KEYS[at]])
    assert changed.select("symbol", "kind").rows() == [("S11", "withdrawn")]
    assert market.walk()
    held = market.store.read(BARS, [KEYS[at]]).collect()["symbol"].to_list()
    assert held == SYMBOLS[:11]


def test_a_released_row_makes_its_session_again(market: Market) -> None:
    at = 77
    market.restate("S10", at, open=150.0, high=151.0, low=149.0, close=150.0)
    assert market.walk()
    (row,) = market.store.read(QUARANTINE, [KEYS[at]]).collect().to_dicts()
    assert row["symbol"] == "S10"
    release = {
        "symbol": "S10",
        "session": SESSIONS[at],
        "rule": row["rule"],
        "row_digest": row_digest(row),
        "reason": "The merger was announced that day.",
        "released_by": "a test",
        "released_at": datetime.now(NEW_YORK),
    }
    released = pl.DataFrame([release]).cast(pl.Schema(RELEASES.schema))
    market.store.write(RELEASES, released.select(list(RELEASES.schema)))
    plan = pending(market.runner, market.store)
    assert plan is not None
    assert plan.reason == f"Released: rows of {SESSIONS[at]}."
    made = set.union(*market.walk())
    assert (BARS.path, KEYS[at]) in made
    held = market.store.read(BARS, [KEYS[at]]).filter(symbol="S10").collect()
    assert held["close"].to_list() == [150.0]
    assert rerun_affected(market.runner, market.store) is None


@pytest.mark.parametrize("mornings_later", [0, 1])
def test_the_daily_refetch_asks_for_the_last_two_ingested_sessions(
    market: Market, mornings_later: int
) -> None:
    """The newest too, once it was ingested: a trading day was priced by a bar restated overnight."""
    day = SESSIONS[COUNT + mornings_later]
    requests = refetch_requests(market.store, market.instance, morning(day))
    assert isinstance(requests, list)
    keys: set[str] = set()
    for request in requests:
        first = request.tags.get("dagster/asset_partition_range_start", request.partition_key)
        last = request.tags.get("dagster/asset_partition_range_end", request.partition_key)
        keys |= {key for key in KEYS if str(first) <= key <= str(last)}
    assert set(KEYS[COUNT - 2 : COUNT]) <= keys
    assert KEYS[COUNT - 3] not in keys


def test_the_schedule_says_why_it_skips(market: Market, tmp_path: Path) -> None:
    schedule = market.definitions.get_repository_def().get_schedule_def("daily_refetch")
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        for day, told in (
            (date(2023, 7, 4), "2023-07-04 is no trading session."),
            (date(2023, 7, 5), "2023-07-05: no session has been fetched yet"),
        ):
            with dg.build_schedule_context(
                instance=instance,
                scheduled_execution_time=morning(day),
                resources={"store": Store(tmp_path / "root")},
            ) as context:
                found = schedule.evaluate_tick(context)
            assert not found.run_requests
            assert told in str(found.skip_message)


def morning(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 7, 15, tzinfo=NEW_YORK)


def test_a_damaged_journal_is_one_clear_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_journal(store, read_journal(store))
    assert read_journal(store).current is None
    (tmp_path / "restatement.json").write_text("{")
    with pytest.raises(ConfigurationError, match="is damaged.*delete it"):
        read_journal(store)


class Stopping(GraphRunner):
    """A runner that is interrupted after some runs."""

    def __init__(self, market: Market, after: int) -> None:
        super().__init__(market.definitions, market.instance, lambda _label, _done: None)
        self.asked: list[list[str]] = []
        self._after = after

    def run(
        self, job: str, keys: Any, optional: Any = (), selected: Any = None, config: Any = None
    ) -> None:
        """Run, or be interrupted."""
        if len(self.asked) == self._after:
            raise KeyboardInterrupt
        self.asked.append([key.to_user_string() for key in selected])
        super().run(job, keys, optional, selected, config)


def plan_of(market: Market) -> Any:
    plan = read_journal(market.store).current
    assert plan is not None
    return plan
