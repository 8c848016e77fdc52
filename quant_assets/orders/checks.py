"""Rules on the orders stage that need thought: what must hold before and after money moves.

Belongs here: rules on stored rows, the ledger and the broker, as functions to a `Finding`. Bounds, keys and
allowed values are generated from `schemas.py`.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Final

import polars as pl
from sqlalchemy import func, select

from quant_assets.orders.limits import LIMITS
from quant_assets.orders.schemas import (
    ACCOUNT,
    FILLS,
    ORDER_INTENTS,
    POSITIONS,
    TARGET_PORTFOLIO,
)
from quant_assets.table_checks import CheckScope, Finding, TableCheck
from quant_resources.calendar import XNYS
from quant_resources.ledger import account_book
from quant_resources.ledger.counted_fills import corrections_by_fill, counted
from quant_resources.ledger.order_states import AT_BROKER, UNFINISHED
from quant_resources.ledger.order_tables import Fill, Order, OrderBatch, OrderEvent, OrderIntent

_ROUNDING: Final = 1e-6
#: Of a sum of binary copies of exact amounts.
_CENT: Final = 0.01
_LIMIT_NAMES: Final = frozenset(limit.name for limit in LIMITS)


def targets_within_allocation(frame: pl.DataFrame, _scope: CheckScope) -> Finding:
    """Changed target weights of a strategy gross at most 4, the ceiling of any policy."""
    gross = (
        frame.filter("changed")
        .group_by("trading_session", "strategy")
        .agg(gross=pl.col("target_weight").abs().sum())
    )
    broken = gross.filter(~pl.col("gross").is_finite() | (pl.col("gross") > 4 + _ROUNDING))
    return Finding(
        passed=not broken.height,
        message=f"Target weights of {gross.height} strategies sum within bounds."
        if not broken.height
        else f"{broken.height} strategies have target weights that sum to more than 4.",
        count=broken.height,
        sample=broken,
        remedy="Correct the strategy's weights; nothing is ordered from this partition.",
    )


def targets_follow_signals(frame: pl.DataFrame, _scope: CheckScope) -> Finding:
    """Changed targets come from the session right before the trading session."""
    days = frame.get_column("trading_session").unique().to_list()
    before = pl.DataFrame(
        {"trading_session": days, "expected": [XNYS.previous(day) for day in days]},
        schema={"trading_session": pl.Date, "expected": pl.Date},
    )
    broken = (
        frame.filter("changed")
        .join(before, on="trading_session")
        .filter(pl.col("signal_session") != pl.col("expected"))
    )
    return Finding(
        passed=not broken.height,
        message="Every changed target comes from the signals of the session before."
        if not broken.height
        else f"{broken.height} targets come from signals of another session.",
        count=broken.height,
        sample=broken.head(5).select("strategy", "symbol", "signal_session"),
        remedy="Materialize the signals of the session before, then this partition.",
    )


def nothing_past_deadline(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """No intent is unfinished after its deadline, by the broker's clock."""
    now = scope.broker.clock().now
    unfinished = pl.col("state").is_in(sorted(map(str, UNFINISHED)))
    late = frame.filter(unfinished & (pl.col("deadline") <= now))
    return Finding(
        passed=not late.height,
        message="No order is unfinished past its deadline."
        if not late.height
        else f"{late.height} orders are unfinished past their deadline.",
        count=late.height,
        sample=late.head(5).select("client_order_id", "symbol", "state", "deadline"),
        remedy="Materialize orders/order_intents again: recovery looks them up and ends them.",
    )


def accepted_have_one_order(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """Every intent that the broker took has exactly one entry order, whatever protects or replaced it."""
    with scope.ledger.begin() as session:
        rows = session.execute(
            select(Order.client_order_id, func.count())
            .where(
                Order.role == "entry",
                Order.client_order_id.in_(frame.get_column("client_order_id").to_list()),
            )
            .group_by(Order.client_order_id)
        )
        counts = {row[0]: row[1] for row in rows}
    taken = frame.filter(pl.col("state").is_in(sorted(map(str, AT_BROKER))))
    wrong = [name for name in taken.get_column("client_order_id") if counts.get(name, 0) != 1]
    return Finding(
        passed=not wrong,
        message=f"Each of {taken.height} accepted intents has exactly one order."
        if not wrong
        else f"{len(wrong)} accepted intents do not have exactly one order.",
        count=len(wrong),
        sample=frame.filter(pl.col("client_order_id").is_in(wrong))
        .head(5)
        .select("client_order_id", "symbol", "state"),
        remedy="Compare with the broker's order list; `quant halt` until it is explained.",
    )


def refusals_are_explained(frame: pl.DataFrame, _scope: CheckScope) -> Finding:
    """Every refused intent names a limit, the number that was measured and the bound."""
    refused = frame.filter(state="refused")
    wrong = refused.filter(
        ~pl.col("limit_name").is_in(sorted(_LIMIT_NAMES)).fill_null(value=False)
        | pl.col("limit_value").is_null()
        | pl.col("limit_bound").is_null()
    )
    return Finding(
        passed=not wrong.height,
        message=f"{refused.height} of {frame.height} intents were refused, each with its limit."
        if not wrong.height
        else f"{wrong.height} refused intents name no limit.",
        count=wrong.height,
        sample=wrong.head(5).select("symbol", "limit_name", "reason"),
        remedy="A limit must say what it measured; see quant_assets/orders/limits.",
    )


def fills_match_orders(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """The fills of every order of these sessions, as they count, add up to what the broker says is filled."""
    days = [date.fromisoformat(key) for key in scope.partition_keys]
    with scope.ledger.begin() as session:
        orders = session.scalars(
            select(Order)
            .join(OrderIntent, OrderIntent.client_order_id == Order.client_order_id)
            .join(OrderBatch, OrderBatch.batch_id == OrderIntent.batch_id)
            .where(OrderBatch.trading_session.in_(days))
        ).all()
        fills = session.scalars(
            select(Fill).where(Fill.broker_order_id.in_([o.broker_order_id for o in orders]))
        ).all()
        corrections = corrections_by_fill(session, [fill.execution_id for fill in fills])
    booked: dict[str, Decimal] = {}
    for fill in fills:
        now = counted(fill, corrections.get(fill.execution_id, ()))
        name = fill.broker_order_id
        booked[name] = booked.get(name, Decimal(0)) + now.quantity
    wrong = [
        order
        for order in orders
        if order.filled_quantity != booked.get(order.broker_order_id, Decimal(0))
    ]
    return Finding(
        passed=not wrong,
        message=f"{frame.height} fills add up to what {len(orders)} orders have filled."
        if not wrong
        else f"{len(wrong)} orders have fills that do not add up.",
        count=len(wrong),
        sample=pl.DataFrame(
            [
                {
                    "client_order_id": order.client_order_id,
                    "role": order.role,
                    "symbol": order.symbol,
                    "broker": str(order.filled_quantity),
                    "booked": str(booked.get(order.broker_order_id, Decimal(0))),
                }
                for order in wrong[:5]
            ]
        ),
        remedy="Materialize orders/orders again; if it stays, compare with the broker's activities.",
    )


def positions_reconcile(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """Orders, fills, positions and cash agree with the broker after trading, but for what is explained."""
    drifts, missing = _last_drifts(scope)
    failed = [drift for drift in drifts if not drift.get("key")]
    passed = not failed and not missing
    return Finding(
        passed=passed,
        message=f"Ledger and broker agree on {frame.height} positions, orders, fills and cash."
        if passed
        else f"{len(failed)} unexplained differences; not reconciled: {', '.join(missing) or 'none'}.",
        count=len(failed) + len(missing),
        sample=pl.DataFrame(failed[:5]) if failed else None,
        remedy="Trading is HALTED: look at each difference (`quant reconcile`), then use `quant resume`.",
    )


def explanations_confirmed(_frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """Nothing that explains a difference to the broker waits for somebody to confirm it."""
    drifts, _ = _last_drifts(scope)
    waiting = {drift["key"]: drift for drift in drifts if drift.get("key")}
    return Finding(
        passed=not waiting,
        message="No explanation of a difference waits to be confirmed."
        if not waiting
        else f"{len(waiting)} explanation(s) wait to be confirmed; nothing new is planned before.",
        count=len(waiting),
        sample=pl.DataFrame(list(waiting.values())[:5]) if waiting else None,
        remedy="If it is right: `quant reconcile --confirm KEY --reason WHY`, then materialize the "
        "performance of the session again.",
    )


def _last_drifts(scope: CheckScope) -> tuple[list[dict[str, str]], list[str]]:
    """What the last comparison of each session found, and sessions without one."""
    account_id = scope.broker.account().account_id
    drifts: list[dict[str, str]] = []
    missing: list[str] = []
    for key in scope.partition_keys:
        with scope.ledger.begin() as session:
            last = account_book.last_reconciliation(session, account_id, date.fromisoformat(key))
        if last is None:
            missing.append(key)
        else:
            drifts += last.findings["drifts"]
    return drifts, missing


def account_adds_up(frame: pl.DataFrame, _scope: CheckScope) -> Finding:
    """Equity is cash plus holdings."""
    wrong = frame.filter(
        (pl.col("equity") - pl.col("cash") - pl.col("long_value") - pl.col("short_value")).abs()
        > _CENT * 100
    )
    return Finding(
        passed=not wrong.height,
        message="Equity is cash plus holdings."
        if not wrong.height
        else "Equity is not cash plus holdings; the broker's account holds something unknown.",
        count=wrong.height,
        sample=wrong.select("trading_session", "equity", "cash", "long_value", "short_value"),
        remedy="Look at the account at the broker: pending transfers, fees, other assets.",
    )


def every_transition_is_recorded(frame: pl.DataFrame, scope: CheckScope) -> Finding:
    """The newest event of every intent says the state that the intent is in."""
    names = frame.get_column("client_order_id").to_list()
    with scope.ledger.begin() as session:
        newest = (
            select(func.max(OrderEvent.event_id))
            .where(OrderEvent.client_order_id.in_(names))
            .group_by(OrderEvent.client_order_id)
        )
        rows = session.execute(
            select(OrderIntent.client_order_id, OrderIntent.state, OrderEvent.to_state)
            .join(OrderEvent, OrderEvent.client_order_id == OrderIntent.client_order_id)
            .where(OrderEvent.event_id.in_(newest))
        ).all()
    wrong = [row for row in rows if row[1] != row[2]]
    complete = len(rows) == len(names)
    return Finding(
        passed=not wrong and complete,
        message=f"{len(rows)} intents are where their last event says."
        if not wrong and complete
        else f"{len(wrong) + len(names) - len(rows)} intents contradict their events.",
        count=len(wrong) + len(names) - len(rows),
        sample=pl.DataFrame(
            [{"client_order_id": n, "state": s, "event": e} for n, s, e in wrong[:5]]
        )
        if wrong
        else None,
        remedy="The ledger was changed from outside; restore it from its events.",
    )


CHECKS: tuple[TableCheck, ...] = (
    TableCheck(
        TARGET_PORTFOLIO,
        "weights_sum",
        "Target weights of every strategy sum within bounds, so that no order comes from a wild weight.",
        targets_within_allocation,
    ),
    TableCheck(
        TARGET_PORTFOLIO,
        "follows_signals",
        "Changed targets come from the signals of the session before, never from older or later ones.",
        targets_follow_signals,
    ),
    TableCheck(
        ORDER_INTENTS,
        "nothing_past_deadline",
        "No order is unfinished past its deadline: it was looked up and ended.",
        nothing_past_deadline,
        blocking=False,
    ),
    TableCheck(
        ORDER_INTENTS,
        "one_order_each",
        "Every intent that the broker took has exactly one order.",
        accepted_have_one_order,
    ),
    TableCheck(
        ORDER_INTENTS,
        "refusals_explained",
        "Every refused intent names its limit, the number and the bound.",
        refusals_are_explained,
        blocking=False,
    ),
    TableCheck(
        ORDER_INTENTS,
        "events_agree",
        "Every state of an intent has the event that led to it.",
        every_transition_is_recorded,
    ),
    TableCheck(
        FILLS,
        "fills_match_orders",
        "Booked fills add up to what the broker says of each order.",
        fills_match_orders,
    ),
    TableCheck(
        POSITIONS,
        "positions_reconcile",
        "Ledger and broker agree on orders, fills, positions and cash after trading.",
        positions_reconcile,
    ),
    TableCheck(
        POSITIONS,
        "explanations_confirmed",
        "Nothing that explains a difference to the broker waits for somebody to confirm it.",
        explanations_confirmed,
        blocking=False,
    ),
    TableCheck(
        ACCOUNT, "equity_adds_up", "Equity is cash plus holdings.", account_adds_up, blocking=False
    ),
)
