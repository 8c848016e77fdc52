"""What may explain a difference between ledger and broker: the broker's own facts, or nothing.

Pure. Does not belong here: asking the broker for those facts (`comparison.py`) and booking (`confirmation.py`).

1. Orders that are not ours, with their executions, explain a position if they account for the whole difference of
   the symbol's shares, alone or together with a split. An order that has filled nothing explains itself.
2. An announced split explains a position if the broker's shares are the ledger's times its ratio. So does a split
   that the broker posted without shares, if what the position cost has stayed the same.
3. A rename that does not name the old symbol explains two positions if exactly one holding has gone that is as large
   as the one that has come.
4. Cash is one number: what the explained trades cost is taken off first. The rest must be zero, or what announced
   dividends pay that were not booked; otherwise nothing explains the cash. Trades whose cash has not moved at all are
   no explanation either.
5. What none of these explains stays unexplained, and halts. Nothing is ever explained by an amount alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal

from quant_assets.orders.drift import Drift, Explanation, ForeignExecution, plain
from quant_assets.orders.policy import Reconciling
from quant_assets.orders.position_history import History, Traded
from quant_assets.orders.positions import Holding, round_step, signed
from quant_assets.orders.reconciliation import Side
from quant_resources.broker import AccountActivity, BrokerOrder, Execution, Split
from quant_resources.calendar import start_of_day

_ZERO = Decimal(0)
_CENT = Decimal("0.01")


@dataclass(frozen=True)
class DueDividend:
    """A dividend that was announced and not booked: USD a share, on the shares held before the ex-date."""

    symbol: str
    ex_date: date
    rate: Decimal
    shares: Decimal

    @property
    def amount(self) -> Decimal:
        """USD, to the cent; negative for shares that were sold short."""
        return (self.rate * self.shares).quantize(_CENT)


@dataclass(frozen=True)
class Facts:
    """What the broker says beside orders, positions and cash, none of it booked.

    Attributes:
        orders: Orders that are not ours and were not confirmed.
        executions: What those, or others that are not ours, did: fills, busts, corrections.
        confirmed: Executions that were confirmed before, in the order in which they were.
        splits: Announced splits that no activity has booked.
        dividends: Announced dividends that no activity has booked.
        incomplete: Splits (SPLIT) without shares and renames (NC) without the old symbol.
        now: The broker's time.
    """

    now: datetime
    orders: Sequence[BrokerOrder] = ()
    executions: Sequence[Execution] = ()
    confirmed: Sequence[ForeignExecution] = ()
    splits: Sequence[Split] = ()
    dividends: Sequence[DueDividend] = ()
    incomplete: Sequence[AccountActivity] = ()


def explain(
    drifts: Sequence[Drift], ledger: Side, broker: Side, facts: Facts, tolerance: Reconciling
) -> list[Drift]:
    """The same differences, each with what explains it, if anything does."""
    trades = _foreign_trades(facts)
    symbols = {one.symbol for one in trades if one.symbol} | {
        drift.subject for drift in drifts if drift.kind == "position"
    }
    found: list[Explanation] = []
    for symbol in sorted(symbols):
        own = [one for one in trades if one.symbol == symbol]
        found += _of_symbol(symbol, own, ledger, broker, facts, tolerance)
    found += _renames(ledger, broker, facts, tolerance)
    difference = broker.cash - ledger.cash
    rest = difference - sum((one.cash for one in found), _ZERO)
    dividends = _dividends(rest, facts, tolerance)
    cash_explained = dividends is not None
    found += dividends or []
    if not cash_explained and abs(difference) <= tolerance.cash:
        found = [one for one in found if abs(one.cash) <= tolerance.cash]
    return [
        replace(drift, explanation=_behind(drift, found, cash_explained, ledger, broker, tolerance))
        for drift in drifts
    ]


def effects(
    executions: Iterable[Execution], confirmed: Iterable[ForeignExecution]
) -> list[tuple[ForeignExecution, ForeignExecution | None]] | None:
    """Each execution as it counts, and what it takes the place of.

    Returns:
        None if one of them corrects something that is not known.
    """
    counts: dict[str, ForeignExecution] = {}
    first: dict[str, str] = {}
    for one in confirmed:
        first[one.execution_id] = first.get(one.corrects or "", one.corrects or one.execution_id)
        counts[first[one.execution_id]] = one
    found: list[tuple[ForeignExecution, ForeignExecution | None]] = []
    for execution in sorted(executions, key=lambda e: (e.filled_at, e.execution_id)):
        before = None
        change = signed(execution.side, round_step(execution.quantity))
        price, at, root = round_step(execution.price), execution.filled_at, execution.execution_id
        if execution.kind != "fill":
            root = first.get(execution.corrects or "", execution.corrects or "")
            before = counts.get(root)
            if before is None:
                return None
            at = before.at
            if execution.kind == "bust":
                change, price = _ZERO, before.price
        corrects = None if root == execution.execution_id else root
        one = ForeignExecution(execution.execution_id, change, price, at, corrects)
        first[execution.execution_id] = root
        counts[root] = one
        found.append((one, before))
    return found


def _foreign_trades(facts: Facts) -> list[Explanation]:
    """One explanation per order that is not ours."""
    orders = {order.broker_order_id: order for order in facts.orders}
    by_order: dict[str, list[Execution]] = {name: [] for name in orders}
    for execution in facts.executions:
        by_order.setdefault(execution.broker_order_id, []).append(execution)
    found = []
    for name, executions in by_order.items():
        counted = effects(executions, facts.confirmed)
        if counted is None:
            continue
        symbol = executions[0].symbol if executions else orders[name].symbol
        change = sum((o.change - (b.change if b else _ZERO) for o, b in counted), _ZERO)
        cash = sum((o.cash - (b.cash if b else _ZERO) for o, b in counted), _ZERO)
        found.append(
            Explanation(
                kind="manual_trade",
                symbol=symbol,
                quantity=change,
                price=round_step(abs(cash / change)) if change and cash else None,
                cash=round_step(cash),
                at=max((e.filled_at for e in executions), default=facts.now),
                text=_told(name, orders.get(name), symbol, change, cash, bool(executions)),
                orders=(name,),
                executions=tuple(one for one, _ in counted),
            )
        )
    return found


def _told(  # noqa: PLR0917 - one sentence from its parts
    name: str,
    order: BrokerOrder | None,
    symbol: str,
    change: Decimal,
    cash: Decimal,
    traded: bool,
) -> str:
    called = f"{order.client_order_id} ({name})" if order is not None else name
    if not traded:
        return f"Order {called} on {symbol} was given at the broker, not by us, and has filled nothing."
    did = f"{'bought' if change >= 0 else 'sold'} {plain(abs(change))} {symbol}"
    return f"Order {called} was given at the broker, not by us: it {did} (cash {cash:+,.2f} USD)."


def _of_symbol(  # noqa: PLR0917 - both sides and what is known
    symbol: str,
    trades: Sequence[Explanation],
    ledger: Side,
    broker: Side,
    facts: Facts,
    tolerance: Reconciling,
) -> list[Explanation]:
    """Trades and split that together account for the whole difference of a symbol, or nothing."""
    mine, other = _held(ledger, symbol), _held(broker, symbol)
    traded = sum((one.quantity for one in trades), _ZERO)
    if abs(mine.quantity + traded - other.quantity) <= tolerance.quantity:
        return list(trades)
    for split in _splits(symbol, mine, other, facts, tolerance):
        left = other.quantity - mine.quantity - split.quantity
        if abs(left) <= tolerance.quantity:
            return [split]
        if abs(left - traded) <= tolerance.quantity:
            return [split, *trades]
    return []


def _splits(
    symbol: str, mine: Holding, other: Holding, facts: Facts, tolerance: Reconciling
) -> Iterable[Explanation]:
    if not mine.quantity:
        return
    for split in facts.splits:
        if split.symbol == symbol:
            change = round_step(mine.quantity * (split.ratio - 1))
            told = f"{symbol} was split {plain(round_step(split.ratio))} for 1 on {split.ex_date}."
            yield _split(symbol, change, split.ex_date, told)
    for activity in facts.incomplete:
        cost = mine.quantity * mine.average_price - other.quantity * other.average_price
        kept = abs(cost) <= tolerance.average_price * abs(other.quantity)
        if activity.activity_type == "SPLIT" and activity.symbol == symbol and kept:
            told = (
                f"The broker posted a split of {symbol} on {activity.activity_date} without shares, and what "
                "the position cost has stayed the same."
            )
            change = other.quantity - mine.quantity
            yield _split(symbol, change, activity.activity_date, told)


def _split(symbol: str, change: Decimal, day: date, told: str) -> Explanation:
    return Explanation("split", symbol, change, None, _ZERO, start_of_day(day), told)


def _renames(
    ledger: Side, broker: Side, facts: Facts, tolerance: Reconciling
) -> Iterable[Explanation]:
    for activity in facts.incomplete:
        new = activity.symbol
        if activity.activity_type != "NC" or new is None:
            continue
        come = _held(broker, new).quantity - _held(ledger, new).quantity
        gone = [
            symbol
            for symbol, holding in ledger.positions.items()
            if symbol not in broker.positions and abs(holding.quantity - come) <= tolerance.quantity
        ]
        if come and len(gone) == 1:
            yield Explanation(
                "other",
                new,
                come,
                None,
                _ZERO,
                start_of_day(activity.activity_date),
                f"{gone[0]} was renamed {new} on {activity.activity_date}: {plain(come)} shares are held under "
                "the new name.",
                old_symbol=gone[0],
            )


def _dividends(rest: Decimal, facts: Facts, tolerance: Reconciling) -> list[Explanation] | None:
    """The dividends that make up an amount of cash; none for no cash, None where nothing does."""
    if abs(rest) <= tolerance.cash:
        return []
    due = [dividend for dividend in facts.dividends if dividend.amount]
    for chosen in (due, *([one] for one in due)):
        total = sum((one.amount for one in chosen), _ZERO)
        if chosen and abs(rest - total) <= tolerance.cash:
            return [
                Explanation(
                    "dividend",
                    one.symbol,
                    _ZERO,
                    None,
                    one.amount,
                    start_of_day(one.ex_date),
                    f"{one.symbol} pays {plain(one.rate)} USD on each of {plain(one.shares)} shares "
                    f"(ex-date {one.ex_date}): {one.amount:+,.2f} USD.",
                )
                for one in chosen
            ]
    return None


def _behind(  # noqa: PLR0917 - both sides and what was found
    drift: Drift,
    found: Sequence[Explanation],
    cash_explained: bool,
    ledger: Side,
    broker: Side,
    tolerance: Reconciling,
) -> Explanation | None:
    """The explanation of one difference, if it has one."""
    if drift.kind == "order" and drift.ledger == "none":
        fits = [one for one in found if drift.subject in one.orders]
    elif drift.kind == "fill" and drift.ledger == "none":
        fits = [one for one in found if drift.subject in {e.execution_id for e in one.executions}]
    elif drift.kind == "position":
        fits = [
            one for one in found if one.quantity and drift.subject in {one.symbol, one.old_symbol}
        ]
    elif drift.kind == "average_price":
        own = [one for one in found if one.symbol == drift.subject and one.executions]
        after = _played(ledger, drift.subject, own).average_price
        near = abs(after - _held(broker, drift.subject).average_price) <= tolerance.average_price
        fits = own if near else []
    elif drift.kind == "cash" and cash_explained:
        fits = [one for one in found if one.cash]
    else:
        fits = []
    return fits[0] if fits else None


def _played(ledger: Side, symbol: str, trades: Sequence[Explanation]) -> Holding:
    events = [
        Traded(execution.execution_id, symbol, execution.change, execution.price, execution.at)
        for one in trades
        for execution in one.executions
        if execution.corrects is None
    ]
    held: Mapping[str, Holding] = {symbol: _held(ledger, symbol)}
    return History.of(held, events).holdings()[symbol]


def _held(side: Side, symbol: str) -> Holding:
    return side.positions.get(symbol, Holding())
