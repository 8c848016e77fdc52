"""When a session is due, and what makes data fresh: on any clock, over holidays, at a market's end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from quant_assets.market_data.coverage_checks import fresh
from quant_assets.market_data.freshness import due_at, freshness, newest_due_session
from quant_assets.market_data.schemas import BARS
from quant_assets.market_span import MarketSpan, remember_span
from quant_assets.table_checks import CheckScope, Finding
from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.calendar import NEW_YORK, XNYS
from quant_resources.exchange.process import create_state
from quant_resources.exchange.spec import MarketSpec
from quant_resources.store import Store
from quant_tests.exchange.served import WEEK, Served, Server, write_history
from quant_tests.market_data.deliveries import bar, gated


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK)


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2023-11-22 07:29", date(2023, 11, 20)),
        ("2023-11-22 07:30", date(2023, 11, 21)),
        ("2023-11-22 23:59", date(2023, 11, 21)),
        ("2023-11-23 12:00", date(2023, 11, 21)),  # Thanksgiving: Wednesday is due on Friday
        ("2023-11-24 07:30", date(2023, 11, 22)),
        ("2023-11-25 12:00", date(2023, 11, 22)),  # Saturday: Friday's half day is due on Monday
        ("2023-11-27 07:29", date(2023, 11, 22)),
        ("2023-11-27 07:30", date(2023, 11, 24)),
        ("2024-03-11 07:30", date(2024, 3, 8)),  # the clocks have changed on Sunday
    ],
)
def test_a_session_is_due_on_the_morning_of_the_next_one(now: str, due: date) -> None:
    assert newest_due_session(at(now)) == due
    assert due_at(due) <= at(now) < due_at(XNYS.next(due))


def test_an_old_backfill_makes_nothing_fresh() -> None:
    """Ten years that were stored a minute ago are stale when yesterday is not among them."""
    now = at("2023-11-22 08:00")
    old = XNYS.sessions(date(2013, 1, 2), date(2023, 11, 16))
    found = freshness(now, old)
    assert not found.is_fresh
    assert found.behind == 3
    assert found.age == now - XNYS.close(date(2023, 11, 16))
    assert (
        "2023-11-21 is due, the newest stored session is 2023-11-16, 3 session(s)" in found.verdict
    )
    assert freshness(now, [*old, date(2023, 11, 21)]).is_fresh
    # A newer one does not stand for the one that is due.
    skipped = freshness(now, [date(2023, 11, 22)])
    assert not skipped.is_fresh
    assert skipped.verdict == "Stale: 2023-11-21 is due and not stored, though 2023-11-22 is."


def test_a_market_that_has_ended_stays_fresh_and_one_that_has_not_begun_is_not_stale() -> None:
    first, last = date(2023, 1, 3), date(2023, 11, 17)
    year_later = at("2024-11-22 08:00")
    assert freshness(year_later, [last], first, last).is_fresh
    assert not freshness(year_later, [date(2023, 11, 16)], first, last).is_fresh
    before = freshness(at("2023-01-03 08:00"), [], first)
    assert (before.is_fresh, before.due, before.verdict) == (True, None, "No session is due yet.")
    nothing = freshness(at("2023-01-10 08:00"), [], first)
    assert (nothing.is_fresh, nothing.behind) == (False, 5)


FIRST, LAST = date(2024, 3, 4), date(2024, 3, 8)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """An exchange whose market is one week."""
    folder = write_history(tmp_path / "history", WEEK)
    create_state(tmp_path / "state", MarketSpec(kind="history", folder=folder))
    server = Server(tmp_path / "state")
    yield Served(tmp_path / "state", server.exchange, server.url)
    server.stop()
    server.wait()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    span = MarketSpan(
        first_session=FIRST, last_session=LAST, first_trading_session=date(2024, 3, 5)
    )
    remember_span(tmp_path, span)
    return Store(tmp_path)


def put(store: Store, *days: int) -> None:
    for day in days:
        session = date(2024, 3, day)
        store.write(BARS, gated([bar("AAA", session, 10.0)], wanted=[session]).bars, [str(session)])


def judged(store: Store, served: Served, run_of: str = "2024-03-04") -> Finding:
    """The check in a run of some old partition, with the exchange as broker."""
    broker = AlpacaBroker(served.url, served.url, "key", "secret")
    nobody = cast("Any", SimpleNamespace())
    try:
        return fresh(BARS.empty(), CheckScope([run_of], store, nobody, broker))
    finally:
        broker.close()


def test_the_check_follows_the_virtual_clock(store: Store, served: Served) -> None:
    """On the exchange it is as late as the exchange says, whatever the wall clock says."""
    put(store, 4, 5)
    served.at("2024-03-06 07:31")
    assert judged(store, served).passed
    served.at("2024-03-07 07:29")
    assert judged(store, served).passed
    served.at("2024-03-07 07:30")
    found = judged(store, served)
    assert not found.passed
    assert "2024-03-06 is due, the newest stored session is 2024-03-05" in found.message
    put(store, 6)
    assert judged(store, served).passed


def test_the_check_passes_at_the_end_of_a_bounded_market(store: Store, served: Served) -> None:
    put(store, 4, 5, 6, 7)
    served.at("2024-03-11 07:29")
    assert judged(store, served).passed
    served.at("2024-03-11 07:30")
    assert not judged(store, served).passed
    put(store, 8)
    served.at("2024-03-11 07:31")
    assert judged(store, served).passed


def test_a_session_without_bars_is_not_there(store: Store, served: Served) -> None:
    put(store, 4)
    store.write(BARS, BARS.empty(), ["2024-03-05"])
    served.at("2024-03-06 08:00")
    assert "without a single bar" in judged(store, served).message


def test_an_age_is_counted_from_the_close() -> None:
    found = freshness(at("2023-11-27 13:00"), [date(2023, 11, 24)])
    assert found.age == timedelta(days=3)  # the Friday after Thanksgiving closes at 13:00
