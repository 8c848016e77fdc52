"""What the market says of traded symbols: volumes of stored bars, quotes and trades of the real exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl

from quant_assets.market_data.schemas import BARS
from quant_assets.orders.market_facts import average_volumes, gather
from quant_resources.calendar import XNYS
from quant_resources.store import Store
from quant_tests.orders.ground import Ground

MONDAY, SPLIT_DAY = date(2024, 3, 4), date(2024, 3, 12)
HALF_HOUR = timedelta(minutes=30)


def stored(
    folder: Path, volumes: Mapping[str, Sequence[float | None]], **factors: list[float]
) -> Store:
    """Bars of the last sessions before Monday, one volume each; None: it did not trade."""
    store = Store(folder)
    count = max(len(row) for row in volumes.values())
    sessions = XNYS.sessions(date(2024, 1, 2), date(2024, 3, 1))[-count:]
    for number, session in enumerate(sessions):
        rows = [
            {
                "session": session,
                "symbol": listing.partition("@")[0],
                "security_id": listing,
                "first_session": date(2024, 1, 2),
                **dict.fromkeys(("open", "high", "low", "close"), 10.0),
                "volume": row[number],
                "vwap": None,
                "trade_count": None,
                "price_factor": 1 / factors.get(listing, [1.0] * count)[number],
                "volume_factor": factors.get(listing, [1.0] * count)[number],
            }
            for listing, row in volumes.items()
            if row[number] is not None
        ]
        store.write(BARS, pl.DataFrame(rows, schema=BARS.schema), [session.isoformat()])
    return store


def test_the_average_is_of_the_last_twenty_sessions(tmp_path: Path) -> None:
    """What is older does not count, nor the trading session's own bar."""
    store = stored(tmp_path, {"AAA": [1e9] * 3 + [100.0] * 19 + [300.0]})
    assert average_volumes(store, MONDAY) == {"AAA": Decimal(110)}
    assert average_volumes(Store(tmp_path / "empty"), MONDAY) == {}


def test_a_day_without_trades_counts_as_zero_once_the_listing_is_there(tmp_path: Path) -> None:
    """Averaged over the days on which it did trade, an illiquid name would look liquid."""
    store = stored(
        tmp_path,
        {"AAA": [100.0, None, None, 100.0], "NEW": [None, None, 300.0, 100.0], "BBB": [1.0] * 4},
    )
    found = average_volumes(store, MONDAY)
    assert found == {"AAA": Decimal(50), "NEW": Decimal(200), "BBB": Decimal(1)}


def test_volumes_are_carried_over_a_split(tmp_path: Path) -> None:
    """Two for one on the third day: a hundred shares before it are two hundred after it."""
    store = stored(tmp_path, {"AAA": [100.0, 100.0, 200.0, 200.0]}, AAA=[1.0, 1.0, 2.0, 1.0])
    assert average_volumes(store, MONDAY) == {"AAA": Decimal(200)}


def test_a_ticker_means_the_listing_that_traded_last(tmp_path: Path) -> None:
    store = stored(
        tmp_path, {"AAA@old": [900.0, 900.0, None, None], "AAA@new": [None, None, 10.0, 10.0]}
    )
    assert average_volumes(store, MONDAY) == {"AAA": Decimal(10)}


def test_quotes_and_trades_come_from_the_broker_while_they_are_recent(ground: Ground) -> None:
    """On Monday morning Friday's close is the newest; half an hour into the session it is none."""
    for text, symbols in (("08:30", {"AAA"}), ("10:00", {"AAA"})):
        ground.at(f"{MONDAY} {text}")
        facts = gather(
            ground.broker,
            {"AAA": Decimal(100), "NOSUCH": Decimal(1)},
            {"AAA": Decimal(5)},
            trading_session=MONDAY,
            now=ground.broker.clock().now,
            oldest=HALF_HOUR,
        )
        assert facts.quotes.keys() == facts.last_trades.keys() == symbols
        middle = facts.quotes["AAA"].mid
        assert middle is not None
        assert abs(middle / facts.last_trades["AAA"] - 1) < Decimal("0.001")
        assert facts.volumes == {"AAA": Decimal(5)}
    late = gather(
        ground.broker,
        {"AAA": Decimal(100)},
        {},
        trading_session=MONDAY,
        now=ground.broker.clock().now + timedelta(minutes=31),
        oldest=HALF_HOUR,
    )
    assert (late.quotes, late.last_trades) == ({}, {})


def test_on_the_morning_of_a_split_prices_are_those_of_new_shares(ground: Ground) -> None:
    """The last quote is of the evening before, at twice the price; volumes are never made larger."""
    ground.morning(SPLIT_DAY)
    raw = ground.broker.latest_prices(["DDD"])["DDD"].price
    plan = ground.plan(SPLIT_DAY, alpha={"DDD": 0.1})
    reference = plan.prices.usable["DDD"]
    facts = gather(
        ground.broker,
        {"DDD": reference},
        {"DDD": Decimal(1_000)},
        trading_session=SPLIT_DAY,
        now=ground.broker.clock().now,
        oldest=HALF_HOUR,
    )
    middle = facts.quotes["DDD"].mid
    assert middle is not None
    assert abs(middle / reference - 1) < Decimal("0.001")
    assert facts.last_trades["DDD"] == reference
    assert raw in (reference, reference * 2)
    assert facts.volumes == {"DDD": Decimal(1_000)}
