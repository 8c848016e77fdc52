"""The submission protocol, sentence by sentence, against the real exchange and ledger."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from quant_assets.orders import batches, freezing, halting, submission
from quant_assets.orders.batch_rows import target_of
from quant_assets.orders.batches import clear_for_replan, trade_session
from quant_assets.orders.evidence import reconcile_with_broker
from quant_assets.orders.submission import STEPS, finish_unfinished
from quant_resources.database_url import DatabaseUnreachableError
from quant_resources.errors import BrokerError, ConfigurationError
from quant_resources.ledger import order_book
from quant_resources.ledger.order_tables import OrderBatch
from quant_tests.orders.ground import Ground

MONDAY, TUESDAY, WEDNESDAY = date(2024, 3, 4), date(2024, 3, 5), date(2024, 3, 6)
BRACKETS = {"brackets": True, "time_in_force": "gtc", "stop_loss": "0.10", "take_profit": "0.10"}
POSTS = {"method": "POST", "path": "/v2/orders"}


def frozen_only(ground: Ground, session: date, **strategies: Any) -> OrderBatch:
    """The batch as a process leaves it that ends right after it was frozen."""
    frame = ground.frame(ground.plan(session, **strategies), session)
    with ground.desk() as desk:
        finish_unfinished(desk)
        targets = [target_of(row) for row in frame.iter_rows(named=True)]
        freezing.freeze(desk, session, 1, targets, ground.volumes)
    with ground.ledger.begin() as session_:
        batch = order_book.newest_batch(session_, "main", session)
    assert batch is not None
    return batch


def agreed(ground: Ground, session: date) -> None:
    assert (
        reconcile_with_broker(ground.ledger, ground.broker, ground.policy, session, "after_trading")
        == []
    )


def events(ground: Ground, symbol: str) -> list[str]:
    """What became of a symbol's orders at the exchange, in its own words."""
    return [
        entry["event"]
        for entry in ground.exchange.audit()
        if entry["event"] in ("submit", "cancel", "fill")
        and symbol == entry.get("symbol", entry.get("request", {}).get("symbol"))
    ]


def test_every_step_is_a_sentence_of_the_protocol() -> None:
    told = {int(number) for number in re.findall(r"^(\d+)\. ", submission.__doc__ or "", re.M)}
    told |= {int(number) for number in re.findall(r"\((\d+)\.", submission.__doc__ or "")}
    assert {step.number for step in STEPS} <= told
    assert [step.number for step in STEPS] == sorted(step.number for step in STEPS)


def test_what_is_frozen_is_exactly_what_is_sent(ground: Ground) -> None:
    """Type, prices, time in force, protection and dollars: the broker has what the ledger says."""
    ground.changed(
        fractional=True,
        style={"order_type": "limit", "limit_offset_bps": 50, "time_in_force": "gtc"},
        styles={
            "guarded": BRACKETS | {"order_type": "market"},
            "by_dollars": {"sizing": "notional", "time_in_force": "day"},
        },
    )
    batch, report = ground.trade(
        MONDAY, plain={"AAA": 0.1}, guarded={"BBB": -0.1}, by_dollars={"CCC": 0.1}
    )
    assert report.sent == 3
    for row in ground.intents(batch):
        order = ground.broker.order_by_client_id(row.client_order_id)
        assert order is not None
        sent = (order.order_type, order.time_in_force, order.limit_price, order.notional)
        assert sent == (row.order_type, row.time_in_force, row.limit_price, row.notional)
    plain, guarded, dollars = (
        next(row for row in ground.intents(batch) if row.symbol == symbol)
        for symbol in ("AAA", "BBB", "CCC")
    )
    assert plain.limit_price == Decimal("100.50")
    assert dollars.notional is not None
    assert guarded.stop_loss_price == Decimal(55)
    legs = [o for o in ground.broker.open_orders() if o.symbol == "BBB" and o.protects]
    assert {leg.limit_price or leg.stop_price for leg in legs} == {Decimal(55), Decimal(45)}
    agreed(ground, MONDAY)


def held_with_protection(ground: Ground) -> None:
    """A thousand AAA with their two protective legs, on Tuesday morning."""
    ground.changed(style=BRACKETS)
    ground.trade(MONDAY, momentum={"AAA": 0.1})
    ground.evening(MONDAY)
    ground.finish()
    ground.morning(TUESDAY)
    ground.finish()
    with ground.ledger.begin() as session:
        legs = order_book.open_legs(session, ground.broker.account().account_id, ["AAA"])
    assert {leg.role for leg in legs} == {"take_profit", "stop_loss"}


def test_protection_is_cancelled_before_a_position_is_reduced(ground: Ground) -> None:
    """Otherwise the same shares could be sold twice: by the order and by a leg."""
    held_with_protection(ground)
    _, report = ground.trade(TUESDAY, momentum={"AAA": 0.05})
    assert report.sent == 1
    told = events(ground, "AAA")
    assert told.count("submit") == 2
    # Entry, its fill, then both legs end before the order that reduces leaves.
    assert told[-1] == "submit"
    assert told[-2] == "cancel"
    assert [order for order in ground.broker.open_orders() if order.protects] == []
    ground.evening(TUESDAY)
    ground.finish()
    assert ground.held()["AAA"] == pytest.approx(500, abs=10)
    agreed(ground, TUESDAY)


def test_protective_legs_are_not_netted(ground: Ground) -> None:
    """They would sell what is held: counted as open orders they would be bought back."""
    held_with_protection(ground)
    batch, _ = ground.trade(TUESDAY, momentum={"AAA": 0.2})
    (row,) = ground.intents(batch)
    assert (row.side, row.reduces) == ("buy", False)
    assert row.quantity == pytest.approx(1000, abs=30)


def test_halted_takes_nobodys_protection_away(ground: Ground) -> None:
    held_with_protection(ground)
    batch = frozen_only(ground, TUESDAY, momentum={"AAA": 0.05})
    halting.halt(ground.ledger, "main", "lunch", "ada")
    assert "HALTED" in ground.finish().stopped
    assert len(ground.broker.open_orders()) == 2
    assert ground.states(batch) == {("AAA", 1): "pending"}


def test_an_order_larger_than_what_is_left_to_reduce_is_refused(ground: Ground) -> None:
    """Somebody sold by hand after the batch was frozen: sent, it would open a short position."""
    ground.trade(MONDAY, momentum={"AAA": 0.1})
    ground.evening(MONDAY)
    ground.finish()
    ground.morning(TUESDAY)
    batch = frozen_only(ground, TUESDAY, momentum={"AAA": 0.05})
    ground.broker._trading.post(
        "/orders",
        {"symbol": "AAA", "qty": "600", "side": "sell", "type": "market", "time_in_force": "day"},
    )
    ground.at(f"{TUESDAY} 09:35")
    report = ground.finish()
    assert (report.sent, report.left) == (0, 0)
    (row,) = ground.intents(batch)
    assert (row.state, row.limit_name, row.limit_bound) == ("refused", "position_left", 400)
    assert "400 shares of AAA are left to sell" in row.reason


def test_an_outage_past_the_deadline_sends_nothing_late(ground: Ground) -> None:
    batch = frozen_only(ground, MONDAY, momentum={"AAA": 0.1, "BBB": -0.1})
    ground.at(f"{MONDAY} 15:50")
    report = ground.finish()
    assert (report.expired, report.left) == (2, 0)
    assert set(ground.states(batch).values()) == {"expired_unsent"}
    assert ground.submissions() == []


def test_a_clock_that_jumps_within_a_pass_ends_sending(ground: Ground) -> None:
    """The first answer tells the time: it is past the deadline of the others."""
    batch = frozen_only(ground, MONDAY, momentum=dict.fromkeys(("AAA", "BBB", "CCC"), 0.1))
    fault = {"kind": "clock_jump", "seconds": 8 * 3600}
    ground.exchange.inject({"rules": [{**POSTS, "nth": [1], "fault": fault}]})
    report = ground.finish()
    assert (report.sent, report.expired) == (1, 2)
    assert len(ground.accepted()) == 1
    assert sorted(ground.states(batch).values())[1:] == ["expired_unsent", "expired_unsent"]


def test_halted_expires_what_is_late_and_sends_nothing(ground: Ground) -> None:
    batch = frozen_only(ground, MONDAY, momentum={"AAA": 0.1})
    halting.halt(ground.ledger, "main", "lunch", "ada")
    assert "HALTED" in ground.finish().stopped
    assert ground.states(batch) == {("AAA", 1): "pending"}
    ground.at(f"{MONDAY} 15:50")
    assert ground.finish().expired == 1
    assert ground.submissions() == []


def test_reducing_keeps_what_opens_until_it_is_resumed(ground: Ground) -> None:
    """The state is read when an order is sent, not when it was frozen."""
    ground.trade(MONDAY, momentum={"AAA": 0.2})
    ground.evening(MONDAY)
    ground.finish()
    ground.morning(TUESDAY)
    batch = frozen_only(ground, TUESDAY, momentum={"AAA": 0.1, "BBB": 0.1})
    halting.halt(ground.ledger, "main", "risk off", "ada", reducing=True)
    report = ground.finish()
    assert (report.sent, report.left, report.stopped) == (1, 1, "")
    assert ground.states(batch) == {("AAA", 1): "accepted", ("BBB", 1): "pending"}
    with ground.desk() as desk:
        halting.resume(ground.ledger, "main", "back", "ada", lambda: desk)
    assert ground.finish().sent == 1


def test_a_batch_is_sent_in_its_own_mode_or_not_at_all(ground: Ground) -> None:
    batch = frozen_only(ground, MONDAY, momentum={"AAA": 0.1})
    ground.changed(mode="dry_run")
    assert ground.finish().left == 1
    assert ground.submissions() == []
    ground.changed(mode="live", live_account=ground.broker.account().account_number)
    assert ground.finish().left == 1
    assert ground.submissions() == []
    ground.changed(mode="paper")
    assert ground.finish().sent == 1
    assert ground.states(batch) == {("AAA", 1): "accepted"}


def test_a_broker_that_takes_no_orders_is_not_asked_five_hundred_times(ground: Ground) -> None:
    """Each try costs look-ups and waits: after the first order the pass ends, and the next goes on."""
    fault = {"kind": "status", "status": 500}
    ground.exchange.inject({"rules": [{**POSTS, "fault": fault}]})
    batch, report = ground.trade(MONDAY, momentum=dict.fromkeys(("AAA", "BBB", "CCC"), 0.1))
    assert "does not reach the broker" in report.stopped
    assert sorted(ground.states(batch).values()) == ["ambiguous", "pending", "pending"]
    ground.exchange.clear_faults()
    assert ground.finish().left == 0
    assert set(ground.accepted().values()) == {1}
    assert len(ground.accepted()) == 3


def test_a_lost_lock_stops_before_the_request_leaves(ground: Ground) -> None:
    """Without it another process may be sending the same batch."""
    frozen_only(ground, MONDAY, momentum={"AAA": 0.1})
    with ground.desk() as desk:
        _end_connection_of_the_lock(ground)
        with pytest.raises(DatabaseUnreachableError, match="lock .* was lost"):
            finish_unfinished(desk)
    assert ground.submissions() == []
    assert ground.finish().sent == 1


def _end_connection_of_the_lock(ground: Ground) -> None:
    engine = create_engine(ground.ledger.url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
                " WHERE locktype = 'advisory' AND datname = current_database()"
            )
        )
    engine.dispose()


def test_a_replan_cancels_first_then_nets_then_plans(ground: Ground) -> None:
    """Before the open nothing has filled: the first order ends, the second is the whole new target."""
    first, _ = ground.trade(MONDAY, momentum={"AAA": 0.2})
    batch, report = ground.trade(MONDAY, replan=True, momentum={"AAA": 0.1})
    assert (batch.attempt, report.sent) == (2, 1)
    assert ground.states(first) == {("AAA", 1): "canceled"}
    (row,) = ground.intents(batch)
    assert (row.side, row.quantity) == ("buy", 1000)
    assert events(ground, "AAA") == ["submit", "cancel", "submit"]
    ground.evening(MONDAY)
    ground.finish()
    assert ground.held() == {"AAA": 1000}
    agreed(ground, MONDAY)


def test_a_replan_nets_a_partial_fill_and_ends_the_rest(ground: Ground) -> None:
    """A part has filled at the open: it is kept, the rest is cancelled, the difference is ordered."""
    fault = {"kind": "partial_fill", "share": 0.25}
    ground.exchange.inject({"rules": [{**POSTS, "nth": [1], "fault": fault}]})
    first, _ = ground.trade(MONDAY, momentum={"AAA": 0.2})
    ground.at(f"{MONDAY} 09:45")
    assert ground.held() == {"AAA": 500}
    batch, _ = ground.trade(MONDAY, replan=True, momentum={"AAA": 0.1})
    assert ground.states(first) == {("AAA", 1): "canceled"}
    (row,) = ground.intents(batch)
    assert row.side == "buy"
    assert row.quantity == pytest.approx(490, abs=5)


def test_a_replan_withdraws_second_legs(ground: Ground) -> None:
    ground.trade(MONDAY, momentum={"AAA": 0.2})
    ground.evening(MONDAY)
    ground.finish()
    ground.morning(TUESDAY)
    first, _ = ground.trade(TUESDAY, momentum={"AAA": -0.1})
    batch, _ = ground.trade(TUESDAY, replan=True, momentum={"AAA": 0.1})
    assert ground.states(first) == {("AAA", 1): "canceled", ("AAA", 2): "withdrawn"}
    (row,) = ground.intents(batch)
    assert (row.side, row.reduces) == ("sell", True)


def test_a_replan_that_ended_half_way_is_told(ground: Ground) -> None:
    """Orders are gone and nothing took their place: a person decides with which targets to go on."""
    frozen_only(ground, MONDAY, momentum={"AAA": 0.2})
    halting.halt(ground.ledger, "main", "risk off", "ada", reducing=True)
    with ground.desk() as desk:
        clear_for_replan(desk, MONDAY)
    frame = ground.frame(ground.plan(MONDAY, momentum={"AAA": 0.2}), MONDAY)
    with ground.desk() as desk:
        _, report = trade_session(desk, MONDAY, frame, ground.volumes)
        assert "re-plan of 2024-03-04 ended half-way" in report.stopped
        halting.resume(ground.ledger, "main", "back", "ada", lambda: desk)
        batch, report = trade_session(desk, MONDAY, frame, ground.volumes, replan=True)
    assert (batch.attempt, report.sent, report.stopped) == (2, 1, "")


def test_a_replan_waits_for_what_is_not_known(ground: Ground) -> None:
    """An order that may be at the broker is neither cancelled nor planned around."""
    lost = {"kind": "reset", "after": True}
    hidden = {"kind": "stale_read"}
    ground.exchange.inject(
        {
            "rules": [
                {**POSTS, "nth": [1], "fault": lost},
                {"method": "GET", "path": "/v2/orders*", "fault": hidden},
            ]
        }
    )
    ground.trade(MONDAY, momentum={"AAA": 0.2})
    with pytest.raises(BrokerError, match="does not show it"):
        ground.trade(MONDAY, replan=True, momentum={"AAA": 0.1})
    ground.exchange.clear_faults()
    _, report = ground.trade(MONDAY, replan=True, momentum={"AAA": 0.1})
    assert report.sent == 1
    assert set(ground.accepted().values()) == {1}


def test_a_dry_run_replans_nothing_that_is_open_at_the_broker(ground: Ground) -> None:
    ground.trade(MONDAY, momentum={"AAA": 0.2})
    ground.changed(mode="dry_run")
    with pytest.raises(ConfigurationError, match="in mode dry_run nothing is cancelled"):
        ground.trade(MONDAY, replan=True, momentum={"AAA": 0.1})
    assert len(ground.broker.open_orders()) == 1
    assert batches.frozen_batch(ground.ledger, ground.policy, MONDAY) is not None
