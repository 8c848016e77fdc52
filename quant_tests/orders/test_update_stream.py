"""Following the stream books each fill exactly once, whatever happens to the stream.

A real exchange whose fault plan breaks the stream, a real ledger, and the exchange's audit log as the truth.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from quant_assets.orders.submission import run_pass
from quant_assets.orders.update_stream import Look, follow
from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.alpaca_stream import TradeUpdateStream
from quant_resources.broker import UnauthorizedError
from quant_resources.ledger.ledger import Ledger, LedgerBusyError
from quant_resources.ledger.order_tables import Fill, OrderIntent, Position
from quant_tests.exchange.test_faults import one
from quant_tests.orders.ground import Ground

MONDAY, TUESDAY = date(2024, 3, 4), date(2024, 3, 5)
WEIGHTS = {"AAA": 0.2, "BBB": 0.2, "CCC": 0.1, "EEE": -0.1}
FILLS = "/v2/account/activities/FILL"


class Follower:
    """`follow` in a thread of its own, with a broker, a ledger and a stream of its own."""

    def __init__(self, ground: Ground, poll: float = 0.3, again: float = 0.05) -> None:
        url = ground.broker.trading_url
        self.looks: list[Look] = []
        self.broker = AlpacaBroker(url, url, "key", "secret", backoff=(0.01, 0.02))
        self.ledger = Ledger(ground.ledger.url.render_as_string(hide_password=False))
        self.stream = TradeUpdateStream(url, "key", "secret", timeout=2, backoff=(0.01,))
        self.error: Exception | None = None
        self._policy = ground.policy
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(poll, again))
        self._thread.start()

    def _run(self, poll: float, again: float) -> None:
        try:
            follow(
                self.stream,
                partial(run_pass, self.ledger, self.broker, self._policy),
                poll_seconds=poll,
                again_seconds=again,
                tell=self.looks.append,
                ended=self._end.is_set,
            )
        except Exception as error:  # noqa: BLE001 - raised in the test's own thread
            self.error = error

    def close(self) -> None:
        """End it after its turn; one that waits is woken by the end of its connection."""
        self._end.set()
        if self.stream._connection is not None:
            self.stream._connection.close()
        self._thread.join()
        self.stream.close()
        self.broker.close()
        self.ledger.dispose()
        if self.error is not None:
            raise self.error


@contextmanager
def following(ground: Ground, **how: Any) -> Iterator[Follower]:
    """A follower that has made its first pass."""
    follower = Follower(ground, **how)
    try:
        wait_until(lambda: bool(follower.looks) or follower.error is not None)
        yield follower
    finally:
        follower.close()


def wait_until(holds: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def booked(ground: Ground) -> list[tuple[str, Decimal, Decimal]]:
    with ground.ledger.begin() as session:
        rows = session.scalars(select(Fill)).all()
        return sorted((row.execution_id, row.quantity, row.price) for row in rows)


def traded(ground: Ground) -> list[tuple[str, Decimal, Decimal]]:
    """What was traded, by the exchange's own audit log."""
    return sorted(
        (entry["execution_id"], Decimal(entry["quantity"]), Decimal(entry["price"]))
        for entry in ground.exchange.audit()
        if entry["event"] == "fill"
    )


def sent(ground: Ground) -> set[tuple[str, int]]:
    """(symbol, leg) of every intent that the broker has taken."""
    with ground.ledger.begin() as session:
        return {
            (row.symbol, row.leg)
            for row in session.scalars(select(OrderIntent))
            if row.client_order_id in ground.accepted()
        }


def positions(ground: Ground) -> dict[str, Decimal]:
    with ground.ledger.begin() as session:
        return {
            row.symbol: row.quantity for row in session.scalars(select(Position)) if row.quantity
        }


def plan(*rules: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    return {"rules": list(rules), "seed": seed}


def on_events(kind: str, path: str = "/stream/*", **fault: Any) -> dict[str, Any]:
    return {"fault": {"kind": kind, **fault}, "path": path}


CHANCE = {"probability": 0.3}
BROKEN_STREAMS = {
    "lost": plan(on_events("lost_event")),
    "lost fills": plan(on_events("lost_event", "/stream/fill")),
    "doubled": plan(on_events("doubled_event", copies=3)),
    "overtaken": plan(on_events("overtaken_event", by=2) | {"every": 2}),
    "late": plan(on_events("late_event", seconds=0.2)),
    "malformed": plan(on_events("malformed_event")),
    "reset": plan(on_events("disconnect") | {"every": 2}),
    "closed after": plan(on_events("disconnect", code=1012, after=True)),
    "silent": plan(on_events("silence", seconds=60)),
    "reset, then not to be opened": plan(
        on_events("disconnect") | {"times": 1},
        {"fault": {"kind": "status", "status": 503}, "path": "/stream", "times": 5},
    ),
    "everything by chance": plan(
        on_events("lost_event") | CHANCE,
        on_events("doubled_event") | CHANCE,
        on_events("overtaken_event") | CHANCE,
        on_events("late_event", seconds=0.1) | CHANCE,
        on_events("disconnect") | CHANCE,
        seed=7,
    ),
}


def trade_in_turn(ground: Ground, session: date, **strategies: Any) -> None:
    """Trade beside a follower, whose passes hold the account's lock for moments."""

    def done() -> bool:
        with suppress(LedgerBusyError):
            ground.trade(session, **strategies)
            return True
        return False

    wait_until(done)


@pytest.mark.parametrize("faults", BROKEN_STREAMS.values(), ids=BROKEN_STREAMS.keys())
def test_every_fill_is_booked_once_whatever_happens_to_the_stream(
    ground: Ground, faults: dict[str, Any]
) -> None:
    ground.trade(MONDAY, one=WEIGHTS)
    with following(ground):
        ground.exchange.inject(faults)
        ground.at("2024-03-04 10:00")
        wait_until(lambda: len(booked(ground)) == len(traded(ground)) == len(WEIGHTS))
        ground.evening(MONDAY)
        ground.morning(TUESDAY)
        # CCC turns around: its second leg is sent by the follower, once the first has filled.
        trade_in_turn(ground, TUESDAY, one={"AAA": 0.1, "BBB": 0.3, "CCC": -0.1, "EEE": 0.0})
        ground.at("2024-03-05 10:00")
        wait_until(lambda: ("CCC", 2) in sent(ground))
        ground.evening(TUESDAY)
        wait_until(lambda: len(booked(ground)) == len(traded(ground)))
        fired = sum(rule["fired"] for rule in ground.exchange.faults()["rules"])
    assert fired > 0
    assert len(traded(ground)) > len(WEIGHTS)
    assert booked(ground) == traded(ground)
    assert positions(ground) == ground.held()
    assert set(ground.accepted().values()) == {1}


def test_the_poll_finds_what_no_stream_tells(ground: Ground) -> None:
    ground.exchange.inject(one({"kind": "status", "status": 503}, path="/stream"))
    ground.trade(MONDAY, one=WEIGHTS)
    with following(ground, poll=0.2) as follower:
        ground.at("2024-03-04 10:00")
        wait_until(lambda: booked(ground) == traded(ground) != [])
    assert not any(look.updates for look in follower.looks)
    assert follower.looks[0].gaps == ("not connected (it answered 503)",)


def test_an_update_that_the_api_has_not_yet_seen_is_looked_for_again(ground: Ground) -> None:
    ground.trade(MONDAY, one={"AAA": 0.2})
    with following(ground, poll=60, again=0.3) as follower:
        stale = {"kind": "earlier_state", "updates": 1}
        ground.exchange.inject(one(stale, path=FILLS, times=1))
        ground.at("2024-03-04 10:00")
        wait_until(lambda: len(follower.looks) == 3)
        told, again = follower.looks[1:]
    assert booked(ground) == traded(ground) != []
    assert [update.event for update in told.updates] == ["fill"]
    assert again.gaps == ("nothing came for 0.3 s",)
    assert [look.report.booked for look in (told, again) if look.report] == [0, 1]


def test_updates_that_come_together_cause_one_pass(ground: Ground) -> None:
    ground.trade(MONDAY, one=WEIGHTS)
    with following(ground, poll=60, again=60) as follower:
        ground.exchange.inject(one({"kind": "doubled_event", "copies": 50}, path="/stream/*"))
        ground.at("2024-03-04 10:00")

        def told() -> int:
            return sum(len(look.updates) for look in follower.looks)

        wait_until(lambda: told() == 50 * len(WEIGHTS))
        assert len([look for look in follower.looks if look.updates]) < 20
    assert booked(ground) == traded(ground)


def test_two_followers_book_each_fill_once(ground: Ground) -> None:
    ground.trade(MONDAY, one=WEIGHTS)
    with following(ground, poll=0.05) as first, following(ground, poll=0.05) as second:
        ground.at("2024-03-04 10:00")
        wait_until(lambda: booked(ground) == traded(ground) != [])
        wait_until(lambda: any(look.owed for look in (*first.looks, *second.looks)))
    assert positions(ground) == ground.held()
    owed = {look.owed for look in (*first.looks, *second.looks)} - {""}
    assert all("Another process is trading account" in reason for reason in owed)


def test_a_pass_that_could_not_be_made_is_owed(ground: Ground) -> None:
    ground.trade(MONDAY, one=WEIGHTS)
    with following(ground, poll=60) as follower:
        ground.exchange.inject(one({"kind": "status", "status": 503}, path=FILLS, times=8))
        ground.at("2024-03-04 10:00")
        wait_until(lambda: booked(ground) == traded(ground) != [])
        assert [look.owed for look in follower.looks if look.owed]


def test_a_bust_and_a_correction_are_booked_once_when_the_stream_tells_of_them(
    ground: Ground,
) -> None:
    ground.trade(MONDAY, one={"AAA": 0.2, "BBB": 0.2})
    with following(ground, poll=60, again=0.2) as follower:
        ground.at("2024-03-04 10:00")
        wait_until(lambda: len(booked(ground)) == 2)
        ground.exchange.inject(plan(on_events("doubled_event", copies=3)))
        first, second = [execution for execution, _, _ in traded(ground)]
        ground.exchange.bust(first)
        ground.exchange.correct(second, quantity=Decimal(1))

        def corrections() -> int:
            return sum(look.report.corrections for look in follower.looks if look.report)

        wait_until(lambda: corrections() == 2)
        wait_until(lambda: not follower.looks[-1].updates)
    assert corrections() == 2
    assert len(booked(ground)) == 2
    assert positions(ground) == ground.held()


def test_keys_that_are_refused_end_the_following(ground: Ground) -> None:
    ground.exchange.inject(one({"kind": "status", "status": 401}, path="/v2/account"))
    with pytest.raises(UnauthorizedError, match="ALPACA_API_KEY"), following(ground):
        pass


def test_dry_run_follows_and_sends_nothing(ground: Ground) -> None:
    ground.trade(MONDAY, one=WEIGHTS)
    ground.policy = ground.policy.model_copy(update={"mode": "dry_run"})
    before = len(ground.submissions())
    with following(ground):
        ground.at("2024-03-04 10:00")
        wait_until(lambda: booked(ground) == traded(ground) != [])
    assert len(ground.submissions()) == before
