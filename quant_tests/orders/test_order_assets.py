"""The six assets and their checks, materialized by Dagster against the real exchange and ledger."""

from __future__ import annotations

from datetime import date

import dagster as dg
import polars as pl
import pytest

from quant_assets.market_span import MarketSpan
from quant_assets.orders import CHECKS, TABLES, assets
from quant_assets.orders.schemas import ACCOUNT, FILLS, ORDER_INTENTS, ORDERS, POSITIONS
from quant_assets.partitions import Partitions, partitions_for
from quant_assets.table_assets import TableIOManager
from quant_assets.table_checks import check_definitions
from quant_resources.calendar import XNYS
from quant_tests.orders.ground import FIRST, LAST, Ground, signal_table, signals

MONDAY, TUESDAY = date(2024, 3, 4), date(2024, 3, 5)
PLANNED = ("orders/target_portfolio", "orders/order_intents")
SETTLED = ("orders/orders", "orders/fills", "orders/positions", "orders/account")
STRATEGIES = ("alpha", "beta")


@pytest.fixture
def partitions() -> Partitions:
    """The partitions of the ground's market."""
    return partitions_for(
        MarketSpan(first_session=FIRST, last_session=LAST, first_trading_session=MONDAY)
    )


@pytest.fixture
def run(ground: Ground, partitions: Partitions):
    """Materialize assets by key for one trading session."""
    placed = [
        partitions.place(asset) for asset in assets([signal_table(name) for name in STRATEGIES])
    ]
    tables = [*TABLES, *(signal_table(name) for name in STRATEGIES)]
    resources = {
        "table_io": TableIOManager(ground.store, tables),
        "store": ground.store,
        "ledger": ground.ledger,
        "broker": ground.broker,
        "trading_policy": ground.policy,
    }
    checks = check_definitions(TABLES, CHECKS, partitions)

    def materialize(
        session: date, keys: tuple[str, ...], **config: bool
    ) -> dg.ExecuteInProcessResult:
        chosen = [a for a in placed if a.key.to_user_string() in keys]
        return dg.materialize(
            [
                *chosen,
                *(
                    c
                    for c in checks
                    if {k.asset_key.to_user_string() for k in c.check_keys} <= set(keys)
                ),
            ],
            partition_key=session.isoformat(),
            resources=resources,
            raise_on_error=False,
            instance=dg.DagsterInstance.ephemeral(),
            run_config={
                "ops": {
                    key.replace("/", "__"): {"config": config} for key in keys if key in PLANNED
                }
            }
            if config
            else None,
        )

    return materialize


def _store_signals(ground: Ground, session: date, **weights: dict[str, float | None]) -> None:
    before = XNYS.previous(session)
    ground.store_bars(before)
    for name, given in weights.items():
        ground.store.write(signal_table(name), signals(name, before, given), [before.isoformat()])


def _failed_checks(result: dg.ExecuteInProcessResult) -> list[str]:
    return [e.check_name for e in result.get_asset_check_evaluations() if not e.passed]


def test_a_trading_day_by_dagster(ground: Ground, run) -> None:
    """Both runs of a day succeed, every check passes, and the evidence is what the broker holds."""
    _store_signals(ground, MONDAY, alpha={"AAA": 0.3}, beta={"BBB": -0.3, "CCC": 0.2})
    planned = run(MONDAY, PLANNED)
    assert planned.success
    assert _failed_checks(planned) == []
    ground.evening(MONDAY)
    settled = run(MONDAY, SETTLED)
    assert settled.success
    assert _failed_checks(settled) == []
    key = [MONDAY.isoformat()]
    assert ground.store.read(ORDERS, key).collect().height == 3
    assert ground.store.read(FILLS, key).collect().height == 3
    positions = ground.store.read(POSITIONS, key).collect()
    assert dict(positions.select("symbol", "quantity").iter_rows()) == {
        symbol: float(quantity) for symbol, quantity in ground.held().items()
    }
    account = ground.store.read(ACCOUNT, key).collect().row(0, named=True)
    assert account["equity"] == pytest.approx(float(ground.broker.account().equity))
    assert len(settled.get_asset_check_evaluations()) >= 3 + len(SETTLED)


def test_a_failed_strategy_does_not_stop_the_others(ground: Ground, run) -> None:
    """Strategy beta has no partition: alpha trades, beta keeps its (empty) sleeve."""
    _store_signals(ground, MONDAY, alpha={"AAA": 0.3})
    result = run(MONDAY, PLANNED)
    assert result.success
    intents = ground.store.read(ORDER_INTENTS, [MONDAY.isoformat()]).collect()
    assert intents.get_column("symbol").to_list() == ["AAA"]


def test_stale_bars_stop_everything(ground: Ground, run) -> None:
    """Without the bars of the session before nothing is planned and nothing is sent."""
    result = run(MONDAY, PLANNED)
    assert not result.success
    failure = result.failure_data_for_node("orders__target_portfolio")
    assert failure is not None
    assert "bars of 2024-03-01" in str(failure.error)
    assert ground.submissions() == []


def test_stored_volumes_bound_the_orders(ground: Ground, run) -> None:
    """The average volume of the stored bars reaches the limit: THIN trades 1,000 shares a day."""
    _store_signals(ground, MONDAY, alpha={"AAA": 0.1, "THIN": 0.1}, beta={})
    assert run(MONDAY, PLANNED).success
    intents = ground.store.read(ORDER_INTENTS, [MONDAY.isoformat()]).collect()
    limits = dict(intents.select("symbol", "limit_name").iter_rows())
    assert limits == {"AAA": None, "THIN": "volume_share"}


@pytest.mark.parametrize("session", [TUESDAY, LAST])
def test_only_the_current_session_is_planned(ground: Ground, run, session: date) -> None:
    """On Monday morning no other session can be ordered for."""
    _store_signals(ground, session, alpha={"AAA": 0.3}, beta={})
    result = run(session, PLANNED)
    assert not result.success
    failure = result.failure_data_for_node("orders__target_portfolio")
    assert failure is not None
    assert "the session to trade is 2024-03-04" in str(failure.error)
    assert ground.submissions() == []


def test_a_second_materialization_sends_nothing_and_changes_nothing(ground: Ground, run) -> None:
    """Signals that change after the batch was frozen change neither the plan nor the orders."""
    _store_signals(ground, MONDAY, alpha={"AAA": 0.3}, beta={"BBB": 0.2})
    assert run(MONDAY, PLANNED).success
    key = [MONDAY.isoformat()]
    before = ground.store.read(ORDER_INTENTS, key).collect()
    _store_signals(ground, MONDAY, alpha={"CCC": 0.9}, beta={"EEE": 0.9})
    assert run(MONDAY, PLANNED).success
    after = ground.store.read(ORDER_INTENTS, key).collect()
    assert after.equals(before)
    assert len(ground.submissions()) == 2


def test_replanning_is_a_new_attempt(ground: Ground, run) -> None:
    """A deliberate re-plan cancels what is open and orders anew, under new ids."""
    _store_signals(ground, MONDAY, alpha={"AAA": 0.3}, beta={})
    assert run(MONDAY, PLANNED).success
    _store_signals(ground, MONDAY, alpha={"AAA": 0.1}, beta={})
    result = run(MONDAY, PLANNED, replan=True)
    assert result.success
    intents = ground.store.read(ORDER_INTENTS, [MONDAY.isoformat()]).collect()
    assert intents.select("attempt", "symbol", "quantity").rows() == [(2, "AAA", 500.0)]
    ground.evening(MONDAY)
    assert run(MONDAY, SETTLED).success
    assert {s: float(q) for s, q in ground.held().items()} == {"AAA": 500.0}


def test_evidence_of_a_past_session_is_read_again_or_refused(ground: Ground, run) -> None:
    """Frozen evidence stays as it is; what was never frozen cannot be asked for any more."""
    _store_signals(ground, MONDAY, alpha={"AAA": 0.3}, beta={})
    assert run(MONDAY, PLANNED).success
    ground.evening(MONDAY)
    assert run(MONDAY, SETTLED).success
    key = [MONDAY.isoformat()]
    before = {
        t.name: ground.store.read(t, key).collect() for t in (ORDERS, FILLS, POSITIONS, ACCOUNT)
    }
    ground.evening(date(2024, 3, 6))
    assert run(MONDAY, SETTLED).success
    for table in (ORDERS, FILLS, POSITIONS, ACCOUNT):
        assert ground.store.read(table, key).collect().equals(before[table.name])
    result = run(TUESDAY, SETTLED)
    assert not result.success
    assert "was never frozen" in str(result.failure_data_for_node("orders__orders").error)


def test_metadata_shows_what_a_trader_looks_at(ground: Ground, run) -> None:
    """Largest targets, limits that cut, and pictures are attached."""
    _store_signals(ground, MONDAY, alpha={"AAA": 0.3, "THIN": 0.6}, beta={})
    result = run(MONDAY, PLANNED)
    intents = result.asset_materializations_for_node("orders__order_intents")[0]
    targets = result.asset_materializations_for_node("orders__target_portfolio")[0]
    assert "AAA" in str(targets.metadata["largest_targets"].value)
    assert "data:image/png" in str(targets.metadata["picture"].value)
    assert intents.metadata["refused_by_limits"].value == 1
    assert "order_notional" in str(intents.metadata["limits_that_cut"].value)
    frame = ground.store.read(ORDER_INTENTS, [MONDAY.isoformat()]).collect()
    refused = frame.filter(pl.col("state") == "refused").row(0, named=True)
    assert refused["limit_value"] == pytest.approx(300_000, rel=0.01)
    assert refused["limit_bound"] == 250_000
