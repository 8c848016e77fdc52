"""Profit and loss by hand, and the law that every cent of equity is on some row."""

from datetime import date

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_assets.performance.profit_and_loss import (
    CASH,
    CORRECTION,
    MANUAL_TRADE,
    RESIDUAL,
    UNATTRIBUTED,
    daily_profit_and_loss,
)

DAY = date(2024, 3, 4)
POSITIONS = {"symbol": pl.String, "quantity": pl.Float64, "market_price": pl.Float64}
FILLS = {
    "symbol": pl.String,
    "side": pl.String,
    "quantity": pl.Float64,
    "price": pl.Float64,
    "realised_pnl": pl.Float64,
}
ACTIVITIES = {
    "activity_type": pl.String,
    "symbol": pl.String,
    "quantity": pl.Float64,
    "net_amount": pl.Float64,
    "realised_pnl": pl.Float64,
}
TARGETS = {"strategy": pl.String, "symbol": pl.String, "target_quantity": pl.Float64}


def split_day(  # noqa: PLR0917
    before=(), after=(), fills=(), activities=(), targets=(), previous=(), equity=(0.0, 0.0)
):
    frame = daily_profit_and_loss(
        DAY,
        before=pl.DataFrame(list(before), schema=POSITIONS, orient="row"),
        after=pl.DataFrame(list(after), schema=POSITIONS, orient="row"),
        fills=pl.DataFrame(list(fills), schema=FILLS, orient="row"),
        activities=pl.DataFrame(list(activities), schema=ACTIVITIES, orient="row"),
        targets=pl.DataFrame(list(targets), schema=TARGETS, orient="row"),
        previous_targets=pl.DataFrame(list(previous), schema=TARGETS, orient="row"),
        equity_before=equity[0],
        equity_after=equity[1],
    )
    return frame, {(row["strategy"], row["symbol"]): row for row in frame.iter_rows(named=True)}


def residual(rows):
    return rows[(UNATTRIBUTED, RESIDUAL)]["pnl"]


def test_purchase_marked_at_the_close():
    _, rows = split_day(
        after=[("A", 10, 103.0)],
        fills=[("A", "buy", 6, 100.0, 0.0), ("A", "buy", 4, 101.0, 0.0)],
        targets=[("momentum", "A", 10)],
        equity=(10_000, 10_000 - 1_004 + 1_030),
    )
    own = rows[("momentum", "A")]
    assert own["pnl"] == pytest.approx(26.0)
    assert own["notional_traded"] == pytest.approx(1_004.0)
    assert own["market_value"] == pytest.approx(1_030.0)
    assert own["quantity"] == pytest.approx(10)
    assert residual(rows) == pytest.approx(0.0, abs=1e-9)


def test_overnight_profit_goes_to_those_who_held():
    """One strategy holds, another only joins today: the night is not the newcomer's."""
    _, rows = split_day(
        before=[("A", 10, 100.0)],
        after=[("A", 15, 110.0)],
        fills=[("A", "buy", 5, 108.0, 0.0)],
        previous=[("old", "A", 10)],
        targets=[("old", "A", 10), ("new", "A", 5)],
        equity=(10_000, 10_000 + 100 + 10),
    )
    assert rows[("old", "A")]["pnl"] == pytest.approx(100.0)
    assert rows[("new", "A")]["pnl"] == pytest.approx(10.0)
    assert rows[("old", "A")]["notional_traded"] == 0.0
    assert residual(rows) == pytest.approx(0.0, abs=1e-9)


def test_long_and_short_sleeves_of_one_symbol_cross():
    """A long and a short of one symbol: the account holds the difference, each earns its own."""
    _, rows = split_day(
        before=[("A", 6, 100.0)],
        after=[("A", 6, 101.0)],
        previous=[("long", "A", 10), ("short", "A", -4)],
        targets=[("long", "A", 10), ("short", "A", -4)],
        equity=(10_000, 10_006),
    )
    assert rows[("long", "A")]["pnl"] == pytest.approx(10.0)
    assert rows[("short", "A")]["pnl"] == pytest.approx(-4.0)


def test_partial_fill_is_shared_by_those_who_wanted_it():
    _, rows = split_day(
        after=[("A", 30, 10.0)],
        fills=[("A", "buy", 30, 9.0, 0.0)],
        targets=[("one", "A", 40), ("two", "A", 20)],
        equity=(1_000, 1_030),
    )
    assert rows[("one", "A")]["quantity"] == pytest.approx(20)
    assert rows[("two", "A")]["quantity"] == pytest.approx(10)
    assert rows[("one", "A")]["pnl"] == pytest.approx(20.0)


def test_strategy_without_a_target_keeps_its_sleeve():
    """A strategy that failed today is not thought to have sold."""
    _, rows = split_day(
        before=[("A", 20, 10.0)],
        after=[("A", 15, 12.0)],
        fills=[("A", "sell", 5, 11.0, 5.0)],
        previous=[("failed", "A", 10), ("seller", "A", 10)],
        targets=[("seller", "A", 5)],
        equity=(1_000, 1_000 + 20 * 2 - 5),
    )
    assert rows[("failed", "A")]["quantity"] == pytest.approx(10)
    assert rows[("failed", "A")]["pnl"] == pytest.approx(20.0)
    assert rows[("seller", "A")]["pnl"] == pytest.approx(10 * 2 - 5 * 1.0)
    assert rows[("seller", "A")]["realised_pnl"] == pytest.approx(5.0)


def test_closed_position_needs_no_mark():
    _, rows = split_day(
        before=[("A", 10, 100.0)],
        fills=[("A", "sell", 10, 97.0, -50.0)],
        previous=[("s", "A", 10)],
        targets=[("s", "A", 0)],
        equity=(5_000, 4_970),
    )
    assert rows[("s", "A")]["pnl"] == pytest.approx(-30.0)
    assert rows[("s", "A")]["quantity"] == pytest.approx(0.0)
    assert residual(rows) == pytest.approx(0.0, abs=1e-9)


def test_short_pays_the_dividend_and_a_split_is_no_profit():
    _, rows = split_day(
        before=[("A", -10, 100.0), ("B", 10, 200.0)],
        after=[("A", -10, 99.0), ("B", 40, 50.0)],
        activities=[("DIV", "A", 10.0, -20.0, 0.0), ("SPLIT", "B", 30.0, 0.0, 0.0)],
        previous=[("s", "A", -10), ("s", "B", 10)],
        targets=[("s", "A", -10), ("s", "B", 40)],
        equity=(10_000, 10_000 + 10 - 20),
    )
    assert rows[("s", "A")]["pnl"] == pytest.approx(-10.0)
    assert rows[("s", "A")]["dividends"] == pytest.approx(-20.0)
    assert rows[("s", "B")]["pnl"] == pytest.approx(0.0)
    assert rows[("s", "B")]["quantity"] == pytest.approx(40)
    assert rows[("s", "B")]["notional_traded"] == 0.0


def test_fees_interest_and_deposits():
    """A fee is a cost, interest belongs to nobody, a deposit is no profit."""
    _, rows = split_day(
        after=[("A", 10, 10.0)],
        fills=[("A", "buy", 10, 10.0, 0.0)],
        activities=[
            ("FEE", "A", None, -1.5, 0.0),
            ("FEE", None, None, -0.5, 0.0),
            ("INT", None, None, 3.0, 0.0),
            ("CSD", None, None, 5_000.0, 0.0),
        ],
        targets=[("s", "A", 10)],
        equity=(1_000, 1_000 - 1.5 - 0.5 + 3 + 5_000),
    )
    assert rows[("s", "A")]["pnl"] == pytest.approx(-1.5)
    assert rows[("s", "A")]["cost"] == pytest.approx(1.5)
    assert rows[(UNATTRIBUTED, CASH)]["pnl"] == pytest.approx(2.5)
    assert rows[(UNATTRIBUTED, CASH)]["cost"] == pytest.approx(0.5)
    assert residual(rows) == pytest.approx(0.0, abs=1e-9)


def test_shares_and_money_from_nowhere_are_shown_not_spread():
    _, rows = split_day(
        before=[("A", 10, 10.0)],
        after=[("A", 15, 10.0)],
        previous=[("s", "A", 10)],
        targets=[("s", "A", 10)],
        equity=(1_000, 1_057),
    )
    assert rows[("s", "A")]["pnl"] == pytest.approx(0.0)
    assert rows[(UNATTRIBUTED, "A")]["pnl"] == pytest.approx(50.0)
    assert residual(rows) == pytest.approx(7.0)


def test_position_of_no_strategy_is_unattributed():
    _, rows = split_day(before=[("X", 1, 10.0)], after=[("X", 1, 13.0)], equity=(10, 13))
    assert rows[(UNATTRIBUTED, "X")]["pnl"] == pytest.approx(3.0)


def test_day_without_anything_has_its_residual_row():
    frame, rows = split_day()
    assert frame.height == 1
    assert residual(rows) == 0.0
    assert frame["trading_session"].to_list() == [DAY]


quantities = st.integers(-50, 50)
prices = st.floats(1, 500)


@st.composite
def trading_days(draw):
    """Random holdings, fills of both sides, splits, dividends, fees, targets that do not add up."""
    symbols = [f"S{i}" for i in range(draw(st.integers(1, 5)))]
    before, after, fills, activities, targets, previous = [], [], [], [], [], []
    cash = 0.0
    for symbol in symbols:
        held = draw(quantities)
        mark_before, mark = draw(prices), draw(prices)
        if held:
            before.append((symbol, held, mark_before))
        if held and draw(st.booleans()):
            activities.append(("SPLIT", symbol, float(held), 0.0, 0.0))
            held *= 2
        if draw(st.booleans()):
            paid = draw(st.floats(-100, 100))
            activities.append(
                (draw(st.sampled_from(["DIV", "FEE", "MA"])), symbol, None, paid, 0.0)
            )
            cash += paid
        for _ in range(draw(st.integers(0, 3))):
            side, quantity, price = (
                draw(st.sampled_from(["buy", "sell"])),
                draw(st.integers(1, 30)),
                draw(prices),
            )
            fills.append((symbol, side, quantity, price, 0.0))
            sign = 1 if side == "buy" else -1
            held += sign * quantity
            cash -= sign * quantity * price
        if held:
            after.append((symbol, held, mark))
        for strategy in ("one", "two"):
            if draw(st.booleans()):
                previous.append((strategy, symbol, draw(quantities)))
            if draw(st.booleans()):
                targets.append((strategy, symbol, draw(quantities)))
    value = [sum(row[1] * row[2] for row in rows) for rows in (before, after)]
    equity = (100_000 + value[0], 100_000 + cash + value[1])
    return before, after, fills, activities, targets, previous, equity


@given(trading_days())
@settings(max_examples=200, deadline=None)
def test_every_cent_is_on_some_row_and_none_in_the_residual(day):
    """Whatever the targets say: profit adds up to the change of equity, sleeves to positions."""
    before, after, fills, activities, targets, previous, equity = day
    frame, rows = split_day(before, after, fills, activities, targets, previous, equity)
    assert frame["pnl"].sum() == pytest.approx(equity[1] - equity[0], abs=1e-6)
    assert residual(rows) == pytest.approx(0.0, abs=1e-6)
    assert frame["notional_traded"].sum() == pytest.approx(
        sum(quantity * price for _, _, quantity, price, _ in fills)
    )
    held = {symbol: quantity for symbol, quantity, _ in after}
    sleeves = frame.group_by("symbol").agg(pl.col("quantity").sum())
    for symbol, quantity in sleeves.filter(pl.col("symbol") != RESIDUAL).iter_rows():
        assert quantity == pytest.approx(held.get(symbol, 0), abs=1e-9)


def test_a_busted_fill_does_not_count():
    """It has no shares any more; what it was said to have realised is taken back by its correction."""
    _, rows = split_day(
        after=[("A", 4, 103.0)],
        fills=[("A", "buy", 0, 100.0, 0.0), ("A", "buy", 4, 101.0, 0.0), ("B", "buy", 0, 9.0, 0.0)],
        targets=[("momentum", "A", 10), ("momentum", "B", 10)],
        equity=(10_000, 10_008),
    )
    assert rows[("momentum", "A")]["pnl"] == pytest.approx(8.0)
    assert rows[("momentum", "A")]["notional_traded"] == pytest.approx(404.0)
    assert ("momentum", "B") not in rows
    assert residual(rows) == pytest.approx(0.0, abs=1e-9)


def test_a_late_bust_is_a_change_of_its_own_session():
    """Ten shares of yesterday never were: they go at the price that was paid, to those who held them."""
    _, rows = split_day(
        before=[("A", 30, 102.0)],
        after=[("A", 20, 105.0)],
        activities=[(CORRECTION, "A", -10.0, 1_000.0, 0.0)],
        previous=[("one", "A", 30)],
        targets=[("one", "A", 30)],
        equity=(10_000, 10_000 + 20 * 3 - 10 * 2),
    )
    assert rows[("one", "A")]["pnl"] == pytest.approx(40.0)
    assert rows[("one", "A")]["quantity"] == pytest.approx(20)
    assert rows[("one", "A")]["notional_traded"] == 0.0
    assert residual(rows) == pytest.approx(0.0, abs=1e-9)


def test_a_corrected_price_is_cash_and_no_shares():
    """Yesterday's purchase was a dollar dearer than it was said to be."""
    _, rows = split_day(
        before=[("A", 10, 102.0)],
        after=[("A", 10, 102.0)],
        activities=[(CORRECTION, "A", 0.0, -10.0, 0.0)],
        previous=[("one", "A", 10)],
        equity=(10_000, 9_990),
    )
    assert rows[("one", "A")]["pnl"] == pytest.approx(-10.0)
    assert residual(rows) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("sold_out", [False, True])
def test_a_trade_by_hand_is_nobodys_and_explained(sold_out):
    """No strategy wanted it: its profit stands by itself, and the strategy's is what it would have been."""
    held = 0 if sold_out else 16
    shares = held - 10
    _, rows = split_day(
        before=[("A", 10, 100.0)],
        after=[("A", held, 110.0)] if held else [],
        activities=[(MANUAL_TRADE, "A", float(shares), -shares * 108.0, 80.0 if sold_out else 0.0)],
        previous=[("one", "A", 10)],
        targets=[("one", "A", 10)],
        equity=(10_000, 10_000 + held * 110.0 - 1_000 - shares * 108.0),
    )
    by_hand = rows[(UNATTRIBUTED, "A")]
    assert by_hand["quantity"] == pytest.approx(shares)
    assert by_hand["pnl"] + rows.get(("one", "A"), {"pnl": 0.0})["pnl"] == pytest.approx(
        held * 110.0 - 1_000 - shares * 108.0
    )
    assert by_hand["realised_pnl"] == (80.0 if sold_out else 0.0)
    if not sold_out:
        assert rows[("one", "A")]["pnl"] == pytest.approx(100.0)
    assert residual(rows) == pytest.approx(0.0, abs=1e-9)
