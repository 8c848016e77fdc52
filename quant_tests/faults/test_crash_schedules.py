"""Random schedules of crashes, faults, clocks, prices, re-plans and second processes; hypothesis prints the seed.

A crash here is an exception that nothing catches, at any commit or request: the ledger and the exchange are left
as by SIGKILL (which `test_crash_matrix.py` uses), and ten times as many can be tried in the same time.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import ExitStack
from typing import Any, Final

import polars as pl
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from sqlalchemy import select

from quant_assets.orders.batches import trade_session
from quant_assets.orders.submission import finish_unfinished, trading_desk
from quant_resources.alpaca_broker import AlpacaBroker
from quant_resources.calendar import NEW_YORK
from quant_resources.errors import QuantError
from quant_resources.ledger.ledger import LedgerBusyError
from quant_resources.ledger.order_tables import OrderIntent
from quant_tests.faults.crash_cells import end_of_day
from quant_tests.faults.named_faults import KINDS, kind_named
from quant_tests.faults.stage import DAY, TUESDAY, PartName, Stage
from quant_tests.faults.trader import Steps
from quant_tests.faults.truth import truth_of

#: Faults that take a second of real time each are left to the matrix.
_QUICK = tuple(kind for kind in KINDS if not kind.name.startswith("hang"))
_PARTS = tuple(part.name for part in DAY)
#: Actions of one schedule.
_ACTIONS = 20
#: A process of the day has at most so many numbered steps.
_STEPS = 170


class Crash(BaseException):
    """The end of the process, as far as it can be had without ending the test."""


class Crashing(Steps):
    """Steps at which the process ends by an exception."""

    def strike(self) -> None:
        """End here."""
        self.kill_at = 0
        raise Crash

    def begin(self, kill_at: int) -> None:
        """A new process."""
        self.seen, self.kill_at = 0, kill_at
        self.written.clear()


class Played:
    """What the schedules share: the stage, the steps, and how much was tried."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.steps = Crashing()
        self.steps.watch_ledger(stage.ledger)
        self.tried: Counter[str] = Counter()


class TradingDayUnderFire:
    """A day on the stage, from the beginning of one of its parts, and everything that may happen to it."""

    def __init__(self, played: Played, part: PartName, open_: ExitStack) -> None:
        self.played = played
        self.ground = open_.enter_context(played.stage.at(part))
        work = played.stage.work(part, self.ground)
        self.targets = pl.read_parquet(work.targets)
        self.broker = AlpacaBroker(
            self.ground.broker.trading_url,
            self.ground.broker.data_url,
            "key",
            "secret",
            backoff=(0.001, 0.002, 0.004),
        )
        open_.callback(self.broker.close)

    def a_process(self, what: str, kill_at: int) -> None:
        """Starts, and ends by itself, with an error that it names, or in the middle."""
        played, ground = self.played, self.ground
        # The asset prices what it plans: targets of the morning would be refused as stale at noon.
        now = pl.lit(ground.exchange.clock()).cast(self.targets.schema["priced_at"])
        targets = self.targets.with_columns(priced_at=now)
        played.steps.begin(kill_at)
        try:
            with trading_desk(ground.ledger, self.broker, ground.policy, 5.0) as desk:
                if what == "pass":
                    finish_unfinished(desk)
                else:
                    trade_session(desk, TUESDAY, targets, ground.volumes, what == "replan")
            played.tried["processes that ended well"] += 1
        except Crash:
            played.tried["crashes"] += 1
        except QuantError:
            played.tried["processes that ended with an error"] += 1
        finally:
            played.tried["commits and requests"] += played.steps.seen
            played.steps.begin(0)

    def a_fault(self, name: str, number: int, of_orders: bool) -> None:
        """One request to come goes wrong."""
        kind = kind_named(name)
        if of_orders and kind.at_order is not None:
            rules = kind.at_order(1 + number % 3)
        elif kind.at_request is not None:
            rules = kind.at_request(number)
        else:
            rules = kind.at_order(1) if kind.at_order is not None else []
        if rules:
            self.ground.exchange.inject({"rules": rules})

    def no_faults(self) -> None:
        """The line is good again."""
        self.ground.exchange.clear_faults()

    def time_passes(self, minutes: int) -> None:
        """The market may open, fill and close meanwhile."""
        now = self.ground.exchange.clock().astimezone(NEW_YORK)
        at = min(now.hour * 60 + now.minute + minutes, 18 * 60)
        if now.date() == TUESDAY and at > now.hour * 60 + now.minute:
            self.ground.at(f"{TUESDAY} {at // 60:02}:{at % 60:02}")

    def prices_and_equity_change(self, factor: float) -> None:
        """What would be planned now is something else; what was frozen is not."""
        self.targets = self.targets.with_columns(
            pl.when(pl.col("changed"))
            .then((pl.col("target_quantity") * factor).round())
            .otherwise(pl.col("target_quantity"))
        )

    def a_second_process(self) -> None:
        """Meets a held lock, and leaves."""
        ground = self.ground
        account = ground.broker.account()
        with (
            ground.ledger.exclusive(f"orders:{account.account_id}"),
            pytest.raises((LedgerBusyError, QuantError)),
            trading_desk(ground.ledger, self.broker, ground.policy),
        ):
            raise AssertionError("two processes trade the same account")

    def nothing_is_doubled(self) -> None:
        """At no moment is there a second order, or one that nobody froze."""
        accepted = self.ground.accepted()
        assert set(accepted.values()) <= {1}
        with self.ground.ledger.begin() as session:
            known = set(session.scalars(select(OrderIntent.client_order_id)))
        assert set(accepted) <= known
        self.played.tried["actions"] += 1

    def ends(self) -> None:
        """The line is good, the day ends, all is booked: ledger and exchange agree."""
        self.ground.exchange.clear_faults()
        end_of_day(self.ground)
        truth = truth_of(self.ground, TUESDAY, None)
        # Prices that a jump of the clock made old while a batch was planned trip a breaker.
        assert [p for p in truth.problems if "by breaker: stale_data" not in p] == []


#: Name of a method and its arguments; processes and faults are most of what happens.
_PROCESS: Final = st.tuples(
    st.just("a_process"),
    st.tuples(
        st.sampled_from(["trade", "trade", "pass", "replan"]),
        # Most processes find little to do: their few steps are not missed either.
        st.one_of(st.just(0), st.sampled_from(range(1, 40)), st.sampled_from(range(1, _STEPS))),
    ),
)
_FAULT: Final = st.tuples(
    st.just("a_fault"),
    st.tuples(
        st.sampled_from([kind.name for kind in _QUICK]),
        st.sampled_from(range(1, 41)),
        st.booleans(),
    ),
)
_OTHERS: Final = (
    st.tuples(st.just("time_passes"), st.tuples(st.sampled_from([1, 30, 60, 120]))),
    st.tuples(st.just("prices_and_equity_change"), st.tuples(st.sampled_from([0.25, 0.5, 1.5]))),
    st.tuples(st.just("no_faults"), st.just(())),
    st.tuples(st.just("a_second_process"), st.just(())),
)
_SCHEDULE: Final = st.lists(
    st.one_of(_PROCESS, _PROCESS, _PROCESS, _FAULT, _FAULT, *_OTHERS),
    min_size=_ACTIONS,
    max_size=_ACTIONS,
)


def run_schedules(stage: Stage, schedules: int, seed: int) -> Counter[str]:
    """Play so many schedules; the seed is printed, and given again by QUANT_TEST_SEED."""
    played = Played(stage)
    print(f"seed {seed}")

    @seeded(seed)
    @settings(
        max_examples=schedules,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(part=st.sampled_from(_PARTS), schedule=_SCHEDULE)
    def play(part: PartName, schedule: list[tuple[str, tuple[Any, ...]]]) -> None:
        with ExitStack() as open_:
            day = TradingDayUnderFire(played, part, open_)
            for name, arguments in schedule:
                getattr(day, name)(*arguments)
                day.nothing_is_doubled()
            day.ends()

    with pytest.MonkeyPatch.context() as patch:
        # `watch_requests` replaces it; what it was comes back at the end.
        patch.setattr(requests.Session, "send", requests.Session.send)
        played.steps.watch_requests()
        play()
    print(", ".join(f"{count} {what}" for what, count in sorted(played.tried.items())))
    return played.tried


def _seed(default: int) -> int:
    return int(os.environ.get("QUANT_TEST_SEED", default))


def test_random_schedules(stage: Stage) -> None:
    """A few schedules, others every time."""
    tried = run_schedules(stage, 10, _seed(random.randrange(2**32)))
    assert tried["crashes"] > 0
    assert tried["commits and requests"] > 500


@pytest.mark.long
@pytest.mark.parametrize("part", range(5))
def test_ten_thousand_actions(stage: Stage, part: int) -> None:
    """2,000 actions a part: 10,000 together, with some hundred thousand commits and requests."""
    tried = run_schedules(stage, 100, _seed(random.randrange(2**32)) + part)
    assert tried["actions"] >= 2_000
