"""How orders are given: prices, dollars and protection by style."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from quant_assets.orders.order_styles import Terms, sized, terms_of
from quant_assets.orders.policy import OrderStyle
from quant_assets.orders.target_portfolio import Target
from quant_resources.broker import Side


def style(**fields: object) -> OrderStyle:
    return OrderStyle.model_validate(fields)


def target(strategy: str = "alpha", **protection: str) -> Target:
    """A target with a signal's prices of protection."""
    return Target(
        strategy,
        "AAA",
        "AAA@x",
        date(2024, 3, 1),
        None,
        Decimal("0.1"),
        Decimal(10),
        Decimal(100),
        "wanted",
        "rules-1",
        **{name: Decimal(price) for name, price in protection.items()},  # pyright: ignore[reportArgumentType]
    )


def terms(
    chosen: OrderStyle,
    *wanting: Target,
    side: Side = "buy",
    quantity: str = "10",
    price: str = "100",
    opens: bool = True,
) -> Terms:
    return terms_of(
        chosen,
        side=side,
        quantity=Decimal(quantity),
        reference_price=Decimal(price),
        opens=opens,
        second_leg=False,
        fractionable=True,
        wanting=wanting,
    )


@pytest.mark.parametrize(
    ("side", "price", "limit"),
    [
        ("buy", "100", "100.20"),
        ("sell", "100", "99.80"),
        # Rounded inwards: a buy never pays more, a sale never takes less than 20 basis points away.
        ("buy", "10.003", "10.02"),
        ("sell", "10.003", "9.99"),
        ("buy", "0.51234", "0.5133"),
        ("sell", "0.51234", "0.5114"),
        ("sell", "0.00001", "0.0001"),
    ],
)
def test_limits_pay_up_inwards(side: Side, price: str, limit: str) -> None:
    """A limit lies the offset beyond the reference price, at the broker's increment."""
    chosen = style(order_type="limit", limit_offset_bps=20)
    assert terms(chosen, side=side, price=price) == Terms("limit", limit_price=Decimal(limit))


def test_stops_open_and_never_delay_a_close() -> None:
    """A stop lies outwards of the price; what reduces goes at the market."""
    chosen = style(order_type="stop", stop_offset_bps=25)
    assert terms(chosen, price="10.01") == Terms("stop", stop_price=Decimal("10.04"))
    assert terms(chosen, side="sell", price="10.01") == Terms("stop", stop_price=Decimal("9.98"))
    assert terms(chosen, side="sell", opens=False) == Terms()


def test_protection_of_the_signal_of_several_and_of_the_style() -> None:
    """The signal's prices win; of several the nearest; the style's distance fills what is missing."""
    chosen = style(brackets=True, stop_loss="0.03", take_profit="0.05")
    assert _legs(terms(chosen)) == (97, 105)
    assert _legs(terms(chosen, side="sell")) == (103, 95)
    assert _legs(terms(chosen, target(stop_loss="96.5"))) == (Decimal("96.5"), 105)
    several = (
        target(stop_loss="90", take_profit="120"),
        target("beta", stop_loss="95.004", take_profit="110.006"),
    )
    assert _legs(terms(chosen, *several)) == (Decimal("95.00"), Decimal("110.01"))
    shorts = (target(stop_loss="110"), target("beta", stop_loss="104", take_profit="91"))
    assert _legs(terms(chosen, *shorts, side="sell")) == (104, 91)
    limit = style(brackets=True, order_type="limit", limit_offset_bps=100)
    assert _legs(terms(limit)) == (Decimal("98.98"), Decimal("105.04"))


def _legs(chosen: Terms) -> tuple[Decimal | None, Decimal | None]:
    return chosen.stop_loss_price, chosen.take_profit_price


def test_fractions_are_for_the_day() -> None:
    """What is left over as a fraction is closed for the day, whatever the style's time in force."""
    for time_in_force in ("opg", "cls", "gtc"):
        chosen = style(time_in_force=time_in_force)
        assert terms(chosen, side="sell", quantity="0.5", opens=False).time_in_force == "day"
        assert terms(chosen).time_in_force == time_in_force
        assert sized(Decimal("10.5"), chosen, opens=True) == 10
        assert sized(Decimal("10.5"), chosen, opens=False) == Decimal("10.5")


def test_dollars_are_whole_cents() -> None:
    """An order by dollars never spends more than was decided."""
    chosen = style(sizing="notional", order_type="limit", limit_offset_bps=0)
    made = terms(chosen, quantity="3.333333333", price="99.99")
    assert (made.notional, made.limit_price) == (Decimal("333.29"), Decimal("99.99"))
