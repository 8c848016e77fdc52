"""What explains a difference, what does not, and what happens then: real exchange, real ledger."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from sqlalchemy import select

from quant_assets.orders.batches import TradingHaltedError
from quant_assets.orders.booking import sync_with_broker
from quant_assets.orders.comparison import looked_at
from quant_assets.orders.confirmation import confirm
from quant_assets.orders.drift import (
    Drift,
    Explanation,
    UnconfirmedDriftError,
    explanations,
    unexplained,
)
from quant_assets.orders.evidence import reconcile_with_broker, session_evidence
from quant_resources.errors import LedgerError
from quant_resources.ledger import account_book
from quant_resources.ledger.order_tables import Activity, Adjustment, Position, Reconciliation
from quant_tests.exchange.served import Server
from quant_tests.orders.broker_truth import add_cash, by_hand, hold, post, state_of
from quant_tests.orders.ground import Ground
from quant_tests.orders.test_corrections import assert_settled, bought, holding, pnl

DAY, NEXT, THIRD = date(2024, 3, 4), date(2024, 3, 5), date(2024, 3, 6)


def found(ground: Ground) -> list[Drift]:
    return looked_at(ground.ledger, ground.broker, ground.policy)[0]


def confirmed(ground: Ground, key: str, reason: str = "I gave it myself") -> list[Drift]:
    return confirm(ground.ledger, ground.broker, ground.policy, key, reason, "ada")[1]


def only(drifts: list[Drift]) -> Explanation:
    assert unexplained(drifts) == []
    (one,) = explanations(drifts)
    return one


def adjustments(ground: Ground) -> list[Adjustment]:
    with ground.ledger.begin() as transaction:
        return list(transaction.scalars(select(Adjustment).order_by(Adjustment.adjustment_id)))


def test_a_trade_by_hand_is_explained_confirmed_and_then_trading_goes_on(ground: Ground) -> None:
    """Nothing is planned before, the trading state stays, and the adjustment says who and why."""
    bought(ground, AAA=0.2)
    session_evidence(ground.ledger, ground.broker, ground.policy, DAY)
    ground.morning(NEXT)
    cash = ground.broker.account().cash
    order = by_hand(ground, "BBB", "buy", 100)
    ground.at(f"{NEXT} 10:00")
    drifts = found(ground)
    explanation = only(drifts)
    assert {drift.kind for drift in drifts} == {"order", "fill", "position", "cash"}
    assert (explanation.kind, explanation.symbol) == ("manual_trade", "BBB")
    assert explanation.quantity == 100
    assert explanation.cash == ground.broker.account().cash - cash
    with pytest.raises(UnconfirmedDriftError, match=f"--confirm {explanation.key} --reason WHY"):
        ground.trade(NEXT, alpha={"AAA": 0.1})
    assert ground.status().state == "ACTIVE"
    with ground.ledger.begin() as transaction:
        last = transaction.scalars(
            select(Reconciliation).order_by(Reconciliation.reconciliation_id.desc())
        ).first()
    assert last is not None
    assert not last.passed
    assert {one["key"] for one in last.findings["drifts"]} == {explanation.key}

    assert confirmed(ground, explanation.key) == []
    (row,) = adjustments(ground)
    assert (row.kind, row.symbol, row.quantity) == ("manual_trade", "BBB", 100)
    assert (row.confirmed_by, row.reason) == ("ada", "I gave it myself")
    assert row.trading_session == NEXT
    assert row.explanation["orders"] == [order.broker_order_id]
    assert holding(ground, "BBB").quantity == 100
    batch, _ = ground.trade(NEXT, alpha={"AAA": 0.1})
    ground.evening(NEXT)
    ground.finish()
    assert set(ground.states(batch).values()) == {"filled"}
    day = pnl(ground, NEXT)
    assert day["RESIDUAL"] == pytest.approx(0.0, abs=0.01)
    assert ground.status().state == "ACTIVE"
    with ground.ledger.begin() as transaction:
        assert transaction.get(Position, (row.account_id, "BBB")).quantity == 100  # pyright: ignore[reportOptionalMemberAccess]


def test_a_finding_is_confirmed_once_and_only_as_it_was_seen(ground: Ground) -> None:
    """By its key, with a reason; what has traded since has another key."""
    bought(ground, AAA=0.2)
    ground.morning(NEXT)
    by_hand(ground, "BBB", "buy", 10)
    ground.at(f"{NEXT} 10:00")
    key = only(found(ground)).key
    with pytest.raises(LedgerError, match="needs a reason"):
        confirmed(ground, key, " ")
    with pytest.raises(LedgerError, match=f"waits to be confirmed: {key}"):
        confirmed(ground, "nonsense")
    assert adjustments(ground) == []
    assert confirmed(ground, key) == []
    with pytest.raises(LedgerError, match=f"{key} was confirmed by ada"):
        confirmed(ground, key)
    ground.morning(THIRD)
    by_hand(ground, "BBB", "sell", 10, "by-hand-2")
    ground.at(f"{THIRD} 10:00")
    second = only(found(ground)).key
    assert second != key
    assert confirmed(ground, second) == []
    first, last = adjustments(ground)
    assert last.realised_pnl == holding(ground, "BBB").realised_pnl == last.cash + first.cash
    assert holding(ground, "BBB").quantity == 0


def test_a_trade_by_hand_that_is_busted_later_is_explained_again(ground: Ground) -> None:
    """The bust of what was confirmed is a finding of its own, and leaves nothing behind."""
    bought(ground, AAA=0.2)
    ground.morning(NEXT)
    by_hand(ground, "AAA", "buy", 50)
    ground.at(f"{NEXT} 10:00")
    before = holding(ground, "AAA")
    assert confirmed(ground, only(found(ground)).key) == []
    assert holding(ground, "AAA") != before
    (fill,) = [one for one in ground.broker.executions(NEXT) if one.symbol == "AAA"]
    ground.exchange.bust(fill.execution_id)
    again = only(found(ground))
    assert again.quantity == -50
    assert confirmed(ground, again.key, "the exchange busted it") == []
    assert holding(ground, "AAA") == before


def test_an_order_by_hand_that_has_filled_nothing_is_explained(ground: Ground) -> None:
    """It moves nothing; when it fills after it was confirmed, that is a finding of its own."""
    bought(ground, AAA=0.2)
    ground.morning(NEXT)
    by_hand(ground, "BBB", "buy", 10)
    empty = only(found(ground))
    assert (empty.quantity, empty.cash) == (0, 0)
    assert confirmed(ground, empty.key) == []
    ground.at(f"{NEXT} 10:00")
    filled = only(found(ground))
    assert filled.quantity == 10
    assert confirmed(ground, filled.key) == []


@pytest.mark.parametrize(
    ("what", "kind"), [("cash", "cash"), ("position", "position"), ("fill", "fill")]
)
def test_what_nothing_explains_halts(
    ground: Ground, exchange: Server, what: str, kind: str
) -> None:
    """Cash that went, a position never seen before, a fill of an order that nobody knows."""
    fill = bought(ground, AAA=0.2)["AAA"]
    if what == "cash":
        add_cash(ground, "-1000")
    elif what == "position":
        hold(ground, exchange, "EEE", "7", "70")
    else:
        post(ground, "FILL", fill.execution_id, order_id="no-order-of-anybody")
    ground.morning(NEXT)
    with pytest.raises(TradingHaltedError, match="differ in 1 point"):
        ground.trade(NEXT, alpha={"AAA": 0.1})
    assert ground.status().state == "HALTED"
    assert ground.status().changed_by == "reconciliation"
    (drift,) = unexplained(found(ground))
    assert drift.kind == kind
    assert explanations(found(ground)) == []


def test_a_trade_by_hand_does_not_explain_other_cash(ground: Ground) -> None:
    """The position is explained, the cash is not: it halts, and what is explained can be confirmed."""
    bought(ground, AAA=0.2)
    ground.morning(NEXT)
    by_hand(ground, "BBB", "buy", 10)
    ground.at(f"{NEXT} 10:00")
    add_cash(ground, "-500")
    drifts = reconcile_with_broker(
        ground.ledger, ground.broker, ground.policy, NEXT, "before_trading"
    )
    assert [drift.kind for drift in unexplained(drifts)] == ["cash"]
    assert ground.status().state == "HALTED"
    (one,) = explanations(drifts)
    assert [drift.kind for drift in confirmed(ground, one.key)] == ["cash"]
    assert ground.status().state == "HALTED"


def test_a_split_that_the_broker_has_not_posted_is_explained_and_counted_once(
    ground: Ground,
) -> None:
    """DDD is split 2 for 1 on 12 March; its activity comes after somebody has confirmed it."""
    split_day, before = date(2024, 3, 12), date(2024, 3, 11)
    bought(ground, before, DDD=0.2)
    session_evidence(ground.ledger, ground.broker, ground.policy, before)
    held = holding(ground, "DDD")
    ground.morning(split_day)
    activity = _without_activity(ground, "SPLIT")
    explanation = only(found(ground))
    assert (explanation.kind, explanation.quantity) == ("split", held.quantity)
    assert confirmed(ground, explanation.key, "announced") == []
    assert holding(ground, "DDD").quantity == 2 * held.quantity
    assert holding(ground, "DDD").average_price == held.average_price / 2
    _with_activity(ground, activity)
    assert sync_with_broker(ground.ledger, ground.broker).activities == 1
    assert holding(ground, "DDD").quantity == 2 * held.quantity
    assert_told(ground, "SPLIT", explanation.key)
    ground.trade(split_day, alpha={"DDD": 0.1})
    ground.evening(split_day)
    assert pnl(ground, split_day)["RESIDUAL"] == pytest.approx(0.0, abs=0.01)


def test_a_dividend_that_the_broker_has_not_posted_is_explained(ground: Ground) -> None:
    """BBB pays 0.50 on 13 March; cash is as announced, and the late activity changes nothing."""
    ex_date, before = date(2024, 3, 13), date(2024, 3, 12)
    bought(ground, before, BBB=0.1)
    session_evidence(ground.ledger, ground.broker, ground.policy, before)
    held = holding(ground, "BBB").quantity
    ground.at(f"{ex_date} 10:00")
    activity = _without_activity(ground, "DIV")
    explanation = only(found(ground))
    assert (explanation.kind, explanation.symbol) == ("dividend", "BBB")
    assert explanation.cash == held * Decimal("0.5")
    assert confirmed(ground, explanation.key, "announced") == []
    _with_activity(ground, activity)
    assert sync_with_broker(ground.ledger, ground.broker).activities == 1
    assert found(ground) == []
    assert_told(ground, "DIV", explanation.key)
    ground.evening(ex_date)
    day = pnl(ground, ex_date)
    assert day["RESIDUAL"] == pytest.approx(0.0, abs=0.01)


def test_a_split_on_the_trading_day_is_booked_before_its_fills(ground: Ground) -> None:
    """Morning, split, more bought: shares and average price are the broker's, and nothing halts."""
    split_day, before = date(2024, 3, 12), date(2024, 3, 11)
    bought(ground, before, DDD=0.1)
    bought(ground, split_day, DDD=0.05)
    with ground.ledger.begin() as transaction:
        account = ground.broker.account().account_id
        assert account_book.symbols_split_on(transaction, account, split_day) == {"DDD"}
    assert_settled(ground, split_day)


def assert_told(ground: Ground, kind: str, key: str) -> None:
    """The activity is in the ledger, names what was confirmed and moves nothing."""
    with ground.ledger.begin() as transaction:
        (row,) = transaction.scalars(select(Activity).where(Activity.activity_type == kind)).all()
    assert row.description.startswith(f"confirmed before as {key}:")
    assert (row.quantity, row.net_amount) == (None, 0)


def _without_activity(ground: Ground, kind: str) -> tuple[object, ...]:
    """Take back the only activity of a kind, as if the broker had not posted it yet."""
    with state_of(ground) as state:
        (row,) = state.execute(
            "SELECT activity_id, activity_type, day, at, document FROM activities "
            "WHERE activity_type = ?",
            (kind,),
        ).fetchall()
        trigger = state.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'activities_delete'"
        ).fetchone()
        state.execute("DROP TRIGGER activities_delete")
        state.execute("DELETE FROM activities WHERE activity_id = ?", (row[0],))
        state.execute(trigger[0])
    return row


def _with_activity(ground: Ground, row: tuple[object, ...]) -> None:
    with state_of(ground) as state:
        state.execute(
            "INSERT INTO activities (activity_id, activity_type, day, at, document) "
            "VALUES (?, ?, ?, ?, ?)",
            row,
        )
