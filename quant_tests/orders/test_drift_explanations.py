"""What explains a difference, by hand: combinations that a market brings together once in years."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from quant_assets.orders.drift import Drift, Explanation, explanations, unexplained
from quant_assets.orders.drift_explanations import DueDividend, Facts, explain
from quant_assets.orders.policy import Reconciling
from quant_assets.orders.positions import Holding
from quant_assets.orders.reconciliation import Side, reconcile
from quant_resources.broker import AccountActivity, Execution, Split

TOLERANCE = Reconciling.model_validate({})
NOW = datetime(2024, 3, 12, 15, tzinfo=UTC)
DAY = date(2024, 3, 12)


def side(cash: int = 0, **held: tuple[int, str]) -> Side:
    """Positions as (shares, average price)."""
    positions = {name: Holding(Decimal(q), Decimal(price)) for name, (q, price) in held.items()}
    return Side([], [], positions, Decimal(cash))


def execution(name: str, symbol: str, quantity: int, price: str, **more: object) -> Execution:
    """A purchase (or sale, when negative) by an order that is not ours, one per symbol."""
    fields: Mapping[str, object] = {
        "execution_id": name,
        "broker_order_id": f"foreign-{symbol}",
        "symbol": symbol,
        "side": "buy" if quantity > 0 else "sell",
        "quantity": Decimal(abs(quantity)),
        "price": Decimal(price),
        "filled_at": NOW,
        "raw": {},
    }
    return Execution(**{**fields, **more})  # pyright: ignore[reportArgumentType]


def activity(kind: str, symbol: str, **more: object) -> AccountActivity:
    fields: Mapping[str, object] = {
        "activity_id": f"{kind}-{symbol}",
        "activity_type": kind,
        "activity_date": DAY,
        "symbol": symbol,
        "quantity": None,
        "net_amount": Decimal(0),
        "description": "",
        "raw": {},
    }
    return AccountActivity(**{**fields, **more})  # pyright: ignore[reportArgumentType]


def explained(ledger: Side, broker: Side, **facts: object) -> list[Drift]:
    drifts = reconcile(ledger, broker, TOLERANCE)
    return explain(drifts, ledger, broker, Facts(NOW, **facts), TOLERANCE)  # pyright: ignore[reportArgumentType]


SPLIT = Split("AAA", DAY, Decimal(2))


def test_a_split_and_a_trade_by_hand_on_one_day() -> None:
    """Together they account for the difference; each is confirmed by itself."""
    found = explained(
        side(AAA=(10, "100")),
        side(-250, AAA=(25, "50")),
        splits=[SPLIT],
        executions=[execution("e1", "AAA", 5, "50")],
    )
    assert unexplained(found) == []
    assert [(one.kind, one.quantity) for one in explanations(found)] == [
        ("split", 10),
        ("manual_trade", 5),
    ]
    # The split moves no cash: what the trade cost is explained by the trade.
    (cash,) = [drift for drift in found if drift.kind == "cash"]
    assert cash.explanation is not None
    assert cash.explanation.kind == "manual_trade"


@pytest.mark.parametrize(
    ("broker", "facts"),
    [
        (side(AAA=(19, "50")), {"splits": [SPLIT]}),
        (side(AAA=(20, "50")), {"splits": []}),
        (side(-500, AAA=(15, "100")), {"executions": [execution("e1", "AAA", 4, "100")]}),
        (side(AAA=(15, "100")), {"executions": [execution("e1", "AAA", 5, "100")]}),
        (
            side(5, AAA=(10, "100")),
            {"dividends": [DueDividend("AAA", DAY, Decimal(1), Decimal(10))]},
        ),
        (side(NEW=(9, "100")), {"incomplete": [activity("NC", "NEW")]}),
        (side(NEW=(10, "100")), {}),
    ],
)
def test_what_does_not_account_for_all_of_it_explains_nothing(
    broker: Side, facts: dict[str, object]
) -> None:
    """A ratio that is not announced, shares or cash that do not add up."""
    found = explained(side(AAA=(10, "100")), broker, **facts)
    assert found
    assert unexplained(found) == found


def test_a_rename_without_the_old_name_is_found_by_its_shares() -> None:
    """And stays unexplained where two holdings could be meant."""
    facts = {"incomplete": [activity("NC", "NEW")]}
    broker = side(NEW=(10, "100"), BBB=(5, "20"))
    found = explained(side(AAA=(10, "100"), BBB=(5, "20")), broker, **facts)
    (one,) = explanations(found)
    assert (one.kind, one.old_symbol, one.symbol, one.quantity) == ("other", "AAA", "NEW", 10)
    assert unexplained(found) == []
    two = explained(side(AAA=(10, "100"), CCC=(10, "7"), BBB=(5, "20")), broker, **facts)
    assert explanations(two) == []


def test_a_split_without_shares_is_known_by_what_the_position_has_cost() -> None:
    facts = {"incomplete": [activity("SPLIT", "AAA")]}
    (good,) = explained(side(AAA=(10, "100")), side(AAA=(30, "33.333333333")), **facts)
    assert good.explanation is not None
    assert good.explanation.quantity == 20
    (bad,) = explained(side(AAA=(10, "100")), side(AAA=(30, "40")), **facts)
    assert bad.explanation is None


def test_bought_and_sold_by_hand_moves_only_cash_and_average_price() -> None:
    """Five sold at 90 and five bought at 110: the shares are those of before."""
    found = explained(
        side(AAA=(10, "100")),
        side(-100, AAA=(10, "105")),
        executions=[
            execution("e1", "AAA", -5, "90", broker_order_id="one"),
            execution("e2", "AAA", 5, "110", broker_order_id="two", filled_at=NOW.replace(hour=16)),
        ],
    )
    assert {drift.kind for drift in found} == {"average_price", "cash"}
    assert unexplained(found) == []


def test_the_key_is_that_of_what_would_be_booked() -> None:
    """The same change has the same key whenever it is found; another change has another."""

    def key(quantity: int, price: str) -> str:
        cash = -quantity * int(price)
        found = explained(
            side(),
            side(cash, AAA=(quantity, price)),
            executions=[execution("e1", "AAA", quantity, price)],
        )
        (one,) = explanations(found)
        again = Explanation.from_json(one.as_json())
        assert again == one
        assert again.key == one.key
        return one.key

    assert key(10, "100") == key(10, "100")
    assert len({key(10, "100"), key(11, "100"), key(10, "101"), key(-10, "100")}) == 4
