"""Trading days from targets to evidence, against the real exchange and ledger."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from sqlalchemy import text

from quant_assets.orders.batches import TradingHaltedError
from quant_assets.orders.drift import UnconfirmedDriftError
from quant_assets.orders.evidence import session_evidence
from quant_assets.orders.policy import TradingPolicy
from quant_assets.orders.submission import finish_unfinished, trading_desk
from quant_assets.orders.trading_sessions import WrongSessionError
from quant_resources.errors import ConfigurationError
from quant_resources.ledger import account_book
from quant_resources.ledger.ledger import LedgerBusyError
from quant_tests.orders.ground import Ground

MONDAY, TUESDAY, WEDNESDAY = date(2024, 3, 4), date(2024, 3, 5), date(2024, 3, 6)
SPLIT_EVE, SPLIT_DAY, DIVIDEND_DAY = date(2024, 3, 11), date(2024, 3, 12), date(2024, 3, 13)
DAY_AFTER = date(2024, 3, 14)


def settle(ground: Ground, session: date) -> None:
    """Close the session with nothing unexplained."""
    ground.evening(session)
    evidence = session_evidence(ground.ledger, ground.broker, ground.policy, session)
    assert evidence.frozen
    assert evidence.drifts == 0


def test_a_day_trades_fills_books_and_reconciles(ground: Ground) -> None:
    """The whole path: signals to fills, positions equal to the broker's, nothing unexplained."""
    batch, report = ground.trade(MONDAY, momentum={"AAA": 0.2, "BBB": -0.2})
    assert report.sent == 2
    assert ground.states(batch) == {("AAA", 1): "accepted", ("BBB", 1): "accepted"}
    settle(ground, MONDAY)
    assert ground.states(batch) == {("AAA", 1): "filled", ("BBB", 1): "filled"}
    assert ground.held()["AAA"] == Decimal(2000)
    evidence = session_evidence(ground.ledger, ground.broker, ground.policy, MONDAY)
    assert {p.symbol: p.quantity for p in evidence.positions} == ground.held()
    account = ground.broker.account()
    assert evidence.account.equity == account.equity
    profit = sum(p.realised_pnl + p.unrealised_pnl for p in evidence.positions)
    assert abs(account.equity - 1_000_000 - profit) < Decimal("0.01")


def test_the_audit_trail_is_a_fact_of_the_database(ground: Ground) -> None:
    """SQL: every fill has an order, every order an intent, every intent a signal and a model version."""
    ground.trade(MONDAY, momentum={"AAA": 0.2}, ranker={"AAA": 0.1, "BBB": -0.2})
    settle(ground, MONDAY)
    with ground.ledger.begin() as session:
        rows = session.execute(
            text(
                """
                SELECT f.execution_id, i.symbol, s.strategy, s.signal_session, s.model_version
                FROM fills f
                LEFT JOIN orders o USING (broker_order_id)
                LEFT JOIN order_intents i ON i.client_order_id = o.client_order_id
                LEFT JOIN intent_signals s ON s.client_order_id = i.client_order_id
                """
            )
        ).all()
    assert sorted((row[1], row[2]) for row in rows) == [
        ("AAA", "momentum"),
        ("AAA", "ranker"),
        ("BBB", "ranker"),
    ]
    assert all(None not in row for row in rows)


def test_a_flip_sends_its_second_leg_when_the_first_has_filled(ground: Ground) -> None:
    """Long to short: the close goes out alone; the opening leg follows its fill, before the deadline."""
    ground.trade(MONDAY, momentum={"AAA": 0.2})
    settle(ground, MONDAY)
    ground.morning(TUESDAY)
    batch, report = ground.trade(TUESDAY, momentum={"AAA": -0.1})
    assert ground.states(batch) == {("AAA", 1): "accepted", ("AAA", 2): "waiting"}
    assert report.left == 1
    ground.at(f"{TUESDAY} 09:35")
    with trading_desk(ground.ledger, ground.broker, ground.policy) as desk:
        assert finish_unfinished(desk).sent == 1
    assert ground.states(batch) == {("AAA", 1): "filled", ("AAA", 2): "accepted"}
    assert len(ground.accepted()) == 3
    assert set(ground.accepted().values()) == {1}


def test_a_second_leg_expires_when_the_first_never_fills(ground: Ground) -> None:
    """Past the deadline nothing is opened late."""
    ground.trade(MONDAY, momentum={"AAA": 0.2})
    settle(ground, MONDAY)
    ground.morning(TUESDAY)
    batch, _ = ground.trade(TUESDAY, momentum={"AAA": -0.1})
    ground.at(f"{TUESDAY} 15:50")
    with trading_desk(ground.ledger, ground.broker, ground.policy) as desk:
        finish_unfinished(desk)
    assert ground.states(batch)[("AAA", 2)] == "expired_unsent"
    settle(ground, TUESDAY)


def test_splits_and_dividends_are_booked_over_a_holding(ground: Ground) -> None:
    """On the split day share counts are right, nothing is traded for it, reconciliation stays quiet."""
    ground.morning(SPLIT_EVE)
    ground.trade(SPLIT_EVE, momentum={"DDD": 0.2, "BBB": -0.2})
    settle(ground, SPLIT_EVE)
    before = ground.held()
    ground.morning(SPLIT_DAY)
    batch, report = ground.trade(SPLIT_DAY, momentum={"DDD": None, "BBB": None})
    assert report.sent == 0
    assert ground.intents(batch) == []
    settle(ground, SPLIT_DAY)
    assert ground.held()["DDD"] == before["DDD"] * 2
    ground.morning(DIVIDEND_DAY)
    batch, _ = ground.trade(DIVIDEND_DAY, momentum={"DDD": 0.2, "BBB": None})
    # The weight is the same as before the split: at most the drift of the price is traded.
    assert sum(row.quantity for row in ground.intents(batch)) < before["DDD"] / 10
    settle(ground, DIVIDEND_DAY)
    with ground.ledger.begin() as session:
        paid = session.execute(
            text("SELECT net_amount FROM activities WHERE activity_type = 'DIV'")
        ).all()
    assert paid == [(before["BBB"] * Decimal("0.5"),)]


def test_mergers_spin_offs_and_delistings_are_booked(ground: Ground) -> None:
    """Shares exchanged for cash, shares that appear, shares that end: nothing is left unexplained."""
    ground.morning(DIVIDEND_DAY)
    ground.trade(DIVIDEND_DAY, momentum={"CCC": 0.1, "EEE": 0.1, "ENDS": -0.1})
    settle(ground, DIVIDEND_DAY)
    before = ground.held()
    ground.morning(DAY_AFTER)
    batch, _ = ground.trade(DAY_AFTER, momentum={"CCC": None, "EEE": None, "ENDS": 0.0})
    settle(ground, DAY_AFTER)
    after = ground.held()
    assert "CCC" not in after
    assert after["AAA"] == before["EEE"] / 10
    assert "ENDS" not in after
    assert ground.intents(batch) == []
    with ground.ledger.begin() as session:
        kinds = session.execute(text("SELECT activity_type FROM activities ORDER BY 1")).all()
    assert {kind for (kind,) in kinds} == {"MA", "SPIN", "REORG"}


def test_a_split_of_the_day_does_not_double_a_position(ground: Ground) -> None:
    """The last price is from before the split, the target is of after it."""
    ground.morning(SPLIT_DAY)
    batch, _ = ground.trade(SPLIT_DAY, momentum={"DDD": 0.2})
    (row,) = ground.intents(batch)
    assert row.quantity == pytest.approx(2000, rel=0.02)
    settle(ground, SPLIT_DAY)


def test_a_failed_strategy_keeps_its_sleeve(ground: Ground) -> None:
    """The next day it delivers nothing: its holding stays, the other strategy trades."""
    ground.trade(MONDAY, momentum={"AAA": 0.2}, ranker={"BBB": 0.2})
    settle(ground, MONDAY)
    ground.morning(TUESDAY)
    batch, _ = ground.trade(TUESDAY, momentum=None, ranker={"BBB": 0.4})
    assert {row.symbol for row in ground.intents(batch)} == {"BBB"}
    settle(ground, TUESDAY)
    assert ground.held()["AAA"] == Decimal(1000)
    ground.morning(WEDNESDAY)
    # And the day after it trades from that sleeve again.
    batch, _ = ground.trade(WEDNESDAY, momentum={"CCC": 0.1}, ranker={"BBB": None})
    assert {(row.symbol, row.side) for row in ground.intents(batch)} == {
        ("AAA", "sell"),
        ("CCC", "buy"),
    }


def test_a_partial_fill_is_booked_and_the_rest_is_planned_again(ground: Ground) -> None:
    """A thin symbol fills by a share of its volume; the order expires; the next day nets what is held."""
    ground.limited(volume_share=1)
    batch, _ = ground.trade(MONDAY, momentum={"THIN": 0.02})
    settle(ground, MONDAY)
    assert ground.states(batch) == {("THIN", 1): "expired"}
    assert ground.held() == {"THIN": Decimal(100)}
    ground.morning(TUESDAY)
    batch, _ = ground.trade(TUESDAY, momentum={"THIN": 0.02})
    (row,) = ground.intents(batch)
    assert row.quantity == pytest.approx(560, abs=14)


def test_dry_run_sends_nothing(ground: Ground) -> None:
    """The default mode records every intent; the exchange's log stays empty."""
    ground.changed(mode="dry_run")
    assert TradingPolicy.model_validate({}).mode == "dry_run"
    batch, report = ground.trade(MONDAY, momentum={"AAA": 0.2, "BBB": -0.2})
    assert report.sent == report.left == 0
    assert set(ground.states(batch).values()) == {"dry_run"}
    assert ground.submissions() == []
    settle(ground, MONDAY)
    # A dry run holds nothing: the first real batch starts from nothing.
    ground.changed(mode="paper")
    ground.morning(TUESDAY)
    batch, _ = ground.trade(TUESDAY, momentum={"AAA": None, "BBB": -0.2})
    assert {row.symbol for row in ground.intents(batch)} == {"BBB"}


def _number(ground: Ground) -> str:
    return ground.broker.account().account_number


@pytest.mark.parametrize("account", [None, "", "somebody-else"])
def test_live_needs_the_second_switch(ground: Ground, account: str | None) -> None:
    """The mode alone does not trade live."""
    ground.changed(mode="live", live_account=account)
    with pytest.raises(ConfigurationError, match="QUANT_LIVE_ACCOUNT"):
        ground.trade(MONDAY, momentum={"AAA": 0.2})
    assert ground.submissions() == []


def test_live_with_both_switches_trades(ground: Ground) -> None:
    """With the account's number it does."""
    ground.changed(mode="live", live_account=_number(ground))
    _, report = ground.trade(MONDAY, momentum={"AAA": 0.2})
    assert report.sent == 1


def test_halted_plans_and_sends_nothing(ground: Ground) -> None:
    """The message names who halted, why, and the way back."""
    with ground.ledger.begin() as session:
        account_book.set_trading_status(session, "main", "HALTED", "lunch", "ada")
    with pytest.raises(TradingHaltedError, match=r"by ada: lunch.*quant resume"):
        ground.trade(MONDAY, momentum={"AAA": 0.2})
    assert ground.submissions() == []
    with ground.ledger.begin() as session:
        account_book.set_trading_status(session, "main", "ACTIVE", "back", "ada")
    _, report = ground.trade(MONDAY, momentum={"AAA": 0.2})
    assert report.sent == 1


def test_reducing_lets_only_reductions_through(ground: Ground) -> None:
    """Positions come down; nothing is opened."""
    ground.trade(MONDAY, momentum={"AAA": 0.2})
    settle(ground, MONDAY)
    with ground.ledger.begin() as session:
        account_book.set_trading_status(session, "main", "REDUCING", "risk off", "ada")
    ground.morning(TUESDAY)
    batch, _ = ground.trade(TUESDAY, momentum={"AAA": 0.1, "BBB": 0.1})
    assert ground.states(batch) == {("AAA", 1): "accepted", ("BBB", 1): "refused"}


def somebody_trades(ground: Ground) -> None:
    """An order that somebody else places at the broker, and that fills."""
    ground.broker._trading.post(
        "/orders",
        {"symbol": "EEE", "qty": "7", "side": "buy", "type": "market", "time_in_force": "day"},
    )
    ground.evening(TUESDAY)


def test_unexplained_drift_halts(ground: Ground) -> None:
    """What nothing at the broker explains is found before trading, and stops it."""
    ground.trade(MONDAY, momentum={"AAA": 0.1})
    settle(ground, MONDAY)
    with ground.ledger.begin() as session:
        session.execute(text("UPDATE positions SET quantity = quantity + 3 WHERE symbol = 'AAA'"))
    ground.morning(TUESDAY)
    before = len(ground.submissions())
    with pytest.raises(TradingHaltedError, match=r"differ.*position in AAA"):
        ground.trade(TUESDAY, momentum={"AAA": 0.3})
    assert len(ground.submissions()) == before
    assert (ground.status().state, ground.status().changed_by) == ("HALTED", "reconciliation")
    assert "unexplained" in ground.status().reason


def test_explained_drift_waits_for_confirmation_and_does_not_halt(ground: Ground) -> None:
    """A trade by hand explains itself: nothing new is planned until somebody has confirmed it."""
    ground.trade(MONDAY, momentum={"AAA": 0.1})
    settle(ground, MONDAY)
    ground.morning(TUESDAY)
    somebody_trades(ground)
    ground.morning(WEDNESDAY)
    before = len(ground.submissions())
    with pytest.raises(UnconfirmedDriftError, match="quant reconcile --confirm"):
        ground.trade(WEDNESDAY, momentum={"AAA": 0.3})
    assert len(ground.submissions()) == before
    assert ground.status().state == "ACTIVE"


def test_a_frozen_batch_is_finished_whatever_prices_have_become(ground: Ground) -> None:
    """A second trade of the session with other targets plans nothing new."""
    batch, _ = ground.trade(MONDAY, momentum={"AAA": 0.2})
    again, report = ground.trade(MONDAY, momentum={"BBB": 0.2})
    assert (again.batch_id, report.sent) == (batch.batch_id, 0)
    assert len(ground.submissions()) == 1


def test_replanning_nets_what_was_filled(ground: Ground) -> None:
    """After the open the first attempt has filled: the second one orders only the difference."""
    ground.trade(MONDAY, momentum={"AAA": 0.2})
    ground.at(f"{MONDAY} 09:45")
    batch, _ = ground.trade(MONDAY, replan=True, momentum={"AAA": 0.1})
    (row,) = ground.intents(batch)
    assert (batch.attempt, row.side) == (2, "sell")
    assert row.quantity == pytest.approx(1000, abs=30)


def test_another_session_is_refused(ground: Ground) -> None:
    """Neither yesterday nor tomorrow can be ordered for."""
    for session in (date(2024, 3, 1), TUESDAY):
        with pytest.raises(WrongSessionError, match="the session to trade is 2024-03-04"):
            ground.plan(session, momentum={"AAA": 0.2})


def test_a_second_process_leaves_with_a_clear_message(ground: Ground) -> None:
    """The account's lock is held by one."""
    with (
        trading_desk(ground.ledger, ground.broker, ground.policy),
        pytest.raises(LedgerBusyError, match="without having sent anything"),
        trading_desk(ground.ledger, ground.broker, ground.policy),
    ):
        pass


def test_purchases_wait_for_the_money_of_sales(ground: Ground) -> None:
    """A book that has used its buying power sells first; the purchase goes out once the money is there."""
    ground.limited(
        order_notional=2_000_000,
        position_notional=2_000_000,
        name_weight=1,
        gross_exposure=3,
        net_exposure=3,
    )
    ground.trade(MONDAY, left={"AAA": 1.0}, right={"BBB": 1.0}, third={"DDD": 1.0})
    settle(ground, MONDAY)
    # Three thirds are held; borrow the rest of the buying power for a fourth name.
    ground.morning(TUESDAY)
    ground.changed(allocations={"fourth": "0.94"})
    batch, _ = ground.trade(TUESDAY, left=None, right=None, third=None, fourth={"CCC": 1.0})
    assert ground.states(batch) == {("CCC", 1): "accepted"}
    settle(ground, TUESDAY)
    ground.morning(WEDNESDAY)
    ground.changed(allocations={"fifth": "0.3"})
    batch, report = ground.trade(
        WEDNESDAY, left={"CCC": 0.0}, right=None, third=None, fourth=None, fifth={"EEE": 1.0}
    )
    assert ground.states(batch) == {("AAA", 1): "accepted", ("EEE", 1): "waiting"}
    assert report.left == 1
    ground.at(f"{WEDNESDAY} 09:35")
    with trading_desk(ground.ledger, ground.broker, ground.policy) as desk:
        assert finish_unfinished(desk).sent == 1
    assert ground.states(batch) == {("AAA", 1): "filled", ("EEE", 1): "accepted"}
