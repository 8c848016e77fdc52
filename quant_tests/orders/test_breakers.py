"""Every automatic change of the trading state, each caused through the real exchange and ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text

from quant_assets.automation.failed_checks import failed_checks_sensor, halt_on_failed_checks
from quant_assets.orders import breakers, halting
from quant_assets.orders.batches import TradingHaltedError
from quant_resources.broker import Broker
from quant_resources.ledger.account_book import TradingStatus
from quant_resources.ledger.ledger import Ledger
from quant_tests.orders.ground import Ground

MONDAY, TUESDAY, WEDNESDAY = date(2024, 3, 4), date(2024, 3, 5), date(2024, 3, 6)
SYMBOLS = ("AAA", "BBB", "CCC", "DDD", "EEE")


def resume(ground: Ground) -> None:
    with ground.desk() as desk:
        halting.resume(ground.ledger, "main", "understood", "ada", lambda: desk)


def changed_by(ground: Ground) -> tuple[str, str]:
    status = ground.status()
    return status.state, status.changed_by


def loses_a_day(ground: Ground) -> None:
    """Half of the equity in a name that opens one per cent below the close: half a per cent is lost."""
    ground.limited(order_notional=1_000_000)
    ground.trade(MONDAY, momentum={"AAA": 0.45})
    ground.evening(MONDAY)
    ground.finish()
    assert ground.status().state == "ACTIVE"
    ground.at(f"{TUESDAY} 09:35")


@pytest.mark.parametrize("breaker", ["daily_loss", "drawdown"])
@pytest.mark.parametrize("state", ["HALTED", "REDUCING"])
def test_a_loss_beyond_its_bound_trips_once_a_session(
    ground: Ground, breaker: str, state: str
) -> None:
    """Whoever resumes may bring the book down; what opens is refused at the same bound."""
    ground.changed(breakers={f"{breaker}_state": state})
    loses_a_day(ground)
    ground.limited(**{breaker: "0.004"})
    ground.finish()
    assert changed_by(ground) == (state, f"breaker: {breaker}")
    assert f"{TUESDAY}: the {breaker.replace('_', ' ')} is 0.4" in ground.status().reason
    resume(ground)
    ground.finish()
    assert changed_by(ground) == ("ACTIVE", "ada")
    batch, _ = ground.trade(TUESDAY, momentum={"AAA": 0.2, "BBB": 0.1})
    assert ground.states(batch) == {("AAA", 1): "accepted", ("BBB", 1): "refused"}
    (refused,) = (row for row in ground.intents(batch) if row.symbol == "BBB")
    assert refused.limit_name == breaker


def test_a_loss_within_its_bound_trips_nothing(ground: Ground) -> None:
    loses_a_day(ground)
    ground.limited(daily_loss="0.005", drawdown="0.005")
    ground.finish()
    assert ground.status().state == "ACTIVE"


def test_the_breaker_of_losses_looks_before_anything_is_sent(ground: Ground) -> None:
    """A batch that was frozen before the loss is not sent after it."""
    loses_a_day(ground)
    ground.limited(daily_loss="0.004")
    before = len(ground.submissions())
    with pytest.raises(TradingHaltedError, match="breaker: daily_loss"):
        ground.trade(TUESDAY, momentum={"AAA": 0.45, "BBB": 0.1})
    assert len(ground.submissions()) == before


def refusing(ground: Ground) -> None:
    fault: dict[str, Any] = {
        "kind": "status",
        "status": 403,
        "message": "insufficient something",
    }
    ground.exchange.inject({"rules": [{"method": "POST", "path": "/v2/orders", "fault": fault}]})


def test_repeated_rejections_halt_within_the_batch(ground: Ground) -> None:
    """The third refusal stops the other two orders; after resuming, three more are needed."""
    ground.changed(breakers={"rejects": 3})
    refusing(ground)
    batch, report = ground.trade(MONDAY, momentum=dict.fromkeys(SYMBOLS, 0.1))
    assert changed_by(ground) == ("HALTED", "breaker: rejects")
    assert (report.rejected, report.left) == (3, 2)
    assert "HALTED by breaker: rejects" in report.stopped
    assert len(ground.submissions()) == 0
    resume(ground)
    report = ground.finish()
    assert (report.rejected, report.left) == (2, 0)
    assert changed_by(ground) == ("ACTIVE", "ada")
    assert set(ground.states(batch).values()) == {"rejected"}


def test_rejections_of_another_session_do_not_count(ground: Ground) -> None:
    ground.changed(breakers={"rejects": 3})
    refusing(ground)
    ground.trade(MONDAY, momentum=dict.fromkeys(SYMBOLS[:2], 0.1))
    ground.morning(TUESDAY)
    ground.trade(TUESDAY, momentum=dict.fromkeys(SYMBOLS[:2], 0.1))
    assert ground.status().state == "ACTIVE"


def test_orders_that_the_broker_rejects_after_taking_them_count(ground: Ground) -> None:
    ground.changed(breakers={"rejects": 2})
    fault = {"kind": "reject"}
    ground.exchange.inject({"rules": [{"method": "POST", "path": "/v2/orders", "fault": fault}]})
    ground.trade(MONDAY, momentum=dict.fromkeys(SYMBOLS[:3], 0.1))
    ground.finish()
    assert changed_by(ground) == ("HALTED", "breaker: rejects")


def test_a_stale_batch_sets_reducing(ground: Ground) -> None:
    """More than half refused as stale: what passed by chance is not opened either."""
    ground.at(f"{MONDAY} 10:00")
    targets = ground.frame(ground.plan(MONDAY, momentum=dict.fromkeys(SYMBOLS[:3], 0.1)), MONDAY)
    ground.at(f"{MONDAY} 10:31")
    batch, report = ground.send(MONDAY, targets)
    assert {row.limit_name for row in ground.intents(batch)} == {"stale_quote"}
    assert changed_by(ground) == ("REDUCING", "breaker: stale_data")
    assert "3 of 3 orders were refused for stale prices" in ground.status().reason
    assert report.sent == 0
    # A person decides that it was nothing: the same batch does not trip again.
    resume(ground)
    ground.finish()
    assert changed_by(ground) == ("ACTIVE", "ada")


def test_money_paid_out_is_no_loss(ground: Ground) -> None:
    """Ten per cent of a withdrawal, booked by the broker, moves no breaker."""
    ground.trade(MONDAY, momentum={"AAA": 0.1})
    ground.evening(MONDAY)
    ground.finish()
    account_id = ground.broker.account().account_id
    ground.morning(TUESDAY)
    ground.finish()
    with ground.ledger.begin() as session:
        session.execute(
            text(
                "INSERT INTO activities (activity_id, account_id, activity_type, activity_date, net_amount,"
                " realised_pnl, description, broker_message) VALUES ('w', :account, 'CSW', '2024-03-05',"
                " -100000, 0, 'withdrawal', '{}')"
            ),
            {"account": account_id},
        )
    account = ground.broker.account()
    without = replace(account, equity=account.equity - 100_000)
    with ground.ledger.begin() as session:
        lost = breakers.measure(session, without, TUESDAY)
    assert lost.daily is not None
    assert lost.drawdown is not None
    assert abs(lost.daily) < Decimal("0.002")
    assert abs(lost.drawdown) < Decimal("0.002")


def failing_job(name: str, asset: str, *, passed: bool, blocking: bool = True) -> dg.JobDefinition:
    """A job of one asset with one check, as the graph's are."""
    stage, table = asset.split("/")

    @dg.asset(
        key=[stage, table],
        partitions_def=dg.StaticPartitionsDefinition(["2024-03-01", "2024-03-04"]),
    )
    def made() -> int:
        return 1

    @dg.asset_check(asset=[stage, table], name="whole", blocking=blocking)
    def whole() -> dg.AssetCheckResult:
        severity = dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN
        return dg.AssetCheckResult(passed=passed, severity=severity, description="3 rows are odd")

    return dg.Definitions(
        assets=[made], asset_checks=[whole], jobs=[dg.define_asset_job(name)]
    ).resolve_job_def(name)


@pytest.mark.parametrize(
    ("job", "asset", "blocking", "halts"),
    [
        ("trade", "orders/order_intents", True, True),
        ("ingest", "market_data/bars", True, True),
        ("settle", "orders/account", True, True),
        # A warning is for people; a strategy that fails keeps its sleeve; a backtest moves no money.
        ("trade", "orders/order_intents", False, False),
        ("signal", "signals/momentum", True, False),
        ("backtest", "performance/backtest", True, False),
    ],
)
def test_failed_blocking_checks_halt(
    ground: Ground, job: str, asset: str, blocking: bool, halts: bool
) -> None:
    with dg.instance_for_test() as instance:
        done = failing_job(job, asset, passed=False, blocking=blocking).execute_in_process(
            instance=instance, partition_key="2024-03-04", raise_on_error=False
        )
        told = halt_on_failed_checks(instance, done.run_id, ground.ledger, "main")
    status = ground.status()
    assert bool(told) == halts
    assert status.state == ("HALTED" if halts else "ACTIVE")
    if halts:
        assert status.changed_by == "failed checks"
        assert f"2024-03-04: blocking check {asset}:whole failed" in status.reason
        assert "3 rows are odd" in status.reason


def looked_at_by_the_sensor(ground: Ground, partition: str, *, passed: bool) -> TradingStatus:
    """Run the job, and let the sensor look at the failed run as the daemon would."""
    job = failing_job("ingest", "market_data/bars", passed=passed)
    sensor = failed_checks_sensor()
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
    with dg.instance_for_test() as instance:
        done = job.execute_in_process(
            instance=instance, partition_key=partition, raise_on_error=False
        )
        assert done.success == passed
        if not passed:
            (failure,) = (event for event in done.all_events if event.is_run_failure)
            context = dg.build_run_status_sensor_context(
                sensor_name="failed_checks",
                dagster_event=failure,
                dagster_instance=instance,
                dagster_run=done.dagster_run,
                resources={
                    "ledger": resource(ground.ledger),
                    "broker": resource(ground.broker),
                    "trading_policy": resource(ground.policy),
                },
            )
            sensor(context)
    return ground.status()


def resource(thing: Ledger | Broker | Any) -> dg.ResourceDefinition:
    return dg.ResourceDefinition.hardcoded_resource(thing)


def test_the_sensor_looks_at_runs_of_the_trading_day_alone(ground: Ground) -> None:
    """On Monday morning the bars of Friday matter; those of a backfill do not."""
    assert looked_at_by_the_sensor(ground, "2024-03-01", passed=True).state == "ACTIVE"
    assert looked_at_by_the_sensor(ground, "2024-03-01", passed=False).state == "HALTED"
    resume(ground)
    ground.morning(WEDNESDAY)
    assert looked_at_by_the_sensor(ground, "2024-03-01", passed=False).state == "ACTIVE"
