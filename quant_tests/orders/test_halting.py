"""Halting and resuming, against the real exchange and ledger: state, open orders, the broker's switch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from quant_assets.cli import trading_state
from quant_assets.orders import halting
from quant_assets.orders.submission import TradingDesk, trading_desk
from quant_resources.errors import BrokerError, ConfigurationError
from quant_resources.ledger import account_book
from quant_tests.orders.ground import Ground

MONDAY, TUESDAY = date(2024, 3, 4), date(2024, 3, 5)
BRACKETS = {
    "brackets": True,
    "time_in_force": "gtc",
    "stop_loss": "0.10",
    "take_profit": "0.10",
}
SWITCH = {"method": "PATCH", "path": "/v2/account/configurations"}


def halt(ground: Ground, reason: str = "lunch", **asked: bool) -> None:
    halting.halt(ground.ledger, "main", reason, "ada", **asked)


def resume(ground: Ground) -> None:
    with opened(ground) as desk:
        halting.resume(ground.ledger, "main", "back", "ada", lambda: desk)


@contextmanager
def opened(ground: Ground) -> Iterator[TradingDesk]:
    with trading_desk(ground.ledger, ground.broker, ground.policy) as desk:
        yield desk


def open_orders(ground: Ground) -> dict[str, int]:
    """Symbol → open entries and legs at the broker."""
    counts: dict[str, int] = {}
    for order in ground.broker.open_orders():
        counts[order.symbol] = counts.get(order.symbol, 0) + 1
    return counts


def test_a_halt_alone_leaves_what_is_open(ground: Ground) -> None:
    ground.trade(MONDAY, momentum={"AAA": 0.2})
    halt(ground)
    assert ground.finish().cancelled == 0
    assert open_orders(ground) == {"AAA": 1}
    assert not ground.broker.is_suspended()


@pytest.mark.parametrize("by", ["policy", "person"])
def test_a_halt_cancels_open_entries_and_no_protection(ground: Ground, by: str) -> None:
    """AAA is held with its two protective legs; BBB's entry is still open."""
    ground.changed(style=BRACKETS)
    ground.trade(MONDAY, momentum={"AAA": 0.1})
    ground.evening(MONDAY)
    ground.finish()
    ground.morning(TUESDAY)
    ground.trade(TUESDAY, momentum={"AAA": None, "BBB": 0.1})
    assert open_orders(ground) == {"AAA": 2, "BBB": 3}
    if by == "policy":
        ground.changed(breakers={"cancel_open_orders": True})
    halt(ground, cancel_orders=by == "person")
    assert ground.finish().cancelled == 1
    # With the entry go the legs that would have protected it.
    assert open_orders(ground) == {"AAA": 2}
    assert ground.finish().cancelled == 0


def test_the_switch_is_set_and_taken_back(ground: Ground) -> None:
    """With the switch set the broker itself refuses; after `resume` the day is traded."""
    halt(ground, suspend_at_broker=True)
    ground.finish()
    assert ground.broker.is_suspended()
    status = ground.status()
    assert (status.state, status.changed_by) == ("HALTED", "ada")
    assert "lunch" in status.reason
    resume(ground)
    assert not ground.broker.is_suspended()
    assert ground.status().state == "ACTIVE"
    _, report = ground.trade(MONDAY, momentum={"AAA": 0.2})
    assert report.sent == 1


def test_a_switch_that_somebody_else_has_set_stays(ground: Ground) -> None:
    ground.broker.suspend_trading(suspended=True)
    halt(ground, suspend_at_broker=True)
    ground.finish()
    resume(ground)
    assert ground.broker.is_suspended()


def switch_broken(ground: Ground, *, after: bool) -> None:
    fault: dict[str, Any] = {"kind": "reset", "after": after}
    ground.exchange.inject({"rules": [{**SWITCH, "fault": fault}]})


@pytest.mark.parametrize("after", [False, True])
def test_the_next_pass_sets_a_switch_that_did_not_answer(ground: Ground, after: bool) -> None:
    """The ledger says HALTED first; a request that was lost, or whose answer was, is made good."""
    halt(ground, suspend_at_broker=True)
    switch_broken(ground, after=after)
    # Where only the answer was lost, the end of the same pass sees that the switch is set.
    assert ("switch is not set" in ground.finish().stopped) == (not after)
    assert ground.status().state == "HALTED"
    ground.exchange.clear_faults()
    assert ground.finish().stopped == ""
    assert ground.broker.is_suspended()
    resume(ground)
    assert not ground.broker.is_suspended()


def test_a_process_that_dies_between_row_and_switch_leaves_it_to_the_next(ground: Ground) -> None:
    """Whoever resumes before that finds a switch that would have been ours, and leaves none set."""
    halt(ground, suspend_at_broker=True)
    switch_broken(ground, after=False)
    ground.finish()
    with ground.ledger.begin() as session:
        assert halting.switch_is_ours(session, "main")
    ground.exchange.clear_faults()
    resume(ground)
    assert not ground.broker.is_suspended()
    with ground.ledger.begin() as session:
        assert not halting.switch_is_ours(session, "main")
    ground.finish()
    assert ground.status().state == "ACTIVE"


def test_nobody_resumes_while_the_broker_keeps_the_switch(ground: Ground) -> None:
    """An ACTIVE book at a broker that refuses everything would lose its whole batch as rejected."""
    halt(ground, suspend_at_broker=True)
    ground.finish()
    switch_broken(ground, after=False)
    with pytest.raises(BrokerError):
        resume(ground)
    assert ground.status().state == "HALTED"


def test_a_switch_left_behind_is_taken_back_before_anything_is_sent(ground: Ground) -> None:
    """Somebody made the book ACTIVE without us: the pass takes the switch back first."""
    halt(ground, suspend_at_broker=True)
    ground.finish()
    with ground.ledger.begin() as session:
        account_book.set_trading_status(session, "main", "ACTIVE", "by hand", "ada")
    _, report = ground.trade(MONDAY, momentum={"AAA": 0.2})
    assert (report.sent, report.rejected) == (1, 0)
    assert ground.status().state == "ACTIVE"


def test_a_dry_run_touches_nothing_at_the_broker(ground: Ground) -> None:
    ground.trade(MONDAY, momentum={"AAA": 0.2})
    ground.changed(mode="dry_run")
    halt(ground, cancel_orders=True, suspend_at_broker=True)
    assert ground.finish().cancelled == 0
    assert open_orders(ground) == {"AAA": 1}
    assert not ground.broker.is_suspended()


def test_machines_only_tighten(ground: Ground) -> None:
    def tighten(state: Any) -> bool:
        with ground.ledger.begin() as session:
            return halting.tighten(session, "main", state, "why", "a machine")

    assert tighten("REDUCING")
    assert not tighten("REDUCING")
    assert tighten("HALTED")
    assert not tighten("REDUCING")
    assert ground.status().state == "HALTED"


def test_a_machine_does_not_undo_a_halt_that_is_being_committed(ground: Ground) -> None:
    """What a machine has read must still be the newest when it writes."""
    tightened: list[bool] = []

    def tighten() -> None:
        with ground.ledger.begin() as session:
            tightened.append(halting.tighten(session, "main", "REDUCING", "why", "a machine"))

    other = threading.Thread(target=tighten)
    with ground.ledger.begin() as session:
        halting.tighten(session, "main", "HALTED", "lunch", "ada")
        other.start()
        other.join(0.3)
        assert other.is_alive()
    other.join()
    assert tightened == [False]
    assert ground.status().state == "HALTED"


def test_halting_never_relaxes(ground: Ground) -> None:
    halt(ground)
    with pytest.raises(ConfigurationError, match="quant resume --reducing"):
        halt(ground, reducing=True)
    with pytest.raises(ConfigurationError, match="leave out --reducing"):
        halt(ground, reducing=True, cancel_orders=True)
    assert ground.status().state == "HALTED"


def command(*arguments: str) -> str:
    """`quant halt` or `quant resume` in this process; its errors come out."""
    app = typer.Typer()
    app.command("halt")(trading_state.halt)
    app.command("resume")(trading_state.resume)
    return CliRunner().invoke(app, arguments, catch_exceptions=False).stdout


@pytest.fixture
def environment(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of the trading ground, as a user would give them."""
    for name, value in {
        "QUANT_DATA_ROOT": str(ground.folder / "root"),
        "QUANT_DATABASE_URL": ground.ledger.url.render_as_string(hide_password=False),
        "QUANT_SOURCE": "exchange",
        "QUANT_TRADING_URL": ground.exchange.url,
        "QUANT_DATA_URL": ground.exchange.url,
        "QUANT_TRADING_MODE": "paper",
        "COLUMNS": "300",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ground.folder)


@pytest.mark.usefixtures("environment")
def test_the_commands_say_who_why_and_when_and_reach_the_broker(ground: Ground) -> None:
    ground.trade(MONDAY, momentum={"AAA": 0.2})
    told = command("halt", "--reason", "odd prices", "--cancel-orders", "--suspend-at-broker")
    assert "ACTIVE → HALTED, by " in told
    assert "odd prices" in told
    assert "1 open order(s) are being cancelled; the broker's own switch is set." in told
    assert open_orders(ground) == {}
    assert ground.broker.is_suspended()
    told = command("resume", "--reason", "looked into it")
    assert "HALTED → ACTIVE" in told
    assert "It was HALTED by " in told
    assert not ground.broker.is_suspended()


@pytest.mark.usefixtures("environment")
def test_a_dry_run_is_told_that_the_broker_was_left_alone(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANT_TRADING_MODE", "dry_run")
    with pytest.raises(ConfigurationError, match="is HALTED, but in mode dry_run nothing"):
        command("halt", "--reason", "lunch", "--cancel-orders")
    assert ground.status().state == "HALTED"


@pytest.mark.usefixtures("environment")
def test_reducing_needs_no_broker(ground: Ground) -> None:
    told = command("halt", "--reason", "risk off", "--reducing")
    assert "ACTIVE → REDUCING" in told
    assert ground.status().state == "REDUCING"
