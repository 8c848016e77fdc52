"""`quant halt` and `quant resume`: whether the book may trade, kept in the ledger with who, why and when.

Belongs here: the two commands. Does not belong here: what a halt does (`orders/halting.py`).

The ledger's row is written first and alone stops every process that sends. What a halt asks of the broker
is done next, under the account's lock; where that cannot be had now, the next pass does it.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from quant_resources.errors import BrokerError, ConfigurationError
from quant_resources.ledger.ledger import LedgerBusyError
from quant_resources.settings import Settings, load_settings

if TYPE_CHECKING:
    from quant_assets.orders.trading_desk import TradingDesk
    from quant_resources.ledger.account_book import TradingStatus
    from quant_resources.ledger.ledger import Ledger

#: A pass that is under way sees the halt at its next order, and is soon done.
_LOCK_WAIT_SECONDS = 30.0
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the ledger.")]


def halt(
    reason: Reason,
    reducing: Annotated[
        bool, typer.Option("--reducing", help="Still allow orders that make positions smaller.")
    ] = False,
    cancel_orders: Annotated[
        bool,
        typer.Option(
            "--cancel-orders", help="Cancel open orders too; protective legs of brackets stay."
        ),
    ] = False,
    suspend_at_broker: Annotated[
        bool,
        typer.Option(
            "--suspend-at-broker", help="Set the broker's own switch too; `quant resume` resets it."
        ),
    ] = False,
) -> None:
    """Stop the book from sending orders, at once and until `quant resume`."""
    from quant_assets.cli.platform import ledger_only
    from quant_assets.definitions import trading_policy
    from quant_assets.orders import halting

    settings, console = load_settings(), Console()
    with ledger_only(settings) as ledger:
        before = halting.halt(
            ledger,
            settings.book,
            reason,
            getpass.getuser(),
            reducing=reducing,
            cancel_orders=cancel_orders,
            suspend_at_broker=suspend_at_broker,
        )
        after = _status(ledger, settings.book)
        _show(console, settings.book, before, after)
        asked = halting.asks_broker(after, trading_policy(settings))
    if asked:
        _carry_out(settings, console)


def resume(
    reason: Reason,
    reducing: Annotated[
        bool, typer.Option("--reducing", help="Allow only orders that make positions smaller.")
    ] = False,
) -> None:
    """Let the book trade again; the broker's switch is reset first, if it was set by a halt of ours."""
    from quant_assets.cli.platform import ledger_only
    from quant_assets.orders import halting

    settings, console = load_settings(), Console()
    with ledger_only(settings) as ledger, ExitStack() as opened:
        before = halting.resume(
            ledger,
            settings.book,
            reason,
            getpass.getuser(),
            lambda: opened.enter_context(_desk(settings)),
            reducing=reducing,
        )
        _show(console, settings.book, before, _status(ledger, settings.book))


def _carry_out(settings: Settings, console: Console) -> None:
    from quant_assets.orders import halting

    try:
        with _desk(settings) as desk:
            if not desk.sends:
                raise ConfigurationError(
                    f"Book {settings.book} is HALTED, but in mode dry_run nothing at the broker is changed: "
                    "its orders and its switch are as they were. Set QUANT_TRADING_MODE to the mode that "
                    "trades, and give the command again."
                )
            done = halting.carry_out(desk)
            suspended = desk.broker.is_suspended()
    except LedgerBusyError:
        console.print(
            "Another process is trading the account: it sends nothing more, and at its end it does at the "
            "broker what the halt asks for.",
            highlight=False,
        )
        return
    except BrokerError as error:
        raise BrokerError(
            f"Book {settings.book} is HALTED, but the broker did not do what the halt asks for: {error} Every "
            "pass tries again."
        ) from error
    console.print(
        f"{len(done.cancelled)} open order(s) are being cancelled; the broker's own switch is "
        f"{'set' if suspended else 'not set'}.",
        highlight=False,
    )
    if done.problem:
        raise BrokerError(
            f"Book {settings.book} is HALTED, but {done.problem}; every pass tries again."
        )


@contextmanager
def _desk(settings: Settings) -> Iterator[TradingDesk]:
    from quant_assets.cli.platform import running_platform
    from quant_assets.definitions import trading_policy
    from quant_assets.orders.trading_desk import trading_desk

    with (
        running_platform(settings) as platform,
        trading_desk(
            platform.ledger, platform.broker, trading_policy(settings), _LOCK_WAIT_SECONDS
        ) as desk,
    ):
        yield desk


def _status(ledger: Ledger, book: str) -> TradingStatus:
    from quant_resources.ledger.account_book import trading_status

    with ledger.begin() as transaction:
        return trading_status(transaction, book)


def _show(console: Console, book: str, before: TradingStatus, after: TradingStatus) -> None:
    console.print(
        f"Book {book}: {before.state} → {after.state}, by {after.changed_by}, "
        f"{_when(after)}: {after.reason}",
        markup=False,
        highlight=False,
    )
    if before.changed_at is not None:
        console.print(
            f"It was {before.state} by {before.changed_by} since {_when(before)}: {before.reason}",
            markup=False,
            highlight=False,
        )


def _when(status: TradingStatus) -> str:
    return (
        "-" if status.changed_at is None else f"{status.changed_at.astimezone():%Y-%m-%d %H:%M %Z}"
    )
