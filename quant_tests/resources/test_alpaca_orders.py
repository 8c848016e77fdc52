"""Order lists with brackets: legs beside the entry that they belong to, as the exchange and as Alpaca list them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.broker import AmbiguousError, BrokerOrder
from quant_resources.exchange.control import ExchangeControl
from quant_tests.resources.broker_answers import order, scripted

BEFORE = datetime(2024, 3, 4, 13, tzinfo=UTC)
OPENED = datetime(2024, 3, 4, 14, 31, tzinfo=UTC)
CLOSED = datetime(2024, 3, 4, 21, 30, tzinfo=UTC)


def told(orders: Sequence[BrokerOrder]) -> list[tuple[str, str, str, bool]]:
    return [(o.symbol, o.order_type, o.status, o.protects) for o in orders]


def bracket(name: str = "one", **more: Any) -> Any:
    return order(name, take_profit_price="140", stop_loss_price="80", time_in_force="gtc", **more)


def test_a_bracket_is_its_entry_and_two_legs(broker: AlpacaBroker) -> None:
    """Every list shows the entry first and its legs after it, which know it and have their prices."""
    sent = broker.submit(bracket())
    broker.submit(order("plain", "EEE"))
    assert (sent.order_class, sent.protects) == ("bracket", False)
    for listed in (broker.open_orders(), broker.orders_since(BEFORE)):
        family = [o for o in listed if o.symbol == "AAA"]
        entry, *legs = family
        assert entry == next(o for o in listed if o.broker_order_id == sent.broker_order_id)
        assert {leg.parent_order_id for leg in legs} == {sent.broker_order_id}
        assert {leg.order_type: (leg.limit_price, leg.stop_price) for leg in legs} == {
            "limit": (140, None),
            "stop": (None, 80),
        }
        assert all((leg.side, leg.status) == ("sell", "held") for leg in legs)
        assert [o.protects for o in listed if o.symbol == "EEE"] == [False]


def test_legs_are_open_after_their_entry_has_filled(
    broker: AlpacaBroker, control: ExchangeControl
) -> None:
    """The filled entry is gone from the open orders; its legs are there and still know it."""
    sent = broker.submit(bracket())
    control.advance(OPENED)
    listed = broker.open_orders()
    assert {o.parent_order_id for o in listed} == {sent.broker_order_id}
    assert {o.order_type for o in listed} == {"limit", "stop"}
    assert all(o.is_open and o.protects for o in listed)
    every = broker.orders_since(BEFORE)
    assert (every[0].broker_order_id, every[0].status) == (sent.broker_order_id, "filled")
    assert len(every) == 3


def test_a_cancelled_entry_takes_its_legs_along(broker: AlpacaBroker) -> None:
    """Nothing is open any more, and nothing has filled."""
    sent = broker.submit(bracket())
    broker.cancel(sent.broker_order_id)
    assert broker.open_orders() == []
    assert {o.status for o in broker.orders_since(BEFORE)} == {"canceled"}


def row(number: int, order_type: str, status: str, **more: Any) -> dict[str, Any]:
    """An order in Alpaca's shape."""
    at = f"2024-03-04T13:30:00.{number:06d}Z"
    return {
        "id": f"order-{number}",
        "client_order_id": f"client-{number}",
        "symbol": "AAA",
        "side": "buy",
        "qty": "10",
        "notional": None,
        "filled_qty": "0",
        "type": order_type,
        "time_in_force": "gtc",
        "status": status,
        "submitted_at": at,
        "updated_at": at,
        "order_class": "bracket",
        "legs": None,
    } | more


def leg(number: int, order_type: str, status: str, **more: Any) -> dict[str, Any]:
    return row(number, order_type, status, side="sell", **more)


def test_open_legs_as_alpaca_lists_them() -> None:
    """Nothing once an entry has filled (nested), or without the leg that is held (flat): all is found."""
    legs = [leg(2, "limit", "new"), leg(3, "stop", "held")]
    entry = row(1, "market", "filled", filled_qty="10", filled_avg_price="100", legs=legs)
    plain = row(4, "market", "new", symbol="EEE", order_class="")

    def answer(_: str, __: str, query: dict[str, str]) -> tuple[int, list[Any]]:
        if query["status"] == "open":
            return 200, [] if query["nested"] == "true" else [legs[0], plain]
        assert query["symbols"] == "AAA"
        assert query["nested"] == "true"
        # The entry is a little older than its leg.
        return 200, [entry] if query.get("after", "") < entry["submitted_at"] else []

    with scripted(answer) as answers:
        listed = answers.broker.open_orders()
        assert len(answers.seen) == 2
    assert [(o.broker_order_id, o.parent_order_id) for o in listed] == [
        ("order-4", None),
        ("order-2", "order-1"),
        ("order-3", "order-1"),
    ]


def test_a_leg_whose_entry_is_old_is_looked_for_further_back() -> None:
    """A replaced leg is younger than its entry by days; it is found all the same, and knows its parent."""
    late = leg(2, "stop", "new", submitted_at="2024-03-08T15:00:00Z", replaces="order-9")
    entry = row(1, "market", "filled", filled_qty="10", filled_avg_price="100", legs=[late])

    def answer(_: str, __: str, query: dict[str, str]) -> tuple[int, list[Any]]:
        if query["status"] == "open":
            return 200, [late]
        return 200, [] if "after" in query else [entry]

    with scripted(answer) as answers:
        (listed,) = answers.broker.open_orders()
        assert len(answers.seen) == 3
    assert (listed.parent_order_id, listed.replaces) == ("order-1", "order-9")


def test_a_leg_without_an_entry_is_not_lost() -> None:
    """An order of a bracket that no list explains stays on the list, as an order that nobody knows."""
    lonely = leg(2, "limit", "new")
    with scripted(lambda _, __, q: (200, [lonely] if q["status"] == "open" else [])) as answers:
        (listed,) = answers.broker.open_orders()
    assert (listed.broker_order_id, listed.protects) == ("order-2", False)


@pytest.mark.parametrize("legs_count", [True, False])
def test_pages_of_brackets_are_complete(legs_count: bool) -> None:
    """Whether a page's limit counts legs or entries only: every order is listed once."""
    family = [
        row(
            number,
            "market",
            "filled",
            legs=[leg(number + 1, "limit", "new"), leg(number + 2, "stop", "held")],
        )
        for number in range(0, 3000, 3)
    ]

    def answer(_: str, __: str, query: dict[str, str]) -> tuple[int, list[Any]]:
        after = datetime.fromisoformat(query["after"])
        rows = [r for r in family if datetime.fromisoformat(r["submitted_at"]) > after]
        limit = int(query["limit"])
        return 200, rows[: limit // 3 if legs_count else limit]

    with scripted(answer) as answers:
        listed = answers.broker.orders_since(BEFORE)
    assert len(listed) == len({o.broker_order_id for o in listed}) == 3000


def test_replacements_and_notional_orders_are_read() -> None:
    """The chain of replacements and an order without a number of shares."""
    rows = [
        row(1, "limit", "replaced", replaced_by="order-2", limit_price="99"),
        row(2, "limit", "new", replaces="order-1", limit_price="99.5", order_class=""),
        row(3, "market", "new", qty=None, notional="250.5", order_class=""),
    ]
    with scripted(lambda *_: (200, rows)) as answers:
        old, new, dollars = answers.broker.orders_since(BEFORE)
    assert (old.replaced_by, old.is_open, new.replaces) == ("order-2", False, "order-1")
    assert (new.limit_price, new.order_class) == (Decimal("99.5"), "simple")
    assert (dollars.quantity, dollars.notional) == (None, Decimal("250.5"))
    assert dollars.remaining_at(Decimal(100)) == Decimal("2.505")


@pytest.mark.parametrize(
    "broken",
    [
        {"qty": None},
        {"qty": "NaN"},
        {"qty": {}},
        {"filled_qty": "ten"},
        {"side": "both"},
        {"submitted_at": "2024-03-04T13:30:00"},
        {"submitted_at": None},
        {"limit_price": "Infinity"},
        {"legs": [{}]},
        {"legs": 5},
        {"legs": ["order-2"]},
    ],
)
def test_an_order_that_cannot_be_understood_proves_nothing(broken: dict[str, Any]) -> None:
    """Not one order of such a list is used."""
    rows = [row(1, "market", "new", order_class=""), row(2, "market", "new") | broken]
    with scripted(lambda *_: (200, rows)) as answers:
        with pytest.raises(AmbiguousError, match="cannot be understood"):
            answers.broker.orders_since(BEFORE)
        # A read may be repeated: every wait of the back-off was spent on it.
        assert len(answers.seen) == 4
