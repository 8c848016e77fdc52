"""Every limit at its bound and beyond, what refusals do to each other, and what a refusal keeps."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import pytest

from quant_assets.orders.intents import Intent
from quant_assets.orders.limits import LIMITS, Batch, Refusal, RiskLimit, apply_limits
from quant_resources.broker import Asset, Quote
from quant_resources.ledger.order_states import OrderState
from quant_tests.orders.limits.batch_oracle import Oracle
from quant_tests.orders.limits.given_batches import (
    ASSETS,
    HOSTILE,
    NOW,
    batch,
    intent,
    limits,
    open_order,
    quote,
    waiting_leg,
)

BUY, SELL = intent("AAA", "10"), intent("AAA", "-10")
CLOSE = intent("AAA", "-10", reduces=True)
HELD = {"AAA": Decimal(10)}
LIMIT_ORDER: Final[dict[str, Any]] = {"order_type": "limit", "limit_price": Decimal(100)}
#: Limit, a batch at its bound, a batch beyond it.
CASES: list[tuple[str, Batch, Batch]] = [
    ("quantity", batch(BUY), batch(intent("AAA", "1000000000"))),
    ("quantity", batch(BUY), batch(replace(BUY, quantity=Decimal("NaN")))),
    ("quantity", batch(BUY), batch(replace(BUY, quantity=Decimal("-1")))),
    ("quantity", batch(BUY), batch(replace(BUY, reference_price=Decimal("Infinity")))),
    ("quantity", batch(BUY), batch(replace(BUY, client_order_id="x" * 129))),
    ("quantity", batch(BUY), batch(replace(BUY, notional=Decimal(2_000)))),
    ("quantity", batch(CLOSE, positions=HELD), batch(CLOSE, positions={"AAA": Decimal(9)})),
    (
        "quantity",
        batch(CLOSE, positions=HELD, open_orders=[open_order("BBB", "-1")]),
        batch(CLOSE, positions=HELD, open_orders=[open_order("AAA", "-1")]),
    ),
    ("duplicate", batch(BUY), batch(BUY, used_ids=frozenset({BUY.client_order_id}))),
    (
        "duplicate",
        batch(BUY),
        batch(BUY, open_orders=[open_order("BBB", "5", client_order_id="id-AAA-1")]),
    ),
    (
        "trading_state",
        batch(CLOSE, positions=HELD, trading_state="REDUCING"),
        batch(BUY, trading_state="REDUCING"),
    ),
    ("trading_state", batch(BUY), batch(CLOSE, positions=HELD, trading_state="HALTED")),
    ("trading_state", batch(BUY), batch(BUY, trading_state="ASLEEP")),
    ("account", batch(BUY), batch(BUY, account_blocked=True)),
    ("account", batch(BUY), batch(BUY, equity=Decimal(0))),
    ("account", batch(BUY), batch(BUY, equity=Decimal("NaN"))),
    (
        "restricted",
        batch(BUY, limits=limits(restricted=("BBB",))),
        batch(BUY, limits=limits(restricted=("AAA",))),
    ),
    ("tradable", batch(BUY), batch(intent("GONE", "10"))),
    ("tradable", batch(BUY), batch(intent("ZZZ", "10"))),
    ("tradable", batch(BUY), batch(BUY, assets={"AAA": replace(ASSETS["AAA"], active=False)})),
    ("shortable", batch(SELL), batch(intent("BBB", "-10"))),
    ("shortable", batch(SELL), batch(SELL, shorting_enabled=False)),
    ("order_rules", batch(intent("AAA", "0.5")), batch(intent("BBB", "0.5"))),
    ("order_rules", batch(SELL), batch(intent("AAA", "-10.5"))),
    ("order_rules", batch(BUY), batch(replace(BUY, limit_price=Decimal(100)))),
    (
        "self_cross",
        batch(BUY, open_orders=[open_order("AAA", "5")]),
        batch(BUY, open_orders=[open_order("AAA", "-5")]),
    ),
    (
        "self_cross",
        batch(
            replace(BUY, **LIMIT_ORDER),
            open_orders=[
                open_order("AAA", "-5", order_type="limit", limit_price=Decimal("100.01"))
            ],
        ),
        batch(
            replace(BUY, **LIMIT_ORDER),
            open_orders=[open_order("AAA", "-5", order_type="limit", limit_price=Decimal(100))],
        ),
    ),
    (
        "stale_quote",
        batch(BUY, price_ages={"AAA": timedelta(minutes=30)}),
        batch(BUY, price_ages={"AAA": timedelta(minutes=30, seconds=1)}),
    ),
    (
        "stale_quote",
        batch(CLOSE, positions=HELD),
        batch(CLOSE, positions=HELD, price_ages={"AAA": timedelta(days=1)}),
    ),
    ("stale_quote", batch(BUY), batch(BUY, price_ages={})),
    (
        "price_collar",
        batch(intent("AAA", "10", "105"), quotes={"AAA": quote("AAA", "100", "100")}),
        batch(intent("AAA", "10", "105.01"), quotes={"AAA": quote("AAA", "100", "100")}),
    ),
    (
        "price_collar",
        batch(BUY, quotes={}, last_trades={"AAA": Decimal(100)}),
        batch(BUY, quotes={}),
    ),
    (
        "price_collar",
        batch(BUY, last_trades={"AAA": Decimal(100)}, quotes={"AAA": quote("AAA", "50", "400")}),
        batch(BUY, quotes={"AAA": quote("AAA", "50", "400")}),
    ),
    (
        "price_collar",
        batch(CLOSE, positions=HELD, quotes={"AAA": quote("AAA", "80", "80")}),
        batch(
            replace(CLOSE, **LIMIT_ORDER),
            positions=HELD,
            quotes={"AAA": quote("AAA", "80", "80")},
        ),
    ),
    (
        "order_notional",
        batch(intent("AAA", "50"), limits=limits(order_notional=5_000)),
        batch(intent("AAA", "50.01"), limits=limits(order_notional=5_000)),
    ),
    (
        "order_notional",
        batch(replace(intent("AAA", "50"), **LIMIT_ORDER), limits=limits(order_notional=5_000)),
        batch(
            replace(intent("AAA", "50"), order_type="limit", limit_price=Decimal("100.01")),
            limits=limits(order_notional=5_000),
        ),
    ),
    (
        "volume_share",
        batch(BUY, volumes={"AAA": Decimal(200)}),
        batch(BUY, volumes={"AAA": Decimal(199)}),
    ),
    (
        "volume_share",
        batch(BUY, volumes={"AAA": Decimal(220)}, open_orders=[open_order("AAA", "1")]),
        batch(BUY, volumes={"AAA": Decimal(200)}, open_orders=[open_order("AAA", "1")]),
    ),
    (
        "volume_share",
        batch(CLOSE, positions=HELD, volumes={}),
        batch(BUY, volumes={}),
    ),
    (
        "daily_loss",
        batch(BUY, daily_loss=Decimal("0.0499")),
        batch(BUY, daily_loss=Decimal("0.05")),
    ),
    (
        "daily_loss",
        batch(CLOSE, positions=HELD, daily_loss=Decimal(1)),
        batch(BUY, daily_loss=None),
    ),
    ("drawdown", batch(BUY, drawdown=Decimal("0.1999")), batch(BUY, drawdown=Decimal("0.2"))),
    ("drawdown", batch(CLOSE, positions=HELD, drawdown=None), batch(BUY, drawdown=None)),
    (
        "orders_per_session",
        batch(BUY, limits=limits(orders_per_session=1)),
        batch(BUY, intent("BBB", "10"), limits=limits(orders_per_session=1)),
    ),
    (
        "orders_per_session",
        batch(BUY, limits=limits(orders_per_session=3), sent_before=2),
        batch(BUY, limits=limits(orders_per_session=3), sent_before=3),
    ),
    (
        "position_size",
        batch(intent("AAA", "40"), positions=HELD, limits=limits(position_notional=5_000)),
        batch(intent("AAA", "41"), positions=HELD, limits=limits(position_notional=5_000)),
    ),
    ("name_weight", batch(intent("AAA", "100")), batch(intent("AAA", "101"))),
    (
        "name_weight",
        batch(intent("AAA", "40"), open_orders=[open_order("AAA", "60")]),
        batch(intent("AAA", "41"), open_orders=[open_order("AAA", "60")]),
    ),
    (
        "concentration",
        batch(
            *(intent(name, "40") for name in ("AAA", "CCC")), limits=limits(concentration="0.08")
        ),
        batch(
            *(intent(name, "41") for name in ("AAA", "CCC")), limits=limits(concentration="0.08")
        ),
    ),
    (
        "gross_exposure",
        batch(
            intent("AAA", "100"),
            positions={"BBB": Decimal(-1400)},
            limits=limits(net_exposure=4, concentration=4),
        ),
        batch(
            intent("AAA", "100"),
            positions={"BBB": Decimal(-1401)},
            limits=limits(net_exposure=4, concentration=4),
        ),
    ),
    (
        "net_exposure",
        batch(
            intent("AAA", "100"), positions={"BBB": Decimal(900)}, limits=limits(concentration=4)
        ),
        batch(
            intent("AAA", "100"), positions={"BBB": Decimal(901)}, limits=limits(concentration=4)
        ),
    ),
    (
        "net_exposure",
        batch(
            intent("AAA", "-100"), positions={"BBB": Decimal(-900)}, limits=limits(concentration=4)
        ),
        batch(
            intent("AAA", "-100"), positions={"BBB": Decimal(-901)}, limits=limits(concentration=4)
        ),
    ),
    (
        "buying_power",
        batch(intent("AAA", "98"), buying_power=Decimal(10_000)),
        batch(intent("AAA", "98.01"), buying_power=Decimal(10_000)),
    ),
    (
        "buying_power",
        batch(intent("AAA", "-95"), buying_power=Decimal(10_000)),
        batch(intent("AAA", "-96"), buying_power=Decimal(10_000)),
    ),
    ("buying_power", batch(BUY), batch(BUY, buying_power=Decimal("NaN"))),
]


def refused(outcome: list[Intent]) -> dict[str, str | None]:
    """Id → limit of what was refused."""
    return {row.client_order_id: row.limit_name for row in outcome if row.is_refused}


@pytest.mark.parametrize(("name", "passing", "beyond"), CASES)
def test_a_limit_passes_at_its_bound_and_refuses_beyond(
    name: str, passing: Batch, beyond: Batch
) -> None:
    """What is refused keeps the limit, the measured number, the bound and a reason of its own."""
    assert refused(apply_limits(passing)) == {}
    outcome = [row for row in apply_limits(beyond) if row.is_refused]
    assert outcome
    assert {row.limit_name for row in outcome} == {name}
    for row in outcome:
        assert row.limit_value is not None
        assert row.limit_bound is not None
        assert row.reason != "test"


def test_every_limit_has_a_case() -> None:
    """A limit that is added without a case here fails."""
    assert {limit.name for limit in LIMITS} == {name for name, _, _ in CASES}


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_the_oracle_misses_no_limit(limit: RiskLimit) -> None:
    """Of a batch that nothing was refused of, the independent judge says what that limit would have."""
    for name, _, beyond in CASES:
        if name == limit.name:
            complaints = Oracle(beyond, beyond.intents).complaints()
            assert any(complaint.startswith(name) for complaint in complaints), complaints


def test_a_holding_without_a_price_opens_nothing() -> None:
    """What the book is worth is not known then; closing goes on."""
    dark = batch(
        CLOSE,
        intent("CCC", "10"),
        positions=HELD | {"BBB": Decimal(5)},
        prices={"AAA": Decimal(100), "BBB": Decimal("NaN")},
    )
    outcome = apply_limits(dark)
    assert refused(outcome) == {"id-CCC-1": "concentration"}
    assert "BBB" in outcome[1].reason


@pytest.mark.parametrize("symbol", HOSTILE)
def test_a_symbol_that_is_none_is_refused_and_never_measured(symbol: str) -> None:
    """SQL, shell, nothing, small letters, two hundred characters."""
    ((name),) = refused(apply_limits(batch(replace(BUY, symbol=symbol)))).values()
    assert name == "quantity"


def test_a_book_above_its_bounds_can_come_down() -> None:
    """Reducing orders pass the limits on exposure, losses and money."""
    over = batch(
        intent("AAA", "-100", reduces=True),
        positions={"AAA": Decimal(5000)},
        buying_power=Decimal(0),
        daily_loss=None,
        drawdown=Decimal("0.9"),
        volumes={},
    )
    assert refused(apply_limits(over)) == {}


def test_an_order_that_says_it_reduces_and_does_not_is_refused() -> None:
    """Under REDUCING its word would have opened a short position."""
    outcome = apply_limits(batch(CLOSE, trading_state="REDUCING"))
    assert refused(outcome) == {CLOSE.client_order_id: "quantity"}


def test_an_opening_leg_falls_with_its_closing_leg() -> None:
    """A flip whose close is refused does not open the other side."""
    opening = waiting_leg(CLOSE, "-10")
    outcome = apply_limits(
        batch(CLOSE, opening, positions=HELD, limits=limits(restricted=("AAA",)))
    )
    assert set(refused(outcome).values()) == {"restricted"}
    assert len(refused(outcome)) == 2


def test_a_closing_leg_stands_without_its_opening_leg() -> None:
    """A flip whose other side is not lent ends flat."""
    closing = intent("BBB", "-10", reduces=True)
    opening = waiting_leg(closing, "-10")
    outcome = apply_limits(batch(closing, opening, positions={"BBB": Decimal(10)}))
    assert refused(outcome) == {opening.client_order_id: "shortable"}


def test_a_flip_is_measured_by_where_it_ends() -> None:
    """From 10 % long to 10 % short is 10 % of exposure, not 20 %."""
    closing = intent("AAA", "-100", reduces=True)
    bounds = limits(gross_exposure="0.1", net_exposure="0.1")
    for last, wrong in (("-100", {}), ("-101", {"id-AAA-2": "name_weight"})):
        flip = batch(
            closing, waiting_leg(closing, last), positions={"AAA": Decimal(100)}, limits=bounds
        )
        assert refused(apply_limits(flip)) == wrong


def test_what_relied_on_a_refused_sale_is_refused_in_the_next_round() -> None:
    """The purchase fits only with the money of the sale; the sale is refused after it was measured."""

    class Late(type(LIMITS[-1])):
        """Refuses the sale after the money was counted."""

        name = "late"

        def refusals(self, batch: Batch):

            for row in batch.reductions:
                yield Refusal(row, Decimal(1), Decimal(0), "late")

    sale, purchase = intent("AAA", "-50", reduces=True), intent("CCC", "40")
    swap = batch(sale, purchase, positions={"AAA": Decimal(50)}, buying_power=Decimal(0))
    assert refused(apply_limits(swap)) == {}
    outcome = apply_limits(swap, [*LIMITS, Late()])
    assert refused(outcome) == {sale.client_order_id: "late", "id-CCC-1": "buying_power"}


@pytest.mark.parametrize(("order_type", "stands"), [("market", True), ("limit", False)])
def test_only_a_sale_at_the_market_frees_exposure(order_type: str, stands: bool) -> None:
    """A sale that may never fill frees nothing: the purchase would lift the book above its bound."""
    sale = intent(
        "AAA",
        "-50",
        reduces=True,
        order_type=order_type,
        limit_price=Decimal(104) if order_type == "limit" else None,
    )
    swap = batch(
        sale,
        intent("CCC", "50"),
        positions={"AAA": Decimal(100), "BBB": Decimal(100)},
        limits=limits(gross_exposure="0.2"),
    )
    assert refused(apply_limits(swap)) == ({} if stands else {"id-CCC-1": "gross_exposure"})


def test_a_short_sale_that_is_refused_hedges_nothing() -> None:
    """Longs are bounded by themselves: the short that would have offset them is not lent."""
    given = batch(
        intent("AAA", "80"),
        intent("BBB", "-80"),
        intent("CCC", "80"),
        limits=limits(net_exposure="0.1"),
    )
    outcome = apply_limits(given)
    assert refused(outcome) == {"id-BBB-1": "shortable", "id-CCC-1": "net_exposure"}


def test_purchases_wait_for_the_money_of_sales() -> None:
    """Without buying power of its own, a purchase that a sale pays for waits, and is not refused."""
    outcome = apply_limits(
        batch(
            intent("AAA", "-100", reduces=True),
            intent("BBB", "50"),
            positions={"AAA": Decimal(100)},
            buying_power=Decimal(0),
        )
    )
    assert [(row.symbol, row.waits_for, row.state) for row in outcome] == [
        ("AAA", "", OrderState.PENDING),
        ("BBB", "buying_power", OrderState.WAITING),
    ]


def test_two_orders_of_one_id_are_both_kept_and_one_is_sent() -> None:
    """The refused one gets an id of its own, since the ledger holds an id once."""
    outcome = apply_limits(batch(BUY, replace(BUY, quantity=Decimal(5))))
    assert [row.is_refused for row in outcome] == [False, True]
    assert outcome[1].limit_name == "duplicate"
    assert outcome[1].client_order_id.startswith(f"{BUY.client_order_id}-refused-")


def test_a_bracket_may_stand_beside_the_legs_of_another() -> None:
    """Brokers take complex orders against protective legs, and refuse simple ones as wash trades."""
    leg = open_order(
        "AAA", "-5", order_type="limit", limit_price=Decimal(100), parent_order_id="parent"
    )
    bracket = replace(BUY, take_profit_price=Decimal(110), stop_loss_price=Decimal(90))
    assert refused(apply_limits(batch(bracket, open_orders=[leg]))) == {}
    assert refused(apply_limits(batch(BUY, open_orders=[leg]))) == {"id-AAA-1": "self_cross"}
    held = replace(leg, status="held")
    assert refused(apply_limits(batch(BUY, open_orders=[held]))) == {}


def test_five_hundred_orders_take_far_less_than_they_take_to_send() -> None:
    """Through two rounds of all limits; measured at 0.2 s."""
    many = [
        intent(f"S{number}", "10" if number % 2 else "-10", client_order_id=f"id-{number}")
        for number in range(500)
    ]
    symbols = [row.symbol for row in many]
    given = batch(
        *many,
        positions={f"H{number}": Decimal(3) for number in range(200)},
        prices=dict.fromkeys([*symbols, *(f"H{n}" for n in range(200))], Decimal(100)),
        price_ages=dict.fromkeys(symbols, timedelta(0)),
        assets={s: Asset(s, tradable=True, shortable=True, fractionable=True) for s in symbols},
        quotes={s: Quote(s, Decimal("99.9"), Decimal("100.1"), NOW) for s in symbols},
        volumes=dict.fromkeys(symbols, Decimal(100_000)),
        equity=Decimal(400_000),
        buying_power=Decimal(300_000),
    )
    started = time.perf_counter()
    outcome = apply_limits(given)
    seconds = time.perf_counter() - started
    assert {row.limit_name for row in outcome} == {None, "buying_power"}
    assert seconds < 10, seconds
