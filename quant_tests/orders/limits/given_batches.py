"""Batches for tests of the limits: single orders by hand, and whatever hypothesis can think of.

The drawn ones are hostile: numbers that are none, zero, negative or huge, facts that are missing, symbols
that are queries, orders that say they reduce and do not. The planned ones come from the real netting.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from quant_assets.orders.intents import BatchKey, Intent, net_intents
from quant_assets.orders.limits import Batch
from quant_assets.orders.policy import Limits, OrderStyle
from quant_assets.orders.target_portfolio import Target
from quant_resources.broker import Asset, BrokerOrder, Quote
from quant_resources.ledger.order_states import OrderState

NOW = datetime(2024, 3, 4, 13, 30, tzinfo=UTC)
DEADLINE = datetime(2024, 3, 4, 20, 45, tzinfo=UTC)
ASSETS = {
    "AAA": Asset("AAA", tradable=True, shortable=True, fractionable=True),
    "BBB": Asset("BBB", tradable=True, shortable=False, fractionable=False),
    "CCC": Asset("CCC", tradable=True, shortable=True, fractionable=True),
    "DDD": Asset("DDD", tradable=True, shortable=True, fractionable=False),
    "EEE": Asset("EEE", tradable=True, shortable=True, fractionable=True),
    "FFF": Asset("FFF", tradable=True, shortable=True, fractionable=True),
    "GGG": Asset("GGG", tradable=True, shortable=True, fractionable=True),
    "GONE": Asset("GONE", tradable=False, shortable=False, fractionable=False),
}
NAMES = tuple(ASSETS)
HOSTILE = ("x'; DROP TABLE orders; --", "$(reboot)", "", "aaa", "A" * 200, "ÄÖÜ", "AAA\n")


def intent(symbol: str, change: str, price: str = "100", **more: Any) -> Intent:
    """An intent of `change` shares."""
    shares = Decimal(change)
    leg = more.pop("leg", 1)
    return Intent(
        **{
            "client_order_id": f"id-{symbol}-{leg}",
            "symbol": symbol,
            "security_id": f"{symbol}@2024-03-01",
            "leg": leg,
            "side": "buy" if shares > 0 else "sell",
            "quantity": abs(shares),
            "reduces": False,
            "reference_price": Decimal(price),
            "deadline": DEADLINE,
            "reason": "test",
            **more,
        }
    )


def open_order(symbol: str, change: str, **more: Any) -> BrokerOrder:
    """An order that the broker may still fill."""
    shares = Decimal(change)
    return BrokerOrder(
        **{
            "broker_order_id": f"broker-{symbol}-{change}",
            "client_order_id": f"open-{symbol}-{change}",
            "symbol": symbol,
            "side": "buy" if shares > 0 else "sell",
            "quantity": abs(shares),
            "order_type": "market",
            "filled_quantity": Decimal(0),
            "average_fill_price": None,
            "status": "new",
            "submitted_at": NOW,
            "updated_at": NOW,
            "raw": {},
            **more,
        }
    )


def batch(*intents: Intent, **more: Any) -> Batch:
    """A batch of an account with 100,000 USD in a market where everything costs 100 USD."""
    defaults: dict[str, Any] = {
        "positions": {},
        "prices": dict.fromkeys(NAMES, Decimal(100)),
        "price_ages": dict.fromkeys([*NAMES, "ZZZ"], timedelta(minutes=2)),
        "equity": Decimal(100_000),
        "buying_power": Decimal(200_000),
        "assets": ASSETS,
        "trading_state": "ACTIVE",
        "account_blocked": False,
        "shorting_enabled": True,
        "limits": limits(),
        "quotes": {name: quote(name) for name in [*NAMES, "ZZZ"]},
        "last_trades": {},
        "volumes": dict.fromkeys([*NAMES, "ZZZ"], Decimal(1_000_000)),
        "open_orders": [],
        "used_ids": frozenset(),
        "daily_loss": Decimal(0),
        "drawdown": Decimal(0),
        "now": NOW,
    }
    return Batch(intents=intents, **(defaults | more))


def quote(symbol: str, bid: str = "99.99", ask: str = "100.01") -> Quote:
    """A quote of now."""
    return Quote(symbol, Decimal(bid), Decimal(ask), NOW)


def limits(**changes: Any) -> Limits:
    """The default bounds, some of them changed."""
    return Limits.model_validate(changes)


absurd = st.sampled_from(
    [Decimal(text) for text in ("NaN", "sNaN", "Infinity", "-Infinity", "0", "-1", "1e30", "1e-12")]
)
names: st.SearchStrategy[str] = st.sampled_from(("AAA", "BBB", "CCC", "DDD", "EEE", "FFF", "GGG"))
anything: st.SearchStrategy[str] = st.sampled_from((*NAMES, "ZZZ"))


def mostly(
    good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any], one_in: int = 60
) -> st.SearchStrategy[Any]:
    """Nearly always something of this world: else nothing ever passes and nothing is tested."""
    return st.integers(1, one_in).flatmap(lambda n: bad if n == one_in else good)


def amounts(low: int, high: int, places: int = 0) -> st.SearchStrategy[Decimal]:
    """Decimals of so many places."""
    return st.integers(low * 10**places, high * 10**places).map(
        lambda n: Decimal(n).scaleb(-places)
    )


shares = mostly(st.one_of(amounts(1, 40), amounts(1, 300)), amounts(1, 40, 3), 8)
signed = mostly(st.one_of(amounts(-40, 40), amounts(-300, 300)), amounts(-40, 40, 2), 8)
near = mostly(
    st.sampled_from([Decimal(text) for text in ("97.5", "99", "100", "101", "104")]),
    st.sampled_from([Decimal(90), Decimal(120)]),
    10,
)
prices = mostly(near, absurd)


@st.composite
def raw_intents(draw: st.DrawFn, positions: dict[str, Decimal]) -> Intent:
    """An order as nobody should have made it."""
    symbol = draw(mostly(names, st.one_of(anything, anything, st.sampled_from(HOSTILE)), 15))
    order_type = draw(st.sampled_from(["market", "market", "limit", "stop"]))
    leg = draw(mostly(st.just(1), st.just(2), 8))
    bracket = draw(st.integers(0, 9)) == 0
    side = draw(st.sampled_from(["buy", "sell"]))
    below, above = draw(mostly(st.just((Decimal(90), Decimal(110))), st.tuples(prices, prices)))
    quantity = draw(mostly(shares, absurd))
    by_dollars = draw(st.integers(0, 9)) == 0 and quantity.is_finite()
    held = positions.get(symbol, Decimal(0))
    closes = quantity.is_finite() and held.is_finite() and quantity <= abs(held)
    honest = closes and (held > 0) == (side == "sell")
    return intent(
        symbol,
        "1",
        client_order_id=draw(
            mostly(
                st.integers(0, 9_999).map(lambda n: f"id-{symbol[:9]}-{leg}-{n}"),
                st.sampled_from(["", "x" * 129, "used", "open-AAA-5", "same"]),
                15,
            )
        ),
        leg=leg,
        side=side,
        quantity=quantity,
        notional=quantity * 100 if by_dollars else None,
        reduces=draw(mostly(st.just(honest), st.booleans(), 10)),
        reference_price=draw(mostly(st.just(Decimal(100)), prices, 8)),
        order_type=order_type,
        time_in_force=draw(mostly(st.just("day"), st.sampled_from(["gtc", "opg", "cls"]), 5)),
        limit_price=draw(prices) if order_type == "limit" else None,
        stop_price=(
            draw(mostly(st.just(Decimal(105 if side == "buy" else 95)), prices, 8))
            if order_type == "stop"
            else None
        ),
        take_profit_price=(above if side == "buy" else below) if bracket else None,
        stop_loss_price=(below if side == "buy" else above) if bracket else None,
    )


@st.composite
def planned_intents(
    draw: st.DrawFn, positions: dict[str, Decimal], entries: list[BrokerOrder]
) -> list[Intent]:
    """Orders as the real netting makes them of targets."""
    wanted = draw(st.dictionaries(names, st.one_of(signed, shares), min_size=1))
    style = draw(
        st.sampled_from(
            [
                OrderStyle.model_validate(fields)
                for fields in (
                    {},
                    {},
                    {"order_type": "limit"},
                    {"order_type": "stop"},
                    {"brackets": True},
                    {"order_type": "limit", "time_in_force": "gtc"},
                    {"sizing": "notional"},
                )
            ]
        )
    )
    targets = [
        Target(
            strategy="alpha",
            symbol=symbol,
            security_id=f"{symbol}@2024-03-01",
            signal_session=date(2024, 3, 1),
            score=None,
            target_weight=Decimal(0),
            target_quantity=quantity,
            reference_price=Decimal(100),
            reason="test",
            model_version="1",
            priced_at=NOW,
        )
        for symbol, quantity in wanted.items()
    ]
    held = {symbol: number for symbol, number in positions.items() if number.is_finite()}
    open_quantities: dict[str, Decimal] = {}
    for order in entries:
        if not order.protects and order.filled_quantity.is_finite():
            left = open_quantities.get(order.symbol, Decimal(0))
            open_quantities[order.symbol] = left + order.remaining
    return net_intents(
        targets,
        held,
        open_quantities,
        key=BatchKey("account", "main", date(2024, 3, 4), 1),
        deadline=DEADLINE,
        smallest_trade=Decimal(1),
        style_of=lambda _strategies: style,
        assets=ASSETS,
    )


@st.composite
def open_orders(draw: st.DrawFn) -> BrokerOrder:
    """What may be open at a broker, its answer not always one."""
    limit = draw(st.booleans())
    dollars = draw(st.integers(0, 5)) == 0
    return open_order(
        draw(names),
        draw(st.sampled_from(["5", "-5", "40", "-40", "-100"])),
        **(
            {"quantity": None, "notional": draw(mostly(amounts(1, 900), absurd))} if dollars else {}
        ),
        order_type="limit" if limit else "market",
        limit_price=draw(prices) if limit else None,
        filled_quantity=draw(mostly(amounts(0, 4), absurd)),
        average_fill_price=draw(mostly(st.none(), absurd)),
        status=draw(st.sampled_from(["new", "partially_filled", "held", "filled", "canceled"])),
        parent_order_id=draw(st.sampled_from([None, None, "parent"])),
    )


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Whatever targets, positions, prices, open orders and quotes."""
    positions = draw(st.dictionaries(names, mostly(signed, absurd)))
    entries = draw(mostly(st.just([]), st.lists(open_orders(), min_size=1, max_size=3), 3))
    intents = draw(
        st.one_of(planned_intents(positions, entries), st.lists(raw_intents(positions), max_size=7))
    )
    fraction = mostly(
        st.sampled_from([Decimal(0), Decimal("0.01"), Decimal("-0.3")]),
        st.sampled_from([Decimal("0.05"), Decimal("0.2"), Decimal("0.5")]),
        10,
    )
    sides = mostly(st.just((Decimal(99), Decimal(101))), st.tuples(prices, prices), 20)
    return batch(
        *intents,
        positions=positions,
        open_orders=entries,
        prices={
            name: draw(mostly(st.just(Decimal(100)), prices, 30))
            for name in NAMES
            if draw(st.integers(0, 60))
        },
        price_ages={
            name: timedelta(minutes=draw(mostly(st.just(2), st.just(31), 40))) for name in NAMES
        },
        equity=draw(mostly(amounts(5_000, 200_000), absurd, 30)),
        buying_power=draw(mostly(amounts(-1_000, 100_000), absurd, 30)),
        trading_state=draw(
            mostly(st.just("ACTIVE"), st.sampled_from(["REDUCING", "HALTED", ""]), 10)
        ),
        account_blocked=draw(mostly(st.just(False), st.just(True), 30)),
        shorting_enabled=draw(mostly(st.just(True), st.just(False), 20)),
        quotes={
            name: quote(name, *map(str, draw(sides))) for name in NAMES if draw(st.integers(0, 15))
        },
        last_trades=draw(st.dictionaries(names, prices)),
        volumes={name: draw(mostly(amounts(500, 20_000), absurd)) for name in NAMES},
        used_ids=frozenset({"used"}),
        daily_loss=draw(mostly(fraction, st.one_of(st.none(), absurd), 30)),
        drawdown=draw(mostly(fraction, st.one_of(st.none(), absurd), 30)),
        sent_before=draw(st.sampled_from([0, 0, 0, 3])),
        limits=limits(
            name_weight=draw(st.sampled_from(["0.1", "0.3", "1"])),
            concentration=draw(st.sampled_from(["0.2", "0.6", "2", "4"])),
            gross_exposure=draw(st.sampled_from(["0.3", "1.5", "4"])),
            net_exposure=draw(st.sampled_from(["0.1", "1", "4"])),
            position_notional=draw(st.sampled_from([3_000, 500_000])),
            order_notional=draw(st.sampled_from([5_000, 250_000])),
            volume_share=draw(st.sampled_from(["0.05", "1"])),
            orders_per_session=draw(st.sampled_from([2, 5, 2_000, 2_000])),
            restricted=draw(mostly(st.just(()), st.just(("AAA",)), 8)),
        ),
    )


def waiting_leg(closing: Intent, change: str, **more: Any) -> Intent:
    """The second leg of a flip."""
    return intent(
        closing.symbol,
        change,
        leg=2,
        waits_for="leg",
        depends_on=closing.client_order_id,
        state=OrderState.WAITING,
        **more,
    )
