"""Position accounting against a plain oracle: lots of one share each, averaged, in exact fractions."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_assets.orders.positions import Holding, after_fill, after_share_change, signed

TOLERANCE = Decimal("1e-5")
prices = st.decimals("0.01", "5000", places=4)
fills = st.lists(
    st.tuples(st.integers(-500, 500).filter(bool).map(Decimal), prices), min_size=1, max_size=40
)


def _oracle(trades: list[tuple[Decimal, Decimal]]) -> tuple[Fraction, Fraction, Fraction]:
    """(quantity, cost, realised) by total cost: no average is ever rounded."""
    quantity = cost = realised = Fraction(0)
    for change, price in ((Fraction(c), Fraction(p)) for c, p in trades):
        if quantity * change >= 0:
            quantity, cost = quantity + change, cost + change * price
            continue
        closed = min(abs(change), abs(quantity)) * (1 if quantity > 0 else -1)
        released = cost * closed / quantity
        realised += closed * price - released
        cost -= released
        quantity += change
        if abs(change) > abs(closed):
            cost = quantity * price
    return quantity, cost, realised


@given(fills)
def test_fills_agree_with_the_oracle(trades: list[tuple[Decimal, Decimal]]) -> None:
    """Quantity exactly, average price and realised profit up to the nine decimals that are kept."""
    holding = Holding()
    for change, price in trades:
        holding = after_fill(holding, change, price)
    quantity, cost, realised = _oracle(trades)
    assert Fraction(holding.quantity) == quantity
    assert abs(Fraction(holding.realised_pnl) - realised) <= Fraction(TOLERANCE)
    if quantity:
        assert abs(Fraction(holding.average_price) - cost / quantity) <= Fraction(TOLERANCE)
    else:
        assert holding.average_price == 0


@given(fills, prices)
def test_profit_is_cash_plus_holdings(trades: list[tuple[Decimal, Decimal]], mark: Decimal) -> None:
    """Realised plus unrealised profit is the cash that came in plus what is held, whatever the path."""
    holding = Holding()
    for change, price in trades:
        holding = after_fill(holding, change, price)
    cash = -sum((change * price for change, price in trades), Decimal(0))
    profit = holding.realised_pnl + holding.unrealised_pnl(mark)
    assert abs(profit - (cash + holding.quantity * mark)) <= TOLERANCE


@given(fills, st.integers(2, 20))
def test_a_split_realises_nothing_and_keeps_the_cost(
    trades: list[tuple[Decimal, Decimal]], ratio: int
) -> None:
    """After n for 1 there are n times the shares at an n-th of the price."""
    holding = Holding()
    for change, price in trades:
        holding = after_fill(holding, change, price)
    split = after_share_change(holding, holding.quantity * (ratio - 1))
    assert split.quantity == holding.quantity * ratio
    assert split.realised_pnl == holding.realised_pnl
    assert abs(split.average_price * ratio - holding.average_price) <= TOLERANCE


def test_a_flip_closes_and_opens() -> None:
    """Ten long at 100, fifteen sold at 110: ten closed with 100 profit, five short at 110."""
    holding = after_fill(
        after_fill(Holding(), Decimal(10), Decimal(100)), Decimal(-15), Decimal(110)
    )
    assert holding == Holding(Decimal(-5), Decimal(110), Decimal(100))


def test_shares_taken_for_nothing_are_a_loss() -> None:
    """A worthless removal realises the whole cost."""
    holding = after_fill(Holding(), Decimal(10), Decimal(7))
    assert after_share_change(holding, Decimal(-10)).realised_pnl == Decimal(-70)


@pytest.mark.parametrize(
    ("change", "price"), [("0", "1"), ("NaN", "1"), ("1", "0"), ("1", "-3"), ("1", "Infinity")]
)
def test_what_is_no_fill_is_refused(change: str, price: str) -> None:
    """Nothing absurd reaches a position."""
    with pytest.raises(ValueError, match="is no fill"):
        after_fill(Holding(), Decimal(change), Decimal(price))


def test_only_two_sides() -> None:
    """A side that is neither buy nor sell is refused."""
    assert signed("sell", Decimal(3)) == Decimal(-3)
    with pytest.raises(ValueError, match="is no side"):
        signed("short", Decimal(3))
