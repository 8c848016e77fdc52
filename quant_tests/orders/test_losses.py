"""Losses with deposits and withdrawals taken out: laws, and days worked by hand."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_assets.orders.losses import daily_loss, drawdown

MONEY = st.decimals(min_value=1, max_value=10_000_000, places=2)
DAY = date(2024, 3, 4)


def days(*entries: tuple[object, object]) -> list[tuple[date, Decimal, Decimal]]:
    return [
        (DAY + timedelta(days=number), Decimal(str(equity)), Decimal(str(flow)))
        for number, (equity, flow) in enumerate(entries)
    ]


@pytest.mark.parametrize(
    ("equity", "previous", "flows", "loss"),
    [
        (95, 100, 0, "0.05"),
        (110, 100, 0, "-0.10"),
        # Half is withdrawn in the morning; nothing is lost.
        (50, 100, -50, "0"),
        # A deposit of as much again does not hide that ten per cent of all are gone.
        (180, 100, 100, "0.10"),
        (-5, 100, 0, "1.05"),
    ],
)
def test_the_loss_of_a_day(equity: int, previous: int, flows: int, loss: str) -> None:
    assert daily_loss(Decimal(equity), Decimal(previous), Decimal(flows)) == Decimal(loss)


@pytest.mark.parametrize(
    ("equity", "previous"),
    [
        (None, Decimal(1)),
        (Decimal(1), None),
        (Decimal(1), Decimal(0)),
        (Decimal("NaN"), Decimal(1)),
        (Decimal(1), Decimal("Infinity")),
    ],
)
def test_a_loss_that_cannot_be_known_is_none(
    equity: Decimal | None, previous: Decimal | None
) -> None:
    """Zero would say that nothing was lost."""
    assert daily_loss(equity, previous) is None


def test_a_drawdown_is_from_the_highest_point() -> None:
    assert drawdown(days((100, 0), (200, 0), (150, 0))) == Decimal("0.25")
    assert drawdown(days((100, 0), (200, 0), (150, 0), (210, 0))) == 0
    assert drawdown(days((100, 0))) == 0
    assert drawdown([]) is None
    assert drawdown(days((100, 0), ("NaN", 0))) is None


def test_everything_lost_is_a_drawdown_of_one_until_the_account_is_filled_anew() -> None:
    assert drawdown(days((100, 0), (-10, 0))) == 1
    assert drawdown(days((100, 0), (0, 0), (100, 100))) == 1
    assert drawdown(days((100, 0), (0, 0), (0, 0), (90, 0))) == 0


@given(st.lists(MONEY, min_size=1, max_size=20), MONEY)
def test_money_that_comes_and_goes_is_no_gain_and_no_loss(
    equities: list[Decimal], deposit: Decimal
) -> None:
    """A deposit followed by nothing, and its withdrawal, leave the drawdown where it was."""
    history = days(*((equity, 0) for equity in equities))
    before = drawdown(history)
    last = equities[-1]
    moved = days(*((equity, 0) for equity in equities), (last + deposit, deposit), (last, -deposit))
    after = drawdown(moved)
    assert before is not None
    assert after is not None
    assert abs(after - before) < Decimal("1e-15")


@given(st.lists(MONEY, min_size=1, max_size=20), st.integers(min_value=1, max_value=1000))
def test_a_drawdown_does_not_depend_on_the_currency(equities: list[Decimal], factor: int) -> None:
    one = drawdown(days(*((equity, 0) for equity in equities)))
    other = drawdown(days(*((equity * factor, 0) for equity in equities)))
    assert one is not None
    assert other is not None
    assert abs(one - other) < Decimal("1e-15")
    assert 0 <= one < 1
