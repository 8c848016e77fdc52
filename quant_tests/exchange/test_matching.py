"""Laws of matching and of the account, for any order and any bar."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from quant_resources.exchange import matching
from quant_resources.exchange.account import Position, value
from quant_resources.exchange.orders import ZERO, Order, TradedBar, is_whole

_NOW = datetime(2024, 3, 5, 14, tzinfo=UTC)
_SESSION = date(2024, 3, 5)

cents = st.decimals("0.05", "500", places=2)
shares = st.one_of(st.integers(1, 100_000).map(Decimal), st.decimals("0.001", "1000", places=9))


@st.composite
def bars(draw: st.DrawFn) -> TradedBar:
    low, first, second, high = sorted(draw(st.lists(cents, min_size=4, max_size=4)))
    opened, closed = draw(st.permutations([first, second]))
    return TradedBar(_SESSION, opened, high, low, closed, Decimal(draw(st.integers(1, 10**6))))


@st.composite
def orders(draw: st.DrawFn) -> Order:
    by_amount = draw(st.booleans())
    limit = draw(st.one_of(st.none(), cents))
    stop = None if by_amount else draw(st.one_of(st.none(), cents))
    kinds = {(False, False): "market", (True, False): "limit", (False, True): "stop"}
    lives = ["day", "gtc"] if stop is not None else ["day", "gtc", "opg", "cls", "ioc", "fok"]
    return Order(
        sequence=1,
        order_id="o",
        client_order_id="c",
        symbol="ABC",
        side=draw(st.sampled_from(["buy", "sell"])),
        order_type=kinds.get((limit is not None, stop is not None), "stop_limit"),
        time_in_force=draw(st.sampled_from(lives)),
        quantity=None if by_amount else draw(shares),
        notional=draw(cents) if by_amount else None,
        limit_price=limit,
        stop_price=stop,
        close_only=draw(st.sampled_from([None, _SESSION])),
        triggered_at=draw(st.sampled_from([None, _NOW])),
        position_intent="",
        status="accepted",
        eligible_session=_SESSION,
        submitted_at=_NOW,
        updated_at=_NOW,
    )


@given(orders(), bars(), st.decimals("0.01", "1", places=2), st.decimals("0", "50", places=1))
def test_no_execution_breaks_the_volume_share_the_limit_or_the_costs(
    order: Order, bar: TradedBar, share: Decimal, bps: Decimal
) -> None:
    costs = matching.Costs(share, bps, bps)
    budget = costs.budget(bar)
    found = {
        "open": matching.at_open(order, bar, budget, costs),
        "session": matching.during(order, bar, budget),
        "close": matching.at_close(order, bar, budget, costs),
    }
    if matching.triggered_during(order, bar):
        found["stop"] = matching.at_stop(order, bar, budget, costs)
    for place, execution in found.items():
        if execution is None:
            continue
        assert ZERO < execution.quantity <= budget
        assert execution.quantity <= order.remaining(execution.price)
        if is_whole(order.quantity):
            assert is_whole(execution.quantity)
        if order.notional is not None:
            assert execution.quantity * execution.price <= order.notional
        if order.time_in_force == "fok":
            assert execution.quantity == order.remaining(execution.price)
        waits = order.time_in_force == "cls" or order.close_only is not None
        assert waits == (place == "close")
        assert order.waits_for_stop == (place == "stop")
        if order.limit_price is not None:
            assert (execution.price - order.limit_price) * order.sign <= 0
        elif place != "session":
            reference = {"open": bar.open, "close": bar.close}.get(place, order.stop_price)
            assert reference is not None
            assert (execution.price - reference) * order.sign >= 0 or reference < Decimal("0.001")
        if place == "session":
            assert bar.low <= execution.price <= bar.high


@given(orders(), bars())
def test_a_stop_is_triggered_in_one_place_and_only_where_the_price_was(
    order: Order, bar: TradedBar
) -> None:
    at_open = matching.triggered_at_open(order, bar)
    during = matching.triggered_during(order, bar)
    at_close = matching.triggered_at_close(order, bar)
    if order.stop_price is None or order.triggered_at is not None:
        assert (at_open, during, at_close) == (False, False, False)
        return
    assert not (at_close and during)
    assert during or not at_open
    if during:
        assert (bar.high if order.side == "buy" else -bar.low) >= order.stop_price * order.sign


@given(st.lists(st.tuples(st.integers(-500, 500).filter(bool), cents), min_size=1, max_size=30))
def test_cost_basis_realised_profit_and_cash_always_add_up(
    trades: list[tuple[int, Decimal]],
) -> None:
    """Equity at a price equals what was put in plus all profit, however the trades went."""
    cash, position = Decimal(10**6), Position("ABC", ZERO, ZERO)
    shares_held = 0
    for quantity, price in trades:
        position = position.after_trade(Decimal(quantity), price)
        cash -= quantity * price
        shares_held += quantity
        assert position.quantity == shares_held
        assert position.quantity != 0 or position.cost_basis == 0
        assert position.cost_basis * position.quantity >= 0
    last = trades[-1][1]
    valuation = value(cash, [position], {"ABC": last})
    assert valuation.equity == Decimal(10**6) + sum(q * (last - p) for q, p in trades)


@given(st.integers(-10_000, 10_000).filter(bool), cents, st.integers(1, 30), st.integers(1, 30))
def test_a_split_keeps_the_cost_and_the_shares_to_nine_decimals(
    quantity: int, price: Decimal, new: int, old: int
) -> None:
    position = Position("ABC", Decimal(quantity), quantity * price)
    after = position.after_split(Fraction(new, old))
    assert after.cost_basis == position.cost_basis
    assert abs(Fraction(after.quantity) - Fraction(quantity * new, old)) <= Fraction(1, 2 * 10**9)
