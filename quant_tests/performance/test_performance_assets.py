"""The stage in the graph: materialized on a real store and ledger, with its checks."""

from pathlib import Path
from typing import cast

import dagster as dg
import polars as pl
import pytest

from quant_assets import features, market_data, models, orders, signals
from quant_assets.partitions import DEFAULT
from quant_assets.performance.assets import account_of, performance_assets
from quant_assets.performance.checks import (
    adds_up_to_the_equity,
    equity_follows_from_returns,
    equity_is_positive,
    every_strategy_is_ranked_once,
    no_underperformers,
    performance_checks,
)
from quant_assets.performance.ledger_evidence import session_in_ledger
from quant_assets.performance.profit_and_loss import CASH, RESIDUAL, UNATTRIBUTED
from quant_assets.performance.schemas import (
    DAILY_PNL,
    REPORT,
    STRATEGY_PERFORMANCE,
    backtest_table,
    tables,
)
from quant_assets.signals.discovery import discover
from quant_assets.table_assets import TableIOManager
from quant_assets.table_checks import CheckScope, check_definitions
from quant_resources.broker import Broker
from quant_resources.errors import DataError, LedgerError

STRATEGIES = discover()
NAMES = tuple(strategy.name for strategy in STRATEGIES)


def materialize(book, names, keys=()):
    """Run assets of the stage, with their checks, on the book's data root."""
    upstream = [
        *market_data.TABLES,
        *features.TABLES,
        *models.TABLES,
        *signals.tables(STRATEGIES),
        *orders.TABLES,
    ]
    own = tables(STRATEGIES)
    wanted = [dg.AssetKey(["performance", name]) for name in names]
    checked = [table for table in own if table.name in names]
    rules = [rule for rule in performance_checks(STRATEGIES) if rule.table.name in names]
    job = dg.Definitions(
        assets=[
            *performance_assets(STRATEGIES),
            *(
                dg.AssetSpec(
                    table.path.split("/"), partitions_def=DEFAULT.of(table)
                ).with_io_manager_key("table_io")
                for table in upstream
            ),
        ],
        asset_checks=check_definitions(checked, rules, DEFAULT),
        resources={
            "store": book.store,
            "ledger": book.ledger,
            "broker": None,
            "table_io": TableIOManager(book.store, [*upstream, *own]),
        },
        jobs=[dg.define_asset_job("own", selection=dg.AssetSelection.assets(*wanted))],
        executor=dg.in_process_executor,
    ).resolve_job_def("own")
    tags = {}
    if len(keys) > 1:
        tags = {
            "dagster/asset_partition_range_start": keys[0],
            "dagster/asset_partition_range_end": keys[-1],
        }
    return job.execute_in_process(
        instance=dg.DagsterInstance.ephemeral(),
        partition_key=keys[0] if len(keys) == 1 else None,
        tags=tags,
    )


def failed(result):
    return [
        (check.asset_key.path[-1], check.check_name, check.description)
        for check in result.get_asset_check_evaluations()
        if not check.passed
    ]


@pytest.fixture(scope="module")
def settled(traded):
    """Both sessions settled, backtests made: the result of every run."""
    results = [
        materialize(traded, [f"backtest_{name}" for name in NAMES]),
        materialize(traded, ["daily_pnl", "report"], [str(traded.first)]),
        materialize(traded, ["daily_pnl", "report"], [str(traded.second)]),
    ]
    return traded, results


def rows(book, day):
    frame = book.store.read(DAILY_PNL, [str(day)]).collect()
    return {(row["strategy"], row["symbol"]): row for row in frame.iter_rows(named=True)}


def test_everything_materializes_and_passes(settled):
    _, results = settled
    for result in results:
        assert result.success
        assert failed(result) == []
        assert len(result.get_asset_check_evaluations()) >= 4


def test_first_session_is_measured_from_the_opening(settled):
    book, _ = settled
    own = rows(book, book.first)
    assert own["ml_ranker", "AAA"]["pnl"] == pytest.approx(10 * (101 - 100.5))
    assert own["enhanced_momentum", "BBB"]["pnl"] == pytest.approx(20 * (51 - 49.5))
    assert own[UNATTRIBUTED, RESIDUAL]["pnl"] == pytest.approx(0.0, abs=1e-6)


def test_second_session_has_dividend_fee_and_a_sale(settled):
    book, _ = settled
    own = rows(book, book.second)
    assert own["ml_ranker", "AAA"]["pnl"] == pytest.approx(10 * (102 - 101) + 2.5)
    assert own["ml_ranker", "AAA"]["dividends"] == pytest.approx(2.5)
    assert own["enhanced_momentum", "BBB"]["pnl"] == pytest.approx(15 * (53 - 51) + 5 * (52 - 51))
    assert own["enhanced_momentum", "BBB"]["realised_pnl"] == pytest.approx(12.5)
    assert own["enhanced_momentum", "BBB"]["notional_traded"] == pytest.approx(260.0)
    assert own[UNATTRIBUTED, CASH]["pnl"] == pytest.approx(-0.75)
    assert own[UNATTRIBUTED, RESIDUAL]["pnl"] == pytest.approx(0.0, abs=1e-6)


def test_report_and_tear_sheet_are_written(settled):
    book, results = settled
    report = dict(
        book.store.read(REPORT, [str(book.second)]).select("metric", "value").collect().iter_rows()
    )
    assert report["equity"] == pytest.approx(98266.75 + 1020 + 795)
    assert report["stopped_intents"] == 1
    folder = Path(str(book.store.root)) / "performance" / "report"
    page = (folder / f"{book.second}.html").read_text()
    assert (folder / "latest.html").read_text() == page
    assert "over the limit" in page
    assert f"{book.first}" in page
    metadata = results[-1].asset_materializations_for_node("performance__report")[0].metadata
    assert metadata["tear_sheet"].value == (folder / f"{book.second}.html").as_uri()
    assert "data:image/png;base64," in metadata["picture"].value


def test_strategies_are_compared_with_what_was_filled(settled):
    book, _ = settled
    keys = [str(book.signal_session), str(book.first), str(book.second)]
    result = materialize(book, ["strategy_performance"], keys)
    assert result.success
    table = book.store.read(STRATEGY_PERFORMANCE, keys).collect()
    assert table.height == 3 * len(NAMES)
    filled = table.filter(session=book.first, strategy="ml_ranker").item(0, "filled_notional")
    assert filled == pytest.approx(1005.0)
    assert table.filter(session=book.signal_session)["filled_notional"].null_count() == len(NAMES)
    assert table["sharpe_63"].null_count() == 0
    blocking = [name for _, name, _ in failed(result) if name != "no_underperformers"]
    assert blocking == []


def test_backtest_covers_the_history(settled):
    book, results = settled
    path = book.store.read(backtest_table("ml_ranker")).collect()
    assert path.height == 140
    metadata = (
        results[0].asset_materializations_for_node("performance__backtest_ml_ranker")[0].metadata
    )
    assert metadata["sharpe"].value == pytest.approx(
        path["net_return"].mean() / path["net_return"].std() * 252**0.5
    )
    assert "data:image/png;base64," in metadata["equity_curve"].value


def scope(book, *days):
    return CheckScope([str(day) for day in days], book.store, book.ledger, cast("Broker", None))


def test_check_finds_profit_that_the_account_does_not_have(settled):
    book, _ = settled
    frame = book.store.read(DAILY_PNL, [str(book.second)]).collect()
    assert adds_up_to_the_equity(frame, scope(book, book.second)).passed
    inflated = frame.with_columns(
        pl.when(symbol="AAA").then(pl.col("pnl") + 1).otherwise("pnl").alias("pnl")
    )
    finding = adds_up_to_the_equity(inflated, scope(book, book.second))
    assert not finding.passed
    assert str(book.second) in finding.message


def test_check_finds_a_residual_beyond_a_basis_point(settled):
    book, _ = settled
    frame = book.store.read(DAILY_PNL, [str(book.second)]).collect()
    moved = frame.with_columns(
        pl.when(symbol="AAA")
        .then(pl.col("pnl") - 50)
        .when(symbol=RESIDUAL)
        .then(pl.col("pnl") + 50)
        .otherwise("pnl")
        .alias("pnl")
    )
    finding = adds_up_to_the_equity(moved, scope(book, book.second))
    assert not finding.passed
    assert "50.00 USD are unexplained" in finding.message


def test_check_finds_a_report_of_another_account(settled):
    book, _ = settled
    frame = book.store.read(REPORT, [str(book.second)]).collect()
    assert equity_is_positive(frame, scope(book, book.second)).passed
    other = frame.with_columns(pl.col("value") * 2)
    assert not equity_is_positive(other, scope(book, book.second)).passed
    assert not equity_is_positive(frame.clear(), scope(book, book.second)).passed


def test_check_finds_a_missing_and_a_doubled_rank(settled):
    book, _ = settled
    frame = pl.DataFrame(
        {
            "session": [book.first] * 2,
            "strategy": list(NAMES),
            "rank": [1, 2],
            "sharpe_63": [1.0, None],
            "cumulative_return": [0.1, 0.0],
            "drawdown": [-0.01, -0.01],
        }
    )
    assert every_strategy_is_ranked_once(NAMES, frame, scope(book, book.first)).passed
    for broken in (frame.head(1), frame.with_columns(rank=pl.lit(1)), frame.clear()):
        assert not every_strategy_is_ranked_once(NAMES, broken, scope(book, book.first)).passed
    assert not every_strategy_is_ranked_once(
        NAMES, frame, scope(book, book.first, book.second)
    ).passed
    assert no_underperformers(frame, scope(book, book.first)).passed
    poor = no_underperformers(frame.with_columns(sharpe_63=pl.lit(-1.0)), scope(book, book.first))
    assert not poor.passed
    assert poor.count == 2


@pytest.mark.parametrize(
    "broken",
    [
        pl.col("equity") * 1.01,
        pl.lit(0.0).alias("equity"),
        pl.lit(float("nan")).alias("equity"),
        pl.lit(0.0).alias("drawdown"),
        pl.col("cost") + 0.01,
    ],
)
def test_check_finds_a_backtest_that_does_not_follow_from_its_returns(settled, broken):
    book, _ = settled
    frame = book.store.read(backtest_table("ml_ranker")).collect()
    assert equity_follows_from_returns(frame, scope(book)).passed
    assert not equity_follows_from_returns(frame.with_columns(broken), scope(book)).passed


def test_session_without_evidence_is_named(traded):
    empty = pl.LazyFrame(schema={"trading_session": pl.Date})
    with pytest.raises(DataError, match=f"orders/account of {traded.first} holds 0 rows"):
        account_of(empty, traded.first)


def test_unknown_account_is_named(traded):
    with pytest.raises(LedgerError, match="no account stranger before"):
        session_in_ledger(traded.ledger, "stranger", traded.first)
