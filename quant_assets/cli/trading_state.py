"""`quant halt` and `quant resume`: whether the book may trade, kept in the ledger."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer
from rich.console import Console

from quant_resources.settings import load_settings

Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the ledger.")]


def halt(
    reason: Reason,
    reducing: Annotated[
        bool, typer.Option("--reducing", help="Still allow orders that make positions smaller.")
    ] = False,
) -> None:
    """Stop the book from sending orders, at once and until `quant resume`."""
    _change("REDUCING" if reducing else "HALTED", reason)


def resume(reason: Reason) -> None:
    """Let the book trade again."""
    _change("ACTIVE", reason)


def _change(state: str, reason: str) -> None:
    from quant_assets.cli.platform import ledger_only
    from quant_resources.ledger.account_book import set_trading_status, trading_status

    settings = load_settings()
    with ledger_only(settings) as ledger, ledger.begin() as transaction:
        before = trading_status(transaction, settings.book)
        set_trading_status(transaction, settings.book, state, reason, getpass.getuser())  # pyright: ignore[reportArgumentType]
    Console().print(f"Book {settings.book}: {before.state} → {state}.")
