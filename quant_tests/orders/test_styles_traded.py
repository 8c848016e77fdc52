"""Every style of order through the real path: planned, frozen, sent as frozen, accepted, filled; or refused unsent."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import update

from quant_assets.orders.booking import sync_with_broker
from quant_resources.broker import BrokerOrder
from quant_resources.ledger import order_book
from quant_resources.ledger.order_tables import OrderBatch, OrderIntent
from quant_tests.orders.ground import Ground

MONDAY, TUESDAY = date(2024, 3, 4), date(2024, 3, 5)


def trade(ground: Ground, weights: dict[str, float | None], session: date = MONDAY) -> OrderBatch:
    """Plan, freeze and send."""
    return ground.trade(session, alpha=weights)[0]


def at_broker(ground: Ground, intent: OrderIntent) -> list[BrokerOrder]:
    """The order of an intent and its legs, as the exchange has them."""
    every = ground.broker.orders_since(datetime(2024, 3, 1, tzinfo=UTC))
    (entry,) = [order for order in every if order.client_order_id == intent.client_order_id]
    return [entry, *(o for o in every if o.parent_order_id == entry.broker_order_id)]


def sent_as_frozen(ground: Ground, intent: OrderIntent) -> None:
    """The exchange holds exactly the numbers that the ledger froze."""
    entry, *legs = at_broker(ground, intent)
    assert entry.quantity == (intent.quantity if intent.notional is None else None)
    for name in ("notional", "order_type", "time_in_force", "limit_price", "stop_price", "side"):
        assert getattr(entry, name) == getattr(intent, name), name
    assert {leg.order_type: leg.limit_price or leg.stop_price for leg in legs} == (
        {}
        if intent.stop_loss_price is None
        else {"limit": intent.take_profit_price, "stop": intent.stop_loss_price}
    )


#: Friday's price of AAA is 100; Monday opens and closes at 101, between 98.98 and 103.02.
STYLES: list[tuple[dict[str, Any], dict[str, float | None], dict[str, str | None], Decimal]] = [
    ({}, {"AAA": 0.2}, {"quantity": "2000"}, Decimal(2000)),
    (
        {"order_type": "limit", "limit_offset_bps": 150},
        {"AAA": 0.2},
        {"limit_price": "101.5"},
        Decimal(2000),
    ),
    (
        {"order_type": "limit", "limit_offset_bps": 50, "time_in_force": "gtc"},
        {"AAA": -0.2},
        {"limit_price": "99.5", "time_in_force": "gtc"},
        Decimal(-2000),
    ),
    (
        {"order_type": "stop", "stop_offset_bps": 50},
        {"AAA": 0.2},
        {"stop_price": "100.5"},
        Decimal(2000),
    ),
    (
        {"order_type": "stop", "stop_offset_bps": 50},
        {"AAA": -0.2},
        {"stop_price": "99.5"},
        Decimal(-2000),
    ),
    ({"time_in_force": "opg"}, {"AAA": 0.2}, {"time_in_force": "opg"}, Decimal(2000)),
    ({"time_in_force": "cls"}, {"AAA": -0.2}, {"time_in_force": "cls"}, Decimal(-2000)),
    (
        {"brackets": True},
        {"AAA": 0.2},
        {"take_profit_price": "104", "stop_loss_price": "98"},
        Decimal(2000),
    ),
    (
        {"brackets": True, "order_type": "limit", "limit_offset_bps": 150, "stop_loss": "0.05"},
        {"AAA": 0.2},
        {"limit_price": "101.5", "take_profit_price": "105.56", "stop_loss_price": "96.42"},
        Decimal(2000),
    ),
    (
        {"brackets": True, "time_in_force": "gtc", "stop_loss": "0.05", "take_profit": "0.05"},
        {"AAA": -0.2},
        {"take_profit_price": "95", "stop_loss_price": "105", "time_in_force": "gtc"},
        Decimal(-2000),
    ),
]


@pytest.mark.parametrize(("style", "weights", "frozen", "held"), STYLES)
def test_a_style_from_plan_to_fill(
    ground: Ground,
    style: dict[str, Any],
    weights: dict[str, float | None],
    frozen: dict[str, str | None],
    held: Decimal,
) -> None:
    """Frozen as the style says, sent as frozen, accepted once, filled, and booked."""
    ground.changed(styles={"alpha": style})
    batch = trade(ground, weights)
    (intent,) = ground.intents(batch)
    for name, value in frozen.items():
        expected = value if name == "time_in_force" or value is None else Decimal(value)
        assert getattr(intent, name) == expected, name
    sent_as_frozen(ground, intent)
    assert ground.accepted() == {intent.client_order_id: 1}
    ground.evening(MONDAY)
    assert ground.held() == {"AAA": held}
    sync_with_broker(ground.ledger, ground.broker)
    assert ground.states(batch) == {("AAA", 1): "filled"}


def test_fractions_of_shares(ground: Ground) -> None:
    """A long of 1,234.567 shares is ordered, filled and closed to the last fraction."""
    ground.changed(fractional=True)
    batch = trade(ground, {"AAA": 0.1234567})
    (intent,) = ground.intents(batch)
    assert (intent.quantity, intent.time_in_force) == (Decimal("1234.567"), "day")
    sent_as_frozen(ground, intent)
    ground.evening(MONDAY)
    assert ground.held() == {"AAA": Decimal("1234.567")}
    ground.morning(TUESDAY)
    closing = trade(ground, {"BBB": 0.1}, TUESDAY)
    assert {row.symbol: row.quantity for row in ground.intents(closing)}["AAA"] == intent.quantity
    ground.evening(TUESDAY)
    assert "AAA" not in ground.held()


def test_dollars_instead_of_shares(ground: Ground) -> None:
    """Bought for an amount at whatever price; the short beside it goes by shares."""
    ground.changed(styles={"alpha": {"sizing": "notional"}})
    batch = trade(ground, {"AAA": 0.1234567, "BBB": -0.1})
    by_symbol = {row.symbol: row for row in ground.intents(batch)}
    assert by_symbol["AAA"].notional == Decimal("123456.70")
    assert by_symbol["AAA"].quantity == Decimal("1234.567")
    assert by_symbol["BBB"].notional is None
    for row in by_symbol.values():
        sent_as_frozen(ground, row)
    ground.evening(MONDAY)
    held = ground.held()
    assert held["BBB"] == -2000
    executions = sync_with_broker(ground.ledger, ground.broker).view.executions
    spent = sum(e.quantity * e.price for e in executions if e.symbol == "AAA")
    assert Decimal("123456.69") < spent <= Decimal("123456.70")
    assert held["AAA"] == sum(e.quantity for e in executions if e.symbol == "AAA")
    assert set(ground.states(batch).values()) == {"filled"}


def test_prices_of_protection_come_from_the_signal(ground: Ground) -> None:
    """The strategy's stop loss and take profit are the legs' prices, rounded to cents when frozen."""
    ground.changed(styles={"alpha": {"brackets": True}})
    ground.protection = {"AAA": (97.123456, 111.119)}
    batch = trade(ground, {"AAA": 0.2})
    (intent,) = ground.intents(batch)
    assert (intent.stop_loss_price, intent.take_profit_price) == (
        Decimal("97.12"),
        Decimal("111.12"),
    )
    sent_as_frozen(ground, intent)


def test_protection_that_outlives_the_day_closes_the_position(ground: Ground) -> None:
    """Tuesday falls to 98: the stop of a GTC bracket sells what Monday bought, and the other leg ends."""
    ground.changed(styles={"alpha": {"brackets": True, "time_in_force": "gtc"}})
    batch = trade(ground, {"AAA": 0.2})
    (intent,) = ground.intents(batch)
    ground.evening(MONDAY)
    sync_with_broker(ground.ledger, ground.broker)
    assert {order.order_type for order in ground.broker.open_orders()} == {"limit", "stop"}
    ground.evening(TUESDAY)
    booked = sync_with_broker(ground.ledger, ground.broker)
    assert ground.held() == {}
    assert ground.broker.open_orders() == []
    with ground.ledger.begin() as session:
        assert order_book.open_legs(session, batch.account_id, None) == []
    fills = [e for e in booked.view.executions if e.side == "sell"]
    assert [fill.quantity for fill in fills] == [2000]
    assert Decimal("97.9") < fills[0].price <= 98
    assert ground.accepted() == {intent.client_order_id: 1}


def test_a_flip_in_the_auction_goes_on_during_the_day(ground: Ground) -> None:
    """The long is closed at the open; the short that waits for it is sent for the day, and fills."""
    trade(ground, {"AAA": 0.2})
    ground.evening(MONDAY)
    ground.morning(TUESDAY)
    ground.changed(styles={"alpha": {"time_in_force": "opg"}})
    batch = trade(ground, {"AAA": -0.1}, TUESDAY)
    closing, opening = ground.intents(batch)
    assert (closing.time_in_force, opening.time_in_force) == ("opg", "day")
    assert closing.deadline < opening.deadline
    ground.at(f"{TUESDAY} 10:00")
    ground.finish()
    ground.evening(TUESDAY)
    assert ground.held() == {"AAA": -opening.quantity}
    assert len(ground.accepted()) == 3


STOP_GTC = {"order_type": "stop", "stop_offset_bps": 500, "time_in_force": "gtc"}


def test_an_order_that_waits_over_night_makes_way_for_another_decision(ground: Ground) -> None:
    """A GTC stop that Monday did not reach: Tuesday wants less, so it is cancelled and given anew."""
    ground.changed(styles={"alpha": STOP_GTC})
    batch = trade(ground, {"AAA": 0.2})
    (intent,) = ground.intents(batch)
    assert intent.stop_price == 105
    ground.evening(MONDAY)
    assert ground.held() == {}
    ground.morning(TUESDAY)
    again = trade(ground, {"AAA": 0.2}, TUESDAY)
    (anew,) = ground.intents(again)
    assert (anew.state, anew.quantity) == ("accepted", 1980)
    assert ground.intents(batch)[0].state == "canceled"
    assert ground.accepted() == {intent.client_order_id: 1, anew.client_order_id: 1}
    assert [o.client_order_id for o in ground.broker.open_orders()] == [anew.client_order_id]


def test_an_order_that_nobody_wants_any_more_is_cancelled(ground: Ground) -> None:
    """A GTC stop of a symbol that has left the signals must not fill weeks later and belong to nobody."""
    ground.changed(styles={"alpha": STOP_GTC})
    batch = trade(ground, {"AAA": 0.2})
    ground.evening(MONDAY)
    ground.morning(TUESDAY)
    trade(ground, {"BBB": 0.1}, TUESDAY)
    assert ground.intents(batch)[0].state == "canceled"
    assert {order.symbol for order in ground.broker.open_orders()} == {"BBB"}


def test_an_order_of_a_strategy_without_signals_stays(ground: Ground) -> None:
    """A strategy that fails keeps what it wanted, its resting order too."""
    ground.changed(styles={"alpha": STOP_GTC})
    batch = trade(ground, {"AAA": 0.2})
    ground.evening(MONDAY)
    ground.morning(TUESDAY)
    ground.trade(TUESDAY, alpha=None)
    assert ground.intents(batch)[0].state == "accepted"


@pytest.mark.parametrize(
    ("style", "clock", "protection", "rule"),
    [
        ({"time_in_force": "opg"}, "2024-03-04 09:28", None, "opening auction"),
        ({"time_in_force": "cls"}, "2024-03-04 15:50", None, "closing auction"),
        ({"brackets": True}, "2024-03-04 08:30", (100.0, None), "stop loss 100"),
        ({"brackets": True}, "2024-03-04 08:30", (None, 99.0), "take profit 99"),
        (
            {"brackets": True, "order_type": "limit", "limit_offset_bps": 100},
            "2024-03-04 08:30",
            (None, 101.0),
            "entry at 101",
        ),
    ],
)
def test_what_the_broker_would_refuse_is_not_sent(
    ground: Ground,
    style: dict[str, Any],
    clock: str,
    protection: tuple[float | None, float | None] | None,
    rule: str,
) -> None:
    """It is frozen as refused, with the limit and the broken rule, and no request leaves."""
    ground.changed(styles={"alpha": style})
    ground.protection = {"AAA": protection} if protection else {}
    ground.at(clock)
    (intent,) = ground.intents(trade(ground, {"AAA": 0.2}))
    assert (intent.state, intent.limit_name) == ("refused", "order_rules")
    assert rule in intent.reason
    assert ground.submissions() == []


def test_the_rules_are_checked_again_when_an_order_is_sent(ground: Ground) -> None:
    """An intent that was changed in the ledger between freezing and sending never leaves as it is."""
    ground.changed(styles={"alpha": {"order_type": "limit", "limit_offset_bps": 150}})
    limited = {"method": "POST", "path": "/v2/orders", "fault": {"kind": "status", "status": 429}}
    ground.exchange.inject({"rules": [limited]})
    batch = trade(ground, {"AAA": 0.2})
    (unsent,) = ground.intents(batch)
    assert (unsent.limit_price, ground.submissions()) == (Decimal("101.5"), [])
    with ground.ledger.begin() as session:
        session.execute(update(OrderIntent).values(limit_price=Decimal("101.505")))
    ground.exchange.clear_faults()
    report = ground.finish()
    assert ground.states(batch) == {("AAA", 1): "rejected"}
    assert "the limit price 101.505 has more decimals than 0.01" in report.rejections[0]
    assert ground.submissions() == []
