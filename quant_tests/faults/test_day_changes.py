"""What changes between a crash and the start after it: prices, equity, the session, the shares themselves."""

from __future__ import annotations

import signal
from datetime import date
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from quant_assets.orders.batches import frozen_batch
from quant_resources.ledger import order_book
from quant_resources.ledger.order_tables import OrderIntent
from quant_tests.faults import trader
from quant_tests.faults.crash_cells import Undisturbed, end_of_day, undisturbed
from quant_tests.faults.stage import TUESDAY, Stage
from quant_tests.faults.truth import truth_of
from quant_tests.orders.ground import Ground

#: A step between the freezing of two orders and the recording of the first: the sending is under way.
_SOMEWHERE = 60


@pytest.fixture(scope="module")
def morning(stage: Stage) -> Undisturbed:
    """The morning without any trouble."""
    return undisturbed(stage, "morning")


def step_of(known: Undisturbed, written: str) -> int:
    """The first step at which this is written."""
    return next(step.number for step in known.steps if written in step.name)


def intents_of(ground: Ground) -> list[OrderIntent]:
    batch = frozen_batch(ground.ledger, ground.policy, TUESDAY)
    assert batch is not None
    return ground.intents(batch)


def test_other_prices_and_equity_after_a_crash_change_nothing_that_was_frozen(
    stage: Stage, morning: Undisturbed
) -> None:
    """The frozen batch is finished with other targets in hand; no second one appears."""
    first_order = step_of(morning, "POST")
    with stage.at("morning") as ground:
        work = stage.work("morning", ground)
        assert trader.run(work, first_order) == -signal.SIGKILL
        frozen = {row.client_order_id: row.quantity for row in intents_of(ground)}
        # Half the equity, twice the prices: what would be planned now.
        other = pl.read_parquet(work.targets).with_columns(
            pl.col("target_quantity") / 4, pl.col("reference_price") * 2
        )
        targets = stage.folder / "other_targets.parquet"
        other.write_parquet(targets)
        assert trader.run(stage.work("morning", ground, targets=targets)) == trader.DONE
        assert {row.client_order_id: row.quantity for row in intents_of(ground)} == frozen
        end_of_day(ground)
        truth = truth_of(ground, TUESDAY, 1)
        assert truth.problems == ()
        assert truth.accepted == morning.truth.accepted


def test_a_market_that_opened_between_crash_and_start(stage: Stage, morning: Undisturbed) -> None:
    """What was sent has filled meanwhile, what was not is sent now; each once."""
    first_order = step_of(morning, "POST")
    with stage.at("morning") as ground:
        work = stage.work("morning", ground)
        assert trader.run(work, first_order) == -signal.SIGKILL
        ground.at(f"{TUESDAY} 10:30")
        assert trader.run(work) == trader.DONE
        end_of_day(ground)
        truth = truth_of(ground, TUESDAY, 1)
        assert truth.problems == ()
        assert set(truth.accepted.values()) == {1}


def test_a_crash_and_a_start_past_the_deadline(stage: Stage, morning: Undisturbed) -> None:
    """One order left before the crash; nothing of the rest is sent late."""
    first_order = step_of(morning, "POST")
    with stage.at("morning") as ground:
        work = stage.work("morning", ground)
        assert trader.run(work, first_order) == -signal.SIGKILL
        ground.at(f"{TUESDAY} 15:46")
        assert trader.run(work) == trader.DONE
        end_of_day(ground)
        truth = truth_of(ground, TUESDAY, 1)
        assert truth.problems == ()
        assert sum(truth.accepted.values()) == 1
        others = [state for name, state in truth.states.items() if name not in truth.accepted]
        assert set(others) == {"expired_unsent"}


def test_a_replan_nets_what_filled_and_cancels_first(stage: Stage) -> None:
    """What is held at the end is what the re-plan wanted, whatever the first attempt had got."""
    with stage.at("replan") as ground:
        before = [e for e in ground.exchange.audit() if e["event"] == "cancel"]
        work = stage.work("replan", ground)
        assert trader.run(work) == trader.DONE
        audit = ground.exchange.audit()
        cancelled = [e["sequence"] for e in audit if e["event"] == "cancel"][len(before) :]
        second = {row.client_order_id for row in intents_of(ground)}
        sent = [
            e["sequence"]
            for e in audit
            if e["event"] == "submit" and e["client_order_id"] in second
        ]
        assert cancelled
        assert max(cancelled) < min(sent)
        end_of_day(ground)
        assert truth_of(ground, TUESDAY, 2).problems == ()
        wanted = {
            symbol: sum(Decimal(str(quantity)) for quantity in quantities)
            for symbol, quantities in pl.read_parquet(work.targets)
            .group_by("symbol")
            .agg("target_quantity")
            .iter_rows()
        }
        held = ground.held()
        for symbol in ("AAA", "BBB", "CCC", "EEE"):
            assert held.get(symbol, Decimal(0)) == wanted[symbol], symbol
        with ground.ledger.begin() as session:
            account = ground.broker.account().account_id
            assert order_book.unfinished_intents(session, account) == []


def test_a_split_on_the_trading_day_with_a_crash_in_the_morning(
    ground: Ground, tmp_path: Path
) -> None:
    """DDD splits two for one overnight: shares are counted after it, and reconciliation stays quiet."""
    before, ex_date = date(2024, 3, 11), date(2024, 3, 12)
    ground.morning(before)
    ground.trade(before, alpha={"AAA": 0.1, "DDD": 0.2})
    ground.evening(before)
    assert ground.finish().stopped == ""
    held = ground.held()["DDD"]
    ground.morning(ex_date)
    targets = tmp_path / "targets.parquet"
    plan = ground.plan(ex_date, alpha={"AAA": 0.15, "DDD": 0.1})
    ground.frame(plan, ex_date).write_parquet(targets)
    work = trader.Work(
        ledger_url=ground.ledger.url.render_as_string(hide_password=False),
        exchange_url=ground.broker.trading_url,
        targets=targets,
        session=ex_date,
        policy=ground.policy,
        volumes=dict(ground.volumes),
        wait_seconds=10,
        trace=tmp_path / "trace",
        outcome=tmp_path / "last_words",
    )
    assert trader.run(work, _SOMEWHERE) == -signal.SIGKILL
    assert trader.run(work) == trader.DONE, work.outcome
    ground.evening(ex_date)
    for _ in range(3):
        ground.finish()
    truth = truth_of(ground, ex_date, 1)
    assert truth.problems == ()
    assert set(truth.accepted.values()) == {1}
    # About half of what the split made of the holding, and not a quarter.
    assert Decimal("0.45") < ground.held()["DDD"] / (2 * held) < Decimal("0.55")
