"""Netting, legs and ids of intents."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from quant_assets.orders.intents import BatchKey, Intent, client_order_id, net_intents
from quant_assets.orders.target_portfolio import Target
from quant_resources.ledger.order_states import OrderState

KEY = BatchKey("account", "main", date(2024, 3, 4), 1)
DEADLINE = datetime(2024, 3, 4, 20, 45, tzinfo=UTC)


def target(quantity: str, strategy: str = "alpha", symbol: str = "AAA", **more: object) -> Target:
    """What a strategy wants."""
    return replace(
        Target(
            strategy,
            symbol,
            f"{symbol}@x",
            date(2024, 3, 1),
            None,
            Decimal("0.1"),
            Decimal(quantity),
            Decimal(100),
            "wanted",
            "rules-1",
        ),
        **more,  # pyright: ignore[reportArgumentType]
    )


def net(
    *targets: Target, held: str = "0", opened: str = "0", key: BatchKey = KEY, smallest: int = 1
) -> list[Intent]:
    return net_intents(
        targets,
        {"AAA": Decimal(held)},
        {"AAA": Decimal(opened)},
        key=key,
        deadline=DEADLINE,
        smallest_trade=Decimal(smallest),
    )


def changes(intents: list[Intent]) -> list[Decimal]:
    return [intent.change for intent in intents]


def test_strategies_are_netted_over_what_is_held_and_open() -> None:
    """Ten and minus three wanted, two held, one open: four to buy."""
    assert changes(net(target("10"), target("-3", "beta"), held="2", opened="1")) == [4]


def test_what_no_strategy_changed_is_not_traded() -> None:
    """A kept sleeve is not traded even where the position differs from it."""
    assert net(target("10", changed=False), held="7") == []


def test_a_flip_is_two_legs() -> None:
    """The second opens the other side and waits for the first."""
    closing, opening = net(target("-5"), held="8")
    assert (closing.leg, closing.change, closing.reduces) == (1, -8, True)
    assert (opening.leg, opening.change, opening.reduces) == (2, -5, False)
    assert opening.depends_on == closing.client_order_id
    assert (opening.waits_for, opening.state) == ("leg", OrderState.WAITING)


def test_small_adjustments_are_dropped_but_closes_are_not() -> None:
    """Turnover that costs more than it moves is left; the last share still goes."""
    assert net(target("10"), held="9.5", smallest=100) == []
    assert changes(net(target("0"), held="0.5", smallest=100)) == [Decimal("-0.5")]


def test_a_net_short_is_whole_shares() -> None:
    """A fraction of one strategy and a short of another net to whole shares towards zero."""
    assert changes(net(target("0.7"), target("-3", "beta"))) == [-2]


def test_reducing_orders_come_first() -> None:
    """Sales free money before purchases need it; then the largest."""
    intents = net_intents(
        [target("50", symbol="BUY"), target("0", symbol="CUT"), target("90", symbol="BIG")],
        {"CUT": Decimal(5)},
        {},
        key=KEY,
        deadline=DEADLINE,
        smallest_trade=Decimal(1),
    )
    assert [intent.symbol for intent in intents] == ["CUT", "BIG", "BUY"]


def test_the_id_is_the_decision() -> None:
    """Same decision, same id; any part of it that differs gives another."""

    def identity(key: BatchKey = KEY, **more: object) -> str:
        decision = {
            "symbol": "AAA",
            "leg": 1,
            "side": "buy",
            "quantity": Decimal(10),
            "order_type": "market",
            "time_in_force": "day",
            "prices": (None, None),
        } | more
        return client_order_id(key, **decision)  # pyright: ignore[reportArgumentType]

    assert identity() == identity(quantity=Decimal("10.000"))
    assert identity().startswith("main-2024-03-04-")
    others = [
        identity(replace(KEY, account_id="other")),
        identity(replace(KEY, attempt=2)),
        identity(replace(KEY, book="other")),
        identity(replace(KEY, trading_session=date(2024, 3, 5))),
        identity(symbol="AAB"),
        identity(leg=2),
        identity(side="sell"),
        identity(quantity=Decimal("10.000000001")),
        identity(order_type="limit"),
        identity(time_in_force="gtc"),
        identity(prices=(Decimal(1), None)),
        identity(prices=(None, Decimal(1))),
    ]
    assert len({identity(), *others}) == len(others) + 1
    assert len(identity(replace(KEY, book="b" * 32))) <= 128


@given(
    st.lists(st.integers(-1000, 1000), min_size=1, max_size=4),
    st.integers(-1000, 1000),
    st.integers(-50, 50),
)
def test_legs_add_up_to_the_decision(wanted: list[int], held: int, opened: int) -> None:
    """Filled legs lead exactly to the net target, and no leg crosses zero."""
    intents = net(
        *(target(str(quantity), f"s{n}") for n, quantity in enumerate(wanted)),
        held=str(held),
        opened=str(opened),
    )
    position = Decimal(held + opened)
    for intent in intents:
        after = position + intent.change
        assert position * after >= 0
        assert intent.reduces == (abs(after) < abs(position))
        position = after
    assert position == sum(wanted)
    assert len({intent.client_order_id for intent in intents}) == len(intents)
