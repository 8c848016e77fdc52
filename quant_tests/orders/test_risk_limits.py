"""Every limit with a passing and a refused case, and the law that no accepted batch breaks one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_assets.orders.intents import Intent
from quant_assets.orders.policy import Limits, load_policy
from quant_assets.orders.risk_limits import LIMITS, Batch, apply_limits, opening_cost
from quant_resources.broker import Asset
from quant_resources.errors import ConfigurationError
from quant_resources.ledger.order_states import OrderState

DEADLINE = datetime(2024, 3, 4, 20, 45, tzinfo=UTC)
ASSETS = {
    "AAA": Asset("AAA", tradable=True, shortable=True, fractionable=True),
    "BBB": Asset("BBB", tradable=True, shortable=False, fractionable=False),
    "GONE": Asset("GONE", tradable=False, shortable=False, fractionable=False),
}


def intent(symbol: str, change: str, price: str = "100", **more: Any) -> Intent:
    """An intent of `change` shares."""
    shares = Decimal(change)
    number = more.pop("leg", 1)
    return Intent(
        client_order_id=f"id-{symbol}-{number}",
        symbol=symbol,
        security_id=f"{symbol}@2024-03-01",
        leg=number,
        side="buy" if shares > 0 else "sell",
        quantity=abs(shares),
        reduces=more.pop("reduces", False),
        reference_price=Decimal(price),
        deadline=DEADLINE,
        reason="test",
        **more,
    )


def batch(*intents: Intent, **more: Any) -> Batch:
    """A batch of an account with 100,000 USD."""
    defaults: dict[str, Any] = {
        "positions": {},
        "open_quantities": {},
        "prices": {"AAA": Decimal(100), "BBB": Decimal(100)},
        "price_ages": dict.fromkeys([*ASSETS, "NEVER_SEEN"], timedelta(minutes=2)),
        "equity": Decimal(100_000),
        "buying_power": Decimal(200_000),
        "assets": ASSETS,
        "trading_state": "ACTIVE",
        "account_blocked": False,
        "shorting_enabled": True,
        "limits": Limits.model_validate({}),
    }
    return Batch(intents=intents, **(defaults | more))


def limits(**changes: Any) -> Limits:
    return Limits.model_validate(changes)


OPEN = {"name_weight": Decimal(1)}
CASES: list[tuple[str, Batch, Batch]] = [
    (
        "trading_state",
        batch(intent("AAA", "-10", reduces=True), trading_state="REDUCING"),
        batch(intent("AAA", "10"), trading_state="REDUCING"),
    ),
    (
        "trading_state",
        batch(intent("AAA", "10")),
        batch(intent("AAA", "-10", reduces=True), trading_state="HALTED"),
    ),
    ("account", batch(intent("AAA", "10")), batch(intent("AAA", "10"), account_blocked=True)),
    ("account", batch(intent("AAA", "10")), batch(intent("AAA", "10"), equity=Decimal(0))),
    (
        "restricted",
        batch(intent("AAA", "10"), limits=limits(restricted=("BBB",))),
        batch(intent("AAA", "10"), limits=limits(restricted=("AAA",))),
    ),
    ("tradable", batch(intent("AAA", "10")), batch(intent("GONE", "10"))),
    ("tradable", batch(intent("AAA", "10")), batch(intent("NEVER_SEEN", "10"))),
    (
        "stale_quote",
        batch(intent("AAA", "10"), price_ages={"AAA": timedelta(minutes=30)}),
        batch(intent("AAA", "10"), price_ages={"AAA": timedelta(minutes=30, seconds=1)}),
    ),
    (
        "stale_quote",
        batch(
            intent("AAA", "10"),
            price_ages={"AAA": timedelta(minutes=5)},
            limits=limits(quote_age_minutes=5),
        ),
        batch(intent("AAA", "-10", reduces=True), price_ages={"AAA": timedelta(days=1)}),
    ),
    ("tradable", batch(intent("AAA", "-10")), batch(intent("BBB", "-10"))),
    ("tradable", batch(intent("AAA", "-10")), batch(intent("AAA", "-10"), shorting_enabled=False)),
    ("tradable", batch(intent("AAA", "0.5")), batch(intent("BBB", "0.5"))),
    ("tradable", batch(intent("AAA", "-10")), batch(intent("AAA", "-10.5"))),
    (
        "order_notional",
        batch(intent("AAA", "100"), limits=limits(order_notional=10_000)),
        batch(intent("AAA", "101"), limits=limits(order_notional=10_000)),
    ),
    (
        "orders_per_session",
        batch(intent("AAA", "10"), limits=limits(orders_per_session=1)),
        batch(intent("BBB", "10"), intent("AAA", "10"), limits=limits(orders_per_session=1)),
    ),
    ("name_weight", batch(intent("AAA", "100")), batch(intent("AAA", "101"))),
    (
        "name_weight",
        batch(intent("AAA", "40"), positions={"AAA": Decimal(60)}),
        batch(intent("AAA", "41"), positions={"AAA": Decimal(60)}),
    ),
    (
        "name_weight",
        batch(intent("AAA", "40"), open_quantities={"AAA": Decimal(60)}),
        batch(intent("AAA", "41"), open_quantities={"AAA": Decimal(60)}),
    ),
    (
        "gross_exposure",
        batch(intent("AAA", "500"), limits=limits(gross_exposure="0.5", name_weight=1)),
        batch(intent("AAA", "501"), limits=limits(gross_exposure="0.5", name_weight=1)),
    ),
    (
        "gross_exposure",
        batch(
            intent("AAA", "100"),
            positions={"BBB": Decimal(-1400)},
            buying_power=Decimal(60_000),
        ),
        batch(
            intent("AAA", "100"),
            positions={"BBB": Decimal(-1450)},
            buying_power=Decimal(60_000),
        ),
    ),
    (
        "buying_power",
        batch(intent("AAA", "98"), buying_power=Decimal(10_000)),
        batch(intent("AAA", "99"), buying_power=Decimal(10_000)),
    ),
    (
        "buying_power",
        batch(intent("AAA", "-95"), buying_power=Decimal(10_000)),
        batch(intent("AAA", "-96"), buying_power=Decimal(10_000)),
    ),
]


@pytest.mark.parametrize(("name", "passing", "refused"), CASES)
def test_each_limit_passes_and_refuses(name: str, passing: Batch, refused: Batch) -> None:
    """A case at the bound passes; one beyond it is kept with limit, number, bound and reason."""
    assert not any(row.is_refused for row in apply_limits(passing))
    outcome = [row for row in apply_limits(refused) if row.is_refused]
    assert outcome
    assert {row.limit_name for row in outcome} == {name}
    for row in outcome:
        assert row.limit_value is not None
        assert row.limit_bound is not None
        assert row.reason != "test"


def test_every_limit_has_a_case() -> None:
    """A limit that is added without a case here fails."""
    assert {limit.name for limit in LIMITS} == {name for name, _, _ in CASES}


def test_a_book_above_its_bounds_can_come_down() -> None:
    """Reducing orders pass the limits on exposure and money."""
    over = batch(
        intent("AAA", "-100", reduces=True),
        positions={"AAA": Decimal(5000)},
        buying_power=Decimal(0),
    )
    assert not any(row.is_refused for row in apply_limits(over))


def test_an_opening_leg_falls_with_its_closing_leg() -> None:
    """A flip whose close is refused does not open the other side."""
    closing = intent("AAA", "-10", reduces=True)
    opening = intent(
        "AAA",
        "-10",
        leg=2,
        waits_for="leg",
        depends_on=closing.client_order_id,
        state=OrderState.WAITING,
    )
    outcome = apply_limits(batch(closing, opening, limits=limits(restricted=("AAA",))))
    assert [row.is_refused for row in outcome] == [True, True]


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


symbols = st.sampled_from(["AAA", "BBB", "GONE"])
shares = st.integers(-3000, 3000).filter(bool).map(str)
books = st.dictionaries(st.sampled_from(["AAA", "BBB"]), st.integers(-900, 900).map(Decimal))


@given(
    st.dictionaries(symbols, shares, min_size=1),
    books,
    st.integers(0, 400_000).map(Decimal),
    st.integers(1, 200_000).map(Decimal),
)
def test_no_accepted_batch_breaks_a_limit(
    wanted: dict[str, str], positions: dict[str, Decimal], buying_power: Decimal, equity: Decimal
) -> None:
    """Whatever is asked for: what is let through is inside every bound, or only reduces."""
    intents = [
        intent(symbol, change, reduces=_reduces(positions.get(symbol, Decimal(0)), Decimal(change)))
        for symbol, change in wanted.items()
    ]
    given_batch = batch(*intents, positions=positions, buying_power=buying_power, equity=equity)
    let_through = [row for row in apply_limits(given_batch) if not row.is_refused]
    opening = [row for row in let_through if not row.reduces]
    after = dict(positions)
    for row in let_through:
        after[row.symbol] = after.get(row.symbol, Decimal(0)) + row.change
        assert row.symbol != "GONE"
        assert row.notional <= given_batch.limits.order_notional
    for row in opening:
        assert abs(after[row.symbol]) * 100 <= given_batch.limits.name_weight * equity
        assert row.side == "buy" or ASSETS[row.symbol].shortable
    if opening:
        gross = sum(abs(quantity) for quantity in after.values()) * 100
        assert gross <= given_batch.limits.gross_exposure * equity
    freed = sum(row.notional for row in let_through if row.reduces)
    assert sum(opening_cost(row) for row in opening) <= buying_power + freed


def _reduces(held: Decimal, change: Decimal) -> bool:
    return abs(held + change) < abs(held) and (held + change) * held >= 0


@pytest.mark.parametrize(
    "text",
    [
        "[limits]\nname_weight = 0",
        "[limits]\nname_weight = 1.5",
        "[limits]\nname_weight = nan",
        "[limits]\ngross_exposure = -1",
        "[limits]\ngross_exposure = 100",
        "[limits]\norder_notional = inf",
        "[limits]\norder_notinal = 100",
        "[limits]\nname_weight = 'much'",
        "allocations = {alpha = 0.7, beta = 0.7}",
        "book = 'a b; drop table orders'",
        "not toml at all",
    ],
)
def test_absurd_limits_refuse_to_trade(tmp_path: Any, text: str) -> None:
    """A policy that is wrong anywhere is no policy; the message names file and field."""
    file = tmp_path / "trading.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="nothing is traded"):
        load_policy(file)


def test_a_policy_file_is_read_and_settings_win(tmp_path: Any) -> None:
    """Limits come from the file, the mode from the settings."""
    file = tmp_path / "trading.toml"
    file.write_text("allocations = {alpha = 0.25}\n[limits]\nname_weight = 0.05\n")
    policy = load_policy(file, mode="paper", book="other")
    assert (policy.limits.name_weight, policy.mode, policy.book) == (
        Decimal("0.05"),
        "paper",
        "other",
    )
    assert policy.allocation_of(["alpha", "beta"]) == {
        "alpha": Decimal("0.25"),
        "beta": Decimal("0.75"),
    }
    with pytest.raises(ConfigurationError, match="'alpha', which does not exist"):
        policy.allocation_of(["beta"])
