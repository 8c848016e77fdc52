"""`quant orders`: what was decided for a trading session and what became of it; `quant limits`: the bounds."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from quant_assets.cli.shown import print_rows
from quant_resources.errors import DataError
from quant_resources.settings import load_settings

if TYPE_CHECKING:
    from quant_resources.ledger.order_tables import OrderIntent

_BOUNDS_OF_OTHER_NAMES = {
    "position_size": "position_notional",
    "stale_quote": "quote_age_minutes",
    "buying_power": "buying_power_reserve",
}


def orders(
    session: Annotated[
        datetime | None,
        typer.Argument(formats=["%Y-%m-%d"], help="Trading session; the newest by default."),
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="Orders on one symbol.")] = None,
    state: Annotated[
        str | None, typer.Option(help="Orders in one state, such as refused or ambiguous.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show every order of a trading session: its state, and the limit that stopped it."""
    from sqlalchemy import func, select

    from quant_assets.cli.platform import ledger_only
    from quant_resources.ledger import order_book
    from quant_resources.ledger.order_states import OrderState
    from quant_resources.ledger.order_tables import OrderBatch

    settings, console = load_settings(), Console()
    if state is not None and state not in set(OrderState):
        raise DataError(f"{state!r} is no state of an order; states are {', '.join(OrderState)}.")
    with ledger_only(settings) as ledger, ledger.begin() as transaction:
        day = (
            session.date()
            if session
            else transaction.scalar(
                select(func.max(OrderBatch.trading_session)).where(OrderBatch.book == settings.book)
            )
        )
        batch = order_book.newest_batch(transaction, settings.book, day) if day else None
        if batch is None:
            raise DataError(
                f"Book {settings.book} has no orders"
                + (f" for {day}" if day else " yet")
                + "; `quant trade` makes them."
            )
        intents = order_book.intents_of(transaction, batch.batch_id)
    chosen = [
        intent
        for intent in intents
        if (symbol is None or intent.symbol == symbol.upper())
        and (state is None or intent.state == state)
    ]
    title = f"{batch.trading_session}, book {batch.book}, attempt {batch.attempt}, {batch.mode}"
    rows = [_row(intent) for intent in chosen]
    if not as_json:
        # Why it was ordered is `quant explain`'s; here a line must stay a line.
        for row, intent in zip(rows, chosen, strict=True):
            row["reason"] = intent.reason if intent.state == OrderState.REFUSED else ""
            if not any(one.limit_name for one in chosen):
                del row["limit"], row["reason"]
    print_rows(console, title, rows, as_json)
    if not as_json:
        counts = Counter(intent.state for intent in intents)
        console.print(
            f"{len(intents)} orders: {', '.join(f'{n} {name}' for name, n in counts.most_common())}. "
            "`quant explain ORDER` traces one back to its bars.",
            highlight=False,
        )


def limits(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show the pre-trade limits in force: what each refuses, and its bound."""
    from quant_assets.definitions import trading_policy
    from quant_assets.orders.limits import LIMITS

    policy = trading_policy(load_settings())
    bounds = policy.limits.model_dump()
    rows = [
        {
            "limit": limit.name,
            "bound": _bound(bounds, limit.name),
            "refuses": (inspect.getdoc(type(limit)) or "").partition("\n")[0],
        }
        for limit in LIMITS
    ]
    print_rows(Console(), f"Limits of book {policy.book}, mode {policy.mode}", rows, as_json)


def _bound(bounds: Mapping[str, Any], name: str) -> str:
    """The bound as it is set; a limit without one asks yes or no."""
    value = bounds.get(_BOUNDS_OF_OTHER_NAMES.get(name, name), "")
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _row(intent: OrderIntent) -> dict[str, Any]:
    style = intent.order_type if intent.limit_price is None else f"limit {intent.limit_price:f}"
    measured = (
        f"{intent.limit_name}: {intent.limit_value:f} against {intent.limit_bound:f}"
        if intent.limit_value is not None and intent.limit_bound is not None
        else ""
    )
    return {
        "client_order_id": intent.client_order_id,
        "symbol": intent.symbol,
        "leg": intent.leg,
        "side": intent.side,
        "quantity": intent.quantity,
        "style": f"{style} {intent.time_in_force}",
        "state": intent.state,
        "limit": measured,
        "reason": intent.reason,
    }
