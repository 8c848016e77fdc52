"""The order_updates sensor: what it asks for over a day, and what a look of it does at a real exchange."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime

import dagster as dg
import pytest

from quant_assets.automation import jobs
from quant_assets.automation.evidence_requests import Asked, decide
from quant_assets.automation.sensors import sensors
from quant_assets.market_span import MarketSpan
from quant_assets.partitions import partitions_for
from quant_resources.broker import UnauthorizedError
from quant_resources.calendar import NEW_YORK
from quant_tests.exchange.test_faults import one
from quant_tests.orders.ground import FIRST, LAST, Ground

MONDAY, TUESDAY = date(2024, 3, 4), date(2024, 3, 5)
WEIGHTS = {"AAA": 0.2, "BBB": 0.2}
FILLS = "/v2/account/activities/FILL"


# What is asked for


@dataclass
class Walk:
    """Looks of the sensor through days; the cursor goes from one to the next as Dagster keeps it."""

    cursor: str | None = None
    asked: list[str] = field(default_factory=list)

    def look(self, at: str, *, changed: bool = False, running: bool = False) -> str:
        """One look at a New York time; the session is the one of the day."""
        now = datetime.fromisoformat(at).replace(tzinfo=NEW_YORK)
        decision = decide(
            Asked.read(self.cursor), now.date().isoformat(), now, changed=changed, running=running
        )
        self.cursor = decision.asked.model_dump_json()
        return decision.run_name or decision.reason


def test_a_day_of_looks() -> None:
    walk = Walk()
    assert walk.look("2024-03-04 09:31", changed=True) == "2024-03-04-preview-1"
    assert "nothing has changed" in walk.look("2024-03-04 09:32")
    # What changes while a preview is made is owed, and asked for once it has ended.
    assert "is being made" in walk.look("2024-03-04 09:33", changed=True, running=True)
    assert "is being made" in walk.look("2024-03-04 09:34", running=True)
    assert walk.look("2024-03-04 09:35") == "2024-03-04-preview-2"
    assert "nothing has changed" in walk.look("2024-03-04 15:59")
    # The closing auction reports: nothing is frozen before its fills are booked.
    assert "last fills" in walk.look("2024-03-04 16:00", changed=True)
    assert "last fills" in walk.look("2024-03-04 16:14")
    assert "is being made" in walk.look("2024-03-04 16:15", running=True)
    assert walk.look("2024-03-04 16:16") == "2024-03-04"
    for at in ("2024-03-04 16:17", "2024-03-04 23:59"):
        assert "settled already" in walk.look(at, changed=True)
    assert "nothing has changed" in walk.look("2024-03-05 09:30")
    assert walk.look("2024-03-05 09:31", changed=True) == "2024-03-05-preview-1"


def test_a_half_day_is_settled_after_its_own_close() -> None:
    walk = Walk()
    assert "last fills" in walk.look("2024-07-03 13:05")
    assert walk.look("2024-07-03 13:15") == "2024-07-03"


def test_a_sensor_that_was_off_all_day_settles_in_the_evening() -> None:
    assert Walk().look("2024-03-04 20:00") == "2024-03-04"


def test_a_cursor_of_an_older_version_is_a_settled_session() -> None:
    walk = Walk(cursor="2024-03-04")
    assert "settled already" in walk.look("2024-03-04 18:00", changed=True)
    assert walk.look("2024-03-05 10:00", changed=True) == "2024-03-05-preview-1"


# What a look does


class Ticks:
    """The sensor on a trading ground, ticked as the daemon ticks it."""

    def __init__(self, ground: Ground) -> None:
        span = MarketSpan(first_session=FIRST, last_session=LAST, first_trading_session=MONDAY)
        partitions = partitions_for(span)

        @dg.asset(name="evidence", partitions_def=partitions.trading_session)
        def evidence() -> None:
            """Stands for the assets of the settle job: whether they are right is tested elsewhere."""

        settle = dg.define_asset_job(jobs.SETTLE, [evidence])
        found = [s for s in sensors(partitions, [], [settle]) if s.name == "order_updates"]
        self._definitions = dg.Definitions(assets=[evidence], jobs=[settle], sensors=found)
        self._ground = ground
        self.instance = dg.DagsterInstance.ephemeral()
        self.cursor: str | None = None

    def tick(self) -> tuple[list[dg.RunRequest], str]:
        """One look: what it asks for, or why it skips."""
        repository = self._definitions.get_repository_def()
        resources = {
            "ledger": self._ground.ledger,
            "broker": self._ground.broker,
            "trading_policy": self._ground.policy,
        }
        with dg.SensorEvaluationContext(
            instance_ref=None,
            instance=self.instance,
            cursor=self.cursor,
            repository_def=repository,
            resources={
                key: dg.ResourceDefinition.hardcoded_resource(value)
                for key, value in resources.items()
            },
        ) as context:
            found = repository.get_sensor_def("order_updates").evaluate_tick(context)
        self.cursor = found.cursor
        return list(found.run_requests or ()), found.skip_message or ""

    def keys(self) -> list[str]:
        """One look: the keys of the runs that it asks for."""
        return [str(request.run_key) for request in self.tick()[0]]


@pytest.fixture
def ticks(ground: Ground) -> Ticks:
    return Ticks(ground)


def test_looks_of_a_trading_day(ground: Ground, ticks: Ticks) -> None:
    ground.trade(MONDAY, one=WEIGHTS)
    # Before the open the newest session is Friday's, before this book traded.
    assert "lies outside the market" in ticks.tick()[1]
    ground.at("2024-03-04 10:00")
    requests, _ = ticks.tick()
    assert [(r.run_key, r.partition_key) for r in requests] == [
        ("settle-2024-03-04-preview-1", "2024-03-04")
    ]
    requests, told = ticks.tick()
    assert requests == []
    assert "0 fills and 0 corrections booked" in told
    assert "nothing has changed" in told
    (execution, *_) = [e["execution_id"] for e in ground.exchange.audit() if e["event"] == "fill"]
    ground.exchange.bust(execution)
    assert ticks.keys() == ["settle-2024-03-04-preview-2"]
    ground.evening(MONDAY)
    assert ticks.keys() == ["settle-2024-03-04"]
    assert ticks.keys() == []


def test_a_preview_that_is_made_is_not_asked_for_beside_itself(
    ground: Ground, ticks: Ticks
) -> None:
    ground.trade(MONDAY, one=WEIGHTS)
    run = ticks.instance.create_run_for_job(
        dg.job(name=jobs.SETTLE)(lambda: None),
        tags={"dagster/partition": MONDAY.isoformat()},
        status=dg.DagsterRunStatus.STARTED,
    )
    ground.at("2024-03-04 10:00")
    requests, told = ticks.tick()
    assert requests == []
    assert "2 fills" in told
    assert "is being made" in told
    ticks.instance.delete_run(run.run_id)
    assert ticks.keys() == ["settle-2024-03-04-preview-1"]


def test_a_tick_beside_another_pass_skips_and_forgets_nothing(ground: Ground, ticks: Ticks) -> None:
    ground.trade(MONDAY, one=WEIGHTS)
    ground.at("2024-03-04 10:00")
    account = ground.broker.account().account_id
    with ground.ledger.exclusive(f"orders:{account}"):
        requests, told = ticks.tick()
    assert requests == []
    assert "Another process is trading" in told
    assert ticks.keys() == ["settle-2024-03-04-preview-1"]


def test_a_broker_that_refuses_the_keys_fails_the_tick(ground: Ground, ticks: Ticks) -> None:
    ground.exchange.inject(one({"kind": "status", "status": 401}, path="/v2/account"))
    with pytest.raises(UnauthorizedError):
        ticks.tick()
