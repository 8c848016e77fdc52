"""Target quantities: what a signal, a missing signal, a failed strategy and a split mean."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest

from quant_assets.orders.signal_input import (
    TargetsRefusedError,
    require_sound_targets,
    usable_signals,
)
from quant_assets.orders.target_portfolio import (
    Prices,
    Sleeve,
    Target,
    carried_sleeve,
    keep_sleeve,
    plan_strategy,
    reference_prices,
    split_since,
)
from quant_resources.broker import Asset, LatestPrice, Split
from quant_tests.orders.ground import signals

FRIDAY, MONDAY = date(2024, 3, 1), date(2024, 3, 4)
CAPITAL = Decimal(10_000)
CLOSE = datetime(2024, 3, 1, 21, tzinfo=UTC)
PRICES = Prices(
    {"AAA": Decimal(100), "BBB": Decimal(30)},
    {"CCC": "the broker has no price"},
    {"AAA": CLOSE, "BBB": CLOSE},
)
ASSETS = {
    "AAA": Asset("AAA", tradable=True, shortable=True, fractionable=True),
    "BBB": Asset("BBB", tradable=True, shortable=True, fractionable=False),
}


def kept(symbol: str, quantity: str, weight: str = "0.1") -> Target:
    """A target of the sleeve."""
    return Target(
        "alpha",
        symbol,
        f"{symbol}@x",
        date(2024, 2, 29),
        None,
        Decimal(weight),
        Decimal(quantity),
        Decimal(50),
        "before",
        "alpha-rules-0",
    )


def plan(
    weights: dict[str, float | None], *sleeve: Target, held: set[str] | None = None, **more: bool
) -> dict[str, Target]:
    targets = plan_strategy(
        "alpha",
        signals("alpha", FRIDAY, weights),
        Sleeve(MONDAY, {target.symbol: target for target in sleeve}),
        capital=CAPITAL,
        prices=PRICES,
        assets=ASSETS,
        held=held or set(),
        fractional=more.get("fractional", False),
        splits=[],
        trading_session=MONDAY,
    )
    return {target.symbol: target for target in targets}


def test_weights_become_whole_shares_towards_zero() -> None:
    """33.3 shares long are 33, 33.3 short are 33: never more than was decided."""
    targets = plan({"AAA": 0.5, "BBB": -0.1})
    assert targets["AAA"].target_quantity == 50
    assert targets["BBB"].target_quantity == -33
    assert all(target.changed for target in targets.values())


def test_fractions_only_for_longs_of_fractionable_symbols() -> None:
    """Where the policy allows fractions, shorts and whole-share symbols stay whole."""
    assert plan({"AAA": 0.333}, fractional=True)["AAA"].target_quantity == Decimal("33.3")
    assert plan({"AAA": -0.333}, fractional=True)["AAA"].target_quantity == -33
    assert plan({"BBB": 0.1}, fractional=True)["BBB"].target_quantity == 33


def test_prices_of_protection_travel_and_follow_splits() -> None:
    """A stop of Friday's 98 dollars is one of 49 after Monday's two for one; a closed target has none."""
    rows = signals("alpha", FRIDAY, {"AAA": 0.5}).with_columns(
        stop_loss=pl.lit(98.0), take_profit=pl.lit(None, pl.Float64)
    )
    targets = plan_strategy(
        "alpha",
        rows,
        Sleeve(MONDAY, {"BBB": kept("BBB", "9")}),
        capital=CAPITAL,
        prices=PRICES,
        assets=ASSETS,
        held=set(),
        fractional=False,
        splits=[Split("AAA", MONDAY, Decimal(2))],
        trading_session=MONDAY,
    )
    assert {t.symbol: (t.stop_loss, t.take_profit) for t in targets} == {
        "AAA": (Decimal(49), None),
        "BBB": (None, None),
    }


def test_a_null_weight_keeps_the_sleeve() -> None:
    """HOLD trades nothing, whatever the price has done; without a holding it is no target."""
    targets = plan({"AAA": None, "BBB": None}, kept("AAA", "7"))
    assert targets.keys() == {"AAA"}
    assert targets["AAA"].target_quantity == 7
    assert not targets["AAA"].changed


def test_a_symbol_that_left_the_signals_is_closed() -> None:
    """It is an explicit zero, of the strategy and the session that decided it."""
    closed = plan({"AAA": 0.1}, kept("BBB", "9"))["BBB"]
    assert (closed.target_quantity, closed.changed) == (0, True)
    assert (closed.signal_session, closed.model_version) == (FRIDAY, "alpha-rules-1")


def test_a_closed_target_is_repeated_until_the_shares_are_gone() -> None:
    """A close that did not fill is tried again; one that did is forgotten."""
    assert plan({"AAA": 0.1}, kept("BBB", "0"), held={"BBB"})["BBB"].target_quantity == 0
    assert "BBB" not in plan({"AAA": 0.1}, kept("BBB", "0"))


def test_no_price_keeps_the_sleeve() -> None:
    """Neither a new target nor a close is decided without a price."""
    targets = plan({"CCC": 0.5}, kept("CCC", "3"))
    assert (targets["CCC"].target_quantity, targets["CCC"].changed) == (3, False)
    assert plan({"AAA": 0.1}, kept("CCC", "3"))["CCC"].target_quantity == 3
    assert "CCC" not in plan({"CCC": 0.5})


def test_a_failed_strategy_is_never_liquidated() -> None:
    """Its sleeve stays as it is, with its own old signals."""
    targets = keep_sleeve(Sleeve(MONDAY, {"BBB": kept("BBB", "9")}), PRICES, set(), "kept: failed")
    assert [(t.target_quantity, t.changed, t.model_version) for t in targets] == [
        (Decimal(9), False, "alpha-rules-0")
    ]


def test_splits_adjust_sleeves_and_prices() -> None:
    """Two for one: twice the shares, half of a price that was made before the split."""
    splits = [Split("AAA", MONDAY, Decimal(2)), Split("AAA", date(2024, 2, 28), Decimal(3))]
    sleeve = carried_sleeve(Sleeve(FRIDAY, {"AAA": kept("AAA", "7")}), splits[:1], MONDAY)
    assert sleeve.targets["AAA"].target_quantity == 14
    now = datetime(2024, 3, 4, 13, tzinfo=UTC)
    friday = datetime(2024, 3, 1, 21, tzinfo=UTC)
    closes = {"AAA": LatestPrice("AAA", Decimal(100), friday)}
    old = {"AAA": LatestPrice("AAA", Decimal(100), friday)}
    new = {"AAA": LatestPrice("AAA", Decimal(50), friday)}
    assert split_since(old, splits, MONDAY) == {"AAA"}
    # Brokers differ in when a price changes over: the raw close tells old shares from new ones.
    assert prices_of(new, closes, splits, now).usable == {"AAA": Decimal(50)}
    assert prices_of(old, closes, splits, now, held=True, booked=True).usable == {
        "AAA": Decimal(50)
    }
    assert prices_of(new, closes, splits, now, held=True, booked=True).usable == {
        "AAA": Decimal(50)
    }
    fresh = {"AAA": LatestPrice("AAA", Decimal(51), now)}
    assert prices_of(fresh, {}, splits, now).usable == {"AAA": Decimal(51)}


def test_an_unconfirmed_split_decides_nothing() -> None:
    """Vendors announce splits that never happen: a position must be neither doubled nor halved."""
    splits = [Split("AAA", MONDAY, Decimal(2))]
    now = datetime(2024, 3, 4, 13, tzinfo=UTC)
    friday = datetime(2024, 3, 1, 21, tzinfo=UTC)
    closes = {"AAA": LatestPrice("AAA", Decimal(100), friday)}
    old = {"AAA": LatestPrice("AAA", Decimal(101), friday)}
    new = {"AAA": LatestPrice("AAA", Decimal(50), friday)}
    assert "no price shows" in prices_of(old, closes, splits, now).refused["AAA"]
    assert "not booked" in prices_of(new, closes, splits, now, held=True).refused["AAA"]
    assert "no close" in prices_of(old, {}, splits, now).refused["AAA"]


def prices_of(
    latest: dict[str, LatestPrice],
    closes: dict[str, LatestPrice],
    splits: list[Split],
    now: datetime,
    *,
    held: bool = False,
    booked: bool = False,
) -> Prices:
    return reference_prices(
        latest,
        closes,
        {"AAA"},
        splits=splits,
        held={"AAA"} if held else set(),
        booked={"AAA"} if booked else set(),
        trading_session=MONDAY,
        oldest=timedelta(days=5),
        now=now,
    )


def test_stale_and_missing_prices_are_not_used() -> None:
    """A price older than the policy allows is refused with its date."""
    now = datetime(2024, 3, 14, 13, tzinfo=UTC)
    latest = {"AAA": LatestPrice("AAA", Decimal(100), datetime(2024, 3, 1, 21, tzinfo=UTC))}
    prices = reference_prices(
        latest,
        {},
        {"AAA", "BBB"},
        splits=[],
        held=set(),
        booked=set(),
        trading_session=date(2024, 3, 14),
        oldest=timedelta(days=5),
        now=now,
    )
    assert prices.usable == {}
    assert prices.refused["AAA"] == "the last price is of 2024-03-01"


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (None, "no signals"),
        (signals("alpha", FRIDAY, {}), "empty"),
        (signals("alpha", date(2024, 2, 29), {"AAA": 0.1}), "is not of the session before"),
        (signals("alpha", FRIDAY, {"AAA": 0.6, "BBB": -0.5}), "sum to 1.1000"),
        (signals("alpha", FRIDAY, {"AAA": float("nan")}), "no number"),
        (
            signals("alpha", FRIDAY, {"AAA": 0.1}).with_columns(stop_loss=pl.lit(float("inf"))),
            "stop loss that is no positive price",
        ),
        (
            signals("alpha", FRIDAY, {"AAA": 0.1}).with_columns(take_profit=pl.lit(0.0)),
            "take profit that is no positive price",
        ),
        (
            pl.concat([signals("alpha", FRIDAY, {"AAA": 0.1})] * 2),
            "more than one signal",
        ),
        (
            signals("alpha", FRIDAY, {"AAA": 0.1}).with_columns(model_version=pl.lit("")),
            "no model version",
        ),
    ],
)
def test_unusable_signals_have_a_reason(rows: pl.DataFrame | None, problem: str) -> None:
    """Each rule that blocks a strategy names itself."""
    judged = usable_signals("alpha", rows, FRIDAY, 1.0)
    assert judged.rows is None
    assert problem in judged.problem


def _targets() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "trading_session": [MONDAY],
            "strategy": ["alpha"],
            "symbol": ["AAA"],
            "signal_session": [FRIDAY],
            "target_weight": [0.5],
            "target_quantity": [50.0],
            "reference_price": [100.0],
            "stop_loss": [None],
            "take_profit": [110.0],
            "changed": [True],
        },
        schema_overrides={"stop_loss": pl.Float64},
    )


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("trading_session", FRIDAY, "another trading session"),
        ("signal_session", date(2024, 2, 29), "signals of another session"),
        ("target_weight", float("nan"), "no finite weight"),
        ("target_quantity", float("inf"), "no finite weight"),
        ("reference_price", 0.0, "positive price"),
        ("target_quantity", -50.0, "opposite signs"),
        ("stop_loss", float("nan"), "price of protection"),
        ("stop_loss", 0.0, "price of protection"),
        ("take_profit", -1.0, "price of protection"),
        ("target_weight", 1.5, "sum to 1.5000"),
    ],
)
def test_broken_targets_order_nothing(column: str, value: object, rule: str) -> None:
    """The rules run again on the very rows that orders are made of."""
    good = _targets()
    require_sound_targets(good, MONDAY, FRIDAY, {"alpha": 1.0})
    bad = good.with_columns(pl.lit(value).cast(good.schema[column]).alias(column))
    with pytest.raises(TargetsRefusedError, match=rule):
        require_sound_targets(bad, MONDAY, FRIDAY, {"alpha": 1.0})
