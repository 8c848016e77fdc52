"""Netting, legs and ids of intents."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from quant_assets.orders.intents import BatchKey, Intent, client_order_id, net_intents
from quant_assets.orders.order_rules import intent_breaches
from quant_assets.orders.order_styles import Terms
from quant_assets.orders.policy import OrderStyle
from quant_assets.orders.target_portfolio import Target
from quant_resources.broker import Asset
from quant_resources.ledger.order_states import OrderState

KEY = BatchKey("account", "main", date(2024, 3, 4), 1)
DEADLINE = datetime(2024, 3, 4, 20, 45, tzinfo=UTC)
ASSET = Asset("AAA", tradable=True, shortable=True, fractionable=True)
PLAIN = OrderStyle.model_validate({})


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
    *targets: Target,
    held: str = "0",
    opened: str = "0",
    key: BatchKey = KEY,
    smallest: int = 1,
    style: OrderStyle = PLAIN,
) -> list[Intent]:
    return net_intents(
        targets,
        {"AAA": Decimal(held)},
        {"AAA": Decimal(opened)},
        key=key,
        deadline=DEADLINE,
        smallest_trade=Decimal(smallest),
        style_of=lambda _: style,
        assets={"AAA": ASSET},
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
        style_of=lambda _: PLAIN,
        assets={},
    )
    assert [intent.symbol for intent in intents] == ["CUT", "BIG", "BUY"]


def test_the_id_is_the_decision() -> None:
    """Same decision, same id; any part of it that differs gives another, every price included."""

    def identity(key: BatchKey = KEY, terms: Terms = Terms(), **more: object) -> str:  # noqa: B008
        decision = {"symbol": "AAA", "leg": 1, "side": "buy", "quantity": Decimal(10)} | more
        return client_order_id(key, terms=terms, **decision)  # pyright: ignore[reportArgumentType]

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
        identity(terms=Terms(order_type="limit")),
        identity(terms=Terms(time_in_force="gtc")),
        *(
            identity(terms=replace(Terms(), **{field: Decimal(1)}))
            for field in (
                "limit_price",
                "stop_price",
                "take_profit_price",
                "stop_loss_price",
                "notional",
            )
        ),
        identity(terms=Terms(limit_price=Decimal("1.01"))),
    ]
    assert len({identity(), *others}) == len(others) + 1
    assert len(identity(replace(KEY, book="b" * 32))) <= 128


def style(**fields: object) -> OrderStyle:
    return OrderStyle.model_validate(fields)


def test_what_reduces_and_second_legs_are_no_brackets() -> None:
    """Protection is for what an opening order buys; the second leg of a flip has old prices."""
    bracket = style(brackets=True)
    (opening,) = net(target("10"), style=bracket)
    assert (opening.take_profit_price, opening.stop_loss_price) == (104, 98)
    (closing,) = net(target("0"), held="10", style=bracket)
    assert (closing.take_profit_price, closing.stop_loss_price) == (None, None)
    assert all(leg.stop_loss_price is None for leg in net(target("-5"), held="8", style=bracket))


def test_a_bracket_opens_whole_shares_only() -> None:
    """The fraction that could not be protected is not bought; a fraction that is held is closed."""
    bracket = style(brackets=True)
    (opening,) = net(target("10.7"), style=bracket)
    assert (opening.quantity, opening.stop_loss_price) == (10, 98)
    assert net(target("0.7"), style=bracket) == []
    (closing,) = net(target("0"), held="10.7", style=bracket)
    assert (closing.quantity, closing.time_in_force) == (Decimal("10.7"), "day")


def test_dollars_are_for_opening_longs_of_fractionable_names() -> None:
    """33.333 shares at 100 are 3,333.30 dollars; a short, a close and a whole-share name go by shares."""
    dollars = style(sizing="notional")
    (opening,) = net(target("33.333"), style=dollars)
    assert (opening.notional, opening.quantity, opening.value) == (
        Decimal("3333.30"),
        Decimal("33.333"),
        Decimal("3333.30"),
    )
    for intent in (
        *net(target("-5"), style=dollars),
        *net(target("0"), held="5", style=dollars),
        *net(target("5", symbol="WHOLE"), style=dollars),
    ):
        assert intent.notional is None


def test_an_auction_ends_the_time_for_sending() -> None:
    """An order for the open may leave until 9:28, one for the close until 15:50, or the deadline if earlier."""
    (opening,) = net(target("5"), style=style(time_in_force="opg"))
    assert opening.deadline == datetime(2024, 3, 4, 14, 28, tzinfo=UTC)
    (closing,) = net(target("5"), style=style(time_in_force="cls"))
    assert closing.deadline == DEADLINE < datetime(2024, 3, 4, 20, 50, tzinfo=UTC)


STYLES = st.fixed_dictionaries(
    {
        "order_type": st.sampled_from(["market", "limit", "stop"]),
        "time_in_force": st.sampled_from(["day", "gtc", "opg", "cls"]),
        "sizing": st.sampled_from(["shares", "notional"]),
        "limit_offset_bps": st.integers(5, 500),
        "stop_offset_bps": st.integers(5, 500),
        "brackets": st.booleans(),
        "stop_loss": st.just("0.05"),
        "take_profit": st.just("0.05"),
    }
)


@given(
    STYLES,
    st.decimals("-999", "999", places=3),
    st.decimals("-999", "999", places=3),
    st.decimals("1", "5000", places=4),
)
def test_what_a_style_makes_is_always_taken(
    fields: dict[str, object], wanted: Decimal, held: Decimal, price: Decimal
) -> None:
    """Whatever the style and the numbers: no order that it makes breaks a rule of the broker."""
    try:
        chosen = style(**fields)
    except ValueError:
        # The policy refuses the combination before anything is made of it.
        return
    # Shorts are held in whole shares, as brokers lend them.
    held = held if held > 0 else held.to_integral_value()
    for intent in net(target(str(wanted), reference_price=price), held=str(held), style=chosen):
        # An order by dollars below one dollar is refused, by the rule that says so.
        if intent.notional is None or intent.notional >= 1:
            assert intent_breaches(intent, ASSET) == []


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
