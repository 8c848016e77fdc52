"""Positions from their history: whatever order news comes in, incremental booking is a replay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from quant_assets.orders.position_history import (
    Event,
    History,
    Renamed,
    SharesChanged,
    Traded,
    played_after,
    realised_by,
)
from quant_assets.orders.positions import Holding

START = datetime(2024, 3, 4, 14, 30, tzinfo=UTC)
SYMBOLS = ("AAA", "BBB", "CCC")
#: Sums of amounts that were rounded to nine decimals, step by step.
TOLERANCE = Decimal("1e-5")

shares = st.integers(-300, 300).filter(bool).map(Decimal)
prices = st.decimals("0.01", "900", places=2)


@st.composite
def happenings(draw: st.DrawFn) -> list[Event]:
    """Trades, splits and renames of three symbols, at times that may coincide."""
    events: list[Event] = []
    for number in range(draw(st.integers(1, 14))):
        at = START + timedelta(hours=draw(st.integers(0, 60)))
        symbol = draw(st.sampled_from(SYMBOLS))
        name = f"e{number:02d}"
        kind = draw(st.sampled_from(("trade", "trade", "trade", "shares", "cash", "rename")))
        if kind == "trade":
            events.append(Traded(name, symbol, draw(shares), draw(prices), at))
        elif kind == "rename":
            old = draw(st.sampled_from([one for one in SYMBOLS if one != symbol]))
            events.append(Renamed(name, old, symbol, at))
        else:
            money = draw(prices) if kind == "cash" else Decimal(0)
            events.append(SharesChanged(name, symbol, draw(shares), money, at))
    return events


opened = st.dictionaries(
    st.sampled_from(SYMBOLS), st.builds(Holding, shares, prices), max_size=len(SYMBOLS)
)


@given(opened, happenings(), st.randoms(use_true_random=False))
def test_booking_in_any_order_is_a_replay(
    opening: dict[str, Holding], events: list[Event], random: object
) -> None:
    """News that come late, early or together leave the same positions; the realised profit adds up."""
    random.shuffle(events)  # pyright: ignore[reportAttributeAccessIssue]
    history, held, realised = History.of(opening, ()), dict(opening), Decimal(0)
    for event in events:
        after = (
            played_after(held, event)
            if history.is_newest(event)
            else history.with_event(event).holdings()
        )
        realised += realised_by(held, after)
        history, held = history.with_event(event), after
    replayed = History.of(opening, events).holdings()
    assert held == replayed
    assert realised == sum((one.realised_pnl for one in replayed.values()), Decimal(0))


@given(opened, happenings(), st.data())
def test_a_correction_is_as_if_it_had_always_been_so(
    opening: dict[str, Holding], events: list[Event], data: st.DataObject
) -> None:
    """A busted trade never was, a corrected one was always what it is now, whatever was traded since."""
    history = History.of(opening, events)
    trades = [event for event in events if isinstance(event, Traded)]
    if not trades:
        return
    wrong = data.draw(st.sampled_from(trades))
    without = [event for event in events if event is not wrong]
    busted = history.with_event(
        Traded(wrong.reference, wrong.symbol, Decimal(0), wrong.price, wrong.at)
    )
    expected = History.of(opening, without).holdings()
    assert _without_nothing(busted.holdings()) == _without_nothing(expected)
    right = Traded(wrong.reference, wrong.symbol, data.draw(shares), data.draw(prices), wrong.at)
    again = busted.with_event(right)
    assert again.holdings() == History.of(opening, [*without, right]).holdings()


@given(happenings())
def test_profit_is_cash_plus_holdings(events: list[Event]) -> None:
    """Over trades alone: what was realised is the cash that came in plus what the rest has cost."""
    trades = [event for event in events if isinstance(event, Traded)]
    held = History.of({}, trades).holdings()
    cash = -sum((trade.change * trade.price for trade in trades), Decimal(0))
    cost = sum((one.quantity * one.average_price for one in held.values()), Decimal(0))
    realised = sum((one.realised_pnl for one in held.values()), Decimal(0))
    assert abs(realised - (cash + cost)) <= TOLERANCE


def test_a_split_comes_before_the_fills_of_its_day() -> None:
    """Both booked in one sync: half of the new shares sold at the new price realise nothing."""
    midnight = START.replace(hour=5, minute=0)
    events = [
        Traded("sold", "AAA", Decimal(-10), Decimal(50), START),
        SharesChanged("split", "AAA", Decimal(10), Decimal(0), midnight),
    ]
    held = History.of({"AAA": Holding(Decimal(10), Decimal(100))}, events).holdings()["AAA"]
    assert held == Holding(Decimal(10), Decimal(50), Decimal(0))


def test_a_rename_takes_the_cost_along_and_adds_to_what_is_held() -> None:
    """The new symbol may be held already; what was realised stays with the old one."""
    opening = {"OLD": Holding(Decimal(10), Decimal(30)), "NEW": Holding(Decimal(10), Decimal(10))}
    renamed = Renamed("rename", "OLD", "NEW", START)
    held = History.of(opening, [renamed]).holdings()
    assert held == {"OLD": Holding(), "NEW": Holding(Decimal(20), Decimal(20))}


def _without_nothing(holdings: dict[str, Holding]) -> dict[str, Holding]:
    return {symbol: held for symbol, held in holdings.items() if held != Holding()}
