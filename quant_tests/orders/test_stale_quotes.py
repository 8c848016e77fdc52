"""Orders are made of prices whose age is known and small, against the real exchange and ledger."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest

from quant_assets.orders.trading_sessions import price_age
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.errors import DataError
from quant_resources.ledger import order_book
from quant_resources.ledger.order_tables import OrderBatch
from quant_tests.orders.ground import Ground

MONDAY = date(2024, 3, 4)


def refused(ground: Ground, batch: OrderBatch) -> dict[str, tuple[str | None, Decimal | None]]:
    """Symbol → limit and measured number of what was refused."""
    return {
        row.symbol: (row.limit_name, row.limit_value)
        for row in ground.intents(batch)
        if row.state == "refused"
    }


@pytest.mark.parametrize(("sent_at", "minutes"), [("10:30", None), ("10:31", 31)])
def test_orders_within_the_session_need_a_price_of_the_last_half_hour(
    ground: Ground, sent_at: str, minutes: int | None
) -> None:
    ground.at(f"{MONDAY} 10:00")
    targets = ground.frame(ground.plan(MONDAY, momentum={"AAA": 0.2, "BBB": -0.2}), MONDAY)
    ground.at(f"{MONDAY} {sent_at}")
    batch, report = ground.send(MONDAY, targets)
    late = {} if minutes is None else dict.fromkeys(("AAA", "BBB"), ("stale_quote", minutes))
    assert refused(ground, batch) == late
    assert report.sent == len(ground.accepted()) == 2 - len(late)


def test_planned_anew_within_the_session_they_are_of_now(ground: Ground) -> None:
    ground.at(f"{MONDAY} 12:00")
    batch, report = ground.trade(MONDAY, momentum={"AAA": 0.2})
    assert refused(ground, batch) == {}
    assert report.sent == 1


def test_targets_that_lay_about_are_not_ordered_by(ground: Ground) -> None:
    """The age is that of the price the quantity was made from, not of the newest price there is."""
    targets = ground.frame(ground.plan(MONDAY, momentum={"AAA": 0.2}), MONDAY)
    ground.at(f"{MONDAY} 09:31")
    batch, _ = ground.send(MONDAY, targets)
    # Planned on Friday's close: 65 hours and 31 minutes before.
    ((name, minutes),) = refused(ground, batch).values()
    assert name == "stale_quote"
    assert minutes == Decimal(65 * 60 + 31)


def test_the_frozen_target_remembers_when_its_price_was_made(ground: Ground) -> None:
    """Shown again from the ledger, a target has the time that it was planned with."""
    plan = ground.plan(MONDAY, momentum={"AAA": 0.2})
    (planned,) = plan.targets
    batch, _ = ground.send(MONDAY, ground.frame(plan, MONDAY))
    with ground.ledger.begin() as session:
        (row,) = order_book.targets_of(session, batch.batch_id)
    assert row.priced_at == planned.priced_at == XNYS.close(date(2024, 3, 1))


def test_a_changed_target_without_a_time_orders_nothing(ground: Ground) -> None:
    targets = ground.frame(ground.plan(MONDAY, momentum={"AAA": 0.2}), MONDAY)
    timeless = targets.with_columns(priced_at=pl.lit(None, targets.schema["priced_at"]))
    with pytest.raises(DataError, match="price of AAA was made is not known"):
        ground.send(MONDAY, timeless)
    assert ground.accepted() == {}


@pytest.mark.parametrize(
    ("made", "now", "minutes"),
    [
        ("2024-11-27 16:00", "2024-11-29 09:29", 0),  # the close before, over Thanksgiving
        ("2024-11-27 18:30", "2024-11-29 09:29", 0),  # after hours
        ("2024-11-27 15:31", "2024-11-29 09:29", 29),
        ("2024-11-26 16:00", "2024-11-29 09:29", 24 * 60),  # did not trade the day before
        ("2024-11-27 16:00", "2024-11-29 09:30", 41 * 60 + 30),  # the market is open
        ("2024-11-29 09:30", "2024-11-29 12:59", 209),
        ("2024-11-29 09:31", "2024-11-29 09:30", 0),  # clocks differ
    ],
)
def test_the_age_of_a_price(made: str, now: str, minutes: int) -> None:
    """Before the open a price is as old as the trading that it missed; from then on time counts."""
    at, clock = (datetime.fromisoformat(text).replace(tzinfo=NEW_YORK) for text in (made, now))
    assert price_age(at, clock, date(2024, 11, 29)) == timedelta(minutes=minutes)


def test_the_close_of_a_half_day_is_its_early_one() -> None:
    """Friday after Thanksgiving closes at 13:00: a price of 12:00 missed an hour of it."""
    made = datetime(2024, 11, 29, 12, 0, tzinfo=NEW_YORK)
    now = datetime(2024, 12, 2, 9, 0, tzinfo=NEW_YORK)
    assert price_age(made, now, date(2024, 12, 2)) == timedelta(hours=1)
