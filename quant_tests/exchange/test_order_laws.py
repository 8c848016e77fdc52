"""Laws that hold whatever is sent: random orders, replacements, cancellations, busts and hours."""

from __future__ import annotations

import itertools
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quant_resources.exchange.account import held_for_orders
from quant_resources.exchange.corrections import played
from quant_resources.exchange.exchange import Exchange
from quant_resources.exchange.orders import ZERO, Order
from quant_resources.exchange.process import create_state
from quant_resources.exchange.refusals import RefusalError
from quant_resources.exchange.spec import MarketSpec
from quant_tests.exchange.served import WEEK, new_york, write_history

_HOURS = [
    new_york(f"2024-03-{day:02} {hour}")
    for day in range(5, 9)
    for hour in ("09:00", "09:30", "12:00", "16:00", "17:00")
]
_PLAUSIBLE = {"ABC": range(95, 112), "XYZ": range(48, 56)}


@pytest.fixture(scope="module")
def market() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield write_history(Path(folder) / "history", WEEK)


@st.composite
def submissions(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    symbol = draw(st.sampled_from(sorted(_PLAUSIBLE)))
    price = st.sampled_from(_PLAUSIBLE[symbol])
    side = draw(st.sampled_from(["buy", "sell"]))
    kind = draw(st.sampled_from(["market", "limit", "stop", "stop_limit"]))
    body: dict[str, Any] = {
        "symbol": symbol,
        "side": side,
        "type": kind,
        "time_in_force": draw(st.sampled_from(["day", "gtc", "gtc", "cls", "ioc"])),
        "qty": str(draw(st.sampled_from([1, 5, 400, 1_500]))),
    }
    if "limit" in kind:
        body["limit_price"] = str(draw(price))
    if "stop" in kind:
        body["stop_price"] = str(draw(price))
    if draw(st.booleans()):
        above, below = str(draw(price) + 4), str(draw(price) - 4)
        profit, loss = (above, below) if side == "buy" else (below, above)
        body["order_class"] = "bracket"
        body["take_profit"], body["stop_loss"] = {"limit_price": profit}, {"stop_price": loss}
    return "submit", body


picks = st.integers(0, 10**6)
commands = st.one_of(
    submissions(),
    submissions(),
    st.just(("advance", None)),
    st.just(("advance", None)),
    st.tuples(st.just("cancel"), picks),
    st.tuples(st.just("replace"), st.tuples(picks, st.integers(-3, 3), st.booleans())),
    st.tuples(st.just("correct"), st.tuples(picks, st.integers(0, 2))),
)


def carry_out(exchange: Exchange, hours: Iterator[Any], name: str, what: Any) -> None:
    """Do what a command says; a refusal is an answer like any other."""
    with suppress(RefusalError):
        if name == "submit":
            exchange.submit(what)
        elif name == "advance":
            exchange.advance(next(hours, exchange.now))
        elif name == "correct":
            fills = [e for e in exchange.state.audit() if e["event"] == "fill"]
            if fills:
                fill, kind = fills[what[0] % len(fills)], what[1]
                terms = [{"kind": "bust"}, {"kind": "correct", "price": "77.25"}]
                terms.append({"kind": "correct", "quantity": "1"})
                exchange.correct({"execution_id": fill["execution_id"], **terms[kind]})
        elif orders := exchange.state.open_orders():
            if name == "cancel":
                exchange.cancel(orders[what % len(orders)].order_id)
                return
            order = orders[what[0] % len(orders)]
            moved = "stop_price" if what[2] and order.stop_price else "limit_price"
            price = getattr(order, moved) or Decimal(100)
            exchange.replace(order.order_id, {moved: str(price + what[1])})


def check(exchange: Exchange) -> None:
    """Every law, on the state as it is."""
    state = exchange.state
    audit, orders, positions = state.audit(), state.all_orders(), state.positions()
    cash, held = Decimal(1_000_000), defaultdict[str, Decimal](Decimal)
    value: dict[str, tuple[Decimal, Decimal]] = {}
    for event in audit:
        if event["event"] not in {"fill", "bust", "correct"}:
            continue
        sign = 1 if event["side"] == "buy" else -1
        execution = event.get("previous_execution_id", event["execution_id"])
        now = (Decimal(event["quantity"]), Decimal(event["price"]))
        if event["event"] == "bust":
            now = (ZERO, ZERO)
        was = value.get(execution, (ZERO, ZERO))
        cash -= sign * (now[0] * now[1] - was[0] * was[1])
        held[event["symbol"]] += sign * (now[0] - was[0])
        value[execution] = now
    assert state.cash == cash
    assert {s: p.quantity for s, p in positions.items()} == {s: q for s, q in held.items() if q}
    corrected = any(event["event"] in {"bust", "correct"} for event in audit)
    if not corrected:
        assert played(state.activities(), {}) == positions
    for order in orders:
        assert order.quantity is not None
        assert ZERO <= order.filled_quantity <= order.quantity
        assert (order.status == "replaced") == (order.replaced_by is not None)
    entries = [o for o in orders if o.group_role == "entry" and o.status != "replaced"]
    for entry in entries:
        check_bracket(entry, [o for o in orders if o.parent_id == entry.order_id], corrected)
    if not corrected:
        check_claims(exchange)


def check_bracket(entry: Order, legs: list[Order], corrected: bool) -> None:
    """Legs wait for their entry, end with it, and close no more than it has opened."""
    live = [leg for leg in legs if leg.is_open]
    assert {leg.status == "held" for leg in live} <= {entry.status != "filled"}
    assert entry.status == "filled" or entry.is_open or not live
    assert len(live) in {0, 2}
    assert sum(leg.status == "filled" for leg in legs) <= 1
    if not corrected:
        assert sum(leg.filled_quantity for leg in legs) <= entry.filled_quantity
        assert entry.status == "filled" or not any(leg.filled_quantity for leg in legs)


def check_claims(exchange: Exchange) -> None:
    """Open orders never close more than is held, so that no position is turned."""
    orders = exchange.state.open_orders()
    for symbol, position in exchange.state.positions().items():
        side = "sell" if position.quantity > 0 else "buy"
        claimed = held_for_orders((o for o in orders if o.symbol == symbol), side, None)
        assert claimed <= abs(position.quantity)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(commands, min_size=5, max_size=30))
def test_the_books_agree_and_no_bracket_closes_more_than_it_opened(
    market: Path, script: list[tuple[str, Any]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spec = MarketSpec(kind="history", folder=market, half_spread_bps=ZERO, impact_bps=ZERO)
        create_state(Path(folder), spec)
        exchange = Exchange(Path(folder))
        hours = iter(_HOURS)
        exchange.advance(next(hours))
        for name, what in itertools.chain(script, [("advance", None)] * 3):
            carry_out(exchange, hours, name, what)
            check(exchange)
        orders, positions = exchange.state.all_orders(), exchange.state.positions()
        exchange.state.close()
        again = Exchange(Path(folder))
        assert (again.state.all_orders(), again.state.positions()) == (orders, positions)
        again.state.close()
