"""Corrections and confirmed adjustments are booked once, count into the cash, and are history."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from quant_resources.errors import LedgerError
from quant_resources.ledger import account_book, order_book
from quant_resources.ledger.account_book import EquityPoint
from quant_resources.ledger.account_tables import (
    AccountSnapshot,
    Activity,
    Adjustment,
    FillCorrection,
)
from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.order_states import Actor
from quant_tests.ledger.frozen_orders import (
    ACCOUNT,
    SESSION,
    SUBMITTED,
    broker_order,
    fill,
    sending,
)

NEXT = SESSION + timedelta(days=1)


def correction(correction_id: str = "bust", **more: Any) -> FillCorrection:
    """The bust of the purchase of 10 AAA at 100 USD."""
    fields = {
        "correction_id": correction_id,
        "account_id": ACCOUNT,
        "execution_id": "execution",
        "kind": "bust",
        "trading_session": SESSION,
        "quantity": Decimal(0),
        "price": Decimal(100),
        "realised_pnl": Decimal(0),
        "cash": Decimal(1000),
        "corrected_at": SUBMITTED + timedelta(hours=1),
        "broker_message": {},
    }
    return FillCorrection(**fields | more)


def adjustment(key: str = "finding", **more: Any) -> Adjustment:
    """A fee of 5 USD that a person has confirmed."""
    fields = {
        "account_id": ACCOUNT,
        "book": "main",
        "trading_session": SESSION,
        "kind": "other",
        "symbol": None,
        "quantity": Decimal(0),
        "price": None,
        "cash": Decimal(-5),
        "realised_pnl": Decimal(0),
        "explanation": {"kind": "fee"},
        "reason": "seen on the statement",
        "confirmed_by": "ada",
        "key": key,
    }
    return Adjustment(**fields | more)


def activity(kind: str, amount: int, day: date = SESSION) -> Activity:
    return Activity(
        activity_id=f"{kind}-{day}",
        account_id=ACCOUNT,
        activity_type=kind,
        activity_date=day,
        net_amount=Decimal(amount),
        realised_pnl=Decimal(0),
        description=kind,
        broker_message={},
    )


def snapshot(moment: str, equity: int, day: date = SESSION) -> AccountSnapshot:
    return AccountSnapshot(
        account_id=ACCOUNT,
        trading_session=day,
        moment=moment,
        taken_at=SUBMITTED,
        equity=Decimal(equity),
        cash=Decimal(equity),
        buying_power=Decimal(equity),
        long_value=Decimal(0),
        short_value=Decimal(0),
        trading_state="ACTIVE",
        broker_message={},
    )


@pytest.fixture
def bought(ledger: Ledger) -> Ledger:
    """A ledger in which 10 AAA were bought for 1,000 of 10,000 USD."""
    sending(ledger)
    with ledger.begin() as session:
        session.add(snapshot("opening", 10_000))
        filled = broker_order(
            status="filled", filled_quantity=Decimal(10), average_fill_price=Decimal(100)
        )
        order_book.record_order(session, filled, Actor.SUBMISSION, "accepted")
        session.add(fill())
    return ledger


def cash(ledger: Ledger) -> Decimal | None:
    with ledger.begin() as session:
        return account_book.expected_cash(session, ACCOUNT)


def test_cash_is_everything_that_is_booked(bought: Ledger) -> None:
    assert cash(bought) == 9_000
    with bought.begin() as session:
        session.add(activity("DIV", 7))
        account_book.record_correction(
            session,
            correction(
                "better", kind="correct", quantity=Decimal(10), price=Decimal(99), cash=Decimal(10)
            ),
        )
        account_book.record_adjustment(session, adjustment())
    assert cash(bought) == 9_000 + 7 + 10 - 5
    with bought.begin() as session:
        account_book.record_correction(session, correction(cash=Decimal(990)))
    assert cash(bought) == 10_000 + 7 - 5


def test_a_correction_is_booked_once_and_only_of_a_booked_fill(bought: Ledger) -> None:
    with bought.begin() as session:
        assert account_book.record_correction(session, correction())
    with bought.begin() as session:
        assert not account_book.record_correction(session, correction())
        assert len(account_book.corrections_of(session, ACCOUNT)) == 1
        assert account_book.corrections_of(session, ACCOUNT, NEXT) == []
        assert account_book.corrections_of(session, "other") == []
    for wrong in ({"execution_id": "unknown"}, {"account_id": "other"}):
        with bought.begin() as session, pytest.raises(LedgerError, match="book the fill first"):
            account_book.record_correction(session, correction("second", **wrong))


def test_corrections_come_in_the_order_in_which_they_were_made(bought: Ledger) -> None:
    """The last one is the truth, whatever their ids."""
    with bought.begin() as session:
        better = {"kind": "correct", "quantity": Decimal(9), "price": Decimal(99)}
        late = SUBMITTED + timedelta(hours=2)
        account_book.record_correction(session, correction("a", corrected_at=late))
        account_book.record_correction(session, correction("b", **better))
    with bought.begin() as session:
        found = account_book.corrections_of(session, ACCOUNT, SESSION)
        assert [row.correction_id for row in found] == ["b", "a"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantity": Decimal(1)},
        {"kind": "correct"},
        {"kind": "correct", "quantity": Decimal(1), "price": Decimal(0)},
        {"kind": "undo"},
    ],
)
def test_the_database_refuses_absurd_corrections(bought: Ledger, wrong: dict[str, Any]) -> None:
    with (
        pytest.raises(IntegrityError, match="ck_fill_corrections_kind"),
        bought.begin() as session,
    ):
        account_book.record_correction(session, correction(**wrong))


def test_a_finding_is_confirmed_once(ledger: Ledger) -> None:
    with ledger.begin() as session:
        assert account_book.record_adjustment(session, adjustment())
        assert account_book.record_adjustment(session, adjustment("another"))
    with ledger.begin() as session:
        assert not account_book.record_adjustment(session, adjustment(cash=Decimal(-6)))
        found = account_book.adjustments_of(session, ACCOUNT)
        assert [(row.key, row.cash) for row in found] == [("finding", -5), ("another", -5)]
        assert account_book.adjustments_of(session, ACCOUNT, NEXT) == []


@pytest.mark.parametrize("missing", [{"reason": " "}, {"confirmed_by": ""}])
def test_an_adjustment_says_who_and_why(ledger: Ledger, missing: dict[str, Any]) -> None:
    with ledger.begin() as session, pytest.raises(LedgerError, match="needs a reason and the name"):
        account_book.record_adjustment(session, adjustment(**missing))


def test_shares_cannot_be_adjusted_without_a_symbol(ledger: Ledger) -> None:
    with (
        pytest.raises(IntegrityError, match="ck_adjustments_symbol"),
        ledger.begin() as session,
    ):
        account_book.record_adjustment(session, adjustment(quantity=Decimal(1)))


def test_equity_is_told_with_the_money_that_came_from_outside(ledger: Ledger) -> None:
    """A withdrawal is no loss; a transfer on a day without evidence counts in the next point."""
    with ledger.begin() as session:
        session.add(snapshot("opening", 1_000))
        session.add(snapshot("end_of_day", 1_100))
        session.add(snapshot("after_trading", 5))
        session.add(activity("CSD", 200))
        session.add(activity("DIV", 3))
        session.add(activity("CSW", -50, NEXT))
        session.add(snapshot("end_of_day", 1_060, NEXT + timedelta(days=1)))
        account_book.record_adjustment(
            session, adjustment(trading_session=NEXT + timedelta(days=1))
        )
        account_book.record_adjustment(session, adjustment("trade", kind="manual_trade"))
    with ledger.begin() as session:
        assert account_book.equity_history(session, ACCOUNT) == [
            EquityPoint(SESSION, Decimal(1_000), Decimal(0)),
            EquityPoint(SESSION, Decimal(1_100), Decimal(200)),
            EquityPoint(NEXT + timedelta(days=1), Decimal(1_060), Decimal(-55)),
        ]
        assert account_book.equity_history(session, "other") == []
        assert account_book.expected_cash(session, "other") is None
